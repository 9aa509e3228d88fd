"""The shipped configs, and what a command line may say about them."""

import ast
import dataclasses
import inspect
import pathlib
import re
import shlex
from fractions import Fraction

import ml_collections
import numpy as np
import pytest

from sws_jax import pixels
from sws_jax.data import base
from sws_jax.data.augment import Augment
from sws_jax.data.transforms import Transform
from sws_jax.errors import UserError
from sws_jax.estimate import budgets
from sws_jax.jobs import build, commandline, execute, recipes, rows
from sws_jax.methods.objectives import Loss
from sws_jax.specs import AuxViTSpec, Compute, ViTSpec
from sws_jax.training.durations import Durations
from sws_jax.training.optim import Optimizer

from support.networks import TINY

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(path.name for path in (ROOT / "configs").glob("*.py"))
NEEDED = {
    "des_deit.py": "learngene=GENE",
    "transfer.py": "learngene=GENE,dataset=DATA.npz",
}
# The paper's Aux-Nets: width, heads, epochs of the Aux-Net, rate of the tuning.
PAPER = {
    "Ti/16": (192, 3, 150.0, 5e-5),
    "S/16": (384, 6, 150.0, 5e-5),
    "B/16": (768, 12, 100.0, 1e-5),
}


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch):
    monkeypatch.chdir(ROOT)  # as the commands in the docstrings


def load(name, *args):
    return commandline.load(f"configs/{name}:{','.join(filter(None, args))}")


def runs(name, *args):
    return {run.name: run for run in rows.runs(load(name, *args))}


def paper(variant, *args):
    return "aux_deit.py", f"variant={variant}", "teacher=T", "dataset=D.npz", *args


def imagenet():
    """What a config sees of ImageNet: its shapes, and as many images."""

    class Images(base.Arrays):
        def __len__(self):
            return 1_281_167

    nothing = np.zeros((0, 224, 224, 3), np.uint8), np.zeros(0, np.int32)
    split = Images(*nothing)
    normalization = pixels.Normalization(pixels.IMAGENET_MEAN, pixels.IMAGENET_STD)
    names = tuple(f"class {n}" for n in range(1000))
    shape = (224, 224, 3)
    return base.Dataset("imagenet", split, split, split, names, shape, normalization)


def spec_of(config, data):
    fields = dict(config.model)
    stages = tuple(fields.pop("stages"))
    fields["depth"] = sum(stages) or fields["depth"]
    net = ViTSpec(
        **fields,
        image_size=data.image_shape[:2],
        channels=data.image_shape[2],
        num_classes=data.num_classes,
    )
    return AuxViTSpec(net, stages) if stages else net


def test_the_shipped_configs_are_known():
    """Those that need an argument, and no file that is gone."""
    assert set(NEEDED) <= set(FILES)
    assert {"aux_deit.py", "scratch_deit.py", "ancestor_vit.py", "smoke.py"} <= set(
        FILES
    )


@pytest.mark.parametrize("name", FILES)
def test_every_config_makes_runs(name):
    config = load(name, NEEDED.get(name))
    job = rows.runs(config)
    assert len(job) >= 1
    fields = set(commandline.fields(recipes.run()))
    for run in job:
        assert set(commandline.fields(run.config)) == fields  # no run invents a field
        assert run.config.name == run.name
        for earlier in run.after:
            assert earlier in [other.name for other in job[: job.index(run)]]


@pytest.mark.parametrize("name", FILES)
def test_the_commands_on_top_of_a_config_are_true(name):
    text = ast.get_docstring(ast.parse((ROOT / "configs" / name).read_text()))
    lines = text.replace("\\\n", " ").splitlines()
    commands = [line for line in lines if line.startswith("    python -m sws_jax.main")]
    assert commands
    for command in commands:
        python, m, module, *argv = shlex.split(command)
        assert (python, m, module) == ("python", "-m", "sws_jax.main")
        config, _ = commandline.parse(argv)
        assert f"configs/{name}" in command
        assert rows.runs(config)


@pytest.mark.parametrize("name", FILES)
def test_every_argument_is_described(name):
    text = ast.get_docstring(ast.parse((ROOT / "configs" / name).read_text()))
    described = re.findall(r"^    (\w+) {2,}\S", text, re.MULTILINE)
    with pytest.raises(UserError) as refusal:
        load(name, "no_such_argument=1")
    taken = re.findall(r"(\w+)=\.\.\.", str(refusal.value))
    assert described == taken


