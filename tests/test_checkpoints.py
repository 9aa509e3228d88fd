"""Checkpoints: which are kept, which is restored, and what damage to one does."""

import logging
import shutil

import jax
import numpy as np
import pytest

from sws_jax.errors import Stopped
from sws_jax.models import networks
from sws_jax.storage.names import BROKEN, CHECKPOINTS
from sws_jax.training import checkpoints
from sws_jax.training.checkpoints import Checkpoints
from sws_jax.training.orbax_errors import BrokenCheckpoint

from support.checkpoints import CLOCK, abstract, data_files, fill, flip_a_bit, truncate
from support.compare import equal
from support.learngenes import describe
from support.networks import params_of


def test_newest_is_restored_onto_any_sharding(aux, tmp_path):
    saved = fill(tmp_path, aux, {1: 0.1, 2: 0.2})
    manager = Checkpoints(str(tmp_path))
    restored = manager.restore_newest(abstract(aux))
    assert (restored.step, restored.clock) == (2, CLOCK)
    equal(saved[2], restored.items)
    assert manager.describe(2) == describe(aux, step=2)
    manager.close()


def test_last_best_and_milestones_are_kept(aux, tmp_path):
    steps = {1: 0.1, 2: 0.9, 3: 0.2, 4: 0.3, 5: 0.3, 6: -1.0}
    fill(tmp_path, aux, steps, keep_last=2, keep_steps=[3])
    manager = Checkpoints(str(tmp_path))
    assert manager.steps() == [2, 3, 5, 6]
    assert manager.best_step() == 2
    manager.close()


def empty_meta(path):
    folder = path
    while folder.name != "params":
        folder = folder.parent
    (folder.parent / "meta" / "metadata").write_text("{")


def remove(path):
    path.unlink()


@pytest.mark.parametrize("damage", [flip_a_bit, truncate, remove, empty_meta])
def test_a_broken_newest_falls_back_and_says_so(damage, aux, tmp_path, caplog):
    saved = fill(tmp_path, aux, {1: 0.1, 2: 0.2})
    for path in data_files(tmp_path, 2):
        damage(path)
    manager = Checkpoints(str(tmp_path))
    with caplog.at_level(logging.WARNING):
        restored = manager.restore_newest(abstract(aux))
    assert restored.step == 1
    equal(saved[1], restored.items)
    assert "step 2 is broken" in caplog.text
    assert "falling back to step 1" in caplog.text
    # Set aside, not deleted; and the run can write that step again.
    assert (tmp_path / BROKEN / "2").is_dir()
    assert manager.steps() == [1]
    manager.save(
        2, saved[2], clock=CLOCK, description=describe(aux, step=2), val_top1=0.2
    )
    manager.wait()
    equal(saved[2], manager.restore_newest(abstract(aux)).items)
    manager.close()


@pytest.mark.slow
@pytest.mark.parametrize("damage", [flip_a_bit, truncate, remove])
def test_any_file_of_a_checkpoint(damage, aux, tmp_path):
    """Whatever file is damaged, what is restored is right, and a run can go on."""
    source = tmp_path / "source"
    saved = fill(source, aux, {1: 0.1, 2: 0.2})
    folder = source / CHECKPOINTS
    paths = [p for p in (folder / "2").rglob("*") if p.is_file() and p.stat().st_size]
    fell_back = 0
    for number, path in enumerate(paths):
        directory = tmp_path / str(number)
        shutil.copytree(source, directory)
        damage(directory / path.relative_to(source))
        manager = Checkpoints(str(directory))
        restored = manager.restore_newest(abstract(aux))
        equal(saved[restored.step], restored.items)
        assert restored.clock == CLOCK
        fell_back += restored.step == 1
        assert manager.best_step() in (1, 2)
        manager.save(
            3, saved[2], clock=CLOCK, description=describe(aux, step=3), val_top1=0.3
        )
        manager.close()
    assert len(paths) > 10 and fell_back > 3


@pytest.mark.parametrize("old, new", [("1.5", "3.5"), ("seconds", "sgconds")])
def test_a_changed_clock_is_noticed(old, new, aux, tmp_path):
    """One flipped bit, in a digit or in a name."""
    fill(tmp_path, aux, {1: 0.1, 2: 0.2})
    path = tmp_path / CHECKPOINTS / "2" / "clock" / "metadata"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    manager = Checkpoints(str(tmp_path))
    restored = manager.restore_newest(abstract(aux))
    assert (restored.step, restored.clock) == (1, CLOCK)
    manager.close()


