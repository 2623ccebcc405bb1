"""The optimiser, its learning rate, and the running mean of the weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from tellframe.train.config import OptimConfig


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
