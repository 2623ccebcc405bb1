"""Augmentation: makers of fakes and degradations, each by its name, for single crops and clips.

Every function is pure: a `Sample` and a random generator in, a new sample out. Parameters are drawn
once a clip, so that an effect is consistent through time. Pictures are RGB uint8.
"""

from tellframe.train.augment.registry import (
    ARRANGEMENTS,
    DEGRADATIONS,
    FROM_PAIRS,
    FROM_REALS,
    MAKERS,
    Maker,
    apply,
    arrange,
    choose,
    degrade,
)
from tellframe.train.augment.sample import (
    CHANGED,
    SHARE,
    Frames,
    Image,
    Points,
    Sample,
    crop_sample,
    cut,
    difference_target,
    find_swapped,
)

__all__ = [
    "ARRANGEMENTS",
    "CHANGED",
    "DEGRADATIONS",
    "FROM_PAIRS",
    "FROM_REALS",
    "MAKERS",
    "SHARE",
    "Frames",
    "Image",
    "Maker",
    "Points",
    "Sample",
    "apply",
    "arrange",
    "choose",
    "crop_sample",
    "cut",
    "degrade",
    "difference_target",
    "find_swapped",
]
