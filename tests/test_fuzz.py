"""Whatever stands in a command line or a file: an answer, or one clear sentence.

The cases are Hypothesis's, the same in every run. Each ends in time, in bounded
memory, without a file left behind, and in nothing but `UserError`.
"""

import contextlib
import dataclasses
import functools
import io
import itertools
import json
import operator
import os
import pathlib
import signal
import zipfile

import jaxtyping
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

import sws_jax
from sws_jax import __main__ as tools
from sws_jax import main
from sws_jax.data import images, load_dataset
from sws_jax.data.base import Unreadable
from sws_jax.data.transforms import Fit
from sws_jax.errors import UserError
from sws_jax.jobs import commandline, recipes
from sws_jax.methods import plans, sws
from sws_jax.preview import dry_run
from sws_jax.runtime import rendezvous

from support.damage import (
    FEW_AND_MANY,
    JSON,
    NUMBERS,
    ODD_TEXTS,
    bounded,
    damaged,
    edited,
    header_of,
    in_memory,
    in_time,
    one_sentence,
    safetensors_of,
    safetensors_parts,
)
from support.learngenes import learngene

ROOT = pathlib.Path(__file__).parent.parent
GENE = learngene(
    (1, 2), {"class_names": ("cat", "dog")}, width=2, heads=1, num_classes=2
)


@pytest.fixture(autouse=True)
def as_users_run_it(tmp_path):
    """No gibibytes, no handler left, and no types checked that are not by default."""
    before = signal.getsignal(signal.SIGTERM)
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with in_memory(str(tmp_path / "hypothesis")):
            yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
        signal.signal(signal.SIGTERM, before)


def refused_or(function, *args, **kwargs):
    """What a function returns, or None where it refuses in one sentence."""
    try:
        with in_time():
            return function(*args, **kwargs)
    except UserError as error:
        assert len(str(error).splitlines()) == 1, error
        return None


def command(function, argv):
    """The exit code of a command, which is 0 or comes with one sentence."""
    error = io.StringIO()
    with (
        contextlib.redirect_stderr(error),
        contextlib.redirect_stdout(io.StringIO()),
        in_time(),
    ):
        code = function(argv)
    assert code == 0 or one_sentence(error.getvalue())
    return code


# ------------------------------------------------------------------ command lines

FILES = sorted(path.name for path in (ROOT / "configs").glob("*.py"))
ARGUMENTS = dict(
    variant="", dataset="", profile="", teacher="", learngene="", compare="", odd="",
    depth=0, image_size=0, seeds=0, depths=(), stages=(), allotment=(), epochs=0.0,
)  # fmt: skip
RUN = recipes.run()
FIELDS = {name: operator.attrgetter(name)(RUN) for name in commandline.fields(RUN)} | {
    "compare.level": "",
    "compare.depths": (),
    "compare.long_epochs": 0.0,
    "compare.seeds": 0,
    "tune.seed": 0,
    "tune.schedule.rate": 0.0,
    "scratch.model.width": 0,
    "ancestor.model.depth": 0,
    "job": "",
}
WORDS = st.sampled_from(
    """digits 32px S/16 Ti/16 official consistent untuned tune full soft hard best last
    cosine constant keep fresh auto true false True None nan inf -inf -0.0 1e400 1e-320
    () (1,) (1,2,3) (1, (0,) (-1,2) (1.5,2) (nan,inf) ('a',) (None,) ((1,2),3) [1,2] {}
    3-3-4-3-3 1-0-1 -1-2 run: run:aux ../x / . x.npz bfloat16 float16 opencv skip single
    sws descendants mean token tanh fan_in padded resized per_class 0x10 1_0 1e3 1.0
    """.split()
)
WHOLE_NUMBERS = NUMBERS.filter(lambda n: isinstance(n, int))
BY_TYPE = {
    bool: st.sampled_from(["true", "false", "1"]),
    int: WHOLE_NUMBERS.map(str),
    float: NUMBERS.map(str),
    str: WORDS | ODD_TEXTS,
}


