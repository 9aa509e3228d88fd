# shellcheck shell=bash
# shellcheck disable=SC2154 # launch/common.sh sets these variables.
# The commands of gcloud that launch/tpu.sh runs, one function each.

queued() {
  local what=$1
  shift
  run gcloud compute tpus queued-resources "$what" "$@" \
    --project="$PROJECT" --zone="$ZONE"
}

create_resource() {
  local flags=()
  read -ra flags <<< "$CREATE_FLAGS"
  [[ $SPOT != 1 ]] || flags+=(--spot)
  # A request expires, so that it is not granted when nobody waits for it any more. The
  # watcher deletes it before that, and so can tell an expired request from a failed one.
  queued create "$NAME" --node-id="$NAME" --accelerator-type="$ACCELERATOR_TYPE" \
    --runtime-version="$RUNTIME_VERSION" --valid-until-duration="$((WAIT_SECONDS + 3600))s" \
    "${flags[@]}"
}

describe() { queued describe "$NAME" --format='value(state.state)'; }

delete_resource() { queued delete "$NAME" --force --quiet; }

# on_workers WORKERS COMMAND [AT-ONCE]
on_workers() {
  queued ssh "$NAME" --worker="$1" --batch-size="${3:-all}" --command="$2"
}

# worker_script WORD...: prints the command that runs launch/worker.sh on a worker.
worker_script() {
  local words=(env)
  [[ -z $WORKER_PYTHON ]] || words+=(WORKER_PYTHON="$WORKER_PYTHON")
  case $1 in
    setup) words+=(PACKAGES="$PACKAGES" PYTHON_VERSION="$PYTHON_VERSION") ;;
    start) words+=(JOB="$(job)" STOP_SECONDS="$STOP_SECONDS") ;;
    stop) words+=(STOP_SECONDS="$STOP_SECONDS") ;;
  esac
  ((${#words[@]} > 1)) || words=()
  quoted "${words[@]}" bash "$WORKER_DIR/launch/worker.sh" "$@"
}

# Resolves REF to a commit once, so that later commits are not sent.
pin() {
  dry || [[ -n $REPO ]] ||
    REF=$(git rev-parse --quiet --verify "${REF:-HEAD}^{commit}") ||
    fail 2 "there is no commit ${REF:-HEAD} here to send: set REPO and REF"
}

# A fingerprint of the run: of its arguments and commit.
job() {
  if dry; then
    echo JOB
  else
    printf '%s\0' "$REPO" "$REF" "${args[@]}" | git hash-object --stdin
  fi
}

# Sends the committed code: from REPO at REF, or from this checkout.
send_code() {
  local fresh
  fresh="rm -rf $(quoted "$WORKER_DIR") &&"
  if [[ -n $REPO ]]; then
    on_workers all "$fresh $(quoted git clone --quiet "$REPO" "$WORKER_DIR") && $(quoted \
      git -C "$WORKER_DIR" checkout --quiet "${REF:-HEAD}")"
    return
  fi
  local archive=build/launch/$NAME.tar.gz
  if ! dry; then
    git diff --quiet HEAD || say "changes that are not committed are not sent"
  fi
  run mkdir -p build/launch &&
    run git archive --format=tar.gz --output="$archive" "${REF:-HEAD}" &&
    queued scp "$archive" "$NAME:sws_jax.tar.gz" --worker=all --batch-size=all &&
    on_workers all "$fresh $(quoted mkdir -p "$WORKER_DIR") && $(quoted \
      tar -xzf sws_jax.tar.gz -C "$WORKER_DIR")"
}

setup_workers() {
  send_code && on_workers all "$(worker_script setup)"
}

start_run() { on_workers all "$(worker_script start "${args[@]}")"; }

# Prints a line for each worker: "sws_worker HOST bare|none|running JOB|ended CODE JOB".
# It asks a few workers at once, since of very many connections one may fail.
workers_state() {
  local script
  script=$(worker_script state)
  on_workers all "if [ -f $(quoted "$WORKER_DIR/launch/worker.sh") ]; then $script; \
else echo sws_worker \$(hostname) bare; fi" 16
}

commands_of_a_watch() {
  create_resource
  describe
  setup_workers
  start_run
  workers_state
}
