"""Manifests of sets: the shards that are finished, and whether they are as written."""

from __future__ import annotations

import contextlib
import os
from typing import Any

from sws_jax.data import arrays, prepared
from sws_jax.errors import UserError
from sws_jax.prepare import parts, work
from sws_jax.prepare.forms import ShardRecord
from sws_jax.runtime import progress, words
from sws_jax.storage import documents

MANIFEST = "manifest.json"
VERSION = 1  # of the format


def read(directory: str) -> dict[str, Any]:
    """The manifest in a directory.

    Raises:
      UserError: it is damaged, or of another version.
    """
    path = os.path.join(directory, MANIFEST)
    remedy = f"remove {directory} and prepare the set again"
    manifest = documents.read_json(path, remedy=remedy)
    groups: dict[str, dict] = {"options": {}, "shards?": {}, "files?": {}}
    misfit = documents.misfit(manifest, groups)
    for group in ("shards", "files"):
        entries = {} if misfit else manifest.get(group, {})
        entry = {"bytes": int, "digest": str}
        misfit = misfit or documents.misfit(
            entries, dict.fromkeys(entries, entry), group
        )
    if misfit or manifest.get("version") != VERSION:
        why = f" ({misfit})" if misfit else ""
        raise UserError(f"{path} is damaged{why}, or of another version: {remedy}")
    return manifest


def damage(
    directory: str, entries: dict[str, ShardRecord], workers: int
) -> dict[str, str]:
    """What is wrong with each file, or rows of one, that is damaged; sorted by name."""
    total = sum(entry["bytes"] for entry in entries.values())
    problems = {}
    with progress.Bar("verifying", total // 2**20, "MiB") as bar:
        # To start processes takes longer than to read up to a GiB.
        processes = workers if total > 2**30 else 1
        verify, items = work.Verify(directory), list(entries.items())
        with contextlib.closing(work.run(verify, items, processes)) as checked:
            for (name, entry), problem in checked:
                bar.advance(entry["bytes"] // 2**20)
                if problem:
                    problems[name] = problem
    if arrays.DESCRIPTION in entries.keys() - problems.keys():
        # The header of an array may be damaged although all of its rows are whole.
        splits = arrays.misfits(directory)
        for name, entry in entries.items():
            if entry.get("split") in splits:
                problems.setdefault(name, "its file has another type or shape")
    return dict(sorted(problems.items()))


def check(path: str, workers: int) -> str:
    """Reads all of a set again, and describes it in a sentence.

    Args:
      path: OUT/NAME, or the directory that holds the manifest.
      workers: number of processes.

    Raises:
      UserError: it has no manifest, or is damaged; the sentence names the first of the
        damaged parts.
    """
    versions = [os.path.join(path, v) for v in reversed(prepared.versions(path))]
    candidates = [path, *versions]
    directory = next((p for p in candidates if os.path.isfile(f"{p}/{MANIFEST}")), "")
    if not directory:
        raise UserError(
            f"{path} holds no whole set that this command has prepared: it has no "
            f"{MANIFEST}"
        )
    manifest = read(directory)
    if "files" not in manifest:
        raise UserError(f"{directory} is not finished: give the same command again")
    entries = manifest["shards"] | manifest["files"]
    bad = damage(directory, entries, workers)
    if bad:
        first = next(iter(bad))
        alone = "" if manifest["options"].get("kind") == "tfds" else ", and those alone"
        raise UserError(
            f"{len(bad)} of {len(entries)} parts of {directory} are damaged, the first "
            f"{first} ({bad[first]}): the command that prepared it, given again, makes "
            f"them anew{alone}"
        )
    total = sum(entry["bytes"] for entry in entries.values())
    counts = dict.fromkeys(parts.SPLITS.values(), 0)  # in this order
    for entry in manifest["shards"].values():
        counts[entry["split"]] = counts.get(entry["split"], 0) + entry["images"]
    images = ", ".join(f"{count:,} {split}" for split, count in counts.items() if count)
    return (
        f"{directory}: {images} images, all {len(entries)} parts "
        f"({words.rounded(total)}) are as they were written"
    )
