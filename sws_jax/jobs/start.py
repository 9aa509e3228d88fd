"""Which network a run has: the one answer, from shapes and descriptions alone.

`answer` gives the network of one run and refuses a run that cannot start. `Answers`
does so for all runs of a job, in order, and gives their teachers. Training, dry run,
``cost``, ``doctor`` and preflight all ask here, so that none of them accepts what
another refuses.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from typing import Any

import ml_collections

from sws_jax.data import classes
from sws_jax.errors import UserError
from sws_jax.jobs import model_fields, phases, places, teacher
from sws_jax.jobs.places import Images, Origin, find_origin
from sws_jax.methods import base, learngenes
from sws_jax.methods.base import Phase
from sws_jax.models import description as descriptions
from sws_jax.models import names, networks, profiles, weights
from sws_jax.models.description import Description
from sws_jax.pixels import default_normalization
from sws_jax.specs import Spec, Trained
from sws_jax.storage import paths, runs


def _discard(text: str) -> None:
    """Ignores a line."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """Which network a run has.

    Attributes:
      spec: of the network.
      about: its description before the first step.
      keeps_head: whether the head of the file is taken over.
      order: permutation of the head's outputs; see `sws_jax.data.classes.Match`.
    """

    spec: Trained
    about: Description
    keeps_head: bool = False
    order: tuple[int, ...] = ()


def answer(
    config: ml_collections.ConfigDict,
    images: Images | None,
    origin: Origin | None,
    tell: Callable[[str], None] = _discard,
    *,
    on_difference: Callable[[str], None] | None = None,
) -> Answer:
    """Which network a run has, from shapes and descriptions alone.

    Args:
      config: of the run.
      images: what it trains on; None where nothing is known of them, so that only
        what does not depend on them is refused.
      origin: what `init` names; None where it names nothing, or a file that is not
        there (the network is then as the config has it).
      tell: takes a line on what is not taken over from a file.
      on_difference: takes a line where the file differs from a field in
        ``init.insist``; None refuses it. Runs of older software pass a function here.

    Raises:
      UserError: the config contradicts itself, the images or the file it names.
    """
    init = config.init
    model_fields.check_init(config)
    # The placeholder fits the file's network, and need not fit the config's.
    input_and_head = None if images is None else images.input_and_head
    phase = phases.find(config, input_and_head)
    if images is None:
        images = Images.placeholder(config, origin)
    if origin is None:
        result = _of_seed(config, images, phase)
        if not (init.learngene or init.network or phase):
            model_fields.check_insisted(config, result.spec, "", on_difference)
        return result
    if init.learngene:
        learngenes.check_learngene(origin.path, origin.about)
        result = _descendant_of(config, images, origin, tell)
    else:
        networks.check_network(origin.path, origin.about)
        result = _continuation_of(config, images, origin, tell)
    if input_and_head and phase is not None and phase.spec is not None:
        result = _as_phase(config, phase, phase.spec, origin, result)
    if phase is None:  # Fields that were set by name are not for a method's phases.
        model_fields.check_insisted(config, result.spec, origin.path, on_difference)
    return result


def _as_phase(
    config, phase: Phase, spec: Trained, origin: Origin, result: Answer
) -> Answer:
    """The answer with a phase's own stochastic depth, which no file decides.

    Raises:
      UserError: the network of the file is another than the phase's.
    """
    starts_as = result.spec.replace(drop_path=spec.tail.drop_path)
    if starts_as != spec:
        raise UserError(
            f"phase {phase.name} of {config.phase.method} trains {spec.name}, but what "
            f"it starts from {origin.path} as is {starts_as.name}, or one that differs "
            f"in what the name does not say: a phase without a spec takes what is there"
        )
    about = learngenes.with_spec(result.about, starts_as)
    return dataclasses.replace(result, spec=starts_as, about=about)


def _of_seed(config, images: Images, phase: Phase | None) -> Answer:
    """The network of a phase, or of the config's fields, which no file initialises."""
    if phase is None:
        spec = model_fields.network_spec(config, images.input_and_head)
        return Answer(spec, _describe(config, images, spec))
    if phase.spec is None:  # It goes on with a network that is not there.
        spec = model_fields.plain_network(config, images.input_and_head)
        return Answer(spec, _describe(config, images, spec))
    about = _describe(config, images, phase.spec)
    if about.kind == "aux_net":
        about = about.replace(method=config.phase.method)
    return Answer(phase.spec, about)