def test_changed_words_of_meta_are_noticed(aux, tmp_path):
    """They say what the weights are: of which teacher, here."""
    fill(tmp_path, aux, {1: 0.1, 2: 0.2})
    path = tmp_path / CHECKPOINTS / "2" / "meta" / "metadata"
    text = path.read_text()
    assert "vit_base_" in text
    path.write_text(text.replace("vit_base_", "vit_bare_"))
    manager = Checkpoints(str(tmp_path))
    assert manager.restore_newest(abstract(aux)).step == 1
    manager.close()


def test_every_item_is_checked_against_its_checksums(aux, tmp_path, monkeypatch):
    """Storage gives back other numbers for the optimiser, and does not notice."""
    manager = Checkpoints(str(tmp_path))
    items = abstract(aux) | {"opt": {"mean": abstract(aux)["params"]}}
    saved = {"params": params_of(aux), "opt": {"mean": params_of(aux, seed=1)}}
    about = dict(clock=CLOCK, description=describe(aux), val_top1=0.1)
    manager.save(1, saved, **about)
    manager.wait()
    equal(saved, manager.restore(1, items).items)
    tree = Checkpoints._tree

    def flipped(self, step, item, like):
        restored = tree(self, step, item, like)
        return jax.tree.map(lambda leaf: -leaf, restored) if item == "opt" else restored

    monkeypatch.setattr(Checkpoints, "_tree", flipped)
    with pytest.raises(BrokenCheckpoint, match="opt/mean/.* is not what"):
        manager.restore(1, items)
    manager.close()


def test_a_broken_one_that_is_needed_goes_with_all_later_ones(aux, tmp_path):
    """So that the run trains again from before it."""
    fill(tmp_path, aux, {1: 0.1, 2: 0.2, 3: 0.3}, keep_last=3)
    for path in data_files(tmp_path, 2):
        flip_a_bit(path)
    manager = Checkpoints(str(tmp_path))
    with pytest.raises(Stopped, match="step 2 .* goes on from step 1"):
        manager.restore_or_redo(2, abstract(aux))
    assert manager.steps() == [1]
    aside = (tmp_path / BROKEN).iterdir()
    assert sorted(path.name for path in aside) == ["2", "3"]
    manager.close()


@pytest.mark.parametrize(
    "text", ["", '{"val', "{}", '{"val_top1": "high"}', '{"val_top1": 0.3}']
)
def test_damaged_metrics_set_a_checkpoint_aside(text, aux, tmp_path, caplog):
    saved = fill(tmp_path, aux, {1: 0.1, 2: 0.2})
    (tmp_path / CHECKPOINTS / "2" / "metrics" / "metrics").write_text(text)
    with caplog.at_level(logging.WARNING):
        manager = Checkpoints(str(tmp_path))
    assert "the checkpoint of step 2 is broken" in caplog.text
    assert (manager.steps(), manager.best_step()) == ([1], 1)
    equal(saved[1], manager.restore_newest(abstract(aux)).items)
    manager.close()


def test_all_broken_starts_anew(aux, tmp_path, caplog):
    fill(tmp_path, aux, {1: 0.1})
    for path in data_files(tmp_path, 1):
        flip_a_bit(path)
    manager = Checkpoints(str(tmp_path))
    assert manager.restore_newest(abstract(aux)) is None
    assert "falling back to the start" in caplog.text
    manager.close()


def test_another_network_is_refused_by_names(aux, net, tmp_path):
    fill(tmp_path, aux, {1: 0.1})
    manager = Checkpoints(str(tmp_path))
    words = r"another network \(- missing, \+ surplus\): - blocks/.*; \+ stages?_0/"
    with pytest.raises(ValueError, match=words):
        manager.restore_newest(abstract(net))
    assert manager.steps() == [1]
    manager.close()


def test_params_alone(aux, tmp_path):
    saved = fill(tmp_path, aux, {1: 0.1, 2: 0.2})
    load = checkpoints.load_params
    step, params, about = load(str(tmp_path), None, networks.abstract_params)
    assert (step, about.step) == (2, 2)
    equal(saved[2]["params"], params)
    step, params, _ = load(str(tmp_path), 1, networks.abstract_params)
    equal(saved[1]["params"], params)
    with pytest.raises(ValueError, match="no checkpoint of step 7; it has 1, 2"):
        load(str(tmp_path), 7, networks.abstract_params)
    np.testing.assert_array_equal(params["pos_embed"].shape, (1, 4, 16))
    for path in data_files(tmp_path, 2):  # the newest that is whole
        flip_a_bit(path)
    step, params, about = load(str(tmp_path), None, networks.abstract_params)
    assert (step, about.step) == (1, 1)
    equal(saved[1]["params"], params)
