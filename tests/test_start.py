"""Which network a run has: one answer, whoever asks."""

import itertools
import pathlib

import pytest

import sws_jax
from sws_jax import __main__ as commands
from sws_jax import main, specs
from sws_jax.doctor import inputs
from sws_jax.doctor.base import Case
from sws_jax.errors import UserError
from sws_jax.jobs import (
    begun,
    build,
    commandline,
    execute,
    initial,
    places,
    preflight,
    records,
    train,
)
from sws_jax.jobs.directory import RunDirectory
from sws_jax.jobs.rows import runs
from sws_jax.methods import learngenes, surgery
from sws_jax.models import networks
from sws_jax.pixels import Normalization
from sws_jax.preview import costs
from sws_jax.preview.survey import Survey
from sws_jax.runtime.rendezvous import Start
from sws_jax.storage import documents, files
from sws_jax.storage.names import CONFIG, INPUTS, LEARNGENE_FILE, WEIGHTS
from sws_jax.training.loop import Preempted
from sws_jax.training.roles import ANCESTOR, AUX

from support.compare import equal
from support.examinations import examined
from support.learngenes import describe, learngene
from support.networks import TINY, aux_spec, params_of
from support.runs import Script, begin_with_zeros, tiny

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"
GENE, NET, WORK = "gene.safetensors", "net.safetensors", "work"
SMALL = ("--config.model.width=16", "--config.model.heads=2")
DEPTHS = ("--config.compare.depths=(2,4)",)


def write_gene(path, **changes):
    """Writes a learngene for digits."""
    about = changes.pop("about", {})
    sws_jax.save_learngene(str(path), learngene((1, 2), about=about, **changes))
    return path


def write_network(path, *, about=None, **changes):
    """Writes a network of one block for digits."""
    spec = specs.ViTSpec(**{**TINY, "depth": 1, **changes})
    fields = dict(kind="network", net=spec, stages=(), method="", **(about or {}))
    about = describe(aux_spec((1,)), **fields)
    sws_jax.save_network(str(path), sws_jax.Network(spec, params_of(spec), about))
    return path


# Every shipped config, on digits, as small as it goes.
SHIPPED = {
    "aux_deit": ("configs/aux_deit.py:stages=1-2,compare=full", *SMALL, *DEPTHS),
    "official": ("configs/smoke.py:profile=official",),
    "smoke": ("configs/smoke.py",),
    "ancestor": ("configs/ancestor_vit.py:depth=1", *SMALL),
    "scratch": ("configs/scratch_deit.py:depth=2", *SMALL),
    "des": (f"configs/des_deit.py:depth=3,learngene={GENE}",),
    "plan": (f"configs/des_deit.py:learngene={GENE}", "--config.init.plan=(0,1)"),
    "transfer": (
        f"configs/transfer.py:learngene={GENE},dataset=digits,compare=full",
        *DEPTHS,
    ),
    "network": ("configs/scratch_deit.py", f"--config.init.network={NET}"),
    "variant": (
        f"configs/aux_deit.py:variant=Ti/16,dataset=digits,teacher={NET},stages=1-2,"
        f"compare=full",
        *SMALL,
        *DEPTHS,
        "--config.data.image_size=8",
        "--config.model.patch_size=4",
    ),
    "official variant": (
        f"configs/aux_deit.py:variant=S/16,profile=official,dataset=digits,"
        f"teacher={NET},stages=1-1",
        *DEPTHS,
        "--config.data.image_size=8",
        "--config.model.patch_size=4",
    ),
}


@pytest.fixture
def uncompiled(monkeypatch):
    """Here the shapes of networks alone count."""
    begin_with_zeros(monkeypatch)


def test_every_shipped_config_is_asked():
    paths = {flags[0].partition(":")[0] for flags in SHIPPED.values()}
    assert paths == {f"configs/{path.name}" for path in CONFIGS.glob("[!_]*.py")}


