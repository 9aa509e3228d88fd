#!/usr/bin/env bash
# A run on a TPU slice of a GKE cluster that has the JobSet controller:
#
#   launch/gke.sh image --spend               builds launch/Dockerfile, and pushes it
#   launch/gke.sh manifest -- ARGUMENTS       prints the JobSet
#   launch/gke.sh create --spend -- ARGUMENTS
#   launch/gke.sh logs | status
#   launch/gke.sh delete --delete
#
# ARGUMENTS are those of python -m sws_jax.main. JobSet starts the hosts again, all
# together, MAX_RESTARTS times, but not after exit codes 1, 2, 3 and 130. Settings:
# launch/settings.example.env; the cluster is the one that kubectl is at.
set -euo pipefail
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
: "${NAMESPACE:=default}" "${GKE_SPOT:=0}" "${GRACE_SECONDS:=120}" "${LOG_LINES:=50}"
: "${SERVICE_ACCOUNT:=default}" "${PACKAGES:=jax[tpu] gcsfs>=2026.10,<2027}"

manifest() {
  local selector
  selector=$("$PYTHON" -c 'import json, sys
label = "cloud.google.com/gke-"
labels = {label + "tpu-accelerator": sys.argv[1], label + "tpu-topology": sys.argv[2]}
print(json.dumps(labels | ({label + "spot": "true"} if sys.argv[3] == "1" else {})))' \
    "$TPU_ACCELERATOR" "$TPU_TOPOLOGY" "$GKE_SPOT")
  # Kubernetes reads $$ in arguments as $, and $(NAME) as a variable.
  render launch/jobset.yaml NAME="$NAME" NAMESPACE="$NAMESPACE" IMAGE="$IMAGE" \
    HOSTS:="$HOSTS" CHIPS_PER_HOST="$CHIPS_PER_HOST" MAX_RESTARTS:="$MAX_RESTARTS" \
    GRACE_SECONDS:="$GRACE_SECONDS" SERVICE_ACCOUNT="$SERVICE_ACCOUNT" \
    NODE_SELECTOR:="$selector" -- "${args[@]//\$/\$\$}"
}

check_manifest() {
  need IMAGE TPU_ACCELERATOR TPU_TOPOLOGY HOSTS CHIPS_PER_HOST
  whole HOSTS CHIPS_PER_HOST MAX_RESTARTS GRACE_SECONDS
  flag GKE_SPOT
  [[ $TPU_TOPOLOGY =~ ^[1-9][0-9]*(x[1-9][0-9]*){1,2}$ ]] ||
    fail 2 "TPU_TOPOLOGY is as 16x16 or 4x4x4, and is '$TPU_TOPOLOGY'"
  local chips=$((${TPU_TOPOLOGY//x/*})) named=$((HOSTS * CHIPS_PER_HOST))
  ((chips == named)) ||
    fail 2 "a topology of $TPU_TOPOLOGY has $chips chips, and HOSTS times \
CHIPS_PER_HOST is $named"
}

create() {
  if dry; then
    echo "$(quoted "$me" manifest -- "${args[@]}") | $(quoted kubectl create --filename=-)"
  else
    # `kubectl apply` would do nothing where a JobSet of that name has ended.
    manifest | kubectl create --filename=- ||
      fail 1 "$NAME was not created; one that is there goes by $me delete --delete"
  fi
}

kube() { run kubectl "$@" --namespace="$NAMESPACE"; }

parse "$@"
case $command in
  manifest | create)
    need_arguments
    check_manifest
    ;;
  image) need IMAGE ;;
  logs | status | delete) ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac
case $command in
  create) costs "a TPU slice" ;;
  image) costs "an image in a registry" ;;
  delete) deletes "$NAME" ;;
esac
case $command in
  manifest) ;;
  image) tool docker "install Docker" ;;
  *)
    tool kubectl "install it, and name the cluster with \
'gcloud container clusters get-credentials'"
    ;;
esac
pods=jobset.sigs.k8s.io/jobset-name=$NAME
case $command in
  manifest) manifest ;;
  create) create ;;
  image)
    run docker build --file=launch/Dockerfile --build-arg=PACKAGES="$PACKAGES" \
      --tag="$IMAGE" .
    run docker push "$IMAGE"
    ;;
  logs) kube logs --selector="$pods" --tail="$LOG_LINES" --prefix ;;
  status)
    kube get jobset "$NAME"
    kube get pods --selector="$pods"
    ;;
  delete) kube delete jobset "$NAME" ;;
esac
