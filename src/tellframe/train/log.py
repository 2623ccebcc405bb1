"""The log of a training run: a line of JSON a step, progress on stderr, TensorBoard on request."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tellframe.errors import MissingExtraError
from tellframe.train.processes import rank

Log = Callable[[int, Mapping[str, float]], None]
"""Takes a step, from 0, and its losses, or what a validation after it measured."""


@contextmanager
def open_log(
    folder: Path, first: int, last: int, batch_size: int, tensorboard: bool
) -> Iterator[Log]:
    """Log steps to FOLDER/log.jsonl, and every 20th to stderr with the time left.

    Of several processes the first one writes, and the others keep silent.

    Args:
        folder: of the run.
        first: step that the run begins or goes on with.
        last: step that it ends before.
        batch_size: pictures or clips a step, over all processes.
        tensorboard: also write the same figures to FOLDER/tensorboard.
    """
    writer = _open_tensorboard(folder / "tensorboard", first) if tensorboard else None
    begin = time.monotonic()

    def log(step: int, values: Mapping[str, float]) -> None:
        elapsed = time.monotonic() - begin
        row = {"step": step, "seconds": round(elapsed, 1), **values}
        with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        trained = "loss" in values
        if writer:
            for name, value in values.items():
                writer.add_scalar(f"{'train' if trained else 'validation'}/{name}", value, step)
        if not trained or step % 20 == 0:
            speed = (step + 1 - first) / max(elapsed, 1e-9)
            shown = "  ".join(f"{k} {v:.4f}" for k, v in values.items())
            print(
                f"step {step + 1}/{last}  {shown}  {speed * batch_size:.1f} images/s  "
                f"{(last - step - 1) / speed / 60:.0f} min left",
                file=sys.stderr,
                flush=True,
            )

    try:
        yield log if rank() == 0 else lambda *_: None
    finally:
        if writer:
            writer.close()


def require_tensorboard() -> None:
    """Raise unless TensorBoard is installed.

    Raises:
        MissingExtraError: it is not.
    """
    if not find_spec("tensorboard"):
        raise MissingExtraError(
            "--tensorboard needs tensorboard; install it with: pip install 'tellframe[train]'"
        )


def _open_tensorboard(folder: Path, first: int) -> Any:
    """Open a writer; what an interrupted run logged after its checkpoint is struck out."""
    if rank() > 0:
        return None
    from torch.utils.tensorboard import SummaryWriter  # takes a second to import

    return SummaryWriter(str(folder), purge_step=first)