@pytest.mark.parametrize("name", SHIPPED)
def test_all_who_ask_get_the_network_that_is_trained(name, tmp_path, uncompiled):
    path, *flags = SHIPPED[name]
    for file in (write_gene(tmp_path / GENE), write_network(tmp_path / NET)):
        path = path.replace(file.name, str(file))
        flags = [flag.replace(file.name, str(file)) for flag in flags]
    argv = [f"--config={path}", *flags]
    config, workdir = commandline.parse([*argv, f"--workdir={tmp_path / WORK}"])
    data = build.dataset(config)
    rows = runs(config)
    survey = Survey(config, workdir)  # of a dry run
    counted = Survey(config, workdir)  # of the command `cost`
    case = Case(config, workdir, Start(), tuple(argv))
    case.data, case.rows = data, rows
    examined = case.survey()
    for row in rows:
        # The runs before it have ended, and left their files.
        network = initial.initial_network(row.config, data, workdir, lambda line: None)
        folder = tmp_path / WORK / row.name
        if row.role == AUX:
            trained = learngenes.extract(network)
            sws_jax.save_learngene(str(folder / LEARNGENE_FILE), trained)
        if row.role == ANCESTOR:
            sws_jax.save_network(str(folder / WEIGHTS), network)
        networks.check_params(network)
        cost = costs.counted_run(counted, row, None)
        answers = [survey.spec(row), cost.spec, examined.spec(row)]
        assert answers == [network.spec] * 3, row.name
        taught = build.load_teacher(row.config, data, workdir, lambda line: None)
        teacher = taught and taught.network.spec
        assert [survey.teacher(row), examined.teacher(row)] == [teacher] * 2, row.name


RGB = Normalization((0.5,) * 3, (0.5,) * 3)
NO_NAMES = dict(class_names=())
# What no run starts with: arguments of configs/des_deit.py (or of another), what makes
# its files, and words of the refusal.
REFUSED = {
    "profile": ([], dict(about=dict(profile="official")), {}, "official profile"),
    "stages": (["--config.model.stages=(1,2)"], {}, {}, "leave model.stages empty"),
    "both": ([f"--config.init.network={NET}"], {}, {}, "a learngene or a network"),
    "plan": (["--config.init.plan=(0,7)"], {}, {}, "is gene 7, but there are 2 genes"),
    "width": (
        ["--config.model.width=32"],
        {},
        {},
        "model.width is 32 and .* has 16: leave model.width out",
    ),
    "heads": (["--config.model.heads=4"], {}, {}, "model.heads is 4 and .* has 2"),
    "depth of a plan": (
        ["--config.model.depth=5", "--config.init.plan=(0,1)"],
        {},
        {},
        "model.depth is 5 and init.plan has 2",
    ),
    "channels": ([], dict(about=dict(normalization=RGB), channels=3), {}, "channels"),
    "kept head": (
        ["--config.init.head=keep"],
        dict(num_classes=4, about=NO_NAMES),
        {},
        "the file has 4 classes and digits has 10",
    ),
    "no teacher": (["--config.loss.kind=soft"], {}, {}, "'soft' needs a teacher"),
    "a network": ([f"--config.init.learngene={NET}"], {}, {}, "not a learngene"),
    "short": (["--config.schedule.total_epochs=0.001"], {}, {}, "less than one step"),
}
OF_A_NETWORK = {
    "depth": ("depth=3", [], {}, "model.depth is 3 and .* has 1: leave model.depth"),
    "depth by flag": ("", ["--config.model.depth=2"], {}, "is 2 and .* has 1"),
    "depth as by default": ("depth=12", [], {}, "model.depth is 12 and .* has 1"),
    "variant": (
        "variant=32px,dataset=digits,image_size=8",
        [],
        {},
        "model.heads is 4 and .* has 2",
    ),
    "stages": ("", ["--config.model.stages=(1,2)"], {}, "model.stages is 1-2 and"),
    "learngene": ("", [f"--config.init.network={GENE}"], {}, "not a network"),
    "distilled": ("", [], dict(pool="token", distilled=True), "no run starts from it"),
}


