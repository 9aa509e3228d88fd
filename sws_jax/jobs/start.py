"""The network of a run before its first step: from a learngene, a file or a seed.

`answer` says which network a run has, from shapes and descriptions alone, and refuses
what no run can start with. `start` makes its parameters. Whoever only wants to know
(a dry run, ``cost``, ``doctor``, the check before a job) asks `answer` too, so that
none of them takes what the run would refuse.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from sws_jax import trees
from sws_jax.data import Dataset, classes
from sws_jax.errors import UserError
from sws_jax.jobs import places, recipes
from sws_jax.methods import learngenes, plans, surgery
from sws_jax.models import description as descriptions
from sws_jax.models import networks, profiles, vit, weights
from sws_jax.models.description import Description
from sws_jax.pixels import Normalization, default_normalization
from sws_jax.runtime import host
from sws_jax.runtime.progress import say
from sws_jax.specs import AuxViTSpec, Spec, ViTSpec
from sws_jax.storage import paths

# Fields of `model` that are a run's own, whatever file it starts from.
_OWN = ("drop_path",)


def _silent(text: str) -> None:
    """Takes a line that nobody is to see."""


@dataclasses.dataclass(frozen=True)
class Images:
    """What a run's network depends on of its images.

    Attributes:
      image_size: height and width in pixels.
      channels: of colour.
      num_classes: of the set.
      name: of the set.
      class_names: in the order of the labels; empty where they are not known.
      normalization: of the pixels; None takes what is usual.
      known: whether the set was read. Where it is assumed, no file is refused for not
        fitting it.
    """

    image_size: tuple[int, int]
    channels: int
    num_classes: int
    name: str = ""
    class_names: tuple[str, ...] = ()
    normalization: Normalization | None = None
    known: bool = True

    @classmethod
    def of(cls, data: Dataset) -> Images:
        """Those of a set that was read."""
        height, width, channels = data.image_shape
        return cls(
            image_size=(height, width),
            channels=channels,
            num_classes=data.num_classes,
            name=data.name,
            class_names=data.class_names,
            normalization=data.normalization,
        )


@dataclasses.dataclass(frozen=True)
class Origin:
    """The trained weights that a run starts from, by what is said of them.

    Attributes:
      path: of their file, for messages.
      about: their description.
    """

    path: str
    about: Description


@dataclasses.dataclass(frozen=True)
class Answer:
    """Which network a run has.

    Attributes:
      spec: of the network.
      about: its description before the first step.
      keeps_head: whether the head of the file is taken over.
      order: that its outputs are put in, as of `sws_jax.data.classes.Match`.
    """

    spec: ViTSpec | AuxViTSpec
    about: Description
    keeps_head: bool = False
    order: tuple[int, ...] = ()


def network_spec(config, shape: dict[str, Any]) -> ViTSpec | AuxViTSpec:
    """The network of `config.model`, for images and classes of that shape."""
    fields = dict(config.model)
    stages = tuple(fields.pop("stages"))
    if stages:
        fields["depth"] = sum(stages) if min(stages) > 0 else len(stages)
    net = ViTSpec(**fields, **shape)
    return AuxViTSpec(net, stages) if stages else net


def find_origin(config, workdir: str) -> Origin | None:
    """What is said of the file that a run starts from; None where there is no file.

    Raises:
      UserError: the file cannot be read.
    """
    path = places.initial_file(config, workdir)
    if not path or not paths.is_file(path):
        return None
    return Origin(path, weights.describe(path))


def answer(
    config: ml_collections.ConfigDict,
    images: Images | None,
    origin: Origin | None,
    tell: Callable[[str], None] = _silent,
    *,
    differs: Callable[[str], None] | None = None,
) -> Answer:
    """Which network a run has, from shapes and descriptions alone.

    Args:
      config: of the run.
      images: what it trains on; None where nothing is known of them, so that only
        what does not depend on them is refused.
      origin: what `init` names; None where it names nothing, or a file that is not
        there (the network is then as the config has it).
      tell: takes a line on what is not taken over from a file.
      differs: takes a line where the file differs from a field in ``init.insist``;
        None refuses it. (A run that older software began goes on as it began.)

    Raises:
      UserError: the config contradicts itself, the images or the file it names.
    """
    init, model = config.init, config.model
    if init.learngene and init.network:
        raise UserError("init takes a learngene or a network, not both")
    if init.learngene and model.stages:
        raise UserError(
            "a learngene initialises descendants, which share nothing: leave "
            "model.stages empty"
        )
    if images is None:
        images = _like(config, origin)
    if origin is None:
        shape = dict(
            image_size=images.image_size,
            channels=images.channels,
            num_classes=images.num_classes,
        )
        spec = network_spec(config, shape)
        found = Answer(spec, _describe(config, images, spec))
        if not (init.learngene or init.network):
            _check_insisted(config, spec, "", differs)
        return found
    if init.learngene:
        learngenes.check_learngene(origin.path, origin.about)
        found = _descendant_of(config, images, origin, tell)
    else:
        networks.check_network(origin.path, origin.about)
        found = _continuation_of(config, images, origin, tell)
    _check_insisted(config, found.spec, origin.path, differs)
    return found


def _like(config, origin: Origin | None) -> Images:
    """Images that any set could have, for a question that does not depend on them."""
    if origin is None:
        patch = config.model.patch_size
        return Images((patch, patch), channels=1, num_classes=1, known=False)
    net = origin.about.net
    return Images(net.image_size, net.channels, net.num_classes, known=False)


def _descendant_of(config, images: Images, origin: Origin, tell) -> Answer:
    """The descendant that a learngene initialises."""
    path, about, init = origin.path, origin.about, config.init
    request: dict[str, Any] = {"depth": config.model.depth}
    if init.plan or init.allotment:
        request = {n: tuple(init[n]) for n in ("plan", "allotment") if init[n]}
    if about.profile != config.profile:
        raise UserError(
            f"{path} is of the {about.profile} profile and the run of the "
            f"{config.profile} one: give the config profile={about.profile}"
        )
    plan = plans.resolve_plan(
        about.stages, learngenes.find_method(about.method).allot, **request
    )
    keeps, order = _keeps_head(config, path, about, images, tell)
    _check_channels(path, about.net.channels, images)
    _tell_pixels(config, about, images, tell)
    spec = (
        profiles.find(about.profile)
        .descendant(about.vit)
        .replace(
            depth=len(plan),
            image_size=images.image_size,
            num_classes=about.vit.num_classes if keeps else images.num_classes,
            drop_path=config.model.drop_path,
        )
    )
    made = _describe(config, images, spec).replace(
        method=about.method, stages=about.stages, plan=plan, teacher=about.teacher
    )
    return Answer(spec, made, keeps, order)


def _continuation_of(config, images: Images, origin: Origin, tell) -> Answer:
    """The trained network that a run goes on with."""
    path, about = origin.path, origin.about
    old = about.vit
    if old.distilled:
        raise UserError(
            f"{path} holds a network with a distillation token: it can teach, and no "
            f"run starts from it"
        )
    _check_channels(path, old.channels, images)
    _tell_pixels(config, about, images, tell)
    net = old.replace(
        num_classes=images.num_classes,
        image_size=images.image_size,
        drop_path=config.model.drop_path,
    )
    keeps, order = _keeps_head(config, path, about, images, tell)
    shared = isinstance(about.spec, AuxViTSpec)
    spec = AuxViTSpec(net, about.stages) if shared else net
    made = _describe(config, images, spec).replace(
        method=about.method, stages=about.stages, plan=about.plan, teacher=about.teacher
    )
    if about.method:  # Weights stay of the reading of the method that made them.
        made = made.replace(profile=about.profile)
    return Answer(spec, made, keeps, order)


def model_fields(spec: ViTSpec | AuxViTSpec) -> dict[str, Any]:
    """The fields of a config's `model` that make this network."""
    stages = spec.stages if isinstance(spec, AuxViTSpec) else ()
    own = {field.name for field in dataclasses.fields(ViTSpec)}
    names = own & set(recipes.run().model)
    return {"stages": stages, **{name: getattr(spec.net, name) for name in names}}


