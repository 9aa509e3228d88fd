"""The first and the last of a command."""

import ast
import io
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from sws_jax.runtime import entry
from sws_jax.storage import files, unfinished

ROOT = pathlib.Path(__file__).parent.parent
PROGRAMS = (
    "sws_jax/main.py",
    "sws_jax/__main__.py",
    "benchmarks/__main__.py",
    "benchmarks/accelerator/__main__.py",
)


@pytest.fixture
def listening():
    """Ctrl-C as a process has it that has just started."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_is_imported_before_ctrl_c_is_answered(name):
    body = ast.parse((ROOT / name).read_text()).body
    texts = [ast.unparse(node) for node in body]
    begun = texts.index("if __name__ == '__main__':\n    entry.begin()")
    imports = [t for t in texts[:begun] if t.startswith(("import", "from"))]
    assert imports == [
        "from __future__ import annotations",
        "from sws_jax.runtime import entry",
    ]
    program = (
        "import sys; before = set(sys.modules); import sws_jax.runtime.entry; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    loaded = done.stdout.split()
    assert "signal" in loaded, done.stderr
    assert not {"numpy", "jax", "ml_collections", "argparse"} & set(loaded)
    assert len(loaded) < 80, loaded


@pytest.mark.parametrize("encoding", ["ascii", "utf-8", "latin-1", "cp1252"])
def test_a_name_that_a_stream_cannot_show_is_escaped(encoding, listening, monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
    entry.begin()
    print("caf\xe9 \u732b \udce9", flush=True)
    shown = raw.getvalue()
    assert b"caf" in shown and b"\\udce9" in shown
    assert (b"\\u732b" in shown) == (encoding != "utf-8")
    assert (b"caf\\xe9" in shown) == (encoding == "ascii")


def test_streams_that_are_no_files_are_left_alone(listening, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    entry.begin()


def test_ctrl_c_ends_the_process_in_one_line(listening, monkeypatch, tmp_path):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(os, "write", lambda handle, text: ended.append(text))
    entry.begin()
    (tmp_path / "out.json").write_text("before")
    with pytest.raises(files.Unwritable):
        with files.replacing(str(tmp_path / "out.json")) as temporary:
            pathlib.Path(temporary).write_text("half of")
            os.kill(os.getpid(), signal.SIGINT)
            assert os.listdir(tmp_path) == ["out.json"]
            raise OSError("the process has ended")
    assert (tmp_path / "out.json").read_text() == "before" and not unfinished.paths
    assert ended == [b"sws_jax: stopped by Ctrl-C\n", 130]


def test_an_ignored_ctrl_c_stays_ignored(listening):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    entry.begin()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
