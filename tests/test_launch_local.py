"""launch/local.sh with a stub in place of Python."""

import os
import signal
import subprocess
import time

import pytest

from support.children import ROOT

# A run that ends with the next exit code of its list, or waits for a signal.
PLAYED = """#!/usr/bin/env bash
list=$PLAYED/0
[[ "$*" != *--process_id=1* ]] || list=$PLAYED/1
echo "$@" >> "$list.arguments"
code=$(head -n 1 "$list")
sed -i 1d "$list"
if [[ $code == waits ]]; then
  trap 'exit 75' TERM
  trap 'exit 130' INT
  touch "$list.waits"
  for ((n = 0; n < 600; n++)); do sleep 0.05; done
fi
[[ $code != killed ]] || kill -9 $$
exit "$code"
"""


def begin(folder, *attempts, **variables):
    python = folder / "python"
    python.write_text(PLAYED)
    python.chmod(0o755)
    for index in range(2):
        lines = "".join(f"{codes[index]}\n" for codes in attempts)
        (folder / str(index)).write_text(lines)
    defaults = dict(PYTHON=str(python), PLAYED=str(folder), PROCESSES="2")
    defaults |= dict(COORDINATOR_PORT="1234", SETTINGS="/dev/null")
    return subprocess.Popen(
        [ROOT / "launch" / "local.sh", "--", "--config=x", "a  b"],
        env={**os.environ, **defaults, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process):
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.parametrize(
    "attempts, code, restarts",
    [
        ([(0, 0)], 0, 0),
        ([(75, 134), (134, "killed"), (0, 0)], 0, 2),
        ([(75, 75), (134, 2), (0, 0)], 2, 1),
        ([(1, 134)], 1, 0),
        ([(75, 3)], 3, 0),
        ([(75, 75)] * 4, 75, 2),
    ],
)
def test_what_is_started_again(tmp_path, attempts, code, restarts):
    status, errors = ended(begin(tmp_path, *attempts, MAX_RESTARTS="2"))
    assert (status, errors.count(" of at most 2")) == (code, restarts), errors
    lines = (tmp_path / "1.arguments").read_text().splitlines()
    flags = "--coordinator=localhost:1234 --num_processes=2 --process_id=1"
    assert lines == [f"-m sws_jax.main --config=x a  b {flags}"] * (restarts + 1)


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_reaches_all_and_starts_nothing(tmp_path, number, code):
    process = begin(tmp_path, ("waits", "waits"), (0, 0))
    waiting = [tmp_path / f"{index}.waits" for index in range(2)]
    while not all(path.exists() for path in waiting):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    status, errors = ended(process)
    assert status == code and "restart" not in errors, errors
    assert (tmp_path / "0").read_text() == (tmp_path / "1").read_text() == "0\n"
