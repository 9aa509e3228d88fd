"""Small faults that a real slip would make, each with the tests that must notice it.

Run by hand, from the root of a checkout, after tests were rewritten or made cheaper::

    python tests/support/mutations.py
    python tests/support/mutations.py --only train.py average

`--only` takes those whose name or file holds one of the words. Each mutation is applied
to a temporary copy of the checkout, never to the checkout itself, and the tests that
are named beside it run there. That takes 10 to 30 seconds, and a quarter of an hour for
all, on two quiet cores.

``killed`` means that a test failed, ``lives`` that all of them passed, and ``no longer
applies`` that the package does not have the text exactly once: the mutation is then
rewritten. The tests must pass without any mutation, which is tried first. The exit code
is 0 where all were killed. `tests/test_mutations.py` checks that the table fits the
code, and applies none of it.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent.parent
# What the tests of the table need of a checkout.
COPIED = ("configs", "sws_jax", "tests", "pyproject.toml")
_SECONDS = 900  # for the tests of one mutation, which may have made an endless loop


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One slip.

    Attributes:
      name: unlike all others.
      old, new: text that the whole package has once, and what replaces it.
      breaks: the promise that no longer holds.
      tests: that must notice, each ``MODULE::TEST`` of `tests`.
    """

    name: str
    old: str
    new: str
    breaks: str
    tests: tuple[str, ...]

    def file(self, root: pathlib.Path) -> pathlib.Path | None:
        """The file with the text; None where the mutation no longer applies."""
        counts = {
            path: text.count(self.old)
            for path in sorted((root / "sws_jax").rglob("*.py"))
            if self.old in (text := path.read_text())
        }
        return next(iter(counts)) if list(counts.values()) == [1] else None

    def mutated(self, root: pathlib.Path) -> str | None:
        """The text of that file with the slip; None where it no longer applies."""
        path = self.file(root)
        return path and path.read_text().replace(self.old, self.new)

    @property
    def ids(self) -> list[str]:
        """Of its tests, as pytest takes them."""
        return [f"tests/{test.replace('::', '.py::', 1)}" for test in self.tests]


