"""Draw a sample of a manifest's videos, open them in worker processes, and see what they show."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from tellframe.data.cut import Cutter, Outcome, VideoRecord, cut_video, given_up, load_cutter
from tellframe.data.manifest import Video
from tellframe.data.media import open_descriptor
from tellframe.faces import FaceDetector
from tellframe.faces.align import brighten, sample_luma
from tellframe.isolation import Failure, Limits, map_isolated
from tellframe.limits import ARCHIVE_LIMITS, ArchiveLimits
from tellframe.recipe import Recipe
from tellframe.types import Face

CLASSES: Final = ("REAL", "FAKE", "unknown")
"""How videos are counted."""
READABLE: Final = (Outcome.OK, Outcome.NO_FACE)
"""Outcomes of videos that were decoded."""
PICTURE_SIDE: Final = 320
"""Longest side of a picture for the page, in pixels."""


@dataclass(frozen=True, slots=True)
class Pictures:
    """What a person wants to see of a video, as JPEG; empty where there is nothing."""

    frame: bytes = b""
    """The middle one of the sampled frames, with boxes and landmarks."""
    confidence: tuple[float, ...] = ()
    """Of the faces in it, from left to right."""
    dark: bytes = b""
    """A frame as it is, where the video is dark."""
    brightened: bytes = b""
    """The same as the face detector sees it, with what it found."""


@dataclass(frozen=True, slots=True)
class Look:
    """What opening one video showed."""

    label: str
    """As in the manifest."""
    record: VideoRecord
    """What became of it, and facts about the file."""
    levels: tuple[float, ...] = ()
    """75th percentile of the luma (0-255) of every sampled frame: the rule of `brighten`."""
    lumas: tuple[float, ...] = ()
    """Mean luma of every sampled frame."""
    faces: tuple[int, ...] = ()
    """Faces found in every sampled frame, prints and short-lived ones included."""
    sizes: tuple[float, ...] = ()
    """Longer side in pixels of every face."""
    confidence: tuple[float, ...] = ()
    """The face detector's score of every face."""
    pictures: Pictures = Pictures()

    @property
    def readable(self) -> bool:
        """Whether it was decoded."""
        return self.record.outcome in READABLE

    @property
    def level(self) -> float:
        """Median of `levels`; NaN where nothing was decoded."""
        return median(self.levels) if self.levels else math.nan


def class_of(label: str) -> str:
    """Return the class that a label of the manifest is counted in."""
    return label if label in CLASSES else "unknown"


def draw_sample(videos: Sequence[Video], count: int | None, seed: int = 0) -> list[Video]:
    """Draw videos so that every class keeps its share (largest remainders), in random order.

    The hash of seed and name decides, so that neither the order of the manifest nor the version
    of a random generator matters.

    Args:
        videos: the manifest.
        count: how many; all where None, or where there are no more.
        seed: another one draws others.
    """
    total = len(videos)
    wanted = total if count is None else min(count, total)
    strata = {c: [v for v in videos if class_of(v.label) == c] for c in CLASSES}
    shares = {c: divmod(wanted * len(s), max(total, 1)) for c, s in strata.items()}
    quotas = {c: whole for c, (whole, _) in shares.items()}
    for c in sorted(CLASSES, key=lambda c: -shares[c][1])[: wanted - sum(quotas.values())]:
        quotas[c] += 1

    def draw(video: Video) -> bytes:
        return hashlib.sha256(f"{seed}\0{video.video}".encode("utf-8", "replace")).digest()

    drawn = [v for c in CLASSES for v in sorted(strata[c], key=draw)[: quotas[c]]]
    return sorted(drawn, key=draw)


def look_at(
    sample: Iterable[Video],
    recipe: Recipe,
    *,
    workers: int,
    endpoint: str = "",
    limits: Limits | None = None,
    archives: ArchiveLimits = ARCHIVE_LIMITS,
) -> Iterator[Look]:
    """Open videos in worker processes, sample their frames and find the faces.

    Args:
        sample: rows of a manifest.
        recipe: which frames, which face detector, and what counts as dark.
        workers: how many processes.
        endpoint: of S3 outside of Amazon.
        limits: for one video.
        archives: of zips that videos come from.

    Yields:
        One look a video, in the same order; whatever a video does costs that video alone.

    Raises:
        StoreError: the object store does not answer, which says nothing about a video.
        WorkerError: the processes cannot be started.
    """
    found = map_isolated(
        _look,
        sample,
        setup=load_cutter,
        arguments=(recipe, endpoint),
        workers=workers,
        limits=limits or Limits(),
        returns=Look,
        open_item=functools.partial(open_descriptor, endpoint=endpoint, limits=archives),
    )
    for video, look in found:
        if isinstance(look, Failure):
            yield Look(video.label, given_up(video, look).record)
        else:
            yield look


