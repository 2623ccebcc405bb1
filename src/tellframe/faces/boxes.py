"""Arithmetic on arrays of xyxy boxes that every face detector needs."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

_BLOCK: Final = 256
"""Boxes compared with all others at once: bounds the memory of suppression to block x N."""


def suppress_overlaps(
    boxes: NDArray[np.float32],
    scores: NDArray[np.float32],
    limit: float,
    *,
    by_smaller: bool = False,
) -> NDArray[np.intp]:
    """Keep the best box of every heap of overlapping boxes (greedy non-maximum suppression).

    Args:
        boxes: shape (N, 4), xyxy.
        scores: shape (N,); of equal scores the first box wins.
        limit: a box goes where its overlap with a better, kept box is above this.
        by_smaller: measure the overlap as intersection over the smaller of the two areas, and
            count both border pixels as in the reference implementation of MTCNN's last stage;
            otherwise as intersection over union.

    Returns:
        The indices of the kept boxes, best first.
    """
    if len(scores) < 2:
        return np.arange(len(scores))
    order = np.argsort(-scores, kind="stable")
    kept: list[NDArray[np.intp]] = []
    while order.size:
        block, rest = order[:_BLOCK], order[_BLOCK:]
        clash = overlaps(boxes[block], boxes[block], by_smaller=by_smaller) > limit
        alive = np.ones(block.size, bool)
        for i in range(block.size):
            if alive[i]:
                alive[i + 1 :] &= ~clash[i, i + 1 :]
        winners = block[alive]
        kept.append(winners)
        if rest.size:
            hit = overlaps(boxes[winners], boxes[rest], by_smaller=by_smaller) > limit
            rest = rest[~hit.any(axis=0)]
        order = rest
    return np.concatenate(kept) if kept else np.empty(0, np.intp)


def overlaps(
    first: NDArray[np.float32], second: NDArray[np.float32], *, by_smaller: bool = False
) -> NDArray[np.float32]:
    """Return the overlap of every box of `first` with every box of `second`.

    Args:
        first: shape (N, 4), xyxy.
        second: shape (M, 4), xyxy.
        by_smaller: as in `suppress_overlaps`.

    Returns:
        Shape (N, M), from 0 to 1; 0 where a box has no area.
    """
    border = np.float32(1 if by_smaller else 0)
    # Axis by axis: with both in the last dimension, numpy takes three times as long.
    begin = [np.maximum(first[:, None, i], second[None, :, i]) for i in (0, 1)]
    end = [np.minimum(first[:, None, i], second[None, :, i]) for i in (2, 3)]
    sides = [np.maximum(high - low + border, 0) for low, high in zip(begin, end, strict=True)]
    shared = sides[0] * sides[1]
    areas = [np.prod(np.maximum(b[:, 2:] - b[:, :2] + border, 0), axis=1) for b in (first, second)]
    if by_smaller:
        whole = np.minimum(areas[0][:, None], areas[1][None, :])
    else:
        whole = areas[0][:, None] + areas[1][None, :] - shared
    shares: NDArray[np.float32] = np.zeros_like(shared)
    np.divide(shared, whole, out=shares, where=whole > 0)
    return shares
