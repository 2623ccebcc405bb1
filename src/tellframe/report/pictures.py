"""Face crops and heat maps as pictures that are embedded in the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tellframe.types import Evidence, Moment

SCALE_FLOOR: Final = 1.0
"""Least top of the colour scale, in logits (odds times 2.7). Without it, a person without any
evidence would get the same bright spots as a fake."""

_RAMP: Final = np.array(
    [[87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], dtype=np.float64
)
"""Four colours of matplotlib's "inferno" (CC0), whose lightness rises evenly, so that the ramp can
be read in grey print and with any colour vision."""

_OPACITY: Final = 0.8
_DIMMED: Final = 0.72
"""The crop below the heat map is grey and darker, so that skin is not taken for heat."""

_JPEG_QUALITY: Final = 90


def choose_moments(
    moments: Sequence[Moment], count: int = 3
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Choose which moments are shown.

    Args:
        moments: Judged frames of one person.
        count: Most moments of either kind.

    Returns:
        Positions of the most suspicious moments, highest P(fake) first, and of the least
        suspicious ones, lowest first. No position is in both.
    """
    order = sorted(range(len(moments)), key=lambda i: -moments[i].probability)
    most = min(count, (len(order) + 1) // 2)
    least = min(count, len(order) - most)
    return tuple(order[:most]), tuple(order[::-1][:least])


def heat_scale(evidence: Evidence) -> float:
    """Return the top of the colour scale of one person in logits; the same for all its crops."""
    heat = np.nan_to_num(evidence.heat, nan=0.0, posinf=0.0, neginf=0.0)
    return max(SCALE_FLOOR, float(heat.max(initial=0.0)))


def crop_uri(crop: NDArray[np.uint8], side: int) -> str:
    """Return a crop of shape (S, S, 3) as a JPEG data URI of at most `side` pixels."""
    return _jpeg_uri(_shrink(crop, side))


def overlay_uri(crop: NDArray[np.uint8], heat: NDArray[np.float32], scale: float, side: int) -> str:
    """Return a crop below its heat map as a JPEG data URI.

    Only positive evidence is drawn; where the map is zero or negative the crop stays grey.

    Args:
        crop: Shape (S, S, 3), RGB.
        heat: Shape (h, w), logits, positive speaks for fake.
        scale: Logits at the top of the ramp.
        side: Longest side of the picture in pixels.
    """
    small = _shrink(crop, side)
    strength = np.clip(_enlarge(heat, small.shape[0], small.shape[1]) / scale, 0.0, 1.0)
    grey = small.astype(np.float64) @ (0.299, 0.587, 0.114) * _DIMMED
    return _jpeg_uri(_blend(grey, strength))


def ramp_colors(count: int = 12) -> list[str]:
    """Return the colours of the legend as #rrggbb, from no evidence to the top of the scale."""
    blended = _blend(np.full(count, 128 * _DIMMED), np.linspace(0.0, 1.0, count))
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in blended]


def hottest_place(heat: NDArray[np.float32], scale: float) -> str | None:
    """Return in words where in the crop most speaks for fake, None where hardly anything does.

    Args:
        heat: Shape (h, w), logits.
        scale: Logits at the top of the ramp; below a tenth of it nothing can be seen.
    """
    clean = np.nan_to_num(heat, nan=0.0, posinf=0.0, neginf=0.0)
    if not clean.size or clean.max() < 0.1 * scale:
        return None
    row, column = np.unravel_index(int(clean.argmax()), clean.shape)
    vertical = ("upper", "middle", "lower")[int(3 * row // clean.shape[0])]
    horizontal = ("left", "middle", "right")[int(3 * column // clean.shape[1])]
    return "middle" if vertical == horizontal else f"{vertical} {horizontal}"


def _blend(grey: NDArray[np.float64], strength: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Lay the ramp over grey values; both of any one shape, the result has RGB as last axis."""
    stops = np.linspace(0.0, 1.0, len(_RAMP))
    color = np.stack([np.interp(strength, stops, _RAMP[:, c]) for c in range(3)], axis=-1)
    # The root makes weak evidence visible, while none at all stays fully transparent.
    alpha = (_OPACITY * np.sqrt(strength))[..., None]
    mixed = grey[..., None] * (1 - alpha) + color * alpha
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def _shrink(crop: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    from PIL import Image  # here, so that writing JSON does not pay for it

    height, width = crop.shape[:2]
    factor = side / max(height, width)
    if factor >= 1:
        return crop
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    picture = Image.fromarray(np.ascontiguousarray(crop)).resize(size, Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _enlarge(heat: NDArray[np.float32], height: int, width: int) -> NDArray[np.float64]:
    from PIL import Image  # as above

    clean = np.nan_to_num(heat.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    picture = Image.fromarray(np.ascontiguousarray(clean))
    return np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)


def _jpeg_uri(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image  # as above

    buffer = io.BytesIO()
    # Full colour resolution: the traces that a person looks for are often in the colour.
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0, optimize=True
    )
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