MUTATIONS = (
    # Training
    Mutation(
        "rate one step late",
        "rate = task.schedule(step_number - 1)",
        "rate = task.schedule(step_number)",
        "update k, counted from 0, has the rate of step k",
        ("test_train::test_fields_reach_the_steps_and_the_scores",),
    ),
    Mutation(
        "key of no seed",
        "jax.random.key(seed), out_shardings",
        "jax.random.key(0), out_shardings",
        "what is random in a step follows the run's seed",
        ("test_train::test_fields_reach_the_steps_and_the_scores",),
    ),
    Mutation(
        "order of no seed",
        ("            seed=task.seed,\n            global_batch_size"),
        ("            seed=0,\n            global_batch_size"),
        "the order of images follows the run's seed",
        ("test_train::test_fields_reach_the_steps_and_the_scores",),
    ),
    Mutation(
        "stale score kept",
        'val["top1"] if val.get("step") == step_number else -1.0',
        'val.get("top1", -1.0)',
        "a checkpoint is kept as the best by a score of its own",
        ("test_train::test_a_checkpoint_is_the_best_by_its_own_score",),
    ),
    Mutation(
        "best without a last",
        "save_last=config.checkpoint.final or best",
        "save_last=config.checkpoint.final",
        "the last weights may be the best, and are kept",
        ("test_train::test_a_checkpoint_is_the_best_by_its_own_score",),
    ),
    Mutation(
        "average not scored",
        "task.predictor(self.state.ema), task.data.val",
        "task.predictor(self.state.params), task.data.val",
        "val_top1_ema is the score of the moving average",
        ("test_train::test_a_line_is_of_all_steps_since_the_last_one",),
    ),
    Mutation(
        "average not restored",
        "self.state.replace(step=counted, **saved.items)",
        (
            "self.state.replace(\n"
            '                step=counted, params=saved.items["params"], '
            'opt=saved.items["opt"]\n'
            "            )"
        ),
        "a resumed run has the moving average that was saved",
        ("test_train::test_a_line_is_of_all_steps_since_the_last_one",),
    ),
    Mutation(
        "window not restored",
        'fields.pop("window", [])',
        'fields.pop("windows", [])',
        "a line of the log is of all steps since the last, restarts or not",
        ("test_train::test_a_line_is_of_all_steps_since_the_last_one",),
    ),
    Mutation(
        "last row of the window",
        "[past[name] for past in self._window if name in past]",
        "[self._window[-1].get(name)]",
        "a line of the log shows means",
        ("test_train::test_a_line_is_of_all_steps_since_the_last_one",),
    ),
    Mutation(
        "half not finite",
        "if not all(np.isfinite(",
        "if not any(np.isfinite(",
        "a gradient that is no number stops a run, whatever its loss",
        ("test_train::test_one_number_that_is_none_is_enough",),
    ),
    Mutation(
        "crop of evaluation ignored",
        "Fit(data.image_shape[:2], config.data.eval_crop)",
        "Fit(data.image_shape[:2])",
        "data.eval_crop",
        ("test_train::test_fields_reach_the_steps_and_the_scores",),
    ),
    Mutation(
        "milestone at the end",
        "if 0 <= e < total)",
        "if 0 <= e <= total)",
        "the end of a run is scored once",
        ("test_train::test_the_end_is_scored_once",),
    ),
    Mutation(
        "teacher not named",
        "        about=task.about.replace(teacher=name),\n",
        "",
        "a file says which teacher its network had",
        ("test_train::test_a_teacher_near_chance_stops_the_run",),
    ),
    Mutation(
        "one key for two",
        "_masks(drop_key, spec",
        "_masks(augment_key, spec",
        "stochastic depth does not follow from the augmentation",
        (("test_step::test_augmentation_and_stochastic_depth_have_keys_of_their_own"),),
    ),
    Mutation(
        "ties count as hits",
        "rank = above + ties_before.sum(axis=1)",
        "rank = above",
        "a network that prefers no class is at chance",
        ("test_evaluation::test_a_network_that_prefers_no_class_is_at_chance",),
    ),
    Mutation(
        "warm-up one step longer",
        "if step < self.warmup_steps:",
        "if step <= self.warmup_steps:",
        "the warm-up is as long as asked for",
        ("test_optim::test_cosine_goes_step_by_step",),
    ),
    Mutation(
        "temperature once",
        "* tau**2",
        "* tau",
        "the soft loss is tau^2 KL",
        ("test_losses::test_soft_distillation",),
    ),
    Mutation(
        "lap of a running clock",
        "self._lap = self._total(), self.steps",
        "self._lap = self.seconds, self.steps",
        "the speed is that of the steps since the last line",
        ("test_progress::test_speed_is_that_of_the_last_window",),
    ),
    Mutation(
        "head of seed 0",
        ("        seed=config.seed,\n    )\n    assert"),
        ("    )\n    assert"),
        "a fresh head follows the run's seed",
        ("test_start::test_a_fresh_head_is_of_the_runs_seed",),
    ),
    Mutation(
        "positions of one profile",
        "        antialias=profiles.find(config.profile).antialias,\n",
        "",
        "the official profile resizes as the released code does",
        ("test_start::test_a_network_goes_on_at_another_size",),
    ),
    Mutation(
        "a field too harmless",
        "HARMLESS = fields.resuming(fields.HARMLESS)",
        'HARMLESS = (*fields.resuming(fields.HARMLESS), "evaluation.select")',
        "a directory goes on with the config that it was begun with",
        ("test_train::test_every_other_field_makes_another_run",),
    ),
    Mutation(
        "data known anew",
        "now[position] or before.get(position)",
        "now[position]",
        "a run knows its data again, if it can be read or not",
        ("test_data::test_a_run_remembers_what_it_has_seen",),
    ),
    Mutation(
        "one seed for all scratch",
        "scratch.seed = config.seed + number",
        "scratch.seed = config.seed",
        "what is compared shares a seed",
        ("test_configs::test_seeds_are_those_of_a_comparison",),
    ),
    Mutation(
        "a short long run",
        'if f"{long:g}" == f"{short:g}":',
        "if long <= short:",
        "a budget that differs is a row of its own",
        ("test_configs::test_seeds_are_those_of_a_comparison",),
    ),
    Mutation(
        "the end is late",
        "if e > last]",
        "if e >= last]",
        "nothing is said of what is as it seems",
        ("test_remarks::test_nothing_is_said_of_what_is_as_it_seems",),
    ),
    Mutation(
        "optimiser of defaults",
        "        optimizer=Optimizer(**config.optimizer),\n",
        "",
        "optimizer.weight_decay, and what else is set of it",
        ("test_configs::test_fields_reach_the_objects_that_are_run",),
    ),
    Mutation(
        "accumulation ignored",
        "        accum_steps=config.accum_steps,\n",
        "",
        "a batch is computed in as many parts as asked for",
        ("test_configs::test_fields_reach_the_objects_that_are_run",),
    ),
    # Data
    Mutation(
        "augmentation of no seed",
        "seed_words = np.random.SeedSequence(seed % 2**64)",
        "seed_words = np.random.SeedSequence(0)",
        "augmentation follows the run's seed",
        ("test_pipeline::test_another_seed_augments_otherwise",),
    ),
    Mutation(
        "mirrored before it is shifted",
        "x = left - padding + jnp.where(flipped, width - 1 - x, x)",
        "x = jnp.where(flipped, width - 1 - x, x - padding + left)",
        "batches that are cut out on a device are those of the host",
        ("test_resident::test_the_batches_are_those_of_the_host",),
    ),
    Mutation(
        "waits of earlier windows",
        "self._waited = 0.0",
        "self._waited = getattr(self, '_waited', 0.0)",
        "the wait for input is that of the last window",
        ("test_progress::test_the_wait_for_input_is_a_share_of_the_window",),
    ),
    Mutation(
        "squares along a diagonal",
        "span(keys[4], wide, width)",
        "span(keys[3], wide, width)",
        "erased rectangles are anywhere",
        ("test_augment::test_erased_squares_are_anywhere",),
    ),
    Mutation(
        "mixed as erased",
        ("                mix_key,\n                x,"),
        ("                erase_key,\n                x,"),
        "mixing does not follow from erasing",
        (("test_augment::test_what_is_mixed_does_not_follow_from_what_is_erased"),),
    ),
    Mutation(
        "held out, rounded down",
        "count = round(len(train) * fraction)",
        "count = int(len(train) * fraction)",
        "data.val_fraction is rounded to the nearest image",
        ("test_data::test_holding_out",),
    ),
    Mutation(
        "files as the disk has them",
        "map(os.fsencode, sorted(image_names))",
        "map(os.fsencode, image_names)",
        "images stand in the order of their names",
        ("test_folder::test_images_stand_in_the_order_of_their_names",),
    ),
    Mutation(
        "labels not known",
        'f"{label} {image.shape}"',
        'f"{image.shape}"',
        "a set with other labels is another",
        ("test_data::test_a_set_is_known_again",),
    ),
    Mutation(
        "unreadable is other",
        "any(then and today and then != today",
        "any(then != today",
        "an image that cannot be read makes no other set",
        ("test_data::test_a_set_is_known_again",),
    ),
    # Learngenes
    Mutation(
        "stages by name",
        '[params[f"stage_{s}"] for s in range(len(spec.stages))]',
        "[params[name] for name in sorted(params) if _is_stage(name)]",
        "gene s is stage s",
        ("test_learngenes::test_the_tenth_stage_follows_the_ninth",),
    ),
    Mutation(
        "a stage too empty",
        "    while 0 in counts:\n",
        "    while 0 in counts[1:]:\n",
        "no stage is left out of a network that has room for all",
        ("test_learngenes::test_rule_of_depths",),
    ),
    Mutation(
        "as many patches",
        "if old.grid == new.grid:",
        "if old.tokens == new.tokens:",
        "position embeddings follow the shape of the grid",
        ("test_learngenes::test_as_many_patches_in_another_shape",),
    ),
    Mutation(
        "accuracy of another",
        "        accuracy=-1.0,\n",
        "",
        "a descendant has no score before it is scored",
        ("test_learngenes::test_a_descendant_was_never_scored",),
    ),
    Mutation(
        "slope to the end",
        "share = np.arange(depth) / depth ",
        "share = np.arange(1, depth + 1) / depth ",
        "layer l of L is base + l/L slope, from l = 0 on",
        ("test_learngenes::test_tleg_is_linear_in_depth",),
    ),
    # Checkpoints
    Mutation(
        "meta not checked",
        'if meta.pop("digest", None) != _digest(meta):',
        'if meta.pop("digest", None) is None:',
        "what a checkpoint says of its weights is what was saved",
        ("test_checkpoints::test_changed_words_of_meta_are_noticed",),
    ),
    Mutation(
        "broken one kept",
        "for s in self.steps() if s >= step]",
        "for s in self.steps() if s > step]",
        "a run trains again from before a broken checkpoint",
        (
            (
                "test_checkpoints::test_a_broken_one_that_is_needed_goes_with_all_l"
                "ater_ones"
            ),
        ),
    ),
    Mutation(
        "no other than the newest",
        "reversed(steps) if step is None else [step]:",
        "steps[-1:] if step is None else [step]:",
        "whoever asks for weights gets the newest that are whole",
        ("test_checkpoints::test_params_alone",),
    ),
    Mutation(
        "weights alone checked",
        ("        for name, tree in items.items():\n            for leaf, checksum"),
        (
            "        for name, tree in list(items.items())[:1]:\n"
            "            for leaf, checksum"
        ),
        "every array of a checkpoint is checked",
        ("test_checkpoints::test_every_item_is_checked_against_its_checksums",),
    ),
    Mutation(
        "copies counted",
        "for shard in leaf.addressable_shards if shard.replica_id == 0]",
        "for shard in leaf.addressable_shards]",
        "a checksum is the same on every mesh",
        ("test_checksums::test_copies_count_once",),
    ),
)


