"""Initialise Vision Transformers of any depth from one compact, trained core.

Names are loaded when they are first used (PEP 562): ``sws_jax.xla_flags.add()`` comes
before JAX, and what answers ``--help`` needs no JAX at all.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from sws_jax.version import VERSION

if TYPE_CHECKING:
    from sws_jax import xla_flags as xla_flags
    from sws_jax.errors import UserError
    from sws_jax.methods.base import Descendant, Learngene
    from sws_jax.methods.learngenes import (
        expand,
        extract,
        load_learngene,
        save_learngene,
    )
    from sws_jax.models.description import Description
    from sws_jax.models.networks import Network, load_network, save_network
    from sws_jax.specs import AuxViTSpec, Compute, ViTSpec, named

__version__ = VERSION

__all__ = [
    "AuxViTSpec",
    "Compute",
    "Descendant",
    "Description",
    "Learngene",
    "Network",
    "UserError",
    "ViTSpec",
    "expand",
    "extract",
    "load_learngene",
    "load_network",
    "named",
    "save_learngene",
    "save_network",
]

_NAMES = {
    "errors": ("UserError",),
    "methods.base": ("Descendant", "Learngene"),
    "methods.learngenes": ("expand", "extract", "load_learngene", "save_learngene"),
    "models.description": ("Description",),
    "models.networks": ("Network", "load_network", "save_network"),
    "specs": ("AuxViTSpec", "Compute", "ViTSpec", "named"),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A public name, or a module of the package by its name or its older one."""
    if name in _HOMES:
        value = getattr(importlib.import_module(f"sws_jax.{_HOMES[name]}"), name)
        globals()[name] = value  # The next access finds it there.
        return value
    if not name.startswith("_") and importlib.util.find_spec(f"sws_jax.{name}"):
        return importlib.import_module(f"sws_jax.{name}")
    raise AttributeError(f"module 'sws_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# Older names of modules that user code may import, and the modules of today in which
# their names are looked up, one after the other.
OLDER_NAMES = {
    "chain": ("jobs.preflight", "jobs.rows", "jobs.execute"),
    "checkpoints": ("training.checkpoints", "storage.names"),
    "checksums": ("training.checksums",),
    "classes": ("data.classes",),
    "configs": ("jobs.commandline",),
    "contents": ("storage.contents",),
    "cost": ("estimate.flops", "estimate.comparison"),
    "description": ("models.description",),
    "dry_run": ("preview.dry_run",),
    "entry": ("runtime.entry",),
    "evaluation": ("training.evaluation",),
    "fields": ("jobs.fields",),
    "files": (
        "storage.files",
        "storage.documents",
        "storage.locks",
        "storage.array_files",
    ),
    "hlo": ("estimate.traffic",),
    "host": ("runtime.host",),
    "learngenes": ("methods.learngenes",),
    "learngenes.base": ("methods.base", "methods.plans", "methods.surgery"),
    "learngenes.sws": ("methods.sws",),
    "learngenes.tleg": ("methods.tleg",),
    "lease": ("storage.lease",),
    "loading": ("jobs.load",),
    "losses": ("methods.objectives",),
    "metrics": ("training.metrics", "storage.names"),
    "networks": ("models.networks",),
    "optim": ("training.optim",),
    "paths": ("storage.paths", "storage.refusals"),
    "places": ("jobs.places",),
    "presets": ("jobs.recipes", "jobs.model_fields", "estimate.budgets"),
    "processes": ("runtime.processes",),
    "profiles": ("models.profiles",),
    "progress": ("runtime.progress",),
    "remarks": ("jobs.remarks",),
    "rendezvous": ("runtime.rendezvous",),
    "report": (
        "reports.rows",
        "reports.grouping",
        "reports.tables",
        "reports.figures",
        "reports.write",
        "storage.names",
    ),
    "rundir": (
        "jobs.directory",
        "jobs.begun",
        "jobs.fingerprints",
        "jobs.records",
        "jobs.differences",
        "storage.names",
    ),
    "setup": (
        "jobs.check",
        "jobs.build",
        "jobs.datasets",
        "jobs.places",
        "training.durations",
    ),
    "signals": ("runtime.signals",),
    "sizing": ("estimate.sizing", "estimate.traffic"),
    "start": ("jobs.start", "jobs.initial", "jobs.model_fields"),
    "step": ("training.step",),
    "survey": ("preview.survey", "models.names"),
    "task": ("training.task",),
    "teacher": ("jobs.teacher", "storage.runs", "storage.names"),
    "train": (
        "jobs.train",
        "training.task",
        "training.history",
        "training.loop",
        "training.ending",
    ),
    "weights": ("models.weights",),
}


class _OlderNames:
    """The finder and loader of the modules of `OLDER_NAMES`; see `importlib.abc`."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> Any:
        package, _, older = name.partition(".")
        if package != __name__ or older not in OLDER_NAMES:
            return None
        return importlib.util.spec_from_loader(name, cls(), is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> None:
        return None  # Python makes an ordinary one.

    def exec_module(self, module: Any) -> None:
        older = module.__name__.removeprefix(f"{__name__}.")
        names = OLDER_NAMES[older]
        homes = [importlib.import_module(f"{__name__}.{name}") for name in names]

        def look_up(name: str) -> Any:
            for home in homes:
                if hasattr(home, name):
                    return getattr(home, name)
            if f"{older}.{name}" in OLDER_NAMES:
                return importlib.import_module(f"{module.__name__}.{name}")
            raise AttributeError(f"{module.__name__} has no attribute {name!r}")

        public = {n for home in homes for n in vars(home) if not n.startswith("_")}
        module.__all__ = sorted(public)  # of `from sws_jax.presets import *`
        module.__dir__ = lambda: module.__all__
        module.__getattr__, module.__doc__ = look_up, homes[0].__doc__


sys.meta_path.append(_OlderNames)
