"""Outlines of the face and its parts, placed by five landmarks, and soft masks made of them."""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tellframe.train.augment.sample import Points, drift

# Outline of a face in units of the square around its five landmarks (eyes at y = 0, mouth at
# y = 1; x in the same unit from the middle): brows, temples, cheeks, jaw and chin, drawn by hand.
HULL: Final = np.array(
    [[-0.95, -0.25], [-0.80, -0.60], [-0.40, -0.78], [0.0, -0.72], [0.40, -0.78], [0.80, -0.60],
     [0.95, -0.25], [0.95, 0.30], [0.85, 0.85], [0.60, 1.30], [0.28, 1.62], [0.0, 1.70],
     [-0.28, 1.62], [-0.60, 1.30], [-0.85, 0.85], [-0.95, 0.30]], dtype=np.float32
)  # fmt: skip
EYES: Final = np.array(
    [[-0.95, -0.45], [0.95, -0.45], [0.95, 0.25], [-0.95, 0.25]], dtype=np.float32
)
NOSE: Final = np.array([[-0.15, 0.0], [0.15, 0.0], [0.42, 0.75], [-0.42, 0.75]], dtype=np.float32)
MOUTH: Final = np.array(
    [[-0.65, 0.70], [0.65, 0.70], [0.55, 1.40], [0.0, 1.65], [-0.55, 1.40]], dtype=np.float32
)
LOWER: Final = np.array(
    [[-0.95, 0.35], [0.95, 0.35], [0.75, 1.15], [0.28, 1.62], [-0.28, 1.62], [-0.75, 1.15]],
    dtype=np.float32,
)
PARTS: Final = (HULL, HULL, EYES, NOSE, MOUTH, LOWER)
LOCAL: Final = (EYES, NOSE, MOUTH, LOWER, LOWER)
"""Parts without the whole. The lower face counts twice: lip-sync and NeuralTextures (Thies et al.
2019) change no more than mouth and chin."""

_SUBPIXEL: Final = 4
"""Binary places of the corners that OpenCV fills polygons between."""
_FINE: Final = 2.5
"""A mask is drawn so small that its border has this standard deviation in pixels: a wide blur at
full size would cost more than all else of a blend."""


def place(shape: Points, landmarks: Points) -> Points:
    """Put an outline in landmark units onto a face.

    Args:
        shape: (K, 2), as `HULL`.
        landmarks: (5, 2).

    Returns:
        (K, 2), in pixels.
    """
    eyes = landmarks[:2].mean(axis=0)
    down = landmarks[3:].mean(axis=0) - eyes
    right = landmarks[1] - landmarks[0] + landmarks[4] - landmarks[3]
    # The distance of eyes and mouth keeps its length when the head turns sideways, the width
    # shrinks with it: so the two axes are scaled apart.
    across = right / max(float(np.linalg.norm(right)), 1e-6)
    width = max(float(np.linalg.norm(right)) / 2 * 0.98, 0.6 * float(np.linalg.norm(down)))
    placed: Points = (eyes + shape[:, :1] * across * width + shape[:, 1:] * down).astype(np.float32)
    return placed


def soft_masks(
    shape: Points, landmarks: Points, side: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Fill a randomly bent outline in every frame and blur its border.

    Bend, size and blur are drawn once; the outline follows the landmarks of each frame and drifts
    by about a hundredth of its size, as the tracker of a face swapper does.

    Args:
        shape: (K, 2), as `HULL`.
        landmarks: (T, 5, 2).
        side: of the frames.
        rng: draws the bend.

    Returns:
        Shape (T, side, side), 0 to 1.
    """
    outlines = np.stack([place(shape, points) for points in landmarks])
    span = float(np.ptp(outlines, axis=1).mean())
    bent = outlines + rng.normal(0, 0.04 * span, shape.shape)
    middles = bent.mean(axis=1, keepdims=True)
    bent = (bent - middles) * rng.uniform(0.8, 1.08) + middles
    sigma = span * rng.uniform(0.01, 0.09)
    bent += drift(len(bent), 0.01 * span, rng, 2)[:, None]
    return np.stack([_fill(outline, side, sigma) for outline in bent])


def hard_masks(shape: Points, landmarks: Points, side: int) -> NDArray[np.uint8]:
    """Fill an outline in every frame, as it is; arguments as for `soft_masks`.

    Returns:
        Shape (T, side, side), 0 or 1.
    """
    masks = np.zeros((len(landmarks), side, side), dtype=np.uint8)
    for mask, points in zip(masks, landmarks, strict=True):
        cv2.fillConvexPoly(mask, cv2.convexHull(place(shape, points).round().astype(np.int32)), 1)
    return masks


def _fill(outline: NDArray[Any], side: int, sigma: float) -> NDArray[np.float32]:
    """Fill the hull of an outline, (K, 2), and blur its border; shape (side, side)."""
    small = max(8, round(side * min(1.0, _FINE / max(sigma, 1e-6))))
    scale = small / side
    # OpenCV counts from the middle of a pixel.
    corners = np.round(((outline + 0.5) * scale - 0.5) * 2**_SUBPIXEL).astype(np.int32)
    mask = np.zeros((small, small), dtype=np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(corners), 255, cv2.LINE_AA, _SUBPIXEL)
    soft = (mask / np.float32(255)).astype(np.float32)
    if sigma * scale >= 0.3:
        soft = np.asarray(cv2.GaussianBlur(soft, (0, 0), sigma * scale), dtype=np.float32)
    if small < side:
        soft = np.asarray(cv2.resize(soft, (side, side), interpolation=cv2.INTER_LINEAR))
    return soft
