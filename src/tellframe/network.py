"""The network of a bundle: crops in, logits and heat maps out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from tellframe.bundle import Bundle, golden_input
from tellframe.errors import BundleError
from tellframe.runtime import Session

BATCH: Final = 16
"""Crops that go through the network at once; more are no faster on a CPU, and take memory."""
GOLDEN_TOLERANCE: Final = 0.01
"""How far, in logits, the scores of the golden crops may lie from the stamped ones: processors
round differently, wrong weights or a broken runtime lie far outside."""
Scores = tuple[float | None, NDArray[np.float32], NDArray[np.float32]]
"""Of one person: the logit of the clip, None where the frames are to be pooled; the logits of the
frames, (N,), positive for fake; and their class activation maps, (N, h, w)."""
_NOTHING: Final[Scores] = (None, np.zeros(0, np.float32), np.zeros((0, 1, 1), np.float32))


class Network:
    """The graph of a bundle, ready to score.

    Args:
        bundle: the model.
        threads: that one run uses; 0 for one a core.

    Raises:
        BundleError: the graph cannot be run.
    """

    def __init__(self, bundle: Bundle, threads: int = 0) -> None:
        self.bundle = bundle
        self._session = Session(bundle.graph, threads)

    def score_people(self, crops: Sequence[NDArray[np.uint8]]) -> Iterator[Scores]:
        """Score the crops of each person of a video.

        Args:
            crops: shape (N, S, S, 3) a person, RGB, cut as the recipe says, in order of time.
        """
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
