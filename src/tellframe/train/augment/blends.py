"""Makers of fakes: out of a real face, out of two, or out of a fake and its own original."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tellframe.faces.align import similarity_transform
from tellframe.train.augment.masks import HULL, LOCAL, PARTS, hard_masks, soft_masks
from tellframe.train.augment.pictures import blur_picture, flip_sample, rescale_picture
from tellframe.train.augment.sample import (
    Frames,
    Image,
    Points,
    Sample,
    as_picture,
    drift,
    map_frames,
)

WEAKEST: Final = 0.4
"""Least share of the fake in what is mixed of it and its original: below, no trace may be left."""

CHANGED: Final = 0.5
"""A part counts as faked where it differs at least by this share of what the whole face does."""


def blend(background: Frames, foreground: Frames, masks: NDArray[np.float32]) -> Frames:
    """Alpha-blend frames of (T, P, P, 3); masks of (T, P, P), 1 for foreground."""
    mixed = [
        as_picture(cv2.blendLinear(a, b, 1 - m, m))
        for a, b, m in zip(background, foreground, masks, strict=True)
    ]
    return mixed[0][None] if len(mixed) == 1 else np.stack(mixed)


def mixup(sample: Sample, rng: np.random.Generator) -> Sample:
    """Mix the whole fake with its own original, 40 to 100 % strong.

    As Zhang et al. (ICLR 2018), but within a pair and with the label of a fake: whoever shows half
    of a swapped face shows a fake.
    """
    share = rng.uniform(WEAKEST, 1.0)
    pairs = zip(sample.real, sample.fake, strict=True)
    mixed = [as_picture(cv2.addWeighted(a, 1 - share, b, share, 0)) for a, b in pairs]
    return replace(sample, fake=np.stack(mixed))


def part_blend(sample: Sample, rng: np.random.Generator) -> Sample:
    """Put a part of the face of the fake into its own original, 40 to 100 % strong.

    Only a part in which the fake differs from its original: the eyes of a fake whose lips alone
    were made are real.
    """
    gaps = [cv2.absdiff(a, b) for a, b in zip(sample.real, sample.fake, strict=True)]
    least = CHANGED * _mean_gap(gaps, HULL, sample)
    parts = (PARTS[at] for at in rng.permutation(len(PARTS)))
    shape = next((p for p in parts if p is HULL or _mean_gap(gaps, p, sample) >= least), HULL)
    masks = soft_masks(shape, sample.landmarks, sample.real.shape[1], rng)
    masks *= np.float32(rng.uniform(WEAKEST, 1.0))
    return replace(sample, fake=blend(sample.real, sample.fake, masks))


def _mean_gap(gaps: Sequence[Any], shape: Points, sample: Sample) -> float:
    """Return the mean over all frames of the differences, (P, P, 3) each, within an outline."""
    masks = hard_masks(shape, sample.landmarks, sample.real.shape[1])
    means = [sum(cv2.mean(gap, mask=m)) for gap, m in zip(gaps, masks, strict=True)]
    return sum(means) / len(means)


def self_blend(sample: Sample, rng: np.random.Generator, shape: Points = HULL) -> Sample:
    """Blend a real face with an altered copy of itself (Shiohara and Yamasaki, CVPR 2022).

    Of `sample` only the real is used. The copy is shifted, turned and scaled; through time that
    shift drifts slightly.

    Args:
        sample: a real face.
        rng: draws all of that.
        shape: outline within which the copy is seen, (K, 2), as `HULL`.
    """
    real, source, target = sample.real, sample.real, sample.real
    if rng.random() < 0.5:
        source = alter(source, rng)
    else:
        target = alter(target, rng)
        real = target  # the background of the fake is what the real of the pair must show
    length, side = real.shape[:2]
    warp = np.asarray(
        cv2.getRotationMatrix2D((side / 2, side / 2), rng.uniform(-3, 3), rng.uniform(0.95, 1.05)),
        dtype=np.float64,
    )
    shifts = (rng.uniform(-0.03, 0.03, 2) + drift(length, 0.006, rng, 2)) * sample.face
    warps = np.stack([warp] * length)
    warps[:, :, 2] += shifts
    moved = [
        warp_frame(frame, w, side, cv2.INTER_LINEAR) for frame, w in zip(source, warps, strict=True)
    ]
    return blend_faces(sample, real, np.stack(moved), target, rng, shape)


def swap_blend(
    sample: Sample, other: Sample, rng: np.random.Generator, shape: Points = HULL
) -> Sample:
    """Blend another real person's face into a real one, warped by the landmarks of each frame.

    As in FaceForensics++'s FaceSwap, with the coarse inner face of the first autoencoders. Of both
    samples only the real is used.

    Args:
        sample: a real face.
        other: the face that comes in.
        rng: draws how coarse it is, mask, strength and colour.
        shape: outline within which it is seen, (K, 2), as `HULL`.
    """
    brought = bring_face(sample, other, rng)
    return blend_faces(sample, sample.real, brought, sample.real, rng, shape)


def local_blend(sample: Sample, other: Sample, rng: np.random.Generator) -> Sample:
    """Blend a part of a real face with an altered copy of itself, or with another real person's."""
    shape = LOCAL[rng.integers(len(LOCAL))]
    if rng.random() < 0.5:
        return self_blend(sample, rng, shape)
    return swap_blend(sample, other, rng, shape)


