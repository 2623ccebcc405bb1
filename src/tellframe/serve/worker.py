"""What a worker process of the service does: it loads a detector, and judges file after file.

See `tellframe.worker`, which runs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tellframe.detector import Detector, load
from tellframe.extract import extract_clips
from tellframe.faces import FaceDetector
from tellframe.isolated import warm_up_video
from tellframe.types import Face, FaceVerdict, Media
from tellframe.videofile import VideoFile
from tellframe.worker import Progress

STAGES: Final = ("reading", "faces", "judging")
"""Of an analysis; in "faces", a step is a sampled frame."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is found in one file; the verdict on the video is made of it by the parent."""

    people: tuple[FaceVerdict, ...]
    media: Media
    counters: dict[str, int]


def prepare(model: str | None, threads: int, overrides: dict[str, Any]) -> Detector:
    """Load the detector, score a sample, and decode one, so that a worker that is ready is.

    Raises:
        TellframeError: the model cannot be loaded, or does not compute what it should.
    """
    detector = load(model, threads=threads, isolate=False, **overrides)
    detector.check_golden()
    # Python imports some things when they are first used: later, it may not open them any more.
    with warm_up_video() as file:
        analyse(detector, file.name, file.descriptor, lambda *_: None)
    return detector


def analyse(detector: Detector, name: str, descriptor: int, progress: Progress) -> Finding:
    """Judge one file, saying how far it is.

    Args:
        detector: with its face detector in this process.
        name: of the file.
        descriptor: of the file, open for reading.
        progress: told of the `STAGES`.

    Raises:
        MediaError: the file cannot be analysed.
    """
    progress("reading", 0, 0)
    recipe = detector.recipe
    watched = _Watched(detector.face_detector, recipe.num_frames, progress)
    file = VideoFile(name, descriptor)
    found = extract_clips(file, recipe, watched, threads=detector.threads)
    progress("judging", 0, 0)
    return Finding(detector.judge(found.clips), found.media, found.counters)


class _Watched:
    """A face detector that says how many frames it has seen."""

    def __init__(self, inner: FaceDetector, total: int, progress: Progress) -> None:
        self.name = inner.name
        self._inner, self._total, self._progress = inner, total, progress
        self._done = 0

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """Find faces; see `FaceDetector.detect`."""
        found = self._inner.detect(image)
        self._tell()
        return found

    def follow(self, image: NDArray[np.uint8], faces: Sequence[Face]) -> list[Face]:
        """Find known faces again; see `FaceDetector.follow`."""
        found = self._inner.follow(image, faces)
        if len(found) == len(faces):  # otherwise the whole picture is searched next
            self._tell()
        return found

    def _tell(self) -> None:
        self._done = min(self._done + 1, self._total)
        self._progress("faces", self._done, self._total)
