#!/usr/bin/env bash
# What launch/slurm.sh submits, run by Slurm on the first node from the directory where it
# was submitted: a process for each GPU, and the job back in the queue if that is what
# their exit codes say.
set -euo pipefail
arguments=("$@")
# Slurm runs a copy of this script from another directory, so that the path is relative to
# the working directory.
# shellcheck source=launch/common.sh
. launch/common.sh
me=launch/slurm_job.sh

codes_folder=$PWD/build/launch/$SLURM_JOB_ID.codes
rm -rf "$codes_folder"
mkdir -p "$codes_folder"
# SIGTERM comes to all processes of a task; the shell ignores it, to write the exit code.
# shellcheck disable=SC2016
task='trap : TERM; code=0; "${@:2}" || code=$?
echo "$code" > "$1/$SLURM_PROCID"; exit "$code"'
# With these flags Slurm lets the other processes end by themselves when one has ended.
srun --kill-on-bad-exit=0 --wait=0 bash -c "$task" task "$codes_folder" \
  "$NODE_PYTHON" -m sws_jax.main "${arguments[@]}" || say "srun ended with $?"

mapfile -t codes < <(cat "$codes_folder"/* 2> /dev/null)
# A process that wrote no exit code was killed, or its node failed.
((${#codes[@]} == SLURM_NTASKS)) || codes+=(137)
rm -rf "$codes_folder"
end=$(verdict "${codes[@]}")
if [[ $end == 75 ]]; then
  before=${SLURM_RESTART_COUNT:-0}
  ((before < MAX_RESTARTS)) ||
    fail 75 "the processes ended with ${codes[*]} after $before restarts (MAX_RESTARTS)"
  say "the processes ended with ${codes[*]}: restart $((before + 1)) of at most $MAX_RESTARTS"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$end"
