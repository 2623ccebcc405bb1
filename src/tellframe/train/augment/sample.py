"""The pair that everything here works on: a real and its fake through time, cut and compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
"""Shape (P, P, 3), RGB."""
Frames = NDArray[np.uint8]
"""Shape (T, P, P, 3), RGB."""
Points = NDArray[np.float32]

CHANGED: Final = 6.0
"""Mean difference in grey levels above which a place of a fake, or its face, is changed; by eye."""
UNCHANGED: Final = 2.0
"""Likewise, below which a place is not: what another encoding of the same picture does."""
SHARE: Final = 0.125
"""Of the pixels of a face, those that differ most: over them the mean is taken, so that a changed
mouth counts."""
SMOOTHING: Final = 2.0
"""Frames over which boxes are smoothed: the standard deviation of a Gaussian."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One person through T frames, real and fake; T = 1 for a still.

    Where there is no fake yet, `fake` is the very array `real`, and stays so in all that is done
    to both alike.
    """

    real: Frames
    """Shape (T, P, P, 3)."""
    fake: Frames
    """Shape (T, P, P, 3), the same frames."""
    boxes: Points
    """Shape (T, 4), xyxy of the face in the frames."""
    landmarks: Points
    """Shape (T, 5, 2), in the frames, as `tellframe.types.Face.landmarks`."""

    @property
    def face(self) -> float:
        """Mean height of the boxes in pixels."""
        return float((self.boxes[:, 3] - self.boxes[:, 1]).mean())


def as_picture(image: Any) -> Image:
    """Give OpenCV's result the type that it has."""
    return np.asarray(image, dtype=np.uint8)


def map_frames(frames: Frames, change: Callable[[Image], Image]) -> Frames:
    """Change every frame by itself."""
    if len(frames) == 1:
        return change(frames[0])[None]  # spares the copy
    return np.stack([change(frame) for frame in frames])


def map_halves(sample: Sample, change: Callable[[Frames], Frames]) -> Sample:
    """Change both halves; only once where they are the same array."""
    real = change(sample.real)
    fake = real if sample.fake is sample.real else change(sample.fake)
    return replace(sample, real=real, fake=fake)


def map_pictures(sample: Sample, change: Callable[[Image], Image]) -> Sample:
    """Change every frame of both halves by itself."""
    return map_halves(sample, lambda frames: map_frames(frames, change))


def drift(length: int, amount: float, rng: np.random.Generator, num: int = 1) -> NDArray[Any]:
    """Draw slow waves around zero, as of a hand, an exposure control or a tracker.

    Args:
        length: T.
        amount: height of the waves.
        rng: draws length and phase: between a third of a wave and one and a half a clip.
        num: how many waves.

    Returns:
        Shape (T, num), float64; zero for a single frame.
    """
    time = np.arange(length)[:, None] / max(length - 1, 1)
    wave = np.sin(2 * np.pi * (rng.uniform(0.3, 1.5, num) * time + rng.uniform(0, 1, num)))
    drifting: NDArray[Any] = amount * (wave - wave.mean(axis=0))
    return drifting


def smooth_boxes(boxes: Points) -> Points:
    """Smooth boxes through time by a Gaussian of `SMOOTHING` frames; a single one is unchanged."""
    position = np.arange(len(boxes))
    weights = np.exp(-0.5 * ((position[:, None] - position) / SMOOTHING) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    return (weights @ boxes).astype(np.float32)


def cut(
    sample: Sample, size: int, margin: float, rng: np.random.Generator | None
) -> tuple[Frames, Frames]:
    """Return both halves, (T, S, S, 3) each, of `crop_sample`, which takes the same arguments."""
    cropped = crop_sample(sample, size, margin, rng)
    return cropped.real, cropped.fake


def crop_sample(
    sample: Sample, size: int, margin: float, rng: np.random.Generator | None
) -> Sample:
    """Cut both halves of a sample at the same squares and resize them.

    Args:
        sample: the pair.
        size: side S of the result in pixels.
        margin: share of the box side added to it, as in the recipe.
        rng: varies margin, place, turn and interpolation, once for all frames, and how far the
            squares follow the face found in each frame, as at judgement, or its smoothed path.
            None for exactly what is cut at judgement, moved into the picture where it would reach
            beyond.

    Returns:
        Frames of (T, S, S, 3) with boxes and landmarks inside them.
    """
    boxes = sample.boxes
    zoom, shift, angle, smooth = 1.0, np.zeros(2), 0.0, cv2.INTER_LINEAR
    if rng is not None:
        # Down to 0.62, because the still crops show the face so close: 0.68 of its box.
        zoom = rng.uniform(0.62, 1.2)
        shift = rng.uniform(-0.05, 0.05, 2)
        angle = float(rng.normal(0, 4))
        smooth = [cv2.INTER_LINEAR, cv2.INTER_LINEAR, cv2.INTER_CUBIC][rng.integers(3)]
        if len(boxes) > 1:
            boxes = boxes + np.float32(rng.random()) * (smooth_boxes(boxes) - boxes)
    full = sample.real.shape[1]
    # Stay within what there is of the picture: a mirrored border would be learnt.
    sides = (1 + margin) * zoom * np.maximum(*(boxes[:, 2:] - boxes[:, :2]).T).astype(np.float64)
    sides = sides.clip(max=full)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2 + shift * sides[:, None]
    centres = centres.clip(sides[:, None] / 2, full - sides[:, None] / 2)
    warps = [
        _square_matrix(c, s, angle, size) for c, s in zip(centres, sides.tolist(), strict=True)
    ]

    def cut_half(frames: Frames) -> Frames:
        squares = [
            _warp_square(frame, warp, side, size, smooth)
            for frame, warp, side in zip(frames, warps, sides.tolist(), strict=True)
        ]
        return squares[0][None] if len(squares) == 1 else np.stack(squares)

    return replace(
        map_halves(sample, cut_half),
        boxes=_move_boxes(sample.boxes, warps, size / sides),
        landmarks=np.stack(
            [p @ w[:, :2].T + w[:, 2] for p, w in zip(sample.landmarks, warps, strict=True)]
        ).astype(np.float32),
    )


def _square_matrix(
    centre: NDArray[Any], side: float, angle: float, size: int
) -> NDArray[np.float64]:
    """Return the 2 x 3 matrix from places in a frame, corner at 0, to those in the cut square."""
    matrix = np.asarray(
        cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), angle, size / side),
        dtype=np.float64,
    )
    matrix[:, 2] += size / 2 - centre
    return matrix


