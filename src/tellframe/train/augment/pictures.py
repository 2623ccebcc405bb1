"""Degradations of single pictures, alike for the real and the fake of a sample and for all frames.

What the way of a video through cameras, editors and networks does to real and fake ones.
"""

from __future__ import annotations

from dataclasses import replace
from statistics import NormalDist
from typing import Final

import cv2
import numpy as np

from tellframe.train.augment.masks import EYES, MOUTH, NOSE, place
from tellframe.train.augment.sample import (
    Frames,
    Image,
    Points,
    Sample,
    as_picture,
    drift,
    map_halves,
    map_pictures,
)

MIRRORED: Final = (1, 0, 2, 4, 3)
"""Order of the landmarks of a mirrored face: left and right eye and mouth corner change places."""
KEPT: Final = 1 / 3
"""Least share of the difference of real and fake that a cover leaves to be seen."""
COVERS: Final = (EYES, NOSE, MOUTH)
QUANTILES: Final = np.array([NormalDist().inv_cdf((k + 0.5) / 256) for k in range(256)])
"""Shape (256,): a normal distribution in 256 equally likely steps."""


def relight(sample: Sample, rng: np.random.Generator) -> Sample:
    """Change gain, contrast, colour balance and saturation; the gain drifts through time.

    One picture in twenty becomes grey.
    """
    gain = rng.uniform(0.55, 1.3) * (1 + rng.uniform(-0.06, 0.06, 3))
    contrast, saturation = rng.uniform(0.8, 1.2), rng.uniform(0.4, 1.3)
    if rng.random() < 0.05:
        saturation = 0.0
    mixing = contrast * (saturation * np.eye(3) + (1 - saturation) / 3)
    colour = np.column_stack([mixing, np.full(3, 128 * (1 - contrast))]) * gain[:, None]
    matrices = [colour * (1 + d) for d in drift(len(sample.boxes), 0.02, rng)[:, 0]]

    def change(frames: Frames) -> Frames:
        # One 3 x 4 matrix does it all, and rounds once.
        lit = [as_picture(cv2.transform(f, m)) for f, m in zip(frames, matrices, strict=True)]
        return lit[0][None] if len(lit) == 1 else np.stack(lit)

    return map_halves(sample, change)


def rescale(sample: Sample, rng: np.random.Generator) -> Sample:
    """Shrink to 30 to 100 % and enlarge again."""
    factor = float(rng.uniform(0.3, 1.0))
    return map_pictures(sample, lambda picture: rescale_picture(picture, factor))


def rescale_picture(picture: Image, factor: float) -> Image:
    """Shrink and enlarge again to the same size."""
    side = picture.shape[0]
    small = max(8, round(side * factor))
    if small >= side:
        return picture
    shrunk = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
    return as_picture(cv2.resize(shrunk, (side, side), interpolation=cv2.INTER_CUBIC))


def blur(sample: Sample, rng: np.random.Generator) -> Sample:
    """Blur by a Gaussian of 0.3 to 1.6 pixels."""
    sigma = float(rng.uniform(0.3, 1.6))
    return map_pictures(sample, lambda picture: blur_picture(picture, sigma))


def blur_picture(picture: Image, sigma: float) -> Image:
    """Blur; a sigma below 0.3 pixels would change nothing."""
    return as_picture(cv2.GaussianBlur(picture, (0, 0), sigma)) if sigma >= 0.3 else picture


def noise(sample: Sample, rng: np.random.Generator) -> Sample:
    """Add the noise of a sensor: 1 to 7 grey levels, drawn anew for every frame and half."""
    sigma = rng.uniform(1, 7)
    return map_pictures(sample, lambda picture: noise_picture(picture, sigma, rng))


def noise_picture(picture: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add normal noise of that standard deviation in grey levels."""
    # Random bytes through a table: a tenth of the time of a normal draw a value.
    table = np.round(QUANTILES * sigma).astype(np.int16)[None]
    drawn = np.frombuffer(rng.bytes(picture.size), np.uint8).reshape(picture.shape)
    return as_picture(cv2.add(picture, cv2.LUT(drawn, table), dtype=cv2.CV_8U))


def expose_picture(picture: Image, gain: float) -> Image:
    """Multiply all values, cut off at white."""
    return as_picture(cv2.convertScaleAbs(picture, alpha=gain))


def jpeg(sample: Sample, rng: np.random.Generator) -> Sample:
    """Encode every frame as JPEG of quality 25 to 95, and decode it."""
    quality = int(rng.integers(25, 96))
    return map_pictures(sample, lambda picture: jpeg_picture(picture, quality))


def jpeg_picture(picture: Image, quality: int) -> Image:
    """Encode as JPEG and decode."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return as_picture(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB))


def flip(sample: Sample, _rng: np.random.Generator) -> Sample:
    """Mirror left and right, boxes and landmarks with the frames."""
    return flip_sample(sample)


def flip_sample(sample: Sample) -> Sample:
    """Mirror left and right; the landmarks keep their order, left to right as seen."""
    width = np.float32(sample.real.shape[2])
    boxes, landmarks = sample.boxes.copy(), sample.landmarks[:, MIRRORED].copy()
    boxes[:, [0, 2]] = width - sample.boxes[:, [2, 0]]
    landmarks[..., 0] = width - landmarks[..., 0]
    mirrored = map_pictures(sample, lambda picture: as_picture(cv2.flip(picture, 1)))
    return replace(mirrored, boxes=boxes, landmarks=landmarks)


def cutout(sample: Sample, rng: np.random.Generator) -> Sample:
    """Cover eyes, nose or mouth with one colour, in both halves and all frames.

    As in Seferbekov's winning entry to the DFDC (selimsef/dfdc_deepfake_challenge, 2020), so that
    no single part of the face decides. A part that holds most of what is fake stays uncovered: the
    label would be wrong without it.
    """
    order = rng.permutation(len(COVERS))
    colour = rng.integers(0, 256, 3) if rng.random() < 0.5 else np.zeros(3, dtype=np.int64)
    grow = np.float32(rng.uniform(0.8, 1.15))
    for part in order:
        middle = COVERS[part].mean(axis=0)
        covered = _cover(sample, (COVERS[part] - middle) * grow + middle, colour.tolist())
        if _difference(covered) >= KEPT * _difference(sample):
            return covered
    return sample


def _cover(sample: Sample, shape: Points, colour: list[int]) -> Sample:
    """Fill an outline in landmark units, (K, 2), in every frame."""
    corners = [place(shape, points).round().astype(np.int32) for points in sample.landmarks]

    def fill(frames: Frames) -> Frames:
        painted = frames.copy()
        for frame, outline in zip(painted, corners, strict=True):
            cv2.fillConvexPoly(frame, cv2.convexHull(outline), colour)
        return painted

    return map_halves(sample, fill)


def _difference(sample: Sample) -> float:
    """Return the sum of absolute differences of both halves."""
    if sample.fake is sample.real:
        return 0.0
    pairs = zip(sample.real, sample.fake, strict=True)
    return float(sum(sum(cv2.sumElems(cv2.absdiff(a, b))) for a, b in pairs))
