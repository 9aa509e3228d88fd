#!/usr/bin/env bash
# A run as a workload of XPK, on a cluster that it has made:
#
#   launch/xpk.sh create --spend -- ARGUMENTS
#   launch/xpk.sh status
#   launch/xpk.sh delete --delete
#
# ARGUMENTS are those of python -m sws_jax.main; the image is that of launch/gke.sh image.
# XPK makes a JobSet, which starts again after 75 and codes from 127 on, MAX_RESTARTS
# times. Settings: launch/settings.example.env.
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${GRACE_SECONDS:=120}"

xpk_workload() {
  local what=$1
  shift
  run xpk workload "$what" --cluster="$CLUSTER" --project="$PROJECT" --zone="$ZONE" "$@"
}

parse "$@"
case $command in
  create)
    need_arguments
    need ACCELERATOR_TYPE IMAGE
    whole MAX_RESTARTS GRACE_SECONDS
    costs "a TPU slice"
    ;;
  status) ;;
  delete) deletes "$NAME" ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac
need CLUSTER PROJECT ZONE
tool xpk "pip install xpk"
case $command in
  create)
    xpk_workload create --workload="$NAME" --tpu-type="$ACCELERATOR_TYPE" \
      --docker-image="$IMAGE" --max-restarts="$MAX_RESTARTS" --restart-on-exit-codes=75 \
      --termination-grace-period-seconds="$GRACE_SECONDS" \
      --command="$(quoted python -m sws_jax.main "${args[@]}")"
    ;;
  status) xpk_workload list --filter-by-job="$NAME" ;;
  delete) xpk_workload delete --workload="$NAME" --force ;;
esac
