"""One trainer for every run: ancestor, Aux-Net, descendant, scratch.

Runs differ in their config alone: model, teacher, init, data and schedule.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import platform
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from sws_jax import (
    evaluation,
    files,
    learngenes,
    metrics,
    networks,
    processes,
    setup,
    sharding,
    sizing,
    step,
    teacher,
    trees,
)
from sws_jax.checkpoints import Checkpoints
from sws_jax.data import pipeline
from sws_jax.data.base import Unreadable
from sws_jax.data.transforms import Fit
from sws_jax.description import Description
from sws_jax.errors import Stopped, UserError
from sws_jax.networks import Network, Predictor
from sws_jax.progress import Progress, say
from sws_jax.rundir import RunDirectory
from sws_jax.specs import AuxViTSpec


class Preempted(Exception):
    """The run was asked to stop, has saved, and goes on when started again."""


class NonFinite(Stopped):
    """The loss or a gradient is no longer a number."""


def train(
    config: ml_collections.ConfigDict,
    workdir: str,
    *,
    directory: str | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    starting: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Trains one network to the end of its schedule and scores it.

    Args:
      config: fields as in `sws_jax.presets.run`.
      workdir: where ``run:NAME`` paths of the config are found.
      directory: of this run; default ``workdir/name``. It holds config, metrics,
        checkpoints, weights (a learngene, if the network is an Aux-Net) and
        ``result.json``. A finished run is not repeated, an unfinished one goes on.
      should_stop: asked after every step; true saves and raises `Preempted`.
      starting: called once the run is this process's to do, and can be done.

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
    setup.check(config)
    run = RunDirectory(directory, config, workdir)
    if (result := run.result()) is None:
        with run.claimed():
            # It may have been finished while this one asked.
            if run.result() is None:
                _train(run, should_stop, starting)
        result = run.result()
    assert result is not None
    return result


def _train(run: RunDirectory, should_stop, starting) -> None:
    config, workdir, directory = run.config, run.workdir, run.path

    # Data, and how long the run is in steps.
    mesh = sharding.make_mesh(sizes=config.mesh)
    size = config.global_batch_size
    setup.check_batches(config, mesh)
    data = setup.dataset(config)
    known_data = run.check_data(data)
    durations = setup.durations(config, data)
    schedule = setup.schedule(config, durations)
    total = schedule.total_steps
    if config.schedule.total_epochs and not total:
        raise UserError(
            f"schedule.total_epochs {config.schedule.total_epochs} is less than one "
            f"step of {size} images"
        )
    milestones = {epochs: durations.steps(epochs) for epochs in _milestones(config)}

    # The network before its first step, the teacher, and what a step does.
    told: list[str] = []
    network = setup.start(config, data, workdir, told.append)
    recipe = setup.recipe(config, network.spec, data.normalization)
    ans_net = setup.load_teacher(config, data, workdir)
    assert network.description is not None
    about = network.description

    image_size = data.image_shape[:2]
    fit = Fit(image_size, config.data.eval_crop)
    reading = setup.reading(config)

    def score(predictor: Predictor, split) -> dict[str, float]:
        return evaluation.evaluate(
            predictor,
            split,
            fit,
            normalization=data.normalization,
            global_batch_size=config.evaluation.batch_size,
            mesh=mesh,
            reading=reading,
        )

    def predictor(params) -> Predictor:
        return Predictor(
            Network(network.spec, params), data.normalization, recipe.compute
        )

    if ans_net is not None:
        known = ans_net.network.description
        assert known is not None
        its_places = step.network_shardings(ans_net.network.spec, mesh)
        params = sharding.put(ans_net.network.params, its_places)
        ans_net = dataclasses.replace(
            ans_net, network=Network(ans_net.network.spec, params)
        )
        scored = score(ans_net, data.val)
        about = about.replace(teacher=known.net.name)
        told.append(
            f"{config.name}: teacher {known.net.name}, validation top-1 "
            f"{scored['top1']:.1%}"
        )
        teacher.check_scores(scored, data, config.teacher.min_accuracy)

    # The config can be run: from here on the directory is this run's.
    starting()
    dtype_before = run.begin(known_data)

    # Where the weights come from: this run's newest whole checkpoint, else what
    # `init` names, else the seed (setup.start did the last two).
    places = step.state_shardings(recipe, mesh)
    place = jax.jit(
        lambda params, ema: step.new_state(recipe, params, ema), out_shardings=places
    )
    ema = setup.ema_start(config, network.spec)
    state = place(
        sharding.put(network.params, places.params),
        None if ema is None else sharding.put(ema, places.params),
    )
    saved = None
    checkpoints = Checkpoints(
        directory,
        keep_last=config.checkpoint.keep_last,
        keep_steps=list(milestones.values()),
    )
    if checkpoints.steps():
        saved = checkpoints.restore_newest(_abstract(_items(state), _items(places)))
    if saved is not None:
        counted = sharding.put(np.int32(saved.step), places.step)
        state = state.replace(step=counted, **saved.items)
        told = [f"{config.name}: goes on from step {saved.step} of {total}"]
        if dtype_before != config.compute.dtype:
            told[0] += f", in {config.compute.dtype} where it was {dtype_before}"
    for line in told:
        say(line)
    first = saved.step if saved else 0
    spent = dict(saved.clock) if saved else {}
    window = list(spent.pop("window", []))  # numbers of the steps since the last line
    passed_over = int(spent.pop("unreadable", 0))  # before this start
    unreadable = 0  # since, and of this process's rows
    clock = metrics.Clock(**spent)
    _say_batch(config, recipe.spec, mesh, total)

    # The loop. Nothing random lives outside (seed, step).
    batches = pipeline.train_batches(
        data.train,
        setup.transform(config),
        seed=config.seed,
        global_batch_size=size,
        size=image_size,
        repeats=config.data.repeats,
        start_step=first,
        rows=sharding.own_rows(mesh, size),
        reading=reading,
    )
    if first < total:
        run_step = step.program(recipe, mesh, size, ans_net)
        _say_sheet(config.name, recipe, mesh, size, ans_net)
    everywhere = sharding.replicated(mesh)
    key = jax.jit(lambda: jax.random.key(config.seed), out_shardings=everywhere)()
    eval_every = durations.every(config.evaluation.every_epochs)
    save_every = durations.every(config.checkpoint.every_epochs)
    # The best is chosen among checkpoints, and the last step may be it.
    keep_last = config.checkpoint.final or config.evaluation.select == "best"
    writer = None
    progress = Progress(config.name, total=total, done=first)
    # Devices that share a host's threads can starve each other's collectives when
    # steps pile up; an accelerator is kept busy by a few.
    in_flight = 0 if jax.default_backend() == "cpu" else 8
    pending: list[tuple[int, dict[str, jax.Array]]] = []
    val: dict[str, float] = {}
    done = first  # steps that `state` has seen
    together = False  # all processes end the run alike

    def flush() -> None:
        """Waits for the steps under way and refuses numbers that are none."""
        rows = [(n, {k: float(v) for k, v in m.items()}) for n, m in pending]
        pending.clear()
        for number, row in rows:
            if not all(np.isfinite(list(row.values()))):
                checkpoints.wait()
                good = checkpoints.steps()
                raise NonFinite(
                    f"{config.name}: at step {number} the loss is {row['loss']} and "
                    f"the gradient's norm {row['grad_norm']}; stopped, with "
                    + (f"the checkpoint of step {good[-1]}" if good else "nothing")
                    + f" kept in {directory}: lower schedule.rate or set "
                    f"optimizer.clip_norm, and give the run another name"
                )
        window.extend(row for _, row in rows)

    def skipped() -> int:
        """Images passed over until now, by all processes."""
        return passed_over + sum(processes.everyone(unreadable))

    def save(at: int) -> None:
        checkpoints.save(
            at,
            _items(state),
            clock={**clock.state(), "unreadable": skipped(), "window": list(window)},
            description=_finish(about, at, val),
            val_top1=val["top1"] if val.get("step") == at else -1.0,
        )

    def stopped(at: int) -> Preempted:
        return Preempted(
            f"{config.name}: stopped and saved at step {at} of {total}; the same "
            f"command goes on"
        )

    def stop_between_scores() -> None:
        """The test images may take long; the weights are there already."""
        if not should_stop():
            return
        if total and total not in checkpoints.steps():
            save(total)
            checkpoints.wait()
        raise stopped(total)

    try:
        if processes.is_first():
            writer = metrics.Writer(directory, step=first)
        for number in range(first + 1, total + 1):
            rate = schedule(number - 1)
            rows = next(batches)
            unreadable += int(rows.pop("skipped"))
            raw = sharding.to_global(mesh, size, rows)
            state, numbers = run_step(state, key, raw, np.float32(rate), ans_net)
            done = number
            pending.append((number, numbers))
            if len(pending) > in_flight:
                jax.block_until_ready(pending[-1 - in_flight][1])
            progress.advance()
            if number == first + 1:
                jax.block_until_ready(numbers)  # compilation is not training
                clock.start()
            else:
                clock.count(1)
            last = number == total
            stop = should_stop() and not last
            look = number % eval_every == 0 or last
            keep = number % save_every == 0 or number in milestones.values()
            keep = keep or (last and keep_last)
            look = look or keep  # the best checkpoint is chosen among known ones
            keep = keep or stop
            shown = number % config.log_steps == 0 or last
            if not (look or keep or shown):
                continue

            flush()
            clock.pause()
            row: dict[str, float] = {}
            if shown:  # means over the steps since the last line
                for name in ("loss", "grad_norm"):
                    row[name] = float(np.mean([past[name] for past in window]))
                window.clear()
                if reading.unreadable == "skip":
                    row["unreadable"] = skipped()
            row |= {"rate": rate, "epoch": number * size / durations.images}
            row["images_per_second"] = clock.steps_per_second * size
            if look:
                val = {**score(predictor(state.params), data.val), "step": number}
                row |= {"val_top1": val["top1"], "val_loss": val["loss"]}
                if recipe.ema:
                    average = score(predictor(state.ema), data.val)
                    row["val_top1_ema"] = average["top1"]
            if writer and (shown or look):
                writer.write(number, row)
            if shown:
                progress.log(number, row, clock.steps_per_second)
            if keep:
                save(number)
            if stop:
                checkpoints.wait()
                raise stopped(number)
            clock.start()

        # The end: the weights that are kept, and the test images, once.
        clock.pause()
        checkpoints.wait()
        chosen = total
        params = state.params
        best = checkpoints.best_step()
        if config.evaluation.select == "best" and best is not None and best != total:
            chosen = best
            params = _restored(checkpoints, best, places)
        if val.get("step") != chosen:
            val = score(predictor(params), data.val)
        about = _finish(about, chosen, val)
        scores = []
        for epochs, at in milestones.items():
            stop_between_scores()
            weights = (
                sharding.put(network.params, places.params)
                if at == 0
                else _restored(checkpoints, at, places)
            )
            scores.append(_row(epochs, at, score(predictor(weights), data.test)))
        if total:  # without a step, the milestone at 0 was the end
            stop_between_scores()
            final = score(predictor(params), data.test)
            scores.append(_row(config.schedule.total_epochs, chosen, final))
        whole = trees.to_host(params)
        result = {
            "name": config.name,
            "network": network.spec.name,
            "depth": network.spec.depth,
            "plan": list(about.plan),
            "method": about.method,
            "profile": about.profile,
            "dataset": data.name,
            "seed": config.seed,
            "params": trees.count(params),
            "stored_params": _stored(config, workdir, params),
            "epochs": config.schedule.total_epochs,
            "steps": total,
            "layer_epochs": network.spec.depth * config.schedule.total_epochs,
            "val_top1": val["top1"],
            "test": scores,
            "unreadable": skipped(),
            "seconds": round(clock.seconds, 2),
            "hardware": hardware(),
            "versions": dict(about.versions),
        }

        def finish() -> None:
            _save_weights(directory, Network(network.spec, whole, about))
            run.finish(result)

        processes.first_does(finish)
        together = True
    except (Unreadable, pipeline.WorkerDied) as error:
        # (With several processes the others are in the next step, and cannot save.)
        if jax.process_count() == 1:
            flush()
            checkpoints.wait()
            if done > first and done not in checkpoints.steps():
                save(done)  # for another try
                checkpoints.wait()
            if should_stop():  # whoever asked this process has asked its workers
                raise stopped(done) from None
        remedy = ""
        if isinstance(error, Unreadable):
            remedy = ": mend it, or pass over such images with data.unreadable=skip"
        raise _cut_short(f"{error}{remedy}", checkpoints, total) from None
    except files.Unwritable as error:
        # What was being saved may yet be; no failure is said twice.
        with contextlib.suppress(files.Unwritable):
            if jax.process_count() == 1:
                checkpoints.wait()
        text = f"{error}: make room, or see to the disk"
        raise _cut_short(text, checkpoints, total) from None
    except (Preempted, NonFinite):
        together = True
        raise
    finally:
        progress.close()
        if writer:
            writer.close()
        # (What is being saved waits for all processes, and some may be elsewhere.)
        if together or jax.process_count() == 1:
            checkpoints.close()


def hardware() -> str:
    """What computed a result, for tables."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return f"{os.cpu_count()} CPU cores ({platform.machine()})"
    return f"{jax.device_count()} x {device.device_kind}"


