"""Degradations of a clip as a whole: its codec, its frame rate and its order."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Final

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from tellframe.train.augment.sample import Frames, Image, Sample, as_picture, map_halves

PRESETS: Final = ("ultrafast", "superfast", "veryfast")
"""Of x264: the first has no deblocking filter and no B-frames, the last has both."""
BLOCK: Final = 16
"""Side in pixels of x264's macroblocks."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a clip is encoded."""

    crf: int
    """x264's constant rate factor: 17 can hardly be seen, 40 is coarse."""
    preset: str
    scale: float = 1.0
    """Share of the side at which it is encoded."""
    repeats: int = 1
    """How often each frame comes in the stream, as after a conversion to a higher frame rate."""
    kept: int = 0
    """Which of the repeats is taken."""
    shift: tuple[int, int] = (0, 0)
    """Rows and columns that are put before each frame: moves the grid of the blocks."""


def h264(sample: Sample, rng: np.random.Generator) -> Sample:
    """Encode both halves as H.264 with the same settings, and decode them.

    CRF 17 to 40, full size or down to half, each frame once or twice; a still is encoded as a video
    of three equal frames, so that it may come out as one that was predicted.
    """
    repeats = int(rng.integers(1, 3)) if len(sample.real) > 1 else 3
    encoding = Encoding(
        crf=int(rng.integers(17, 41)),
        preset=PRESETS[rng.integers(len(PRESETS))],
        scale=float(rng.uniform(0.5, 1.0)) if rng.random() < 0.5 else 1.0,
        repeats=repeats,
        kept=int(rng.integers(repeats)),
        shift=(int(rng.integers(BLOCK)), int(rng.integers(BLOCK))),
    )
    return map_halves(sample, lambda frames: encode_h264(frames, encoding))


def encode_h264(frames: Frames, encoding: Encoding) -> Frames:
    """Encode frames as one video by libx264, in memory, and decode them.

    Args:
        frames: shape (T, P, P, 3).
        encoding: how.

    Returns:
        Shape (T, P, P, 3).
    """
    side = frames.shape[1]
    top, left = encoding.shift
    bottom, right = (side + top) % 2, (side + left) % 2  # the chroma of 4:2:0 needs even sides
    full = (left + side + right, top + side + bottom)
    small = tuple(max(BLOCK, round(length * encoding.scale / 2) * 2) for length in full)
    encoder, decoder, reformatter = _open_encoder(small, encoding), _open_decoder(), _Reformatter()
    pictures: list[Any] = []
    for at, frame in enumerate(frames):
        padded = cv2.copyMakeBorder(frame, top, bottom, left, right, cv2.BORDER_REPLICATE)
        if small != full:
            padded = cv2.resize(padded, small, interpolation=cv2.INTER_AREA)
        picture = reformatter.to_yuv(padded)
        for repeat in range(encoding.repeats):
            picture.pts = at * encoding.repeats + repeat
            for packet in encoder.encode(picture):
                pictures += decoder.decode(packet)
    for packet in [*encoder.encode(None), None]:
        pictures += decoder.decode(packet)
    decoded = []
    for picture in pictures[encoding.kept :: encoding.repeats]:
        shown = reformatter.to_rgb(picture)
        if small != full:
            shown = as_picture(cv2.resize(shown, full, interpolation=cv2.INTER_CUBIC))
        decoded.append(shown[top : top + side, left : left + side])
    return np.stack(decoded)


class _Reformatter:
    """Converts between RGB and YUV 4:2:0; keeps FFmpeg's tables, which cost more than a frame."""

    def __init__(self) -> None:
        self._to_yuv, self._to_rgb = VideoReformatter(), VideoReformatter()

    def to_yuv(self, picture: Any) -> av.VideoFrame:
        """Convert a picture of (H, W, 3), both even."""
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        return self._to_yuv.reformat(frame, format="yuv420p")

    def to_rgb(self, frame: av.VideoFrame) -> Image:
        """Convert a frame as `tellframe.video` does."""
        return as_picture(self._to_rgb.reformat(frame, format="rgb24").to_ndarray())


def _open_encoder(size: tuple[int, ...], encoding: Encoding) -> Any:
    encoder: Any = av.CodecContext.create("libx264", "w")
    encoder.width, encoder.height = size
    encoder.pix_fmt, encoder.framerate, encoder.time_base = "yuv420p", 25, Fraction(1, 25)
    encoder.thread_count = 1  # the cores belong to the training step
    # With mbtree, x264 now and then gives other packets for the same pictures (39 of 20,724
    # encodings of small clips, preset veryfast; none of 65,424 without it).
    encoder.options = {"crf": str(encoding.crf), "preset": encoding.preset, "mbtree": "0"}
    return encoder


def _open_decoder() -> Any:
    decoder: Any = av.CodecContext.create("h264", "r")
    decoder.thread_count = 1
    return decoder


def frame_rate(sample: Sample, rng: np.random.Generator) -> Sample:
    """Repeat frames in the place of others, as after a conversion to half to nine tenths the rate.

    Every picture, box and landmark comes from the last frame that was kept; a still is unchanged.
    """
    length = len(sample.real)
    rate, start = rng.uniform(0.5, 0.9), rng.random()
    kept = np.floor(np.arange(length) * rate + start)
    first_of_each = np.searchsorted(kept, kept)
    return _reorder(sample, first_of_each)


def shuffle(sample: Sample, rng: np.random.Generator) -> Sample:
    """Put the frames of a clip into random order; a still is unchanged, and so is the label.

    Wanted by the DFDC notebook project that this one builds on: clips of real videos with their
    frames shuffled were to make more real ones, so that the classes balance. For a model of single
    frames whose scores are averaged it changes nothing; a model through time that learns from it
    no longer takes jumps between frames for a sign of a fake.
    """
    return _reorder(sample, rng.permutation(len(sample.real)))


def _reorder(sample: Sample, order: NDArray[np.integer[Any]]) -> Sample:
    """Take frames, boxes and landmarks at the given positions."""
    if np.array_equal(order, np.arange(len(sample.real))):
        return sample
    moved = map_halves(sample, lambda frames: frames[order])
    return replace(moved, boxes=sample.boxes[order], landmarks=sample.landmarks[order])
