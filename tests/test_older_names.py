"""Public names of older versions stay importable from where they were."""

import importlib
import subprocess
import sys

import pytest

import sws_jax

# Module -> its names, as README, docs, notebooks and configs had them.
PUBLIC = {
    "sws_jax": (
        "AuxViTSpec Compute Descendant Description Learngene Network UserError "
        "ViTSpec expand extract load_learngene load_network named save_learngene "
        "save_network __version__ xla_flags"
    ),
    "chain": (
        "Run check check_alike check_networks execute is_done older_in refuse_other "
        "runs"
    ),
    "configs": ("fields load named parse"),
    "convert": ("PUBLISHED TARGETS View identify load recognise refusal save"),
    "cost": (
        "Claim IMAGENET_IMAGES INITIALISED PAPER_EPOCHS PAPER_SIZES Plan QUANTITIES "
        "Run activation_bytes by_learngene flops forward_flops paper params ratios "
        "separately step_flops"
    ),
    "data": (
        "Dataset Normalization Split arrays augment base digits folder images "
        "is_built_in is_set load_dataset npz pipeline prepared tfds transforms"
    ),
    "data.base": ("Dataset Normalization Split Subset Unreadable"),
    "data.transforms": ("Fit Transform"),
    "description": ("DESCRIPTION Description KINDS versions"),
    "evaluation": ("evaluate"),
    "learngenes": (
        "Descendant LEARNGENE Learngene METHODS Method abstract_learngene auxiliary "
        "base check_learngene check_params expand extract find_method "
        "load_learngene num_stored save_learngene sws tleg"
    ),
    "models.loop": ("LoopViT"),
    "networks": (
        "NETWORK Network PREDICTOR Predictor SPEC abstract_params check_network "
        "check_params load_network predictor save_network"
    ),
    "presets": (
        "BEGINNINGS Budget CHANGES DEPTHS PAPER_DEPTHS SMALL auxiliary budget "
        "completed deit insisted job last official parse parse_recipe pixels32 "
        "recipe require run slug small tuning variant"
    ),
    "sharding": ("AXES BATCH RULES make_mesh put tree_shardings"),
    "specs": (
        "AuxViTSpec Compute LEVITS LeViTSpec REGNETS RegNetSpec SIZES Spec ViTSpec "
        "from_dict named parse_stages to_dict"
    ),
    "trees": (
        "Tree count difference flatten leaf_names map_with_name stack to_host "
        "unflatten unstack"
    ),
}
PAIRS = [
    (f"sws_jax.{module}".removesuffix(".sws_jax"), name)
    for module, names in PUBLIC.items()
    for name in names.split()
]


@pytest.mark.parametrize("module, name", PAIRS)
def test_a_public_name_is_where_it_was(module, name):
    assert getattr(importlib.import_module(module), name) is not None


@pytest.mark.parametrize("older", sws_jax.OLDER_NAMES)
def test_an_older_module_is_a_whole_one(older):
    scope: dict = {}
    exec(f"from sws_jax.{older} import *", scope)
    module = importlib.import_module(f"sws_jax.{older}")
    assert set(dir(module)) == scope.keys() - {"__builtins__"} != set()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = module.nothing


def test_modules_within_an_older_one_are_its_attributes():
    program = "import sws_jax; print(sws_jax.learngenes.base.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.stdout == "sws_jax.learngenes.base\n", done.stderr


def test_of_two_functions_of_one_name_the_older_module_has_its_own():
    """`jobs.directory` has a `refuse_other` too, and `jobs.check` a `check`."""
    from sws_jax import chain
    from sws_jax.jobs import preflight

    assert chain.refuse_other is preflight.refuse_other
    assert chain.check is preflight.check


def test_no_older_name_hides_a_module_of_today():
    program = (
        "import importlib.util, sys, sws_jax\n"
        "sys.meta_path = [f for f in sys.meta_path if 'Older' not in repr(f)]\n"
        "for older in sws_jax.OLDER_NAMES:\n"
        "    if '.' not in older:\n"
        "        assert importlib.util.find_spec(f'sws_jax.{older}') is None, older\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
