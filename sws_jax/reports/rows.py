"""Rows of a job's table: made of results, written as CSV, and read again."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from typing import Any

from sws_jax.errors import UserError
from sws_jax.storage import names, paths

# What a run reports, as `sws_jax.jobs.train.train` returns it, with its role.
Result = dict[str, Any]

COLUMNS = (
    "run", "role", "network", "depth", "method", "profile", "dataset", "seed",
    "params", "stored_params", "total_epochs", "epochs", "layer_epochs",
    "test_top1", "test_top5", "test_loss", "test_images", "val_top1",
    "seconds", "hardware", "jax", "dtype", "unreadable", "unreadable_from",
)  # fmt: skip


def rows(results: Iterable[Result]) -> list[dict[str, Any]]:
    """One row for every scored set of weights of every run."""
    table = []
    for result in results:
        for score in result["test"]:
            table.append(
                {
                    "run": result["name"],
                    "role": result["role"],
                    "network": result["network"],
                    "depth": result["depth"],
                    "method": result["method"] or "-",
                    "profile": result["profile"],
                    "dataset": result["dataset"],
                    "seed": result["seed"],
                    "params": result["params"],
                    "stored_params": result["stored_params"],
                    "total_epochs": result["epochs"],
                    "epochs": score["epochs"],
                    "layer_epochs": result["depth"] * score["epochs"],
                    "test_top1": round(score["top1"], 4),
                    "test_top5": round(score["top5"], 4),
                    "test_loss": round(score["loss"], 4),
                    "test_images": int(score["count"]),
                    "val_top1": round(result["val_top1"], 4),
                    "seconds": result["seconds"],
                    "hardware": result["hardware"],
                    "jax": result["versions"].get("jax", ""),
                    "dtype": _dtypes(result),
                    "unreadable": result.get("unreadable", ""),
                    "unreadable_from": _or_empty(result.get("unreadable_from")),
                }
            )
    return table


def roles(workdir: str) -> dict[str, str]:
    """Run -> role, read from the ``results.csv`` of a work directory.

    Args:
      workdir: of the job.

    Returns:
      Empty where there is no such file.

    Raises:
      UserError: the file is not a table that this or an older version wrote.
    """
    path = os.path.join(workdir, names.RESULTS)
    if not paths.exists(path):
        return {}
    try:
        with open(paths.here(path), encoding="utf-8", newline="") as file:
            table = csv.DictReader(file)
            lines, head = list(table), list(table.fieldnames or ())
    except (ValueError, csv.Error, IsADirectoryError):
        lines, head = [], []
    # Older versions had fewer columns.
    if head[:2] != list(COLUMNS[:2]) or not set(head) <= set(COLUMNS):
        raise UserError(
            f"{path} is no table of this project's, and would be written over: take "
            f"another --workdir, or move it away"
        )
    return {line["run"]: line["role"] or "" for line in lines if line["run"]}


def to_csv(table: Sequence[dict[str, Any]]) -> str:
    """The text of a CSV file: the header, then a line for each row."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table)
    return text.getvalue()


def _dtypes(result: Result) -> str:
    """Every dtype of a run's training: float32, or float32 bfloat16@40 (from step 40).

    Empty for results of older software, which do not have it.
    """
    first, *later = result.get("dtypes") or [{"dtype": ""}]
    changes = (f"{change['dtype']}@{change['from_step']}" for change in later)
    return " ".join([first["dtype"], *changes])


def _or_empty(value: Any) -> Any:
    return "" if value is None else value