@pytest.mark.parametrize("name", FILES)
def test_groups_are_the_dataclasses_they_become(name):
    data = imagenet()
    for run in rows.runs(load(name, NEEDED.get(name))):
        config = run.config.copy_and_resolve_references()
        for group, cls in (
            ("augment", Augment),
            ("loss", Loss),
            ("optimizer", Optimizer),
            ("compute", Compute),
        ):
            names = [field.name for field in dataclasses.fields(cls)]
            assert sorted(config[group]) == sorted(names)
        from_data = {"image_size", "channels", "num_classes"}
        # Nothing that starts from a seed has a second token.
        teachers = {"distilled", "dist_head"}
        names = {field.name for field in dataclasses.fields(ViTSpec)}
        names -= from_data | teachers
        assert set(config.model) - {"stages"} == names
        config.teacher.path = config.teacher.path or "T"
        recipe = build.recipe(config, spec_of(config, data), data.normalization)
        assert recipe.optimizer.weight_decay == config.optimizer.weight_decay
        assert recipe.augment.mixup == config.augment.mixup
        assert recipe.loss.kind == config.loss.kind
        durations = Durations(len(data.train), config.global_batch_size)
        assert build.schedule(config, durations).minimum == config.schedule.minimum


def test_fields_reach_the_objects_that_are_run():
    """None of them is a default, by which a field that is forgotten would go unseen."""
    config = recipes.run()
    config.update(accum_steps=2, ema=0.25, global_batch_size=64)
    config.augment.update(erase=0.3, mixup=0.2, cutmix=0.4, mix_switch=0.6)
    config.loss.update(kind="soft", alpha=0.5, tau=2.0, reduction="per_class")
    config.optimizer.update(weight_decay=0.3, b1=0.5, b2=0.7, eps=0.1, clip_norm=2.0)
    config.compute.update(dtype="bfloat16", remat=True, unroll=2)
    config.data.update(threads=3, workers=2, unreadable="skip")
    net = ViTSpec(**{**TINY, "depth": 1})
    recipe = build.recipe(config, net, pixels.default_normalization(1))
    for group in ("augment", "loss", "optimizer", "compute"):
        fields = config[group].to_dict()
        assert dataclasses.asdict(getattr(recipe, group)) == fields, group
    assert (recipe.accum_steps, recipe.ema, recipe.spec) == (2, 0.25, net)
    assert dataclasses.astuple(build.reading(config)) == (3, 2, "skip")
    config.schedule.update(kind="constant", warmup_rate=1e-3, minimum=1e-4, rate=0.1)
    config.schedule.update(total_epochs=3.0, warmup_epochs=1.0, rate_batch=128)
    schedule = build.schedule(config, Durations(96, 64))
    assert dataclasses.asdict(schedule) == dict(
        kind="constant", peak=0.05, total_steps=4, warmup_steps=2, warmup_rate=1e-3,
        minimum=1e-4, steps_per_epoch=Fraction(3, 2),
    )  # fmt: skip


@pytest.mark.parametrize("variant", PAPER)
def test_published_recipe(variant):
    """methods: DeiT's recipe as SWS uses it, read from the objects that are run."""
    width, heads, epochs, _ = PAPER[variant]
    data = imagenet()
    config = runs(*paper(variant))["aux"].config
    assert config.global_batch_size == 512
    assert config.data.image_size == 224
    spec = spec_of(config, data)
    assert (spec.net.width, spec.net.heads, spec.net.patch_size) == (width, heads, 16)
    assert (spec.stages, spec.depth) == ((3, 3, 4, 3, 3), 16)
    net = spec.net
    assert (net.mlp_ratio, net.pool, net.pool_order) == (4.0, "mean", "norm_mean")
    assert (net.norm_eps, net.drop_path, net.init_std) == (1e-6, 0.1, 0.02)
    recipe = build.recipe(config, spec, data.normalization)
    assert recipe.loss == Loss("soft", alpha=1.0, tau=1.0, reduction="batchmean")
    assert recipe.optimizer == Optimizer(0.05, b1=0.9, b2=0.999, eps=1e-8, clip_norm=0)
    assert recipe.ema == 0.99996
    augment = recipe.augment
    assert (augment.mixup, augment.cutmix, augment.mix_switch) == (0.8, 1.0, 0.5)
    assert (augment.mix_group, augment.label_smoothing) == (128, 0.1)
    assert (augment.erase, augment.erase_area) == (0.25, (0.02, 1 / 3))
    assert augment.erase_aspect == (0.3, 3.3)
    assert build.transform(config) == Transform(
        crop="resized",
        scale=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        flip=True,
        randaugment=2,
        magnitude=9.0,
        magnitude_std=0.5,
    )
    assert (config.data.eval_crop, config.data.repeats) == (0.875, 1)
    schedule = build.schedule(config, Durations(len(data.train), 512))
    per_epoch = 1_281_167 / 512
    assert schedule.total_steps == round(epochs * per_epoch)
    assert schedule.warmup_steps == round(5 * per_epoch)
    assert schedule(0) == 1e-6
    assert schedule.peak == pytest.approx(5e-4)
    assert schedule(schedule.total_steps) == pytest.approx(1e-5)


