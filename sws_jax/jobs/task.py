"""What a run trains, on what and for how long: made from its config, then fixed."""

from __future__ import annotations

import dataclasses
from typing import Any

import ml_collections
from jax.sharding import Mesh

from sws_jax import sharding, trees
from sws_jax.data import Dataset
from sws_jax.data.base import Split
from sws_jax.data.pipeline import Reading
from sws_jax.data.transforms import Fit
from sws_jax.jobs import build, initial, places, remarks, teacher
from sws_jax.jobs.directory import RunDirectory
from sws_jax.methods import learngenes
from sws_jax.models import weights
from sws_jax.models.description import Description
from sws_jax.models.networks import Network, Predictor
from sws_jax.runtime import processes
from sws_jax.training import evaluation, step
from sws_jax.training.optim import Schedule


@dataclasses.dataclass(frozen=True)
class Task:
    """A run that can be begun.

    Attributes:
      config: of the run.
      mesh: its devices.
      data, known_data: its images, and by what they are known again.
      reading: how they are read.
      durations, schedule: how long it is, in steps.
      milestones: step, by epochs, whose weights are scored on the test images too.
      network: before the first step.
      recipe: of a step.
      ans_net: the teacher, on its devices; None where there is none.
      about: what the network is.
      stored: parameters that had to be stored to start it.
      told: lines to say when it begins.
      remarks: lines to say whenever it starts or goes on.
    """

    config: ml_collections.ConfigDict
    mesh: Mesh
    data: Dataset
    known_data: dict[str, Any]
    reading: Reading
    durations: build.Durations
    schedule: Schedule
    milestones: dict[float, int]
    network: Network
    recipe: step.Recipe
    ans_net: Predictor | None
    about: Description
    stored: int
    told: tuple[str, ...]
    remarks: tuple[str, ...]

    @property
    def total(self) -> int:
        """Steps."""
        return self.schedule.total_steps

    @property
    def size(self) -> int:
        """Images of a step."""
        return self.config.global_batch_size

    def predictor(self, params: trees.Tree) -> Predictor:
        """The network with other weights."""
        network = Network(self.network.spec, params)
        return Predictor(network, self.data.normalization, self.recipe.compute)

    def score(self, predictor: Predictor, split: Split) -> dict[str, float]:
        """As `sws_jax.training.evaluation.evaluate`, as the config says."""
        return evaluation.evaluate(
            predictor,
            split,
            Fit(self.data.image_shape[:2], self.config.data.eval_crop),
            normalization=self.data.normalization,
            global_batch_size=self.config.evaluation.batch_size,
            mesh=self.mesh,
            reading=self.reading,
        )


def prepare(run: RunDirectory, datasets: build.Datasets) -> Task:
    """Data, network and teacher of a run; nothing is written.

    Args:
      run: its directory.
      datasets: of its job.

    Raises:
      UserError: the run cannot be begun, with the reason.
    """
    config = run.config

    # Data, and how long the run is in steps.
    mesh = sharding.make_mesh(sizes=config.mesh)
    build.check_batches(config, mesh)
    data = datasets.of(config)
    known_data, of_data = run.check_data(data)
    durations = build.durations(config, data)
    schedule = build.schedule(config, durations)
    build.check_length(config, durations, schedule)

    # The network before its first step, the teacher, and what a step does. Their files
    # are known before they are read, and must not change meanwhile.
    processes.first_does(lambda: run.inputs)
    told: list[str] = []
    as_begun: list[str] = []
    network = initial.start(
        config,
        data,
        run.workdir,
        told.append,
        differs=as_begun.append if run.is_older() else None,
    )
    assert network.description is not None
    task = Task(
        config=config,
        mesh=mesh,
        data=data,
        known_data=known_data,
        reading=build.reading(config),
        durations=durations,
        schedule=schedule,
        milestones={e: durations.steps(e) for e in _milestones(config)},
        network=network,
        recipe=build.recipe(config, network.spec, data.normalization),
        ans_net=None,
        about=network.description,
        stored=_stored(run, network),
        told=tuple(told),
        remarks=(
            *datasets.remarks(data),
            *of_data,
            *as_begun,
            *remarks.of(config, durations, schedule),
        ),
    )
    of_names: list[str] = []
    ans_net = build.load_teacher(config, data, run.workdir, of_names.append)
    run.check_inputs()
    if ans_net is None:
        return task
    told = [f"{config.name}: {line}" for line in of_names]
    return _with_teacher(dataclasses.replace(task, told=(*task.told, *told)), ans_net)


def _with_teacher(task: Task, ans_net: Predictor) -> Task:
    """Placed, scored, and refused if it knows nothing."""
    network, name = ans_net.network, task.config.name
    assert network.description is not None
    its_places = step.network_shardings(network.spec, task.mesh)
    placed = Network(network.spec, sharding.put(network.params, its_places))
    ans_net = dataclasses.replace(ans_net, network=placed)
    scored = task.score(ans_net, task.data.val)
    teacher.check_scores(scored, task.data, task.config.teacher.min_accuracy)
    known = network.description.net.name
    told = f"{name}: teacher {known}, validation top-1 {scored['top1']:.1%}"
    if scored["skipped"]:
        told += f" of {int(scored['count']):,} images that can be read"
    return dataclasses.replace(
        task,
        ans_net=ans_net,
        about=task.about.replace(teacher=known),
        told=(*task.told, told),
    )


def _stored(run: RunDirectory, network: Network) -> int:
    """Those of the learngene's file, or of the network itself."""
    if not run.config.init.learngene:
        return trees.count(network.params)
    about = weights.describe(places.learngene_file(run.config, run.workdir))
    return trees.count(learngenes.abstract_learngene(about).params)


def _milestones(config) -> list[float]:
    """Epochs to score apart from the end, in order; the end itself only for 0."""
    total = config.schedule.total_epochs
    wanted = sorted(set(config.evaluation.milestones))
    if total == 0:
        return [0.0]
    return [float(e) for e in wanted if 0 <= e < total]