def against(config, spec: ViTSpec | AuxViTSpec) -> list[tuple[str, str, str]]:
    """Fields in ``init.insist`` that a network has otherwise: (name, asked, found)."""
    found, rows = model_fields(spec), []
    for name in sorted(set(recipes.insisted(config)) - set(_OWN)):
        wanted = config.model[name]
        wanted = tuple(wanted) if name == "stages" else wanted
        if wanted != found[name]:
            rows.append((name, _shown(wanted), _shown(found[name])))
    return rows


def _check_insisted(config, spec, path: str, differs) -> None:
    """Compares the file with what was asked for by name; see `answer`."""
    init = config.init
    for name, asked, shown in against(config, spec):
        where, remedy = path, "take a file that has it"
        if not path:  # (Of a seed's network stages alone decide otherwise.)
            where, remedy = "model.stages", "change one"
        elif name == "depth" and init.learngene:
            where, remedy = f"init.{'plan' if init.plan else 'allotment'}", "change one"
        if differs is None:
            raise UserError(
                f"model.{name} is {asked} and {where} has {shown}: leave model.{name} "
                f"out, or {remedy}"
            )
        differs(
            f"{config.name}: goes on as it began: model.{name} is {shown}, as in "
            f"{where}, where the config says {asked}"
        )