@pytest.mark.parametrize("variant", PAPER)
def test_what_the_released_code_does_otherwise_in_training(variant):
    """methods: three copies of each image, the rate set per epoch, another KL."""
    data = imagenet()
    config = runs(*paper(variant, "profile=official"))["aux"].config
    assert config.data.repeats == 3
    assert (config.schedule.kind, config.loss.reduction, config.ema_start) == (
        "cosine_per_epoch",
        "per_class",
        "seed",
    )
    durations = build.durations(config, len(data.train))
    assert durations.images == 1_281_024  # 427,008 of them distinct
    assert durations.steps(1) == 2502
    epochs = PAPER[variant][2]
    assert build.schedule(config, durations).total_steps == 2502 * epochs


@pytest.mark.parametrize("size, small", [(24, True), (32, True), (33, False)])
def test_small_images_are_not_cut_and_scaled(size, small):
    """DeiT's code at 32 pixels or less: shifted by up to 4, and scored whole."""
    config = recipes.job("single")
    arg = recipes.parse_recipe(f"variant=S/16,dataset=digits,image_size={size}")
    recipes.recipe(config, arg)
    assert config.transform.crop == ("padded" if small else "resized")
    assert config.transform.padding == 4
    assert config.data.eval_crop == (1.0 if small else 0.875)


@pytest.mark.parametrize(
    "variant, aux_heads, heads", [("Ti/16", 3, 3), ("S/16", 12, 6), ("B/16", 12, 12)]
)
def test_what_the_released_code_does_otherwise_in_networks(variant, aux_heads, heads):
    """methods: Aux-S of 12 heads, another epsilon, and the norm after the mean."""
    rows = runs(*paper(variant, "profile=official", "compare=full", "depths=12"))
    data = imagenet()
    net = spec_of(rows["aux"].config, data).net
    assert (net.heads, net.norm_eps, net.pool_order) == (aux_heads, 1e-5, "norm_mean")
    scratch = spec_of(rows["scratch-L12-10ep"].config, data)
    assert isinstance(scratch, ViTSpec)
    assert (scratch.heads, scratch.norm_eps) == (heads, 1e-6)
    assert scratch.pool_order == "mean_norm"
    assert net.patch_bias_init == scratch.patch_bias_init == "uniform"
    assert runs(*paper(variant))["aux"].config.model.patch_bias_init == "zeros"
    for name in ("aux", "scratch-L12-10ep", "des-L12"):
        assert rows[name].config.profile == "official"
    alone = load(
        "scratch_deit.py", f"variant={variant}", "dataset=D", "profile=official"
    )
    assert spec_of(alone, data).replace(drop_path=0) == scratch.replace(drop_path=0)


def test_an_unknown_profile_lists_the_known():
    with pytest.raises(UserError, match="'mine' is not one of consistent, official"):
        load("aux_deit.py", "profile=mine")


@pytest.mark.parametrize("epochs, warmup", [(1, 0.2), (10, 2.0), (40, 2.0)])
def test_no_run_is_mostly_warm_up(epochs, warmup):
    config = load("scratch_deit.py", f"epochs={epochs}")
    assert config.schedule.total_epochs == epochs
    assert config.schedule.warmup_epochs == pytest.approx(warmup)


def test_the_rate_grows_with_the_batch_and_its_ends_do_not():
    config = runs(*paper("S/16"))["aux"].config.copy_and_resolve_references()
    config.global_batch_size = 1024
    schedule = build.schedule(config, Durations(1_281_167, 1024))
    assert schedule.peak == pytest.approx(1e-3)
    assert (schedule.warmup_rate, schedule.minimum) == (1e-6, 1e-5)