def value_of(default, join):
    """Values of a field's type, if odd ones, and sometimes of another."""
    if isinstance(default, tuple):
        numbers = st.lists(st.integers(0, 4) | WHOLE_NUMBERS | NUMBERS, max_size=4)
        fitting = numbers.map(lambda many: join(map(str, many)))
    else:
        fitting = BY_TYPE[type(default)]
    return fitting | fitting | WORDS | ODD_TEXTS


def pairs(fields, join):
    """``name=value``, for one of the fields."""
    return st.sampled_from(sorted(fields)).flatmap(
        lambda name: value_of(fields[name], join).map(lambda text: f"{name}={text}")
    )


WHOLE_CONFIGS = (
    "ancestor_vit.py", "aux_deit.py", "aux_deit.py:variant=S/16,teacher=T,dataset=D",
    "aux_deit.py:profile=official,stages=1-2,depths=2-3", "des_deit.py:learngene=G",
    "scratch_deit.py", "smoke.py", "transfer.py:learngene=G,dataset=D,compare=full",
)  # fmt: skip
PAIRS = st.lists(pairs(ARGUMENTS, "-".join), max_size=2).map(",".join)
CONFIG = st.one_of(
    st.sampled_from(WHOLE_CONFIGS),
    st.sampled_from(WHOLE_CONFIGS),
    st.builds("{}:{}".format, st.sampled_from(FILES), PAIRS | ODD_TEXTS),
).map(f"--config={ROOT}/configs/".__add__)
AUX = f"--config={ROOT}/configs/aux_deit.py"
OVERRIDE = pairs(FIELDS, lambda found: f"({','.join(found)},)").map("--config.".__add__)
NO_FLAGS = st.one_of(
    st.sampled_from(
        ["tune", "model", "model.depth.x", "no.field", "", ".", "tune."]
    ).flatmap(lambda name: (WORDS | ODD_TEXTS).map(lambda t: f"--config.{name}={t}")),
    st.sampled_from(sorted(FIELDS)).map("--config.".__add__),
    st.builds("{}{}={}".format, st.sampled_from(["-", "--", ""]), ODD_TEXTS, WORDS),
    st.sampled_from(["--", "-", "--config", "--config.", "--config=", "--workdir"]),
    ODD_TEXTS,
)
FLAGS = st.lists(OVERRIDE, max_size=3) | st.lists(OVERRIDE | NO_FLAGS, max_size=3)


