"""Make training pairs: a real crop and a fake of the same scene, cut and degraded alike.

Every function is pure: arrays and a random generator in, arrays out. Pictures are RGB uint8.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from tellframe.faces.align import similarity_transform

Image = NDArray[np.uint8]
Points = NDArray[np.float32]
P = TypeVar("P", np.uint8, np.float32)

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


@dataclass(frozen=True, slots=True)
class Sample:
    """A real crop, a fake of the same scene or the same crop again, and where the face is."""

    real: Image
    """Shape (P, P, 3)."""
    fake: Image
    """Shape (P, P, 3)."""
    box: Points
    """Shape (4,), xyxy of the face in the crop."""
    landmarks: Points
    """Shape (5, 2), in the crop."""


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


def soft_mask(outline: Points, side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Fill a randomly bent outline and blur its border.

    Returns:
        Shape (side, side, 1), 0 to 1.
    """
    span = float(np.ptp(outline, axis=0).mean())
    bent = outline + rng.normal(0, 0.04 * span, outline.shape)
    bent = (bent - bent.mean(axis=0)) * rng.uniform(0.8, 1.08) + bent.mean(axis=0)
    mask = np.zeros((side, side), dtype=np.float32)
    cv2.fillPoly(mask, [cv2.convexHull(bent.astype(np.int32))], 1.0)
    return _blur(mask, span * rng.uniform(0.01, 0.09))[..., None]


def _blur(image: NDArray[P], sigma: float) -> NDArray[P]:
    """Blur; a sigma below 0.3 pixels would change nothing."""
    if sigma < 0.3:
        return image
    return _array(cv2.GaussianBlur(image, (0, 0), sigma), image.dtype)


def _array(image: Any, dtype: np.dtype[P]) -> NDArray[P]:
    """Give OpenCV's result the type that it has."""
    return np.asarray(image, dtype=dtype)


def _picture(image: Any) -> Image:
    return np.asarray(image, dtype=np.uint8)


def blend(background: Image, foreground: Image, mask: NDArray[np.float32]) -> Image:
    """Alpha-blend; mask of shape (P, P, 1), 1 for foreground."""
    mixed = background * (1 - mask) + foreground * mask
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


def part_blend(sample: Sample, rng: np.random.Generator) -> Sample:
    """Put a part of the fake into its own real, 40 to 100 % strong."""
    outline = place(PARTS[rng.integers(len(PARTS))], sample.landmarks)
    mask = soft_mask(outline, len(sample.real), rng) * np.float32(rng.uniform(0.4, 1.0))
    return Sample(sample.real, blend(sample.real, sample.fake, mask), sample.box, sample.landmarks)


def self_blend(sample: Sample, rng: np.random.Generator) -> Sample:
    """Blend a real face with an altered copy of itself (Shiohara and Yamasaki, CVPR 2022)."""
    side = len(sample.real)
    face = float(sample.box[3] - sample.box[1])
    real, source, target = sample.real, sample.real, sample.real
    if rng.random() < 0.5:
        source = alter(source, rng)
    else:
        target = alter(target, rng)
        real = target  # the background of the fake is what the real of the pair must show
    matrix = cv2.getRotationMatrix2D(
        (side / 2, side / 2), rng.uniform(-3, 3), rng.uniform(0.95, 1.05)
    )
    warp = np.asarray(matrix, dtype=np.float64)
    warp[:, 2] += rng.uniform(-0.03, 0.03, 2) * face
    source = _picture(cv2.warpAffine(source, warp, (side, side), borderMode=cv2.BORDER_REFLECT))
    return _blend_face(sample, real, source, target, rng)


