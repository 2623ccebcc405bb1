"""The conditions of `measure_robustness.py`: what is done to every picture of a video."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from measuring import CLEAN, PRESET, Picture, digest_of, encode
from tellframe.video import list_frames, read_frames

Change = Callable[[Picture, np.random.Generator], Picture]


def keep(image: Picture, _: np.random.Generator) -> Picture:
    """Return the picture as it is."""
    return image


def resized(factor: float) -> Change:
    """Return a change of size, by area with a window (Lanczos), as video tools do it."""

    def change(image: Picture, _: np.random.Generator) -> Picture:
        height, width = image.shape[:2]
        size = (max(2, round(width * factor)), max(2, round(height * factor)))
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))

    return change


def blurred(sigma: float) -> Change:
    """Return a Gaussian blur; sigma in pixels."""

    def change(image: Picture, _: np.random.Generator) -> Picture:
        return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(sigma)))

    return change


def exposed(gain: float) -> Change:
    """Return a change of brightness: all values times the gain, cut off at white."""
    values = np.clip(np.arange(256) * gain, 0, 255).round().astype(np.uint8)

    def change(image: Picture, _: np.random.Generator) -> Picture:
        return np.asarray(values[image])

    return change


def noised(sigma: float) -> Change:
    """Return Gaussian noise, of every channel by itself; sigma in grey levels."""

    def change(image: Picture, rng: np.random.Generator) -> Picture:
        noise = rng.standard_normal(image.shape, np.float32) * np.float32(sigma)
        return (image + noise).clip(0, 255).round().astype(np.uint8)

    return change


def letterboxed(share: float) -> Change:
    """Return a crop to a letterbox: black bars over a share of the height, above and below."""

    def change(image: Picture, _: np.random.Generator) -> Picture:
        bar = round(len(image) * share)
        boxed = np.zeros_like(image)
        boxed[bar : len(image) - bar] = image[bar : len(image) - bar]
        return boxed

    return change


def barred(bars: int, share: float) -> Change:
    """Return what hides a share of the picture behind upright grey bars, evenly spread."""

    def change(image: Picture, _: np.random.Generator) -> Picture:
        along = np.arange(image.shape[1]) * bars / image.shape[1] % 1
        hidden = image.copy()
        hidden[:, along < share] = 128
        return hidden

    return change


WATERMARK: Final = "TELLFRAME  ROBUSTNESS"
LINES: Final = 7
"""Lines of the watermark over the height of a picture: about two run across a face."""
OPACITY: Final = 0.35


@lru_cache(maxsize=8)
def draw_mark(width: int, height: int) -> NDArray[np.float32]:
    """Draw the watermark over a whole picture.

    Returns:
        Opacity of white, (height, width, 1).
    """
    canvas = Image.new("L", (width, height))
    font = ImageFont.load_default(height / LINES / 2)
    draw = ImageDraw.Draw(canvas)
    length = max(draw.textlength(WATERMARK + "  ", font), 1)
    for line in range(LINES):
        # Every other line is moved by half, so that no place is free of text in all of them.
        for x in np.arange(-length * (line % 2) / 2, width, length):
            draw.text((x, height * (line + 0.25) / LINES), WATERMARK, 255, font)
    return np.asarray(canvas, np.float32)[..., None] * np.float32(OPACITY / 255)


def watermarked(image: Picture, _: np.random.Generator) -> Picture:
    """Draw white, half transparent text over the whole picture."""
    mark = draw_mark(image.shape[1], image.shape[0])
    return (image + mark * (255 - image.astype(np.float32))).round().astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Condition:
    """One way to make all videos anew."""

    name: str
    what: str
    """In plain words, with units."""
    change: Change = keep
    """Of every picture."""
    crf: int = CLEAN
    """Of libx264."""

    @property
    def digest(self) -> str:
        """Tells the condition from others of the same name."""
        return digest_of([self.name, self.what, self.crf, PRESET])


CONDITIONS: Final = (
    Condition("re-encoded", f"H.264, CRF {CLEAN}"),
    *(Condition(f"CRF {crf}", f"H.264, CRF {crf}", crf=crf) for crf in (23, 28, 35, 40)),
    Condition("half size", "half as wide and high", resized(0.5)),
    Condition("quarter size", "a quarter as wide and high", resized(0.25)),
    Condition("blurred", "Gaussian blur, sigma 2 pixels", blurred(2.0)),
    Condition("darkened", "all values divided by 3", exposed(1 / 3)),
    Condition("brightened", "all values times 1.7, cut off at white", exposed(1.7)),
    Condition("noised", "Gaussian noise, sigma 12 of 255", noised(12.0)),
    Condition("letterboxed", "an eighth above and below made black", letterboxed(1 / 8)),
    Condition("occluded", "a quarter hidden behind 12 upright grey bars", barred(12, 0.25)),
    Condition("watermarked", f"white text at {OPACITY:.0%} all over the picture", watermarked),
)
"""Apart from compression itself all are encoded at CRF `CLEAN`; "re-encoded" shows what that costs
by itself."""


def make_video(source: str | Path, target: Path, condition: Condition) -> None:
    """Make one video anew, all of its pictures, at its mean rate.

    Args:
        source: a local video.
        target: an MP4; its folder is made.
        condition: how.

    Raises:
        MediaError: the source cannot be read.
    """
    listing = list_frames(source)
    rng = np.random.default_rng(zlib.crc32(f"{condition.name}:{target.name}".encode()))
    frames = read_frames(source, listing, range(len(listing.times)), threads=1)
    pictures = (condition.change(frame.image, rng) for frame in frames)
    encode(pictures, target, listing.media.frame_rate, condition.crf)
