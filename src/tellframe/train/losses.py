"""The losses of a batch, or of this process's share of it."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from tellframe.train.batches import Batch
from tellframe.train.processes import count, total


def pair_losses(
    logits: Tensor, maps: Tensor, batch: Batch, label_smoothing: float = 0.0
) -> dict[str, Tensor]:
    """Return the parts of the loss, in float32.

    Each is a mean over what counts in the batch of all processes. A process returns its own
    summands over their common denominator: its share, and the shares add up to the loss.

    Args:
        logits: (2 * pairs,), the real of each pair before its fake.
        maps: (2 * pairs, T, h, w), logits of the difference map.
        batch: labels, weights and differences.
        label_smoothing: share of each label that is spread over both classes.
    """
    logits, maps = logits.float(), maps.float()
    labels, weights = batch.labels.to(logits.device), batch.weights.to(logits.device)
    target, paired = batch.differences.to(logits.device), batch.paired.to(logits.device)
    known = (target >= 0).float() * batch.valid.to(logits.device)[..., None, None]
    per_cell = binary_cross_entropy_with_logits(maps, target.clamp(min=0), reduction="none")
    smooth = labels * (1 - label_smoothing) + label_smoothing / 2
    order = softplus(logits[0::2] - logits[1::2]) * paired
    return {
        # All processes have as many clips, but not as many pairs nor known places.
        "loss": binary_cross_entropy_with_logits(logits, smooth, weights) / count(),
        "pair": order.sum() / total(paired.sum()).clamp(min=1),
        "map": (per_cell * known).sum() / total(known.sum()).clamp(min=1),
    }