def check_refused(tmp_path, argv, words, capsys):
    """The run, its dry run, `cost` and `doctor` refuse it with the same sentence."""
    argv = [a.replace(GENE, f"{tmp_path}/{GENE}") for a in argv]
    argv = [a.replace(NET, f"{tmp_path}/{NET}") for a in argv]
    workdir = str(tmp_path / WORK)
    config, _ = commandline.parse([*argv, f"--workdir={workdir}"])
    (row,) = runs(config)
    with pytest.raises(UserError, match=words) as refusal:
        train.train(row.config, workdir)
    assert not (tmp_path / WORK).exists()
    sentence = f"sws_jax: {refusal.value}\n"
    assert main.main([*argv, "--config.mesh.dry_run=2"]) == 2
    assert capsys.readouterr() == ("", sentence)
    assert commands.main(["cost", *argv]) == 2
    assert capsys.readouterr() == ("", sentence)
    checks = ("data", "teacher", "weights", "memory", "length")
    findings = [
        f for lines in examined(workdir, *argv, checks=checks).values() for f in lines
    ]
    problems = [f.text for f in findings if f.state == "problem"]
    assert any(str(refusal.value) in text for text in problems), findings


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_run_refuses_is_refused_by_all(name, tmp_path, capsys):
    flags, changes, others, words = REFUSED[name]
    write_gene(tmp_path / GENE, **changes)
    write_network(tmp_path / NET, **others)
    argv = [f"--config=configs/des_deit.py:learngene={GENE}", *flags]
    check_refused(tmp_path, argv, words, capsys)


@pytest.mark.parametrize("name", OF_A_NETWORK)
def test_what_no_run_goes_on_from_is_refused_by_all(name, tmp_path, capsys):
    argument, flags, changes, words = OF_A_NETWORK[name]
    write_gene(tmp_path / GENE)
    write_network(tmp_path / NET, **changes)
    path = f"configs/scratch_deit.py:{argument}".rstrip(":")
    argv = [f"--config={path}", f"--config.init.network={NET}", *flags]
    argv = [a for a in argv if not (a.endswith(NET) and GENE in str(flags))]
    check_refused(tmp_path, argv, words, capsys)


@pytest.mark.parametrize(
    "text, insisted",
    [
        ("configs/scratch_deit.py", ()),
        ("configs/scratch_deit.py:epochs=3.0", ()),
        ("configs/scratch_deit.py:depth=12", ("depth",)),
        ("configs/aux_deit.py:stages=1-2", ("stages",)),
    ],
)
def test_a_config_is_asked_which_fields_its_argument_decides(text, insisted):
    """depth=12 is the default of the argument, and was asked for all the same."""
    config, _ = commandline.parse([f"--config={text}"])
    assert config.init.insist == insisted


def test_a_field_of_a_group_is_insisted_on_in_its_runs(tmp_path):
    argv = ["--config=configs/smoke.py", "--config.tune.model.width=64"]
    config, _ = commandline.parse(argv)
    rows = {row.role: row.config.init.insist for row in runs(config)}
    assert (rows[AUX], rows["tune"]) == ((), ("width",))
    with pytest.raises(UserError, match="model.width is 64 and run:aux has 32"):
        preflight.check_networks(runs(config), str(tmp_path))


def test_the_fields_to_insist_on_are_fields_of_model(tmp_path):
    with pytest.raises(UserError, match="init.insist names .*'wide' is none"):
        train.train(tiny(init=dict(insist=("wide",))), str(tmp_path))


def test_fields_left_alone_follow_the_file_and_are_written_down(tmp_path):
    about = dict(method="sws", plan=(1,), stages=(1, 2), teacher="vit_t")
    spec = specs.ViTSpec(**{**TINY, "depth": 1})
    described = describe(aux_spec((1,)), kind="network", net=spec, **about)
    path = str(tmp_path / NET)
    sws_jax.save_network(path, sws_jax.Network(spec, params_of(spec), described))
    config = tiny(steps=0, init=dict(network=path), model=dict(depth=12, width=384))
    result = train.train(config, str(tmp_path))
    written = documents.read_json(str(tmp_path / "run" / CONFIG))["model"]
    assert (written["depth"], written["width"], written["heads"]) == (1, 16, 2)
    assert (result["depth"], result["method"], result["plan"]) == (1, "sws", [1])
    assert result["stages"] == [1, 2]
    weights = str(tmp_path / "run" / WEIGHTS)
    saved = sws_jax.load_network(weights).description
    assert (saved.method, saved.plan, saved.stages, saved.teacher) == (
        *("sws", (1,), (1, 2)),
        "vit_t",
    )
    # The same config is the same run, and one that wants another network is not.
    assert train.train(config, str(tmp_path)) == result
    config.init.insist = ("depth",)
    with pytest.raises(UserError, match="another config .it differs in model.depth"):
        train.train(config, str(tmp_path))


