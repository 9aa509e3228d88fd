# shellcheck shell=bash
# shellcheck disable=SC2154 # what launch/common.sh sets
# The watcher of launch/tpu.sh; see there.

restarts=0 unreachable=0 setups=0 quota=0
pause_seconds=$QUOTA_SECONDS # doubles from one refusal to the next
waiting_since=''             # seconds of the watcher's life, while the resource is not there
stragglers_since=''          # since some workers have ended, and others have not
unknown_since=''             # since gcloud has not answered

# The end: over CODE SENTENCE.
over() {
  if [[ -n $delete ]]; then
    say "$2"
    delete_resource || fail "$1" "$NAME could not be deleted, and may cost money: $me delete --delete"
    exit "$1"
  fi
  fail "$1" "$2 ($NAME is kept and may cost money: $me delete --delete)"
}

# One more restart, if it may be: again WHY.
again() {
  ((restarts < MAX_RESTARTS)) ||
    over 5 "$1, after $restarts restarts (MAX_RESTARTS)"
  restarts=$((restarts + 1))
  say "$1: restart $restarts of at most $MAX_RESTARTS"
}

# The state of the resource; ABSENT where there is none, UNKNOWN where gcloud fails.
resource() {
  local said
  if said=$(describe 2>&1); then
    tail -n 1 <<< "$said"
  elif [[ $said == *NOT_FOUND* || $said == *"not found"* ]]; then
    echo ABSENT
  else
    say "gcloud: $(tail -n 1 <<< "$said")"
    echo UNKNOWN
  fi
}

create_or_back_off() {
  local said
  if said=$(create_resource 2>&1); then
    say "asked for $NAME ($ACCELERATOR_TYPE)"
    waiting_since=$SECONDS
    return
  fi
  said=$(tail -n 1 <<< "$said")
  [[ ${said,,} == *quota* || $said == *RESOURCE_EXHAUSTED* ]] ||
    fail 2 "gcloud does not create $NAME: $said"
  back_off "no quota for $ACCELERATOR_TYPE: $said"
}

# Waits twice as long each time, up to an hour.
back_off() {
  quota=$((quota + 1))
  ((quota < QUOTA_TRIES)) || fail 3 "$1; asked $quota times (QUOTA_TRIES)"
  say "$1; asks again in $pause_seconds s"
  sleep "$pause_seconds"
  pause_seconds=$((pause_seconds * 2 < 3600 ? pause_seconds * 2 : 3600))
}

# The run may be well, and is let be.
no_answer() {
  unknown_since=${unknown_since:-$SECONDS}
  ((SECONDS - unknown_since < WAIT_SECONDS)) ||
    over 5 "gcloud has not answered for $WAIT_SECONDS s (WAIT_SECONDS)"
}

# Deleted with all that is left of it; the next round asks for another.
recreate() {
  say "$1: deletes it, and asks for another"
  delete_resource || say "$NAME cannot be deleted yet"
  waiting_since='' unreachable=0 stragglers_since=''
}

# wait_for STATE: until it is there, and not for ever.
wait_for() {
  waiting_since=${waiting_since:-$SECONDS}
  ((SECONDS - waiting_since < WAIT_SECONDS)) && return
  delete=yes # a request that is granted later would cost money unseen
  over 4 "$NAME is still $1 after $WAIT_SECONDS s (WAIT_SECONDS)"
}

set_up_and_start() {
  if setup_workers; then
    setups=0
    start_run || lost_sight
    return
  fi
  setups=$((setups + 1))
  ((setups < SETUP_TRIES)) || over 5 "the workers cannot be set up, tried $setups times (SETUP_TRIES)"
}

lost_sight() {
  unreachable=$((unreachable + 1))
  say "a worker cannot be reached, $unreachable of $UNREACHABLE_TRIES times"
  ((unreachable < UNREACHABLE_TRIES)) || {
    again "a worker cannot be reached"
    recreate "$NAME has lost a worker"
  }
}

# What the run says on all workers decides.
look_at_workers() {
  local lines states ended
  waiting_since=''
  if ! lines=$(workers_state 2>&1) || [[ $lines != *sws_worker* ]]; then
    say "gcloud: $(tail -n 1 <<< "$lines")"
    lost_sight
    return
  fi
  lines=$(grep '^sws_worker ' <<< "$lines")
  unreachable=0 quota=0 pause_seconds=$QUOTA_SECONDS
  states=$(awk '{print $3}' <<< "$lines" | sort -u)
  mapfile -t ended < <(awk '$3 == "ended" {print $4}' <<< "$lines")
  case $states in
    *bare*) set_up_and_start ;;
    *none*) start_run || lost_sight ;;
    running) stragglers_since='' ;;
    ended) all_ended "$(verdict "${ended[@]}")" "${ended[*]}" ;;
    *) some_ended "$(verdict "${ended[@]}")" "${ended[*]}" ;;
  esac
}

# all_ended VERDICT CODES
all_ended() {
  stragglers_since=''
  case $1 in
    0)
      over 0 "the run is finished"
      ;;
    75)
      again "the run ended with $2"
      start_run || lost_sight
      ;;
    1) over 1 "the run stopped with an error, which $me logs shows" ;;
    2) over 2 "the run was refused, for what $me logs shows" ;;
    *) over "$1" "the run was stopped by hand" ;;
  esac
}

# Others are about to end, too; those that do not are ended by the next start.
some_ended() {
  stragglers_since=${stragglers_since:-$SECONDS}
  case $1 in
    0 | 75) ((SECONDS - stragglers_since < STRAGGLER_SECONDS)) || all_ended 75 "$2 on some workers" ;;
    *) all_ended "$@" ;;
  esac
}

watch() {
  if dry; then
    commands_of_a_watch
    return
  fi
  trap 'fail 130 "the watcher has ended; $NAME goes on, with its run, and costs money"' INT TERM
  local found
  while :; do
    found=$(resource)
    [[ $found == UNKNOWN ]] || unknown_since=''
    case $found in
      ABSENT) create_or_back_off ;;
      ACTIVE) look_at_workers ;;
      SUSPENDED)
        again "$NAME is SUSPENDED, as after a preemption"
        recreate "$NAME is no more"
        ;;
      FAILED) # for want of resources, or of quota
        back_off "$NAME is FAILED"
        recreate "$NAME was not granted"
        ;;
      UNKNOWN) no_answer ;;
      *) wait_for "$found" ;;
    esac
    sleep "$POLL_SECONDS"
  done
}