@FEW_AND_MANY
def test_command_lines(cases, tmp_path, monkeypatch):
    """No job starts, as the dataset that each line ends with does not exist."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert commandline.parse([AUX, "--config.model.depth=3"])

    @bounded(cases)
    @given(CONFIG, FLAGS)
    @example(AUX, ["--config.compare.seeds=1000000000"])
    @example(AUX, ["--config.model.mlp_ratio=inf"])
    @example(AUX, ["--config.model.depth=1000000000", "--config.model.stages=()"])
    @example(AUX, ["--config.data.source=two\nlines"])
    @example(AUX, [f"--config.compare.depths=(1{'0' * 400},)"])
    def check(config, flags):
        nowhere = ["--workdir=work", "--config.data.source=no.npz"]
        argv = [config, *flags, *nowhere]
        if {"-h", "--help"} & set(argv):
            return
        refused_or(commandline.parse, [config, *flags])
        assert command(main.main, argv) in (main.EXIT_REFUSED, main.EXIT_ERROR)
        assert not os.listdir(".")

    check()


PLACES = st.lists(
    st.builds(
        "--{}={}".format,
        st.sampled_from([field.name for field in dataclasses.fields(rendezvous.Start)]),
        WORDS | ODD_TEXTS | st.sampled_from(["host:1", "h:70000", ":1", "0", "1", "2"]),
    ),
    max_size=5,
)
MACHINES = st.one_of(
    st.from_regex(r"(v[0-9][ep]?|[0-9]{1,3}xA?H?[0-9]{3})-?[0-9]{0,4}(GB)?"),
    st.sampled_from([*dry_run.TPUS, *dry_run.GPUS]).map("8x{}".format),
    WORDS | ODD_TEXTS,
)


@FEW_AND_MANY
def test_flags_of_processes_and_names_of_machines(cases):
    places = ["--coordinator=host:1", "--num_processes=2", "--process_id=1"]
    assert rendezvous.parse(places)[0].process_id == 1
    assert dry_run.machine("v5e-8").devices == 8

    @bounded(cases)
    @given(PLACES, MACHINES)
    def check(flags, text):
        outcome = refused_or(rendezvous.parse, flags)
        if outcome and outcome[0].coordinator:
            assert 0 <= outcome[0].process_id < outcome[0].num_processes
        devices = refused_or(dry_run.machine, text)
        assert devices is None or devices.devices >= 1

    check()


# -------------------------------------------------------------------------- plans

COUNTS = st.one_of(
    st.lists(st.integers(-1, 3), max_size=6),
    st.lists(NUMBERS | JSON, max_size=6),
    st.sampled_from([range(10**12), "012", b"01", {0: 1}, {1}, np.arange(2), "", ()]),
    st.builds(itertools.count, st.integers(-1, 1)),
    JSON,
)


@FEW_AND_MANY
def test_plans(cases):
    """A plan that is taken names a gene for every block, and expands."""
    requests = st.fixed_dictionaries(
        {},
        optional=dict(
            depth=NUMBERS | JSON,
            plan=COUNTS,
            allotment=COUNTS,
        ),
    )
    rest = st.fixed_dictionaries(
        {},
        optional=dict(
            num_classes=NUMBERS | JSON,
            image_size=NUMBERS | JSON | st.tuples(NUMBERS, NUMBERS),
            seed=NUMBERS | JSON,
        ),
    )

    def resolved(stages, **request):
        of_depth = functools.partial(sws.allot, stages=stages)
        return plans.resolve_plan(stages, of_depth, **request)

    assert resolved((1, 2), plan=(0, 1, 1)) == (0, 1, 1)
    changed = sws_jax.expand(GENE, depth=2, num_classes=5, image_size=8, seed=1)
    assert (changed.spec.depth, changed.spec.num_classes) == (2, 5)

    @bounded(cases)
    @given(requests, rest, st.lists(st.integers(1, 5), min_size=1, max_size=4))
    def check(request, rest, stages):
        plan = refused_or(resolved, tuple(stages), **request)
        if plan is not None:
            assert 1 <= len(plan) <= plans.MAX_DEPTH
            assert set(plan) <= set(range(len(stages)))
        outcome = refused_or(sws_jax.expand, GENE, **request)
        if outcome is not None:
            assert len(outcome.params["blocks"]["norm1"]["scale"]) == outcome.spec.depth
        outcome = refused_or(sws_jax.expand, GENE, depth=2, **rest)
        if outcome is not None and outcome.spec.num_classes:
            shape = outcome.params["head"]["kernel"].shape
            assert shape == (outcome.spec.width, outcome.spec.num_classes)

    check()


# ------------------------------------------------------------- headers of learngenes


@pytest.fixture(scope="module")
def gene_bytes(tmp_path_factory):
    path = tmp_path_factory.mktemp("gene") / "gene.safetensors"
    sws_jax.save_learngene(str(path), GENE)
    header, numbers = safetensors_parts(path.read_bytes())
    # It would refuse every change before anything else is looked at.
    del header["__metadata__"]["digest"]
    return safetensors_of(header, numbers)


def described(whole, text):
    """The same file with another description."""
    header, numbers = safetensors_parts(whole)
    metadata = {**header["__metadata__"], "description": text}
    return safetensors_of({**header, "__metadata__": metadata}, numbers)


def headers(whole):
    """Files of a learngene: damaged, or with another header or description."""
    header, numbers = safetensors_parts(whole)
    about = json.loads(header["__metadata__"]["description"])

    return st.one_of(
        damaged(whole, early=len(whole) - len(numbers)),
        edited(header).map(lambda changed: safetensors_of(changed, numbers)),
        edited(about).map(lambda changed: described(whole, json.dumps(changed))),
        edited(about).map(lambda changed: described(whole, json.dumps(changed))),
        ODD_TEXTS.map(lambda text: described(whole, text)),
    )


@FEW_AND_MANY
def test_headers_of_learngenes(cases, gene_bytes, tmp_path):
    path = str(tmp_path / "gene.safetensors")
    # What is whole is taken, here and below: to refuse everything would pass the rest.
    pathlib.Path(path).write_bytes(gene_bytes)
    whole = sws_jax.expand(sws_jax.load_learngene(path), depth=3)
    assert whole.spec.depth == 3

    @bounded(cases)
    @given(headers(gene_bytes))
    def check(whole):
        pathlib.Path(path).write_bytes(whole)
        gene = refused_or(sws_jax.load_learngene, path)
        code = command(tools.main, ["describe", path])
        if gene is not None:
            assert code == 0
            own = gene.description.vit.depth
            outcome = refused_or(sws_jax.expand, gene, depth=own)
            assert outcome is None or outcome.spec.depth == own
            refused_or(sws_jax.expand, gene, depth=3, num_classes=2, image_size=8)
        assert os.listdir(tmp_path).count("gene.safetensors") == 1

    check()


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5000, '{"step": 1e999}'])
def test_descriptions_that_json_cannot_take(text, gene_bytes, tmp_path):
    path = str(tmp_path / "gene.safetensors")
    pathlib.Path(path).write_bytes(described(gene_bytes, text))
    assert refused_or(sws_jax.load_learngene, path) is None
    assert command(tools.main, ["describe", path]) == 2


# --------------------------------------------------------------------------- arrays

ARRAYS = dict(
    train_images=np.arange(6 * 4 * 4 * 3, dtype=np.uint8).reshape(6, 4, 4, 3),
    train_labels=np.arange(6) % 2,
    test_images=np.zeros((2, 4, 4, 3), np.uint8),
    test_labels=np.asarray([0, 1]),
    class_names=np.asarray(["cat", "dog"]),
)
ODD_ARRAYS = st.one_of(
    st.builds(
        np.zeros,
        st.lists(st.integers(0, 7), max_size=4),
        st.sampled_from("u1 i1 i8 f4 f8 c8 U3 S3 O M8[s] V2 ?".split()),
    ),
    st.lists(NUMBERS, max_size=6).map(lambda many: np.asarray(many, object)),
    st.lists(st.integers(-2, 3), min_size=6, max_size=6).map(np.asarray),
)


def npz(arrays, *, members=()):
    file = io.BytesIO()
    np.savez(file, **arrays)
    with zipfile.ZipFile(file, "a") as archive:
        for name, data in members:
            archive.writestr(name, data)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


@st.composite
def npz_files(draw):
    arrays = dict(ARRAYS)
    kind = draw(st.sampled_from(["bytes", "array", "member", "header", "missing"]))
    key = draw(st.sampled_from(sorted(arrays)))
    if kind == "bytes":
        return draw(damaged(npz(arrays), early=2000))
    if kind == "array":
        return npz({**arrays, key: draw(ODD_ARRAYS)})
    whole = arrays.pop(key)
    if kind == "missing":
        return npz(
            arrays, members=[(f"x{draw(st.text())}", draw(st.binary(max_size=20)))]
        )
    data = draw(damaged(npy(whole), early=128))
    if kind == "header":
        shape = draw(st.lists(st.integers(-1, 6) | NUMBERS, max_size=4))
        data = header_of(tuple(shape))
        data += bytes(draw(st.integers(0, 50)))
    return npz(arrays, members=[(f"{key}.npy", data)])


def read_all(data):
    """How many images were taken: each is what a split promises."""
    taken = 0
    for split in (data.train, data.val, data.test):
        for index in range(len(split)):
            pixels = refused_or(split.read, index)
            if pixels is not None:
                taken += 1
                image, label = pixels
                assert image.dtype == np.uint8 and image.ndim == 3
                assert 0 <= label < data.num_classes
                assert Fit((4, 4))(image).shape == (4, 4, image.shape[2])
    return taken


@FEW_AND_MANY
def test_files_of_arrays(cases, tmp_path):
    path = str(tmp_path / "data.npz")
    pathlib.Path(path).write_bytes(npz(ARRAYS))
    assert read_all(load_dataset(path, val_fraction=0.5)) == 8

    @bounded(cases)
    @given(npz_files(), st.sampled_from([0.2, 0.5]))
    def check(whole, fraction):
        pathlib.Path(path).write_bytes(whole)
        data = refused_or(load_dataset, path, val_fraction=fraction)
        if data is not None:
            read_all(data)

    check()


# --------------------------------------------------------------------------- images

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
FORMATS = ("png", "jpeg", "gif", "bmp", "webp")


def encoded(form, image=None):
    file = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(file, form)
    return file.getvalue()


WHOLE = [
    *map(encoded, FORMATS),
    *(
        encoded(form, Image.fromarray(PIXELS).convert(mode))
        for form, mode in (("png", "P"), ("png", "LA"), ("png", "1"), ("jpeg", "CMYK"))
    ),
]


def larger(form, side):
    """The same image, whose header claims another width and height."""
    data = bytearray(encoded(form))
    if form == "png":
        import zlib

        data[16:24] = side.to_bytes(4, "big") * 2
        data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    elif form == "bmp":
        data[18:26] = min(side, 2**31 - 1).to_bytes(4, "little") * 2
    else:
        data[6:10] = min(side, 2**16 - 1).to_bytes(2, "little") * 2
    return bytes(data)


IMAGES = st.one_of(
    st.sampled_from(WHOLE).flatmap(damaged),
    st.sampled_from(WHOLE).flatmap(damaged),
    st.builds(
        larger,
        st.sampled_from(["png", "bmp", "gif"]),
        st.sampled_from([0, 1, 8, 3000, 20_000, 30_000, 2**16, 2**31 - 1, 2**32 - 1]),
    ),
    st.binary(max_size=40),
)


@FEW_AND_MANY
def test_files_of_images(cases, tmp_path):
    """One file of a folder; also as `predict` reads it."""
    folder = tmp_path / "data"
    for split, name in itertools.product(("train", "test"), "ab"):
        (folder / split / name).mkdir(parents=True)
        for number in range(3):
            (folder / split / name / f"{number}.png").write_bytes(WHOLE[0])
    path = folder / "train" / "a" / "0.png"
    assert read_all(load_dataset(str(folder), val_fraction=0.5, image_size=4)) == 12

    @bounded(cases)
    @given(
        IMAGES,
        st.sampled_from(["stop", "skip"]),
        st.sampled_from(images.DECODERS),
        st.sampled_from([1, 3]),
        st.sampled_from([0.0, 1.0]),
    )
    def check(whole, unreadable, decoder, channels, gib):
        path.write_bytes(whole)
        settings = dict(unreadable=unreadable, decoder=decoder, memory_gib=gib)
        for size in (None, 4):
            data = refused_or(
                load_dataset, str(folder), val_fraction=0.5, image_size=size, **settings
            )
            if data is not None:
                read_all(data)
        try:
            with in_time():
                pixels = images.read(str(path), channels=channels)
        except Unreadable as error:
            assert str(path) in str(error)
        else:
            assert pixels.dtype == np.uint8 and pixels.shape[2:] == (channels,)

    check()
