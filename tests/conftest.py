"""Fixtures shared by all tests: the sample clips, and videos whose pictures carry their number."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import settings
from numpy.typing import NDArray

from tellframe.bench.videos import same_priority

ROOT = Path(__file__).resolve().parents[1]
COLUMNS, ROWS, BITS = 6, 4, 11

Picture = NDArray[np.uint8]


settings.register_profile("busy", deadline=None)  # whatever else runs on the machine
settings.load_profile("busy")


def pytest_configure() -> None:
    """Heed Ctrl-C, which whoever runs the tests in the background may have ignored for all."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def draw_number(number: int, width: int, height: int) -> Picture:
    """Draw a number (0 to 2047) that survives lossy coding.

    The picture is a grid of 6 x 4 cells: red at the top left, then the bits, white for 1, then
    the inverted bits, and blue at the bottom right.
    """
    bits = [(number >> i) & 1 for i in range(BITS)]
    cells = [(255, 0, 0), *((255 * b,) * 3 for b in bits), *((255 - 255 * b,) * 3 for b in bits)]
    grid = np.array([*cells, (0, 0, 255)], np.uint8).reshape(ROWS, COLUMNS, 3)
    rows = np.arange(height) * ROWS // height
    return np.ascontiguousarray(grid[rows][:, np.arange(width) * COLUMNS // width])


def parse_number(image: Picture) -> int:
    """Read the number back; raises AssertionError where the picture is none, or not upright."""
    height, width = image.shape[:2]
    y = ((np.arange(ROWS) + 0.5) * height / ROWS).astype(int)
    x = ((np.arange(COLUMNS) + 0.5) * width / COLUMNS).astype(int)
    luma = image[y][:, x].mean(axis=2).ravel()
    bits, inverse = luma[1 : 1 + BITS] > 128, luma[1 + BITS : -1] > 128
    assert (bits != inverse).all(), "the picture carries no readable number"
    return int(sum(1 << i for i, bit in enumerate(bits) if bit))


def write_video(
    path: Path,
    count: int = 25,
    *,
    codec: str = "libx264",
    size: tuple[int, int] = (96, 64),
    rate: int = 25,
    seconds: Sequence[float] | None = None,
    pixel_format: str = "yuv420p",
    gop: int = 8,
    b_frames: int = 0,
    aspect: Fraction = Fraction(1),
    options: Mapping[str, str] | None = None,
    container_options: Mapping[str, str] | None = None,
    draw: Callable[[int, int, int], Picture] = draw_number,
) -> Path:
    """Write a video whose pictures carry their number.

    Args:
        path: its suffix names the container.
        count: number of pictures.
        codec: as FFmpeg calls it.
        size: width and height in pixels.
        rate: pictures a second, where `seconds` is None.
        seconds: time stamp of every picture, in whole milliseconds.
        pixel_format: as FFmpeg calls it.
        gop: pictures from one keyframe to the next.
        b_frames: how many may follow each other.
        aspect: width by height of a pixel.
        options: for the encoder.
        container_options: for the muxer.
        draw: called with number, width and height; returns RGB of shape (height, width, 3).
    """
    muxer = dict(container_options or {})
    with same_priority(), av.open(str(path), "w", container_options=muxer) as container:
        stream = container.add_stream(codec, rate=rate, options=dict(options or {}))
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        context = stream.codec_context
        context.sample_aspect_ratio = aspect
        context.thread_count, context.gop_size, context.max_b_frames = 1, gop, b_frames
        unit = Fraction(1, rate) if seconds is None else Fraction(1, 1000)
        stream.time_base = context.time_base = unit
        for number in range(count if seconds is None else len(seconds)):
            frame = av.VideoFrame.from_ndarray(draw(number, *size), format="rgb24")
            frame.pts = number if seconds is None else round(seconds[number] * 1000)
            frame.time_base = unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def samples() -> Path:
    """Return the folder of the sample clips."""
    return ROOT / "samples"


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """Return `write_video`: writes a small video whose pictures carry their number."""
    return write_video


@pytest.fixture(scope="session")
def number_picture() -> Callable[[int, int, int], Picture]:
    """Return `draw_number`: the picture that carries a number, of a width and height."""
    return draw_number


@pytest.fixture(scope="session")
def read_number() -> Callable[[Picture], int]:
    """Return `parse_number`: reads the number of a picture of such a video."""
    return parse_number
