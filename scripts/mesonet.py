"""Meso4 and MesoInception4 (Afchar et al. 2018), written anew in torch, for comparisons only.

The networks follow "MesoNet: a Compact Facial Video Forgery Detection Network" (WIFS 2018,
arXiv:1809.00888). Their weights are those that the authors published for Keras; they are read from
where the user has them, with h5py, and are no part of this repository. The output is P(real).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

SIZE: Final = 256
"""Side in pixels of the crops that the networks take (section III of the paper)."""
CROP: Final = 2.2 * 1.3
"""Side of the crop: so many times the larger of the distances from eye to eye and from eyes to
mouth, as in the authors' published pipeline."""
TINY: Final = 1e-6
BATCH: Final = 32
EPSILON: Final = 1e-3
"""What Keras adds to the variance in batch normalisation unless told otherwise."""
SLOPE: Final = 0.1
"""Of the LeakyReLU between the two dense layers, as in the authors' published networks."""

Array = NDArray[np.float32]
Layer = tuple[Array, Array]
"""Kernel and bias: (h, w, in, out) and (out,) of a convolution, (in, out) and (out,) of a dense
layer, in Keras's order of axes."""
Norm = tuple[Array, Array, Array, Array]
"""Gamma, beta, running mean and running variance, (channels,) each."""

Shapes = dict[str, list[tuple[int, ...]]]
HEAD: Final[list[tuple[int, ...]]] = [(1024, 16), (16, 1)]
MESO4: Final[Shapes] = {
    "conv2d": [(3, 3, 3, 8), (5, 5, 8, 8), (5, 5, 8, 16), (5, 5, 16, 16)],
    "batch_normalization": [(8,), (8,), (16,), (16,)],
    "dense": HEAD,
}
"""Shapes of the kernels by kind of layer, in the order of the network."""


def _inception(channels: int, a: int, b: int, c: int, d: int) -> list[tuple[int, ...]]:
    """Return the kernels of one module: a 1x1 alone, then 1x1 and 3x3 for b, c and d."""
    shapes: list[tuple[int, ...]] = [(1, 1, channels, a)]
    for width in (b, c, d):
        shapes += [(1, 1, channels, width), (3, 3, width, width)]
    return shapes


MESO_INCEPTION4: Final[Shapes] = {
    "conv2d": [
        *_inception(3, 1, 4, 4, 2),
        *_inception(11, 2, 4, 4, 2),
        (5, 5, 12, 16),
        (5, 5, 16, 16),
    ],
    "batch_normalization": [(11,), (12,), (16,), (16,)],
    "dense": HEAD,
}
"""The widths of the two modules are those of the paper's table: 1, 4, 4, 2 and 2, 4, 4, 2."""
SHAPES: Final = {"Meso4": MESO4, "MesoInception4": MESO_INCEPTION4}