def expansion(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The plan, allotment or depth of a run's descendant, as arguments of `expand`."""
    init = config.init
    if init.plan or init.allotment:
        return {n: tuple(init[n]) for n in ("plan", "allotment") if init[n]}
    return {"depth": config.phase.depth or config.model.depth}


def _descendant_of(config, images: Images, origin: Origin, tell) -> Answer:
    """The descendant that a learngene initialises."""
    path, about = origin.path, origin.about
    if about.profile != config.profile:
        raise UserError(
            f"{path} is of the {about.profile} profile and the run of the "
            f"{config.profile} one: give the config profile={about.profile}"
        )
    keeps, order = _keeps_head(config, path, about, images, tell)
    _check_channels(path, about.spec.channels, images)
    _tell_pixels(config, about, images, tell)
    descendant = learngenes.abstract_descendant(
        about, seed=config.seed, **expansion(config)
    )
    assert isinstance(descendant.spec, Trained)  # See `Method.expand`.
    spec: Trained = descendant.spec.replace(
        image_size=images.image_size,
        num_classes=about.spec.num_classes if keeps else images.num_classes,
        drop_path=config.model.drop_path,
    )
    plan = descendant.plan
    description = learngenes.inherit(_describe(config, images, spec), about, plan)
    return Answer(spec, description, keeps, order)


def _continuation_of(config, images: Images, origin: Origin, tell) -> Answer:
    """The trained network that a run goes on with."""
    path, about = origin.path, origin.about
    old = about.spec
    if not isinstance(old, Trained):
        raise UserError(f"{old.name} is no Vision Transformer")
    if old.stem.distilled:
        raise UserError(
            f"{path} holds a network with a distillation token: it can teach, and no "
            f"run starts from it"
        )
    _check_channels(path, old.channels, images)
    _tell_pixels(config, about, images, tell)
    spec: Trained = old.replace(
        num_classes=images.num_classes,
        image_size=images.image_size,
        drop_path=config.model.drop_path,
    )
    keeps, order = _keeps_head(config, path, about, images, tell)
    fresh = _describe(config, images, spec)
    description = learngenes.inherit(fresh, about, about.plan)
    if about.method:  # Weights keep the profile of the method that made them.
        description = description.replace(profile=about.profile)
    return Answer(spec, description, keeps, order)


def _keeps_head(
    config,
    path: str,
    origin: Description,
    images: Images,
    tell: Callable[[str], None],
) -> tuple[bool, tuple[int, ...]]:
    """Whether a run takes over the head of a file, and in which order of its outputs.

    Args:
      config: of the run.
      path: of the file.
      origin: its description.
      images: that the run trains on.
      tell: takes a line that says so.

    Raises:
      UserError: the head is asked for and does not fit, or the names of its classes
        contradict those of the images.
    """
    kept, reason = _head(config, origin, images)
    order: tuple[int, ...] = ()
    if kept:
        # Names may differ here only with init.head=keep, or in the official profile.
        match = classes.match(origin.class_names, images.class_names, path, images.name)
        order = match.order
        reason += f"; {match.note}" if match.note else ""
    tell(f"{config.name}: head {'inherited' if kept else 'fresh'}: {reason}")
    return kept, order


def _tell_pixels(
    config, origin: Description, images: Images, tell: Callable[[str], None]
) -> None:
    """Tells where a file was trained on pixels that were normalised otherwise."""
    trained_on, run_normalization = origin.normalization, images.normalization
    if run_normalization is not None and trained_on != run_normalization:
        mean, std = run_normalization.mean, run_normalization.std
        tell(
            f"{config.name}: pixels of mean {mean} and deviation {std}, where these "
            f"weights have seen {trained_on.mean} and {trained_on.std} (data.mean and "
            f"data.std set them)"
        )


def _check_channels(path: str, channels: int, images: Images) -> None:
    """Refuses a file for images of other channels.

    Raises:
      UserError: naming both.
    """
    if images.known and channels != images.channels:
        raise UserError(
            f"{path} takes images of {channels} channels, and {images.name} has "
            f"{images.channels}"
        )


def _head(config, origin: Description, images: Images) -> tuple[bool, str]:
    """Whether the head of a file is for the classes of a dataset, and why."""
    file_classes, data_classes = origin.spec.num_classes, images.num_classes
    if config.init.head == "fresh":
        return False, "as init.head says"
    if file_classes != data_classes:
        if config.init.head == "keep" and images.known:
            raise UserError(
                f"init.head=keep: the file has {file_classes} classes and "
                f"{images.name} has {data_classes}"
            )
        counts = f"{file_classes} classes and {images.name} has {data_classes}"
        return False, f"it has {counts}"
    if config.init.head == "keep":
        return True, "as init.head says"
    otherwise = " (--config.init.head=keep takes it over)"
    if profiles.find(config.profile).head_by == "classes":
        if not origin.class_names:
            return False, f"its classes have no names to compare{otherwise}"
        file_names = set(map(classes.clean, origin.class_names))
        data_names = set(map(classes.clean, images.class_names))
        same = file_names == data_names
        which = "the same" if same else "other"
        reason = f"the classes of {images.name} have {which} names"
        return same, reason + ("" if same else otherwise)
    # The released code inherits the head on ImageNet alone, where it was trained.
    same = _set_name(origin.dataset) == _set_name(images.name)
    known = f"was trained on {origin.dataset}" if origin.dataset else "names no dataset"
    reason = f"its file {known}, and this is {images.name}"
    return same, reason + ("" if same else otherwise)


def _set_name(name: str) -> str:
    """The name of a dataset, which is one for the many spellings of ImageNet."""
    is_imagenet = re.fullmatch(r"(imagenet|ilsvrc)[-_]?(2012|1k)?", name.lower())
    return "imagenet" if is_imagenet else name


def _describe(config, images: Images, spec: Spec) -> Description:
    """The description of a network that nothing has trained."""
    normalization = images.normalization
    if normalization is None or normalization.channels != spec.channels:
        normalization = default_normalization(spec.channels)
    return learngenes.describe(
        spec,
        normalization=normalization,
        dataset=images.name,
        class_names=images.class_names,
        profile=config.profile,
        seed=config.seed,
        versions=descriptions.versions(),
        eval_crop=config.data.eval_crop,
        val_fraction=config.data.val_fraction,
    )


class Answers:
    """The networks of a job's runs, which are asked for in the order of the job.

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
        self.specs: dict[str, Trained] = {}  # by the names of runs
        # By the names of runs too. It is asked for few of them, as tracing takes long.
        self._trained: dict[str, Callable[[], base.Trained | None]] = {}
        # What each run leaves, by ``run:NAME``, where it is known before the training.
        self.runs: dict[str, Origin] = {}
        self._files: dict[str, Origin] = {}

    def answer_for(self, name: str, config: ml_collections.ConfigDict) -> Answer:
        """The answer for a run of that name.

        Raises:
          UserError: as `answer`.
        """
        on_difference = _discard if self._older(name) else None
        origin = self.origin(config)
        result = answer(config, self.images, origin, on_difference=on_difference)
        self.specs[name] = result.spec
        path = f"{places.RUN}{name}"
        if (about := self._product(name, config, result)) is not None:
            self.runs[path] = Origin(path, about)
        return result

    def _product(self, name: str, config, result: Answer) -> Description | None:
        """The description of what a run leaves: its network's, or a learngene's.

        None where it depends on the numbers that are trained, or on a teacher that is
        not known.
        """
        self._trained[name] = functools.cache(
            functools.partial(self._trained_by, config, result)
        )
        if phases.leaves_learngene(config):
            method = learngenes.find_method(config.phase.method)
            names = (*phases.earlier(config), name)
        elif result.about.kind == "aux_net" and not config.phase.method:
            method, names = learngenes.find_method(result.about.method), (name,)
        else:
            return result.about
        phase_results = {}
        for needed in names:
            trained = self._trained[needed]() if needed in self._trained else None
            if trained is None:
                return None
            phase_results[needed] = trained
        images = self.images
        net = phases.net(config, None if images is None else images.input_and_head)
        return learngenes.extracted_description(method, phase_results, net)

    def _trained_by(self, config, result: Answer) -> base.Trained | None:
        """The shapes that a run leaves to later phases; None where not known."""
        taught_by = None  # A usual loss has no parameters that depend on it.
        if not base.is_usual(phases.objective(config)):
            taught_by = self.teacher(config)
        return phases.abstract_trained(config, result.spec, result.about, taught_by)

    def origin(self, config: ml_collections.ConfigDict) -> Origin | None:
        """What a run starts from: of an earlier run, a file that is there, or a name.

        A name says which network a job is meant for, though it has no weights.
        """
        path = config.init.learngene or config.init.network
        if path in self.runs:
            return self.runs[path]
        if path not in self._files:
            origin = find_origin(config, self.workdir)
            if origin is None and config.init.network and names.is_name(path):
                origin = Origin(path, self._named(path, config))
            if origin is None:
                return None
            self._files[path] = origin
        return self._files[path]

    def _named(self, name: str, config) -> Description:
        """The description of a network that is known by its name alone."""
        images = self.images or Images.placeholder(config, None)
        return _describe(config, images, names.named(name, {}))

    def teacher(self, config: ml_collections.ConfigDict) -> Spec | None:
        """The network that teaches a run: of an earlier run, a file or that name.

        None without distillation, and where nothing is known of the teacher.

        Raises:
          UserError: no run could be taught so.
        """
        path = places.teacher_path(config)
        if not path:
            return None
        if path in self.runs:
            return self.runs[path].about.spec
        resolved, images = places.resolve(path, self.workdir), self.images
        if paths.exists(resolved):
            file = runs.weights_file(resolved)
            about = weights.describe(file)
            networks.check_network(file, about)
            if images is not None and images.known:
                _check_teacher(about, images)
            return about.spec
        if not names.is_name(path):
            return None
        changes: dict[str, Any] = {}
        if images is not None:
            changes = dict(num_classes=images.num_classes, channels=images.channels)
        return names.named(path, changes)


def _check_teacher(about: Description, images: Images) -> None:
    """Refuses a teacher that does not fit the images, by its description.

    Raises:
      UserError: naming both.
    """
    teacher.check_fits(
        about.spec,
        num_classes=images.num_classes,
        channels=images.channels,
        name=images.name,
    )
    who = f"the teacher {about.spec.name}"
    classes.match(about.class_names, images.class_names, who, images.name)