def _shown(value: Any) -> str:
    """A field of `model`, as an argument writes it."""
    if isinstance(value, tuple):
        return "-".join(map(str, value)) or "empty"
    return f"{value}"


def recorded(
    config: ml_collections.ConfigDict, spec: ViTSpec | AuxViTSpec
) -> ml_collections.ConfigDict:
    """The config with the network that the run really has."""
    made = config.copy_and_resolve_references().unlock()
    made.model.update(model_fields(spec))
    return made


def followed(config: ml_collections.ConfigDict, *, insist: bool = True) -> set[str]:
    """Fields of `model` that a config does not decide, but its file or its stages.

    Args:
      config: of a run or of a job.
      insist: leave out those that the file must agree with.
    """
    names = set(config.model) - set(_OWN)
    if insist:
        names -= set(recipes.insisted(config))
    if config.init.network:
        return names
    if config.init.learngene:
        asked = not (config.init.plan or config.init.allotment)
        return names - ({"depth"} if asked else set())
    return {"depth"} if config.model.stages else set()


class Answers:
    """The networks of a job's runs, each after those that it starts from.

    Args:
      images: what they train on; None where nothing is known of them.
      workdir: where ``run:NAME`` paths are found.
      older: whether a run of that name goes on as older software began it.
    """

    def __init__(
        self,
        images: Images | None,
        workdir: str,
        older: Callable[[str], bool] = lambda name: False,
    ):
        self.images, self.workdir, self._older = images, workdir, older
        self.made: dict[str, ViTSpec | AuxViTSpec] = {}  # by the names of runs
        self.runs: dict[str, Origin] = {}  # what each leaves, by ``run:NAME``
        self._files: dict[str, Origin] = {}

    def of(self, name: str, config: ml_collections.ConfigDict) -> Answer:
        """The answer for a run of that name.

        Raises:
          UserError: as `answer`.
        """
        differs = _silent if self._older(name) else None
        origin = self.origin(config)
        made = answer(config, self.images, origin, differs=differs)
        self.made[name], about = made.spec, made.about
        if isinstance(made.spec, AuxViTSpec):  # which its directory holds as
            about = about.replace(kind="learngene")
        self.runs[f"{places.RUN}{name}"] = Origin(f"{places.RUN}{name}", about)
        return made

    def origin(self, config: ml_collections.ConfigDict) -> Origin | None:
        """What a run starts from: of an earlier run, or of a file that is there."""
        path = config.init.learngene or config.init.network
        if path in self.runs:
            return self.runs[path]
        if path not in self._files:
            found = find_origin(config, self.workdir)
            if found is None:
                return None
            self._files[path] = found
        return self._files[path]