@pytest.mark.parametrize("variant", PAPER)
@pytest.mark.parametrize("file", ["aux_deit.py", "des_deit.py"])
def test_published_tuning(file, variant):
    """10 epochs, no warm-up, no distillation, minimum 1e-6, the same augmentation."""
    if file == "aux_deit.py":
        rows = runs(*paper(variant, "compare=tune", "depths=12"))
        aux, config = rows["aux"].config, rows["des-L12"].config
        assert config.augment == aux.augment
        assert config.init.learngene == "run:aux"
    else:
        rows = runs(file, "learngene=GENE", f"variant={variant}", "dataset=D.npz")
        (config,) = (run.config for run in rows.values())
        assert config.init.learngene == "GENE"
    assert (config.loss.kind, config.teacher.path) == ("none", "")
    assert (config.model.depth, tuple(config.model.stages)) == (12, ())
    schedule = build.schedule(config, Durations(5120, 512))
    assert (schedule.total_steps, schedule.warmup_steps) == (100, 0)
    assert schedule.peak == pytest.approx(PAPER[variant][3])
    assert schedule.minimum == 1e-6


def test_an_imagenet_variant_needs_a_teacher():
    with pytest.raises(UserError, match="trains no ancestor: give .* teacher=PATH"):
        rows.runs(load("aux_deit.py", "variant=S/16", "dataset=D.npz"))


def test_an_imagenet_variant_trains_no_ancestor():
    rows = runs(*paper("S/16"))
    names = [f"untuned-L{depth:02d}" for depth in range(6, 16)]
    assert list(rows) == ["aux", *names]
    assert rows["aux"].after == ()
    assert rows["aux"].config.teacher.path == "T"
    for depth, name in zip(range(6, 16), names, strict=True):
        run = rows[name]
        assert (run.role, run.after) == ("untuned", ("aux",))
        assert run.config.model.depth == depth
        assert run.config.schedule.total_epochs == 0.0
        assert run.config.data.source == "D.npz"


def test_larger_comparisons_are_more_runs():
    tune = runs(*paper("S/16", "compare=tune", "depths=6-9"))
    assert list(tune) == ["aux", "des-L06", "des-L09"]
    full = runs(*paper("S/16", "compare=full", "depths=6-9"))
    assert [(run.name, run.role) for run in full.values()] == [
        ("aux", "aux"),
        ("des-L06", "tune"),
        ("scratch-L06-10ep", "scratch_short"),
        ("scratch-L06-300ep", "scratch_long"),
        ("des-L09", "tune"),
        ("scratch-L09-10ep", "scratch_short"),
        ("scratch-L09-300ep", "scratch_long"),
    ]
    scratch = full["scratch-L06-10ep"].config
    assert scratch.schedule.rate == 5e-4
    assert scratch.schedule.total_epochs == 10.0
    assert scratch.schedule.warmup_epochs == 2.0  # a fifth: 5 would be half of it
    assert full["scratch-L06-300ep"].config.schedule.warmup_epochs == 5.0
    assert (scratch.init.learngene, tuple(scratch.model.stages)) == ("", ())
    assert (scratch.loss.kind, scratch.teacher.path) == ("none", "")


def test_digits_train_their_own_ancestor():
    rows = runs("aux_deit.py")
    assert list(rows)[:2] == ["ancestor", "aux"]
    assert rows["aux"].after == ("ancestor",)
    assert rows["aux"].config.teacher.path == "run:ancestor"
    ancestor = rows["ancestor"].config
    assert (ancestor.loss.kind, ancestor.teacher.path) == ("none", "")
    assert (ancestor.model.depth, tuple(ancestor.model.stages)) == (6, ())
    roles = [run.role for run in rows.values()]
    for role in ("tune", "scratch_short", "scratch_long"):
        assert roles.count(role) == len(budgets.DEPTHS)
    assert list(runs("aux_deit.py", "teacher=T"))[0] == "aux"


def test_an_allotment_decides_the_depth():
    (run,) = runs("des_deit.py", "learngene=GENE", "allotment=3-3-2-2-1").values()
    assert run.config.model.depth == 11
    assert run.config.init.allotment == (3, 3, 2, 2, 1)
    assert run.name == "des-digits-L11"


