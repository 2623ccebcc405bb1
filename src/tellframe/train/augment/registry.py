"""All augmentations by name, and in which order they are applied."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from tellframe.train.augment.blends import (
    local_blend,
    mixup,
    part_blend,
    self_blend,
    swap_blend,
)
from tellframe.train.augment.pictures import blur, cutout, flip, jpeg, noise, relight, rescale
from tellframe.train.augment.sample import Sample
from tellframe.train.augment.video import frame_rate, h264, shuffle
from tellframe.train.config import AugmentConfig

Maker = Callable[[Sample, Sample, np.random.Generator], Sample]
"""Takes a sample, one of another person and a generator; returns a pair of a real and a fake."""
Change = Callable[[Sample, np.random.Generator], Sample]
"""Takes a sample; returns it with both halves changed alike."""


def _alone(make: Change) -> Maker:
    """Let a maker that needs no other person be called like one that does."""

    @functools.wraps(make)
    def called(sample: Sample, _other: Sample, rng: np.random.Generator) -> Sample:
        return make(sample, rng)

    return called


MAKERS: Final[dict[str, Maker]] = {
    "self_blend": _alone(self_blend),
    "swap_blend": swap_blend,
    "local_blend": local_blend,
    "part_blend": _alone(part_blend),
    "mixup": _alone(mixup),
}
"""Make a fake, or a weaker fake. Their values in the configuration are relative weights."""
FROM_REALS: Final = ("self_blend", "swap_blend", "painted_blend", "local_blend")
"""Makers that need a real face alone."""
FROM_PAIRS: Final = ("part_blend", "mixup")
"""Makers that need a fake and its own original."""

ARRANGEMENTS: Final[dict[str, Change]] = {
    "shuffle": shuffle,
    "frame_rate": frame_rate,
    "flip": flip,
    "cutout": cutout,
}
"""Change where and when something is seen: to be applied before a difference is measured."""
DEGRADATIONS: Final[dict[str, Change]] = {
    "relight": relight,
    "rescale": rescale,
    "blur": blur,
    "noise": noise,
    "h264": h264,
    "jpeg": jpeg,
}
"""Change pixel values: to be applied after a difference is measured."""


def choose(names: Sequence[str], config: AugmentConfig, rng: np.random.Generator) -> str:
    """Draw one of some makers by the weights of the configuration."""
    weights = np.array([getattr(config, name) for name in names], dtype=np.float64)
    return names[int(np.searchsorted(np.cumsum(weights), rng.random() * weights.sum(), "right"))]


def apply(sample: Sample, config: AugmentConfig, rng: np.random.Generator) -> Sample:
    """Arrange and degrade a sample; both halves alike.

    In the order of the tables above: what is filmed, then light, lens and sensor, and the codecs
    last.
    """
    return degrade(arrange(sample, config, rng), config, rng)


def arrange(sample: Sample, config: AugmentConfig, rng: np.random.Generator) -> Sample:
    """Apply those `ARRANGEMENTS` that the configuration's probabilities let come."""
    return _apply(ARRANGEMENTS, sample, config, rng)


def degrade(sample: Sample, config: AugmentConfig, rng: np.random.Generator) -> Sample:
    """Apply those `DEGRADATIONS` that the configuration's probabilities let come."""
    return _apply(DEGRADATIONS, sample, config, rng)


def _apply(
    table: Mapping[str, Change], sample: Sample, config: AugmentConfig, rng: np.random.Generator
) -> Sample:
    for name, change in table.items():
        if rng.random() < getattr(config, name):
            sample = change(sample, rng)
    return sample
