"""What pictures look like, roughly: to tell cuts from movement, and people from each other.

Measured on 127 real videos of 114 scenes, ten frames each, without cuts: from one frame to the next
at most 0.37 of the colours of the picture are new, and 0.32 of those of a face. Between two scenes
0.4 or less are in 4 % of pictures, and 0.35 or less in 3 % of faces.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BLACK: Final = 8
"""Bars are at most as bright, 0 to 255: video black, and what lossy compression adds to it."""
BAR: Final = 0.98
"""Share of the pixels of a row or column that are black in a bar."""

_SAMPLED: Final = 56
_LEVELS: Final = 6
_WIDTH: Final = 256 / _LEVELS
# Two grids, half a level apart: what crosses the border of a level in one of them lies well within
# a level of the other, so that the flicker of a plain wall is no change.
_GRIDS: Final = tuple(
    ((np.arange(256) + shift) / _WIDTH).astype(np.uint16) for shift in (0.0, _WIDTH / 2)
)


@dataclass(frozen=True, slots=True)
class Looks:
    """What one picture looks like."""

    thumbnail: NDArray[np.float32]
    """Shape (N, N, 3), RGB levels."""
    colours: NDArray[np.float32]
    """Shape (2, 343): share of the pixels in every cell of two grids over RGB."""

    def colour_change(self, other: Looks) -> float:
        """Return the share of the pixels, 0 to 1, whose colour the other picture does not have."""
        return float(np.abs(self.colours - other.colours).sum(axis=1).min() / 2)

    def level_change(self, other: Looks) -> float:
        """Return the mean difference of both thumbnails, in levels, 0 to 255."""
        return float(np.abs(self.thumbnail - other.thumbnail).mean())


def thin_out(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return every nth row and column of a picture, 56 to 111 of them on its shorter side.

    What it looks like hardly changes, and every pixel of 1080p would take 70 times as long.
    """
    step = max(1, min(image.shape[:2]) // _SAMPLED)
    return image[::step, ::step]


def look_at(image: NDArray[np.uint8], side: int) -> Looks:
    """Return what a picture of shape (H, W, 3), RGB, looks like; thumbnail of `side` pixels."""
    picture = Image.fromarray(image)
    small = picture.resize((side, side), Image.Resampling.BOX, reducing_gap=2.0)
    cells = _LEVELS + 1
    counts = []
    for grid in _GRIDS:
        red, green, blue = np.moveaxis(grid[image], -1, 0)
        codes = (red * cells + green) * cells + blue
        counts.append(np.bincount(codes.ravel(), minlength=cells**3))
    colours = np.stack(counts) / (image.shape[0] * image.shape[1])
    return Looks(np.asarray(small, dtype=np.float32), colours.astype(np.float32))


def inside_bars(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture without the black bars around it, as a view; all of it where all is black.

    Args:
        image: shape (H, W, 3).
    """
    dark = image.max(axis=2) <= BLACK
    rows, columns = (np.flatnonzero(dark.mean(axis=axis) < BAR) for axis in (1, 0))
    if not (len(rows) and len(columns)):
        return image
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
