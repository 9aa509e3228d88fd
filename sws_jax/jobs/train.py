"""One trainer for every run: ancestor, Aux-Net, descendant, scratch.

Runs differ in their config alone: model, teacher, init, data and schedule.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from sws_jax import sharding, trees
from sws_jax.data import pipeline
from sws_jax.data.base import Unreadable
from sws_jax.errors import Interrupted, Stopped, UserError
from sws_jax.estimate import sizing
from sws_jax.jobs import build, places, recipes, rundir, start, teacher
from sws_jax.jobs import task as tasks
from sws_jax.jobs.rundir import RunDirectory
from sws_jax.jobs.task import Task
from sws_jax.methods import learngenes
from sws_jax.models import networks
from sws_jax.models.description import Description
from sws_jax.models.networks import Network
from sws_jax.runtime import host, processes
from sws_jax.runtime.progress import Progress, say
from sws_jax.specs import AuxViTSpec
from sws_jax.storage import files
from sws_jax.training import metrics, step
from sws_jax.training.checkpoints import Checkpoints


class Preempted(Exception):
    """The run was asked to stop, has saved, and goes on when started again."""


class NonFinite(Stopped):
    """The loss or a gradient is no longer a number."""


@sharding.alone()
def train(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    directory: str | None = None,
    role: str = "single",
    should_stop: Callable[[], bool] = lambda: False,
    starting: Callable[[], None] = lambda: None,
    datasets: build.Datasets | None = None,
) -> dict[str, Any]:
    """Trains one network to the end of its schedule and scores it.

    Args:
      config: fields as in `sws_jax.jobs.recipes.run`.
      workdir: where ``run:NAME`` paths of the config are found.
      directory: of this run; default ``workdir/name``. It holds config, metrics,
        checkpoints, weights (a learngene, if the network is an Aux-Net) and
        ``result.json``. A finished run is not repeated, an unfinished one goes on.
      role: in a job, kept in the result.
      should_stop: asked after every step; true saves and raises `Preempted`.
      starting: called once the run is this process's to do, and can be done.
      datasets: of the job, whose runs share what is opened; default its own.

    Returns:
      The contents of ``result.json``.

    Raises:
      UserError: the config cannot be run, with the reason.
      NonFinite: the loss or a gradient became NaN or infinite.
      Stopped: something else ended the run on its way.
      Preempted: see `should_stop`.
      Busy: another job is at this run.

    With several processes, all of them call this, and the first writes the files.
    """
    directory = directory or os.path.join(workdir, config.name)
    datasets = datasets or build.Datasets()
    config = recipes.completed(config)
    build.check(config)
    build.check_teacher(config)
    config, as_begun = rundir.as_begun(directory, config, workdir)
    for line in as_begun:
        say(line)
    run = RunDirectory(directory, config, workdir)
    if (result := run.result()) is not None:
        glance, take = lambda: datasets.glance(config), datasets.fingerprint
        for line in run.check_finished(glance, take):
            say(line)
        return result
    with run.claimed():
        # It may have been finished while this one asked.
        if (result := run.result()) is not None:
            return result
        _train(run, datasets, role, should_stop, starting)
    # (The files that it started from may be others by now, or gone.)
    return run.finished()


def _train(
    run: RunDirectory, datasets: build.Datasets, role: str, should_stop, starting
) -> None:
    task = tasks.prepare(run, datasets)
    # The config can be run: from here on the directory is this run's.
    starting()
    recorded = start.recorded(task.config, task.recipe.spec)
    training = _Training(run, task, should_stop, run.begin(recorded, task.known_data))
    together = False  # all processes end the run alike
    try:
        training.open()
        training.steps()
        training.finish(role)
        together = True
    except (Preempted, NonFinite):
        together = True
        raise
    except (Unreadable, pipeline.WorkerDied) as error:
        raise training.unread(error) from None
    except files.Unwritable as error:
        raise training.unwritten(error) from None
    finally:
        training.close(together)


class _Training:
    """A run under way: what its steps change, and the files that they leave.

    All processes call its methods alike, but for `unread` and `unwritten`, which answer
    what one of them may have met alone.
    """

    def __init__(
        self, run: RunDirectory, task: Task, should_stop, before: dict[str, Any]
    ):
        self.run, self.task, self.should_stop = run, task, should_stop
        config = task.config
        self.checkpoints = Checkpoints(
            run.path,
            keep_last=config.checkpoint.keep_last,
            keep_steps=list(task.milestones.values()),
        )
        # Where the weights come from: this run's newest whole checkpoint, else what
        # `init` names, else the seed (`start.start` did the last two).
        self.places = step.state_shardings(task.recipe, task.mesh)
        self.state = self._new_state()
        told, saved = list(task.told), None
        if self.checkpoints.steps():
            items, places = _items(self.state), _items(self.places)
            try:
                saved = self.checkpoints.restore_newest(
                    jax.tree.map(step.placed, items, places)
                )
            except UserError:  # which all processes meet
                self.checkpoints.close()
                raise
        if saved is not None:
            counted = sharding.put(np.int32(saved.step), self.places.step)
            self.state = self.state.replace(step=counted, **saved.items)
            told = [f"{config.name}: goes on from step {saved.step} of {task.total}"]
        self.first = self.done = saved.step if saved else 0  # steps behind `state`
        spent = dict(saved.clock) if saved else {}
        told += self._changes(spent, before)
        for line in (*told, *task.remarks):
            say(line)
        # Numbers of the steps since the last line of the log.
        self.window: list[dict[str, float]] = list(spent.pop("window", []))
        self.passed_over = int(spent.pop("unreadable", 0))  # before this start
        self.unreadable = 0  # since, and of this process's rows
        self.clock = metrics.Clock(spent.pop("seconds", 0.0), spent.pop("steps", 0))
        self.unknown = spent  # a newer version's fields, for the next checkpoint
        self.pending: list[tuple[int, dict[str, jax.Array]]] = []  # steps under way
        self.val: dict[str, float] = {}  # the last scores, and their step
        self.writer: metrics.Writer | None = None
        self.progress = Progress(config.name, total=task.total, done=self.first)
        _say_batch(config, task.recipe.spec, task.mesh, task.total)

    def _changes(self, spent: dict[str, Any], before: dict[str, Any]) -> list[str]:
        """Takes note of what the run is computed in, and says what is new.

        Args:
          spent: what a checkpoint kept, from which its own is taken.
          before: the fields that may change, as the directory has them. (What older
            software kept says nothing of them.)
        """
        task, told = self.task, []
        dtype, skips = task.config.compute.dtype, task.reading.unreadable == "skip"
        now = {"dtype": dtype, "from_step": self.first}
        was = {"dtype": before["compute.dtype"], "from_step": 0}
        # Types of numbers, each with the first step that was not computed in it: 0 for
        # the first, which all steps were until the next.
        self.dtypes = list(spent.pop("dtypes", [was] if self.first else []))
        if not self.dtypes or self.dtypes[-1]["dtype"] != dtype:
            if self.dtypes:
                told.append(
                    f"{task.config.name}: computed in {dtype} from here on, and in "
                    f"{self.dtypes[-1]['dtype']} before"
                )
            self.dtypes.append(now)
        # The step from which images that cannot be read are passed over.
        skipped = before["data.unreadable"] == "skip" and self.first
        self.skips_from = spent.pop("unreadable_from", 0 if skipped else None)
        if skips and self.skips_from is None:
            self.skips_from = self.first
            if self.first:
                told.append(
                    f"{task.config.name}: images that cannot be read are passed over "
                    f"from here on, and stopped the run before"
                )
        return told

    def _new_state(self) -> step.TrainState:
        task, places = self.task, self.places
        place = jax.jit(
            lambda params, ema: step.new_state(task.recipe, params, ema),
            out_shardings=places,
        )
        ema = start.ema_start(task.config, task.network.spec)
        return place(
            sharding.put(task.network.params, places.params),
            None if ema is None else sharding.put(ema, places.params),
        )

    def open(self) -> None:
        """The files that lines are added to."""
        if processes.is_first():
            self.writer = metrics.Writer(self.run.path, step=self.first)

    def steps(self) -> None:
        """The loop. Nothing random lives outside (seed, step)."""
        task, config, total = self.task, self.task.config, self.task.total
        if self.first == total:
            return
        batches = pipeline.train_batches(
            task.data.train,
            build.transform(config),
            seed=config.seed,
            global_batch_size=task.size,
            size=task.data.image_shape[:2],
            repeats=config.data.repeats,
            start_step=self.first,
            rows=sharding.own_rows(task.mesh, task.size),
            reading=task.reading,
        )
        run_step = step.program(task.recipe, task.mesh, task.size, task.ans_net)
        _say_sheet(config.name, task)
        counts = sharding.is_first_of_rows(task.mesh)
        everywhere = sharding.replicated(task.mesh)
        key = jax.jit(lambda: jax.random.key(config.seed), out_shardings=everywhere)()
        eval_every = task.durations.every(config.evaluation.every_epochs)
        save_every = task.durations.every(config.checkpoint.every_epochs)
        # The best is chosen among checkpoints, and the last step may be it.
        keep_last = config.checkpoint.final or config.evaluation.select == "best"
        for number in range(self.first + 1, total + 1):
            rate = task.schedule(number - 1)
            rows = next(batches)
            skipped = int(rows.pop("skipped"))
            self.unreadable += skipped if counts else 0
            raw = sharding.to_global(task.mesh, task.size, rows)
            self.state, found = run_step(
                self.state, key, raw, np.float32(rate), task.ans_net
            )
            self.done = number
            self.pending.append((number, found))
            sharding.hold_back(self.pending)
            self.progress.advance()
            if number == self.first + 1:
                jax.block_until_ready(found)  # compilation is not training
                self.clock.start()
            else:
                self.clock.count(1)
            last = number == total
            stop = self.should_stop() and not last
            look = number % eval_every == 0 or last
            keep = number % save_every == 0 or number in task.milestones.values()
            keep = keep or (last and keep_last)
            look = look or keep  # the best checkpoint is chosen among known ones
            keep = keep or stop
            shown = number % config.log_steps == 0 or last
            if not (look or keep or shown):
                continue

            self._flush()
            self.clock.pause()
            if look or shown:
                self._report(number, rate, look=look, shown=shown)
            if keep:
                self._save(number)
            if stop:
                self.checkpoints.wait()
                raise self._stopped(number)
            self.clock.start()

    def _flush(self) -> None:
        """Waits for the steps under way and refuses numbers that are none."""
        rows = [(n, {k: float(v) for k, v in m.items()}) for n, m in self.pending]
        self.pending.clear()
        for number, row in rows:
            if not all(np.isfinite(list(row.values()))):
                self.checkpoints.wait()
                good = self.checkpoints.steps()
                kept = f"the checkpoint of step {good[-1]}" if good else "nothing"
                raise NonFinite(
                    f"{self.task.config.name}: at step {number} the loss is "
                    f"{row['loss']} and the gradient's norm {row['grad_norm']}; "
                    f"stopped, with {kept} kept in {self.run.path}: lower "
                    f"schedule.rate or set optimizer.clip_norm, and give the run "
                    f"another name"
                )
        self.window.extend(row for _, row in rows)

    def _report(self, number: int, rate: float, *, look: bool, shown: bool) -> None:
        """Scores the network, writes a row and shows a line, as asked."""
        task = self.task
        row: dict[str, float] = {}
        if shown:  # means over the steps since the last line
            for name in ("loss", "grad_norm"):
                row[name] = float(np.mean([past[name] for past in self.window]))
            self.window.clear()
            if task.reading.unreadable == "skip":
                row["unreadable"] = self._skipped()
        row |= {"rate": rate, "epoch": number * task.size / task.durations.images}
        speed = self.clock.steps_per_second
        if speed is not None:
            row["images_per_second"] = speed * task.size
        if look:
            scored = task.score(task.predictor(self.state.params), task.data.val)
            self.val = {**scored, "step": number}
            row |= {"val_top1": scored["top1"], "val_loss": scored["loss"]}
            if scored["skipped"]:
                row["val_images"] = scored["count"]
            if task.recipe.ema:
                average = task.score(task.predictor(self.state.ema), task.data.val)
                row["val_top1_ema"] = average["top1"]
        if self.writer:
            self.writer.write(number, row)
        if shown:
            self.progress.log(number, row, speed)
            self.clock.lap()

    def _skipped(self) -> int:
        """Images passed over until now, by all processes."""
        return self.passed_over + sum(processes.everyone(self.unreadable))

    def _save(self, at: int) -> None:
        val = self.val
        if self.writer:
            self.writer.send()
        spent = {
            "dtypes": self.dtypes,
            "unreadable": self._skipped(),
            "unreadable_from": self.skips_from,
            "window": list(self.window),
        }
        self.checkpoints.save(
            at,
            _items(self.state),
            clock={**self.unknown, **self.clock.state(), **spent},
            description=_finished(self.task.about, at, val),
            val_top1=val["top1"] if val.get("step") == at else -1.0,
        )

    def _stopped(self, at: int) -> Preempted:
        return Preempted(
            f"{self.task.config.name}: stopped and saved at step {at} of "
            f"{self.task.total}; the same command goes on"
        )

    def _stop_between_scores(self) -> None:
        """The test images may take long; the weights are there already."""
        total = self.task.total
        if not self.should_stop():
            return
        if total and total not in self.checkpoints.steps():
            self._save(total)
            self.checkpoints.wait()
        raise self._stopped(total)

    def finish(self, role: str) -> None:
        """The end: the weights that are kept, and the test images, once."""
        task, config, total = self.task, self.task.config, self.task.total
        self.clock.pause()
        self.checkpoints.wait()
        chosen, params = total, self.state.params
        best = self.checkpoints.best_step()
        if config.evaluation.select == "best" and best is not None and best != total:
            chosen, params = best, self._restored(best)
        val = self.val
        if val.get("step") != chosen:
            val = task.score(task.predictor(params), task.data.val)
        about = _finished(task.about, chosen, val)
        scores = []
        for epochs, at in task.milestones.items():
            self._stop_between_scores()
            weights = self._restored(at) if at else self._initial()
            scored = task.score(task.predictor(weights), task.data.test)
            scores.append({"epochs": epochs, "step": at, **scored})
        if total:  # without a step, the milestone at 0 was the end
            self._stop_between_scores()
            scored = task.score(task.predictor(params), task.data.test)
            epochs = config.schedule.total_epochs
            scores.append({"epochs": epochs, "step": chosen, **scored})
        spec = task.network.spec
        network = Network(spec, trees.to_host(params), about)
        result = {
            "name": config.name,
            "role": role,
            "network": spec.name,
            "depth": spec.depth,
            "stages": list(about.stages),
            "plan": list(about.plan),
            "method": about.method,
            "profile": about.profile,
            "dataset": task.data.name,
            "seed": config.seed,
            "params": trees.count(params),
            "stored_params": task.stored,
            "epochs": config.schedule.total_epochs,
            "steps": total,
            "layer_epochs": spec.depth * config.schedule.total_epochs,
            "val_top1": val["top1"],
            "test": scores,
            "dtypes": self.dtypes,
            "unreadable": self._skipped(),
            "unreadable_from": self.skips_from,
            "seconds": round(self.clock.seconds, 2),
            "hardware": host.hardware(),
            "versions": dict(about.versions),
        }

        def write() -> None:
            _save_weights(self.run.path, network)
            self.run.finish(result)

        processes.first_does(write)

    def _initial(self) -> trees.Tree:
        return sharding.put(self.task.network.params, self.places.params)

    def _restored(self, at: int) -> trees.Tree:
        spec = self.checkpoints.describe(at).spec
        params = {"params": networks.abstract_params(spec)}
        like = jax.tree.map(step.placed, params, {"params": self.places.params})
        return self.checkpoints.restore_or_redo(at, like).items["params"]

    def unread(self, error: UserError) -> Exception:
        """What an image that cannot be read, or a lost reader, ends the run with."""
        # (With several processes the others are in the next step, and cannot save.)
        if jax.process_count() == 1:
            self._flush()
            self.checkpoints.wait()
            if self.done > self.first and self.done not in self.checkpoints.steps():
                try:
                    self._save(self.done)  # for another try
                    self.checkpoints.wait()
                except files.Unwritable as failed:
                    return self.unwritten(failed)
            if self.should_stop():  # whoever asked this process has asked its workers
                return self._stopped(self.done)
        remedy = ""
        if isinstance(error, Unreadable):
            remedy = (
                ": mend it, or pass over such images with data.unreadable=skip (in "
                "another --workdir where other runs have finished without)"
            )
        return self._cut_short(f"{error}{remedy}")

    def unwritten(self, error: files.Unwritable) -> Stopped:
        """What a file that cannot be written ends the run with."""
        # What was being saved may yet be; no failure is said twice.
        with contextlib.suppress(files.Unwritable):
            if jax.process_count() == 1:
                self.checkpoints.wait()
        if isinstance(error, Interrupted):
            return self._cut_short(str(error), Interrupted)
        return self._cut_short(f"{error}: make room, or see to the disk")

    def _cut_short(self, text: str, kind: type[Stopped] = Stopped) -> Stopped:
        where = "from the last checkpoint"
        if jax.process_count() == 1:
            good = max(self.checkpoints.steps(), default=0)
            where = f"at step {good} of {self.task.total}"
        return kind(f"{text}; the same command goes on {where}")

    def close(self, together: bool) -> None:
        """Closes the files.

        Args:
          together: all processes do so; what is being saved waits for them.
        """
        self.progress.close()
        if self.writer:
            self.writer.close()
        if together or jax.process_count() == 1:
            self.checkpoints.close()


def _items(state: step.TrainState) -> dict[str, trees.Tree]:
    items = {"params": state.params, "opt": state.opt}
    return items if state.ema is None else {**items, "ema": state.ema}


def _finished(about: Description, at: int, val: dict[str, float]) -> Description:
    return about.replace(step=at, accuracy=round(val.get("top1", -1.0), 6))


def _save_weights(directory: str, network: Network) -> None:
    if isinstance(network.spec, AuxViTSpec):
        gene = learngenes.extract(network)
        learngenes.save_learngene(os.path.join(directory, places.LEARNGENE), gene)
    else:
        networks.save_network(os.path.join(directory, teacher.WEIGHTS), network)


def _say_batch(config, spec, mesh, total: int) -> None:
    hosts, devices = jax.process_count(), sharding.shard_count(mesh)
    size = config.global_batch_size
    say(
        f"{config.name}: {spec.name}, {total} steps of {size} images "
        f"({size // hosts} per host, {size // devices} per device)"
    )
    for remark in build.mesh_remarks(config, spec, mesh):
        say(f"{config.name}: {remark}")


def _say_sheet(name: str, task: Task) -> None:
    sheet = sizing.sheet(task.recipe, task.mesh, task.size, task.ans_net)
    say(f"{name}: per device: {sheet}")
    limit = sizing.memory_limit(task.mesh.local_devices[0])
    if found := sizing.warning(sheet, limit):
        say(f"{name}: warning: {found}")
