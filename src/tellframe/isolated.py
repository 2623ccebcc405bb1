"""Extract videos in a confined worker process, which gets an open file and gives back clips."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tellframe.errors import DecodeError, LimitError, MediaError, error_named
from tellframe.extract import Extraction, extract_clips
from tellframe.faces import FaceDetector, load_face_detector
from tellframe.isolation import Crew, Failure, Job, Limits
from tellframe.limits import FILE_LIMITS, FileLimits
from tellframe.recipe import Recipe
from tellframe.types import Clip, Media, Sandbox
from tellframe.videofile import VideoFile, open_video_file

LIMITS: Final = Limits(seconds=300.0, attempts=1)
"""What one file may cost by itself."""
_WARM_UP: Final = b"YUV4MPEG2 W64 H64 F25:1 C420jpeg\n" + 2 * (b"FRAME\n" + bytes(64 * 96))
"""Two black pictures, in the simplest format that the decoder knows."""


@dataclass(frozen=True, slots=True)
class _Tools:
    """What the worker keeps from one file to the next."""

    recipe: Recipe
    detector: FaceDetector
    threads: int
    file_limits: FileLimits


class IsolatedExtractor:
    """Worker processes that each extract one video after the other; they start at once.

    Args:
        recipe: how videos become clips.
        workers: how many.
        threads: of the decoder and of the face detector in each; 0 to use all cores.
        limits: what one file may cost.
        file_limits: what one may ask for.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        workers: int = 1,
        threads: int = 0,
        limits: Limits = LIMITS,
        file_limits: FileLimits = FILE_LIMITS,
    ) -> None:
        self.workers, self.limits = workers, limits
        self._recipe = recipe
        self._crew: Crew[str, Extraction] = Crew(
            Job(_extract, _load_tools, (recipe, threads, file_limits), Extraction, _open),
            workers,
            limits,
        )
        self._ready = [self._crew.start() for _ in range(workers)]

    @property
    def sandbox(self) -> Sandbox | None:
        """How the workers are confined; waits until one is ready.

        Raises:
            TellframeError: it cannot be started, or the face detector not be loaded.
        """
        self._ready[0].result()
        return self._crew.sandbox

    def extract(self, path: str | Path) -> Extraction:
        """Cut the face crops of every person out of a video.

        Args:
            path: a local file.

        Raises:
            MediaError: it cannot be analysed, or it ended or stalled the worker.
            TellframeError: the worker cannot be started, or the face detector not be loaded.
        """
        result = self._crew.submit(str(path)).result()
        if isinstance(result, Failure):
            raise _explain(str(path), result, self.limits)
        _check(str(path), result, self._recipe)
        return result

    def close(self) -> None:
        """End the workers."""
        self._crew.close()


@contextmanager
def _open(path: str) -> Iterator[int]:
    with open_video_file(path) as file:
        yield file.descriptor


def _load_tools(recipe: Recipe, threads: int, file_limits: FileLimits) -> _Tools:
    """Load what the worker needs; runs there, before it is confined."""
    detector = load_face_detector(recipe, num_threads=threads)
    warm_up(recipe, detector, threads)
    return _Tools(recipe, detector, threads, file_limits)


def warm_up(recipe: Recipe, detector: FaceDetector, threads: int = 0) -> None:
    """Extract two black pictures, for all that is imported at first use: later it cannot be."""
    with warm_up_video() as file:
        extract_clips(file, recipe, detector, threads=threads)


@contextmanager
def warm_up_video() -> Iterator[VideoFile]:
    """Open a video of two black pictures that lies in no folder."""
    # A confined worker may write no file any more, but it may fill its own memory.
    in_memory = hasattr(os, "memfd_create")
    with (
        os.fdopen(os.memfd_create("warm-up"), "wb") if in_memory else tempfile.TemporaryFile()
    ) as file:
        file.write(_WARM_UP)
        file.flush()
        yield VideoFile("warm-up.y4m", file.fileno())


def _extract(tools: _Tools, path: str, descriptor: int) -> Extraction:
    file = VideoFile(path, descriptor)
    return extract_clips(
        file, tools.recipe, tools.detector, threads=tools.threads, limits=tools.file_limits
    )


def _explain(path: str, failure: Failure, limits: Limits) -> MediaError:
    """Return what to raise for a file that the worker did not get done."""
    if failure.reason == "timeout":
        return LimitError(
            f"{path}: took longer than {limits.seconds:g} s; allow more with --timeout"
        )
    if failure.reason == "crash":
        return DecodeError(
            f"{path}: ended the process that decoded it; it is damaged, or made to do harm"
        )
    if failure.error == MemoryError.__name__:
        return LimitError(
            f"{path}: needs more memory than {limits.memory / 2**30:g} GiB; allow more with "
            "--memory"
        )
    return error_named(failure.error, failure.message, MediaError) or MediaError(
        f"{path}: made tellframe itself fail ({failure.error}: {failure.message}); "
        "please report it with the file"
    )


def _check(path: str, found: Extraction, recipe: Recipe) -> None:
    """Refuse what an honest worker would never say.

    Raises:
        DecodeError: it was said.
    """
    good = (
        found.media.path == path
        and counts_are_possible(found.media, recipe)
        and all(_is_possible(clip, number, recipe) for number, clip in enumerate(found.clips, 1))
    )
    if not good:
        raise DecodeError(f"{path}: its worker answers nonsense; the file is made to do harm")


def counts_are_possible(media: Media, recipe: Recipe) -> bool:
    """Tell whether an honest worker could have counted this in a file.

    Args:
        media: what it says of the file.
        recipe: as applied.
    """
    counts = (
        *(media.bytes, media.width, media.height, media.num_frames, media.num_packets),
        *(media.num_declared or 0, media.decode_errors),
    )
    return (
        0 <= media.num_decoded <= media.num_asked <= recipe.most_frames
        and all(0 <= count < 2**63 for count in counts)
        and min(media.duration, media.frame_rate, media.sampled_every) >= 0
    )


def _is_possible(clip: Clip, number: int, recipe: Recipe) -> bool:
    count, side = len(clip.times), recipe.crop_size
    arrays: tuple[NDArray[Any], ...] = (
        clip.pixels,
        clip.times,
        clip.valid,
        clip.boxes,
        clip.landmarks,
        clip.confidence,
    )
    shapes = ((count, side, side, 3), *((count,),) * 2, (count, 4), (count, 5, 2), (count,))
    return (
        clip.person == number
        and clip.recipe_digest == recipe.digest
        and 0 < count <= recipe.most_frames
        and all(array.shape == shape for array, shape in zip(arrays, shapes, strict=True))
        and bool(np.all(np.diff(clip.times) >= 0))
    )