class _Watch:
    """A face detector that takes notes, and brightens dark frames itself to see them before."""

    def __init__(self, recipe: Recipe, detector: FaceDetector) -> None:
        self.name = detector.name
        self._detector = detector
        self._below, self._middle = recipe.brighten_below, recipe.num_frames // 2
        self.levels: list[float] = []
        self.lumas: list[float] = []
        self.found: list[list[Face]] = []
        self._frame: tuple[NDArray[np.uint8], list[Face]] | None = None
        self._dark: tuple[int, NDArray[np.uint8], list[Face]] | None = None

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """Find the faces of the next sampled frame."""
        position = len(self.levels)
        faces = self._detector.detect(brighten(image, self._below))
        level, luma = measure_brightness(image)
        self.levels.append(level)
        self.lumas.append(luma)
        self.found.append(faces)
        if position <= self._middle:  # the last one where the video has fewer frames
            self._frame = image, faces
        away = abs(position - self._middle)
        if level < self._below and (self._dark is None or away < self._dark[0]):
            self._dark = away, image, faces
        return faces

    def follow(self, image: NDArray[np.uint8], _faces: Sequence[Face]) -> list[Face]:
        """Do as `detect`; `_look` has every frame searched, and does not come here."""
        return self.detect(image)

    def draw(self) -> Pictures:
        """Return the pictures of the frames that were kept."""
        if self._frame is None:
            return Pictures()
        image, faces = self._frame
        pictures = Pictures(
            draw_faces(image, faces),
            tuple(round(f.confidence, 3) for f in sorted(faces, key=lambda f: float(f.box[0]))),
        )
        if self._dark is None or median(self.levels) >= self._below:
            return pictures
        _, dark, found = self._dark
        return dataclasses.replace(
            pictures,
            dark=draw_faces(dark, []),
            brightened=draw_faces(brighten(dark, self._below), found),
        )


def _look(cutter: Cutter, video: Video, descriptor: int | None = None) -> Look:
    """Look at one video; runs in a worker."""
    watch = _Watch(cutter.recipe, cutter.detector)
    # The watch brightens: were it done before, it could not tell how dark the frame is. The crops,
    # by which people are followed, are therefore never brightened, whatever the recipe says. Every
    # frame is searched, once: what is shown of it must not depend on the one before.
    recipe = dataclasses.replace(cutter.recipe, brighten_below=0.0, search_every=0.0)
    cutter = dataclasses.replace(cutter, recipe=recipe, detector=watch)
    record = cut_video(cutter, video, descriptor).record
    if record.outcome not in READABLE:
        return Look(video.label, record)
    faces = [face for found in watch.found for face in found]
    return Look(
        video.label,
        record,
        levels=tuple(watch.levels),
        lumas=tuple(watch.lumas),
        faces=tuple(len(found) for found in watch.found),
        sizes=tuple(face.size for face in faces),
        confidence=tuple(face.confidence for face in faces),
        pictures=watch.draw(),
    )


def measure_brightness(image: NDArray[np.uint8]) -> tuple[float, float]:
    """Return the 75th percentile and the mean of a picture's luma, 0 to 255, black bars left out.

    The percentile is the one that `tellframe.faces.align.brighten` compares.

    Args:
        image: shape (H, W, 3), RGB.
    """
    luma = sample_luma(image)
    return float(np.percentile(luma, 75)), float(luma.mean())


def draw_faces(image: NDArray[np.uint8], faces: Sequence[Face]) -> bytes:
    """Return a small JPEG of a picture, shape (H, W, 3), with boxes and landmarks."""
    picture = Image.fromarray(image)
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE), reducing_gap=2.0)
    scale = picture.width / image.shape[1]
    pen = ImageDraw.Draw(picture)
    for face in faces:
        x0, y0, x1, y1 = (float(v) * scale for v in face.box)
        pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline="black", width=4)
        pen.rectangle((x0, y0, x1, y1), outline="yellow", width=2)
        for x, y in (face.landmarks * scale).tolist():
            pen.ellipse((x - 3, y - 3, x + 3, y + 3), fill="yellow", outline="black")
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=78)
    return buffer.getvalue()
