# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # The parts of launch/tpu.sh share these variables.
# The watcher of launch/tpu.sh: the resource. launch/tpu_look.sh is about the run on it.
# Times are seconds since the watcher was started.

restarts=0 quota=0
pause_seconds=$QUOTA_SECONDS # doubles from one refusal to the next
waiting_since=''             # since when it waits for another state of the resource
unknown_since=''             # since when gcloud, or all workers, have not answered
last_state=UNKNOWN           # of the resource
fate=''                      # kept, once it has been seen; doomed, if it is to be deleted
errors=''                    # file with the stderr of the last command of gcloud

last_error() { grep -m 1 ERROR "$errors" || tail -n 1 "$errors"; }
missing() { [[ $(< "$errors") =~ NOT_FOUND|"was not found" ]]; }

# Prints what remains and costs money, as far as is known.
remains() {
  local how="$me delete --delete"
  case $last_state in
    ABSENT) echo "there is no $NAME" ;;
    UNKNOWN) echo "$NAME, if it exists, costs money: $how" ;;
    CREATING | ACCEPTED | WAITING_FOR_RESOURCES)
      echo "the request for $NAME is kept, and costs money once it is granted: $how"
      ;;
    FAILED | SUSPENDED | DELETING) echo "$NAME is $last_state: $how" ;;
    *) echo "$NAME is kept, and costs money: $how" ;;
  esac
}

# end_watch CODE SENTENCE: ends the watcher.
end_watch() {
  [[ -n $delete && $last_state != ABSENT ]] || fail "$1" "$2 ($(remains))"
  say "$2"
  delete_resource 2> "$errors" || missing ||
    fail "$1" "$NAME could not be deleted, and may cost money: $(last_error)"
  exit "$1"
}

# again WHY: counts one more restart, unless that is one too many.
again() {
  ((restarts < MAX_RESTARTS)) ||
    end_watch 5 "$1, after $restarts restarts (MAX_RESTARTS)"
  restarts=$((restarts + 1))
  say "$1: restart $restarts of at most $MAX_RESTARTS"
}

# A sleep that a signal ends.
nap() {
  sleep "$1" &
  wait "$!"
}

# Prints the state of the resource; ABSENT where there is none, UNKNOWN where gcloud fails.
# Notices of gcloud are on stderr, or in lines before the state.
resource() {
  local output
  if output=$(describe 2> "$errors"); then
    tail -n 1 <<< "$output"
  elif missing; then
    echo ABSENT
  else
    echo UNKNOWN
  fi
}

# Requests the resource. A request may exist although gcloud fails: the next look shows it.
create_or_back_off() {
  local code=0 message
  fate='' last_state=UNKNOWN
  create_resource 2> "$errors" || code=$?
  message=$(< "$errors")
  # gcloud ends with 2 for an unknown argument.
  if ((code == 0)); then
    last_state=WAITING_FOR_RESOURCES waiting_since=$SECONDS
    say "asked for $NAME ($ACCELERATOR_TYPE)"
  elif ((code == 2)) || [[ $message =~ PERMISSION_DENIED|INVALID_ARGUMENT ]]; then
    last_state=ABSENT
    end_watch 2 "gcloud does not create $NAME: $(last_error)"
  elif [[ ${message,,} == *quota* || $message == *RESOURCE_EXHAUSTED* ]]; then
    last_state=ABSENT
    back_off "no quota for $ACCELERATOR_TYPE: $(last_error)"
  else
    back_off "gcloud did not create $NAME: $(last_error)"
  fi
}

# Waits twice as long each time, up to an hour.
back_off() {
  quota=$((quota + 1))
  ((quota < QUOTA_TRIES)) || end_watch 3 "$1; asked $quota times (QUOTA_TRIES)"
  say "$1; asks again in $pause_seconds s"
  nap "$pause_seconds"
  pause_seconds=$((pause_seconds * 2 < 3600 ? pause_seconds * 2 : 3600))
}

# no_answer SENTENCE: the state is unknown. The run may go on all the same, and is kept.
no_answer() {
  unknown_since=${unknown_since:-$SECONDS} unreachable=0
  say "$1"
  ((SECONDS - unknown_since < WAIT_SECONDS)) && return
  case $last_state in
    ACTIVE | UNKNOWN) delete='' ;;
  esac
  end_watch 5 "for $WAIT_SECONDS s (WAIT_SECONDS) $1"
}

# Waits for another state of the resource, for up to WAIT_SECONDS.
wait_for_another_state() {
  waiting_since=${waiting_since:-$SECONDS}
  ((SECONDS - waiting_since < WAIT_SECONDS)) && return
  case $last_state in
    SUSPENDING | DELETING) ;;
    *) delete=yes ;; # A request that is granted later would cost money unnoticed.
  esac
  end_watch 4 "$NAME is $last_state after $WAIT_SECONDS s (WAIT_SECONDS)"
}

# recreate WHY: deletes the resource; once it is gone, a look requests another.
recreate() {
  say "$1: deletes it, and asks for another"
  fate=doomed waiting_since='' unreachable=0 stragglers_since='' setups=0
  discard
}

discard() {
  wait_for_another_state
  if delete_resource 2> "$errors"; then
    last_state=ABSENT
  else
    say "$NAME cannot be deleted yet: $(last_error)"
  fi
}

# One look at the resource, and what follows from it.
look() {
  local now
  now=$(resource) || now=UNKNOWN # A signal may have ended the command.
  case $now in
    ABSENT | DELETING) last_state=$now ;;
    CREATING | ACCEPTED | WAITING_FOR_RESOURCES | PROVISIONING | \
      ACTIVE | SUSPENDING | SUSPENDED | FAILED)
      last_state=$now fate=${fate:-kept}
      ;;
    UNKNOWN)
      no_answer "gcloud does not answer: $(last_error)"
      return
      ;;
    *)
      last_state=UNKNOWN
      no_answer "gcloud says that $NAME is '$now', which is no state known here"
      return
      ;;
  esac
  [[ $last_state == ACTIVE ]] || unknown_since=''
  case "$last_state $fate" in
    "ABSENT kept") end_watch 130 "$NAME was deleted by another hand" ;;
    ABSENT*) create_or_back_off ;;
    DELETING* | SUSPENDING*) wait_for_another_state ;;
    *doomed) discard ;;
    ACTIVE*) look_at_workers ;;
    SUSPENDED*)
      again "$NAME is SUSPENDED, as after a preemption"
      recreate "$NAME is no more"
      ;;
    FAILED*) # without resources or quota, or because the request expired
      wait_for_another_state
      back_off "$NAME is FAILED"
      recreate "$NAME was not granted"
      ;;
    *) wait_for_another_state ;;
  esac
}

watch() {
  if dry; then
    commands_of_a_watch
    return
  fi
  errors=$(mktemp)
  trap 'rm -f "$errors"; kill $(jobs -p) 2> /dev/null || true' EXIT
  trap 'fail 130 "the watcher has ended, and nothing else ($(remains))"' INT TERM
  while :; do
    look
    nap "$POLL_SECONDS"
  done
}
