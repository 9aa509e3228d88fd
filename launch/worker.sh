#!/usr/bin/env bash
# On a worker of a pod, sent there by launch/tpu.sh: makes Python ready, and keeps a run
# apart from the connection that started it.
#
#   launch/worker.sh setup              Python with what the run needs, in .venv
#   launch/worker.sh start ARGUMENTS    of python -m sws_jax.main; ends one that runs
#   launch/worker.sh state              none; running, or ended and its exit code; and JOB
#   launch/worker.sh stop               SIGTERM; after STOP_SECONDS what is left is killed,
#                                       and the state is ended 130, by hand
#   launch/worker.sh log LINES          the last lines of what it printed
#
# WORKER_PYTHON names a Python that has everything already, PACKAGES what is installed
# besides requirements.txt, PYTHON_VERSION which Python if the system's is older, and JOB
# the run, so that who looks can tell whose state it is.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
kept=../$(basename "$PWD").run # outlives a new copy of the code
python=${WORKER_PYTHON:-.venv/bin/python}

setup() {
  [[ -z ${WORKER_PYTHON:-} ]] || return 0
  local packages
  read -ra packages <<< "${PACKAGES:-jax[tpu] gcsfs>=2026.10,<2027}"
  if python3 -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))'; then
    python3 -m venv .venv
    .venv/bin/python -m pip install -q -r requirements.txt "${packages[@]}"
  else # The images of TPU VMs have an older Python.
    python3 -m pip install -q --user uv
    python3 -m uv venv -q --clear --python "${PYTHON_VERSION:-3.12}" .venv
    python3 -m uv pip install -q --python .venv/bin/python -r requirements.txt \
      "${packages[@]}"
  fi
}

booted() { cat /proc/sys/kernel/random/boot_id; }

# Whether the run lives. After a reboot its number may be that of another process.
lives() {
  [[ -f $kept/pid && $(< "$kept/boot") == "$(booted)" ]] &&
    kill -0 -- "-$(< "$kept/pid")" 2> /dev/null
}

start() {
  end
  mkdir -p "$kept"
  rm -f "$kept"/{exit,pid,by_hand}
  booted > "$kept/boot"
  echo "${JOB:--}" > "$kept/job"
  # A session of its own: neither the end of the connection nor its signals reach it.
  setsid bash launch/worker.sh attend "$@" >> "$kept/log" 2>&1 < /dev/null &
  echo $! > "$kept/pid"
  # Before it has its session, `state` would take it for lost.
  while kill -0 $! 2> /dev/null && ! lives; do sleep 0.02; done
}

# Runs, and then writes the exit code. The run does not inherit a trap that has a command.
attend() {
  trap : TERM
  local code=0
  "$python" -m sws_jax.main "$@" || code=$?
  echo "$code" > "$kept/exit.new"
  mv "$kept/exit.new" "$kept/exit"
}

# Also marks a run that has ended by itself, so that it is not started again.
stop() {
  [[ ! -f $kept/pid ]] || touch "$kept/by_hand"
  end
}

end() {
  lives || return 0
  local group left
  group=$(< "$kept/pid")
  kill -TERM -- "-$group"
  for ((left = ${STOP_SECONDS:-60} * 5; left > 0; left--)); do
    lives || return 0
    sleep 0.2
  done
  kill -KILL -- "-$group" 2> /dev/null || true
}

state() {
  local code=137 # of a run that was killed with its process group, or by a reboot
  local alive='' # determined first, since a run that ends after that leaves its code
  ! lives || alive=yes
  if [[ -f $kept/exit ]]; then
    code=$(< "$kept/exit")
  elif [[ -n $alive ]]; then
    echo "running $(< "$kept/job")"
    return
  elif [[ ! -f $kept/pid ]]; then
    echo none
    return
  fi
  [[ ! -f $kept/by_hand ]] || ((code <= 3)) || code=130
  echo "ended $code $(< "$kept/job")"
}

case ${1:-} in
  setup | start | stop | attend) "$@" ;;
  state) echo "sws_worker $(hostname) $(state)" ;;
  log) tail -n "$2" "$kept/log" ;;
  *) sed -n '2,/^set/{/^set/!s/^# \{0,1\}//p;}' "launch/${0##*/}" >&2; exit 2 ;;
esac
