"""The training loop, readable from top to bottom."""

from __future__ import annotations

import ctypes
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from sklearn.metrics import log_loss, roc_auc_score
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from tellframe.errors import ConfigError
from tellframe.train.augment import Sample, cut
from tellframe.train.batches import Batch, PairBatches, open_batches
from tellframe.train.config import OptimConfig, TrainConfig, config_from_dict
from tellframe.train.data import TrainingData, load_data
from tellframe.train.models import FrameClassifier


def train(
    config: TrainConfig, folder: Path, *, resume: bool = False, workers: int = 1
) -> FrameClassifier:
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
    if config.optim.threads:
        torch.set_num_threads(config.optim.threads)
    torch.manual_seed(config.optim.seed)
    train_data, val_data = load_data(config.data, config.recipe)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = FrameClassifier(config.model, config.recipe).to(memory_format=torch.channels_last)
    model = model.to(device)
    if config.model.start and not resume:
        load_start(Path(config.model.start), config, model)
    mean_model = FrameClassifier(config.model, config.recipe).to(device)
    mean_model.load_state_dict(model.state_dict())
    optimizer = build_optimizer(model, config.optim)
    first = 0
    if resume:
        first = load_checkpoint(folder, config, model, mean_model, optimizer)
    batches = PairBatches(
        train_data, config.batch, config.recipe, num_cells(model, config), config.optim.seed
    )
    last = min(config.optim.stop or config.optim.steps, config.optim.steps)
    log = _logger(folder / "log.jsonl", last, 2 * config.batch.num_pairs, first)
    model.train()
    for step, batch in enumerate(open_batches(batches, first, last, workers), start=first):
        losses = train_step(model, mean_model, optimizer, batch, step, config.optim, device)
        log(step, losses)
        done = step + 1
        if done % config.optim.checkpoint_every == 0 or done == last:
            save_checkpoint(folder, config, model, mean_model, optimizer, done)
        if done % config.optim.validate_every == 0 or done == last:
            log(step, validate(mean_model, val_data, config))
    return mean_model


def train_step(
    model: FrameClassifier,
    mean_model: FrameClassifier,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    step: int,
    config: OptimConfig,
    device: str = "cpu",
) -> dict[str, float]:
    """Take one step; return the losses."""
    # Dropout draws from a generator set by the step, so that a resumed run repeats it exactly.
    torch.manual_seed(config.seed * 1_000_003 + step)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(step, config)
    logits, maps = model.forward_train(batch.crops.to(device))
    losses = pair_losses(logits, maps, batch)
    loss = losses["loss"] + config.pair_weight * losses["pair"] + config.map_weight * losses["map"]
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    # Early on the mean would be dominated by the random head: let it follow faster.
    update_mean(mean_model, model, min(config.ema, (1 + step) / (10 + step)))
    return {k: float(v.detach()) for k, v in losses.items()}


def pair_losses(logits: Tensor, maps: Tensor, batch: Batch) -> dict[str, Tensor]:
    """Return the parts of the loss.

    Args:
        logits: (2 * pairs,), the real of each pair before its fake.
        maps: (2 * pairs, h, w), logits of the difference map.
        batch: labels and differences.
    """
    labels = batch.labels.to(logits.device)
    target = batch.differences.to(logits.device)
    known = (target >= 0).float()
    per_cell = binary_cross_entropy_with_logits(maps, target.clamp(min=0), reduction="none")
    return {
        "loss": binary_cross_entropy_with_logits(logits, labels),
        "pair": softplus(logits[0::2] - logits[1::2]).mean(),
        "map": (per_cell * known).sum() / known.sum().clamp(min=1),
    }


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW; weight decay on matrices and kernels only, not on scales and biases."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": config.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=config.lr,
    )


def learning_rate(step: int, config: OptimConfig) -> float:
    """Linear warm-up, then half a cosine to zero."""
    if step < config.warmup:
        return config.lr * (step + 1) / config.warmup
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


