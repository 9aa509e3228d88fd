"""From a command line to a config, every mistake answered in one sentence."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import operator
import os
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

import ml_collections
from absl import flags
from ml_collections.config_flags import config_flags

from sws_jax.errors import UserError
from sws_jax.estimate import budgets
from sws_jax.jobs import fields as table
from sws_jax.jobs import model_fields, recipes
from sws_jax.models import profiles
from sws_jax.storage import paths

PARALLEL = "--parallel"  # the flag
_WANTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    tuple: 'numbers like "(1,2,3)"',
}


def load(text: str) -> ml_collections.ConfigDict:
    """The config of ``FILE`` or ``FILE:ARG``.

    Raises:
      UserError: no such file, no config in it, or an argument it does not take.
    """
    return _config_of(text, *_function_of(text)).lock()


def _config_of(text: str, get_config, arg: str) -> ml_collections.ConfigDict:
    """What a config's function returns, with a user's own errors in one sentence."""
    try:
        config = get_config(arg or None)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  a config is the user's own code
        path = text.partition(":")[0]
        raise UserError(f"{path} makes no config: {error!r}") from error
    top_level = config if isinstance(config, ml_collections.ConfigDict) else {}
    missing = [key for key in recipes.job("single", name="") if key not in top_level]
    if missing:
        raise UserError(
            f"{text.partition(':')[0]} is no config: what get_config returns lacks "
            f"{', '.join(missing)}; start from sws_jax.jobs.recipes.job"
        )
    return config


def _function_of(text: str) -> tuple[Callable[[str | None], Any], str]:
    """The function of ``FILE:ARG`` that makes the config, and its argument."""
    path, _, arg = text.partition(":")
    if not os.path.isfile(path):
        folder = os.path.dirname(path) or "."
        known = sorted(f for f in _listdir(folder) if f.endswith(".py"))
        raise UserError(
            f"there is no config file {path!r}; {folder} has "
            f"{', '.join(known) or 'no config files'}"
        )
    module = _import(path)
    if not hasattr(module, "get_config"):
        raise UserError(f"{path} is no config: it has no function get_config")
    return module.get_config, arg


def parse(argv: list[str]) -> tuple[ml_collections.ConfigDict, str]:
    """Config and work directory of a command line.

    Args:
      argv: without the program's name.

    Returns:
      The config with its overrides, and the work directory.

    Raises:
      UserError: a file, field, value or flag that does not exist.
    """
    file_and_argument = _value_of(argv, "config")
    if file_and_argument is None:
        raise UserError("--config=FILE is missing; see --help")
    if sum(bool(re.match(r"--?config(=|$)", arg)) for arg in argv) > 1:
        raise UserError("--config is given twice: a command runs one config")
    get_config, argument = _function_of(file_and_argument)
    config = _config_of(file_and_argument, get_config, argument).lock()
    decided = _decided_by_argument(config, get_config, argument)
    rest = [arg for arg in argv if not re.match(r"--?config(=|$)", arg)]
    if "--config" in argv or "-config" in argv:  # its value is the next argument
        rest.remove(file_and_argument)
    names = named(rest)
    for name in names:
        _adopt(config, name)
        _check_field(config, name)
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", "", "work directory", flag_values=values)
    try:
        config_flags.DEFINE_config_dict(
            "config", config, flag_values=values, sys_argv=["sws_jax", *rest]
        )
        surplus = values(["sws_jax", *rest])[1:]
    except flags.UnrecognizedFlagError as error:
        raise UserError(
            f"there is no flag --{error.flagname}; the flags are --config, "
            f"--config.FIELD, --workdir, --parallel and, for one process of several, "
            f"--coordinator, --num_processes, --process_id, --start_timeout and "
            f"--lost_after"
        ) from None
    except (flags.Error, TypeError, ValueError) as error:
        raise UserError(_wrong_value(config, error)) from None
    if surplus:
        raise UserError(f"{surplus[0]!r} is not a flag; see --help")
    for name in names:
        _check_tuple(config, name)
    _insist(config, {*names, *decided})
    return config, _workdir(values.workdir) or os.path.join("runs", config.name)


def parallel(argv: Sequence[str]) -> tuple[int | None, list[str]]:
    """The wish of a command line, and its other arguments.

    Args:
      argv: without the program's name.

    Returns:
      The number after ``--parallel=``, None where it is not there, and what is left.

    Raises:
      UserError: it is no number from 1, or is given twice.
    """
    rest: list[str] = []
    wishes: list[str] = []
    arguments = iter(argv)
    for argument in arguments:
        if match := re.fullmatch(rf"-?{PARALLEL[1:]}(?:=(.*))?", argument, re.DOTALL):
            wishes.append(match[1] if match[1] is not None else next(arguments, ""))
        else:
            rest.append(argument)
    if not wishes:
        return None, rest
    if len(wishes) > 1:
        raise UserError(f"{PARALLEL} is given twice: give one number")
    if not re.fullmatch("0*[1-9][0-9]{0,3}", wishes[0]):
        raise UserError(
            f"{PARALLEL} takes a number of runs at once, from 1 to 9999, and not "
            f"{wishes[0]!r}"
        )
    return int(wishes[0]), rest


def named(argv: Sequence[str]) -> list[str]:
    """Dotted names of the fields that a command line sets."""
    text = "\n".join(argv)
    matches = re.findall(r"^--?(no)?config\.([^=\s]*)", text, re.MULTILINE)
    return [name for _, name in matches]


def _insist(config: ml_collections.ConfigDict, names: Collection[str]) -> None:
    """Notes in ``init.insist`` which fields of `model` were asked for by name.

    Args:
      names: of fields of the job, of its groups of changes too (tune.model.width).
    """
    for prefix in ("", *(f"{group}." for group in recipes.CHANGES)):
        names_of_model = re.findall(
            rf"^{prefix}model\.(\w+)$", "\n".join(names), re.MULTILINE
        )
        if not names_of_model:
            continue
        group = config[prefix[:-1]] if prefix else config
        with config.unlocked():
            if "init" not in group:
                group.init = ml_collections.ConfigDict()
            group.init.insist = tuple(
                sorted({*model_fields.insisted(group), *names_of_model})
            )


def _decided_by_argument(
    config: ml_collections.ConfigDict, get_config, arg: str
) -> set[str]:
    """Fields of `model` that the argument of ``FILE:ARG`` decides.

    A config is a function: it is called again without each part of the argument, and
    with another value of it, and the fields that change are returned. Fields that say
    how weights begin are left out, since a file has weights.
    """

    def fields_of(candidate: ml_collections.ConfigDict) -> dict[str, Any]:
        names = [n for n in fields(candidate) if re.search(r"(^|\.)model\.\w+$", n)]
        names = [n for n in names if n.rpartition(".")[2] not in recipes.BEGINNINGS]
        return {name: _value(candidate, name) for name in names}

    def changed_to(parts: Sequence[str]) -> dict[str, Any]:
        # What it prints was printed by the first call.
        silent = io.StringIO()
        with contextlib.redirect_stdout(silent), contextlib.redirect_stderr(silent):
            return fields_of(get_config(",".join(parts) or None))

    parts = [part for part in arg.split(",") if part]
    asked, decided = fields_of(config), set()
    for position, part in enumerate(parts):
        rest = [*parts[:position], *parts[position + 1 :]]
        key, _, value = part.partition("=")
        for other in (rest, *([*rest, f"{key}={o}"] for o in _others(value))):
            try:
                changed = changed_to(other)
            except (Exception, SystemExit):  # noqa: BLE001  it takes no such value
                continue
            decided |= {n for n in asked if changed.get(n, asked[n]) != asked[n]}
    return decided


def _others(value: str) -> list[str]:
    """Other values that an argument of this form may take."""
    if value.isdecimal():
        return [str(int(value) + 1)]
    if re.fullmatch(r"\d+(-\d+)+", value):
        return [f"{value}-1"]
    words = [*budgets.SMALL, "Ti/16", "S/16", "B/16", *profiles.PROFILES]
    return [word for word in words if word != value]


def _workdir(directory: str | None) -> str:
    """A work directory; in a bucket without empty parts, where ``//`` is no ``/``."""
    directory = directory or ""
    if not paths.is_remote(directory):
        return directory
    scheme, _, rest = directory.partition("://")
    bucket, *parts = rest.split("/")
    if not bucket:
        raise UserError(f"--workdir={directory} names no bucket: {scheme}://BUCKET/DIR")
    return f"{scheme}://" + "/".join([bucket, *filter(None, parts)])


