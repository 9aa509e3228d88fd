# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # The parts of launch/tpu.sh share these variables.
# The watcher of launch/tpu.sh: the run on a resource that is ACTIVE.

unreachable=0 setups=0
stragglers_since='' # since when some workers have ended, and others have not
worker_line='sws_worker [^ ]+ (bare|none|(running|ended [0-9]+) [0-9a-f-]+)'
begun=''            # yes, once this watcher has started the run or seen it running

set_up_and_start() {
  if setup_workers; then
    begin
  else
    count_setup_failure "the workers cannot be set up"
  fi
}

# Starts the run, on workers that are set up.
begin() {
  if start_run; then
    begun=yes setups=0
  else
    count_setup_failure "the run cannot be started"
  fi
}

# count_setup_failure SENTENCE: says so, or ends the watcher after SETUP_TRIES in a row.
count_setup_failure() {
  setups=$((setups + 1))
  ((setups < SETUP_TRIES)) || end_watch 5 "$1, tried $setups times (SETUP_TRIES)"
  say "$1: $setups of $SETUP_TRIES times"
}

# One look at the state of the run on all workers, and what follows from it.
look_at_workers() {
  local output lines states ended all=yes
  waiting_since=''
  output=$(workers_state 2> "$errors") || all=''
  lines=$(grep -oE "$worker_line" <<< "$output") || {
    # This machine itself may be cut off.
    no_answer "$NAME does not answer: $(last_error)"
    return
  }
  unknown_since=''
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
  [[ -n $all ]] || {
    some_are_silent "$states"
    return
  }
  unreachable=0 quota=0 pause_seconds=$QUOTA_SECONDS
  # The exit codes may still be those of an earlier run.
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

# some_are_silent STATES: those of the workers that answer. A host that is lost ends the
# run on the others within minutes; while it runs on one, only a connection has failed.
some_are_silent() {
  if [[ $1 == *running* ]]; then
    unreachable=0
    say "a worker does not answer, and the run goes on on others: $(last_error)"
    return
  fi
  unreachable=$((unreachable + 1))
  say "a worker cannot be reached, $unreachable of $UNREACHABLE_TRIES times"
  ((unreachable < UNREACHABLE_TRIES)) || {
    again "a worker cannot be reached"
    recreate "$NAME has lost a worker"
  }
}

# all_ended VERDICT CODES
all_ended() {
  stragglers_since=''
  case $1 in
    0) end_watch 0 "the run is finished" ;;
    75)
      again "the run ended with $2"
      begin
      ;;
    1) end_watch 1 "the run stopped with an error, which $me logs shows" ;;
    2) end_watch 2 "the run was refused, for what $me logs shows" ;;
    3) end_watch 6 "a device computed wrongly, which $me logs names" ;;
    *) end_watch "$1" "the run was stopped by hand" ;;
  esac
}

# some_ended VERDICT CODES: the other workers end soon, or the next start ends them.
some_ended() {
  stragglers_since=${stragglers_since:-$SECONDS}
  case $1 in
    1 | 2 | 3) all_ended "$@" ;;
    *) ((SECONDS - stragglers_since >= STRAGGLER_SECONDS)) || return 0 ;;&
    130) all_ended "$@" ;;
    *) all_ended 75 "$2 on some workers" ;;
  esac
}