class MesoNet:
    """One of the two networks with its weights.

    Args:
        name: a key of `SHAPES`.
        convolutions: in the order of `SHAPES`.
        norms: one a block.
        dense: the two layers of the head.

    Raises:
        ValueError: the weights are not those of this network; the message names the layer.
    """

    def __init__(
        self, name: str, convolutions: list[Layer], norms: list[Norm], dense: list[Layer]
    ) -> None:
        found: Mapping[str, list[Any]] = {
            "conv2d": convolutions,
            "batch_normalization": norms,
            "dense": dense,
        }
        for kind, shapes in SHAPES[name].items():
            theirs = [layer[0].shape for layer in found[kind]]
            if theirs != shapes:
                raise ValueError(f"{name}: {kind} has the shapes {theirs}, expected {shapes}")
        self.name = name
        self._convolutions = [_to_torch(layer) for layer in convolutions]
        self._norms = [_to_torch(norm) for norm in norms]
        self._dense = [_to_torch(layer) for layer in dense]

    def __call__(self, crops: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return P(real) of crops.

        Args:
            crops: shape (N, 256, 256, 3), RGB.

        Returns:
            Shape (N,).
        """
        import torch

        parts = [np.zeros(0)]
        with torch.inference_mode():
            for i in range(0, len(crops), BATCH):
                # The authors scale to 0-1 and leave it at that.
                batch = torch.from_numpy(crops[i : i + BATCH].astype(np.float32) / 255)
                parts.append(self._score(batch.permute(0, 3, 1, 2)).double().numpy())
        return np.concatenate(parts)

    def _score(self, x: Tensor) -> Tensor:
        from torch.nn import functional

        inception = self.name == "MesoInception4"
        layers = iter(self._convolutions)
        for block, (gamma, beta, mean, variance) in enumerate(self._norms):
            if inception and block < 2:
                x = _module([next(layers) for _ in range(7)], x)
            else:
                x = _convolve(next(layers), x)
            x = functional.batch_norm(x, mean, variance, gamma, beta, eps=EPSILON)
            x = functional.max_pool2d(x, 4 if block == 3 else 2)
        # Keras flattens row, column, channel; torch has the channel first.
        x = x.permute(0, 2, 3, 1).flatten(1)
        (hidden, hidden_bias), (last, last_bias) = self._dense
        x = functional.leaky_relu(x @ hidden + hidden_bias, SLOPE)
        return (x @ last + last_bias).sigmoid()[:, 0]


def _to_torch(arrays: tuple[Array, ...]) -> list[Tensor]:
    """Return weights as tensors, kernels of convolutions as (out, in, h, w)."""
    import torch

    return [
        torch.from_numpy(np.ascontiguousarray(a.transpose(3, 2, 0, 1) if a.ndim == 4 else a))
        for a in arrays
    ]


def _convolve(layer: list[Tensor], x: Tensor, dilation: int = 1) -> Tensor:
    """Convolve without changing the size, then ReLU."""
    from torch.nn import functional

    kernel, bias = layer
    padding = dilation * (kernel.shape[-1] // 2)
    return functional.conv2d(x, kernel, bias, padding=padding, dilation=dilation).relu()


def _module(layers: list[list[Tensor]], x: Tensor) -> Tensor:
    """Apply one inception module: 1x1; and 1x1, then 3x3 with dilation 1, 2 and 3."""
    import torch

    parts = [_convolve(layers[0], x)]
    for dilation, i in enumerate((1, 3, 5), 1):
        parts.append(_convolve(layers[i + 1], _convolve(layers[i], x), dilation))
    return torch.cat(parts, dim=1)


def load_mesonet(name: str, path: Path) -> MesoNet:
    """Read the authors' Keras weights.

    Args:
        name: a key of `SHAPES`.
        path: of the HDF5 file, such as Meso4_DF.h5.

    Raises:
        ImportError: h5py is not installed.
        ValueError: the file holds other weights; the message names the layer.
        OSError: it cannot be read.
    """
    import h5py  # type: ignore[import-untyped]

    with h5py.File(path) as file:
        layers: dict[str, list[str]] = {kind: [] for kind in SHAPES[name]}
        for layer in file:
            kind, _, number = layer.rpartition("_")
            if kind in layers and number.isdigit():
                layers[kind].append(layer)
        # Keras numbers layers as they are made, which is the order of the network.
        ordered = {k: sorted(v, key=lambda n: int(n.rpartition("_")[2])) for k, v in layers.items()}

        def read(layer: str, *names: str) -> tuple[Array, ...]:
            return tuple(np.asarray(file[layer][layer][f"{n}:0"], np.float32) for n in names)

        norm = ("gamma", "beta", "moving_mean", "moving_variance")
        try:
            return MesoNet(
                name,
                [read(n, "kernel", "bias") for n in ordered["conv2d"]],  # type: ignore[misc]
                [read(n, *norm) for n in ordered["batch_normalization"]],  # type: ignore[misc]
                [read(n, "kernel", "bias") for n in ordered["dense"]],  # type: ignore[misc]
            )
        except KeyError as error:
            raise ValueError(f"{path}: lacks weights of {name} ({error})") from error


def align_face(image: NDArray[np.uint8], landmarks: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Cut a face as MesoNet's authors do: turned upright, square, reflected beyond the border.

    They centre the crop between bridge and base of the nose, known from 68 landmarks; MTCNN has the
    tip of the nose alone, about 2 % of a face's width off, which stands for it here. They scale by
    a cubic spline, this is bilinear and averages what is made smaller.

    Args:
        image: shape (H, W, 3), RGB.
        landmarks: shape (5, 2), as in `tellframe.types.Face`.

    Returns:
        Shape (256, 256, 3).
    """
    points = landmarks.astype(np.float64)
    eyes, mouth, nose = points[:2].mean(axis=0), points[3:].mean(axis=0), points[2]
    down = mouth - eyes
    length = float(np.hypot(*down))
    side = CROP * max(length, float(np.hypot(*(points[1] - points[0]))), 1.0)
    down = down / length if length > TINY else np.array([0.0, 1.0])
    right = np.array([down[1], -down[0]])
    reach = math.ceil(side / math.sqrt(2)) + 2  # the crop fits into this, however it is turned
    corner = np.floor(nose).astype(int) - reach
    patch = _cut_reflected(image, corner, 2 * reach)
    # Of a face larger than the crop, a whole number of samples a pixel and side is averaged.
    factor = max(1, round(side / SIZE))
    step = side / (SIZE * factor)
    start = nose - corner - (right + down) * side / 2
    matrix = (right[0] * step, down[0] * step, start[0], right[1] * step, down[1] * step, start[1])
    picture = Image.fromarray(patch).transform(
        (SIZE * factor, SIZE * factor),
        Image.Transform.AFFINE,
        matrix,
        Image.Resampling.BILINEAR,
    )
    return np.asarray(picture.reduce(factor) if factor > 1 else picture)


def _cut_reflected(
    image: NDArray[np.uint8], corner: NDArray[np.int_], side: int
) -> NDArray[np.uint8]:
    """Cut a square, with the picture mirrored where it reaches beyond it."""

    def positions(first: int, size: int) -> NDArray[np.int_]:
        period = max(2 * (size - 1), 1)
        place = np.arange(first, first + side) % period
        return np.minimum(place, period - place) if size > 1 else place * 0

    rows, columns = positions(int(corner[1]), len(image)), positions(int(corner[0]), image.shape[1])
    return np.ascontiguousarray(image[rows][:, columns])
