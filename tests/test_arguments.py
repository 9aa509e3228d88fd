"""Arguments of public functions: of a wrong kind, a sentence that names them; of any
right kind, what plain ones give."""

import copy
import dataclasses
import fractions
import functools
import importlib
import inspect
import itertools
import math
import os
import pathlib
import pickle
import re
import shlex
import shutil
import types
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sws_jax
from sws_jax import __main__ as tools
from sws_jax import arguments, convert, cost, data, sharding, specs, trees
from sws_jax.arguments import checked
from sws_jax.data import pipeline
from sws_jax.data.base import Arrays
from sws_jax.data.pipeline import IN_THREAD
from sws_jax.data.transforms import Fit, Transform
from sws_jax.errors import UserError
from sws_jax.methods import learngenes
from sws_jax.models import networks, weights

from support.learngenes import learngene
from support.networks import aux_spec

# By the names that users know, which `sws_jax.OLDER_NAMES` brings to modules of today.
MODULES = (
    "", "convert", "cost", "data", "data.transforms", "description", "evaluation",
    "learngenes", "loading", "networks", "specs", "teacher", "weights",
)  # fmt: skip
PARTS = {"learngenes": ("learngenes", "learngenes.base")}  # whose names are its own
# They take nothing, or are made by functions that look at it; what every image goes
# through, which looks at nothing; steps of `expand`, which has looked already; and what
# jobs count of the steps that they have made.
UNGUARDED = {
    "UserError", "convert.Identified", "data.Split.read", "data.transforms.Transform",
    "data.transforms.Transform.check_channels", "data.transforms.Transform.draw",
    "data.transforms.crop_box", "data.transforms.padded_crop", "data.transforms.resize",
    "data.transforms.resized_crop",
    "learngenes.LEARNGENE", "learngenes.fresh_head", "learngenes.gather",
    "learngenes.own", "learngenes.resize_pos_embed", "learngenes.resolve_plan",
    "learngenes.split_heads",
    "Description.derived", "evaluation.compiled", "learngenes.describe",
    "learngenes.plan_of",
    "cost.mean_step_flops", "cost.own_params", "cost.step_bytes",
    "learngenes.initial_own", "learngenes.is_usual", "learngenes.of_genes",
    "weights.check_names",
}  # fmt: skip

# What the authors of methods write and make, for jobs to call.
INTERFACE = {
    "BlockMethod", "FromGene", "FromNetwork", "FromRun", "Length", "Made", "Method",
    "Phase", "Request", "Seed", "Trained",
}  # fmt: skip

# What an argument is, by its name, or by its function's and its own.
ROLES = {
    role: names.split()
    for role, names in {
        "path": "path",
        "name or path": "source directory cache",
        "path or tensors": "convert.identify.source convert.load.source",
        "text": "name method teacher dataset layout part what condition role text size "
        "family",
        "choice": "kind profile pool pool_order gelu weight_init patch_bias_init "
        "interpolation crop_mode to decoder unreadable quantity backend",
        "dtype": "dtype",
        "whole": "depth width heads patch_size channels num_classes unroll step seed "
        "global_batch_size images group_width stem_width cost.Run.own",
        "number": "mlp_ratio norm_eps drop_path init_std pos_embed_std crop eval_crop "
        "accuracy val_fraction memory_gib epochs tuning se_ratio down_mlp_ratio "
        "minimum cost.Run.counted",
        "truth": "distilled dist_head remat boxed",
        "wholes": "stages plan allotment widths depths key_dims down_heads "
        "down_key_dims order image_shape specs.LeViTSpec.heads",
        "numbers": "attn_ratios down_attn_ratios mean std",
        "texts": "class_names notes taps",
        "pairs": "versions",
        "sides": "image_size data.transforms.Fit.size",
        "function": "own tell function genes expand allot auxiliary",
        "mapping": "flat data stored scores",
        "class": "spec_class",
        "object": "spec net segments normalization description learngene network given "
        "compute split fit mesh reading predictor aux runs kept many one train val "
        "test teacher.for_classes.teacher teacher.for_classes.dataset "
        "teacher.check_scores.dataset cost.Run.teacher cost.step_flops.teacher "
        "cost.by_learngene.teacher cost.paper.teacher",
        "images": "networks.Predictor.logits.images networks.Predictor.outputs.images",
        # Looked at when it is used, since JAX puts anything there.
        "tree": "params expected arguments networks.Predictor.network",
    }.items()
}
ROLE_OF = {name: role for role, names in ROLES.items() for name in names}