def fields(config: ml_collections.ConfigDict, prefix: str = "") -> list[str]:
    """Dotted names of all fields."""
    names = []
    for key, value in sorted(config.items()):
        if isinstance(value, ml_collections.ConfigDict):
            names += fields(value, f"{prefix}{key}.")
        else:
            names.append(f"{prefix}{key}")
    return names


def _adopt(config: ml_collections.ConfigDict, name: str) -> None:
    """Gives ``tune.a.b`` the job's own value, so that it can be overridden."""
    group, _, field = name.partition(".")
    if group not in recipes.CHANGES or group not in config:
        return
    path = field.split(".")
    if field not in fields(recipes.run()):
        return
    with config.unlocked():
        node, source = config[group], config
        for part in path[:-1]:
            source = source[part]
            if part not in node:
                node[part] = ml_collections.ConfigDict()
            node = node[part]
        if path[-1] not in node:
            node[path[-1]] = source[path[-1]]


def _check_field(config: ml_collections.ConfigDict, name: str) -> None:
    """Refuses a field that the config lacks, listing those beside it."""
    node: Any = config
    parts = name.split(".")
    for position, part in enumerate(parts):
        is_group = isinstance(node, ml_collections.ConfigDict)
        if not is_group or part not in node:
            group = ".".join(parts[:position])
            known = ", ".join(sorted(node)) if is_group else "no fields of its own"
            where = f"config.{group}" if group else "config"
            raise UserError(f"there is no field config.{name}: {where} has {known}")
        node = node[part]
    if isinstance(node, ml_collections.ConfigDict):
        raise UserError(
            f"config.{name} is a group; set one of its fields: "
            f"{', '.join(fields(node, name + '.'))}"
        )


