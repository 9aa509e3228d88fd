"""Arguments of public functions: of a wrong kind, a sentence that names them; of any
right kind, what plain ones give."""

import copy
import dataclasses
import fractions
import functools
import importlib
import inspect
import math
import os
import pathlib
import pickle
import re
import shutil
import types
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sws_jax
from sws_jax import (
    arguments,
    convert,
    cost,
    data,
    learngenes,
    networks,
    sharding,
    specs,
    teacher,
    trees,
    weights,
)
from sws_jax import __main__ as tools
from sws_jax.data.base import Arrays
from sws_jax.data.pipeline import IN_THREAD
from sws_jax.data.transforms import Fit
from sws_jax.errors import UserError

from support.learngenes import describe, learngene
from support.networks import TINY, aux_spec, params_of

MODULES = (
    "", "convert", "cost", "data", "data.transforms", "description", "evaluation",
    "learngenes", "loading", "networks", "specs", "teacher", "weights",
)  # fmt: skip
# They take nothing, or are made by functions that look at it; and what every image goes
# through, which looks at nothing.
UNGUARDED = {
    "UserError", "convert.Identified", "data.Split.read", "data.transforms.Transform",
    "data.transforms.Transform.check_channels", "data.transforms.crop_box",
    "data.transforms.padded_crop", "data.transforms.resize",
    "data.transforms.resized_crop",
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
        "interpolation to decoder unreadable quantity",
        "dtype": "dtype",
        "whole": "depth width heads patch_size channels num_classes unroll step seed "
        "global_batch_size images group_width stem_width",
        "number": "mlp_ratio norm_eps drop_path init_std pos_embed_std crop eval_crop "
        "accuracy val_fraction memory_gib epochs tuning se_ratio down_mlp_ratio "
        "minimum",
        "truth": "distilled dist_head remat boxed",
        "wholes": "stages plan allotment widths depths key_dims down_heads "
        "down_key_dims order image_shape specs.LeViTSpec.heads",
        "numbers": "attn_ratios down_attn_ratios mean std",
        "texts": "class_names notes",
        "pairs": "versions",
        "sides": "image_size data.transforms.Fit.size",
        "function": "own tell function genes expand allot auxiliary",
        "mapping": "flat data stored scores",
        "class": "spec_class",
        "object": "spec net normalization description learngene network given compute "
        "split fit mesh reading predictor aux runs kept many one train val test "
        "teacher.for_classes.teacher teacher.for_classes.dataset "
        "teacher.check_scores.dataset cost.Run.teacher cost.step_flops.teacher "
        "cost.by_learngene.teacher cost.paper.teacher",
        "images": "networks.Predictor.logits.images",
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
    found = {}
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    for one in (function, *(HANDED_ON.get(function, ()))):
        for name, parameter in inspect.signature(one).parameters.items():
            if parameter.kind in named and name not in ("self", "cls"):
                found.setdefault(name, parameter.default is None)
    return found


HANDED_ON = {convert.load: (convert.identify,), sws_jax.named: (sws_jax.ViTSpec,)}


def public():
    """What users call and give something to, by where it stands: functions, classes,
    and their methods."""
    found, seen = {}, []
    for module in MODULES:
        owner = importlib.import_module(f"sws_jax.{module}".rstrip("."))
        for name in dir(owner):
            value = getattr(owner, name)
            if not is_public(owner, name, value) or value in seen:
                continue
            seen.append(value)
            where = f"{module}.{name}".lstrip(".")
            found[where] = value
            for method in vars(value) if isinstance(value, type) else ():
                if not method.startswith("_") and inspect.isroutine(
                    vars(value)[method]
                ):
                    found[f"{where}.{method}"] = getattr(value, method)
    return {
        name: function
        for name, function in found.items()
        if name not in UNGUARDED and arguments_of(function)
    }


PUBLIC = public()


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """For each public function, calls with plain arguments; every argument is in one.

    What a call writes is ``out``, or begins so.
    """
    at = tmp_path_factory.mktemp("arguments")
    out, own = str(at / "out.safetensors"), str(at / "own.safetensors")
    gene = learngene((1, 2))
    net = sws_jax.expand(gene, depth=2)
    about, aux = net.description, aux_spec((1, 2))
    # (Numbers that are the same in all kinds.)
    exact = dict(norm_eps=0.5, init_std=0.25, pos_embed_std=0.25, drop_path=0.5)
    spec = net.spec.replace(**exact)
    aux_net = learngenes.auxiliary(gene)
    file, folder, published = (
        str(at / name) for name in ("gene.safetensors", "timm", "")
    )
    published = str(at / "aux.safetensors")
    sws_jax.save_learngene(file, gene)
    sws_jax.save_network(own, net)
    convert.save(folder, net, "timm")
    convert.save(published, gene, "published")
    given = convert.identify(folder)
    view = about.normalization
    images = np.zeros((8, 8, 8, 1), np.uint8)
    split = Arrays(images, np.arange(8, dtype=np.int32))
    names = about.class_names
    dataset = data.Dataset("few", split, split, split, names, (8, 8, 1), view)
    predictor = networks.predictor(net)
    run = cost.Run("aux", spec, 2.0)
    plan = cost.Plan((run,), (spec,))
    levit = specs.LeViTSpec(
        widths=(8, 8), depths=(1, 1), heads=(1, 1), key_dims=(4, 4),
        attn_ratios=(1.0, 1.0), mlp_ratio=1.0, down_heads=(2,), down_key_dims=(4,),
        down_attn_ratios=(1.0,), down_mlp_ratio=1.0, image_size=16, channels=1,
    )  # fmt: skip
    regnet = specs.RegNetSpec(
        widths=(8, 16), depths=(1, 1), group_width=8, stem_width=4, image_size=16
    )
    known = dict(
        layout="timm-vit", part="", heads=2, norm_eps=0.5, pool_order="norm_mean",
        image_size=(8, 8), mean=(0.5,), std=(0.25,), crop=0.875, dataset="digits",
        interpolation="bilinear",
    )  # fmt: skip
    tell = [].append
    saved = dict(path=out, params=net.params, description=about)
    of_gene, of_net = dict(learngene=gene), dict(network=net)
    return {
        "AuxViTSpec": [vars(aux)],
        "AuxViTSpec.build": [dict(self=aux, compute=sws_jax.Compute())],
        "Compute": [vars(sws_jax.Compute(unroll=2))],
        "Descendant": [vars(net)],
        "Description": [
            vars(about.replace(seed=3, accuracy=0.5, eval_crop=0.5, val_fraction=0.25))
            | dict(stages=(1, 1), versions=(("a", "1"), ("b", "2")))
        ],
        "Description.from_json": [dict(text=about.to_json())],
        "Learngene": [vars(gene)],
        "Network": [vars(aux_net)],
        "ViTSpec": [vars(spec)],
        "ViTSpec.build": [dict(self=spec, compute=sws_jax.Compute())],
        "expand": [
            of_gene | dict(depth=2, num_classes=3, image_size=(12, 12), seed=4),
            of_gene | dict(plan=(0, 1, 1)),
            of_gene | dict(allotment=(1, 2)),
        ],
        "extract": [dict(network=aux_net)],
        "load_learngene": [dict(path=file)],
        "load_network": [dict(path=own)],
        "named": [
            {k: v for k, v in vars(spec).items() if k not in ("width", "depth")}
            | dict(name="vit_nano_patch4_L2", width=16, depth=2)
        ],
        "save_learngene": [of_gene | dict(path=out)],
        "save_network": [of_net | dict(path=out)],
        "convert.identify": [dict(source=folder) | known, dict(source=dict(given.tensors), heads=2)],
        "convert.load": [
            dict(source=folder, tell=tell) | known,
            dict(source=published, stages=(1, 2), profile="official", tell=tell),
        ],
        "convert.recognise": [
            dict(path="p", flat=dict(given.flat), layout="timm-vit", image_size=(8, 8), part="", own=str)
        ],
        "convert.refusal": [dict(given=given)],
        "convert.save": [
            of_net | dict(path=str(at / "out"), to="timm"),
            dict(path=out, network=gene, to="published"),
        ],
        "cost.Claim": [dict(quantity="epochs", many=plan, one=plan, condition="none")],
        "cost.Plan": [vars(plan)],
        "cost.Run": [vars(run) | dict(teacher=spec, images=9)],
        "cost.activation_bytes": [dict(spec=spec, compute=sws_jax.Compute())],
        "cost.by_learngene": [
            dict(aux=aux, depths=(2, 3), epochs=2.0, tuning=0.5, images=9, teacher=spec)
        ],
        "cost.flops": [dict(function=lambda: jnp.ones((2, 2)) @ jnp.ones((2, 2)))],
        "cost.forward_flops": [dict(spec=spec)],
        "cost.paper": [dict(size="S", teacher=spec)],
        "cost.params": [dict(spec=spec), dict(spec=gene.description)],
        "cost.ratios": [dict(many=plan, one=plan)],
        "cost.separately": [dict(net=spec, depths=(2, 3), epochs=0.5, images=9)],
        "cost.step_flops": [dict(spec=spec, compute=sws_jax.Compute(), teacher=spec)],
        "data.Dataset": [vars(dataset) | dict(notes=("a", "b"), stored={"all": split})],
        "data.Dataset.split": [dict(self=dataset, name="val")],
        "data.Normalization": [dict(mean=(0.5, 0.25), std=(1.0, 2.0))],
        "data.is_built_in": [dict(source="digits")],
        "data.is_encoded": [dict(source=folder)],
        "data.is_set": [dict(path=folder)],
        "data.load_dataset": [
            dict(
                source="digits", val_fraction=0.25, image_size=(8, 8), mean=(0.5,),
                std=(0.25,), directory=str(at), cache=str(at), memory_gib=0.5,
                decoder="pillow", unreadable="skip",
            )
        ],  # fmt: skip
        "data.transforms.Fit": [dict(size=(8, 8), crop=0.5, interpolation="nearest")],
        "evaluation.evaluate": [
            dict(
                predictor=predictor, split=split, fit=Fit((8, 8)), normalization=view,
                global_batch_size=8, mesh=sharding.make_mesh(), reading=IN_THREAD,
            )
        ],  # fmt: skip
        "learngenes.Method": [vars(learngenes.METHODS["sws"])],
        "learngenes.abstract_learngene": [dict(description=gene.description)],
        "learngenes.auxiliary": [of_gene],
        "learngenes.check_learngene": [dict(path=file, description=gene.description)],
        "learngenes.check_params": [of_gene],
        "learngenes.find_method": [dict(name="tleg")],
        "learngenes.num_stored": [of_gene],
        "loading.load": [dict(path=file, depth=3), dict(path=own, step=None)],
        "networks.Predictor": [vars(predictor) | dict(order=tuple(range(9, -1, -1)))],
        "networks.Predictor.logits": [
            dict(self=predictor, images=np.zeros((1, 8, 8, 1), np.float32), normalization=view)
        ],
        "networks.abstract_params": [dict(spec=spec, boxed=False)],
        "networks.check_network": [dict(path=own, description=about)],
        "networks.check_params": [of_net],
        "networks.described": [of_net | dict(path=own)],
        "networks.predictor": [of_net | dict(dtype="bfloat16", order=(1, 0))],
        "specs.LeViTSpec": [vars(levit)],
        "specs.LeViTSpec.build": [dict(self=levit, compute=sws_jax.Compute())],
        "specs.RegNetSpec": [vars(regnet)],
        "specs.RegNetSpec.build": [dict(self=regnet, compute=sws_jax.Compute())],
        "specs.from_dict": [dict(spec_class=sws_jax.ViTSpec, data=specs.to_dict(spec))],
        "specs.parse_stages": [dict(text="1-2")],
        "specs.to_dict": [dict(spec=spec)],
        "teacher.check_fits": [dict(spec=spec, num_classes=10, channels=1, name="few")],
        "teacher.check_scores": [
            dict(scores={"top1": 0.9, "loss": 0.1}, dataset=dataset, minimum=0.5)
        ],
        "teacher.for_classes": [dict(teacher=predictor, dataset=dataset)],
        "teacher.is_run": [dict(path=str(at))],
        "teacher.load_teacher": [dict(path=own, dtype="float32")],
        "teacher.weights_file": [dict(path=own)],
        "weights.check": [dict(what="it", expected=net.params, params=net.params)],
        "weights.describe": [dict(path=own)],
        "weights.is_ours": [dict(path=own)],
        "weights.load": [dict(path=own)],
        "weights.on_host": [dict(path=own, params=net.params)],
        "weights.save": [saved],
    }  # fmt: skip


def role_of(where, name):
    return ROLE_OF.get(f"{where}.{name}") or ROLE_OF[name]


def call(where, given):
    """What a function gives, or writes."""
    given = dict(given)
    owner = given.pop("self", None)
    function = getattr(owner, where.rpartition(".")[2]) if owner else PUBLIC[where]
    result = function(**given)
    out = given.get("path") or ""
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


def refused(where, given):
    with pytest.raises(UserError) as caught:
        call(where, given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_public_function_is_tried_with_every_argument(calls):
    assert set(calls) == set(PUBLIC)
    for where, function in PUBLIC.items():
        tried = {name for given in calls[where] for name in given} - {"self"}
        assert set(arguments_of(function)) == tried, where


@pytest.mark.parametrize("where", PUBLIC)
def test_a_wrong_kind_is_refused_by_the_argument_s_name(where, calls):
    for name, optional in arguments_of(PUBLIC[where]).items():
        role = role_of(where, name)
        fine = FINE.get(role, "").split() + ["None"] * optional
        odd = [value for label, value in ODD.items() if label not in fine]
        for value in [*odd, *WRONG.get(role, ())] if role != "tree" else ():
            given = next(given for given in calls[where] if name in given)
            words = refused(where, given | {name: value})
            assert re.search(rf"\b{name}\b", words), (name, value, words)


@pytest.mark.parametrize("where", PUBLIC)
def test_any_right_kind_gives_what_a_plain_one_gives(where, calls):
    own = inspect.signature(PUBLIC[where]).parameters  # the rest are another's
    for given in calls[where]:
        others = [
            (name, other)
            for name, value in given.items()
            if name in own and name != "self" and value is not None
            for other in alike(role_of(where, name), value)
        ]
        plain = call(where, given) if others else None
        for name, other in others:
            result = call(where, given | {name: other})
            assert same(plain, result), (name, type(other))


@pytest.mark.parametrize("where", PUBLIC)
def test_arguments_that_a_function_does_not_have_or_lacks(where, calls):
    given = calls[where][0]
    assert "bogus" in refused(where, given | {"bogus": 1})
    parameters = inspect.signature(PUBLIC[where]).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and p.name in given]
    for name in needed if "self" not in given else ():
        assert name in refused(where, {k: v for k, v in given.items() if k != name})
