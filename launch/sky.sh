#!/usr/bin/env bash
# A run as a managed job of SkyPilot, on a TPU pod or on machines with GPUs:
#
#   launch/sky.sh task -- ARGUMENTS           prints the task
#   launch/sky.sh create --spend -- ARGUMENTS
#   launch/sky.sh logs | status
#   launch/sky.sh delete --delete             cancels the job
#
# ARGUMENTS are those of python -m sws_jax.main. SkyPilot finds other machines after a
# preemption, and starts again after exit codes 75 and 134. Settings:
# launch/settings.example.env.
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${SKY_NODES:=1}" "${SKY_INFRA:=gcp}" "${SKY_SPOT:=true}"
task_file=build/launch/$NAME.sky.yaml

# The hosts of a TPU pod find each other; machines with GPUs need the flags below.
command_line() {
  local words
  words=$(quoted .venv/bin/python -m sws_jax.main "${args[@]}")
  if [[ $SKY_ACCELERATORS != tpu-* ]] && ((SKY_NODES > 1)); then
    # SkyPilot sets these variables on each machine.
    # shellcheck disable=SC2016
    words+=' --coordinator="$(head -n 1 <<< "$SKYPILOT_NODE_IPS"):8476"'
    # shellcheck disable=SC2016
    words+=' --num_processes="$SKYPILOT_NUM_NODES" --process_id="$SKYPILOT_NODE_RANK"'
  fi
  echo "exec $words"
}

packages() {
  local build=cuda13
  [[ $SKY_ACCELERATORS != tpu-* ]] || build=tpu
  echo "${PACKAGES:-jax[$build] gcsfs>=2026.10,<2027}"
}

task() {
  render launch/sky.yaml NAME="$NAME" NODES:="$SKY_NODES" INFRA="$SKY_INFRA" \
    ACCELERATORS="$SKY_ACCELERATORS" SPOT:="$SKY_SPOT" RUN="$(command_line)" \
    SETUP="$(quoted env PACKAGES="$(packages)" bash launch/worker.sh setup)"
}

create() {
  if dry; then
    echo "$(quoted "$me" task -- "${args[@]}") > $(quoted "$task_file")"
  else
    mkdir -p "${task_file%/*}"
    task > "$task_file"
  fi
  run sky jobs launch --name="$NAME" --yes --detach-run "$task_file"
}

parse "$@"
case $command in
  task | create)
    need_arguments
    need SKY_ACCELERATORS
    whole SKY_NODES
    [[ $SKY_SPOT == true || $SKY_SPOT == false ]] ||
      fail 2 "SKY_SPOT is true or false, and is '$SKY_SPOT'"
    ;;
  logs | status | delete) ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac
case $command in
  create) costs "a managed job" ;;
  delete) deletes "$NAME" ;;
esac
[[ $command == task ]] || tool sky "pip install 'skypilot[gcp]'"
case $command in
  task) task ;;
  create) create ;;
  logs) run sky jobs logs --name="$NAME" ;;
  status) run sky jobs queue ;;
  delete) run sky jobs cancel --name="$NAME" --yes ;;
esac