def _milestones(config) -> list[float]:
    """Epochs to score apart from the end, in order; the end itself only for 0."""
    total = config.schedule.total_epochs
    wanted = sorted(set(config.evaluation.milestones))
    if total == 0:
        return [0.0]
    return [float(e) for e in wanted if 0 <= e < total]


def _cut_short(text: str, checkpoints: Checkpoints, total: int) -> Stopped:
    """An end that one process may have met alone: it asks nothing of the others."""
    where = "from the last checkpoint"
    if jax.process_count() == 1:
        where = f"at step {max(checkpoints.steps(), default=0)} of {total}"
    return Stopped(f"{text}; the same command goes on {where}")


def _items(state: step.TrainState) -> dict[str, trees.Tree]:
    items = {"params": state.params, "opt": state.opt}
    return items if state.ema is None else {**items, "ema": state.ema}


def _abstract(items: dict, places: dict) -> dict:
    return jax.tree.map(
        lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
        items,
        places,
    )


def _restored(checkpoints: Checkpoints, at: int, places) -> trees.Tree:
    spec = checkpoints.describe(at).spec
    like = _abstract(
        {"params": networks.abstract_params(spec)}, {"params": places.params}
    )
    return checkpoints.restore_or_redo(at, like).items["params"]


def _finish(about: Description, at: int, val: dict[str, float]) -> Description:
    return about.replace(step=at, accuracy=round(val.get("top1", -1.0), 6))


