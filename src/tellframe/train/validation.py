"""Validation: how well the held-out groups are told apart."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch

from tellframe.evaluate.metrics import log_loss, rank_pairs, roc_auc
from tellframe.scoring import Calibration
from tellframe.train.augment import Sample, cut
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
    for number, clip in enumerate(c for c in data.clips[:MAX_VALIDATION] if c.real and c.fakes):
        rng = np.random.default_rng(number)  # the same frames every time
        if sample := clip.pair(number % len(clip.fakes), rng, num_frames):
            pairs["clip"].append(sample)
    results: dict[str, float] = {}
    for name, samples in pairs.items():
        if samples:
            halves = [cut(s, recipe.crop_size, recipe.margin, None) for s in samples]
            real, fake = (score(model, list(side)) for side in zip(*halves, strict=True))
            measured = _pair_metrics(np.stack([real, fake], axis=1))
            results |= {f"{name}_{k}": v for k, v in measured.items()}
    losses = [v for k, v in results.items() if k.endswith("log_loss")]
    return {**results, "log_loss": float(np.mean(losses))} if losses else {}


def _pair_metrics(pairs: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return AUC, pair ranking and log loss of logits of shape (N, 2): real, fake."""
    flat = pairs.T.ravel().astype(np.float64)
    labels = np.repeat([0, 1], len(pairs))
    return {
        "auc": roc_auc(labels, flat),
        "ranked": float(rank_pairs(pairs[:, 0], pairs[:, 1]).mean()),
        "log_loss": log_loss(labels, Calibration().probability(flat)),
    }
