"""Batch normalisation over the batch of all processes, on CPUs and GPUs alike.

PyTorch's own `SyncBatchNorm` takes GPUs alone and replaces the layers. Here the layers stay as they
are, whatever class they have: while `shared_norms` is open, the function that all of them call is
another one. On GPUs it has not been run.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tellframe.train.processes import count, total


def shared_norms() -> AbstractContextManager[Any]:
    """Normalise by the statistics of all processes inside of the `with`; alone, as ever.

    All processes must run the same layers in the same order.
    """
    return _SharedNorms() if count() > 1 else nullcontext()


class _SharedNorms(TorchFunctionMode):
    """Sends calls of `batch_norm` in training elsewhere."""

    def __torch_function__(
        self, func: Any, _types: Any, args: Iterable[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        return (batch_norm if func is functional.batch_norm else func)(*args, **kwargs)


def batch_norm(
    values: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Do as `torch.nn.functional.batch_norm`, with the statistics of all processes.

    Args:
        values: (N, C, ...); N may differ by process.
        running_mean: (C,), moved towards the mean by `momentum`.
        running_var: (C,), towards the unbiased variance.
        weight: (C,).
        bias: (C,).
        training: whether to normalise by the batch; otherwise by the running statistics.
        momentum: share of the batch in the running statistics.
        eps: added to the variance.

    Returns:
        As `values`, in its type; statistics are in float32 at least.
    """
    if not training:
        return functional.batch_norm(
            values, running_mean, running_var, weight, bias, False, momentum, eps
        )
    normalised, mean, variance, number = _Normalise.apply(values, eps)
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        unbiased = variance * number / (number - 1).clamp(min=1)
        running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    shape = _by_channel(values)
    if weight is not None:
        normalised = normalised * weight.view(shape)
    if bias is not None:
        normalised = normalised + bias.view(shape)
    return normalised.to(values.dtype)  # type: ignore[no-any-return]


class _Normalise(torch.autograd.Function):
    """Subtract the mean over all processes, divide by the deviation (Ioffe and Szegedy 2015)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        axes, shape = [0, *range(2, values.ndim)], _by_channel(values)
        own = values.new_tensor([values.numel() / values.shape[1]])
        sums = total(torch.cat([values.sum(axes), own]))
        number, mean = sums[-1], sums[:-1] / sums[-1]
        centred = values - mean.view(shape)
        # In two messages, not by the mean of squares, which loses digits where the mean is large.
        variance = total(centred.square().sum(axes)) / number
        scale = (variance + eps).rsqrt()
        normalised = centred * scale.view(shape)
        ctx.save_for_backward(normalised, scale, number)
        ctx.mark_non_differentiable(mean, variance, number)
        return normalised, mean, variance, number

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor, None]:
        normalised, scale, number = ctx.saved_tensors
        axes, shape = [0, *range(2, gradient.ndim)], _by_channel(gradient)
        # Through the mean and the deviation, each value moves those of all processes.
        sums = total(torch.stack([gradient.sum(axes), (gradient * normalised).sum(axes)])) / number
        shift, stretch = sums[0].view(shape), sums[1].view(shape)
        return (gradient - shift - normalised * stretch) * scale.view(shape), None


def _by_channel(values: Tensor) -> list[int]:
    """Return the shape that spreads (C,) over (N, C, ...)."""
    return [1, -1, *[1] * (values.ndim - 2)]
