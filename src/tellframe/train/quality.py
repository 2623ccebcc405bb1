"""A probe that tells when pictures are too degraded for the network to be believed.

What was blurred, drowned in noise or overexposed on its way has lost the traces that speak for
real or fake, and the network judges it all the same, at times with great confidence. Its features
do tell such pictures from others, so that a linear map of them (Alain and Bengio 2017,
"Understanding intermediate layers using linear classifier probes") is fitted when the training is
over: to crops of the training data as they are, and the same badly degraded, half of both encoded
after it as videos are. The network itself is left as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from tellframe.errors import ConfigError
from tellframe.train.augment import DEGRADATIONS, Image
from tellframe.train.augment.pictures import (
    blur_picture,
    expose_picture,
    jpeg_picture,
    noise_picture,
    rescale_picture,
)
from tellframe.train.augment.sample import as_picture
from tellframe.train.augment.video import Encoding, encode_h264
from tellframe.train.checkpoint import load_trained
from tellframe.train.config import TrainConfig
from tellframe.train.data import load_data
from tellframe.train.loop import build_batches
from tellframe.train.models import ClipModel
from tellframe.train.tensorfile import read_tensors, write_tensors

DAMAGES: Final[Mapping[str, Callable[[Image, np.random.Generator], Image]]] = {
    "blur": lambda picture, rng: blur_picture(picture, len(picture) * rng.uniform(0.01, 0.022)),
    "shrink": lambda picture, rng: rescale_picture(picture, rng.uniform(0.15, 0.3)),
    "noise": lambda picture, rng: noise_picture(picture, rng.uniform(8.0, 14.0), rng),
    "dark": lambda picture, rng: expose_picture(picture, rng.uniform(0.2, 0.35)),
    "bright": lambda picture, rng: expose_picture(picture, rng.uniform(1.5, 2.1)),
    "jpeg": lambda picture, rng: jpeg_picture(picture, int(rng.integers(8, 25))),
    "h264": lambda picture, rng: _encode(picture, int(rng.integers(36, 47)), rng.uniform(0.4, 1.0)),
}
"""Degradations under which the first models' rankings fell by a tenth or more, or their verdicts
became confident errors: those of docs/limits.md, as strong or a little stronger."""
REGULARISATION: Final = 1e-3
"""Inverse strength of the L2 penalty on standardised features: of 1e-4 and 1e-3, the one that told
blurred and noisy dev videos better."""
FOLDS: Final = 5
"""One fold of the crops says how well the probe does; then it is fitted on all."""
_BATCH: Final = 32
_NAME: Final = "quality.safetensors"


def fit_probe(folder: Path, *, backbone: str = "") -> float:
    """Fit the probe of a trained model and write it beside the checkpoint.

    Args:
        folder: of the training; its configuration says on what, and how many crops.
        backbone: see `load_trained`.

    Returns:
        The share of crops told rightly in a fold that a first fit did not see.

    Raises:
        ConfigError: there is no checkpoint, no training data, or no crop asked for.
    """
    model, config, meta = load_trained(folder, backbone=backbone)
    if not config.quality.crops:
        raise ConfigError(f"{folder}: [quality] crops is 0; say how many to fit a probe on")
    say_crops("fitting the probe that tells degraded pictures", config.quality.crops)
    rng = np.random.default_rng(config.optim.seed)
    crops = draw_crops(model, config)
    kinds = [list(DAMAGES)[k] for k in rng.integers(len(DAMAGES), size=len(crops))]
    damaged = [DAMAGES[k](c, rng) for k, c in zip(kinds, crops, strict=True)]
    sent = [np.stack([send(c, rng) for c in some]) for some in (crops, damaged)]
    features = np.concatenate([pool_features(model, some) for some in sent])
    labels = np.repeat([0, 1], len(crops))
    # Both forms of a crop fall on one side.
    held = np.tile(np.arange(len(crops)) % FOLDS == 0, 2)
    weight, bias = fit_linear(features[~held], labels[~held])
    right = ((features[held] @ weight + bias > 0) == labels[held]).mean()
    weight, bias = fit_linear(features, labels)
    tensors = {
        "weight": torch.from_numpy(weight[None].astype(np.float32)),
        "bias": torch.tensor([bias], dtype=torch.float32),
    }
    write_tensors(folder / _NAME, tensors, {"step": meta["step"]})
    return float(right)


def say_crops(what: str, count: int) -> None:
    """Write to stderr that something is done with crops, which is silent and takes a while."""
    print(f"{what}, on {count:,} crops: this may take minutes", file=sys.stderr, flush=True)


def has_probe(folder: Path) -> bool:
    """Say whether a probe was fitted in a training folder."""
    return (folder / _NAME).is_file()


def load_probe(folder: Path, step: int) -> nn.Linear | None:
    """Load the probe of a training folder; None where none was fitted.

    Args:
        folder: of the training.
        step: of the weights that it is to go with.

    Raises:
        ConfigError: it is damaged, or was fitted to the weights of another step.
    """
    if not has_probe(folder):
        return None
    path = folder / _NAME
    meta, tensors = read_tensors(path, "probe")
    if meta.get("step") != step:
        raise ConfigError(
            f"{path}: was fitted to the weights of step {meta.get('step')}, not {step}; remove it, "
            "or train to the end to have it fitted again"
        )
    try:
        probe = nn.Linear(tensors["weight"].shape[1], 1)
        probe.load_state_dict(tensors)
    except (KeyError, IndexError, RuntimeError) as error:
        raise ConfigError(f"{path}: no probe of ours ({error!r:.200}); make it anew") from error
    return probe


def draw_crops(model: ClipModel, config: TrainConfig) -> NDArray[np.uint8]:
    """Draw crops, (N, S, S, 3), real and fake, as training shows them but not degraded.

    Raises:
        ConfigError: there is no training data.
    """
    plain = replace(config.augment, **dict.fromkeys(DEGRADATIONS, 0.0))
    data, _ = load_data(config.data, config.recipe)
    batches = build_batches(data, model, replace(config, augment=plain))
    parts: list[NDArray[np.uint8]] = []
    for step in range(config.optim.steps, config.optim.steps + config.quality.crops):
        batch = batches[step]  # past the steps of the training: others than it saw
        parts.append(batch.crops[batch.valid].numpy())
        if sum(map(len, parts)) >= config.quality.crops:
            break
    return np.concatenate(parts)[: config.quality.crops]


def _encode(picture: Image, crf: int, scale: float) -> Image:
    """Encode a picture as a video of three equal ones; return the middle one decoded."""
    encoding = Encoding(crf=crf, preset="veryfast", scale=scale, repeats=3, kept=1)
    return as_picture(encode_h264(picture[None], encoding)[0])


def send(picture: Image, rng: np.random.Generator) -> Image:
    """Encode every other picture moderately, as on its way to us.

    A codec changes what blur and noise look like, and is no damage by itself.
    """
    if rng.random() < 0.5:
        return picture
    return _encode(picture, int(rng.integers(17, 29)), rng.uniform(0.5, 1.0))


@torch.no_grad()
def pool_features(model: ClipModel, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the features, (N, C), of crops, (N, S, S, 3), averaged over places."""
    model.eval()
    maps = (
        model.features(torch.from_numpy(crops[at : at + _BATCH]))
        for at in range(0, len(crops), _BATCH)
    )
    return np.concatenate([m.mean(dim=(2, 3)).numpy() for m in maps]).astype(np.float64)


def fit_linear(
    features: NDArray[np.float64], labels: NDArray[np.integer]
) -> tuple[NDArray[np.float64], float]:
    """Fit a logistic regression on standardised features.

    Args:
        features: shape (N, C).
        labels: shape (N,), 0 or 1.

    Returns:
        Weights, (C,), and bias, for features as they are.
    """
    from sklearn.linear_model import LogisticRegression

    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    fitted = LogisticRegression(C=REGULARISATION, max_iter=1000)
    fitted.fit((features - mean) / spread, labels)
    weight = fitted.coef_[0] / spread
    return weight, float(fitted.intercept_[0] - weight @ mean)
