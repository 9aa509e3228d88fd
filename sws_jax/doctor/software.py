"""Checks of the config, and of what is installed."""

from __future__ import annotations

import functools
import importlib.metadata
import os
import platform
import re
from collections.abc import Iterator

from packaging.requirements import Requirement
from packaging.version import Version

from sws_jax.doctor.base import Case, Finding, ok, problem, warning
from sws_jax.errors import UserError
from sws_jax.jobs import check, commandline, preflight, remarks
from sws_jax.jobs.rows import runs
from sws_jax.runtime import words

_PYTHON = (3, 11)  # as pyproject.toml says
_SHOWN = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorflow-datasets",
          "grain")  # fmt: skip
# A plugin of another version than jaxlib is passed over by JAX, which then computes on
# the CPU.
_PLUGIN = re.compile(r"jax-(?:cuda|rocm)\d*-(?:plugin|pjrt)")


def config(case: Case) -> Iterator[Finding]:
    """Every run of the job, as `preflight.check` checks it."""
    rows = runs(case.config)
    wrong: dict[str, list[str]] = {}
    for row in rows:
        try:
            check.check(row.config)
        except UserError as error:
            wrong.setdefault(str(error), []).append(row.name)
    for text, names in wrong.items():
        yield problem(f"{words.few(names)}: {text}")
    if wrong:
        return
    preflight.check(case.config, rows)
    case.rows = rows
    if case.config.mesh.dry_run:
        yield warning(
            f"mesh.dry_run is {case.config.mesh.dry_run}: the job would print what "
            f"devices hold, and run nothing",
            "leave --config.mesh.dry_run out",
        )
    for line in remarks.of_named(case.config, commandline.named(case.arguments), rows):
        yield warning(line, "leave the field out")
    count = f"{len(rows)} run" + ("s" if len(rows) > 1 else "")
    yield ok(f"{case.config.name}: {count} ({words.few([row.name for row in rows])})")


def versions(case: Case) -> Iterator[Finding]:
    """Python and packages against the project's requirements, without the network."""
    python = platform.python_version()
    all_fit = True
    if Version(python).release[:2] < _PYTHON:
        all_fit = False
        yield problem(
            f"Python {python} is older than {'.'.join(map(str, _PYTHON))}",
            "make the environment with a newer one: python3.12 -m venv .venv",
        )
    for requirement in requirements():
        version = _version(requirement.name)
        if version and requirement.specifier.contains(version, prereleases=True):
            continue
        all_fit = False
        yield _unmet(requirement, version)
    jaxlib = _version("jaxlib")
    for name, version in _plugins():
        if version != jaxlib:
            all_fit = False
            yield problem(
                f"{name} is {version} and jaxlib {jaxlib}: JAX passes it over, and "
                f"computes on the CPU",
                f"pip install {name}=={jaxlib}",
            )
    if all_fit:
        yield ok(f"Python {python}, " + ", ".join(installed()))


def _unmet(requirement: Requirement, version: str) -> Finding:
    """What is wrong with an installed version; empty where none is installed."""
    name, specifier = requirement.name, requirement.specifier
    advice = f'pip install "{requirement}"'
    if not version:
        return problem(f"{name} is not installed", advice)
    floors = [s.version for s in specifier if s.operator == ">="]
    if floors and Version(version) < max(map(Version, floors)):
        return problem(f"{name} {version} is too old ({specifier})", advice)
    return warning(
        f"{name} {version} is newer than what this was tested with ({specifier})",
        advice,
    )


def installed() -> list[str]:
    """The packages that a run computes with, and their versions."""
    return [f"{name} {_version(name) or 'not installed'}" for name in _SHOWN]


@functools.cache
def requirements() -> tuple[Requirement, ...]:
    """Requirements of this project: of its checkout, else of its installed package."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    path = os.path.join(here, "requirements.txt")
    if os.path.isfile(path):
        with open(path, encoding="utf-8") as file:
            lines = [line.partition("#")[0].strip() for line in file]
    else:
        try:
            lines = importlib.metadata.requires("sws_jax") or []
        except importlib.metadata.PackageNotFoundError:
            raise UserError(
                f"there is no {path}, and sws_jax was not installed by pip: what it "
                f"needs is not known here"
            ) from None
    every = [Requirement(line) for line in lines if line]
    return tuple(r for r in every if r.marker is None or r.marker.evaluate())


def _version(name: str) -> str:
    """The version of an installed package; empty if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _plugins() -> list[tuple[str, str]]:
    """Names and versions of the installed plugins of JAX."""
    versions_of = {
        re.sub(r"[-_.]+", "-", dist.name).lower(): dist.version
        for dist in importlib.metadata.distributions()
        if dist.name
    }
    return sorted((n, v) for n, v in versions_of.items() if _PLUGIN.fullmatch(n))
