"""Ranges and choices of a recipe's numbers and texts.

They are checked by the table of a config's fields, and by the losses, schedules,
transforms and readers, which are used without a config too.
"""

from __future__ import annotations

import math

from sws_jax.arguments import Range

# Data. Pixels are shares of 255, so that a mean of 0 to 255 is a mistake.
MEAN = Range(-10, 10)
STD = Range(0, 10, open_low=True)
EVAL_CROP = Range(0, 1, open_low=True)
VAL_FRACTION = Range(0, 1, open_high=True)
MEMORY_GIB = Range(0, math.inf, endless=True)
DECODERS = ("pillow", "opencv")
UNREADABLE = ("stop", "skip")
CROPS = ("none", "padded", "resized")

# Training.
MIN_ACCURACY = Range(-1, 1)
LOSSES = ("none", "soft", "hard")
REDUCTIONS = ("batchmean", "per_class")
SCHEDULES = ("cosine", "cosine_per_epoch", "constant")