def bring_face(sample: Sample, other: Sample, rng: np.random.Generator) -> Frames:
    """Warp another person's face onto the sample's, as coarse as a small network makes it.

    Where the other clip is shorter, it is played to and fro; where that person looks to the other
    side, it is mirrored.

    Returns:
        Shape (T, P, P, 3), the frames of `other.real` moved to the landmarks of `sample`.
    """
    if turn(sample.landmarks) * turn(other.landmarks) < 0:
        other = flip_sample(replace(other, fake=other.real))
    length, side = sample.real.shape[:2]
    there_and_back = [*range(len(other.real)), *range(len(other.real) - 2, 0, -1)]
    order = [there_and_back[t % len(there_and_back)] for t in range(length)]
    factor = float(np.clip(rng.uniform(48, 200) / max(sample.face, 1), 0.1, 1))
    source = [
        _bring(other.real[b], similarity_transform(other.landmarks[b], points), side, factor)
        for b, points in zip(order, sample.landmarks, strict=True)
    ]
    return np.stack(source)


def turn(landmarks: Points) -> float:
    """Return how far a head is turned to the right as seen: below 0 for the left, 0 to the front.

    Args:
        landmarks: (T, 5, 2); the mean over all frames counts.

    Returns:
        The way of the nose from the middle of eyes and mouth, in distances of the eyes.
    """
    across = landmarks[:, 1] - landmarks[:, 0]
    off = landmarks[:, 2] - landmarks[:, [0, 1, 3, 4]].mean(axis=1)
    return float(((off * across).sum(axis=1) / ((across**2).sum(axis=1) + 1e-6)).mean())


def _bring(frame: Image, matrix: NDArray[np.float64], side: int, factor: float) -> Image:
    """Warp a frame of another person as if a network had made it `factor` times as fine."""
    full = len(frame)
    small = max(8, round(full * min(1.0, factor * float(np.hypot(*matrix[:, 0])))))
    if small < full:
        frame = as_picture(cv2.resize(frame, (small, small), interpolation=cv2.INTER_AREA))
        matrix = matrix.copy()
        matrix[:, :2] *= full / small
        matrix[:, 2] += matrix[:, :2] @ (0.5, 0.5) - 0.5  # OpenCV counts from a pixel's middle
    return warp_frame(frame, matrix, side, cv2.INTER_CUBIC)