def swap_blend(sample: Sample, other: Sample, rng: np.random.Generator) -> Sample:
    """Blend another real person's face into a real one, warped by the landmarks.

    As in FaceForensics++'s FaceSwap, with the coarse inner face of the first autoencoders.
    """
    side = len(sample.real)
    matrix = similarity_transform(other.landmarks, sample.landmarks)
    source = _picture(
        cv2.warpAffine(
            other.real, matrix, (side, side), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT
        )
    )
    face = float(sample.box[3] - sample.box[1])
    source = rescale(source, float(np.clip(rng.uniform(48, 200) / max(face, 1), 0.1, 1)))
    return _blend_face(sample, sample.real, source, sample.real, rng)


def _blend_face(
    sample: Sample, real: Image, source: Image, target: Image, rng: np.random.Generator
) -> Sample:
    """Blend source into target within the face hull; colours matched more or less."""
    side = len(real)
    mask = soft_mask(place(HULL, sample.landmarks), side, rng)
    inside = mask[..., 0] > 0.5
    if inside.sum() > 50:
        source = match_colour(source, target, inside, float(rng.uniform(0.5, 1.0)))
    strength = np.float32(rng.choice([0.5, 0.75, 1.0, 1.0, 1.0]))
    return Sample(real, blend(target, source, mask * strength), sample.box, sample.landmarks)


def match_colour(source: Image, target: Image, inside: NDArray[np.bool_], strength: float) -> Image:
    """Move mean and spread of each channel towards the target's (Reinhard et al. 2001, in RGB)."""
    a, b = source[inside].astype(np.float32), target[inside].astype(np.float32)
    gain = np.clip((b.std(axis=0) + 1) / (a.std(axis=0) + 1), 0.5, 2)
    matched = (source - a.mean(axis=0)) * gain + b.mean(axis=0)
    mixed = source * (1 - strength) + matched * strength
    return np.asarray(np.clip(mixed, 0, 255), dtype=np.uint8)


def alter(image: Image, rng: np.random.Generator) -> Image:
    """Change colour, then sharpness or resolution, of one picture of a pair."""
    gain = 1 + rng.uniform(-0.12, 0.12) + rng.uniform(-0.05, 0.05, 3)
    changed = image * gain + rng.uniform(-12, 12) + rng.uniform(-6, 6, 3)
    out = np.clip(changed, 0, 255).astype(np.uint8)
    choice = rng.integers(3)
    if choice == 0:
        return rescale(out, float(rng.uniform(0.35, 0.9)))
    if choice == 1:
        soft = cv2.GaussianBlur(out, (0, 0), 1.0)
        return _picture(cv2.addWeighted(out, 1.5, soft, -0.5, 0))
    return _blur(out, float(rng.uniform(0.3, 1.5)))


def rescale(image: Image, factor: float) -> Image:
    """Shrink and enlarge again to the same size."""
    side = image.shape[0]
    small = max(8, round(side * factor))
    if small >= side:
        return image
    shrunk = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    return _picture(cv2.resize(shrunk, (side, side), interpolation=cv2.INTER_CUBIC))


