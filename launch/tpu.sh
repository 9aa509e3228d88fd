#!/usr/bin/env bash
# A run on a Cloud TPU VM or pod, by queued resources:
#
#   launch/tpu.sh plan -- ARGUMENTS              the memory sheet, and all commands
#   launch/tpu.sh create --spend                 asks for the resource
#   launch/tpu.sh setup                          sends the code, installs Python packages
#   launch/tpu.sh run -- ARGUMENTS               starts the run on all workers
#   launch/tpu.sh watch --spend [--delete] -- ARGUMENTS
#                                                all of that, and again after a preemption,
#                                                until the run is finished
#   launch/tpu.sh logs | status | stop
#   launch/tpu.sh delete --delete
#
# ARGUMENTS are those of python -m sws_jax.main. A run goes on where it stopped if
# --workdir is a place that outlives the workers. Settings: launch/settings.example.env.
#
# watch ends with 0: the run is finished; 1: it stopped with an error; 2: it was refused,
# or a setting is wrong; 3: there was no quota, or gcloud failed on and on; 4: the resource
# stayed waiting, or could not be deleted; 5: too many restarts, workers that cannot be set
# up, or no answer for WAIT_SECONDS; 6: a device computed wrongly; 130: the run was stopped,
# or the resource deleted, by hand. With --delete the resource is then deleted, unless it
# is ACTIVE and nobody could look; without it, it goes on costing money. Ctrl-C ends the
# watcher alone.
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${SPOT:=1}" "${CREATE_FLAGS:=}" "${REPO:=}" "${REF:=}" "${WORKER_DIR:=sws_jax}"
: "${WORKER_PYTHON:=}" "${PACKAGES:=jax[tpu] gcsfs>=2026.10,<2027}"
: "${WORKER:=0}" "${LOG_LINES:=50}"
: "${WAIT_SECONDS:=21600}" "${POLL_SECONDS:=60}" "${STRAGGLER_SECONDS:=180}"
: "${QUOTA_TRIES:=8}" "${QUOTA_SECONDS:=60}" "${UNREACHABLE_TRIES:=5}" "${SETUP_TRIES:=3}"
: "${STOP_SECONDS:=60}" "${PYTHON_VERSION:=3.12}"

# shellcheck source=launch/tpu_commands.sh
. "$here/tpu_commands.sh"
# shellcheck source=launch/tpu_watch.sh
. "$here/tpu_watch.sh"
# shellcheck source=launch/tpu_look.sh
. "$here/tpu_look.sh"

check() {
  need PROJECT ZONE ACCELERATOR_TYPE RUNTIME_VERSION
  whole MAX_RESTARTS WAIT_SECONDS STRAGGLER_SECONDS LOG_LINES
  whole QUOTA_TRIES QUOTA_SECONDS UNREACHABLE_TRIES SETUP_TRIES STOP_SECONDS
  flag SPOT
  [[ $POLL_SECONDS =~ ^[0-9]+(\.[0-9]+)?$ ]] ||
    fail 2 "POLL_SECONDS is a number of seconds, and is '$POLL_SECONDS'"
  # It is removed before the code is sent.
  [[ $WORKER_DIR =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*$ ]] ||
    fail 2 "WORKER_DIR is one plain name, and is '$WORKER_DIR'"
  [[ $command == plan ]] ||
    tool gcloud "install the Google Cloud CLI, and log in with 'gcloud auth login'"
}

# The devices, in the names that mesh.dry_run takes.
devices() {
  case $ACCELERATOR_TYPE in
    v5litepod-*) echo "v5e-${ACCELERATOR_TYPE#*-}" ;;
    v4-* | v5p-* | v6e-*) echo "$ACCELERATOR_TYPE" ;;
    *)
      fail 2 "the memory of $ACCELERATOR_TYPE is not known: take v4-N, v5litepod-N, v5p-N \
or v6e-N"
      ;;
  esac
}

# Warns of a work directory on the disks of workers, which are lost with them.
outlives() {
  [[ " ${args[*]} " != *" --workdir"[=\ ]gs://* ]] || return 0
  say "--workdir is not on gs://: all workers must see it, and a preemption \
must not take it away"
}

plan() {
  local dry_run
  dry_run=$(devices)
  echo "# what each device would hold and send"
  "$PYTHON" -m sws_jax.main "${args[@]}" --config.mesh.dry_run="$dry_run"
  DRY_RUN=1
  echo
  echo "# $me watch --spend -- ... runs these, and the last until the run is finished"
  commands_of_a_watch
  echo
  echo "# $me delete --delete"
  delete_resource
}

parse "$@"
case $command in
  plan | run | watch) need_arguments ;;
  create | setup | logs | status | stop | delete) ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac
case $command in
  create | watch) costs "a Cloud TPU" ;;
  delete) deletes "$NAME" ;;
esac
check
case $command in
  setup | run | watch) pin ;;
esac
case $command in
  plan) plan ;;
  create) create_resource ;;
  setup) setup_workers ;;
  run)
    outlives
    start_run
    ;;
  logs) on_workers "$WORKER" "$(worker_script log "$LOG_LINES")" ;;
  status)
    describe
    workers_state
    ;;
  stop) on_workers all "$(worker_script stop)" ;;
  watch)
    outlives
    watch
    ;;
  delete) delete_resource ;;
esac
