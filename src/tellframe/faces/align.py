"""Cut face crops out of pictures, and brighten dark pictures."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellframe.faces.looks import inside_bars
from tellframe.recipe import Recipe
from tellframe.types import Face

TEMPLATE: Final = np.array(
    [[0.327, 0.378], [0.673, 0.378], [0.5, 0.546], [0.358, 0.757], [0.642, 0.757]], dtype=np.float64
)
"""Shape (5, 2): where "similarity" puts the landmarks in a crop without margin, as shares of its
side: the mean position of MTCNN's landmarks in the square around its own boxes, measured on 198
face pictures and made symmetric."""

LUMA: Final = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the luma of a picture (ITU-R BT.601)."""
BRIGHTENED_LUMA: Final = 110.0
"""The 75th percentile of luma to which a dark picture is brightened; that of daylight footage."""
MAX_GAIN: Final = 6.0
"""Strongest brightening; beyond it the noise of the sensor outweighs the face."""


def sample_luma(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the luma, 0 to 255, of some pixels of a picture of shape (H, W, 3), RGB.

    Black bars do not count: an upright video between two of them is no darker for it.
    """
    # Every 8th row and column: percentiles hardly change, the cost falls 64-fold.
    sample = inside_bars(image[::8, ::8]).astype(np.float32)
    return np.asarray(sample @ np.array(LUMA, dtype=np.float32))


def brighten(image: NDArray[np.uint8], below: float) -> NDArray[np.uint8]:
    """Brighten a dark picture; return others unchanged.

    Args:
        image: shape (H, W, 3), RGB.
        below: a picture is dark when the 75th percentile of `sample_luma` lies below this.

    Returns:
        The same array, or a new one of the same shape.
    """
    level = float(np.percentile(sample_luma(image), 75))
    if level >= below:
        return image
    gain = min(BRIGHTENED_LUMA / max(level, 1.0), MAX_GAIN)
    table = np.clip(np.arange(256) * gain, 0, 255).astype(np.uint8)
    brightened: NDArray[np.uint8] = table[image]
    return brightened


def crop_face(
    image: NDArray[np.uint8], face: Face, recipe: Recipe, scale: float = 1.0
) -> NDArray[np.uint8]:
    """Cut one face out of a picture as the recipe says.

    Args:
        image: shape (H, W, 3), RGB.
        face: where it is.
        recipe: alignment, margin and crop size.
        scale: side of the crop, in sides of the one that the margin gives.

    Returns:
        Shape (S, S, 3); black where the crop reaches beyond the picture.
    """
    margin = (1 + recipe.margin) * scale - 1
    if recipe.alignment == "similarity":
        return _crop_similarity(image, face.landmarks, margin, recipe.crop_size)
    if recipe.alignment == "stretch":
        return crop_box(image, _stretch_box(image, face.box, margin), recipe.crop_size)
    return crop_box(image, square_box(face.box, margin), recipe.crop_size)


def square_box(box: NDArray[np.float32], margin: float) -> NDArray[np.float64]:
    """Return the xyxy square around a box, its side (1 + margin) times the longer box side."""
    x0, y0, x1, y1 = (float(v) for v in box)
    half = (1 + margin) * max(x1 - x0, y1 - y0) / 2
    centre_x, centre_y = (x0 + x1) / 2, (y0 + y1) / 2
    return np.array([centre_x - half, centre_y - half, centre_x + half, centre_y + half])


def _stretch_box(
    image: NDArray[np.uint8], box: NDArray[np.float32], margin: float
) -> NDArray[np.float64]:
    """Return the box widened by the margin and clipped to the picture (facenet-pytorch)."""
    x0, y0, x1, y1 = (float(v) for v in box)
    dx, dy = margin * (x1 - x0) / 2, margin * (y1 - y0) / 2
    height, width = image.shape[:2]
    left, top = min(max(x0 - dx, 0), width - 1), min(max(y0 - dy, 0), height - 1)
    right, bottom = min(x1 + dx, width), min(y1 + dy, height)
    # A box outside the picture keeps a pixel of its border, so that there is something to stretch.
    return np.array([left, top, max(right, left + 1), max(bottom, top + 1)], dtype=np.float64)


def crop_box(image: NDArray[np.uint8], box: NDArray[np.float64], size: int) -> NDArray[np.uint8]:
    """Cut an xyxy box (in fractions of pixels) and resize it to size x size.

    Bilinear with antialiasing, so that a large face is averaged and not sampled.
    """
    height, width = image.shape[:2]
    outer = np.array([np.floor(box[0]), np.floor(box[1]), np.ceil(box[2]), np.ceil(box[3])])
    x0, y0, x1, y1 = (int(v) for v in outer)
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    patch = np.zeros((y1 - y0, x1 - x0, 3), dtype=np.uint8)
    left, top, right, bottom = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if right > left and bottom > top:
        patch[top - y0 : bottom - y0, left - x0 : right - x0] = image[top:bottom, left:right]
    inner = (
        max(float(box[0]) - x0, 0.0),
        max(float(box[1]) - y0, 0.0),
        min(float(box[2]) - x0, x1 - x0),
        min(float(box[3]) - y0, y1 - y0),
    )
    picture = Image.fromarray(patch).resize((size, size), Image.Resampling.BILINEAR, box=inner)
    return np.asarray(picture)


def similarity_transform(
    source: NDArray[np.floating], target: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Fit the 2 x 3 matrix of rotation, scale and shift that maps source to target points.

    Least squares without reflection (Umeyama 1991, in complex numbers).

    Args:
        source: shape (N, 2).
        target: shape (N, 2).

    Returns:
        Shape (2, 3).
    """
    from_points = source[:, 0] + 1j * source[:, 1]
    to_points = target[:, 0] + 1j * target[:, 1]
    from_mean, to_mean = from_points.mean(), to_points.mean()
    centred = from_points - from_mean
    factor = np.vdot(centred, to_points - to_mean) / max(np.vdot(centred, centred).real, 1e-12)
    shift = to_mean - factor * from_mean
    return np.array(
        [[factor.real, -factor.imag, shift.real], [factor.imag, factor.real, shift.imag]]
    )


def _crop_similarity(
    image: NDArray[np.uint8], landmarks: NDArray[np.float32], margin: float, size: int
) -> NDArray[np.uint8]:
    """Warp the landmarks onto `TEMPLATE`."""
    template = (0.5 + (TEMPLATE - 0.5) / (1 + margin)) * size
    to_image = similarity_transform(template, landmarks.astype(np.float64))
    # Warp at a whole multiple of the size where the face is larger than the crop, then average:
    # Pillow's transform does not antialias.
    factor = max(1, round(float(np.hypot(to_image[0, 0], to_image[1, 0]))))
    matrix = to_image.copy()
    matrix[:, :2] /= factor
    picture = Image.fromarray(image).transform(
        (size * factor, size * factor),
        Image.Transform.AFFINE,
        tuple(matrix.ravel()),
        Image.Resampling.BILINEAR,
    )
    return np.asarray(picture.reduce(factor) if factor > 1 else picture)
