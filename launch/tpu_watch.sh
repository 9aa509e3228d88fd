# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # what the parts of launch/tpu.sh share
# The watcher of launch/tpu.sh: the resource. launch/tpu_look.sh is about the run on it.

restarts=0 quota=0
pause_seconds=$QUOTA_SECONDS # doubles from one refusal to the next
waiting_since=''             # since when (of the watcher's life) it is not what it should be
unknown_since=''             # since gcloud, or all workers, have not answered
found=UNKNOWN                # what the resource was when that was last known
fate=''                      # kept, once it has been seen; doomed, once it is to be deleted
errors=''                    # file with what the last command of gcloud said on stderr

last_error() { grep -m 1 ERROR "$errors" || tail -n 1 "$errors"; }
missing() { [[ $(< "$errors") =~ NOT_FOUND|"was not found" ]]; }

# What is left, as far as is known.
remains() {
  local how="$me delete --delete"
  case $found in
    ABSENT) echo "there is no $NAME" ;;
    UNKNOWN) echo "$NAME, if it exists, costs money: $how" ;;
    CREATING | ACCEPTED | WAITING_FOR_RESOURCES)
      echo "the request for $NAME is kept, and costs money once it is granted: $how"
      ;;
    FAILED | SUSPENDED | DELETING) echo "$NAME is $found: $how" ;;
    *) echo "$NAME is kept, and costs money: $how" ;;
  esac
}

# The end: over CODE SENTENCE.
over() {
  [[ -n $delete && $found != ABSENT ]] || fail "$1" "$2 ($(remains))"
  say "$2"
  delete_resource 2> "$errors" || missing ||
    fail "$1" "$NAME could not be deleted, and may cost money: $(last_error)"
  exit "$1"
}

# One more restart, if it may be: again WHY.
again() {
  ((restarts < MAX_RESTARTS)) ||
    over 5 "$1, after $restarts restarts (MAX_RESTARTS)"
  restarts=$((restarts + 1))
  say "$1: restart $restarts of at most $MAX_RESTARTS"
}

# A sleep that a signal ends.
nap() {
  sleep "$1" &
  wait "$!"
}

# The state of the resource; ABSENT where there is none, UNKNOWN where gcloud fails. (Its
# notices are on stderr, where they may follow the state.)
resource() {
  local said
  if said=$(describe 2> "$errors"); then
    tail -n 1 <<< "$said"
  elif missing; then
    echo ABSENT
  else
    echo UNKNOWN
  fi
}

# A request may have been made though gcloud says otherwise: the next look tells.
create_or_back_off() {
  local code=0 said
  fate='' found=UNKNOWN
  create_resource 2> "$errors" || code=$?
  said=$(< "$errors")
  # (2 is gcloud's code for words that it does not know.)
  if ((code == 0)); then
    found=WAITING_FOR_RESOURCES waiting_since=$SECONDS
    say "asked for $NAME ($ACCELERATOR_TYPE)"
  elif ((code == 2)) || [[ $said =~ PERMISSION_DENIED|INVALID_ARGUMENT ]]; then
    found=ABSENT
    over 2 "gcloud does not create $NAME: $(last_error)"
  elif [[ ${said,,} == *quota* || $said == *RESOURCE_EXHAUSTED* ]]; then
    found=ABSENT
    back_off "no quota for $ACCELERATOR_TYPE: $(last_error)"
  else
    back_off "gcloud did not create $NAME: $(last_error)"
  fi
}

# Waits twice as long each time, up to an hour.
back_off() {
  quota=$((quota + 1))
  ((quota < QUOTA_TRIES)) || over 3 "$1; asked $quota times (QUOTA_TRIES)"
  say "$1; asks again in $pause_seconds s"
  nap "$pause_seconds"
  pause_seconds=$((pause_seconds * 2 < 3600 ? pause_seconds * 2 : 3600))
}

# no_answer SENTENCE: nobody can look. A run may be well all the same, and is let be.
no_answer() {
  unknown_since=${unknown_since:-$SECONDS} unreachable=0
  say "$1"
  ((SECONDS - unknown_since < WAIT_SECONDS)) && return
  case $found in
    ACTIVE | UNKNOWN) delete='' ;;
  esac
  over 5 "for $WAIT_SECONDS s (WAIT_SECONDS) $1"
}

# Until it is something else, and not for ever.
wait_for_another_state() {
  waiting_since=${waiting_since:-$SECONDS}
  ((SECONDS - waiting_since < WAIT_SECONDS)) && return
  case $found in
    SUSPENDING | DELETING) ;;
    *) delete=yes ;; # (A request that is granted later would cost money unseen.)
  esac
  over 4 "$NAME is $found after $WAIT_SECONDS s (WAIT_SECONDS)"
}

# Deleted, with all that is left of it; once it is gone, another is asked for.
recreate() {
  say "$1: deletes it, and asks for another"
  fate=doomed waiting_since='' unreachable=0 stragglers_since='' setups=0
  discard
}

discard() {
  wait_for_another_state
  if delete_resource 2> "$errors"; then
    found=ABSENT
  else
    say "$NAME cannot be deleted yet: $(last_error)"
  fi
}

# One look at the resource, and what follows from it.
look() {
  local now
  now=$(resource) || now=UNKNOWN # (where a signal ended it, too)
  case $now in
    ABSENT | DELETING) found=$now ;;
    CREATING | ACCEPTED | WAITING_FOR_RESOURCES | PROVISIONING | \
      ACTIVE | SUSPENDING | SUSPENDED | FAILED)
      found=$now fate=${fate:-kept}
      ;;
    UNKNOWN)
      no_answer "gcloud does not answer: $(last_error)"
      return
      ;;
    *)
      found=UNKNOWN
      no_answer "gcloud says that $NAME is '$now', which is no state known here"
      return
      ;;
  esac
  [[ $found == ACTIVE ]] || unknown_since=''
  case "$found $fate" in
    "ABSENT kept") over 130 "$NAME was deleted by another hand" ;;
    ABSENT*) create_or_back_off ;;
    DELETING* | SUSPENDING*) wait_for_another_state ;;
    *doomed) discard ;;
    ACTIVE*) look_at_workers ;;
    SUSPENDED*)
      again "$NAME is SUSPENDED, as after a preemption"
      recreate "$NAME is no more"
      ;;
    FAILED*) # for want of resources or of quota; or it has expired, unseen
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