def num_cells(model: FrameClassifier, config: TrainConfig) -> int:
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
def score(model: FrameClassifier, crops: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the logits, (N,), of uint8 crops, (N, S, S, 3)."""
    model.eval()
    device = next(model.parameters()).device
    chunks = np.array_split(crops, math.ceil(len(crops) / 32))
    parts = [model(torch.from_numpy(chunk).to(device))[0] for chunk in chunks]
    return torch.cat(parts).cpu().numpy()


def validate(
    model: FrameClassifier, data: TrainingData, config: TrainConfig, frames: int = 8
) -> dict[str, float]:
    """Measure the held-out groups: videos by the mean over frames, and single crops."""

    def logits(samples: list[Sample]) -> tuple[float, float]:
        pairs = [cut(s, config.recipe.crop_size, config.recipe.margin, None) for s in samples]
        real, fake = (np.stack(side) for side in zip(*pairs, strict=True))
        both = score(model, np.concatenate([real, fake]))
        return float(both[: len(real)].mean()), float(both[len(real) :].mean())

    results: dict[str, float] = {}
    videos = []
    for scene in data.videos:
        for k in range(len(scene.fakes)):
            swapped = np.flatnonzero(scene.swapped[k])
            chosen = swapped[
                np.linspace(0, len(swapped) - 1, min(frames, len(swapped))).astype(int)
            ]
            if len(chosen):
                videos.append(logits([scene.sample(int(f), k) for f in chosen]))
    stills = [logits([scene.sample(0)]) for scene in data.stills[:250]]
    for name, pairs in (("video", videos), ("still", stills)):
        if pairs:
            results |= {f"{name}_{k}": v for k, v in _pair_metrics(np.array(pairs)).items()}
    return results


def _pair_metrics(pairs: np.ndarray[Any, Any]) -> dict[str, float]:
    """Return AUC, pair ranking and log loss of logits of shape (N, 2): real, fake."""
    flat = pairs.T.ravel()
    labels = np.repeat([0, 1], len(pairs))
    return {
        "auc": float(roc_auc_score(labels, flat)),
        "ranked": float((pairs[:, 1] > pairs[:, 0]).mean()),
        "log_loss": float(log_loss(labels, 1 / (1 + np.exp(-flat)))),
    }


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


def save_checkpoint(
    folder: Path,
    config: TrainConfig,
    model: nn.Module,
    mean_model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
) -> None:
    """Write weights, running mean and optimiser state; replaced only when complete."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"mean.{k}": v for k, v in mean_model.state_dict().items()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{i}.{k}": v for k, v in state.items()}
    meta = {
        "format": 1,
        "step": step,
        "recipe_digest": config.recipe.digest,
        "config": config.to_dict(),
    }
    temporary = folder / "checkpoint.part"
    save_file(
        {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()},
        temporary,
        metadata={"tellframe": json.dumps(meta)},
    )
    temporary.replace(folder / "checkpoint.safetensors")
    text = folder / "checkpoint.json.part"
    text.write_text(json.dumps(meta, indent=2), encoding="utf-8")
    text.replace(folder / "checkpoint.json")


def read_checkpoint(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return what a checkpoint says of itself, and its tensors.

    Raises:
        ConfigError: there is none.
    """
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        raise ConfigError(f"{folder}: holds no checkpoint.safetensors; train first")
    with safe_open(path, "pt") as file:
        # The tensor file carries its own description: the JSON beside it is for people.
        meta = json.loads(file.metadata()["tellframe"])
    return meta, load_file(path)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def load_checkpoint(
    folder: Path,
    config: TrainConfig,
    model: nn.Module,
    mean_model: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> int:
    """Restore everything; return the step to go on with.

    Raises:
        ConfigError: there is no checkpoint, or one of another configuration.
    """
    meta, tensors = read_checkpoint(folder)
    # Built anew, so that a key that came with a later version counts as its default.
    if config_from_dict(meta["config"]) != config:
        raise ConfigError(f"{folder}: its checkpoint was made with another configuration")
    model.load_state_dict(_part(tensors, "model."))
    mean_model.load_state_dict(_part(tensors, "mean."))
    state = optimizer.state_dict()
    state["state"] = {}
    for key, tensor in _part(tensors, "optimizer.").items():
        index, name = key.split(".")
        state["state"].setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict(state)
    return int(meta["step"])


def load_start(folder: Path, config: TrainConfig, model: nn.Module) -> None:
    """Start a model from the running mean of another run, head included.

    Raises:
        ConfigError: there is no checkpoint, or one of another backbone.
        RecipeMismatchError: that run has another recipe, whose normalisation its weights hold.
    """
    meta, tensors = read_checkpoint(folder)
    other = config_from_dict(meta["config"])
    if other.model.backbone != config.model.backbone:
        raise ConfigError(
            f"[model] start = {str(folder)!r}: has the backbone {other.model.backbone}, "
            f"not {config.model.backbone}"
        )
    other.recipe.require_same(config.recipe, f"{folder} and this configuration")
    model.load_state_dict(_part(tensors, "mean."))


def load_trained(folder: Path) -> tuple[FrameClassifier, TrainConfig, dict[str, Any]]:
    """Load the running mean of a checkpoint for export; return it with its configuration.

    Raises:
        ConfigError: there is no checkpoint.
    """
    meta, tensors = read_checkpoint(folder)
    values = meta["config"]
    config = config_from_dict(values)
    blank = {**values, "model": {**values["model"], "pretrained": ""}}
    model = FrameClassifier(config_from_dict(blank).model, config.recipe)
    model.load_state_dict(_part(tensors, "mean."))
    return model.eval(), config, meta


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
