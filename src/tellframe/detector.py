"""The detector: a bundle, a face detector and a recipe, ready to judge videos."""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tellframe.bundle import Bundle, load_bundle
from tellframe.errors import MediaError, RecipeMismatchError
from tellframe.extract import Extraction, extract_clips, leaves_out
from tellframe.faces import FaceDetector, fetch_weights, load_face_detector
from tellframe.isolated import LIMITS, IsolatedExtractor
from tellframe.isolation import Limits, map_ahead
from tellframe.limits import FILE_LIMITS, FileLimits
from tellframe.network import Network
from tellframe.recipe import Recipe
from tellframe.runtime import usable_cores
from tellframe.scoring import judge_person, judge_video
from tellframe.types import Clip, FaceVerdict, Label, Reason, Sandbox, Verdict

Timed = tuple[Extraction | MediaError, float]
"""What was found in a video, or why it cannot be read; and the seconds of wall time it took."""


class Detector:
    """Judges videos; made by `load`.

    Args:
        bundle: the model.
        recipe: the bundle's recipe, or one that differs from it by the caller's overrides.
        face_detector: finds the faces, as the recipe says, and files are decoded in this process.
            None: a confined worker process does both, which no file can use to do harm.
        threads: threads for decoding and for the networks; 0 for one a core.
        workers: worker processes, which share the threads; with more than one `detect_many` reads
            several videos side by side, which takes less time for all and more for one.
        keep_evidence: whether verdicts carry crops and heat maps, which the HTML report shows.
        limits: what one file may cost the worker.
        file_limits: what one may ask for.
    """

    def __init__(
        self,
        bundle: Bundle,
        recipe: Recipe,
        face_detector: FaceDetector | None = None,
        *,
        threads: int = 0,
        workers: int = 1,
        keep_evidence: bool = True,
        limits: Limits = LIMITS,
        file_limits: FileLimits = FILE_LIMITS,
    ) -> None:
        self.bundle = bundle
        self.recipe = recipe
        self.threads = threads
        self.file_limits = file_limits
        self.keep_evidence = keep_evidence
        self._face_detector = face_detector
        self._apart: IsolatedExtractor | None = None
        if face_detector is None:  # first of all, to start while the model is loaded
            self._apart = IsolatedExtractor(
                recipe,
                workers=workers,
                threads=threads if workers == 1 else max((threads or usable_cores()) // workers, 1),
                limits=limits,
                file_limits=file_limits,
            )
            weakref.finalize(self, self._apart.close)
        self._network = Network(bundle, threads)
        self.model_info = bundle.info(recipe)

    @property
    def face_detector(self) -> FaceDetector:
        """The recipe's face detector in this process; loaded when first asked for."""
        if self._face_detector is None:
            self._face_detector = load_face_detector(self.recipe, num_threads=self.threads)
        return self._face_detector

    @face_detector.setter
    def face_detector(self, face_detector: FaceDetector) -> None:
        # A worker does not know it, so that from now on this process does the work.
        self.close()
        self._apart, self._face_detector = None, face_detector

    @property
    def sandbox(self) -> Sandbox | None:
        """How the worker is confined; None where files are decoded in this process.

        Raises:
            TellframeError: the worker cannot be started, or the face detector not be loaded.
        """
        return self._apart.sandbox if self._apart else None

    def extract(self, path: str | Path) -> Extraction:
        """Cut the face crops of every person out of a video; see `extract_clips`."""
        if self._apart:
            return self._apart.extract(path)
        return extract_clips(
            path, self.recipe, self.face_detector, threads=self.threads, limits=self.file_limits
        )

    def close(self) -> None:
        """End the worker process, if there is one; otherwise it ends with the detector."""
        if self._apart:
            self._apart.close()

    def detect(self, path: str | Path) -> Verdict:
        """Judge one video.

        Args:
            path: a local video file.

        Raises:
            MediaError: it cannot be analysed; the message names the file, what is wrong and what
                to do. A video without a face raises nothing: its verdict says so.
        """
        found, seconds = self._extract_timed(path)
        if isinstance(found, MediaError):
            raise found
        return self._conclude(path, found, seconds)

    def detect_many(self, paths: Iterable[str | Path]) -> Iterator[Verdict]:
        """Judge many videos; what cannot be read gives a verdict that says so.

        Some videos are read ahead of the one that is waited for, where workers read them.

        Yields:
            One verdict for every path, in order.
        """
        for path, (found, seconds) in self._extract_many(paths):
            if isinstance(found, MediaError):
                yield Verdict(
                    video=str(path),
                    label=Label.INCONCLUSIVE,
                    probability=None,
                    reasons=(Reason.UNREADABLE,),
                    people=(),
                    model=self.model_info,
                    error=str(found),
                    sandbox=self.sandbox,
                    seconds=seconds,
                )
            else:
                yield self._conclude(path, found, seconds)

    def _extract_timed(self, path: str | Path) -> Timed:
        begin = time.perf_counter()
        try:
            found: Extraction | MediaError = self.extract(path)
        except MediaError as error:
            found = error
        return found, time.perf_counter() - begin

    def _extract_many(self, paths: Iterable[str | Path]) -> Iterator[tuple[str | Path, Timed]]:
        if not self._apart:
            yield from ((path, self._extract_timed(path)) for path in paths)
            return
        pool = ThreadPoolExecutor(self._apart.workers, thread_name_prefix="extract")
        try:
            # One more than there are workers, so that none waits while a video is judged.
            yield from map_ahead(
                lambda path: pool.submit(self._extract_timed, path), paths, self._apart.workers + 1
            )
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _conclude(self, path: str | Path, extraction: Extraction, seconds: float) -> Verdict:
        """Judge a video that took so many seconds to read."""
        begin = time.perf_counter()
        people = self.judge(extraction.clips)
        label, probability, reasons = judge_video(
            people,
            self.bundle.decision,
            partial=extraction.media.partial,
            left_out=leaves_out(extraction.counters),
        )
        return Verdict(
            video=str(path),
            label=label,
            probability=probability,
            reasons=reasons,
            people=people,
            media=extraction.media,
            model=self.model_info,
            counters=extraction.counters,
            sandbox=self.sandbox,
            seconds=seconds + time.perf_counter() - begin,
        )

    def judge(self, clips: Sequence[Clip]) -> tuple[FaceVerdict, ...]:
        """Judge the people of one video.

        Args:
            clips: one a person, made with this detector's recipe.

        Returns:
            One verdict a clip, in order.

        Raises:
            RecipeMismatchError: a clip was made with another recipe.
        """
        for clip in clips:
            if clip.recipe_digest != self.recipe.digest:
                raise RecipeMismatchError(
                    f"person {clip.person}: the clip was made with recipe {clip.recipe_digest}, "
                    f"this detector uses {self.recipe.digest}; extract the clip again"
                )
        return tuple(
            judge_person(
                clip,
                scores.logits,
                scores.heat if self.keep_evidence else None,
                self.bundle.calibration,
                self.bundle.decision,
                clip_logit=scores.clip_logit,
                degraded=scores.degraded,
                num_scales=len(self.recipe.crop_scales),
            )
            for clip, scores in zip(
                clips, self._network.score_people([c.pixels[c.valid] for c in clips]), strict=True
            )
        )

    def score(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score single crops; see `Network.score`."""
        return self._network.score(crops)

    def check_golden(self) -> float:
        """Score the golden crops, or clips, again; see `Network.check_golden`."""
        return self._network.check_golden()


def load(
    source: str | Path | None = None,
    *,
    threads: int = 0,
    workers: int = 1,
    keep_evidence: bool = True,
    isolate: bool = True,
    limits: Limits = LIMITS,
    file_limits: FileLimits = FILE_LIMITS,
    **overrides: Any,
) -> Detector:
    """Load a detector.

    Args:
        source: name of a shipped bundle, a folder, or "hf://owner/repository[@revision]"; the
            shipped default where None.
        threads: threads for decoding and for the networks; 0 for one a core.
        workers: confined worker processes; with more than one `detect_many` reads several videos
            side by side, which takes less time for all and more for one.
        keep_evidence: whether verdicts carry crops and heat maps, which the HTML report shows.
        isolate: whether files are decoded in a confined worker process; without it, a file that
            breaks the decoder breaks, or takes over, this process.
        limits: what one file may cost the worker.
        file_limits: what one may ask for.
        **overrides: recipe fields to change, such as num_frames=32 or face_detector="yunet".
            The calibration was fitted without them, which the verdict notes.

    Raises:
        BundleError: the bundle is missing, incomplete or altered.
        ConfigError: an override names no recipe field, or has a value out of range.
        UsageError: an override would change nothing, or leave nobody who can be judged.
        DownloadError: a file has to be fetched and cannot be.
    """
    bundle = load_bundle(source)
    recipe = bundle.apply(overrides)
    fetch_weights(recipe)
    return Detector(
        bundle,
        recipe,
        None if isolate else load_face_detector(recipe, num_threads=threads),
        threads=threads,
        workers=workers,
        keep_evidence=keep_evidence,
        limits=limits,
        file_limits=file_limits,
    )