def test_a_transfer_tunes_every_depth_with_the_arrays():
    needed = NEEDED["transfer.py"]
    rows = runs("transfer.py", needed, "depths=6-12", "compare=full", "epochs=7")
    assert list(rows) == [
        name
        for depth in ("06", "12")
        for name in (f"des-L{depth}", f"scratch-L{depth}-7ep", f"scratch-L{depth}-80ep")
    ]
    assert {run.config.data.source for run in rows.values()} == {"DATA.npz"}
    starts = {run.role: run.config.init.learngene for run in rows.values()}
    assert starts == {"tune": "GENE", "scratch_short": "", "scratch_long": ""}


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            dict(job="sewing"),
            "job 'sewing' is not one of single, descendants, chain, sws",
        ),
        (
            dict(compare=dict(level="all")),
            "compare.level 'all' is not one of untuned, tune, full",
        ),
        (dict(compare=dict(depths=())), "compare.depths is empty"),
        (dict(compare=dict(depths=(0,))), "compare.depths must be at least 1"),
        (dict(compare=dict(seeds=101)), "compare.seeds must be at most 100"),
        (dict(compare=dict(long_epochs=-1.0)), "compare.long_epochs must be at least"),
    ],
)
def test_impossible_jobs(changes, words, tmp_path):
    config = load("transfer.py", NEEDED["transfer.py"])
    config.update(changes)
    with pytest.raises(UserError, match=words):
        execute.execute(config, str(tmp_path))


def test_one_row_serves_where_two_would_be_the_same():
    """A depth that is named twice; a long budget that is the short one."""
    config = load("transfer.py", NEEDED["transfer.py"])
    config.compare.update(level="full", depths=(6, 12, 6), long_epochs=7)
    config.schedule.total_epochs = 7.0
    assert [(run.name, run.role) for run in rows.runs(config)] == [
        ("des-L06", "tune"),
        ("scratch-L06-7ep", "scratch_short"),
        ("des-L12", "tune"),
        ("scratch-L12-7ep", "scratch_short"),
    ]


def test_seeds_are_those_of_a_comparison():
    """Of the tuning and of the training from scratch; what is compared shares one. A
    long budget below the short one is a row of its own."""
    config = load("transfer.py", NEEDED["transfer.py"])
    config.compare.update(level="full", depths=(6,), seeds=2, long_epochs=3)
    config.schedule.total_epochs, config.seed = 7.0, 5
    assert [(run.name, run.config.seed) for run in rows.runs(config)] == [
        ("des-L06", 5),
        ("scratch-L06-7ep", 5),
        ("scratch-L06-3ep", 5),
        ("des-L06-seed1", 6),
        ("scratch-L06-seed1-7ep", 6),
        ("scratch-L06-seed1-3ep", 6),
    ]


# Arguments after the file's name.

TYPED = dict(text="", whole=3, number=0.5, yes=False, several=(1, 2))


def test_arguments_have_the_type_of_their_default():
    text = "text=S/16,whole=-4,number=2,yes=true,several=3-3-4"
    values = recipes.parse(text, **TYPED).to_dict()
    expected = dict(text="S/16", whole=-4, number=2.0, yes=True, several=(3, 3, 4))
    assert values == expected
    assert {k: type(v) for k, v in values.items()} == {
        k: type(v) for k, v in TYPED.items()
    }
    assert recipes.parse("text=a=b", **TYPED).text == "a=b"


@pytest.mark.parametrize("nothing", [None, "", ","])
def test_no_arguments_leave_the_defaults(nothing):
    assert recipes.parse(nothing, **TYPED).to_dict() == TYPED


@pytest.mark.parametrize(
    "text, words",
    [
        ("deep=3", "no argument 'deep=3'; it takes text=..., whole=..., number=..., "),
        ("whole", "no argument 'whole'; it takes text"),
        ("whole=3.5", "whole=3.5 must be a whole number"),
        ("whole=", "whole= must be a whole number"),
        ("number=much", "number=much must be a number"),
        ("number=nan", "number=nan must be a number"),
        ("number=inf", "number=inf must be a number"),
        ("yes=perhaps", "yes=perhaps must be true or false"),
        ("several=3-x", "several=3-x must be like 3-3-4-3-3"),
        ("several=", "several= must be like 3-3-4-3-3"),
        ("several=1,2", "no argument '2'; it takes text"),
    ],
)
def test_wrong_arguments(text, words):
    with pytest.raises(UserError, match=re.escape(words)):
        recipes.parse(text, **TYPED)


