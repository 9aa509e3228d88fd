"""From a method's phases to the runs of a job, and back from a run's config."""

import dataclasses

import pytest

from sws_jax import specs
from sws_jax.errors import UserError
from sws_jax.jobs import commandline, phases, places, preflight, rows, start
from sws_jax.methods import base, learngenes, sws
from sws_jax.methods.base import ANCESTOR, FromRun, Length, Made, Phase, Seed
from sws_jax.methods.objectives import Loss
from sws_jax.pixels import Normalization
from sws_jax.storage import documents, files


@dataclasses.dataclass(frozen=True)
class Other:
    """An objective that no fields of a config say."""

    taps = ()
    needs_teacher = True


class Chain(base.Method):
    """A method with a phase of every kind."""

    name = "chain"

    def phases(self, net, request, depths):
        narrow = net.replace(depth=2, width=net.width // 2)
        aux = specs.AuxViTSpec(net.replace(depth=sum(request.stages)), request.stages)
        return (
            Phase("chain-narrow", narrow, Loss(), length=Length(3, rate=1e-3)),
            Phase("chain-taught", net, Other(), teacher="chain-narrow"),
            Phase("chain-varied", aux, request.loss, ANCESTOR, variants=(aux, aux)),
            Phase("chain-made", narrow, start=Made(dict, ("chain-narrow", ANCESTOR))),
            *(Phase(f"chain-L{d}", net.replace(depth=d), depth=d) for d in depths),
            Phase("chain-gene", None, Loss(), "", Length(0), FromRun(ANCESTOR)),
        )

    def start(self, depth):
        return FromRun(f"chain-L{depth}") if depth < 6 else Seed()


@pytest.fixture
def chain(monkeypatch):
    monkeypatch.setitem(learngenes.METHODS, "chain", Chain())

    def runs(*arguments):
        fields = ("depths=3-6", *arguments)
        config = commandline.load(f"configs/aux_deit.py:{','.join(fields)}")
        runs_of_job = rows.runs(config)
        preflight.check(config, runs_of_job)
        return {run.name: run for run in runs_of_job}

    return runs


def test_phases_that_fields_can_say_are_runs_like_any_other(chain):
    runs = chain("method=chain")
    said = {name: run.config for name, run in runs.items() if name[:6] == "chain-"}
    own = {name for name, config in said.items() if config.phase.method == "chain"}
    assert own == {"chain-taught", "chain-varied", "chain-made", "chain-gene"}
    narrow = said["chain-narrow"]
    assert (narrow.model.depth, narrow.model.width) == (2, 32)
    assert (tuple(narrow.model.stages), narrow.loss.kind) == ((), "none")
    assert (narrow.schedule.total_epochs, narrow.schedule.rate) == (3.0, 1e-3)
    assert narrow.schedule.warmup_epochs == 2.0 and narrow.teacher.path == ""
    # The phase of a depth does not lead to those of others, and needs none of them.
    assert said["chain-L3"].model.depth == 3 and said["chain-L3"].phase.depth == 0
    assert "chain-L3" not in runs["chain-L6"].after


def test_each_run_finds_its_phase_again(chain):
    runs = chain("method=chain")
    images = dict(image_size=(8, 8), channels=1, num_classes=10)
    expected = {
        p.name: p for p in Chain().phases(specs.ViTSpec(), phases.Request((1, 2)), ())
    }
    for name in ("chain-taught", "chain-varied", "chain-made", "chain-gene"):
        phase = phases.find(runs[name].config, images)
        assert phase.name == name
        assert type(phase.start) is type(expected[name].start)
        assert phases.objective(runs[name].config) == phase.objective
        assert phases.leaves_learngene(runs[name].config) == (name == "chain-gene")
    taught = phases.find(runs["chain-taught"].config, images)
    assert (taught.spec.image_size, taught.spec.num_classes) == ((8, 8), 10)
    assert phases.find(runs["chain-varied"].config).spec.stages == (3, 3, 4, 3, 3)
    assert phases.find(runs["ancestor"].config) is None
    shared = ("chain-narrow", "chain-taught", "chain-varied", "chain-made")
    assert phases.earlier(runs["chain-gene"].config) == shared


def test_where_phases_and_descendants_start(chain):
    runs = chain("method=chain")
    config = runs["chain-gene"].config
    assert (config.init.network, config.schedule.total_epochs) == ("run:ancestor", 0)
    assert config.schedule.warmup_epochs == 0
    assert runs["chain-taught"].config.teacher.path == "run:chain-narrow"
    assert runs["chain-varied"].config.teacher.path == "run:ancestor"
    made = runs["chain-made"].config  # computed from the ancestor, and not taught by it
    assert (made.teacher.path, made.phase.ancestor) == ("", "run:ancestor")
    assert phases.path_of(made, ANCESTOR) == "run:ancestor"
    assert phases.path_of(made, "chain-narrow") == "run:chain-narrow"
    assert runs["chain-gene"].publishes == "chain-learngene.safetensors"
    assert {run.publishes for name, run in runs.items() if name != "chain-gene"} == {""}
    third, sixth = (runs[f"chain-des-L0{depth}"] for depth in (3, 6))
    assert (third.config.init.network, third.after) == ("run:chain-L3", ("chain-L3",))
    assert (sixth.config.init.network, sixth.config.init.learngene) == ("", "")
    given = chain("method=chain", "teacher=PATH")
    assert given["chain-gene"].config.init.network == "PATH"
    assert "ancestor" not in given and given["chain-narrow"].after == ()


def test_what_starts_from_the_ancestor_or_the_learngene(chain, monkeypatch):
    class Tuned(Chain):
        """Each depth goes on with the ancestor; a phase with the learngene."""

        def phases(self, net, request, depths):
            *_, gene = super().phases(net, request, ())
            return gene, Phase("chain-L3", None, start=base.FromGene(), depth=3)

        def start(self, depth):
            return FromRun(ANCESTOR)

    monkeypatch.setitem(learngenes.METHODS, "chain", Tuned())
    runs = chain("method=chain")
    assert runs["chain-L3"].config.init.learngene == "run:chain-gene"
    alone = chain(
        "method=chain", "stages=2-2"
    )  # asked of Aux-Nets, not of what follows
    assert not alone["chain-des-L03"].config.init.insist
    third = runs["chain-des-L03"]
    assert (third.config.init.network, third.after) == ("run:ancestor", ("ancestor",))
    third = chain("method=chain", "teacher=PATH")["chain-des-L03"]
    assert (third.config.init.network, third.after) == ("PATH", ())

    class Lost(Chain):
        def phases(self, net, request, depths):
            return (Phase("chain-gene", None, start=base.FromGene()),)

    monkeypatch.setitem(learngenes.METHODS, "chain", Lost())
    with pytest.raises(UserError, match="which no phase leaves before it: name a file"):
        chain("method=chain")


def test_a_run_comes_after_what_it_needs_alone(chain, monkeypatch):
    runs = chain("method=chain")
    after = {name: run.after for name, run in runs.items()}
    assert after["chain-narrow"] == after["chain-L3"] == ()
    assert after["chain-taught"] == ("chain-narrow",)
    assert after["chain-varied"] == ("ancestor",)
    assert after["chain-made"] == ("chain-narrow", "ancestor")
    shared = ("chain-narrow", "chain-taught", "chain-varied", "chain-made")
    assert after["chain-gene"] == ("ancestor", *shared)  # It is made of them all.

    class Plain(Chain):
        def phases(self, net, request, depths):
            return (Phase("chain-gene", net, Loss(), teacher=ANCESTOR),)

        start = base.Method.start

    monkeypatch.setitem(learngenes.METHODS, "chain", Plain())
    assert "ancestor" not in chain("method=chain")  # It would be trained for nothing.
    both = chain("methods=chain-sws")
    assert (both["chain-gene"].after, both["aux"].after) == ((), ("ancestor",))


@pytest.mark.parametrize(
    "wrong",
    [
        dict(objective=Other(), teacher="chain-nrarow"),
        dict(start=FromRun("chain-nrarow")),
        dict(start=Made(dict, ("chain-nrarow",))),
        dict(start=FromRun("chain-last")),
    ],
    ids=["teacher", "start", "made", "later"],
)
def test_a_name_of_no_earlier_phase_is_refused(wrong, chain, monkeypatch):
    class Wrong(Chain):
        start = base.Method.start

        def phases(self, net, request, depths):
            first = Phase("chain-first", net)
            return (
                first,
                Phase("chain-wrong", net, **wrong),
                dataclasses.replace(first, name="chain-last"),
            )

    monkeypatch.setitem(learngenes.METHODS, "chain", Wrong())
    words = "chain-wrong needs chain-.*, but no run .*; .* are chain-first$"
    with pytest.raises(UserError, match=words):
        chain("method=chain")


def test_a_descendant_of_no_phase_is_refused(chain, monkeypatch):
    monkeypatch.setattr(Chain, "start", lambda self, depth: FromRun(f"chain-l{depth}"))
    with pytest.raises(UserError, match="chain-des-L03 needs chain-l3, but no run"):
        chain("method=chain")


def test_a_descendant_is_of_its_method_wherever_it_starts(chain):
    runs = chain("methods=sws-chain")
    methods = {name: run.method for name, run in runs.items() if "des-" in name}
    assert methods == {
        **dict.fromkeys(("des-L03", "des-L06"), "sws"),
        **dict.fromkeys(("chain-des-L03", "chain-des-L06"), "chain"),
    }


def test_an_objective_that_compiles_no_step_is_refused(chain, monkeypatch):
    @dataclasses.dataclass
    class Changing:
        weights: list
        taps, needs_teacher = (), False

    class Wrong(Chain):
        def phases(self, net, request, depths):
            return (Phase("chain-gene", net, Changing([1.0])),)

    monkeypatch.setitem(learngenes.METHODS, "chain", Wrong())
    with pytest.raises(UserError, match="objective of phase chain-gene of chain is n"):
        chain("method=chain")


def test_equal_phases_of_two_methods_are_one_run(chain, monkeypatch):
    class Twin(Chain):
        name = "twin"
        start = base.Method.start

        def phases(self, net, request, depths):
            return (super().phases(net, request, depths)[0], Phase("twin-gene", net))

    monkeypatch.setitem(learngenes.METHODS, "twin", Twin())
    alone, both = chain("method=twin"), chain("methods=chain-twin")
    assert both["chain-narrow"] == alone["chain-narrow"]
    assert list(both).count("chain-narrow") == 1

    class Liar(Twin):
        name = "liar"

        def phases(self, net, request, depths):
            return (Phase("chain-narrow", net),)

    monkeypatch.setitem(learngenes.METHODS, "liar", Liar())
    with pytest.raises(
        UserError, match="liar has a phase named chain-narrow, as anoth"
    ):
        chain("methods=chain-liar")


def test_an_aux_net_leaves_a_learngene_in_the_last_phase_alone(chain, monkeypatch):
    """Elsewhere, and of a class like SWS, fields would make it a learngene of SWS."""

    class Two(sws.SWS):
        name, prefix = "chain", "chain-"

        def phases(self, net, request, depths):
            (phase,) = super().phases(net, request, depths)
            first, last = (
                dataclasses.replace(phase, name=f"chain-{n}") for n in ("a", "b")
            )
            return first, dataclasses.replace(last, teacher="chain-a")

    monkeypatch.setitem(learngenes.METHODS, "chain", Two())
    runs = chain("method=chain")
    for name in ("chain-a", "chain-b"):
        config = runs[name].config
        assert config.phase.method == "chain"
        assert phases.leaves_learngene(config) == (name == "chain-b")
    answers = start.Answers(None, "nowhere")
    about = {
        name: answers.answer_for(name, run.config).about for name, run in runs.items()
    }
    assert about["chain-a"].kind == about["chain-b"].kind == "aux_net"
    assert about["chain-b"].method == about["chain-des-L06"].method == "chain"
    assert answers.runs["run:chain-a"].about.kind == "aux_net"
    assert answers.runs["run:chain-b"].about.kind == "learngene"


def test_a_phase_decides_on_stochastic_depth_and_on_the_network_of_its_file(
    chain, monkeypatch
):
    class Goes(Chain):
        depth = 6
        start = base.Method.start

        def phases(self, net, request, depths):
            net = net.replace(depth=self.depth, drop_path=0.25)
            start = FromRun(ANCESTOR)
            return (Phase("chain-gene", net, Other(), ANCESTOR, start=start),)

    monkeypatch.setitem(learngenes.METHODS, "chain", Goes())
    config = chain("method=chain", "compare=untuned")["chain-gene"].config
    images = places.Images((8, 8), 1, 10)
    ancestor = specs.ViTSpec(
        depth=6, width=64, heads=4, patch_size=4, image_size=8, channels=1,
        num_classes=10, weight_init="fan_in", pos_embed_std=0.5,
    )  # fmt: skip
    about = learngenes.describe(ancestor, normalization=Normalization((0.5,), (0.5,)))
    origin = places.Origin("FILE", about)
    answer = start.answer(config, images, origin)
    assert answer.spec == answer.about.spec == ancestor.replace(drop_path=0.25)
    monkeypatch.setattr(Goes, "depth", 5)
    with pytest.raises(
        UserError, match="trains vit_nano_patch4_L5, but what it starts from FILE as"
    ):
        start.answer(config, images, origin)


def test_a_method_that_leaves_no_learngene_says_how_descendants_start(
    chain, monkeypatch
):
    class Empty(Chain):
        def phases(self, net, request, depths):
            return ()

        def start(self, depth):
            return base.FromGene()

    monkeypatch.setitem(learngenes.METHODS, "chain", Empty())
    with pytest.raises(UserError, match="chain has no phase that leaves a learngene"):
        chain("methods=sws-chain")


def test_a_method_without_a_learngene_says_so():
    about = learngenes.describe(
        specs.ViTSpec(), normalization=Normalization((0.5,) * 3, (0.5,) * 3)
    )
    method = Chain()
    for ask in (
        lambda: method.extract({}, specs.ViTSpec()),
        lambda: method.abstract(about),
        lambda: method.plan(about, 3),
    ):
        with pytest.raises(UserError, match="chain leaves no learngene, from which"):
            ask()


def test_a_job_may_grow_by_a_method(tmp_path):
    jobs = {
        methods: commandline.load(f"configs/aux_deit.py:methods={methods}")
        for methods in ("sws", "sws-tleg")
    }
    files.write_json(
        str(tmp_path / "config.json"), documents.plain(jobs["sws"].to_dict())
    )
    larger = jobs["sws-tleg"]
    preflight.refuse_other(larger, rows.runs(larger), str(tmp_path))
    larger.seed = 7
    with pytest.raises(UserError, match="differs in seed"):
        preflight.refuse_other(larger, rows.runs(larger), str(tmp_path))


def test_a_job_of_an_older_kind_goes_on(tmp_path):
    config = commandline.load("configs/aux_deit.py")
    (config.job, path) = ("sws", str(tmp_path / "config.json"))
    files.write_json(path, documents.plain(config.to_dict()))
    preflight.refuse_other(config, rows.runs(config), str(tmp_path))
    config.job = "chain"
    preflight.refuse_other(config, rows.runs(config), str(tmp_path))


def test_a_method_beside_several_is_refused():
    with pytest.raises(UserError, match="method=tleg and methods=sws: give one"):
        commandline.load("configs/aux_deit.py:method=tleg,methods=sws")


def test_a_file_of_the_name_of_a_learngene_is_not_written_over(tmp_path):
    config = commandline.load("configs/aux_deit.py:method=tleg")
    (tmp_path / "tleg-learngene.safetensors").write_bytes(b"somebody's")
    with pytest.raises(UserError, match="holds tleg-learngene.safetensors and no conf"):
        preflight.refuse_other(config, rows.runs(config), str(tmp_path))


def test_the_phase_of_sws_is_said_by_fields():
    """So that runs of versions before there were phases go on."""
    config = commandline.load("configs/aux_deit.py")
    aux = {run.name: run for run in rows.runs(config)}["aux"]
    assert aux.config.phase.to_dict() == dict(method="", name="", ancestor="", depth=0)
    assert aux.publishes == "learngene.safetensors"
    (phase,) = phases.of_method(aux.config, sws.METHOD, ())
    assert phase.spec.stages == tuple(aux.config.model.stages)


@pytest.mark.parametrize(
    "fields, words",
    [
        (dict(name="aux"), "phase.name=aux needs phase.method"),
        (dict(method="tlge", name="aux"), "'tlge'; the known ones are sws, tleg"),
        (dict(method="tleg", name="aux"), "none of tleg's phases, which are tleg-aux"),
    ],
)
def test_what_names_no_phase_is_refused(fields, words):
    config = rows.runs(commandline.load("configs/aux_deit.py"))[1].config
    config.phase.update(fields)
    with pytest.raises(UserError, match=words):
        phases.find(config)


def test_phases_of_one_name_are_refused(chain, monkeypatch):
    class Twice(Chain):
        def phases(self, net, request, depths):
            return (Phase("chain-gene", net),) * 2

    monkeypatch.setitem(learngenes.METHODS, "chain", Twice())
    with pytest.raises(UserError, match="chain has two phases named chain-gene"):
        chain("method=chain")


def test_no_methods_are_refused():
    config = commandline.load("configs/aux_deit.py")
    config.methods = ()
    with pytest.raises(UserError, match="methods is empty"):
        rows.runs(config)
