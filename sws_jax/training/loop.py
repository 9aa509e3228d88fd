"""The steps of a run: what they change, and the files that they leave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from sws_jax import sharding, trees
from sws_jax.data import resident
from sws_jax.errors import Stopped, UserError
from sws_jax.models.description import Description
from sws_jax.runtime import processes, words
from sws_jax.runtime.progress import Progress, say
from sws_jax.training import hooks, metrics, replay, step
from sws_jax.training.checkpoints import Checkpoints, Saved
from sws_jax.training.history import Begun, History
from sws_jax.training.hooks import Hook
from sws_jax.training.task import Task


class Preempted(Exception):
    """The run was asked to stop, has saved, and goes on when started again."""


class NonFinite(Stopped):
    """The loss, a gradient or what the objective measures is no longer a number."""


class Training:
    """A run under way: what its steps change, and the files that they leave.

    All processes call its methods alike.

    Args:
      task: what is trained.
      should_stop: asked after every step; true saves and raises `Preempted`.
      begun: how the run began, maybe with an older version.

    Attributes:
      state: the weights, and what else steps change.
      shardings: where each leaf of the state lives.
      first: steps behind the state at this start.
      done: steps behind the state now.
      history: what is remembered of the steps, across restarts.
      val: the last scores on the validation images, and their step.
      hooks: what is done after some of the steps, in this order.
    """

    def __init__(self, task: Task, should_stop: Callable[[], bool], begun: Begun):
        self.task, self.should_stop = task, should_stop
        self.checkpoints = Checkpoints(
            task.directory,
            keep_last=task.keep_last,
            keep_steps=list(task.milestones.values()),
        )
        # Where the weights come from: this run's newest whole checkpoint, else the
        # task's network, which is of a file or of a seed.
        self.shardings = step.state_shardings(task.recipe, task.mesh)
        self.state = self._first_state()
        lines = list(task.first_lines)
        self.first = self.done = 0
        if (saved := self._newest()) is not None:
            counted = sharding.put(np.int32(saved.step), self.shardings.step)
            self.state = self.state.replace(step=counted, **saved.items)
            self.first = self.done = saved.step
            lines = [f"{task.name}: goes on from step {saved.step} of {task.total}"]
        self.history = History(
            saved.clock if saved else {},
            first=self.first,
            dtype=task.recipe.compute.dtype,
            unreadable=task.reading.unreadable,
            begun=begun,
        )
        lines += [f"{task.name}: {change}" for change in self.history.changes]
        for line in (*lines, *task.lines):
            say(line)
        # Steps under way, with the metrics that they will return.
        self._pending: list[tuple[int, dict[str, jax.Array]]] = []
        self.val: dict[str, float] = {}
        self.hooks = self._usual_hooks()
        # The numbers of a row of the log, and the compiled steps that were needed yet.
        self._row: dict[str, float] = {}
        self._programs: dict[step.Recipe, jax.stages.Compiled] = {}
        self._writer: metrics.Writer | None = None
        self._progress = Progress(task.name, total=task.total, done=self.first)

    def _first_state(self) -> step.TrainState:
        """The state before the first step."""
        task, shardings = self.task, self.shardings
        make = jax.jit(
            lambda params, ema: step.new_state(task.recipe, params, ema, task.seed),
            out_shardings=shardings,
        )
        ema = task.make_ema()
        return make(
            sharding.put(task.network.params, shardings.params),
            None if ema is None else sharding.put(ema, shardings.params),
        )

    def _newest(self) -> Saved | None:
        """The newest checkpoint that is whole, if any."""
        if not self.checkpoints.steps():
            return None
        items, shardings = _items(self.state), _items(self.shardings)
        try:
            return self.checkpoints.restore_newest(
                jax.tree.map(step.with_sharding, items, shardings)
            )
        except UserError:  # which all processes meet
            self.checkpoints.close()
            raise

    def open(self) -> None:
        """Opens the log files."""
        if processes.is_first():
            self._writer = metrics.Writer(self.task.directory, step=self.first)

    def steps(self, step_lines: Callable[[], Iterable[str]] = tuple) -> None:
        """The loop. Nothing random lives outside (seed, step).

        Args:
          step_lines: makes lines about the compiled step, which are printed before
            the first step.
        """
        task = self.task
        if self.first == task.total:
            return
        batches = self._batches()
        picks = task.picks
        for line in (*self._program_lines(), *step_lines()):
            say(line)
        key = self._key()
        counts_skipped = sharding.is_first_of_rows(task.mesh)
        for step_number in range(self.first + 1, task.total + 1):
            rate = task.schedule(step_number - 1)
            with self.history.clock.waiting():
                batch, skipped = next(batches)
            self.history.add_skipped(skipped if counts_skipped else 0)
            recipe, students = picks.at(step_number - 1)
            program = self._program(recipe, students)
            arguments = [key, batch, np.float32(rate), task.teacher]
            arguments += [students] if students else []
            self.state, step_metrics = self._compute(step_number, program, *arguments)
            self._count(step_number, step_metrics)
            self._do_what_is_due(step_number)

    def _program_lines(self) -> Iterator[str]:
        """A line on how many programs the variants of the network need."""
        task = self.task
        if task.variants:
            count = len(task.picks.programs(task.total))
            variants = words.many(len(task.variants), "variant")
            yield f"{task.name}: {variants} in {words.many(count, 'program')}"

    def _program(
        self, recipe: step.Recipe, students: tuple[step.Student, ...]
    ) -> jax.stages.Compiled:
        """The compiled step; a new one is compiled while the clock stands still."""
        if recipe not in self._programs:
            jax.block_until_ready(self._pending)  # Their time is training.
            with self.history.clock.paused():
                self._programs[recipe] = step.program(
                    recipe,
                    self.task.mesh,
                    self.task.global_batch_size,
                    self.task.teacher,
                    students,
                )
        return self._programs[recipe]

    def _batches(self) -> Iterator[tuple[dict[str, jax.Array], int]]:
        """The batches on the devices, from the next step on; see `resident.batches`."""
        task = self.task
        return resident.batches(
            task.data,
            task.transform,
            task.mesh,
            on_device=task.on_device,
            seed=task.seed,
            global_batch_size=task.global_batch_size,
            repeats=task.repeats,
            start_step=self.first,
            reading=task.reading,
        )

    def _key(self) -> jax.Array:
        """The random key of the run's seed."""
        seed, everywhere = self.task.seed, sharding.replicated(self.task.mesh)
        return jax.jit(lambda: jax.random.key(seed), out_shardings=everywhere)()

    def _compute(
        self, step_number: int, program: jax.stages.Compiled, *arguments: Any
    ) -> tuple[step.TrainState, dict[str, jax.Array]]:
        """Computes a step, and once more where a replay is due.

        Args:
          step_number: from 1.
          program: the compiled step.
          *arguments: of the program, after the state.

        Returns:
          The state after the step, and its metrics.

        Raises:
          Diverged: the two computations differ.
        """
        if not self.task.replays(step_number):
            return program(self.state, *arguments)
        after, place = replay.twice(program, self.state, *arguments)
        if place:
            raise self._diverged(step_number, place)
        return after

    def _count(self, step_number: int, step_metrics: dict[str, jax.Array]) -> None:
        """Notes a step that was started."""
        self.done = step_number
        self._pending.append((step_number, step_metrics))
        sharding.hold_back(self._pending)
        self._progress.advance()
        if step_number == self.first + 1:
            jax.block_until_ready(step_metrics)  # Compilation is not training.
            if self.task.replays_after(step_number):
                replay.compile_for(self.state, step_metrics)
            self.history.clock.start()
        else:
            self.history.clock.count(1)

    def _usual_hooks(self) -> list[Hook]:
        """What every run does after its steps: a row of the log, and a checkpoint."""
        task = self.task
        log = hooks.every(task.log_every, self._log, last=task.total)
        score = Hook(task.scores_after, self._score)
        return [
            log,
            score,
            Hook(lambda done: log.is_due(done) or score.is_due(done), self._write),
            log._replace(act=self._show),
            Hook(task.saves_after, self.save),
        ]

    def _do_what_is_due(self, step_number: int) -> None:
        """Does what the hooks say after a step, and stops where the run is asked to."""
        stop = self.should_stop() and step_number < self.task.total
        due = [hook.act for hook in self.hooks if hook.is_due(step_number)]
        if not (due or stop):
            return
        self.flush()
        self._row = {}
        with self.history.clock.paused():
            for act in due:
                act(step_number)
            if stop:
                if not self.task.saves_after(step_number):
                    self.save(step_number)
                self.checkpoints.wait()
                raise self.stopped(step_number)

    def flush(self) -> None:
        """Waits for the steps under way, and refuses NaN and infinity.

        Raises:
          NonFinite: a number of a step became NaN or infinite.
        """
        finished_steps = [
            (step_number, {name: float(value) for name, value in step_metrics.items()})
            for step_number, step_metrics in self._pending
        ]
        self._pending.clear()
        for step_number, values in finished_steps:
            if not all(np.isfinite(list(values.values()))):
                raise self._non_finite(step_number, values)
        for _, values in finished_steps:
            self.history.add(values)

    def _non_finite(self, step_number: int, values: dict[str, float]) -> NonFinite:
        """The error that ends the run, as a number of a step is NaN or infinite."""
        others = "".join(
            f", and {name} is {value}"
            for name, value in values.items()
            if name not in ("loss", "grad_norm") and not np.isfinite(value)
        )
        return NonFinite(
            f"{self.task.name}: at step {step_number} the loss is {values['loss']} and "
            f"the gradient's norm {values['grad_norm']}{others}; stopped, with "
            f"{self._kept()} kept in {self.task.directory}: lower schedule.rate or set "
            f"optimizer.clip_norm, and give the run another name"
        )

    def _diverged(self, step_number: int, place: str) -> replay.Diverged:
        """The error that ends the run, as the replay of a step differs."""
        return replay.Diverged(
            f"{self.task.name}: step {step_number}, computed twice from the same state "
            f"and batch, differs {place}; stopped before it was saved, with "
            f"{self._kept()} kept in {self.task.directory}: repeat the command on "
            f"other devices, or, if kernels here do not give the same bits each time, "
            f"with those that do (on GPUs XLA_FLAGS=--xla_gpu_deterministic_ops=true)"
        )

    def _kept(self) -> str:
        """The newest checkpoint, in words, once what is being saved is written."""
        self.checkpoints.wait()
        steps = self.checkpoints.steps()
        return f"the checkpoint of step {steps[-1]}" if steps else "nothing"

    def _log(self, step_number: int) -> None:
        """Adds the means of the steps since the last line to the row."""
        self._row |= self.history.means()
        if self.task.reading.unreadable == "skip":
            self._row["unreadable"] = self.history.skipped()
        self._row |= self._progress_at(step_number)

    def _progress_at(self, step_number: int) -> dict[str, float]:
        """How far the training is, and how fast."""
        task, clock = self.task, self.history.clock
        epoch = step_number * task.global_batch_size / task.epoch_images
        progress = {"rate": task.schedule(step_number - 1), "epoch": epoch}
        if (speed := clock.steps_per_second) is not None:
            progress["images_per_second"] = speed * task.global_batch_size
        if (waited := clock.input_wait) is not None:
            progress["input_wait"] = waited
        return progress

    def _score(self, step_number: int) -> None:
        """Adds scores of weights and average on the validation images to the row."""
        task = self.task
        self._row |= self._progress_at(step_number)
        val = task.score(task.predictor(self.state.params), task.data.val)
        self.val = {**val, "step": step_number}
        self._row |= {"val_top1": val["top1"], "val_loss": val["loss"]}
        if val["skipped"]:
            self._row["val_images"] = val["count"]
        if task.recipe.ema:
            average = task.score(task.predictor(self.state.ema), task.data.val)
            self._row["val_top1_ema"] = average["top1"]

    def _write(self, step_number: int) -> None:
        """Writes the row to the files of the log."""
        if self._writer:
            self._writer.write(step_number, self._row)

    def _show(self, step_number: int) -> None:
        """Shows the row as a line, and begins the next line's speed."""
        clock = self.history.clock
        self._progress.log(step_number, self._row, clock.steps_per_second)
        clock.lap()

    def save(self, step_number: int) -> None:
        """Starts writing the checkpoint of a step."""
        val = self.val
        if self._writer:
            self._writer.send()
        self.checkpoints.save(
            step_number,
            _items(self.state),
            clock=self.history.state(),
            description=self.described(step_number, val),
            val_top1=val["top1"] if val.get("step") == step_number else -1.0,
        )

    def described(self, step_number: int, val: dict[str, float]) -> Description:
        """What the weights of a step are, with their scores."""
        accuracy = round(val.get("top1", -1.0), 6)
        return self.task.about.replace(step=step_number, accuracy=accuracy)

    def stopped(self, step_number: int) -> Preempted:
        """The exception that ends a run which was asked to stop, once it has saved."""
        return Preempted(
            f"{self.task.name}: stopped and saved at step {step_number} of "
            f"{self.task.total}; the same command goes on"
        )

    def close(self, all_ended_alike: bool) -> None:
        """Closes the files.

        Args:
          all_ended_alike: all processes do so; what is being saved waits for them.
        """
        self._progress.close()
        if self._writer:
            self._writer.close()
        if all_ended_alike or jax.process_count() == 1:
            self.checkpoints.close()


def _items(state: step.TrainState) -> dict[str, trees.Tree]:
    """The items of a checkpoint."""
    items = {name: getattr(state, name) for name in ("params", "opt", "ema", "own")}
    return {name: item for name, item in items.items() if item is not None}