def test_an_unknown_argument_lists_the_known():
    with pytest.raises(UserError, match="no argument 'depth=3'; it takes profile="):
        load("smoke.py", "depth=3")
    with pytest.raises(UserError, match="no argument 'depth=3'; it takes none"):
        recipes.parse("depth=3")


@pytest.mark.parametrize("variant", ["L/16", "S", "S/", "S/x", "S/²", "s/16", "16/S"])
def test_unknown_variants_show_the_known(variant):
    with pytest.raises(UserError, match="is digits, 32px, or one of Ti, S, B and"):
        load("scratch_deit.py", f"variant={variant}")


@pytest.mark.parametrize("name", list(NEEDED))
def test_what_a_config_cannot_do_without(name):
    with pytest.raises(UserError, match="needs learngene=.*it takes .*learngene"):
        load(name)


# The whole command line.

COMMAND = ["--config=configs/aux_deit.py"]


def value(config, name):
    for part in name.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize(
    "name, text, expected",
    [
        ("seed", "7", 7),
        ("global_batch_size", "128", 128),
        ("name", "mine", "mine"),
        ("model.width", "96", 96),
        ("model.mlp_ratio", "3", 3.0),
        ("schedule.rate", "1e-4", 1e-4),
        ("model.pool", "token", "token"),
        ("compute.remat", "true", True),
        ("checkpoint.final", "false", False),
        ("model.stages", "(1,2)", (1, 2)),
        ("model.stages", "1,2", (1, 2)),
        ("model.stages", "()", ()),
        ("compare.depths", "(4,)", (4,)),
        ("evaluation.milestones", "(0,2.5)", (0, 2.5)),
        ("data.mean", "(0.5,)", (0.5,)),
        ("tune.schedule.total_epochs", "2", 2.0),
        ("ancestor.model.depth", "3", 3),
    ],
)
@pytest.mark.parametrize("form", ["one word", "two words"])
def test_overrides(name, text, expected, form):
    flag = f"--config.{name}"
    words = [f"{flag}={text}"] if form == "one word" else [flag, text]
    if isinstance(expected, bool) and form == "two words":
        words = [flag if expected else f"--no{flag[2:]}"]  # a switch takes no word
    config, _ = commandline.parse([*COMMAND, *words])
    assert value(config, name) == expected
    assert type(value(config, name)) is type(expected)
    before, _ = commandline.parse(COMMAND)
    noted = f"{name.partition('model.')[0]}init.insist"  # what was asked for by name
    others = [o for o in commandline.fields(config) if o not in (name, noted)]
    assert [value(config, o) for o in others] == [value(before, o) for o in others]


def test_an_override_reaches_the_runs():
    config, _ = commandline.parse(
        [*COMMAND, "--config.seed=5", "--config.tune.schedule.rate=0.5"]
    )
    by_name = {run.name: run.config for run in rows.runs(config)}
    assert {c.seed for c in by_name.values()} == {5}
    assert {n for n, c in by_name.items() if c.schedule.rate == 0.5} == {
        n for n in by_name if n.startswith("des-")
    }


@pytest.mark.parametrize(
    "words, workdir",
    [
        ([], "runs/sws-digits-3-3-4-3-3"),
        (["--workdir=here"], "here"),
        (["--workdir", "here"], "here"),
        (["--config.name=mine"], "runs/mine"),
    ],
)
def test_workdir(words, workdir):
    assert commandline.parse([*COMMAND, *words])[1] == workdir


def test_the_file_may_be_the_next_word():
    config, workdir = commandline.parse(
        ["--workdir=here", "--config", "configs/scratch_deit.py:depth=3"]
    )
    assert (config.model.depth, config.name, workdir) == (
        3,
        "scratch-digits-L3",
        "here",
    )