def _warp_square(
    frame: Image, warp: NDArray[np.float64], side: float, size: int, smooth: int
) -> Image:
    """Warp a frame; the part that is shown is first shrunk by area, so that nothing aliases."""
    shrink = min(1.0, size / side)
    inverse = np.asarray(cv2.invertAffineTransform(warp), dtype=np.float64)
    square = np.array([[0.0, 0.0], [size, 0.0], [0.0, size], [size, size]])
    corners = square @ inverse[:, :2].T + inverse[:, 2]
    left, top = np.maximum(np.floor(corners.min(axis=0)) - 3, 0).astype(int)
    right, bottom = np.ceil(corners.max(axis=0)).astype(int) + 3
    part = frame[top:bottom, left:right]
    height, width = part.shape[:2]
    matrix = warp.copy()
    matrix[:, 2] += warp[:, :2] @ (left, top)
    if shrink < 1:
        small = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        part = as_picture(cv2.resize(part, small, interpolation=cv2.INTER_AREA))
        matrix[:, :2] *= (width / small[0], height / small[1])
    matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV counts from the middle of a pixel
    return as_picture(
        cv2.warpAffine(part, matrix, (size, size), flags=smooth, borderMode=cv2.BORDER_REFLECT)
    )


def _move_boxes(
    boxes: Points, warps: list[NDArray[np.float64]], scales: NDArray[np.float64]
) -> Points:
    """Move boxes by their middles and scale them; a turn is too small to change their form."""
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    middles = np.stack([w[:, :2] @ m + w[:, 2] for m, w in zip(middles, warps, strict=True)])
    halves = (boxes[:, 2:] - boxes[:, :2]) / 2 * scales[:, None]
    return np.concatenate([middles - halves, middles + halves], axis=1).astype(np.float32)


def difference_target(real: Frames, fake: Frames, cells: int) -> NDArray[np.float32]:
    """Mark where a fake differs from its real.

    Args:
        real: shape (T, S, S, 3), before degradation.
        fake: shape (T, S, S, 3).
        cells: side of the result.

    Returns:
        Shape (T, cells, cells): 1 where they differ, 0 where not, -1 where it is too close to tell.
    """
    target = np.zeros((len(real), cells, cells), dtype=np.float32)
    if fake is real:
        return target
    for at, (a, b) in enumerate(zip(real, fake, strict=True)):
        gap = cv2.absdiff(a, b).astype(np.float32)
        mean = cv2.resize(gap, (cells, cells), interpolation=cv2.INTER_AREA).mean(axis=2)
        target[at] = np.where(mean > CHANGED, 1.0, np.where(mean < UNCHANGED, 0.0, -1.0))
    return target


def find_swapped(
    real: NDArray[np.uint8], fakes: NDArray[np.uint8], boxes: Points
) -> NDArray[np.bool_]:
    """Say for every fake and frame whether it differs from the real within the face box.

    By the mean over the `SHARE` of the pixels that differ most, against `CHANGED`.
    """
    result = np.zeros(fakes.shape[:2], dtype=np.bool_)
    for k, fake in enumerate(fakes):
        for f, (x0, y0, x1, y1) in enumerate(boxes.astype(int).clip(0)):
            gap = np.abs(real[f, y0:y1, x0:x1].astype(int) - fake[f, y0:y1, x0:x1]).mean(axis=2)
            if gap.size:
                result[k, f] = gap[gap >= np.quantile(gap, 1 - SHARE)].mean() > CHANGED
    return result
