# shellcheck shell=bash
# What the scripts of this folder share; each of them sources it.
#
# Settings are variables: those of the environment come first, then those of
# launch/settings.env (or of the file that SETTINGS names), then the defaults here.
# launch/settings.example.env lists them all. DRY_RUN=1 prints each command on a line
# of its own, and runs nothing.

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
me=launch/${0##*/}

# fail CODE SENTENCE
fail() {
  echo "$me: $2" >&2
  exit "$1"
}

say() { echo "$me: $*" >&2; }

if ((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] < 404)); then
  fail 2 "this needs bash 4.4 or newer, and is run by $BASH_VERSION"
fi

# Processes that start later, in another directory, need the whole path.
if [[ -n ${SETTINGS:-} && $SETTINGS != /* ]]; then export SETTINGS=$PWD/$SETTINGS; fi
# Variables of the environment override those of the file.
settings=${SETTINGS:-$here/settings.env}
if [[ -r $settings ]]; then
  before=$(export -p)
  set -a
  # shellcheck source=/dev/null
  . "$settings"
  set +a
  eval "$before"
elif [[ -n ${SETTINGS:-} ]]; then
  fail 2 "there is no settings file $SETTINGS"
fi

cd "$here/.." || exit

: "${DRY_RUN:=0}"
: "${NAME:=sws}"
if [[ -x .venv/bin/python ]]; then : "${PYTHON:=.venv/bin/python}"; fi
: "${PYTHON:=python3}"
: "${MAX_RESTARTS:=20}"

# flag VARIABLE...: each is 0 or 1. Other words are refused, since one such as "yes" would
# otherwise mean no.
flag() {
  local name
  for name in "$@"; do
    [[ ${!name} == [01] ]] || fail 2 "$name is 0 or 1, and is '${!name}'"
  done
}
flag DRY_RUN

# The pattern is the strictest of Kubernetes' and Cloud TPU's.
if [[ ! $NAME =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]]; then
  fail 2 "NAME is up to 40 small letters, digits and hyphens, a letter first, \
and is '$NAME'"
fi

# need VARIABLE...: ends with the names of those that are not set.
need() {
  local name missing=()
  for name in "$@"; do
    [[ -n ${!name:-} ]] || missing+=("$name")
  done
  ((${#missing[@]} == 0)) ||
    fail 2 "set ${missing[*]} in $settings or in the environment \
(launch/settings.example.env explains them)"
}

# whole VARIABLE...: each is a whole number, without a leading 0, which means octal to bash.
whole() {
  local name
  for name in "$@"; do
    [[ ${!name:-} =~ ^(0|[1-9][0-9]{0,8})$ ]] ||
      fail 2 "$name is a whole number, and is '${!name:-}'"
  done
}

# tool NAME HINT: ends with the hint where it is not installed, unless DRY_RUN is 1.
tool() {
  dry || command -v "$1" > /dev/null || fail 2 "there is no $1 on the PATH: $2"
}

dry() { [[ $DRY_RUN == 1 ]]; }

# quoted WORD...: prints the words on one line, quoted for a shell.
quoted() {
  local word line=()
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_@%+=:,./-]+$ ]] || word=${word@Q}
    line+=("$word")
  done
  echo "${line[*]}"
}

# run COMMAND...: runs it, or prints it if DRY_RUN is 1.
run() {
  if dry; then quoted "$@"; else "$@"; fi
}

# parse COMMAND [--spend] [--delete] [-- ARGUMENTS of python -m sws_jax.main]
# shellcheck disable=SC2034 # those who source this use them
parse() {
  command=${1:-}
  spend='' delete='' args=()
  (($# == 0)) || shift
  while (($#)); do
    case $1 in
      --spend) spend=yes ;;
      --delete) delete=yes ;;
      --)
        shift
        args=("$@")
        return
        ;;
      *)
        fail 2 "it takes --spend, --delete, and what belongs to sws_jax.main after '--', \
not '$1'"
        ;;
    esac
    shift
  done
}

# costs WHAT: ends unless --spend was given.
costs() {
  [[ -n $spend ]] || dry ||
    fail 2 "$1 costs money: add --spend, or DRY_RUN=1 to see the commands"
}

# deletes WHAT: ends unless --delete was given.
deletes() {
  [[ -n $delete ]] || dry ||
    fail 2 "$1 is deleted: add --delete, or DRY_RUN=1 to see the commands"
}

# The arguments of the job have at least a config.
need_arguments() {
  local word
  for word in "${args[@]}"; do
    [[ $word != --config && $word != --config=* ]] || return 0
  done
  fail 2 "after '--' come the arguments of python -m sws_jax.main, \
--config=... among them"
}

# render TEMPLATE NAME=TEXT NAME:=JSON...
render() { "$PYTHON" "$here/render.py" "$@"; }

# verdict CODE...: prints one exit code for all processes of a job. 1, 2, 3 and 130 are
# the cause of its end, after which the others end with 75 or 134 because they lost a
# process; 75, and any code after a signal or a lost process, is a reason to start again.
verdict() {
  local code worst=0
  for code in "$@"; do
    case $code in
      1 | 2 | 3 | 130)
        echo "$code"
        return
        ;;
      0) ;;
      *) worst=75 ;;
    esac
  done
  echo "$worst"
}

# Prints the comment at the top of the script.
usage() {
  sed -n '2,/^[^#]/{/^[^#]/!s/^# \{0,1\}//p;}' "$here/${0##*/}"
  echo
}
