"""The first and the last of a command."""

import ast
import io
import os
import pathlib
import signal
import sys

import pytest

from sws_jax import entry

ROOT = pathlib.Path(__file__).parent.parent
PROGRAMS = ("sws_jax/main.py", "sws_jax/__main__.py", "benchmarks/__main__.py")


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
        "from sws_jax import entry",
    ]
    own = ast.parse((ROOT / "sws_jax/entry.py").read_text())
    found = [n.names[0].name for n in own.body if isinstance(n, ast.Import)]
    assert found == ["os", "signal", "sys"]


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


def test_ctrl_c_breaks_a_command_off_in_one_line(listening, capsys, monkeypatch):
    monkeypatch.setattr(entry, "_asked", [])
    entry.begin()

    def main():
        os.kill(os.getpid(), signal.SIGINT)
        return 0

    assert entry.command(main) == entry.EXIT_INTERRUPTED == 130
    assert capsys.readouterr().err == "sws_jax: stopped by Ctrl-C\n"
    assert signal.getsignal(signal.SIGINT) is entry._end  # nothing is waited for


def test_what_a_library_makes_of_ctrl_c_is_still_ctrl_c(listening, capsys, monkeypatch):
    monkeypatch.setattr(entry, "_asked", [])
    entry.begin()

    def main():
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except BaseException:
            raise ImportError("initializing the extension") from None

    assert entry.command(main) == 130
    assert capsys.readouterr().err == "sws_jax: stopped by Ctrl-C\n"
    monkeypatch.setattr(entry, "_asked", [])
    with pytest.raises(ImportError):
        entry.command(lambda: __import__("no_such_module"))


def test_ctrl_c_among_imports_ends_the_process(listening, monkeypatch):
    ended = []
    monkeypatch.setattr(os, "_exit", ended.append)
    monkeypatch.setattr(os, "write", lambda handle, text: ended.append(text))
    entry.begin()
    os.kill(os.getpid(), signal.SIGINT)
    assert ended == [b"sws_jax: stopped by Ctrl-C\n", 130]


def test_an_ignored_ctrl_c_stays_ignored(listening):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    entry.begin()
    assert entry.command(lambda: 3) == 3
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
