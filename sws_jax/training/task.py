"""What one run trains, on what and for how long: values alone, no config."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from jax.sharding import Mesh

from sws_jax import trees
from sws_jax.data import Dataset, resident
from sws_jax.data.base import Split
from sws_jax.data.pipeline import Reading
from sws_jax.data.transforms import Fit, Transform
from sws_jax.models.description import Description
from sws_jax.models.networks import Network, Predictor
from sws_jax.specs.variants import Computation, Pick, pick_first
from sws_jax.training import evaluation, step
from sws_jax.training.optim import Schedule
from sws_jax.training.picks import Picks


@dataclasses.dataclass(frozen=True)
class Task:
    """A run that can be begun, whoever asked for it.

    Attributes:
      name: of the run.
      role: in its job; kept in the result.
      method: in its job, that its network is initialised by; empty leaves it to what
        its weights say.
      directory: of the run.
      seed: of the order of images and of all that is random in a step.
      mesh: its devices.
      data: its images.
      transform: what every training image goes through.
      fit: from the images that are scored to those that the network takes.
      reading: how images are read.
      repeats: of every drawn image; see `sws_jax.data.pipeline.Order`.
      global_batch_size: images of a step.
      score_batch_size: images that are scored at a time.
      epochs: the length of the run.
      epoch_images: training images of an epoch.
      schedule: the learning rate, and the length of the run in steps.
      score_every, save_every, log_every: intervals in steps.
      milestones: step, by epochs, whose weights are scored on the test images too.
      keep_last: newest checkpoints to keep.
      save_last: whether the last step is saved in any case.
      select_best: whether the result is that of the best checkpoint on the validation
        images, and not that of the last step.
      network: before the first step.
      make_ema: makes the weights that their moving average starts from; None stands
        for the network's own.
      recipe: of a step.
      teacher: on its devices; None where there is none.
      about: what the network is.
      stored: parameters that had to be stored to start it.
      first_lines: printed when it begins.
      lines: printed whenever it begins or goes on.
      variants, pick: see `sws_jax.training.picks.Picks`.
      replay_every: interval, in steps, of those that are computed twice; 0: none.
      on_device: whether the training images live on the devices; see
        `sws_jax.data.resident`.
    """

    name: str
    role: str
    directory: str
    seed: int
    mesh: Mesh
    data: Dataset
    transform: Transform
    fit: Fit
    reading: Reading
    repeats: int
    global_batch_size: int
    score_batch_size: int
    epochs: float
    epoch_images: int
    schedule: Schedule
    score_every: int
    save_every: int
    log_every: int
    milestones: dict[float, int]
    keep_last: int
    save_last: bool
    select_best: bool
    network: Network
    make_ema: Callable[[], trees.Tree | None]
    recipe: step.Recipe
    teacher: Predictor | None
    about: Description
    stored: int
    first_lines: tuple[str, ...]
    lines: tuple[str, ...]
    method: str = ""
    variants: tuple[Computation, ...] = ()
    pick: Pick = pick_first
    replay_every: int = 0
    on_device: bool = False

    @property
    def total(self) -> int:
        """Steps of the run."""
        return self.schedule.total_steps

    @property
    def picks(self) -> Picks:
        """What each step computes."""
        return Picks(self.recipe, self.variants, self.pick, self.seed)

    @property
    def resident_bytes(self) -> int:
        """Bytes of the training images that live on each device."""
        if not self.on_device:
            return 0
        return resident.bytes_of(len(self.data.train), self.data.image_shape)

    def saves_after(self, number: int) -> bool:
        """Whether a checkpoint is due once so many steps are done."""
        due = number % self.save_every == 0 or number in self.milestones.values()
        return due or (number == self.total and self.save_last)

    def scores_after(self, number: int) -> bool:
        """Whether the validation images are due once so many steps are done."""
        due = number % self.score_every == 0 or number == self.total
        # The best checkpoint is chosen among those with a score.
        return due or self.saves_after(number)

    def replays(self, number: int) -> bool:
        """Whether the step with that number, from 1, is computed twice."""
        return self.replay_every > 0 and number % self.replay_every == 0

    def replays_after(self, number: int) -> bool:
        """Whether a later step than that is computed twice."""
        every = self.replay_every
        return every > 0 and self.total // every > number // every

    def predictor(self, params: trees.Tree) -> Predictor:
        """The network with other weights."""
        network = Network(self.network.spec, params)
        return Predictor(network, self.data.normalization, self.recipe.compute)

    def score(self, predictor: Predictor, split: Split) -> dict[str, float]:
        """Scores a network on a split; see `sws_jax.training.evaluation.evaluate`."""
        return evaluation.evaluate(
            predictor,
            split,
            self.fit,
            normalization=self.data.normalization,
            global_batch_size=self.score_batch_size,
            mesh=self.mesh,
            reading=self.reading,
        )