@pytest.mark.parametrize(
    "argv, words",
    [
        ([], "--config=FILE is missing"),
        (["--workdir=here"], "--config=FILE is missing"),
        (["--config"], "--config=FILE is missing"),
        (["--config=configs/nope.py"], f"'configs/nope.py'; configs has {FILES[0]}, "),
        (["--config=nowhere/nope.py"], "nowhere has no config files"),
        (["--config=configs"], "there is no config file 'configs'"),
        (["--config=pyproject.toml"], "pyproject.toml is not a Python file"),
        ([*COMMAND, *COMMAND], "--config is given twice"),
        ([*COMMAND, "--config.nope=1"], "config.nope: config has accum_steps, "),
        (
            [*COMMAND, "--config.model.widht=1"],
            "no field config.model.widht: config.model has depth, drop_path, gelu",
        ),
        ([*COMMAND, "--config.seed.x=1"], "config.seed has no fields of its own"),
        ([*COMMAND, "--config.=1"], "there is no field config.: config has"),
        (
            [*COMMAND, "--config.compute=1"],
            "config.compute is a group; set one of its fields: compute.backend, "
            "compute.dtype, compute.remat, compute.unroll",
        ),
        ([*COMMAND, "--config.seed=x"], "config.seed takes a whole number, and not 'x"),
        ([*COMMAND, "--config.seed=1.5"], "takes a whole number, and not '1.5'"),
        ([*COMMAND, "--config.schedule.rate=fast"], "rate takes a number, and not 'f"),
        ([*COMMAND, "--config.compute.remat=maybe"], "remat takes true or false, and"),
        ([*COMMAND, "--config.model.stages=3-3"], 'whole numbers like "(1,2,3)", and'),
        ([*COMMAND, "--config.model.stages=(1,2.5)"], "stages takes whole numbers"),
        ([*COMMAND, "--config.model.stages=(1,'x')"], "stages takes whole numbers"),
        ([*COMMAND, "--config.compare.depths", "six"], "depths takes whole numbers"),
        ([*COMMAND, "--config.data.mean=grey"], "data.mean takes numbers like"),
        ([*COMMAND, "--config.seed"], "Missing value for flag --config.seed"),
        (
            [*COMMAND, "--nope=1"],
            "no flag --nope; the flags are --config, --config.FIELD, --workdir, "
            "--parallel and",
        ),
        ([*COMMAND, "--configs.seed=1"], "there is no flag --configs.seed"),
        ([*COMMAND, "stray"], "'stray' is not a flag"),
    ],
)
def test_wrong_command_lines(argv, words):
    with pytest.raises(UserError) as refusal:
        commandline.parse(argv)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def job_file(directory, body):
    path = directory / "mine.py"
    path.write_text(body)
    return str(path)


@pytest.mark.parametrize(
    "body, words",
    [
        ("x = ", "mine.py cannot be read: SyntaxError"),
        ("import nowhere_to_be_found", "mine.py cannot be read: ModuleNotFoundError"),
        ("x = 1", "mine.py is no config: it has no function get_config"),
        ("def get_config(arg): return {}['x']", "mine.py makes no config: KeyError"),
        ("def get_config(): return 1", "mine.py makes no config: TypeError"),
        ("def get_config(arg): return None", "what get_config returns lacks accum_st"),
    ],
)
def test_files_that_are_no_configs(body, words, tmp_path):
    with pytest.raises(UserError) as refusal:
        commandline.load(job_file(tmp_path, body))
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_config_of_ones_own(tmp_path):
    body = inspect.cleandoc("""
        from sws_jax.jobs import recipes as presets

        def get_config(arg=None):
            arg = presets.parse(arg, depth=2)
            config = presets.job("single", name="mine")
            presets.small(config)
            config.model.depth = arg.depth
            return config
    """)
    config, workdir = commandline.parse(
        [f"--config={job_file(tmp_path, body)}:depth=5"]
    )
    assert workdir == "runs/mine"
    (run,) = rows.runs(config)
    assert (run.name, run.config.model.depth) == ("mine", 5)
    with pytest.raises(AttributeError):  # locked: a misspelt field is no new field
        config.modle = ml_collections.ConfigDict()


def test_any_field_of_a_run_can_be_set_for_one_kind_of_run():
    argv = [
        f"--config={ROOT / 'configs' / 'aux_deit.py'}",
        "--config.tune.schedule.warmup_epochs=1.0",
        "--config.ancestor.optimizer.weight_decay=0.2",
    ]
    config, _ = commandline.parse(argv)
    by_name = {run.name: run.config for run in rows.runs(config)}
    assert by_name["des-L12"].schedule.warmup_epochs == 1.0
    assert by_name["ancestor"].optimizer.weight_decay == 0.2
    assert by_name["aux"].optimizer.weight_decay == 0.05
    with pytest.raises(UserError, match="no field config.tune.schedule.nothing"):
        commandline.parse([argv[0], "--config.tune.schedule.nothing=1"])
