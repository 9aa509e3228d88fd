"""Rows of a job's table: made of results, written as CSV, and read again."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable, Sequence
from typing import Any

from sws_jax.errors import UserError
from sws_jax.storage import names, paths
from sws_jax.training.roles import BEFORE, SCRATCH

# What a run reports, as `sws_jax.jobs.train.train` returns it, with its role.
Result = dict[str, Any]

COLUMNS = (
    "run", "role", "network", "depth", "method", "profile", "dataset", "seed",
    "params", "stored_params", "total_epochs", "epochs", "layer_epochs",
    "test_top1", "test_top5", "test_loss", "test_images", "val_top1",
    "seconds", "hardware", "jax", "dtype", "unreadable", "unreadable_from",
    "phase", "flops_learn", "flops_tune", "flops_net", "config_hash", "version",
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
                    "phase": phase(result),
                    **_flops(result, score["epochs"]),
                    "config_hash": result.get("config_hash", ""),
                    "version": result.get("version", ""),
                }
            )
    return table


def phase(result: Result) -> str:
    """The value of the column ``phase``: which part of the work a run does.

    The phase's own name, where it trains something before there is anything to expand;
    "tune", "untuned" or "scratch" for networks that are compared; "single" for a run
    outside any comparison.
    """
    role = result["role"]
    if role in BEFORE:
        return result["name"]
    return "scratch" if role in SCRATCH else role


def _flops(result: Result, epochs: float) -> dict[str, Any]:
    """The columns of FLOPs, of a run's weights after so many epochs.

    ``flops_learn`` are those of all training steps of the phases that the weights stand
    on, their own included where the run is such a phase; ``flops_tune`` those of the
    run's own steps, where it is none; ``flops_net`` those of the logits of one image.
    What is not known is empty.
    """
    before, own = result.get("flops_before"), result.get("flops")
    if own is not None and result["epochs"]:
        own = round(own * epochs / result["epochs"])
    learn, tune = before, own
    if result["role"] in BEFORE:
        learn = None if before is None or own is None else before + own
        tune = 0
    flops = {"flops_learn": learn, "flops_tune": tune}
    flops["flops_net"] = result.get("flops_net")
    return {name: _or_empty(value) for name, value in flops.items()}


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
