"""What a worker process runs: it loads a detector, gives up its rights, and judges file after file.

A sibling of `tellframe.worker` that says how far it is.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tellframe.channel import WorkerEnd
from tellframe.detector import Detector, load
from tellframe.extract import extract_clips
from tellframe.faces import FaceDetector
from tellframe.isolated import warm_up_video
from tellframe.sandbox import (
    confine,
    limit_memory,
    limit_processor,
    tie_to_parent,
)
from tellframe.types import Face, FaceVerdict, Media, Sandbox
from tellframe.videofile import VideoFile
from tellframe.wire import pack

Progress = Callable[[str, int, int], None]
"""Called with the stage, how many steps of it are done, and how many there are (0: not known)."""
READY, PROGRESS, RETURNED, RAISED = b"=", b"~", b"+", b"-"
"""First byte of a message to the parent."""
_LONGEST_TEXT: Final = 4000


@dataclass(frozen=True, slots=True)
class Task:
    """What the parent asks of a worker; sent as JSON."""

    model: str | None
    threads: int
    overrides: dict[str, Any]
    memory: int
    """Bytes of address space."""
    processor: float
    """Seconds of all processors together for one file."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What is found in one file; the verdict on the video is made of it by the parent."""

    people: tuple[FaceVerdict, ...]
    media: Media
    counters: dict[str, int]


def prepare(task: Task) -> Detector:
    """Load the detector, score a sample, and decode one, so that a worker that is ready is.

    Raises:
        TellframeError: the model cannot be loaded, or does not compute what it should.
    """
    detector = load(task.model, threads=task.threads, isolate=False, **task.overrides)
    detector.check_golden()
    # Python imports some things when they are first used: later, it may not open them any more.
    with warm_up_video() as file:
        analyse(detector, file, lambda *_: None)
    return detector


def analyse(detector: Detector, file: VideoFile, progress: Progress) -> Finding:
    """Judge one file, saying how far it is.

    Args:
        detector: with its face detector in this process.
        file: open for reading.
        progress: told of the stages "reading", "faces" (a step a sampled frame) and "judging".

    Raises:
        MediaError: the file cannot be analysed.
    """
    progress("reading", 0, 0)
    recipe = detector.recipe
    watched = _Watched(detector.face_detector, recipe.num_frames, progress)
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


def main(arguments: list[str]) -> None:
    """Run a worker process.

    Args:
        arguments: number of the descriptor of the channel, id of the parent.
    """
    channel = WorkerEnd(int(arguments[0]))
    tie_to_parent(int(arguments[1]))
    try:
        _serve(channel)
    except (EOFError, OSError):  # the parent wants no more, or is gone
        os._exit(0)


def _serve(channel: WorkerEnd) -> None:
    task = Task(**json.loads(channel.receive()[0]))
    try:
        limit_memory(task.memory)
        detector = prepare(task)
        sys.stderr.flush()
        os.dup2(1, 2)  # nothing that a file makes a library write reaches the log
        state: Sandbox = confine(task.memory)
    except Exception as error:
        _say_error(channel, error)
        return
    channel.send(READY, pack(state))
    while True:
        name, descriptor = channel.receive()
        if descriptor is None:
            raise EOFError("a file without a descriptor")
        limit_processor(task.processor)
        try:
            file = VideoFile(name.decode(), descriptor)
            found = analyse(detector, file, lambda *step: channel.send(PROGRESS, pack(step)))
            channel.send(RETURNED, pack(found))
        except Exception as error:
            _say_error(channel, error)
        os.close(descriptor)


def _say_error(channel: WorkerEnd, error: Exception) -> None:
    channel.send(RAISED, pack((type(error).__name__, str(error)[:_LONGEST_TEXT])))
