"""The command that runs jobs, and what it answers to mistakes."""

import argparse
import pathlib
import shlex

import pytest

from sws_jax import __main__ as tools
from sws_jax import errors, main
from sws_jax.jobs import reference
from sws_jax.runtime import signals
from sws_jax.storage import files, refusals
from sws_jax.training import replay

ROOT = pathlib.Path(__file__).parent.parent
CONFIGS = f"--config={ROOT}/configs"


@pytest.mark.parametrize(
    "command, words",
    [
        (["--workdir=x"], "--config=FILE is missing"),
        ([f"{CONFIGS}/nope.py"], "nope.py'; "),
        ([f"{CONFIGS}/scratch_deit.py", "--config.model.widht=3"], "config.model has"),
        ([f"{CONFIGS}/scratch_deit.py", "--config.seed=x"], "takes a whole number"),
        ([f"{CONFIGS}/scratch_deit.py", "--config.model.stages=3-3"], "(1,2,3)"),
        ([f"{CONFIGS}/scratch_deit.py:depth=0"], "model.depth must be at least 1"),
        ([f"{CONFIGS}/scratch_deit.py:variant=S/16"], "digits are 8 x 8 pixels"),
        ([f"{CONFIGS}/des_deit.py"], "needs learngene=..."),
        ([f"{CONFIGS}/des_deit.py:learngene=no.safetensors"], "no weights file no.saf"),
        ([f"{CONFIGS}/aux_deit.py:variant=S/16"], "give its teacher as teacher=PATH"),
        ([f"{CONFIGS}/aux_deit.py:stages=1,teacher=no.pt"], "no weights file no.pt"),
        ([f"{CONFIGS}/aux_deit.py:compare=all"], "untuned, tune, full"),
        ([f"{CONFIGS}/scratch_deit.py", "--config.data.source=nope"], "dataset 'nope'"),
        (
            [f"{CONFIGS}/scratch_deit.py", "--config.global_batch_size=12"],
            "global_batch_size 12 does not divide over 8 devices; take a multiple of 8",
        ),
        ([f"{CONFIGS}/scratch_deit.py", "--config.loss.kind=soft"], "needs a teacher"),
        (
            [f"{CONFIGS}/scratch_deit.py", "--config.model.width=65536"],
            "GiB of memory: take a smaller model",
        ),
        ([f"{CONFIGS}/smoke.py", "--num_processes=2"], "all three or none"),
        (
            [f"{CONFIGS}/smoke.py", "--start_timeout=soon"],
            "a whole number, and not 'soon'",
        ),
    ],
    ids=lambda v: "" if isinstance(v, str) else " ".join(v).replace(str(ROOT), ""),
)
def test_mistakes_are_answered_in_one_line(command, words, tmp_path, capsys):
    code = main.main([f"--workdir={tmp_path / 'work'}", *command])
    error = capsys.readouterr().err
    assert code == main.EXIT_REFUSED == 2
    assert error.startswith("sws_jax: ") and error.count("\n") == 1
    assert words in error
    assert "Traceback" not in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(flag, capsys):
    assert main.main([f"{CONFIGS}/nope.py", flag]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    for words in ("--config=FILE", "--workdir=DIR", "exit codes: 0 done; 1 ", "75 "):
        assert words in out
    assert out == f"{main.USAGE}\n{reference.listing()}"


def test_no_arguments_show_the_help_and_fail(capsys):
    assert main.main([]) == 2
    assert capsys.readouterr().out == main.USAGE


def test_the_tools_are_listed_with_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        tools.main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert set(tools.COMMANDS) == {
        "convert",
        "cost",
        "describe",
        "doctor",
        "evaluate",
        "predict",
        "prepare",
        "show_batch",
    }
    for name, module in tools.COMMANDS.items():
        assert f"  {name:<12}{module.HELP}\n" in out
        assert module.EXAMPLE in out
        assert module.EXAMPLE.startswith(f"python -m sws_jax {name} ")


@pytest.mark.parametrize("name", list(tools.COMMANDS))
def test_every_tool_explains_itself(name, capsys):
    """Every argument with its words, in the help of its own tool, and the example.

    It fails where an argument has no help, where it is hidden (`argparse.SUPPRESS`),
    and where the example has an option that the tool does not take.
    """
    with pytest.raises(SystemExit) as stop:
        tools.main([name, "--help"])
    assert stop.value.code == 0
    out = " ".join(capsys.readouterr().out.split())
    tool = tools.COMMANDS[name]
    assert tool.EXAMPLE in out and tool.HELP in out
    parser = argparse.ArgumentParser()
    tool.add_arguments(parser)
    arguments = [a for a in parser._actions if a.dest != "help"]
    assert arguments
    for argument in arguments:
        assert argument.help, argument
        words = argument.help % vars(argument)
        assert " ".join(words.split()) in out, argument
        assert all(option in out for option in argument.option_strings)
    words_of_example = shlex.split(
        tool.EXAMPLE.removeprefix(f"python -m sws_jax {name} ")
    )
    _, unknown = parser.parse_known_args(words_of_example)
    if parser.get_default("flags") == []:  # the rest is given to a run's own parser
        of_a_run = ("--config=", "--config.", "--workdir=")
        unknown = [word for word in unknown if not word.startswith(of_a_run)]
    assert unknown == []
    if name in ("evaluate", "predict", "show_batch"):
        assert any("--step" in argument.option_strings for argument in arguments)


@pytest.mark.parametrize("argv", [[], ["nope"], ["evaluate"], ["predict", "x"]])
def test_incomplete_tools_are_refused(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        tools.main(argv)
    assert stop.value.code == 2
    assert "usage: python -m sws_jax" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error, code",
    [
        (errors.UserError("no"), main.EXIT_REFUSED),
        (errors.Stopped("broken off"), main.EXIT_ERROR),
        (replay.Diverged("two results"), main.EXIT_DIVERGED),
        (files.Unwritable("run/file", OSError("full")), main.EXIT_ERROR),
        (files.Unsent("gs://b/file", OSError("no answer")), signals.EXIT_AGAIN),
        (refusals.Unreachable("gs://b cannot be reached"), signals.EXIT_AGAIN),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_an_error_ends_with(error, code, monkeypatch, capsys):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("sws_jax.jobs.execute.execute", fail)
    assert main.main([f"{CONFIGS}/smoke.py"]) == code
    assert capsys.readouterr().err.count("sws_jax: ") == 1