@pytest.mark.parametrize("init", ["learngene", "network"])
def test_a_fresh_head_is_of_the_runs_seed(init, tmp_path):
    path = (
        write_gene(tmp_path / GENE)
        if init == "learngene"
        else write_network(tmp_path / NET)
    )
    config = tiny(init={init: str(path), "head": "fresh"}, model=dict(depth=3))
    config.seed = 4
    network = initial.initial_network(
        config, build.dataset(config), "", lambda line: None
    )
    like = network.params["norm"]["scale"]
    equal(surgery.fresh_head(network.spec, 4, like=like), network.params["head"])


@pytest.mark.parametrize(
    "profile, antialias", [("official", False), ("consistent", True)]
)
def test_a_network_goes_on_at_another_size(profile, antialias, tmp_path):
    """Resized as the run's profile has it, and with the run's own stochastic depth."""
    path = str(write_network(tmp_path / NET, image_size=16, drop_path=0.1))
    config = tiny(init=dict(network=path), model=dict(drop_path=0.25))
    config.profile = profile
    network = initial.initial_network(
        config, build.dataset(config), "", lambda line: None
    )
    before = sws_jax.load_network(path)
    expected = surgery.resize_pos_embed(
        before.params["pos_embed"], before.spec, network.spec, antialias=antialias
    )
    equal(expected, network.params["pos_embed"])
    assert (network.spec.image_size, network.spec.drop_path) == ((8, 8), 0.25)


def make_older(directory, **model):
    """Makes a directory look as older software left it: that knew neither
    `init.insist` nor which fields of `model` a file decides."""
    written = str(directory / CONFIG)
    older = documents.read_json(written)
    del older["init"]["insist"], older["model"]["patch_bias_init"]
    older["model"].update(model)
    files.write_json(written, older)
    path = directory / INPUTS
    if path.exists():  # of a run, and not of its job
        inputs = documents.read_json(str(path))
        del inputs[records.BEGUN]
        files.write_json(str(path), inputs)


@pytest.mark.slow
def test_a_directory_begun_before_goes_on_as_it_began(tmp_path, capsys):
    """Older software left a depth of 3 in the config and of 1 in the run. It goes on
    with 1 as often as it is stopped, although 3 is asked for by name."""
    path = str(write_network(tmp_path / NET))
    config = tiny(steps=3, save_every=1, init=dict(network=path))
    job = commandline.load("configs/scratch_deit.py").unlock()
    job.update(config)
    work = str(tmp_path / WORK)

    def run(stop):
        times = itertools.count()
        return execute.execute(job, work, should_stop=lambda: next(times) == stop)

    with pytest.raises(Preempted, match="at step 1 of 3"):
        run(1)
    for directory in (tmp_path / WORK, tmp_path / WORK / "run"):
        make_older(directory, depth=3)
    job.model.depth, job.init.insist = 3, ("depth",)
    for stop, outcome in ((1, "at step 2 of 3"), (9, "")):
        if outcome:
            with pytest.raises(Preempted, match=outcome):
                run(stop)
        else:
            (result,) = run(stop)
        line = "run: goes on as it began: model.depth is 1, as in "
        assert line in capsys.readouterr().out
        # All who speak of it beforehand take it too.
        rows = runs(job)
        counted = costs.counted_run(Survey(job, work), rows[0], None)
        assert counted.spec.depth == 1
        surveys = [Survey(job, work)]
        case = Case(job, work, Start(), ())
        case.data, case.rows = build.dataset(job), rows
        surveys.append(case.survey())
        assert [survey.spec(rows[0]).depth for survey in surveys] == [1] * 2
        states = {finding.state for finding in inputs.weights(case)}
        assert states == {"ok"}
    written = documents.read_json(f"{work}/run/{CONFIG}")
    assert (result["depth"], written["model"]["depth"]) == (1, 1)
    # A run that has ended says so too.
    assert run(9)[0]["steps"] == 3
    line = "run: was trained with model.depth 1, where the config says 3"
    assert line in capsys.readouterr().out


