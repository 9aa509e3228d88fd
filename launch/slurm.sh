#!/usr/bin/env bash
# A run on the GPUs of several nodes of a Slurm cluster:
#
#   launch/slurm.sh create --spend -- ARGUMENTS    submits it
#   launch/slurm.sh logs | status
#   launch/slurm.sh delete --delete                cancels it
#
# ARGUMENTS are those of python -m sws_jax.main. This checkout, its Python and --workdir
# are on a file system that all nodes see. The job is queued again when a node fails or it
# is preempted, and after exit codes 75 and 134; SIGTERM comes SIGNAL_SECONDS before the
# time is over, so that a run may be longer than TIME. Settings:
# launch/settings.example.env.
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${TIME:=24:00:00}" "${SBATCH_FLAGS:=}" "${SIGNAL_SECONDS:=120}" "${LOG_LINES:=50}"
: "${NODE_PYTHON:=.venv/bin/python}"

create() {
  local flags=()
  read -ra flags <<< "$SBATCH_FLAGS"
  run mkdir -p build/launch
  # A process for each GPU, which takes the one of its number on the node: that is how
  # JAX reads what srun sets, and why no GPU is bound to a task.
  run sbatch --job-name="$NAME" --nodes="$NODES" --ntasks="$((NODES * GPUS_PER_NODE))" \
    --ntasks-per-node="$GPUS_PER_NODE" --gpus-per-node="$GPUS_PER_NODE" --time="$TIME" \
    --signal="TERM@$SIGNAL_SECONDS" --requeue --open-mode=append \
    --output="build/launch/$NAME-%j.log" \
    --export="ALL,MAX_RESTARTS=$MAX_RESTARTS,NODE_PYTHON=$NODE_PYTHON" "${flags[@]}" \
    launch/slurm_job.sh "${args[@]}"
}

parse "$@"
case $command in
  create)
    need_arguments
    need NODES GPUS_PER_NODE
    whole NODES GPUS_PER_NODE MAX_RESTARTS SIGNAL_SECONDS
    costs "a Slurm job"
    tool sbatch "run this on a login node of the cluster"
    create
    ;;
  logs)
    shopt -s nullglob
    logs=(build/launch/"$NAME"-*.log)
    ((${#logs[@]})) || fail 2 "there is no log build/launch/$NAME-*.log yet"
    run tail -n "$LOG_LINES" "${logs[@]}"
    ;;
  status)
    tool squeue "run this on a login node of the cluster"
    run squeue --name="$NAME"
    ;;
  delete)
    deletes "$NAME"
    tool scancel "run this on a login node of the cluster"
    run scancel --me --name="$NAME"
    ;;
  -h | --help) usage ;;
  *) usage >&2; exit 2 ;;
esac
