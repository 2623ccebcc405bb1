"""LRNet (Sun et al. 2021), written anew in torch, for comparisons only.

"Improving the Efficiency and Robustness of Deepfakes Detection through Precise Geometric Features"
(CVPR 2021, arXiv:2104.04480): one recurrent network judges where 68 landmarks of a face lie in
successive frames, another how they move from frame to frame; their probabilities are averaged. The
weights are those that the authors published for torch; they are read from where the user has them
and are no part of this repository.

The landmarks are not found here. LRNet lives on their small errors, so that another detector than
the authors' would make another method of it: they are read from what the authors' own extraction
wrote, a text file a video with a line a frame.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS: Final = 136
"""x and y of 68 landmarks, aligned and scaled by whoever extracted them."""
UNITS: Final = 32
"""Of the recurrent layer, in each direction."""
BLOCK: Final = 30
"""Frames that are judged together: what the published weights are used with."""
WEIGHTS: Final = ("g1.pth", "g2.pth")
"""Files of the branches for places and for movements."""


class Branch:
    """One of the two recurrent networks.

    Args:
        weights: as published, by name.

    Raises:
        ValueError: they are those of another network; the message names what differs.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        import torch

        expected = {
            "hidden_state": (2, 1, UNITS),
            "dense.1.fn.net.0.weight": (2 * UNITS, 2 * UNITS),
            "dense.1.fn.net.3.weight": (2 * UNITS, 2 * UNITS),
            "dense.3.weight": (2, 2 * UNITS),
            "dense.1.fn.net.0.bias": (2 * UNITS,),
            "dense.1.fn.net.3.bias": (2 * UNITS,),
            "dense.3.bias": (2,),
        }
        found = {name: tuple(weights[name].shape) for name in expected if name in weights}
        if found != expected:
            raise ValueError(f"LRNet: the weights have the shapes {found}, expected {expected}")
        self._weights = weights
        self._gru = torch.nn.GRU(COLUMNS, UNITS, batch_first=True, bidirectional=True)
        try:
            self._gru.load_state_dict(
                {k.removeprefix("gru."): v for k, v in weights.items() if k.startswith("gru.")}
            )
        except RuntimeError as error:
            raise ValueError(f"LRNet: {error}") from error

    def __call__(self, blocks: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return P(fake), (N,), of blocks of frames, (N, T, 136)."""
        import torch
        from torch.nn.functional import linear

        def dense(name: str, x: Tensor) -> Tensor:
            return linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])

        with torch.inference_mode():
            begin = self._weights["hidden_state"].repeat(1, len(blocks), 1)
            _, last = self._gru(torch.from_numpy(blocks), begin)
            x = torch.cat([last[0], last[1]], dim=1)
            x = x + dense("dense.1.fn.net.3", dense("dense.1.fn.net.0", x).relu())
            found: NDArray[np.float64] = dense("dense.3", x).softmax(1)[:, 1].double().numpy()
        return found


class LRNet:
    """Both branches.

    Args:
        places: the branch that sees where the landmarks are.
        movements: the branch that sees how they move.
    """

    def __init__(self, places: Branch, movements: Branch) -> None:
        self._places, self._movements = places, movements

    def __call__(self, landmarks: NDArray[np.float32]) -> float | None:
        """Return P(fake) of a face: the mean over whole blocks of frames.

        Args:
            landmarks: shape (T, 136).

        Returns:
            None of fewer frames than a block has.
        """
        count = len(landmarks) // BLOCK
        if not count:
            return None
        blocks = landmarks[: count * BLOCK].reshape(count, BLOCK, COLUMNS)
        scores = self._places(blocks) + self._movements(np.diff(blocks, axis=1))
        return float(scores.mean() / 2)


def load_lrnet(files: Sequence[Path]) -> LRNet:
    """Read the authors' weights for torch.

    Args:
        files: the two of `WEIGHTS`, in this order.

    Raises:
        ValueError: a file holds other weights.
        OSError: it cannot be read.
    """
    places, movements = (Branch(_load_weights(file)) for file in files)
    return LRNet(places, movements)


def _load_weights(file: Path) -> dict[str, Tensor]:
    import torch

    content = io.BytesIO(file.read_bytes())
    try:
        weights = torch.load(content, map_location="cpu", weights_only=True)
    # torch has no error of its own for what is no file of weights: which one comes depends on
    # where it stumbles. Its messages say at length how to load what is not safe to load.
    except Exception as error:
        raise ValueError(f"{file}: holds no weights ({type(error).__name__})") from error
    if not isinstance(weights, dict) or not all(map(torch.is_tensor, weights.values())):
        raise ValueError(f"{file}: holds something else than weights by name")
    return weights


def read_landmarks(path: Path) -> NDArray[np.float32]:
    """Read the landmarks of one face in successive frames.

    Args:
        path: of a text file, a line a frame, 136 numbers a line.

    Returns:
        Shape (T, 136).

    Raises:
        ValueError: it holds something else.
        OSError: it cannot be read.
    """
    found = np.loadtxt(path, dtype=np.float32, ndmin=2)
    if found.shape[1] != COLUMNS or not np.isfinite(found).all():
        raise ValueError(f"{path}: holds {found.shape[1]} numbers a line, expected {COLUMNS}")
    return found