def start(
    config,
    data: Dataset,
    workdir: str,
    tell: Callable[[str], None] = say,
    *,
    differs: Callable[[str], None] | None = None,
) -> networks.Network:
    """The network of a run before its first step, from learngene, file or seed.

    Weights are float32, whatever a file holds.

    Args:
      config: of the run.
      data: what it trains on.
      workdir: where ``run:NAME`` paths are found.
      tell: takes a line on what is not taken over from a file.
      differs: as in `answer`.

    Raises:
      UserError: the config contradicts itself, the data or the file it names.
    """
    path, images = places.initial_file(config, workdir), Images.of(data)
    early = find_origin(config, workdir)
    if early is not None:  # before the file is read, which may be small
        check_memory(answer(config, images, early, differs=_silent).spec)
    if config.init.learngene and not config.init.network:
        gene = learngenes.load_learngene(path)
        origin = Origin(path, gene.description)
        found = answer(config, images, origin, tell, differs=differs)
        params = _expanded(config, path, gene, found)
    elif config.init.network and not config.init.learngene:
        network = networks.load_network(path)
        assert network.description is not None  # of a file
        origin = Origin(path, network.description)
        found = answer(config, images, origin, tell, differs=differs)
        params = _continued(config, path, network, found)
    else:
        found = answer(config, images, None, tell)
        check_memory(found.spec)
        params = vit.init_params(found.spec.build(), jax.random.key(config.seed))
    return networks.Network(found.spec, params, found.about)


def _expanded(config, path: str, gene: learngenes.Learngene, found: Answer):
    """The parameters of a descendant."""
    net = found.spec.net
    made = learngenes.expand(
        dataclasses.replace(gene, params=_float32(path, gene.params)),
        plan=found.about.plan,
        num_classes=None if found.keeps_head else net.num_classes,
        image_size=net.image_size,
        seed=config.seed,
    )
    assert made.spec.net.replace(drop_path=net.drop_path) == net
    return _reordered(dict(made.params), found.order)


def _continued(config, path: str, network: networks.Network, found: Answer):
    """The parameters of a network for other images or classes."""
    assert network.description is not None
    net, params = found.spec.net, dict(_float32(path, network.params))
    params["pos_embed"] = surgery.resize_pos_embed(
        params["pos_embed"],
        network.description.vit,
        net,
        antialias=profiles.find(config.profile).antialias,
    )
    if not found.keeps_head:
        like = params["norm"]["scale"]
        params["head"] = surgery.fresh_head(net, config.seed, like=like)
    return _reordered(params, found.order)


def _reordered(params: trees.Tree, order: tuple[int, ...]) -> trees.Tree:
    """With the outputs of the head in another order; in none, as they are."""
    if not order:
        return params
    places = np.asarray(order)
    head = {name: leaf[..., places] for name, leaf in params["head"].items()}
    return {**params, "head": head}


def _float32(path: str, params: trees.Tree) -> trees.Tree:
    """The weights of a file for a run to start from.

    Raises:
      UserError: some of them are not numbers.
    """
    found = jax.tree.map(lambda leaf: leaf.astype(np.float32), params)
    for name, leaf in trees.flatten(found).items():
        if not np.isfinite(leaf).all():
            raise UserError(
                f"{path} holds values in {name} that are not numbers: no run can start "
                f"from it; train it again"
            )
    return found


def check_memory(spec: Spec) -> None:
    """Refuses a network whose weights this host cannot hold, where they are made.

    (JAX may wait for ever for an array on a CPU that found no room.)
    """
    count = trees.count(networks.abstract_params(spec))
    there = host.memory()
    if there is not None and 4 * count > there:
        raise UserError(
            f"{spec.name} has {count:,} parameters, {4 * count / 2**30:,.0f} GiB, and "
            f"this host lends {there / 2**30:,.0f} GiB of memory: take a smaller model"
        )