def missing_tests(mutation: Mutation, root: pathlib.Path) -> list[str]:
    """Tests of a mutation that are not there."""
    missing = []
    for test in mutation.tests:
        module, _, name = test.partition("::")
        if name not in _functions(root / "tests" / f"{module}.py"):
            missing.append(test)
    return missing


@functools.cache
def _functions(path: pathlib.Path) -> set[str]:
    """Names of the functions of a module; none, where there is no such file."""
    body = ast.parse(path.read_text()).body if path.exists() else []
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def run(tests: list[str], root: pathlib.Path) -> tuple[bool, str]:
    """Whether these tests pass in a copy of the checkout, and what pytest prints.

    Raises:
      RuntimeError: pytest itself cannot go on, which says nothing of the tests.
    """
    options = ["-x", "-m", "slow or not slow", "-p", "no:cacheprovider", "-rfE"]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    # What one mutation has compiled, the others need not compile again.
    cache = {"JAX_COMPILATION_CACHE_DIR": str(root.parent / "compiled")}
    # A file and no pipe, whose end comes late where a test leaves a process behind.
    with tempfile.TemporaryFile("w+") as output:
        try:
            code = subprocess.run(
                command,
                cwd=root,
                env={**cache, **os.environ},
                stdout=output,
                stderr=output,
                timeout=_SECONDS,
            ).returncode
        except subprocess.TimeoutExpired:
            return False, f"not done in {_SECONDS} seconds"
        output.seek(0)
        printed = output.read()
    # Python ends with 1 too where pytest has not begun.
    failed = code == 1 and re.search("^(FAILED|ERROR) tests/", printed, re.MULTILINE)
    if code and not failed:
        raise RuntimeError(f"{printed}\npytest has ended with {code}")
    return code == 0, printed