ODD = {
    "None": None,
    "object": object(),
    "set": {1},
    "dict": {"a": 1},
    "nan": math.nan,
    "bool": True,
    "whole": 5,
    "complex": 1j,
    "text": "5",
    "path": pathlib.Path("5"),
    "bytes": b"5",
    "class": int,
    "function": len,
    "array": np.ones((2, 2)),
}
# Which of these a role takes, or looks at for its value alone.
FINE = {
    "path": "text path",
    "name or path": "text path",
    "path or tensors": "text path dict",
    "text": "text",
    "whole": "whole",
    "number": "whole",
    "truth": "bool",
    "sides": "whole",
    "function": "class function",
    "mapping": "dict",
    "class": "class",
    "images": "array",
}
NUMBERS = ("5", [5], np.array([5]), 10**400, "0.5", np.str_("1"))
WRONG = {
    "path": ("", "a\0b", ["a"]),
    "name or path": ("a\0b", ["a"]),
    "path or tensors": ("", "a\0b", ["a"], [("a", 1)]),
    "text": (["a"], np.array(["a", "b"])),
    "choice": ("nothing", ["mean"]),
    "dtype": ("float", jnp.int8, ["float32"]),
    "whole": (*NUMBERS, 2.5, 3.0, math.inf, np.float32(3), -1, np.int64(-1), 10**40),
    "number": (*NUMBERS, -math.inf, np.float32("nan"), np.array(math.nan)),
    "truth": (0, 1, "yes", "False", np.int64(1), [True]),
    "wholes": ("33433", 5, [2.5], ["3"], [None], [[3]], [True], [10**40], b"33"),
    "numbers": (0.5, "0.5", ["a"], [None], [math.nan], [math.inf], [[0.5]], (True,)),
    "texts": ("abc", 5, [1], [None], [["a"]]),
    "pairs": ("ab", ["ab"], [("a",)], [("a", 1)], [("a", "b", "c")], 5),
    "sides": ("8", [8], (8, 8, 8), 0, -8, 8.0, (8, 0), [math.nan, 8], (), 10**9, "8x8"),
    "class": ("ViTSpec",),
    "images": ([[[1.0]]], "image"),
}


