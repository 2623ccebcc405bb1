"""How far a whole fake lies off its real: some tools hand their pictures on a few pixels moved.

A pair that was cut at the same place would otherwise teach that fakes are those off the middle.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tellframe.train.augment import Frames, Image

MIN_SHIFT: Final = 1.5
"""Pixels. Below, what is measured may be the move of a head that was made to speak."""
MAX_SPREAD: Final = 0.5
"""Pixels. A tool moves every frame alike: the median distance of the frames from their median."""
MIN_RESPONSE: Final = 0.4
"""Height of the peak of the phase correlation: far below for two different pictures."""


def measure_shift(pairs: Iterable[tuple[Image, Image]]) -> NDArray[np.int64]:
    """Return the whole pixels, x and y, by which fake pictures are moved against their reals.

    By phase correlation (Kuglin and Hines 1975) of each pair, and only where all pairs agree.

    Args:
        pairs: real and fake, (H, W, 3) each.

    Returns:
        Shape (2,); what lies at p in the real lies at p plus this in the fake. Zero where nothing
        is moved, or where the pictures do not say so clearly.
    """
    found = []
    for real, fake in pairs:
        window = cv2.createHanningWindow((real.shape[1], real.shape[0]), cv2.CV_32F)
        grey = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY).astype(np.float32) for p in (real, fake)]
        (x, y), response = cv2.phaseCorrelate(grey[0], grey[1], window)
        found.append((x, y, response))
    if not found:
        return np.zeros(2, dtype=np.int64)
    middle = np.median(found, axis=0)
    spread = np.median(np.abs(np.array(found) - middle), axis=0)
    clear = middle[2] >= MIN_RESPONSE and spread[:2].max() <= MAX_SPREAD
    if not clear or np.hypot(*middle[:2]) < MIN_SHIFT:
        return np.zeros(2, dtype=np.int64)
    return np.round(middle[:2]).astype(np.int64)


def move(frames: Frames, shift: NDArray[np.int64]) -> Frames:
    """Move whole frames, (T, H, W, 3), back by a shift; the border repeats."""
    x, y = shift.tolist()
    rows = (np.arange(frames.shape[1]) + y).clip(0, frames.shape[1] - 1)
    columns = (np.arange(frames.shape[2]) + x).clip(0, frames.shape[2] - 1)
    return frames[:, rows][:, :, columns]
