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
from tellframe.train.loop import build_batches, keep_memory, train_step, use_threads
from tellframe.train.state import TrainState, build_state


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
    state = build_state(config)
    batches = build_batches(data, state.model, config)
    state.model.train()
    loader = iter(open_batches(batches, 0, (rounds + 1) * steps, workers))
    clips = 2 * config.batch.num_pairs
    seconds: dict[str, list[float]] = {"train": [], "bare": []}
    for number in range(rounds + 1):  # the first to warm up
        begin = time.perf_counter()
        for step in range(steps):
            train_step(state, next(loader), step, config.optim)
        middle = time.perf_counter()
        _bare_steps(state, config, clips, steps)
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


def _bare_steps(state: TrainState, config: TrainConfig, clips: int, steps: int) -> None:
    size, frames = config.training_recipe.crop_size, config.batch.frames
    shape = (clips, frames, size, size, 3)
    crops = torch.randint(0, 256, shape, dtype=torch.uint8, device=state.device)
    valid = torch.ones(clips, frames, dtype=torch.bool, device=state.device)
    for _ in range(steps):
        state.model.zero_grad(set_to_none=True)
        with state.autocast():
            logits, maps = state.model.forward_train(crops, valid)
        loss = logits.mean() + maps.mean()
        loss.backward()  # type: ignore[no-untyped-call]
    loss.item()  # a GPU may still be at work
