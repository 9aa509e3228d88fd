"""Networks by their names, or by the weights file that holds one."""

from __future__ import annotations

from typing import Any

from sws_jax import specs
from sws_jax.errors import UserError
from sws_jax.models import weights
from sws_jax.specs import LeViTSpec, RegNetSpec, Spec
from sws_jax.specs.vit import looks_named
from sws_jax.storage import paths, runs

# Those whose names say nothing of their parts.
_TABLE: dict[str, LeViTSpec | RegNetSpec] = {**specs.LEVITS, **specs.REGNETS}


def is_name(text: str) -> bool:
    """Whether a text looks like a network's name, and not like a file."""
    if text.endswith(".safetensors") or paths.exists(text):
        return False
    return text in _TABLE or looks_named(text)


def named(name: str, changes: dict[str, Any]) -> Spec:
    """The spec of a network's name, or of a weights file.

    Args:
      name: like vit_small_patch16_L12, aux_vit_small_patch16_3-3-4-3-3 or levit_384;
        or a path.
      changes: to the spec.

    Raises:
      UserError: it is neither.
    """
    spec: Spec
    if name.endswith(".safetensors") or paths.exists(name):
        spec = weights.describe(runs.weights_file(name)).spec
    elif name in _TABLE:
        spec = _TABLE[name]
    elif is_name(name):
        return specs.named(name, **changes)
    else:
        raise UserError(
            f"no network is named {name!r}, and it is no file: names look like "
            f"vit_small_patch16_L12 or aux_vit_small_patch16_3-3-4-3-3, or are "
            f"{', '.join(_TABLE)}"
        )
    return spec.replace(**changes)