def _row(epochs: float, at: int, scores: dict[str, float]) -> dict[str, float]:
    return {"epochs": epochs, "step": at, **scores}


def _save_weights(directory: str, network: Network) -> None:
    if isinstance(network.spec, AuxViTSpec):
        gene = learngenes.extract(network)
        learngenes.save_learngene(os.path.join(directory, setup.LEARNGENE), gene)
    else:
        networks.save_network(os.path.join(directory, teacher.WEIGHTS), network)


def _stored(config, workdir: str, params: trees.Tree) -> int:
    """Parameters that had to be stored to start this run; its own, from scratch."""
    if not config.init.learngene:
        return trees.count(params)
    path = setup.learngene_file(config, workdir)
    return learngenes.num_stored(learngenes.load_learngene(path))


def _say_batch(config, spec, mesh, total: int) -> None:
    hosts, devices = jax.process_count(), sharding.shard_count(mesh)
    size = config.global_batch_size
    say(
        f"{config.name}: {spec.name}, {total} steps of {size} images "
        f"({size // hosts} per host, {size // devices} per device)"
    )
    for remark in setup.mesh_remarks(config, spec, mesh):
        say(f"{config.name}: {remark}")


def _say_sheet(name: str, recipe, mesh, size: int, ans_net) -> None:
    sheet = sizing.sheet(recipe, mesh, size, ans_net)
    say(f"{name}: per device: {sheet}")
    limit = sizing.memory_limit(mesh.local_devices[0])
    if found := sizing.warning(sheet, limit):
        say(f"{name}: warning: {found}")
