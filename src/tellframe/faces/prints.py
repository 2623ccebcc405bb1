"""Tell faces that are printed on clothes from living ones.

A print does not change but for its place, size and turn: once two of its crops are laid over each
other, hardly anything is left. That alone would also hit people who sit still, so that a face is
called a print only when it is smaller than a livelier face of the same video, and hangs on that
person's chest.

Measured on 30 living faces (real clips, ten frames each) and 18 printed portraits put into such
clips, moved, turned by up to 4 degrees, relit and noised: the change between frames was 0.021 to
0.265 (median 0.08) for the living and 0.018 to 0.036 for the printed ones. Of prints pasted on the
shirts of twelve clips the rule finds 7: it errs on the side of judging one.

Pictures on walls and screens are judged like people. That they hang still does not tell them from a
calm person before a fixed camera: of 129 living faces of real videos 26 change by 0.04 or less, and
9 of them do not leave their place either.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STILL: Final = 0.04
"""Largest change of a print between two frames, see `change`."""
LIVELIER: Final = 2.0
"""How many times more the living face must change."""
SMALLER: Final = 0.7
"""A print is smaller than this share of the living face."""
MAX_PAIRS: Final = 5
"""Pairs of frames that are compared at most."""

_SIDE: Final = 48
_BORDER: Final = 6
_SCALES: Final = (0.92, 0.96, 1.0, 1.04, 1.08)
_TURNS: Final = (-6, -3, 0, 3, 6)


def change(crops: list[NDArray[np.uint8]]) -> float:
    """Measure how much a face changes between frames beyond place, size and turn.

    Each crop is laid over the next at the shift (up to 12 %), scale and turn of the highest
    normalised cross-correlation.

    Args:
        crops: shape (S, S, 3) each, in order of time, at least two.

    Returns:
        The median of one minus that correlation: 0 for copies, around 0.1 for living faces.
    """
    steps = np.unique(np.linspace(0, len(crops) - 2, MAX_PAIRS).astype(int))
    return float(np.median([1 - _best_correlation(crops[i], crops[i + 1]) for i in steps]))


def _best_correlation(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    inner = _grey(a, 0, 1.0)[_BORDER:-_BORDER, _BORDER:-_BORDER]
    window = _normalised(inner.reshape(1, -1))[0]
    best = -1.0
    for scale in _SCALES:
        for turn in _TURNS:
            shifted = np.lib.stride_tricks.sliding_window_view(_grey(b, turn, scale), inner.shape)
            candidates = _normalised(shifted.reshape(-1, inner.size))
            best = max(best, float((candidates @ window).max()))
    return best


def _grey(crop: NDArray[np.uint8], turn: float, scale: float) -> NDArray[np.float32]:
    side = round(_SIDE * scale)
    picture = Image.fromarray(crop).convert("L").resize((2 * _SIDE, 2 * _SIDE))
    turned = picture.rotate(turn, Image.Resampling.BILINEAR)
    return np.asarray(turned.resize((side, side), Image.Resampling.BOX), dtype=np.float32)


def _normalised(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Remove the mean of each row and scale it to length one."""
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(length, 1e-6), dtype=np.float32)


def is_print(
    crops: list[NDArray[np.uint8]],
    boxes: NDArray[np.float32],
    living_crops: list[NDArray[np.uint8]],
    living_boxes: NDArray[np.float32],
) -> bool:
    """Say whether one face is a print beside another that is alive.

    Args:
        crops: the face in question, shape (S, S, 3) each, at least three.
        boxes: shape (N, 4), xyxy, its boxes.
        living_crops: the other face, at least three.
        living_boxes: shape (M, 4), the other face's boxes.
    """
    size, living_size = _size(boxes), _size(living_boxes)
    if size >= SMALLER * living_size or not _is_on_chest(boxes, living_boxes, living_size):
        return False
    own = change(crops)
    return own <= STILL and change(living_crops) >= LIVELIER * own


def _size(boxes: NDArray[np.float32]) -> float:
    return float(np.median(np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])))


def _centres(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray((boxes[:, :2] + boxes[:, 2:]) / 2, dtype=np.float32)


def _is_on_chest(
    boxes: NDArray[np.float32], living_boxes: NDArray[np.float32], living_size: float
) -> bool:
    """Say whether the face lies below the other, within the width of its shoulders."""
    across, down = np.median(_centres(boxes), axis=0) - np.median(_centres(living_boxes), axis=0)
    return bool(abs(across) <= 1.2 * living_size and 0.8 <= down / living_size <= 4)
