"""The training loop, readable from top to bottom."""

from __future__ import annotations

import ctypes
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from tellframe.errors import ConfigError
from tellframe.evaluate.metrics import log_loss, rank_pairs, roc_auc
from tellframe.scoring import Calibration
from tellframe.train.augment import Sample, cut
from tellframe.train.batches import Batch, PairBatches, open_batches
from tellframe.train.checkpoint import (
    Progress,
    load_checkpoint,
    load_start,
    save_best,
    save_checkpoint,
)
from tellframe.train.config import OptimConfig, TrainConfig
from tellframe.train.data import TrainingData, load_data
from tellframe.train.models import ClipModel, build_model

MAX_VALIDATION: Final = 250
"""Single crops, and scenes of shards, that a validation looks at."""


def train(
    config: TrainConfig, folder: Path, *, resume: bool = False, workers: int = 1
) -> ClipModel:
    """Train a model and leave checkpoints and a log in a folder.

    Args:
        config: everything that decides the result.
        folder: gets checkpoint.safetensors, checkpoint.json and log.jsonl.
        resume: go on from the folder's checkpoint; otherwise the folder must hold none.
        workers: processes that prepare batches.

    Returns:
        The running mean of the weights, which is what is exported.

    Raises:
        ConfigError: a source is missing, or the checkpoint is of another configuration.
        RecipeMismatchError: the run to start from has another recipe.
    """
    if not resume and (folder / "checkpoint.safetensors").exists():
        raise ConfigError(f"{folder}: holds a checkpoint; add --resume, or choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    keep_memory()
    use_threads(config.optim)
    torch.manual_seed(config.optim.seed)
    train_data, val_data = load_data(config.data, config.recipe)
    if config.optim.keep == "best" and not (val_data.videos or val_data.stills or val_data.clips):
        raise ConfigError(
            "[optim] keep = 'best': no group is held out to measure on; raise [data] validation, "
            "name a validation_split, or keep the last"
        )
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = build_model(config.model, config.recipe).to(memory_format=torch.channels_last)
    model = model.to(device)
    if config.model.start and not resume:
        load_start(Path(config.model.start), config, model)
    mean_model = build_model(config.model, config.recipe).to(device)
    mean_model.load_state_dict(model.state_dict())
    optimizer = build_optimizer(model, config.optim)
    first, progress = 0, Progress()
    if resume:
        first, progress = load_checkpoint(folder, config, model, mean_model, optimizer)
    batches = build_batches(train_data, model, config)
    last = min(config.optim.stop or config.optim.steps, config.optim.steps)
    log = _logger(folder / "log.jsonl", last, 2 * config.batch.num_pairs, first)
    model.train()
    for step, batch in enumerate(open_batches(batches, first, last, workers), start=first):
        rate = learning_rate(step, config.optim, progress.reductions)
        log(step, train_step(model, mean_model, optimizer, batch, step, rate, config.optim))
        done = step + 1
        if done % config.optim.validate_every == 0 or done == last:
            measured = validate(mean_model, val_data, config)
            if measured:
                log(step, measured)
                if progress.note(measured["log_loss"], config.optim.patience):
                    save_best(folder, config, mean_model, done)
        if done % config.optim.checkpoint_every == 0 or done == last:
            save_checkpoint(folder, config, model, mean_model, optimizer, done, progress)
    return mean_model


def build_batches(data: TrainingData, model: ClipModel, config: TrainConfig) -> PairBatches:
    """Return the batches that a configuration asks for.

    Raises:
        ConfigError: the data has nothing that it asks for.
    """
    cells = num_cells(model, config)
    seed = config.optim.seed
    return PairBatches(data, config.batch, config.recipe, cells, seed, config.augment)


def train_step(
    model: ClipModel,
    mean_model: ClipModel,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    step: int,
    rate: float,
    config: OptimConfig,
) -> dict[str, float]:
    """Take one step at a learning rate; return the losses."""
    device = next(model.parameters()).device
    # Dropout draws from a generator set by the step, so that a resumed run repeats it exactly.
    torch.manual_seed(config.seed * 1_000_003 + step)
    for group in optimizer.param_groups:
        group["lr"] = rate
    logits, maps = model.forward_train(batch.crops.to(device), batch.valid.to(device))
    losses = pair_losses(logits, maps, batch, config.label_smoothing)
    loss = losses["loss"] + config.pair_weight * losses["pair"] + config.map_weight * losses["map"]
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    # Early on the mean would be dominated by the random head: let it follow faster.
    update_mean(mean_model, model, min(config.ema, (1 + step) / (10 + step)))
    return {k: float(v.detach()) for k, v in losses.items()}


def pair_losses(
    logits: Tensor, maps: Tensor, batch: Batch, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Return the parts of the loss.

    Args:
        logits: (2 * pairs,), the real of each pair before its fake.
        maps: (2 * pairs, T, h, w), logits of the difference map.
        batch: labels, weights and differences.
        label_smoothing: share of each label that is spread over both classes.
    """
    labels, weights = batch.labels.to(logits.device), batch.weights.to(logits.device)
    target, paired = batch.differences.to(logits.device), batch.paired.to(logits.device)
    known = (target >= 0).float() * batch.valid.to(logits.device)[..., None, None]
    per_cell = binary_cross_entropy_with_logits(maps, target.clamp(min=0), reduction="none")
    smooth = labels * (1 - label_smoothing) + label_smoothing / 2
    order = softplus(logits[0::2] - logits[1::2]) * paired
    return {
        "loss": binary_cross_entropy_with_logits(logits, smooth, weights),
        "pair": order.sum() / paired.sum().clamp(min=1),
        "map": (per_cell * known).sum() / known.sum().clamp(min=1),
    }


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """Build it; weight decay on matrices and kernels only, not on scales and biases."""
    trained = [p for p in model.parameters() if p.requires_grad]
    decayed = [p for p in trained if p.ndim > 1]
    others = [p for p in trained if p.ndim <= 1]
    kinds: dict[str, type[torch.optim.Optimizer]] = {
        "adamw": torch.optim.AdamW,
        "adam": torch.optim.Adam,
    }
    build: Any = kinds[config.optimizer]
    optimizer: torch.optim.Optimizer = build(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=config.lr,
    )
    return optimizer


def learning_rate(step: int, config: OptimConfig, reductions: int = 0) -> float:
    """Return the rate of a step: linear warm-up, then half a cosine to zero, or a plateau.

    Args:
        step: from 0.
        config: the schedule.
        reductions: how often a plateau was reached.
    """
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
    if config.schedule == "plateau":
        return config.lr * config.factor**reductions
    progress = (step - config.warmup) / max(config.steps - config.warmup, 1)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))


@torch.no_grad()
def update_mean(mean_model: nn.Module, model: nn.Module, decay: float) -> None:
    """Move the running mean of weights and batch-norm statistics towards the model."""
    current = model.state_dict()
    for name, tensor in mean_model.state_dict().items():
        if tensor.is_floating_point():
            tensor.lerp_(current[name], 1 - decay)
        else:
            tensor.copy_(current[name])


def num_cells(model: ClipModel, config: TrainConfig) -> int:
    """Return the side of the feature map."""
    size = config.recipe.crop_size
    device = next(model.parameters()).device
    with torch.no_grad():
        training = model.training
        model.eval()
        cells = model.features(torch.zeros(1, size, size, 3, device=device)).shape[-1]
        model.train(training)
    return int(cells)


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


def use_threads(config: OptimConfig) -> None:
    """Set the number of torch's threads, where one is asked for."""
    if config.threads:
        torch.set_num_threads(config.threads)


def keep_memory() -> None:
    """Tell glibc to keep freed memory: a third of a training step on a CPU went to the kernel.

    Has no effect with other C libraries.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, top_pad, mmap_max = -1, -2, -4  # glibc's malloc.h
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(top_pad, 256 * 2**20)


def _logger(
    path: Path, steps: int, batch_size: int, first: int
) -> Callable[[int, dict[str, float]], None]:
    """Return a function that logs a step to a file, and every 20th to stderr with time left."""
    begin = time.monotonic()

    def log(step: int, values: dict[str, float]) -> None:
        elapsed = time.monotonic() - begin
        rate = (step + 1 - first) / max(elapsed, 1e-9)
        row = {"step": step, "seconds": round(elapsed, 1), **values}
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if "loss" not in values or step % 20 == 0:
            shown = "  ".join(f"{k} {v:.4f}" for k, v in values.items())
            left = (steps - step - 1) / rate / 60
            print(
                f"step {step + 1}/{steps}  {shown}  {rate * batch_size:.1f} images/s  "
                f"{left:.0f} min left",
                file=sys.stderr,
                flush=True,
            )

    return log