def test_what_a_run_started_from_is_not_read_again(tmp_path, monkeypatch):
    """A learngene that goes while a run is under way loses nothing."""
    Script(monkeypatch)
    path = write_gene(tmp_path / GENE)
    config = tiny(steps=2, init=dict(learngene=str(path)), model=dict(depth=3))
    stored = learngenes.num_stored(sws_jax.load_learngene(str(path)))

    def gone():
        path.unlink(missing_ok=True)
        return False

    result = train.train(config, str(tmp_path), should_stop=gone)
    assert (result["steps"], result["stored_params"]) == (2, stored)
    assert train.train(config, str(tmp_path)) == result


def test_a_file_replaced_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = write_gene(tmp_path / GENE)
    config = tiny(steps=0, init=dict(learngene=str(path)), model=dict(depth=2))
    load = learngenes.load_learngene

    def replaced(name):
        before = load(name)
        write_gene(path, about=dict(step=5))
        return before

    monkeypatch.setattr(initial.learngenes, "load_learngene", replaced)
    with pytest.raises(UserError, match="init.learngene has changed while run read"):
        train.train(config, str(tmp_path))


def test_a_file_is_hashed_once_for_all_runs(tmp_path, monkeypatch):
    path = write_gene(tmp_path / GENE)
    config = tiny(init=dict(learngene=str(path)))
    digest, calls = places.hashlib.file_digest, []

    def counted(file, name):
        calls.append(file.name)
        return digest(file, name)

    monkeypatch.setattr(places.hashlib, "file_digest", counted)
    first = places.inputs(config, "")
    assert places.inputs(config, "") == first
    assert calls == [str(path)]
    write_gene(path, about=dict(step=5))
    assert places.inputs(config, "") != first
    assert len(calls) == 2


def test_a_job_begun_before_goes_on_with_rows_that_have_not_begun(tmp_path, capsys):
    """A width was asked for by name that the file does not have, for both rows. Both go
    on, and fields that older software did not know are not mixed into the job."""
    path = write_gene(tmp_path / GENE)
    argument = f"learngene={path},dataset=digits,compare=full,depths=1-2"
    short = ("--config.schedule.total_epochs=0", "--config.schedule.warmup_epochs=0")
    argv = [f"--config=configs/transfer.py:{argument}", *short]
    work = tmp_path / WORK
    config, _ = commandline.parse([*argv, "--config.compare.long_epochs=0"])
    config = config.unlock()
    config.model.patch_bias_init = "uniform"  # as a recipe sets it
    files.write_json(str(work / "config.json"), documents.plain(config.to_dict()))
    make_older(work, width=32)
    config.model.width, config.init.insist = 32, ("width",)
    rows = runs(config)
    for _ in range(2):  # the config of the job is written anew each time
        preflight.check(config, rows)
        preflight.check_networks(rows, str(work))
        preflight.refuse_other(config, rows, str(work))
        begun.keep_begun(str(work))
        files.write_json(str(work / "config.json"), documents.plain(config.to_dict()))
    scratch = next(row.config for row in rows if row.role == "scratch_short")
    folder = str(work / scratch.name)
    adapted, lines = begun.as_begun(folder, scratch, str(work))
    assert adapted.model.patch_bias_init == "zeros"
    assert "goes on as it began, with model.patch_bias_init zeros" in lines[0]
    # A run of today's software has its own.
    other = tmp_path / "other"
    train.train(tiny(steps=0), str(other))
    changed = tiny(steps=0, model=dict(patch_bias_init="uniform"))
    with pytest.raises(UserError, match="it differs in model.patch_bias_init"):
        train.train(changed, str(other))