def _keeps_head(
    config, path: str, origin: Description, images: Images, tell
) -> tuple[bool, tuple[int, ...]]:
    """Whether a run takes over the head of a file, and in which order of its outputs;
    it tells so."""
    kept, reason = _head(config, origin, images)
    order: tuple[int, ...] = ()
    if kept:
        # (Who keeps a head of other names says so, or has the released code do it.)
        found = classes.match(origin.class_names, images.class_names, path, images.name)
        order = found.order
        reason += f"; {found.said}" if found.said else ""
    tell(f"{config.name}: head {'inherited' if kept else 'fresh'}: {reason}")
    return kept, order


def _tell_pixels(config, origin: Description, images: Images, tell) -> None:
    """Tells where a file has seen other pixels than those of the run."""
    was, now = origin.normalization, images.normalization
    if now is not None and was != now:
        tell(
            f"{config.name}: pixels of mean {now.mean} and deviation {now.std}, where "
            f"these weights have seen {was.mean} and {was.std} (data.mean and data.std "
            f"set them)"
        )


def _head(config, origin: Description, images: Images) -> tuple[bool, str]:
    """Whether the head of a file is for the classes of a dataset, and why."""
    theirs, ours = origin.net.num_classes, images.num_classes
    if config.init.head == "fresh":
        return False, "as init.head says"
    if theirs != ours:
        if config.init.head == "keep" and images.known:
            raise UserError(
                f"init.head=keep: the file has {theirs} classes and {images.name} has "
                f"{ours}"
            )
        return False, f"it has {theirs} classes and {images.name} has {ours}"
    if config.init.head == "keep":
        return True, "as init.head says"
    otherwise = " (--config.init.head=keep takes it over)"
    if profiles.find(config.profile).head_by == "classes":
        if not origin.class_names:
            return False, f"its classes have no names to compare{otherwise}"
        one, other = origin.class_names, images.class_names
        same = set(map(classes.clean, one)) == set(map(classes.clean, other))
        named = "the same" if same else "other"
        reason = f"the classes of {images.name} have {named} names"
        return same, reason + ("" if same else otherwise)
    # The released code inherits the head on ImageNet alone, where it was trained.
    same = _set_name(origin.dataset) == _set_name(images.name)
    known = f"was trained on {origin.dataset}" if origin.dataset else "names no dataset"
    reason = f"its file {known}, and this is {images.name}"
    return same, reason + ("" if same else otherwise)


def _set_name(name: str) -> str:
    """Of a dataset; ImageNet has many."""
    known = re.fullmatch(r"(imagenet|ilsvrc)[-_]?(2012|1k)?", name.lower())
    return "imagenet" if known else name


def ema_start(config, spec: Spec) -> trees.Tree | None:
    """Where the moving average of the weights starts, if not from the weights."""
    if not config.ema or config.ema_start == "weights":
        return None
    bias = config.model.patch_bias_init
    if isinstance(spec, AuxViTSpec):
        begun: Spec = AuxViTSpec(spec.net.replace(patch_bias_init=bias), spec.stages)
    else:
        begun = spec.net.replace(patch_bias_init=bias)
    params = vit.init_params(begun.build(), jax.random.key(config.seed))
    if (config.init.learngene or config.init.network) and "head" in params:
        # A head that is not inherited is the same in both.
        like = params["norm"]["scale"]
        assert isinstance(spec.net, ViTSpec)
        params["head"] = surgery.fresh_head(spec.net, config.seed, like=like)
    return params


def _check_channels(path: str, channels: int, images: Images) -> None:
    if images.known and channels != images.channels:
        raise UserError(
            f"{path} takes images of {channels} channels, and {images.name} has "
            f"{images.channels}"
        )


def _describe(config, images: Images, spec) -> Description:
    auxiliary = isinstance(spec, AuxViTSpec)
    look = images.normalization
    if look is None or look.channels != spec.net.channels:
        look = default_normalization(spec.net.channels)
    return Description(
        kind="aux_net" if auxiliary else "network",
        net=spec.net,
        stages=spec.stages if auxiliary else (),
        method="sws" if auxiliary else "",
        normalization=look,
        dataset=images.name,
        class_names=images.class_names,
        profile=config.profile,
        seed=config.seed,
        versions=descriptions.versions(),
        eval_crop=config.data.eval_crop,
        val_fraction=config.data.val_fraction,
    )