class Where:
    """A path of somebody's own kind."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return self.path


def alike(role, value):
    """The same, in other kinds that a user may have."""
    if role == "path" or "path" in role and isinstance(value, str) and value:
        yield from (pathlib.Path(value), Where(value), np.str_(value))
    if role in ("text", "choice"):
        yield np.str_(value)
    if role == "dtype":
        yield from (np.dtype(value), getattr(jnp, value), np.zeros(1, value).dtype.type)
    if role == "whole":
        yield from (np.int64(value), np.uint16(value), np.array(value))
    if role == "number":
        yield from (np.float32(value), np.float64(value), np.array(value))
        yield from (fractions.Fraction(value), jnp.array(value, jnp.float32))
    if role == "truth":
        yield from (np.bool_(value), np.array(value), jnp.array(value))
    if role in ("wholes", "numbers", "texts"):
        yield from (list(value), np.array(value), iter(value), (v for v in value))
    if role == "numbers":
        yield np.array(value, np.float32)
    if role == "pairs":
        yield [list(pair) for pair in value]
    if role == "sides":
        yield from (list(value), np.array(value), np.int32(value[0]), value[0])
    if role == "mapping" and value:
        yield types.MappingProxyType(value)


def is_public(owner, name, value):
    if name.startswith("_") or not callable(value):
        return False
    if hasattr(owner, "__all__"):
        return name in owner.__all__ and hasattr(value, "__module__")
    return getattr(value, "__module__", "") == owner.__name__


def arguments_of(function):
    """Names of arguments and whether they may be None, those handed on included."""
    may_be_none = {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    for one in (function, *(HANDED_ON.get(function, ()))):
        for name, parameter in inspect.signature(one).parameters.items():
            if parameter.kind in named and name not in ("self", "cls"):
                may_be_none.setdefault(name, parameter.default is None)
    return may_be_none


HANDED_ON = {convert.load: (convert.identify,), sws_jax.named: (sws_jax.ViTSpec,)}


def owners():
    """The modules of `MODULES`, each under the name that users know."""
    for module in MODULES:
        for part in PARTS.get(module, (module,)):
            for home in sws_jax.OLDER_NAMES.get(part, (part,)):
                yield module, importlib.import_module(f"sws_jax.{home}".rstrip("."))


def public():
    """What users call and give something to, by where it stands: functions, classes,
    and their methods."""
    callables, seen = {}, []
    for module, owner in owners():
        for name in dir(owner):
            value = getattr(owner, name)
            if name in INTERFACE:
                continue
            if not is_public(owner, name, value) or value in seen:
                continue
            seen.append(value)
            where = f"{module}.{name}".lstrip(".")
            callables[where] = value
            for method in vars(value) if isinstance(value, type) else ():
                if not method.startswith("_") and inspect.isroutine(
                    vars(value)[method]
                ):
                    callables[f"{where}.{method}"] = getattr(value, method)
    return {
        name: function
        for name, function in callables.items()
        if name not in UNGUARDED and arguments_of(function)
    }


PUBLIC = public()


def plain_inputs(at):
    """Networks, files and data that calls are made with, below the directory `at`.

    What a call writes is ``out``, or begins so.
    """
    plain = types.SimpleNamespace(at=at, out=str(at / "out.safetensors"))
    plain.file, plain.own, plain.published, plain.folder = (
        str(at / name)
        for name in ("gene.safetensors", "own.safetensors", "aux.safetensors", "timm")
    )
    plain.gene = gene = learngene((1, 2))
    plain.net = net = sws_jax.expand(gene, depth=2)
    plain.about, plain.aux = net.description, aux_spec((1, 2))
    # Numbers that are the same in all kinds.
    exact = dict(norm_eps=0.5, init_std=0.25, pos_embed_std=0.25, drop_path=0.5)
    plain.spec = net.spec.replace(**exact)
    plain.aux_net = learngenes.auxiliary(gene)
    plain.of_gene, plain.of_net = dict(learngene=gene), dict(network=net)
    sws_jax.save_learngene(plain.file, gene)
    sws_jax.save_network(plain.own, net)
    convert.save(plain.folder, net, "timm")
    convert.save(plain.published, gene, "published")
    plain.view = plain.about.normalization
    plain.images = np.zeros((8, 8, 8, 1), np.uint8)
    plain.split = split = Arrays(plain.images, np.arange(8, dtype=np.int32))
    names = plain.about.class_names
    plain.dataset = data.Dataset(
        "few", split, split, split, names, (8, 8, 1), plain.view
    )
    plain.predictor = networks.predictor(net)
    return plain


def calls_of_package(plain):
    """Calls of `sws_jax` itself with plain arguments."""
    return {
        "AuxViTSpec": [vars(plain.aux)],
        "AuxViTSpec.build": [dict(self=plain.aux, compute=sws_jax.Compute())],
        "Compute": [vars(sws_jax.Compute(unroll=2))],
        "Descendant": [vars(plain.net)],
        "Description": [
            vars(
                plain.about.replace(
                    seed=3, accuracy=0.5, eval_crop=0.5, val_fraction=0.25
                )
            )
            | dict(stages=(1, 1), versions=(("a", "1"), ("b", "2")))
        ],
        "Description.from_dict": [dict(data=plain.about.to_dict())],
        "Description.from_json": [dict(text=plain.about.to_json())],
        "Learngene": [vars(plain.gene)],
        "Network": [vars(plain.aux_net)],
        "ViTSpec": [vars(plain.spec)],
        "ViTSpec.build": [dict(self=plain.spec, compute=sws_jax.Compute())],
        "expand": [
            plain.of_gene | dict(depth=2),
            plain.of_gene | dict(plan=(0, 1, 1)),
            plain.of_gene | dict(allotment=(1, 2)),
            plain.of_gene | dict(depth=1, num_classes=3, seed=4),
            plain.of_gene | dict(depth=1, image_size=(8, 8)),
        ],
        "extract": [dict(network=plain.aux_net)],
        "load_learngene": [dict(path=plain.file)],
        "load_network": [dict(path=plain.own)],
        "named": [
            {k: v for k, v in vars(plain.spec).items() if k not in ("width", "depth")}
            | dict(name="vit_nano_patch4_L2", width=16, depth=2)
        ],
        "save_learngene": [plain.of_gene | dict(path=plain.out)],
        "save_network": [plain.of_net | dict(path=plain.out)],
    }


def calls_of_convert(plain):
    """Calls of `convert` with plain arguments."""
    identified = convert.identify(plain.folder)
    known = dict(
        layout="timm-vit", part="", heads=2, norm_eps=0.5, gelu="tanh",
        pool_order="norm_mean", image_size=(8, 8), mean=(0.5,), std=(0.25,),
        crop=0.875, dataset="digits",
        interpolation="bilinear",
        crop_mode="squash",
    )  # fmt: skip
    tell = [].append
    return {
        "convert.identify": [dict(source=plain.folder) | known],
        "convert.load": [
            dict(source=plain.folder, tell=tell) | known,
            dict(source=plain.published, stages=(1, 2), profile="official", tell=tell),
        ],
        "convert.recognise": [
            dict(path="p", flat=dict(identified.flat), layout="timm-vit", part="")
            | dict(own=str, image_size=(8, 8))
        ],
        "convert.refusal": [dict(given=identified)],
        "convert.save": [
            plain.of_net | dict(path=str(plain.at / "out"), to="timm"),
            dict(path=plain.out, network=plain.gene, to="published"),
        ],
    }


def calls_of_cost(plain):
    """Calls of `cost` with plain arguments."""
    run = cost.Run("aux", plain.spec, 2.0)
    plan = cost.Plan((run,), (plain.spec,))
    return {
        "cost.Claim": [dict(quantity="epochs", many=plan, one=plan, condition="none")],
        "cost.Plan": [vars(plan)],
        "cost.Run": [vars(run) | dict(teacher=plain.spec, images=9)],
        "cost.activation_bytes": [dict(spec=plain.spec, compute=sws_jax.Compute())],
        "cost.by_learngene": [
            dict(
                aux=plain.aux,
                depths=(2, 3),
                epochs=2.0,
                tuning=0.5,
                images=9,
                teacher=plain.spec,
            )
        ],
        "cost.flops": [dict(function=lambda: jnp.ones((2, 2)) @ jnp.ones((2, 2)))],
        "cost.forward_flops": [dict(spec=plain.spec)],
        "cost.paper": [dict(size="S", teacher=plain.spec)],
        "cost.params": [dict(spec=plain.spec), dict(spec=plain.gene.description)],
        "cost.ratios": [dict(many=plan, one=plan)],
        "cost.separately": [dict(net=plain.spec, depths=(2, 3), epochs=0.5, images=9)],
        "cost.step_flops": [
            dict(
                spec=plain.spec,
                compute=sws_jax.Compute(),
                teacher=plain.spec,
            )
        ],
    }


def calls_of_data(plain):
    """Calls of `data` with plain arguments."""
    pixels, labels = str(plain.at / "few.npz"), np.arange(8) % 2
    arrays = {
        f"{part}_{what}": array
        for part in ("train", "test")
        for what, array in (("images", plain.images), ("labels", labels))
    }
    np.savez(pixels, class_names=["ant", "bee"], **arrays)
    return {
        "data.Dataset": [
            vars(plain.dataset) | dict(notes=("a", "b"), stored={"all": plain.split})
        ],
        "data.Dataset.split": [dict(self=plain.dataset, name="val")],
        "data.Normalization": [dict(mean=(0.5, 0.25), std=(1.0, 2.0))],
        "data.is_built_in": [dict(source="digits")],
        "data.is_encoded": [dict(source=plain.folder)],
        "data.is_set": [dict(path=plain.folder)],
        "data.load_dataset": [
            dict(
                source=pixels,
                val_fraction=0.25,
                image_size=(8, 8),
                mean=(0.5,),
                std=(0.25,),
                directory=str(plain.at),
                cache=str(plain.at),
                memory_gib=0.5,
                decoder="pillow",
                unreadable="skip",
            )
        ],
        "data.transforms.Fit": [
            dict(
                **dict(size=(8, 8), crop=0.5),
                **dict(interpolation="nearest", crop_mode="squash"),
            )
        ],
    }


def calls_of_networks(plain):
    """Calls of `networks`, `evaluation`, `loading`, `teacher` with plain arguments."""
    return {
        "networks.Predictor": [
            vars(plain.predictor) | dict(order=tuple(range(9, -1, -1)))
        ],
        "networks.Predictor.logits": [
            dict(
                self=plain.predictor,
                images=plain.images.astype(np.float32),
                normalization=plain.view,
            )
        ],
        "networks.Predictor.outputs": [
            dict(
                self=plain.predictor,
                images=plain.images.astype(np.float32),
                normalization=plain.view,
                taps=("attention",),
            )
        ],
        "networks.abstract_params": [dict(spec=plain.net.spec, boxed=False)],
        "networks.check_network": [dict(path=plain.own, description=plain.about)],
        "networks.check_params": [plain.of_net],
        "networks.described": [plain.of_net | dict(path=plain.own)],
        "networks.predictor": [plain.of_net | dict(dtype="bfloat16", order=(1, 0))],
        "evaluation.evaluate": [
            dict(
                predictor=plain.predictor,
                split=plain.split,
                fit=Fit((8, 8)),
                normalization=plain.view,
                global_batch_size=8,
                mesh=sharding.make_mesh(),
                reading=IN_THREAD,
            )
        ],
        "loading.load": [
            dict(path=plain.file, depth=3),
            dict(path=plain.own, step=None),
        ],
        "loading.refusal": [dict(path=plain.own)],
        "teacher.check_fits": [
            dict(spec=plain.spec, num_classes=10, channels=1, name="few")
        ],
        "teacher.check_scores": [
            dict(scores={"top1": 0.9, "loss": 0.1}, dataset=plain.dataset, minimum=0.5)
        ],
        "teacher.for_classes": [dict(teacher=plain.predictor, dataset=plain.dataset)],
        "teacher.is_run": [dict(path=str(plain.at))],
        "teacher.load_teacher": [dict(path=plain.own, dtype="float32")],
        "teacher.weights_file": [dict(path=plain.own)],
    }


def calls_of_learngenes(plain):
    """Calls of `learngenes` with plain arguments."""
    return {
        "learngenes.abstract_learngene": [dict(description=plain.gene.description)],
        "learngenes.auxiliary": [plain.of_gene],
        "learngenes.check_learngene": [
            dict(path=plain.file, description=plain.gene.description)
        ],
        "learngenes.check_params": [plain.of_gene],
        "learngenes.find_method": [dict(name="tleg")],
        "learngenes.num_stored": [plain.of_gene],
    }


def calls_of_specs(plain):
    """Calls of `specs` with plain arguments."""
    levit = specs.LeViTSpec(
        widths=(8, 8), depths=(1, 1), heads=(1, 1), key_dims=(4, 4),
        attn_ratios=(1.0, 1.0), mlp_ratio=1.0, down_heads=(2,), down_key_dims=(4,),
        down_attn_ratios=(1.0,), down_mlp_ratio=1.0, image_size=16, channels=1,
    )  # fmt: skip
    regnet = specs.RegNetSpec(
        widths=(8, 16), depths=(1, 1), group_width=8, stem_width=4, image_size=16
    )
    expanded = specs.ExpandedSpec(plain.spec, (plain.spec.depth,), "tleg")
    stitched = specs.StitchedSpec((plain.spec, plain.spec))
    return {
        "specs.ExpandedSpec": [vars(expanded)],
        "specs.ExpandedSpec.build": [dict(self=expanded, compute=sws_jax.Compute())],
        "specs.LeViTSpec": [vars(levit)],
        "specs.LeViTSpec.build": [dict(self=levit, compute=sws_jax.Compute())],
        "specs.RegNetSpec": [vars(regnet)],
        "specs.RegNetSpec.build": [dict(self=regnet, compute=sws_jax.Compute())],
        "specs.StitchedSpec": [vars(stitched)],
        "specs.StitchedSpec.build": [dict(self=stitched, compute=sws_jax.Compute())],
        "specs.from_dict": [
            dict(spec_class=sws_jax.ViTSpec, data=specs.to_dict(plain.spec))
        ],
        "specs.parse_stages": [dict(text="1-2")],
        "specs.to_dict": [dict(spec=plain.spec)],
    }


def calls_of_weights(plain):
    """Calls of `weights` with plain arguments."""
    saved = dict(path=plain.out, params=plain.net.params, description=plain.about)
    return {
        "weights.check": [
            dict(what="it", expected=plain.net.params, params=plain.net.params)
        ],
        "weights.describe": [dict(path=plain.own)],
        "weights.is_ours": [dict(path=plain.own)],
        "weights.load": [dict(path=plain.own)],
        "weights.on_host": [dict(path=plain.own, params=plain.net.params)],
        "weights.save": [saved],
    }


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """Calls of each public function with plain arguments, each of them in some call."""
    plain = plain_inputs(tmp_path_factory.mktemp("arguments"))
    return {
        name: arguments
        for calls_of_module in (
            calls_of_package,
            calls_of_convert,
            calls_of_cost,
            calls_of_data,
            calls_of_networks,
            calls_of_learngenes,
            calls_of_specs,
            calls_of_weights,
        )
        for name, arguments in calls_of_module(plain).items()
    }


def role_of(where, name):
    return ROLE_OF.get(f"{where}.{name}") or ROLE_OF[name]


def call(where, values):
    """What a function gives, or writes."""
    values = dict(values)
    owner = values.pop("self", None)
    function = getattr(owner, where.rpartition(".")[2]) if owner else PUBLIC[where]
    result = function(**values)
    out = values.get("path") or ""
    if not os.path.basename(os.fspath(out)).startswith("out"):
        return result
    files = [out] if os.path.isfile(out) else sorted(pathlib.Path(out).iterdir())
    written = {
        os.path.basename(file): pathlib.Path(file).read_bytes() for file in files
    }
    os.remove(out) if os.path.isfile(out) else shutil.rmtree(out)
    return written


def same(a, b):
    """Equal in every part, and of the same types."""
    if inspect.isroutine(a) or isinstance(a, functools.partial):
        return callable(b)
    if type(a) is not type(b) and not isinstance(a, Mapping):
        return False
    if isinstance(a, (np.ndarray, jax.Array)):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if dataclasses.is_dataclass(a) and not isinstance(a, type):
        fields = [field.name for field in dataclasses.fields(a)]
        return all(same(getattr(a, f, 0), getattr(b, f, 0)) for f in fields)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def refused(where, values):
    with pytest.raises(UserError) as caught:
        call(where, values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_public_function_is_tried_with_every_argument(calls):
    assert set(calls) == set(PUBLIC)
    for where, function in PUBLIC.items():
        tried = {name for values in calls[where] for name in values} - {"self"}
        assert set(arguments_of(function)) == tried, where


@pytest.mark.parametrize("where", PUBLIC)
def test_a_wrong_kind_is_refused_by_the_argument_s_name(where, calls):
    for name, optional in arguments_of(PUBLIC[where]).items():
        role = role_of(where, name)
        fine = FINE.get(role, "").split() + ["None"] * optional
        odd = [value for label, value in ODD.items() if label not in fine]
        for value in [*odd, *WRONG.get(role, ())] if role != "tree" else ():
            values = next(values for values in calls[where] if name in values)
            words = refused(where, values | {name: value})
            assert re.search(rf"\b{name}\b", words), (name, value, words)


@pytest.mark.parametrize("where", PUBLIC)
def test_any_right_kind_gives_what_a_plain_one_gives(where, calls):
    own = inspect.signature(PUBLIC[where]).parameters  # the rest are another's
    for values in calls[where]:
        others = [
            (name, other)
            for name, value in values.items()
            if name in own and name != "self" and value is not None
            for other in alike(role_of(where, name), value)
        ]
        plain = call(where, values) if others else None
        for name, other in others:
            result = call(where, values | {name: other})
            assert same(plain, result), (name, type(other))


@pytest.mark.parametrize("where", PUBLIC)
def test_arguments_that_a_function_does_not_have_or_lacks(where, calls):
    values = calls[where][0]
    assert "bogus" in refused(where, values | {"bogus": 1})
    parameters = inspect.signature(PUBLIC[where]).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.name in values]
    for name in needed if "self" not in values else ():
        assert name in refused(where, {k: v for k, v in values.items() if k != name})


@pytest.mark.parametrize("where", PUBLIC)
def test_a_function_is_called_as_it_can_be_imported(where):
    """sws_jax.expand, networks.predictor: a name of a package or module of users."""
    with pytest.raises(UserError) as caught:
        PUBLIC[where](bogus=1)
    called = re.split(" has no argument | takes ", str(caught.value))[0]
    first, _, rest = called.partition(".")
    if isinstance(PUBLIC[where], type):
        assert called == PUBLIC[where].__name__
        return
    reached = {o.__name__.rpartition(".")[2]: o for _, o in owners()}[first]
    for part in rest.split("."):
        reached = getattr(reached, part)
    assert reached == PUBLIC[where]


def test_public_names_are_called_by_the_package():
    for function in (sws_jax.expand, sws_jax.load_network, sws_jax.named):
        with pytest.raises(UserError, match=f"^sws_jax.{function.__name__} takes "):
            function()


# What the guard leaves as it was


def test_what_is_guarded_looks_as_it_was_written():
    assert inspect.signature(sws_jax.load_network).parameters.keys() == {"path"}
    assert sws_jax.expand.__name__ == "expand" and "Args:" in sws_jax.expand.__doc__
    assert list(inspect.signature(sws_jax.Compute).parameters)[0] == "dtype"
    assert sws_jax.ViTSpec.__doc__.startswith("A Vision Transformer")


def test_specs_are_copied_compared_and_replaced(calls):
    for name in ("ViTSpec", "AuxViTSpec", "Compute", "Description", "specs.LeViTSpec"):
        one = PUBLIC[name](**calls[name][0])
        for other in (
            copy.copy(one),
            copy.deepcopy(one),
            pickle.loads(pickle.dumps(one)),
            dataclasses.replace(one),
        ):
            assert other == one and hash(other) == hash(one) and same(other, one)
    spec = PUBLIC["ViTSpec"](**calls["ViTSpec"][0])
    for replace in (spec.replace, functools.partial(dataclasses.replace, spec)):
        assert replace(depth=np.int64(7), image_size=[8, 16]).image_size == (8, 16)
        with pytest.raises(UserError, match="^depth must be a whole number"):
            replace(depth="7")
        with pytest.raises(UserError, match="ViTSpec has no argument size"):
            replace(size=7)
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.depth = 3


def test_networks_are_trees_and_specs_are_static(calls):
    """JAX makes networks of anything, under `jit` and in its own bookkeeping."""
    gene, net = calls["expand"][0]["learngene"], calls["save_network"][0]["network"]
    predictor = calls["evaluation.evaluate"][0]["predictor"]
    for one in (gene, net, predictor):
        leaves, treedef = jax.tree.flatten(one)
        assert same(jax.tree.unflatten(treedef, leaves), one)
        jax.tree.unflatten(treedef, [object()] * len(leaves))
        assert jax.tree.map(lambda leaf: None, one) is not None
        assert jax.eval_shape(lambda one: one, one) is not None
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def depth(spec, x):
        traced.append(spec)
        return x * spec.depth

    for two in (2, np.int64(2), np.array(2)):
        assert depth(net.spec.replace(depth=two), 1) == 2
    assert len(traced) == 1


def test_a_number_that_is_traced_or_gone_is_told():
    gene = learngene((1, 2))

    @jax.jit
    def expanded(depth):
        return sws_jax.expand(gene, depth=depth).params["norm"]["bias"]

    with pytest.raises(UserError, match="^depth is being traced by JAX.*static_argn"):
        expanded(3)
    gone = jnp.array(3)
    gone.delete()
    with pytest.raises(UserError, match="^depth must be a whole number from 1"):
        sws_jax.expand(gene, depth=gone)


def test_a_plan_that_has_no_end_is_refused():
    with pytest.raises(UserError, match="^plan can have at most 1024 whole numbers"):
        sws_jax.expand(learngene((1, 2)), plan=itertools.repeat(0))


@pytest.mark.parametrize("what", ["raises", "is no text", "is deep"])
def test_objects_of_somebody_s(what):
    class Odd:
        def __repr__(self):
            raise RuntimeError("no")

        __len__ = __iter__ = __float__ = __index__ = __fspath__ = __array__ = __repr__

    value = Odd()
    if what == "is no text":
        value = types.SimpleNamespace(dtype=np.dtype(int), shape=(), ndim=0)
    elif what == "is deep":
        value = []
        value.append(value)
    for function, name in (
        (sws_jax.load_network, "path"),
        (sws_jax.named, "name"),
        (lambda value: specs.ViTSpec(depth=value), "depth"),
        (lambda value: specs.ViTSpec(norm_eps=value), "norm_eps"),
        (lambda value: specs.ViTSpec(image_size=value), "image_size"),
        (lambda value: sws_jax.AuxViTSpec(specs.ViTSpec(), value), "stages"),
        (lambda value: data.Normalization(value, (1.0,)), "mean"),
    ):
        with pytest.raises(UserError, match=f"^{name}"):
            function(value)


def test_a_function_whose_argument_has_no_kind_stops_the_import():
    with pytest.raises(TypeError, match="say what kind of argument tree is"):

        @checked()
        def function(tree: "dict[str, int]"): ...

    with pytest.raises(TypeError, match="has no argument other"):

        @checked(other=arguments.truth)
        def another(path: "str"): ...


# One thing for another


def test_a_learngene_and_a_network_are_told_apart(calls):
    gene, net = calls["expand"][0]["learngene"], calls["save_network"][0]["network"]
    path = pathlib.Path(calls["load_learngene"][0]["path"])
    for call, words in (
        (lambda: sws_jax.expand(net, depth=2), "a descendant has no genes left"),
        (lambda: sws_jax.expand(path, depth=2), "sws_jax.load_learngene reads one"),
        (lambda: sws_jax.expand(str(path), depth=2), "sws_jax.load_learngene"),
        (lambda: sws_jax.extract(gene), "is a learngene already"),
        (lambda: sws_jax.extract(net), "a learngene is taken from an Aux-Net"),
        (lambda: sws_jax.extract(path), "sws_jax.load_network reads one"),
        (lambda: sws_jax.save_network("a", gene), "sws_jax.expand makes one"),
        (lambda: sws_jax.save_learngene("a", net), "a descendant has no genes"),
        (lambda: networks.predictor(gene), "sws_jax.expand makes one"),
        (lambda: cost.params(net), "its .spec is one"),
        (lambda: cost.forward_flops("vit_tiny_patch16_L2"), "sws_jax.named makes one"),
        (lambda: convert.load(lambda: None), "source must be a path, or a mapping"),
        (lambda: sws_jax.named("vit_tiny_patch16_L2", stages=1), "no argument stages"),
        (lambda: networks.Predictor(net, 0.5), "normalization must be a Normalization"),
    ):  # fmt: skip
        with pytest.raises(UserError) as caught:
            call()
        assert words in str(caught.value)


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(mean=0.5), "mean must be a sequence of numbers, and is 0.5"),
        (dict(mean="0.5"), "mean must be a sequence of numbers, and is '0.5'"),
        (dict(mean=("a",)), "mean[0] must be a number, and is 'a'"),
        (dict(mean=[123.675]), "mean[0] must be at most 10, and is 123.675"),
        (dict(std=None), "std must be a sequence of numbers, and is None"),
        (dict(crop="0.9"), "crop must be a number, and is '0.9'"),
        (dict(norm_eps="1e-5"), "norm_eps must be a number, and is '1e-5'"),
        (dict(stages="33433"), "stages must be a sequence of whole numbers, and is"),
        (dict(stages=5), "stages must be a sequence of whole numbers, and is 5"),
        (dict(stages=None), "stages must be a sequence of whole numbers, and is None"),
        (dict(heads=np.float32(2)), "heads must be a whole number of at least 1"),
        (dict(layout=np.array(["a", "b"])), "layout must be text, and is an array"),
        (dict(head=2), "convert.load has no argument head: it takes source,"),
    ],
)
def test_what_convert_is_asked_for(options, words, calls):
    with pytest.raises(UserError) as caught:
        convert.load(calls["convert.load"][0]["source"], **options)
    assert str(caught.value).startswith(words)


def test_numbers_of_numpy_are_saved_as_plain_ones(calls, tmp_path):
    folder, path = calls["convert.load"][0]["source"], tmp_path / "net.safetensors"
    options = dict(norm_eps=np.float32(0.5), crop=np.float32(0.9), heads=np.int8(2))
    options |= dict(
        mean=np.array([0.1]), std=[np.float16(0.5)], image_size=np.array([8, 8])
    )
    net, _ = convert.load(pathlib.Path(folder), **options)
    sws_jax.save_network(path, net)
    again = sws_jax.load_network(path)
    assert again.description == net.description and again.spec.norm_eps == 0.5
    assert again.description.eval_crop == float(np.float32(0.9))
    gene = calls["expand"][0]["learngene"]
    twice = sws_jax.expand(gene, depth=np.uint8(2), num_classes=np.int64(7))
    sws_jax.save_network(path, twice)
    assert sws_jax.load_network(path).spec == twice.spec


def test_an_order_of_outputs_that_are_not_there(calls):
    values = calls["networks.Predictor.logits"][0]
    for order in ((10,), (0, 1, 99)):
        predictor = dataclasses.replace(values["self"], order=order)
        with pytest.raises(UserError, match=f"^order names output {order[-1]},"):
            predictor.logits(values["images"], values["normalization"])


# Nothing is saved that cannot be loaded again


TREES = {
    "no dict": (lambda params: [params], "params must be a nested dict of numpy"),
    "nothing": (lambda params: None, "params must be a nested dict of numpy"),
    "a path": (lambda params: pathlib.Path("a"), "params must be a nested dict"),
    "lists": (lambda params: jax.tree.map(np.ndarray.tolist, params), "is a list"),
    "a text": (lambda params: params | {"norm": "a"}, "norm is a str"),
    "a number as key": (lambda params: params | {5: params["norm"]}, "has the key '5'"),
    "a slash": (lambda params: params | {"a/b": np.ones(1)}, "has the key 'a/b'"),
    "whole": (lambda params: cast(params, int), "of params holds int64"),
    "truths": (lambda params: cast(params, bool), "of params holds bool"),
    "complex": (lambda params: cast(params, complex), "of params holds complex128"),
    "objects": (lambda params: cast(params, object), "of params holds object"),
    "float8": (lambda params: cast(params, jnp.float8_e4m3fn), "holds float8_e4m3fn"),
    "gone": (lambda params: gone(params), "do not all have their values here"),
}


def cast(params, dtype):
    return jax.tree.map(lambda leaf: np.asarray(leaf).astype(dtype), params)


def gone(params):
    params = jax.tree.map(jnp.array, params)
    params["norm"]["bias"].delete()
    return params


@pytest.mark.parametrize("kind", TREES)
def test_what_could_not_be_loaded_is_not_saved(kind, calls, tmp_path):
    net, gene = calls["save_network"][0]["network"], calls["expand"][0]["learngene"]
    change, words = TREES[kind]
    net = dataclasses.replace(net, params=change(net.params))
    gene = dataclasses.replace(gene, params=change(gene.params))
    path = tmp_path / "net.safetensors"
    for save in (
        lambda: weights.save(path, net.params, net.description),
        lambda: sws_jax.save_network(path, net),
        lambda: sws_jax.save_learngene(path, gene),
        lambda: convert.save(path, net, "flax"),
        lambda: convert.save(tmp_path / "timm", net, "timm"),
        lambda: convert.save(path, gene, "published"),
    ):
        with pytest.raises(UserError) as caught:
            save()
        assert words in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_other_programs_get_no_weights_that_are_not_numbers(calls, tmp_path):
    net = calls["save_network"][0]["network"]
    nan = dataclasses.replace(
        net, params=jax.tree.map(lambda a: a * np.nan, net.params)
    )
    sws_jax.save_network(tmp_path / "net.safetensors", nan)  # which describes it
    with pytest.raises(UserError, match="pos_embed holds 64 numbers that are NaN"):
        convert.save(tmp_path / "timm", nan, "timm")
    mixed = dataclasses.replace(net, spec=net.spec.replace(heads=4))
    with pytest.raises(UserError, match="network is .* and its description is of"):
        convert.save(tmp_path / "timm", mixed, "timm")
    assert os.listdir(tmp_path) == ["net.safetensors"]


@pytest.mark.parametrize("dtype", [">f4", "<f8", np.float16, jnp.bfloat16])
def test_weights_in_another_order_of_bytes_are_saved(dtype, calls, tmp_path):
    net = calls["save_network"][0]["network"]
    other = dataclasses.replace(
        net, params=types.MappingProxyType(cast(net.params, dtype))
    )
    sws_jax.save_network(tmp_path / "net.safetensors", other)
    back = sws_jax.load_network(tmp_path / "net.safetensors")
    for name, leaf in trees.flatten(back.params).items():
        assert leaf.dtype.name == np.dtype(dtype).name
        np.testing.assert_array_equal(leaf, trees.flatten(dict(other.params))[name])


# On the command line


LINES = {
    "predict OWN x.png --top 0": "--top must be at least 1, and is 0",
    "predict OWN x.png --top many": "--top must be a whole number, and is 'many'",
    "predict GENE x.png --depth 0": "--depth must be a whole number from 1 to 1024",
    "predict OWN x.png --step -1": "--step must be a whole number of at least 0",
    "predict OWN ''": "IMAGE is empty",
    "convert TIMM OUT --crop nan": "--crop must be a number, and is nan",
    "convert TIMM OUT --crop 1.5": "--crop must be in (0, 1], and is 1.5",
    "convert TIMM OUT --mean 1,2": "--mean has 2 numbers, and the network takes 1",
    "convert TIMM OUT --mean a": "--mean is numbers like 0.5,0.5,0.5, not 'a'",
    "convert TIMM OUT --std 0": "--std[0] must be above 0, and is 0.0",
    "convert TIMM OUT --heads 0": "--heads must be a whole number of at least 1",
    "convert TIMM OUT --heads": "argument --heads: expected one argument",
    "convert TIMM OUT --norm-eps abc": "--norm-eps must be a number, and is 'abc'",
    "convert TIMM OUT --norm-eps -1": "--norm-eps must be above 0, and is -1.0",
    "convert TIMM OUT --image-size 0": "--image-size must be at least 1, and is 0",
    "convert TIMM OUT --image-size 8xx": "--image-size is like 384 or 224x160, and",
    "convert TIMM OUT --stages 0-3": "--stages[0] must be a whole number from 1 to",
    "convert TIMM OUT --profile odd": "--profile 'odd' is not one of consistent,",
    "convert TIMM OUT --pool-order odd": "--pool-order 'odd' is not one of norm_mean",
    "convert GENE OUT --to odd": "--to 'odd' is not one of timm, hugging-face",
    "convert GENE OUT --to timm --depth x": "--depth must be a whole number, and",
    "convert GENE OUT --to timm --depth 0": "--depth must be a whole number from 1 to",
    "convert '' OUT": "IN is empty",
    "describe ''": "FILE is empty",
    "evaluate OWN --batch-size 0": "--batch-size must be at least 1, and is 0",
    "evaluate OWN --batch-size 1e3": "--batch-size must be a whole number, and",
    "evaluate OWN --decoder odd": "--decoder 'odd' is not one of pillow, opencv",
    "evaluate OWN --unreadable odd": "--unreadable 'odd' is not one of stop, skip",
    "evaluate OWN --data ''": "--data is empty",
    "cost --dtype odd vit_tiny_patch16_L2": "--dtype 'odd' is not one of float32",
    "cost --image-size x vit_tiny_patch16_L2": "--image-size must be a whole number,",
    "prepare a b --size x": "--size must be a whole number, and is 'x'",
}


@pytest.mark.parametrize("line", LINES)
def test_a_flag_s_value_is_refused_by_its_name(line, calls, capsys):
    """In one line, with the exit code of requests that cannot be met."""
    out = calls["save_network"][0]["path"]
    files = {
        "OWN": calls["load_network"][0]["path"],
        "GENE": calls["load_learngene"][0]["path"],
        "TIMM": calls["convert.load"][0]["source"],
        "OUT": out,
    }
    argv = [files.get(word, word) for word in shlex.split(line)]
    assert tools.main(argv) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"sws_jax: {LINES[line]}")
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    assert not os.path.exists(out)


# What every image goes through


def test_no_guard_stands_before_each_image(calls, monkeypatch):
    values = calls["evaluation.evaluate"][0]
    split, fit, view = (values[name] for name in ("split", "fit", "normalization"))
    transform = Transform(crop="padded", padding=1, flip=True)
    batches = pipeline.train_batches(
        split, transform, seed=0, size=(8, 8), global_batch_size=4
    )
    logits = jax.jit(networks.Predictor.logits, static_argnums=2)
    predictor = values["predictor"]

    def step():
        fit(split.read(0)[0])
        logits(predictor, next(batches)["image"].astype(np.float32), view)

    step()  # compiles
    bind, guards = inspect.Signature.bind, []

    def counted(*args, **kwargs):
        guards.append(args)
        return bind(*args, **kwargs)

    monkeypatch.setattr(inspect.Signature, "bind", counted)
    sws_jax.Compute()
    assert len(guards) == 1
    step()
    assert len(guards) == 1


def test_a_long_text_is_quoted_without_its_middle():
    assert arguments.quoted("it's  5\n") == repr("it's  5\n")
    long = arguments.quoted("a" * 500 + "b")
    assert len(long) == 60 and long.startswith("'aa") and long.endswith("ab'")
