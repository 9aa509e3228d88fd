#!/usr/bin/env bash
# Several processes on this machine, started again while their exit codes say so:
#
#   PROCESSES=2 launch/local.sh -- --config=configs/smoke.py --workdir=runs/two
#
# All that follows '--' belongs to python -m sws_jax.main. PROCESSES (1) is how many;
# GPUS_PER_PROCESS gives each so many GPUs of its own; COORDINATOR_PORT is a free port
# unless it is set; MAX_RESTARTS (20) and DRY_RUN=1 as everywhere. SIGTERM and Ctrl-C go
# to every process, which save and end; nothing is started again then.
#
# exit codes: those of python -m sws_jax.main; 75 too where there were too many restarts.
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${PROCESSES:=1}" "${GPUS_PER_PROCESS:=}" "${COORDINATOR_PORT:=}"

free_port() {
  "$PYTHON" -c 'import socket
with socket.create_server(("", 0)) as taken:
    print(taken.getsockname()[1])'
}

# one INDEX PORT: sets `process` to the command of a process.
one() {
  local words=() first
  if [[ -n $GPUS_PER_PROCESS ]]; then
    first=$(($1 * GPUS_PER_PROCESS))
    words+=(env "CUDA_VISIBLE_DEVICES=$(seq -s , $first $((first + GPUS_PER_PROCESS - 1)))")
  fi
  words+=("$PYTHON" -m sws_jax.main "${args[@]}")
  if ((PROCESSES > 1)); then
    words+=(--coordinator="localhost:$2" --num_processes="$PROCESSES" --process_id="$1")
  fi
  process=("${words[@]}")
}

# start PORT: starts all processes, each in a group of its own, so that a Ctrl-C at the
# terminal reaches them once, from here. A second one would end them without saving.
start() {
  pids=()
  local index
  set -m
  for ((index = 0; index < PROCESSES; index++)); do
    one "$index" "$1"
    if dry; then
      quoted "${process[@]}"
    else
      "${process[@]}" < /dev/null &
      pids+=($!)
    fi
  done
  set +m
  # A signal may have come while they were being started.
  [[ -z $stopped ]] || pass_on TERM
}

stopped='' signalled=''
pass_on() {
  stopped=yes signalled=yes
  kill -"$1" "${pids[@]}" 2> /dev/null || true
}

# A signal ends `wait` early, which is then repeated.
codes_of_all() {
  codes=()
  local pid code
  for pid in "${pids[@]}"; do
    while :; do
      signalled='' code=0
      wait "$pid" || code=$?
      [[ -n $signalled ]] || break
    done
    codes+=("$code")
  done
}

main() {
  parse local "$@"
  need_arguments
  whole PROCESSES MAX_RESTARTS
  ((PROCESSES > 0)) || fail 2 "PROCESSES is at least 1"
  [[ -z $GPUS_PER_PROCESS ]] || whole GPUS_PER_PROCESS
  [[ -z $COORDINATOR_PORT ]] || whole COORDINATOR_PORT
  if dry; then
    start "${COORDINATOR_PORT:-PORT}"
    return 0
  fi
  trap 'pass_on TERM' TERM
  trap 'pass_on INT' INT
  local restarts=0 end
  while :; do
    # Each start takes another port, since the last one may still be in use.
    start "${COORDINATOR_PORT:-$(free_port)}"
    codes_of_all
    end=$(verdict "${codes[@]}")
    if [[ $end != 75 || -n $stopped ]]; then
      return "$end"
    fi
    ((restarts < MAX_RESTARTS)) ||
      fail 75 "the processes ended with ${codes[*]} after $restarts restarts (MAX_RESTARTS)"
    restarts=$((restarts + 1))
    say "the processes ended with ${codes[*]}: restart $restarts of at most $MAX_RESTARTS"
  done
}

case ${1:-} in
  -h | --help) usage ;;
  *) main "$@" ;;
esac
