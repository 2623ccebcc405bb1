"""One video of a manifest into stored clips and a record of what became of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from PIL import Image

from tellframe import errors
from tellframe.data.manifest import Video
from tellframe.data.media import open_video
from tellframe.data.shards import StoredClip, store_clip
from tellframe.errors import DataError, LimitError, MediaError, MediaNotFoundError, StoreError
from tellframe.extract import Extraction, extract_clips, leaves_out
from tellframe.faces import FaceDetector, load_face_detector
from tellframe.isolated import warm_up
from tellframe.isolation import Failure
from tellframe.recipe import Recipe
from tellframe.types import Clip
from tellframe.videofile import VideoFile

Kept = TypeVar("Kept")


class Outcome(StrEnum):
    """What became of a video; every one has exactly one outcome."""

    OK = "ok"
    """At least one clip was cut."""
    NO_FACE = "no_face"
    """It was read, and nobody was seen in it."""
    MISSING = "missing"
    """The file or the zip is not there."""
    DAMAGED = "damaged"
    """It cannot be taken out of its zip: checksum, encryption, compression."""
    UNREADABLE = "unreadable"
    """It is no video that can be decoded."""
    LIMIT = "limit"
    """It asks for more pixels or memory than the limits allow."""
    UNFORESEEN = "unforeseen"
    """It made tellframe itself fail; the message says how. Worth a report."""
    CRASH = "crash"
    """It ended its worker process at every attempt."""
    TIMEOUT = "timeout"
    """It took longer than the limit at every attempt."""


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """What became of one video: one row of `videos.parquet`."""

    video: str
    """As in the manifest."""
    outcome: str
    """An `Outcome`."""
    message: str = ""
    """What went wrong; empty where nothing did."""
    attempts: int = 1
    """How often it was tried."""
    people: int = 0
    frames_sampled: int = 0
    faces_detected: int = 0
    scene_cuts: int = 0
    dropped_short: int = 0
    """Tracks dropped because they are seen too rarely."""
    dropped_print: int = 0
    """Tracks dropped because they are a picture of a face on clothes."""
    partial: bool = False
    """A part of the video is missing or could not be decoded."""
    left_out: bool = False
    """There were more people or faces than are looked at; not written by earlier versions."""
    bytes: int = 0
    sha256: str = ""
    container: str = ""
    codec: str = ""
    width: int = 0
    height: int = 0
    rotation: int = 0
    duration: float = 0.0
    """Seconds."""
    num_frames: int = 0
    frame_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class CutVideo:
    """What a worker sends back."""

    record: VideoRecord
    clips: tuple[StoredClip, ...] = ()


@dataclass(frozen=True, slots=True)
class Cutter:
    """What a worker keeps from one video to the next."""

    recipe: Recipe
    detector: FaceDetector
    endpoint: str


def load_cutter(recipe: Recipe, endpoint: str) -> Cutter:
    """Load the recipe's face detector; one thread, because there is one worker a core."""
    detector = load_face_detector(recipe, num_threads=1)
    warm_up(recipe, detector, 1)
    Image.init()  # its formats, which it would import when a crop is encoded
    return Cutter(recipe, detector, endpoint)


def cut_video(cutter: Cutter, video: Video, descriptor: int | None = None) -> CutVideo:
    """Cut the clips out of one video; arguments and errors as for `extract_video`."""
    return CutVideo(
        *extract_video(cutter, video, lambda clip: store_clip(clip, cutter.recipe), descriptor)
    )


def extract_video(
    cutter: Cutter,
    video: Video,
    keep: Callable[[Clip], Kept],
    descriptor: int | None = None,
) -> tuple[VideoRecord, tuple[Kept, ...]]:
    """Find the clips of one video, and record what became of it.

    Args:
        cutter: from `load_cutter`.
        video: which.
        keep: what is kept of every clip.
        descriptor: of the open video; None to open it here.

    Raises:
        StoreError: the object store does not answer, which says nothing about the video.
    """
    path = ""
    try:
        with _opened(cutter, video, descriptor) as source:
            path = str(source)
            extraction = extract_clips(
                source, cutter.recipe, cutter.detector, threads=1, look_closer=False
            )
        kept = tuple(map(keep, extraction.clips))
    except Exception as error:  # one video must not end a build of a million, at every new start
        if isinstance(error, StoreError) and not error.missing:
            raise
        outcome = _outcome(error)
        message = repr(error) if outcome is Outcome.UNFORESEEN else str(error) or "out of memory"
        message = message.replace(path, video.video) if path else message
        return VideoRecord(video.video, outcome, message), ()
    return _record(video, extraction), kept


def _opened(
    cutter: Cutter, video: Video, descriptor: int | None
) -> AbstractContextManager[str | VideoFile]:
    if descriptor is None:
        return open_video(video, cutter.endpoint)
    return nullcontext(VideoFile(video.video, descriptor))


def _outcome(error: Exception) -> Outcome:
    match error:
        case StoreError() | MediaNotFoundError():
            return Outcome.MISSING
        case DataError():
            return Outcome.DAMAGED
        case LimitError() | MemoryError():
            return Outcome.LIMIT
        case MediaError():
            return Outcome.UNREADABLE
    return Outcome.UNFORESEEN


def _record(video: Video, extraction: Extraction) -> VideoRecord:
    media = extraction.media
    return VideoRecord(
        video=video.video,
        outcome=Outcome.OK if extraction.clips else Outcome.NO_FACE,
        people=len(extraction.clips),
        partial=media.partial,
        left_out=leaves_out(extraction.counters),
        bytes=media.bytes,
        sha256=media.sha256,
        container=media.container,
        codec=media.codec,
        width=media.width,
        height=media.height,
        rotation=media.rotation,
        duration=round(media.duration, 6),
        num_frames=media.num_frames,
        frame_rate=round(media.frame_rate, 6),
        frames_sampled=extraction.counters["frames_sampled"],
        faces_detected=extraction.counters["faces_detected"],
        scene_cuts=extraction.counters["scene_cuts"],
        dropped_short=extraction.counters["dropped_short"],
        dropped_print=extraction.counters["dropped_print"],
    )


def given_up(video: Video, failure: Failure) -> CutVideo:
    """Record a video that could not be opened, or that no worker got done."""
    if failure.reason == "raised":
        return CutVideo(_refused(video, failure))
    text = {
        Outcome.CRASH: "ended the process that decoded it",
        Outcome.TIMEOUT: "took longer than the limit; see --timeout",
    }
    outcome = Outcome(failure.reason)
    message = f"{video.video}: {text[outcome]}, {failure.attempts} times"
    return CutVideo(VideoRecord(video.video, outcome, message, failure.attempts))


def _refused(video: Video, failure: Failure) -> VideoRecord:
    kind = MemoryError if failure.error == "MemoryError" else getattr(errors, failure.error, None)
    outcome = Outcome.UNFORESEEN
    if isinstance(kind, type) and issubclass(kind, Exception):
        outcome = _outcome(kind(failure.message))
    message = failure.message or "out of memory"
    if outcome is Outcome.UNFORESEEN:
        message = f"{failure.error}: {message}"
    if video.location != video.video:
        message = message.replace(video.location, video.video)
    return VideoRecord(video.video, outcome, message)
