"""Validation: how well the held-out groups are told apart."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from tellframe.evaluate.metrics import balanced_log_loss, rank_pairs, roc_auc
from tellframe.scoring import Calibration
from tellframe.train.augment import Sample, cut
from tellframe.train.clips import ClipScene, has_both
from tellframe.train.config import TrainConfig
from tellframe.train.data import TrainingData
from tellframe.train.models import ClipModel

MAX_VALIDATION: Final = 250
"""Single crops, and scenes of shards, that a validation looks at."""


@torch.no_grad()
def score(model: ClipModel, clips: list[np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Return the logits, (N,), of clips, uint8 (T, S, S, 3) each."""
    model.eval()
    device = next(model.parameters()).device
    logits = []
    for clip in clips:
        crops = torch.from_numpy(np.ascontiguousarray(clip)).to(device)[None]
        logits.append(model(crops, torch.ones(1, len(clip), dtype=torch.bool, device=device))[0])
    return torch.cat(logits).cpu().numpy()


def validate(
    model: ClipModel, data: TrainingData, config: TrainConfig, frames: int = 8
) -> dict[str, float]:
    """Measure the held-out groups: matched videos, single crops, clips of shards.

    Args:
        model: the running mean.
        data: the held-out side.
        config: recipe and number of frames.
        frames: of a video that a frame classifier is measured on.

    Returns:
        AUC, share of pairs ranked rightly and log loss of every source, and the mean log loss.
        Where shards hold no fake that differs from its original, their clips are measured without
        pairs. Nothing where there is nothing to measure on.
    """
    recipe = config.recipe
    pairs: dict[str, list[Sample]] = {"video": [], "still": [], "clip": []}
    for scene in data.videos:
        for k in range(len(scene.fakes)):
            swapped = np.flatnonzero(scene.swapped[k])
            chosen = np.linspace(0, len(swapped) - 1, min(frames, len(swapped))).astype(int)
            if len(chosen):
                pairs["video"].append(scene.clip(swapped[chosen], k))
    pairs["still"] = [scene.sample(0) for scene in data.stills[:MAX_VALIDATION]]
    num_frames = max(config.batch.frames, frames)
    paired = [c for c in data.clips if c.real and c.fakes][:MAX_VALIDATION]
    for number, clip in enumerate(paired):
        rng = np.random.default_rng(number)  # the same frames every time
        if sample := clip.pair(number % len(clip.fakes), rng, num_frames):
            pairs["clip"].append(sample)
    results: dict[str, float] = {}
    for name, samples in pairs.items():
        if samples:
            halves = [cut(s, recipe.crop_size, recipe.margin, None) for s in samples]
            real, fake = (score(model, list(side)) for side in zip(*halves, strict=True))
            measured = _metrics(real, fake, paired=True)
            results |= {f"{name}_{k}": v for k, v in measured.items()}
    if not pairs["clip"] and has_both(data.clips):
        sides = (_draw_alone(data.clips, fake, num_frames) for fake in (False, True))
        logits = (
            score(model, [cut(s, recipe.crop_size, recipe.margin, None)[0] for s in samples])
            for samples in sides
        )
        measured = _metrics(*logits, paired=False)
        results |= {f"clip_{k}": v for k, v in measured.items()}
    losses = [v for k, v in results.items() if k.endswith("log_loss")]
    return {**results, "log_loss": float(np.mean(losses))} if losses else {}


def _draw_alone(scenes: Iterable[ClipScene], fake: bool, num_frames: int) -> list[Sample]:
    """Read clips of one class, of at most `MAX_VALIDATION` scenes."""
    some = [s for s in scenes if (s.fakes if fake else s.real)][:MAX_VALIDATION]
    return [
        s.alone(0 if fake else None, np.random.default_rng(number), num_frames)
        for number, s in enumerate(some)
    ]


def _metrics(
    real: NDArray[np.floating], fake: NDArray[np.floating], *, paired: bool
) -> dict[str, float]:
    """Return AUC, pair ranking and balanced log loss of logits, (N,) and (M,), of both classes."""
    logits = np.concatenate([real, fake]).astype(np.float64)
    labels = np.repeat([0, 1], [len(real), len(fake)])
    probability = Calibration().probability(logits)
    ranked = {"ranked": float(rank_pairs(real, fake).mean())} if paired else {}
    return {
        "auc": roc_auc(labels, logits),
        **ranked,
        "log_loss": balanced_log_loss(labels, probability),
    }
