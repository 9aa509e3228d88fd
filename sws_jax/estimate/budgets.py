"""How long and at which rates the networks of a comparison are trained."""

from __future__ import annotations

import dataclasses
from typing import Any

# Default depths around an Aux-Net of 16 blocks: below the number of stages, below,
# at and above its own.
DEPTHS = (3, 6, 9, 12, 16, 20)
# The paper's tables (inferred: they fit its storage and training claims).
PAPER_DEPTHS = tuple(range(6, 16))


@dataclasses.dataclass(frozen=True)
class Budget:
    """How large a variant's comparison is: depths, epochs and rates of its runs.

    Attributes:
      stages: of the Aux-Net.
      depths: of its descendants.
      ancestor: changes to a run's `model` that make it the ancestor's.
      *_epochs, *_rate: of training; `long_epochs` is the long budget from scratch,
        `transfer_*` belong to another dataset.
    """

    stages: tuple[int, ...] = (3, 3, 4, 3, 3)
    depths: tuple[int, ...] = DEPTHS
    ancestor: tuple[tuple[str, Any], ...] = (("depth", 12),)
    ancestor_epochs: float = 300.0
    ancestor_rate: float = 5e-4
    aux_epochs: float = 150.0
    aux_rate: float = 5e-4
    tune_epochs: float = 10.0
    tune_rate: float = 5e-5
    tune_minimum: float = 1e-6
    scratch_rate: float = 5e-4
    long_epochs: float = 300.0
    transfer_epochs: float = 50.0
    transfer_rate: float = 5e-4
    transfer_long_epochs: float = 300.0


# Variants that two CPU cores can train; all others are widths of DeiT.
SMALL = {
    # Rates: the least validation loss, of {1, 2, 4}e-3 from scratch and of
    # {.3, 1, 3}e-3 in tuning, over depths 6, 12, 20.
    "digits": Budget(
        ancestor=(("depth", 6), ("drop_path", 0.0)),
        ancestor_epochs=30.0,
        ancestor_rate=2e-3,
        aux_epochs=40.0,
        aux_rate=4e-3,
        tune_epochs=5.0,
        tune_rate=3e-4,
        tune_minimum=1e-5,
        scratch_rate=2e-3,
        long_epochs=40.0,
        transfer_epochs=10.0,
        transfer_rate=2e-3,
        transfer_long_epochs=80.0,
    ),
    # Rates: the least validation loss, of {1, 3, 6, 12}e-3 from scratch (15 epochs at
    # depth 4) and of {.3, 1, 3, 6}e-3 in transfer. In tuning {.2, .5, 1, 2}e-3 hardly
    # differ.
    "32px": Budget(
        stages=(2, 2, 2),
        depths=(3, 4, 6, 9),
        ancestor=(("depth", 6), ("width", 96), ("heads", 6)),
        ancestor_epochs=30.0,
        ancestor_rate=2e-3,
        aux_epochs=40.0,
        aux_rate=3e-3,
        tune_epochs=3.0,
        tune_rate=5e-4,
        tune_minimum=1e-5,
        scratch_rate=6e-3,
        long_epochs=15.0,
        transfer_epochs=10.0,
        transfer_rate=3e-3,
        transfer_long_epochs=50.0,
    ),
}


def budget(name: str) -> Budget:
    """The budget of a variant: its own in `SMALL`, or else the paper's.

    Reference:
      SWS, 2404.16897, as published: Aux-S 150 epochs, Aux-B 100 (Ti as S); tuning 10
      epochs at 5e-5, B at 1e-5. Scratch and ancestor are DeiT's 300 epochs; the
      schedules of transfer are not published, and ours.
    """
    if name in SMALL:
        return SMALL[name]
    paper = Budget(depths=PAPER_DEPTHS)
    if name.startswith("B"):
        return dataclasses.replace(paper, aux_epochs=100.0, tune_rate=1e-5)
    return paper
