"""Several processes that train one model: one a GPU, on one machine or on many.

They are started by `torchrun`, which tells each its number in the environment. Every process holds
the whole model, prepares its share of the pairs of every batch, and works out its share of the
loss; shares and gradients add up over all processes, so that all take the same step, and the step
that one process with the whole batch would take. Without `torchrun` there is one process, and every
function here does what it says at no cost.

Gradients are summed here and not by `DistributedDataParallel`: that one wraps `forward` alone,
while training calls `forward_train`, and it averages, while the shares of a loss whose denominators
differ by process must be summed. It would save time by sending gradients while others are still
being computed.

All this has been run on the CPU of one machine, with gloo; not yet on several machines, nor with
nccl on GPUs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final, ParamSpec, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tellframe.errors import ConfigError, WorkerError

P = ParamSpec("P")
T = TypeVar("T")

PATIENCE: Final = timedelta(hours=1)
"""How long to wait for another process. A process that ends is noticed at once; this is for one
that hangs. The longest honest wait is for the first process to cut the crops of new data."""


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that `torchrun` started, if it did: gloo on CPUs, nccl on GPUs.

    Raises:
        ConfigError: the environment is not that of `torchrun`, or there are too few GPUs.
        WorkerError: the other processes do not come, do not answer, or have ended.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or dist.is_initialized():
        yield
        return
    needed = ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    if missing := [name for name in needed if name not in os.environ]:
        raise ConfigError(
            f"WORLD_SIZE is set, but not {', '.join(missing)}: start several processes with "
            "torchrun --nproc-per-node N -m tellframe train CONFIG"
        )
    place = device()
    with _waiting():
        if place.type == "cuda":
            torch.cuda.set_device(place)
            dist.init_process_group("nccl", timeout=PATIENCE, device_id=place)
        else:
            dist.init_process_group("gloo", timeout=PATIENCE)
    yield
    # After an error the others may wait for what will never come: no farewell then.
    dist.destroy_process_group()


@contextmanager
def _waiting() -> Iterator[None]:
    """Say what it means that a message does not get through; torch raises a `RuntimeError`."""
    try:
        yield
    except RuntimeError as error:
        raise WorkerError(
            f"process {os.environ.get('RANK', '?')}: another process has ended, or has not "
            f"answered for {PATIENCE}; its own message says why ({error})"
        ) from error


def rank() -> int:
    """Return the number of this process, from 0; the first one writes files and validates."""
    return dist.get_rank() if dist.is_initialized() else 0


def count() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def device() -> torch.device:
    """Return where this process computes: on its own GPU, or on the CPU.

    Raises:
        ConfigError: this machine has fewer GPUs than processes.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    number, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if number >= found:
        raise ConfigError(
            f"more than {found} processes on a machine with {found} GPUs: give torchrun "
            f"--nproc-per-node {found}"
        )
    return torch.device("cuda", number)


def own_places(num_pairs: int) -> range:
    """Return which pairs of a batch this process prepares: of every kind, if it can be, its share.

    Raises:
        ConfigError: the shares would differ in size.
    """
    if num_pairs % count():
        raise ConfigError(
            f"[batch]: its {num_pairs} pairs cannot be shared evenly by {count()} processes; "
            f"make them a multiple of {count()}"
        )
    return range(rank(), num_pairs, count())


def total(values: Tensor) -> Tensor:
    """Return the sum over all processes; no gradient goes through it."""
    if not dist.is_initialized():
        return values.detach()
    summed = values.detach().clone()
    with _waiting():
        dist.all_reduce(summed)
    return summed


def sum_gradients(model: nn.Module) -> None:
    """Replace every gradient by its sum over all processes, in one message."""
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    message = torch.cat([g.flatten() for g in gradients])
    with _waiting():
        dist.all_reduce(message)
    parts = message.split([g.numel() for g in gradients])  # type: ignore[no-untyped-call]
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def by_first(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call in the first process, while the others wait; return what it returned, in all."""
    box: list[Any] = [work(*args, **kwargs) if rank() == 0 else None]
    if dist.is_initialized():
        with _waiting():
            dist.broadcast_object_list(box, src=0)
    return box[0]  # type: ignore[no-any-return]


def require_same(values: dict[str, Any]) -> None:
    """Compare named values across processes.

    Raises:
        ConfigError: one differs from the first process's; raised in all processes.
    """
    if not dist.is_initialized():
        return
    seen: list[Any] = [None] * count()
    with _waiting():
        dist.all_gather_object(seen, values)
    for number, other in enumerate(seen):
        if different := [name for name in values if other[name] != seen[0][name]]:
            raise ConfigError(
                f"process {number} differs from process 0 in its {' and '.join(different)}: all "
                "machines need the same configuration, data and training folder"
            )


def in_turn(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call in the first process, then in the first of every machine, then in all others.

    So that what the call leaves in a cache is made once, be the folder shared by machines or not.
    """
    if not dist.is_initialized():
        return work(*args, **kwargs)
    turn = 0 if rank() == 0 else 1 if os.environ.get("LOCAL_RANK", "0") == "0" else 2
    for _ in range(turn):
        _meet()
    result = work(*args, **kwargs)
    for _ in range(turn, 2):
        _meet()
    return result


def _meet() -> None:
    with _waiting():
        dist.barrier()
