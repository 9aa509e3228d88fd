"""Which code runs: the package's version, and in a checkout its commit."""

from __future__ import annotations

import functools
import os
import pathlib
import subprocess

from sws_jax.version import VERSION

_ROOT = pathlib.Path(__file__).parents[2]
_PATIENCE_SECONDS = 10.0  # for a checkout on a slow disk


@functools.cache
def version() -> str:
    """The version, with ``+gCOMMIT`` in a git checkout, ``.dirty`` if it was changed.

    Files that git does not track are no change. Without git, the version stands alone.
    """
    commit = describe(_ROOT)
    return f"{VERSION}+g{commit}" if commit else VERSION


def describe(folder: pathlib.Path) -> str:
    """The commit that is checked out in a folder; empty where it is no checkout.

    Args:
      folder: that holds ``.git`` itself: what lies somewhere inside another project's
        checkout, as an installed package may, has no commit of its own.
    """
    git = folder / ".git"
    if not git.exists():
        return ""
    command = [
        "git", f"--git-dir={git}", f"--work-tree={folder}",
        "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=.dirty",
    ]  # fmt: skip
    # Git sets variables for its hooks, which would name another checkout; without
    # optional locks it writes nothing.
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment = {**inherited, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        process = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return process.stdout.strip() if process.returncode == 0 else ""