def cut(
    sample: Sample, size: int, margin: float, rng: np.random.Generator | None
) -> tuple[Image, Image]:
    """Cut both pictures of a sample at the same square and resize them.

    Args:
        sample: the pair.
        size: side of the result in pixels.
        margin: share of the box side added to it, as in the recipe.
        rng: varies margin, place, mirror and interpolation; None for the exact crop, moved into the
            picture where it would reach beyond.
    """
    x0, y0, x1, y1 = (float(v) for v in sample.box)
    side = (1 + margin) * max(x1 - x0, y1 - y0)
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    angle, mirror, smooth = 0.0, False, cv2.INTER_LINEAR
    if rng is not None:
        # Down to 0.72, because the still crops show the face so close.
        side *= rng.uniform(0.72, 1.15)
        centre += rng.uniform(-0.05, 0.05, 2) * side
        angle = float(rng.normal(0, 4))
        mirror = bool(rng.random() < 0.5)
        smooth = [cv2.INTER_LINEAR, cv2.INTER_LINEAR, cv2.INTER_CUBIC][rng.integers(3)]
    # Stay within what there is of the picture: a mirrored border would be learnt.
    side = min(side, float(len(sample.real)))
    centre = centre.clip(side / 2, len(sample.real) - side / 2)
    # Shrink by area first, so that the rotation below need not antialias.
    shrink = min(1.0, size / side)
    warp = np.asarray(
        cv2.getRotationMatrix2D((float(centre[0]), float(centre[1])), angle, 1.0), np.float64
    )
    scale = size / side
    warp[:, 2] += side / 2 - centre
    warp[:, :2] *= scale / shrink
    warp[:, 2] *= scale
    pictures = []
    for picture in (sample.real, sample.fake):
        if shrink < 1:
            full = (round(picture.shape[1] * shrink), round(picture.shape[0] * shrink))
            picture = _picture(cv2.resize(picture, full, interpolation=cv2.INTER_AREA))
        out = _picture(
            cv2.warpAffine(picture, warp, (size, size), flags=smooth, borderMode=cv2.BORDER_REFLECT)
        )
        pictures.append(out[:, ::-1] if mirror else out)
    return pictures[0], pictures[1]


def degrade(pictures: list[Image], rng: np.random.Generator) -> list[Image]:
    """Degrade pictures alike: the same random parameters, noise apart.

    Colour, light, resolution, blur, noise and JPEG: what the way of a video through cameras,
    editors and networks does to real and fake ones.
    """
    if rng.random() < 0.7:
        pictures = _relight(pictures, rng)
    if rng.random() < 0.5:
        factor = float(rng.uniform(0.3, 1.0))
        pictures = [rescale(p, factor) for p in pictures]
    if rng.random() < 0.25:
        sigma = float(rng.uniform(0.3, 1.6))
        pictures = [_blur(p, sigma) for p in pictures]
    if rng.random() < 0.3:
        sigma = float(rng.uniform(1, 7))
        pictures = [
            np.clip(p + rng.normal(0, sigma, p.shape), 0, 255).astype(np.uint8) for p in pictures
        ]
    if rng.random() < 0.7:
        quality = int(rng.integers(25, 96))
        pictures = [_jpeg(p, quality) for p in pictures]
    return pictures


def _relight(pictures: list[Image], rng: np.random.Generator) -> list[Image]:
    """Apply one curve of gain, contrast, colour balance and saturation to all."""
    gain = rng.uniform(0.55, 1.3) * (1 + rng.uniform(-0.06, 0.06, 3))
    contrast, saturation = rng.uniform(0.8, 1.2), rng.uniform(0.4, 1.3)
    if rng.random() < 0.05:
        saturation = 0.0
    relit = []
    for picture in pictures:
        out = picture.astype(np.float32)
        grey = out.mean(axis=2, keepdims=True)
        out = grey + (out - grey) * np.float32(saturation)
        out = (out - 128) * np.float32(contrast) + 128
        relit.append(np.clip(out * gain.astype(np.float32), 0, 255).astype(np.uint8))
    return relit


def _jpeg(image: Image, quality: int) -> Image:
    bgr = np.ascontiguousarray(image[..., ::-1])
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return _picture(cv2.imdecode(data, cv2.IMREAD_COLOR_RGB))


def difference_target(real: Image, fake: Image, cells: int) -> NDArray[np.float32]:
    """Mark where a fake differs from its real.

    Args:
        real: shape (S, S, 3), before degradation.
        fake: shape (S, S, 3).
        cells: side of the result.

    Returns:
        Shape (cells, cells): 1 where they differ, 0 where not, -1 where it is too close to tell.
    """
    gap = cv2.absdiff(real, fake).mean(axis=2).astype(np.float32)
    mean = np.asarray(cv2.resize(gap, (cells, cells), interpolation=cv2.INTER_AREA))
    return np.where(mean > 6.0, 1.0, np.where(mean < 2.0, 0.0, -1.0)).astype(np.float32)
