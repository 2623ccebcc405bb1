"""The detector: a bundle, a face detector and a recipe, ready to judge videos."""

from __future__ import annotations

import dataclasses
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tellframe.bundle import Bundle, golden_input, load_bundle
from tellframe.errors import BundleError, MediaError, RecipeMismatchError
from tellframe.extract import Extraction, extract_clips
from tellframe.faces import FaceDetector, fetch_weights, load_face_detector
from tellframe.isolated import LIMITS, IsolatedExtractor
from tellframe.isolation import Limits
from tellframe.limits import FILE_LIMITS, FileLimits
from tellframe.recipe import Recipe
from tellframe.runtime import Session
from tellframe.scoring import judge_person, judge_video
from tellframe.types import Clip, FaceVerdict, Label, ModelInfo, Reason, Sandbox, Verdict

BATCH: Final = 16
"""Crops that go through the network at once; more are no faster on a CPU, and take memory."""
GOLDEN_TOLERANCE: Final = 0.01
"""How far, in logits, the scores of the golden crops may lie from the stamped ones: processors
round differently, wrong weights or a broken runtime lie far outside."""
Scores = tuple[float | None, NDArray[np.float32], NDArray[np.float32]]
"""Of one person: the logit of the clip, None where the frames are to be pooled; the logits of the
frames, (N,), positive for fake; and their class activation maps, (N, h, w)."""
_NOTHING: Final[Scores] = (None, np.zeros(0, np.float32), np.zeros((0, 1, 1), np.float32))


class Detector:
    """Judges videos; made by `load`.

    Args:
        bundle: the model.
        recipe: the bundle's recipe, or one that differs from it by the caller's overrides.
        face_detector: finds the faces, as the recipe says, and files are decoded in this process.
            None: a confined worker process does both, which no file can use to do harm.
        threads: threads for decoding and for the networks; 0 for one a core.
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
                recipe, threads=threads, limits=limits, file_limits=file_limits
            )
            weakref.finalize(self, self._apart.close)
        self._session = Session(bundle.graph, threads)
        overrides = {k: mine for k, (mine, _) in recipe.differences(bundle.recipe).items()}
        self.model_info = ModelInfo(
            bundle.name, bundle.version, bundle.sha256, recipe.digest, overrides
        )

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
        begin = time.perf_counter()
        extraction = self.extract(path)
        people = self.judge(extraction.clips)
        label, probability, reasons = judge_video(people, partial=extraction.media.partial)
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
            seconds=time.perf_counter() - begin,
        )

    def detect_many(self, paths: Iterable[str | Path]) -> Iterator[Verdict]:
        """Judge many videos; what cannot be read gives a verdict that says so.

        Yields:
            One verdict for every path, in order.
        """
        for path in paths:
            begin = time.perf_counter()
            try:
                yield self.detect(path)
            except MediaError as error:
                yield Verdict(
                    video=str(path),
                    label=Label.INCONCLUSIVE,
                    probability=None,
                    reasons=(Reason.UNREADABLE,),
                    people=(),
                    model=self.model_info,
                    error=str(error),
                    sandbox=self.sandbox,
                    seconds=time.perf_counter() - begin,
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
                frame_logits,
                heat if self.keep_evidence else None,
                self.bundle.calibration,
                self.bundle.decision,
                clip_logit=logit,
            )
            for clip, (logit, frame_logits, heat) in zip(
                clips, self._score_clips(clips), strict=True
            )
        )

    def _score_clips(self, clips: Sequence[Clip]) -> Iterator[Scores]:
        """Run the network on the valid frames of clips."""
        crops = [clip.pixels[clip.valid] for clip in clips]
        if self.bundle.kind == "clip":
            yield from (self._score_together(c) if len(c) else _NOTHING for c in crops)
        elif crops:
            # Crops of all people go through together, so that no run is short of them.
            logits, heat = self.score(np.concatenate(crops))
            ends = np.cumsum([len(c) for c in crops])[:-1]
            for own, own_heat in zip(np.split(logits, ends), np.split(heat, ends), strict=True):
                yield None, own, own_heat

    def _score_together(self, crops: NDArray[np.uint8]) -> Scores:
        """Run a network of the kind "clip" on the frames of one person, (T, S, S, 3)."""
        # Without the frames that are not valid, which cost as much and have no influence.
        valid = np.ones((1, len(crops)), dtype=np.bool_)
        found = self._session.run({"crops": crops[None], "valid": valid})
        return float(found["logit"][0]), found["frame_logit"][0], found["heat"][0]

    def score(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score single crops; to a network of the kind "clip" each is a clip of one frame.

        Args:
            crops: shape (N, S, S, 3), RGB, cut as the recipe says.

        Returns:
            Logits of shape (N,), positive for fake, and class activation maps (N, h, w).
        """
        parts = [
            self._run_frames(crops[i : i + BATCH]) for i in range(0, max(len(crops), 1), BATCH)
        ]
        logits, heat = zip(*parts, strict=True)
        return np.concatenate(logits), np.concatenate(heat)

    def _run_frames(
        self, crops: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        if self.bundle.kind == "clip":
            valid = np.ones((len(crops), 1), dtype=np.bool_)
            found = self._session.run({"crops": crops[:, None], "valid": valid})
            return found["logit"], found["heat"][:, 0]
        found = self._session.run({"crops": crops})
        return found["logit"], found["heat"]

    def check_golden(self) -> float:
        """Score the golden crops, or clips, again.

        Returns:
            The largest difference from the stamped logits.

        Raises:
            BundleError: it exceeds `GOLDEN_TOLERANCE`, or the bundle has no golden scores.
        """
        if not self.bundle.golden:
            raise BundleError(f"{self.bundle.name}: the bundle has no golden scores")
        expected = np.array(self.bundle.golden)
        inputs = golden_input(self.bundle.kind, self.bundle.recipe.crop_size, len(expected))
        gap = float(np.abs(self._session.run(inputs)["logit"] - expected).max())
        if not gap <= GOLDEN_TOLERANCE:
            raise BundleError(
                f"{self.bundle.name}: golden scores differ by {gap:.4f} logits (at most "
                f"{GOLDEN_TOLERANCE}); the graph or the runtime does not compute what was exported"
            )
        return gap


def load(
    source: str | Path | None = None,
    *,
    threads: int = 0,
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
        DownloadError: a file has to be fetched and cannot be.
    """
    bundle = load_bundle(source)
    recipe = Recipe.from_dict({**dataclasses.asdict(bundle.recipe), **overrides})
    fetch_weights(recipe)
    return Detector(
        bundle,
        recipe,
        None if isolate else load_face_detector(recipe, num_threads=threads),
        threads=threads,
        keep_evidence=keep_evidence,
        limits=limits,
        file_limits=file_limits,
    )
