"""``cost``: parameters, FLOPs and memory of networks, jobs and the paper's claims."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

from sws_jax import commands

HELP = "count what networks, a job's runs or the paper's cost, running nothing"
EXAMPLE = "python -m sws_jax cost vit_small_patch16_L12 levit_384"

CONVENTION = (
    "FLOPs of one image: 2 for each multiply-add of a matrix product or convolution, "
    "nothing else;\nactivations: MiB that the backward pass of one image waits with. "
    "(sws_jax/estimate/cost.py has the terms.)"
)
NAMES = {
    "stored": "stored parameters",
    "pretrainings": "pre-training runs",
    "epochs": "epochs",
    "layer_epochs": "layer-epochs",
    "flops": "training FLOPs",
}
# Ways to have every depth, and the roles of their runs.
WAYS = {
    "learngene": ("ancestor", "aux", "untuned", "tune"),
    "scratch, same budget": ("scratch_short",),
    "scratch, long": ("scratch_long",),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "networks",
        nargs="*",
        metavar="NETWORK",
        help="a name like vit_small_patch16_L12, aux_vit_small_patch16_3-3-4-3-3, "
        "levit_384 or regnety_160, or a weights file",
    )
    parser.add_argument(
        "--config",
        help="instead: the runs of a job, as in python -m sws_jax.main, overrides too",
    )
    parser.add_argument("--paper", help="instead: the paper's comparison, S or B")
    parser.add_argument(
        "--classes", type=commands.whole, help="default 1000, or the file's own"
    )
    parser.add_argument(
        "--image-size",
        type=commands.whole,
        help="pixels; default 224, or the file's or config's",
    )
    parser.add_argument(
        "--images",
        type=commands.whole,
        help="of an epoch; default ImageNet's 1,281,167",
    )
    parser.add_argument(
        "--teacher", help="name or file: its forward is part of distillation"
    )
    parser.add_argument(
        "--remat",
        action="store_true",
        default=None,
        help="blocks are computed again going backwards",
    )
    parser.add_argument("--dtype", help="of activations; default float32")
    parser.add_argument("--json", action="store_true", help="figures for programs")
    parser.set_defaults(flags=[])


def run(args: argparse.Namespace) -> int:
    from sws_jax.errors import UserError

    forms = {"networks": _networks, "config": _config, "paper": _paper}
    idle = {
        "networks": ("images",),
        "config": ("remat", "dtype"),  # fields of the config itself
        "paper": ("classes", "image_size", "images", "remat", "dtype"),
    }
    given = [form for form in forms if getattr(args, form)]
    if len(given) != 1:
        raise UserError(
            "cost takes either names or files of networks, or --config=FILE, or "
            "--paper=S, and was given "
            + (" and ".join(given) if given else "none of them")
        )
    if args.flags and not args.config:
        raise UserError(f"cost has no option {args.flags[0]}; see --help")
    for option in ("classes", "image_size", "images"):
        value = getattr(args, option)
        if value is not None and value < 1:
            name = option.replace("_", "-")
            raise UserError(f"--{name} must be at least 1, and is {value}")
    for option in idle[given[0]]:
        if getattr(args, option) is not None:
            name = option.replace("_", "-")
            raise UserError(
                f"--{name} does not go with "
                + ("names of networks" if given == ["networks"] else f"--{given[0]}")
            )
    forms[given[0]](args)
    return 0


def _networks(args) -> None:
    """A line for each network."""
    from sws_jax.estimate import cost
    from sws_jax.models.names import named
    from sws_jax.specs import AuxViTSpec, Compute, ViTSpec

    changes = _changes(args)
    compute = Compute(args.dtype or "float32", bool(args.remat))
    rows: list[dict[str, Any]] = []
    for name in args.networks:
        spec = named(name, changes)
        row: dict[str, Any] = {
            "network": spec.name,
            "parameters": _stored(name, spec),
            "forward_flops": cost.forward_flops(spec),
            "step_flops": None,
            "activation_bytes": None,
        }
        if isinstance(spec, ViTSpec | AuxViTSpec):
            teacher = _teacher(args, spec)
            row["step_flops"] = cost.step_flops(spec, compute, teacher)
            row["activation_bytes"] = cost.activation_bytes(spec, compute)
        rows.append(row)
    if args.json:
        return _print_json(rows)
    body = [
        [
            row["network"],
            f"{row['parameters']:,}",
            f"{row['forward_flops'] / 1e9:.4g}",
            f"{row['step_flops'] / 1e9:.4g}" if row["step_flops"] else "-",
            f"{row['activation_bytes'] / 2**20:.4g}" if row["step_flops"] else "-",
        ]
        for row in rows
    ]
    head = ["network", "parameters", "forward, GFLOPs", "training step, GFLOPs"]
    _print_table([*head, "activations, MiB"], body)
    print(f"\n{CONVENTION}")
    if any(row["step_flops"] is None for row in rows):
        print("LeViT and RegNetY are teachers here: they are not trained.")


def _paper(args) -> None:
    """A line for each ratio, with its condition."""
    from sws_jax import specs
    from sws_jax.estimate import cost

    teacher = _teacher(args, specs.named("vit_small_patch16_L12"))
    claims = cost.paper(args.paper, teacher)
    rows: list[dict[str, Any]] = []
    for claim in claims:
        many, one = claim.values
        found = {"each_depth": many, "learngene": one, "ratio": claim.ratio}
        rows.append({"what": NAMES[claim.quantity], **found, "when": claim.condition})
    if args.json:
        return _print_json(rows)
    aux, *_ = (run.spec for run in claims[0].one.runs)
    nets = [run.spec for run in claims[0].many.runs]
    print(
        f"{len(nets)} networks {nets[0].name} to {nets[-1].name}, "
        f"{cost.PAPER_EPOCHS:g} epochs each, or\none {aux.name}; "
        f"1000 classes, 224 px; SWS, 2404.16897.\n"
    )
    body = [
        [
            row["what"],
            _short(row["each_depth"]),
            _short(row["learngene"]),
            f"{row['ratio']:.2f} x",
            row["when"],
        ]
        for row in rows
    ]
    _print_table(
        ["", "each depth", "learngene", "less", "what is counted"], body, left=(0, 4)
    )


def _config(args) -> None:
    """A line for each run of a job, and what the ways to have every depth cost."""
    from sws_jax.errors import UserError
    from sws_jax.estimate import cost
    from sws_jax.jobs import commandline, preflight
    from sws_jax.jobs.rows import runs as rows_of

    config, workdir = commandline.parse([f"--config={args.config}", *args.flags])
    every = rows_of(config)
    preflight.check(config, every)
    preflight.check_networks(every, workdir)
    # One seed of every depth: the others are for the spread alone.
    first: dict[tuple[str, int], Any] = {}
    for row in every:
        first.setdefault((row.role, row.config.model.depth), row)
    rows = list(first.values())
    reader = _Reader(args, config, workdir)
    runs = {row.name: reader.run(row) for row in rows}
    plans = {
        name: cost.Plan(found, reader.kept(found))
        for name, roles in WAYS.items()
        if config.job != "single"
        and (found := tuple(r for r in runs.values() if r.role in roles))
    }
    if args.teacher and not any(found.teacher for found in runs.values()):
        raise UserError("no run of this job is distilled: leave --teacher out")
    if len(every) > len(rows):
        reader.notes.append(f"one seed counted: {len(rows)} of {len(every)} runs")
    listed = [
        {
            "run": name,
            "network": found.spec.name,
            "epochs": found.epochs,
            "layer_epochs": found.layer_epochs,
            "parameters": cost.params(found.spec),
            "step_flops": cost.step_flops(found.spec, found.compute, found.teacher)
            if found.epochs
            else None,
            "flops": found.flops,
        }
        for name, found in runs.items()
    ]
    totals = {
        name: {
            quantity: getattr(plan, quantity)
            for quantity in cost.QUANTITIES
            if plan.kept or quantity != "stored"
        }
        for name, plan in plans.items()
    }
    if args.json:
        return _print_json({"runs": listed, "ways": totals, "notes": reader.notes})
    body = [
        [
            row["run"],
            row["network"],
            f"{row['epochs']:g}",
            f"{row['layer_epochs']:g}",
            f"{row['parameters']:,}",
            f"{row['step_flops'] / 1e9:.4g}" if row["epochs"] else "-",
            f"{row['flops']:.3g}" if row["epochs"] else "-",
        ]
        for row in listed
    ]
    head = ["run", "network", "epochs", "layer-epochs", "parameters"]
    _print_table([*head, "GFLOPs an image", "training FLOPs"], body, left=(0, 1))
    if plans:
        body = [
            [name, *(_short(values.get(quantity)) for quantity in NAMES)]
            for name, values in totals.items()
        ]
        if "learngene" in plans and "scratch, long" in plans:
            times = cost.ratios(plans["scratch, long"], plans["learngene"]).values()
            shown = [f"{n:.2f}" if math.isfinite(n) else "-" for n in times]
            body.append(["long / learngene", *shown])
        print()
        _print_table(["all depths", *NAMES.values()], body)
    print("\n" + "\n".join(reader.notes))


class _Reader:
    """What the runs of a job cost, with what was assumed and what is not counted."""

    def __init__(self, args, config, workdir: str):
        from sws_jax.preview.survey import Survey

        self.args = args
        self.survey = Survey(
            config,
            workdir,
            image_size=args.image_size,
            classes=args.classes,
            images=args.images,
        )
        self.notes = self.survey.notes
        self.note = self.survey.note
        self.note("evaluation: not counted")

    def run(self, row):
        """One row of `sws_jax.jobs.rows.runs`."""
        from sws_jax.data.pipeline import epoch_images
        from sws_jax.estimate import cost
        from sws_jax.models.description import Description
        from sws_jax.specs import Compute

        init = row.config.init
        role = row.role
        if role == "single" and (init.learngene or init.network):
            role = "tune"
        spec = self.survey.spec(row)
        if isinstance(self.survey.learngene, Description):
            self.note("teacher and Aux-Net of the learngene: not counted")
        return cost.Run(
            role,
            spec,
            row.config.schedule.total_epochs,
            epoch_images(self.survey.images, row.config.data.repeats),
            Compute(**row.config.compute),
            self.teacher(row, spec),
        )

    def teacher(self, row, student):
        """Of a distillation; None where there is none, or none is known."""
        if row.config.loss.kind == "none":
            return None
        path = row.config.teacher.path
        if not self.survey.trains(path):
            self.note("training of the teacher: not counted")
        if self.args.teacher:
            return _teacher(self.args, student)
        found = self.survey.teacher(row)
        if found is None:
            self.note(
                f"forward of the teacher of {row.name}: not counted, as there is no "
                f"file {path}; name a network with --teacher, like levit_384"
            )
        return found

    def kept(self, runs) -> tuple:
        """Networks to store: the Aux-Net that holds the learngene, or every one."""
        if runs[0].role not in WAYS["learngene"]:
            return tuple(run.spec for run in runs)
        if self.survey.learngene is None:
            self.note("stored parameters of the learngene: not known")
            return ()
        return (self.survey.learngene,)


def _stored(name: str, spec) -> int:
    """Parameters of a network, or what a learngene's file holds."""
    from sws_jax.estimate import cost
    from sws_jax.models import weights
    from sws_jax.storage import paths, runs

    if name.endswith(".safetensors") or paths.exists(name):
        about = weights.describe(runs.weights_file(name))
        if about.kind == "learngene":
            return cost.params(about.replace(net=spec.net, class_names=()))
    return cost.params(spec)


def _teacher(args, student):
    """The network of ``--teacher``, for a student's classes and channels."""
    from sws_jax.models.names import named

    if not args.teacher:
        return None
    net = student.net
    changes = {**_changes(args), "num_classes": net.num_classes}
    changes.pop("image_size", None)  # it resizes the student's images to its own
    return named(args.teacher, {**changes, "channels": net.channels})


def _changes(args) -> dict[str, Any]:
    """Of a spec, by the options."""
    given = {"num_classes": args.classes, "image_size": args.image_size}
    return {name: value for name, value in given.items() if value is not None}


def _short(value: float | None) -> str:
    """Up to ten digits as they are, larger numbers with a power of ten."""
    if value is None:
        return "-"
    return f"{value:,.10g}" if value < 1e10 else f"{value:.3g}"


def _print_table(head: Sequence[str], body, left: Sequence[int] = (0,)) -> None:
    import tabulate

    sides = ["left" if column in left else "right" for column in range(len(head))]
    print(tabulate.tabulate(body, head, disable_numparse=True, colalign=sides))


def _print_json(found) -> None:
    import json

    print(json.dumps(found, indent=2))
