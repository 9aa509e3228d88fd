"""The steps of a run: what they change, and the files that they leave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from sws_jax import sharding, trees
from sws_jax.data import pipeline
from sws_jax.errors import Stopped, UserError
from sws_jax.models.description import Description
from sws_jax.runtime import processes
from sws_jax.runtime.progress import Progress, say
from sws_jax.training import metrics, replay, step
from sws_jax.training.checkpoints import Checkpoints, Saved
from sws_jax.training.history import Begun, History
from sws_jax.training.task import Task


class Preempted(Exception):
    """The run was asked to stop, has saved, and goes on when started again."""


class NonFinite(Stopped):
    """The loss or a gradient is no longer a number."""


class Training:
    """A run under way: what its steps change, and the files that they leave.

    All processes call its methods alike.

    Args:
      task: what is trained.
      should_stop: asked after every step; true saves and raises `Preempted`.
      begun: how the run began, on whatever software.

    Attributes:
      state: the weights, and what else steps change.
      shardings: where each leaf of the state lives.
      first: steps behind the state at this start.
      done: steps behind the state now.
      history: what is remembered of the steps, across restarts.
      val: the last scores on the validation images, and their step.
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
        self._writer: metrics.Writer | None = None
        self._progress = Progress(task.name, total=task.total, done=self.first)

    def _first_state(self) -> step.TrainState:
        """The state before the first step."""
        task, shardings = self.task, self.shardings
        make = jax.jit(
            lambda params, ema: step.new_state(task.recipe, params, ema),
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
          step_lines: makes lines to be said of the compiled step, before the first one
            is taken.
        """
        task = self.task
        if self.first == task.total:
            return
        batches = self._batches()
        size = task.global_batch_size
        program = step.program(task.recipe, task.mesh, size, task.teacher)
        for line in step_lines():
            say(line)
        key = self._key()
        counts_skipped = sharding.is_first_of_rows(task.mesh)
        for step_number in range(self.first + 1, task.total + 1):
            rate = task.schedule(step_number - 1)
            host_batch = next(batches)
            skipped = int(host_batch.pop("skipped"))
            self.history.add_skipped(skipped if counts_skipped else 0)
            batch = sharding.to_global(task.mesh, size, host_batch)
            self.state, step_metrics = self._taken(
                step_number, program, key, batch, np.float32(rate), task.teacher
            )
            self._count(step_number, step_metrics)
            self._do_what_is_due(step_number, rate)

    def _batches(self) -> Iterator[dict[str, np.ndarray]]:
        """This process's rows of the batches, from the next step on."""
        task = self.task
        return pipeline.train_batches(
            task.data.train,
            task.transform,
            seed=task.seed,
            global_batch_size=task.global_batch_size,
            size=task.data.image_shape[:2],
            repeats=task.repeats,
            start_step=self.first,
            rows=sharding.own_rows(task.mesh, task.global_batch_size),
            reading=task.reading,
        )

    def _key(self) -> jax.Array:
        """The random key of the run's seed."""
        seed, everywhere = self.task.seed, sharding.replicated(self.task.mesh)
        return jax.jit(lambda: jax.random.key(seed), out_shardings=everywhere)()

    def _taken(
        self, step_number: int, program: Callable, *arguments: Any
    ) -> tuple[step.TrainState, dict[str, jax.Array]]:
        """The state after a step and its metrics; compared with a replay where due.

        Raises:
          Diverged: the replay differs.
        """
        if not self.task.replays(step_number):
            return program(self.state, *arguments)
        after, place = replay.twice(program, self.state, *arguments)
        if place:
            raise replay.Diverged(
                f"{self.task.name}: step {step_number}, computed twice from the same "
                f"state and batch, differs {place}; stopped before it was saved, with "
                f"{self._kept()} kept in {self.task.directory}: repeat the command on "
                f"other devices, or, if kernels here do not give the same bits each "
                f"time, with those that do (on GPUs XLA_FLAGS="
                f"--xla_gpu_deterministic_ops=true)"
            )
        return after

    def _kept(self) -> str:
        """The newest checkpoint, in words, once what is being saved is written."""
        self.checkpoints.wait()
        steps = self.checkpoints.steps()
        return f"the checkpoint of step {steps[-1]}" if steps else "nothing"

    def _count(self, step_number: int, step_metrics: dict[str, jax.Array]) -> None:
        """Notes a step that was started."""
        self.done = step_number
        self._pending.append((step_number, step_metrics))
        sharding.hold_back(self._pending)
        self._progress.advance()
        if step_number == self.first + 1:
            jax.block_until_ready(step_metrics)  # Compilation is not training.
            self.history.clock.start()
        else:
            self.history.clock.count(1)

    def _do_what_is_due(self, step_number: int, rate: float) -> None:
        """Scores, logs and saves where that is due after a step."""
        task = self.task
        stop = self.should_stop() and step_number < task.total
        save = task.saves_after(step_number) or stop
        score, log = task.scores_after(step_number), task.logs_after(step_number)
        if not (score or save or log):
            return
        self.flush()
        self.history.clock.pause()
        if score or log:
            self._report(step_number, rate, score=score, log=log)
        if save:
            self.save(step_number)
        if stop:
            self.checkpoints.wait()
            raise self.stopped(step_number)
        self.history.clock.start()

    def flush(self) -> None:
        """Waits for the steps under way, and refuses NaN and infinity.

        Raises:
          NonFinite: the loss or the norm of the gradient became NaN or infinite.
        """
        finished_steps = [
            (step_number, {name: float(value) for name, value in step_metrics.items()})
            for step_number, step_metrics in self._pending
        ]
        self._pending.clear()
        for step_number, values in finished_steps:
            if not all(np.isfinite(list(values.values()))):
                raise NonFinite(
                    f"{self.task.name}: at step {step_number} the loss is "
                    f"{values['loss']} and the gradient's norm {values['grad_norm']}; "
                    f"stopped, with {self._kept()} kept in "
                    f"{self.task.directory}: lower schedule.rate or set "
                    f"optimizer.clip_norm, and give the run another name"
                )
        for _, values in finished_steps:
            self.history.add(values)

    def _report(self, step_number: int, rate: float, *, score: bool, log: bool) -> None:
        """Scores the network, writes a row and shows a line, as asked."""
        task, history = self.task, self.history
        row: dict[str, float] = {}
        if log:
            row |= history.means()
            if task.reading.unreadable == "skip":
                row["unreadable"] = history.skipped()
        epoch = step_number * task.global_batch_size / task.epoch_images
        row |= {"rate": rate, "epoch": epoch}
        speed = history.clock.steps_per_second
        if speed is not None:
            row["images_per_second"] = speed * task.global_batch_size
        if score:
            row |= self._score(step_number)
        if self._writer:
            self._writer.write(step_number, row)
        if log:
            self._progress.log(step_number, row, speed)
            history.clock.lap()

    def _score(self, step_number: int) -> dict[str, float]:
        """Scores weights and average on the validation images, for a row of the log."""
        task = self.task
        val = task.score(task.predictor(self.state.params), task.data.val)
        self.val = {**val, "step": step_number}
        row = {"val_top1": val["top1"], "val_loss": val["loss"]}
        if val["skipped"]:
            row["val_images"] = val["count"]
        if task.recipe.ema:
            average = task.score(task.predictor(self.state.ema), task.data.val)
            row["val_top1_ema"] = average["top1"]
        return row

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
        """What is raised once a step is saved, as the run was asked to stop."""
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
    items = {"params": state.params, "opt": state.opt}
    return items if state.ema is None else {**items, "ema": state.ema}
