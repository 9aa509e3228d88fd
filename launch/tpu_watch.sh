# shellcheck shell=bash
# shellcheck disable=SC2154 # what launch/common.sh sets
# The watcher of launch/tpu.sh; see there.

restarts=0 unreachable=0 setups=0 quota=0
pause_seconds=$QUOTA_SECONDS # doubles from one refusal to the next
waiting_since=''             # since when (of the watcher's life) there is no resource
stragglers_since=''          # since some workers have ended, and others have not
unknown_since=''             # since gcloud, or all workers, have not answered
errors=''                    # file with what the last command of gcloud said on stderr
worker_line='sws_worker [^ ]+ (bare|none|(running|ended [0-9]+) [0-9a-f-]+)'
begun=''                     # once the run has been started from here, or found to run

last_error() { grep -m 1 ERROR "$errors" || tail -n 1 "$errors"; }

# The end: over CODE SENTENCE.
over() {
  if [[ -n $delete ]]; then
    say "$2"
    delete_resource 2> "$errors" || [[ $(< "$errors") == *NOT_FOUND* ]] ||
      fail "$1" "$NAME could not be deleted, and may cost money: $(last_error)"
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

# The state of the resource; ABSENT where there is none, UNKNOWN where gcloud fails. (Its
# notices are on stderr, where they may follow the state.)
resource() {
  local said
  if said=$(describe 2> "$errors"); then
    tail -n 1 <<< "$said"
  elif [[ $(< "$errors") == *NOT_FOUND* || $(< "$errors") == *"was not found"* ]]; then
    echo ABSENT
  else
    echo UNKNOWN
  fi
}

# A request may have been made though gcloud says otherwise: the next look tells.
create_or_back_off() {
  local code=0 said
  create_resource 2> "$errors" || code=$?
  said=$(< "$errors")
  if ((code == 0)) || [[ $said == *ALREADY_EXISTS* ]]; then
    say "asked for $NAME ($ACCELERATOR_TYPE)"
    waiting_since=$SECONDS
    return
  fi
  # (2 is gcloud's code for words that it does not know.)
  if ((code == 2)) || [[ $said =~ PERMISSION_DENIED|INVALID_ARGUMENT ]]; then
    over 2 "gcloud does not create $NAME: $(last_error)"
  elif [[ ${said,,} == *quota* || $said == *RESOURCE_EXHAUSTED* ]]; then
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
  sleep "$pause_seconds"
  pause_seconds=$((pause_seconds * 2 < 3600 ? pause_seconds * 2 : 3600))
}

# no_answer WHO: the run may be well, and is let be.
no_answer() {
  unknown_since=${unknown_since:-$SECONDS}
  say "$1 does not answer: $(last_error)"
  ((SECONDS - unknown_since < WAIT_SECONDS)) ||
    over 5 "$1 has not answered for $WAIT_SECONDS s (WAIT_SECONDS)"
}

# Deleted with all that is left of it; the next round asks for another.
recreate() {
  say "$1: deletes it, and asks for another"
  delete_resource || say "$NAME cannot be deleted yet"
  waiting_since='' unreachable=0 stragglers_since='' setups=0
}

# wait_for STATE [GRANTED]: until there is another, and not for ever.
wait_for() {
  waiting_since=${waiting_since:-$SECONDS}
  ((SECONDS - waiting_since < WAIT_SECONDS)) && return
  # A request that is granted later would cost money unseen.
  [[ -n ${2:-} ]] || delete=yes
  over 4 "$NAME is still $1 after $WAIT_SECONDS s (WAIT_SECONDS)"
}

set_up_and_start() {
  if setup_workers; then begin; else tried "the workers cannot be set up"; fi
}

# The run, on workers that are set up.
begin() {
  if start_run; then begun=yes setups=0; else tried "the run cannot be started"; fi
}

tried() {
  setups=$((setups + 1))
  ((setups < SETUP_TRIES)) || over 5 "$1, tried $setups times (SETUP_TRIES)"
  say "$1: $setups of $SETUP_TRIES times"
}

# Some workers answer, and others do not.
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
  local said lines states ended all=yes
  waiting_since=''
  said=$(workers_state 2> "$errors") || all=''
  lines=$(grep -oE "$worker_line" <<< "$said") || {
    no_answer "$NAME" # (it may be this machine that is cut off)
    return
  }
  unknown_since=''
  [[ -n $all ]] || {
    lost_sight
    return
  }
  unreachable=0 quota=0 pause_seconds=$QUOTA_SECONDS
  lines=$(awk -v job="$(job)" '
    $3 == "ended" && $5 != job {$3 = "none"}
    $3 == "running" && $4 != job {$3 = "another"}
    {print}' <<< "$lines")
  states=$(awk '{print $3}' <<< "$lines" | sort -u)
  case $states in
    *another*)
      fail 2 "another run, of other arguments or another commit, is on $NAME, which is kept: \
end it with $me stop first"
      ;;
    *running*) begun=yes ;;
  esac
  # What an earlier run ended with is not the end of this one.
  [[ -n $begun ]] || {
    set_up_and_start
    return
  }
  mapfile -t ended < <(awk '$3 == "ended" {print $4}' <<< "$lines")
  case $states in
    *bare*) set_up_and_start ;;
    *none*) begin ;;
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
      begin
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
    1 | 2) all_ended "$@" ;;
    *) ((SECONDS - stragglers_since >= STRAGGLER_SECONDS)) || return 0 ;;&
    130) all_ended "$@" ;;
    *) all_ended 75 "$2 on some workers" ;;
  esac
}

watch() {
  if dry; then
    commands_of_a_watch
    return
  fi
  trap 'fail 130 "the watcher has ended; $NAME goes on, with its run, and costs money"' \
    INT TERM
  errors=$(mktemp)
  trap 'rm -f "$errors"' EXIT
  local found
  while :; do
    found=$(resource)
    [[ $found == UNKNOWN || $found == ACTIVE ]] || unknown_since=''
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
      CREATING | ACCEPTED | PROVISIONING | WAITING_FOR_RESOURCES) wait_for "$found" ;;
      SUSPENDING | DELETING) wait_for "$found" granted ;;
      *) no_answer gcloud ;;
    esac
    sleep "$POLL_SECONDS"
  done
}