def _check_tuple(config: ml_collections.ConfigDict, name: str) -> None:
    """Refuses ``3-3`` for ``(3,3)``, which the flag's parser takes for a text."""
    value, field = _value(config, name), table.find(name)
    if field is None or not isinstance(value, tuple):
        return
    if not all(map(field.takes, value)):
        example = '"(1,2,3)"' if field.item is not str else "\"('width',)\""
        raise UserError(
            f"config.{name} takes {field.items} like {example}, and not "
            f"{', '.join(map(str, value))}"
        )


def _wrong_value(config: ml_collections.ConfigDict, error: Exception) -> str:
    """The message of a flag's parser; of a value of a wrong type, a sentence."""
    match = re.match(r"flag --config\.([^=]+)=(.*?): ", str(error), re.DOTALL)
    wanted = _WANTED.get(type(_value(config, match[1]))) if match else None
    if not match or not wanted:
        return " ".join(str(error).split())
    return f"config.{match[1]} takes {wanted}, and not {match[2]!r}"


def _value(config: ml_collections.ConfigDict, name: str) -> Any:
    return functools.reduce(operator.getitem, name.split("."), config)


def _value_of(argv: list[str], flag: str) -> str | None:
    for position, arg in enumerate(argv):
        if arg in (f"--{flag}", f"-{flag}") and position + 1 < len(argv):
            return argv[position + 1]
        if re.match(rf"--?{flag}=", arg):
            return arg.partition("=")[2]
    return None


def _import(path: str) -> Any:
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(f"sws_jax_config_{name}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:  # noqa: BLE001  a config is the user's own code
        raise UserError(f"{path} cannot be read: {error!r}") from None
    return module


def _listdir(folder: str) -> list[str]:
    return os.listdir(folder) if os.path.isdir(folder) else []
