"""The network of a bundle: crops in, logits and heat maps out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from tellframe.bundle import Bundle, golden_input
from tellframe.errors import BundleError
from tellframe.runtime import Session

BATCH: Final = 5
"""Crops that go through the network at once. The widest layer of EfficientNet-Lite0 then takes
24 MB; more at a time took no less."""
GOLDEN_TOLERANCE: Final = 0.01
"""How far, in logits, the scores of the golden crops may lie from the stamped ones: processors
round differently, wrong weights or a broken runtime lie far outside."""


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What a network makes of the N frames of one person."""

    logits: NDArray[np.float32]
    """Shape (N,), of the frames; positive for fake."""
    heat: NDArray[np.float32]
    """Shape (N, h, w), the class activation maps."""
    clip_logit: float | None = None
    """Of the clip as a whole; None where the frames are to be pooled."""
    degraded: NDArray[np.float32] | None = None
    """Shape (N,), P(the picture is badly degraded); None where the network does not tell."""


_NOTHING: Final = Scores(np.zeros(0, np.float32), np.zeros((0, 1, 1), np.float32))


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

        Raises:
            BundleError: a score is no finite number.
        """
        if self.bundle.kind == "clip":
            yield from (self._score_together(c) if len(c) else _NOTHING for c in crops)
        elif crops:
            # Crops of all people go through together, so that no run is short of them.
            found = self._score_frames(np.concatenate(crops))
            ends = np.cumsum([len(c) for c in crops])[:-1]
            parts = {name: np.split(values, ends) for name, values in found.items()}
            for person in range(len(crops)):
                own = {name: values[person] for name, values in parts.items()}
                yield Scores(own["logit"], own["heat"], degraded=own.get("degraded"))

    def _score_together(self, crops: NDArray[np.uint8]) -> Scores:
        """Run a network of the kind "clip" on the frames of one person, (T, S, S, 3)."""
        # Without the frames that are not valid, which cost as much and have no influence.
        valid = np.ones((1, len(crops)), dtype=np.bool_)
        found = {n: v[0] for n, v in self._run({"crops": crops[None], "valid": valid}).items()}
        return Scores(
            found["frame_logit"], found["heat"], float(found["logit"]), found.get("degraded")
        )

    def score(self, crops: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Score single crops; to a network of the kind "clip" each is a clip of one frame.

        Args:
            crops: shape (N, S, S, 3), RGB, cut as the recipe says.

        Returns:
            Logits of shape (N,), positive for fake, and class activation maps (N, h, w).

        Raises:
            BundleError: a score is no finite number.
        """
        found = self._score_frames(crops)
        return found["logit"], found["heat"]

    def _score_frames(self, crops: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Return the outputs of the graph for crops, (N, S, S, 3), by name; (N, ...) each."""
        parts = [
            self._run_frames(crops[i : i + BATCH]) for i in range(0, max(len(crops), 1), BATCH)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _run_frames(self, crops: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        if self.bundle.kind == "frame":
            return self._run({"crops": crops})
        valid = np.ones((len(crops), 1), dtype=np.bool_)
        found = self._run({"crops": crops[:, None], "valid": valid})
        # But for the logit of the clip, each is of the clip's only frame.
        return {name: v if name == "logit" else v[:, 0] for name, v in found.items()}

    def _run(self, inputs: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the graph; raises BundleError where its scores cannot be believed."""
        found = self._session.run(inputs)
        for name, values in found.items():
            if name != "heat" and not np.isfinite(values).all():
                raise BundleError(
                    f"{self.bundle.name} {self.bundle.version}: the model gives a score that is no "
                    f"finite number (output {name!r}); export it again, or use another model"
                )
        return found

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
