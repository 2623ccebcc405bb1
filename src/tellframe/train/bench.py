"""How much of the cores' time training puts to use: beside a bare loop on random tensors."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch

from tellframe.errors import UsageError
from tellframe.train.batches import open_batches
from tellframe.train.config import TrainConfig
from tellframe.train.data import load_data
from tellframe.train.loop import (
    build_batches,
    build_optimizer,
    keep_memory,
    learning_rate,
    train_step,
    use_threads,
)
from tellframe.train.models import ClipModel, build_model


def bench_train(
    config: TrainConfig, *, rounds: int = 3, steps: int = 10, workers: int = 1
) -> dict[str, Any]:
    """Time training steps, loader and augmentation included, and bare steps in turns.

    A bare step is a forward and a backward pass of the same network over random crops that are
    there already, and nothing else.

    Args:
        config: of the training; its data is loaded.
        rounds: how many of each.
        steps: in a round.
        workers: processes that prepare batches.

    Returns:
        JSON-ready: images a second of both, and the ratio of their medians.

    Raises:
        ConfigError: the data is not there.
        UsageError: fewer than one round or step is asked for.
    """
    if rounds < 1 or steps < 1:
        raise UsageError(f"bench: {rounds} rounds of {steps} steps; give at least 1 of each")
    keep_memory()
    use_threads(config.optim)
    data, _ = load_data(config.data, config.recipe)
    model = build_model(config.model, config.recipe).to(memory_format=torch.channels_last)
    mean_model = build_model(config.model, config.recipe)
    optimizer = build_optimizer(model, config.optim)
    batches = build_batches(data, model, config)
    model.train()
    loader = iter(open_batches(batches, 0, (rounds + 1) * steps, workers))
    clips = 2 * config.batch.num_pairs
    seconds: dict[str, list[float]] = {"train": [], "bare": []}
    for number in range(rounds + 1):  # the first to warm up
        begin = time.perf_counter()
        for step in range(steps):
            rate = learning_rate(step, config.optim)
            train_step(model, mean_model, optimizer, next(loader), step, rate, config.optim)
        middle = time.perf_counter()
        _bare_steps(model, config, clips, steps)
        if number:
            seconds["train"].append(middle - begin)
            seconds["bare"].append(time.perf_counter() - middle)
    images = clips * config.batch.frames * steps
    speed = {name: images / statistics.median(values) for name, values in seconds.items()}
    return {
        "config": config.name,
        "images_per_batch": clips * config.batch.frames,
        "rounds": rounds,
        "workers": workers,
        "threads": torch.get_num_threads(),
        "images_per_second": {name: round(value, 2) for name, value in speed.items()},
        "train_to_bare": round(speed["train"] / speed["bare"], 3),
    }


def _bare_steps(model: ClipModel, config: TrainConfig, clips: int, steps: int) -> None:
    size, frames = config.recipe.crop_size, config.batch.frames
    crops = torch.randint(0, 256, (clips, frames, size, size, 3), dtype=torch.uint8)
    valid = torch.ones(clips, frames, dtype=torch.bool)
    for _ in range(steps):
        model.zero_grad(set_to_none=True)
        logits, maps = model.forward_train(crops, valid)
        (logits.mean() + maps.mean()).backward()  # type: ignore[no-untyped-call]