@pytest.mark.slow
def test_an_official_run_begun_before_keeps_the_bias_that_it_began_with(
    tmp_path, capsys
):
    """Older software started it at 0, and had no field for it; nor did its checkpoints
    say in which numbers they were computed."""
    config = tiny(steps=3, save_every=1, model=dict(patch_bias_init="zeros"))
    with pytest.raises(Preempted):
        train.train(config, str(tmp_path), should_stop=lambda: True)
    make_older(tmp_path / "run")
    monkeypatch = pytest.MonkeyPatch()
    config.model.patch_bias_init = "uniform"
    config.compute.dtype = "bfloat16"
    begun = RunDirectory.begin

    def killed(*args):
        begun(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(RunDirectory, "begin", killed)
    with monkeypatch.context(), pytest.raises(KeyboardInterrupt):
        train.train(config, str(tmp_path))
    monkeypatch.undo()
    result = train.train(config, str(tmp_path))
    line = "goes on as it began, with model.patch_bias_init zeros"
    assert capsys.readouterr().out.count(line) == 2
    assert [entry["dtype"] for entry in result["dtypes"]] == ["float32", "bfloat16"]
    written = documents.read_json(str(tmp_path / "run" / CONFIG))
    assert written["model"]["patch_bias_init"] == "zeros"
    # A config of the older software is still a run's.
    del config.init.insist, config.model.patch_bias_init
    assert train.train(config, str(tmp_path)) == result


def test_fields_of_groups_do_not_make_another_job(tmp_path):
    """Asked for by name, a field has the value that the config has."""
    config = commandline.load("configs/smoke.py")
    files.write_json(str(tmp_path / "config.json"), documents.plain(config.to_dict()))
    argv = ["--config=configs/smoke.py", "--config.ancestor.model.depth=2"]
    config, _ = commandline.parse(argv)
    preflight.refuse_other(config, runs(config), str(tmp_path))
    config, _ = commandline.parse([*argv[:1], "--config.ancestor.model.depth=3"])
    with pytest.raises(UserError, match="it differs in ancestor.model.depth"):
        preflight.refuse_other(config, runs(config), str(tmp_path))


def test_what_is_asked_of_an_aux_net_is_not_asked_of_its_descendants(tmp_path):
    """Official: 12 heads where the Aux-Net is 384 wide, and 6 in its descendants."""
    argument = "variant=S/16,profile=official,dataset=digits,teacher=t,depths=6"
    argv = [f"--config=configs/aux_deit.py:{argument}", "--config.model.heads=12"]
    config, _ = commandline.parse(argv)
    rows = {row.role: row.config for row in runs(config)}
    assert "heads" in rows["aux"].init.insist
    assert rows["untuned"].init.insist == ()
    preflight.check_networks(runs(config), str(tmp_path))


def test_stages_beside_a_depth_that_they_do_not_have(tmp_path):
    argv = ["--config=configs/smoke.py", "--config.model.depth=7"]
    config, _ = commandline.parse(argv)
    with pytest.raises(UserError, match="model.depth is 7 and model.stages has 4"):
        preflight.check_networks(runs(config), str(tmp_path))


def test_nets_from_scratch_that_are_no_comparison(tmp_path, capsys):
    """The learngene is 16 wide, and the recipe 64."""
    path = write_gene(tmp_path / GENE)
    argument = f"learngene={path},dataset=digits,compare=full,depths=2"
    argv = [f"--config=configs/transfer.py:{argument}"]
    words = "scratch-L02-10ep would be no comparison: its model.heads is 4, and des-L02"
    for run in (
        lambda: main.main([*argv, f"--workdir={tmp_path / WORK}"]),
        lambda: commands.main(["cost", *argv]),
        lambda: main.main([*argv, "--config.mesh.dry_run=2"]),
    ):
        assert run() == 2
        assert words in capsys.readouterr().err
    findings = examined(tmp_path / WORK, *argv, checks=("data", "weights"))
    assert words in findings["weights"][0].text
    config, _ = commandline.parse([*argv, *SMALL])
    preflight.check_networks(runs(config), str(tmp_path))


def test_a_finished_run_needs_its_file_no_more(tmp_path):
    """Nor the directory that it stood in, which may have become another's."""
    folder = tmp_path / "given"
    folder.mkdir()
    path = write_network(folder / WEIGHTS)
    argv = [
        "--config=configs/scratch_deit.py",
        f"--config.init.network={folder}",
        "--config.schedule.total_epochs=0",
        "--config.schedule.warmup_epochs=0",
        f"--workdir={tmp_path / WORK}",
    ]
    assert main.main(argv) == 0
    path.unlink()
    assert main.main(argv) == 0
    findings = examined(tmp_path / WORK, *argv[:-1], checks=("data", "weights"))
    assert findings["weights"][0].state == "ok"
