#!/usr/bin/env bash
# The main job, the benchmarks and the tests on a machine with an accelerator, timed, in
# one command:
#
#   launch/check_accelerator.sh OUT [CONFIG]
#
# OUT gets the job's results.csv, table.md and report.png, a log of each step, and
# summary.json with devices, versions, seconds and exit codes. CONFIG is
# configs/aux_deit.py; configs/smoke.py rehearses the script in a minute. PYTHON names
# the interpreter (python3), BENCHMARKS arguments such as --quick. The tests themselves
# run on eight virtual CPU devices.
set -uo pipefail
cd "$(dirname "$0")/.." || exit
out=${1:?"usage: launch/check_accelerator.sh OUT [CONFIG]"}
config=${2:-configs/aux_deit.py}
python=${PYTHON:-python3}
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

declare -A code seconds
timed() {
  local name=$1 start=$SECONDS
  shift
  "$@" > "$out/$name.log" 2>&1
  code[$name]=$?
  seconds[$name]=$((SECONDS - start))
  echo "$name: exit ${code[$name]} after ${seconds[$name]} s"
}

timed job "$python" -m sws_jax.main --config="$config" --workdir="$work/job"
for file in results.csv table.md report.png; do
  [ -f "$work/job/$file" ] && cp "$work/job/$file" "$out/"
done
timed bfloat16 "$python" -m sws_jax.main --config=configs/smoke.py \
  --config.compute.dtype=bfloat16 --workdir="$work/bfloat16"
# shellcheck disable=SC2086 # BENCHMARKS may be several words.
timed benchmarks "$python" -m benchmarks --out="$out/benchmarks.json" \
  ${BENCHMARKS:-}
timed tests "$python" -m pytest -n 8 --deselect tests/test_notebooks.py

"$python" - "$out/summary.json" "job ${code[job]} ${seconds[job]}" \
  "bfloat16 ${code[bfloat16]} ${seconds[bfloat16]}" \
  "benchmarks ${code[benchmarks]} ${seconds[benchmarks]}" \
  "tests ${code[tests]} ${seconds[tests]}" <<'PY'
import json
import sys

import flax
import jax
import optax

steps = {}
for text in sys.argv[2:]:
    name, code, seconds = text.split()
    steps[name] = {"exit": int(code), "seconds": int(seconds)}
versions = {m.__name__: m.__version__ for m in (jax, flax, optax)}
devices = [str(d.device_kind) for d in jax.devices()]
summary = {"devices": devices, "versions": versions, "steps": steps}
with open(sys.argv[1], "w") as file:
    json.dump(summary, file, indent=2)
print(json.dumps(summary))
PY
(( code[job] == 0 && code[bfloat16] == 0 && code[benchmarks] == 0 && code[tests] == 0 ))
