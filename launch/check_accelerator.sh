#!/usr/bin/env bash
# An accelerator, checked and measured within eight minutes: is it right, how fast is it?
#
#   launch/check_accelerator.sh OUT [--toy] [--minutes=8] [--only=curves,steps]
#
# OUT gets results.json and table.md, which are whole after each row. --toy rehearses all
# of it on any machine, in two minutes on two CPU cores. --help lists the parts.
# PYTHON is an interpreter with requirements.txt and JAX for the device; timm is measured
# beside this project where PyTorch and timm are installed.
#
# exit codes: 0, 1 where something is wrong or crashed, 2 for a bad request. A target that
# is missed changes none of them.
set -euo pipefail
from=$PWD
# shellcheck source=launch/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case ${1:-} in
  '' | -h | --help)
    usage
    "$PYTHON" -m benchmarks.accelerator --help
    [[ -n ${1:-} ]] || exit 2
    ;;
  -*) fail 2 "the first word is the folder of the results, and is '$1'" ;;
  *)
    out=$1
    [[ $out == /* ]] || out=${from%/}/$out
    run "$PYTHON" -m benchmarks.accelerator "$out" "${@:2}"
    ;;
esac