def verdict(mutation: Mutation, root: pathlib.Path) -> str:
    """What becomes of a mutation in a copy of the checkout, which is left as it was."""
    path, mutated = mutation.file(root), mutation.mutated(root)
    if path is None or mutated is None:
        return "no longer applies"
    before = path.read_text()
    path.write_text(mutated)
    try:
        passed, _ = run(mutation.ids, root)
    finally:
        path.write_text(before)
    return "lives" if passed else "killed"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Tries the tests on small faults.")
    parser.add_argument(
        "--only", nargs="+", default=[""], help="words, of name or file"
    )
    words = parser.parse_args(arguments).only
    places = {m: f"{_where(m)}: {m.name}" for m in MUTATIONS}
    chosen = [m for m, place in places.items() if any(word in place for word in words)]
    if not chosen:
        print(f"no mutation has {' or '.join(words)} in its name or file")
        return 1
    with tempfile.TemporaryDirectory(prefix="sws_jax_mutated_") as folder:
        root = pathlib.Path(folder) / "checkout"
        for name in COPIED:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            root.mkdir(exist_ok=True)
            copy(ROOT / name, root / name)
        passed, output = run(sorted({test for m in chosen for test in m.ids}), root)
        if not passed:
            print(f"{output}\nthe tests do not pass as it is")
            return 1
        verdicts = []
        for number, mutation in enumerate(chosen, start=1):
            before = time.monotonic()
            verdicts.append(verdict(mutation, root))
            place = f"[{number}/{len(chosen)}] {places[mutation]}"
            seconds = time.monotonic() - before
            print(f"{place}: {verdicts[-1]} ({seconds:.0f} s)", flush=True)
    print(f"{verdicts.count('killed')} of {len(chosen)} killed")
    return int(set(verdicts) != {"killed"})


def _where(mutation: Mutation) -> str:
    """The file of a mutation, within the package; empty where it no longer applies."""
    path = mutation.file(ROOT)
    return str(path.relative_to(ROOT / "sws_jax")) if path else ""


if __name__ == "__main__":
    sys.exit(main())