def warp_frame(frame: Image, matrix: NDArray[np.float64], side: int, smooth: int) -> Image:
    """Warp a frame by a 2 x 3 matrix into a square of that side, mirrored beyond its border."""
    return as_picture(
        cv2.warpAffine(frame, matrix, (side, side), flags=smooth, borderMode=cv2.BORDER_REFLECT)
    )


def blend_faces(
    sample: Sample,
    real: Frames,
    source: Frames,
    target: Frames,
    rng: np.random.Generator,
    shape: Points = HULL,
) -> Sample:
    """Blend source into target within an outline; colours matched more or less.

    Args:
        sample: gives the landmarks.
        real: (T, P, P, 3), the real of the pair that is made.
        source: (T, P, P, 3), the faces that come in, at their places.
        target: (T, P, P, 3), what they are blended into.
        rng: draws mask, strength and colour.
        shape: the outline, (K, 2), as `HULL`.
    """
    masks = soft_masks(shape, sample.landmarks, real.shape[1], rng)
    source = match_colour(source, target, masks > 0.5, float(rng.uniform(0.5, 1.0)))
    masks *= np.float32(rng.choice([0.5, 0.75, 1.0, 1.0, 1.0]))
    return replace(sample, real=real, fake=blend(target, source, masks))


def match_colour(
    source: Frames, target: Frames, inside: NDArray[np.bool_], strength: float
) -> Frames:
    """Move mean and spread of each channel towards the target's (Reinhard et al. 2001, in RGB).

    Args:
        source: shape (T, P, P, 3).
        target: shape (T, P, P, 3).
        inside: shape (T, P, P), where both are measured, over all frames at once.
        strength: 0 for no change, 1 for the target's mean and spread.

    Returns:
        Shape (T, P, P, 3).
    """
    if inside.sum() <= 50 * len(inside):
        return source
    (mean_a, spread_a), (mean_b, spread_b) = _measure(source, inside), _measure(target, inside)
    gain = np.clip((spread_b + 1) / (spread_a + 1), 0.5, 2)
    return _curve(source, 1 + strength * (gain - 1), strength * (mean_b - mean_a * gain))


def _measure(frames: Frames, inside: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return mean and standard deviation of each channel, (3,) both."""
    pixels = frames.reshape(-1, frames.shape[2], 3)
    mask = inside.view(np.uint8).reshape(pixels.shape[:2])
    mean, spread = cv2.meanStdDev(pixels, mask=mask)
    return mean[:, 0], spread[:, 0]


def _curve(frames: Frames, gain: NDArray[Any], offset: NDArray[Any]) -> Frames:
    """Apply value * gain + offset to each channel; gain and offset of shape (3,)."""
    table = np.arange(256)[:, None] * gain + offset
    levels = np.clip(table + 0.5, 0, 255).astype(np.uint8)[None]
    return as_picture(cv2.LUT(frames.reshape(-1, frames.shape[2], 3), levels)).reshape(frames.shape)


def alter(frames: Frames, rng: np.random.Generator) -> Frames:
    """Change colour, then sharpness or resolution, of one half of a pair."""
    gain = 1 + rng.uniform(-0.12, 0.12) + rng.uniform(-0.05, 0.05, 3)
    out = _curve(frames, gain, rng.uniform(-12, 12) + rng.uniform(-6, 6, 3))
    choice = rng.integers(3)
    if choice == 0:
        factor = float(rng.uniform(0.35, 0.9))
        return map_frames(out, lambda frame: rescale_picture(frame, factor))
    if choice == 1:
        return map_frames(out, _sharpen)
    sigma = float(rng.uniform(0.3, 1.5))
    return map_frames(out, lambda frame: blur_picture(frame, sigma))


def _sharpen(frame: Image) -> Image:
    soft = cv2.GaussianBlur(frame, (0, 0), 1.0)
    return as_picture(cv2.addWeighted(frame, 1.5, soft, -0.5, 0))
