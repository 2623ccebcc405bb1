"""Face autoencoders: what the first deepfakes were made with, here to make pairs to learn from.

A fake of the autoencoder kind is a face that a small decoder painted, warped back into the frame
and blended in. The decoder's traces do not depend on whose face it paints, so one autoencoder for
all people, trained on real faces alone, gives as many matched pairs as there are real faces.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from tellframe.errors import ConfigError
from tellframe.faces.align import TEMPLATE, similarity_transform
from tellframe.train.augment import MAKERS, Frames, Image, Maker, Points, Sample
from tellframe.train.augment.blends import blend_faces, bring_face, warp_frame
from tellframe.train.augment.sample import as_picture
from tellframe.train.tensorfile import read_tensors, write_tensors

SIZES: Final = (64, 96, 128)
"""Sides in pixels of the first deepfakes (64) and of DFDC's own (Dolhansky et al. 2020: 128)."""
_ENLARGED: Final = 1.6
"""How many times `TEMPLATE` is enlarged around its middle: five eighths of the face are painted,
brows to below the mouth, as in the first deepfakes. Tight crops of faces show as much."""


class Autoencoder(nn.Module):
    """Encoder, a small map of numbers, and a decoder of pixel shuffles.

    Args:
        size: side of the faces in pixels, a multiple of 8.
        width: channels at the finest level; they double with every halving.
        bottleneck: channels of the smallest map, an eighth of the size: the fewer, the coarser.
    """

    def __init__(self, size: int, width: int = 16, bottleneck: int = 8) -> None:
        super().__init__()
        self.size, self.width, self.bottleneck = size, width, bottleneck
        channels = [width, 2 * width, 4 * width]
        layers: list[nn.Module] = []
        for before, after in zip([3, *channels], channels, strict=False):
            layers += [nn.Conv2d(before, after, 5, 2, 2), nn.LeakyReLU(0.1)]
        layers += [nn.Conv2d(channels[-1], bottleneck, 1)]
        for before, after in zip([bottleneck, *channels[::-1]], channels[::-1], strict=False):
            layers += [nn.Conv2d(before, 4 * after, 3, 1, 1), nn.LeakyReLU(0.1), nn.PixelShuffle(2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 3, 5, 1, 2))

    def forward(self, faces: Tensor) -> Tensor:
        """Paint faces again: float32, (N, 3, S, S), 0 to 1; the result is not clipped."""
        return self.layers(faces)  # type: ignore[no-any-return]

    @torch.no_grad()
    def paint(self, faces: Frames) -> Frames:
        """Paint faces again: uint8, (N, S, S, 3), RGB."""
        pixels = torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 255
        painted = self(pixels).clamp(0, 1).permute(0, 2, 3, 1) * 255
        return np.asarray((painted + 0.5).to(torch.uint8).contiguous())


def align_matrices(landmarks: Points, size: int) -> NDArray[np.float64]:
    """Return the matrices, (T, 2, 3), that bring faces into the square of `size` to be painted.

    Args:
        landmarks: (T, 5, 2).
        size: S.
    """
    places = (0.5 + _ENLARGED * (TEMPLATE - TEMPLATE.mean(axis=0))) * size
    return np.stack([similarity_transform(points, places) for points in landmarks])


def align(frames: Frames, matrices: NDArray[np.float64], size: int) -> Frames:
    """Cut aligned faces, (T, S, S, 3), out of frames, (T, P, P, 3)."""
    return np.stack([_align(f, m, size) for f, m in zip(frames, matrices, strict=True)])


def _align(frame: Image, matrix: NDArray[np.float64], size: int) -> Image:
    side = round(len(frame) * float(np.hypot(*matrix[:, 0])) * 1.5)
    if side < len(frame):  # first shrunk by area, so that nothing aliases
        shrink = len(frame) / side
        frame = as_picture(cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA))
        finer = matrix[:, :2] * shrink
        # OpenCV counts from the middle of a pixel.
        shift = matrix[:, 2] + (finer - matrix[:, :2]) @ (0.5, 0.5)
        matrix = np.concatenate([finer, shift[:, None]], axis=1)
    return warp_frame(frame, matrix, size, cv2.INTER_LINEAR)


def repaint(sample: Sample, source: Frames, coder: Autoencoder, rng: np.random.Generator) -> Frames:
    """Return `source` with the faces painted by an autoencoder, where the sample's faces are.

    Args:
        sample: gives the landmarks.
        source: (T, P, P, 3), faces at the places of the sample's.
        coder: paints.
        rng: draws the interpolation of the way back.

    Returns:
        Shape (T, P, P, 3); what lies outside of the painted square is `source`.
    """
    matrices = align_matrices(sample.landmarks, coder.size)
    painted = coder.paint(align(source, matrices, coder.size))
    smooth = (cv2.INTER_LINEAR, cv2.INTER_CUBIC)[rng.integers(2)]
    back = [
        cv2.warpAffine(
            face,
            np.asarray(cv2.invertAffineTransform(matrix)),
            (source.shape[2], source.shape[1]),
            dst=frame.copy(),
            flags=smooth,
            borderMode=cv2.BORDER_TRANSPARENT,
        )
        for face, matrix, frame in zip(painted, matrices, source, strict=True)
    ]
    return np.stack([as_picture(frame) for frame in back])


def all_makers(coders: Sequence[Autoencoder]) -> dict[str, Maker]:
    """Return `MAKERS` and, where there are autoencoders, "painted_blend" which uses them."""

    def painted_blend(sample: Sample, other: Sample, rng: np.random.Generator) -> Sample:
        """Blend a face that an autoencoder painted into a real one: its own, or another person's.

        Of both samples only the real is used.
        """
        source = sample.real if rng.random() < 0.5 else bring_face(sample, other, rng)
        painted = repaint(sample, source, coders[int(rng.integers(len(coders)))], rng)
        return blend_faces(sample, sample.real, painted, sample.real, rng)

    return {**MAKERS, **({"painted_blend": painted_blend} if coders else {})}


def train_autoencoder(
    coder: Autoencoder,
    draw: Callable[[np.random.Generator], Sample],
    folder: Path,
    *,
    steps: int,
    snapshots: Sequence[int],
    seed: int = 0,
    batch: int = 32,
    pool: int = 4000,
    report: Callable[[str], None] = print,
) -> None:
    """Train on real faces; write the weights at some steps: an early decoder paints coarsely.

    Args:
        coder: is trained in place.
        draw: gives a sample; of it only the real is used.
        folder: gets `autoencoder_{size}_{bottleneck}_{step}.safetensors`.
        steps: of Adam.
        snapshots: steps after which the weights are written.
        seed: decides what is drawn.
        batch: faces a step.
        pool: faces, aligned, held in memory, of which one batch in ten is drawn anew every step.
        report: is told the progress.
    """
    rng = np.random.default_rng(seed)

    def face() -> Image:
        sample = draw(rng)
        (matrix,) = align_matrices(sample.landmarks[:1], coder.size)
        return _align(sample.real[0], matrix, coder.size)

    faces = np.stack([face() for _ in range(pool)])
    optimizer = torch.optim.Adam(coder.parameters(), lr=5e-4, betas=(0.5, 0.999))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, 4 * (1 - step / steps))
    )
    for step in range(1, steps + 1):
        faces[rng.integers(pool, size=batch // 10)] = [face() for _ in range(batch // 10)]
        wanted = faces[rng.integers(pool, size=batch)]
        wanted = np.where(rng.random((batch, 1, 1, 1)) < 0.5, wanted[:, :, ::-1], wanted)
        pixels = torch.from_numpy(wanted).permute(0, 3, 1, 2).float() / 255
        loss = functional.l1_loss(coder(pixels), pixels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            name = f"{coder.size} px, {coder.bottleneck} channels"
            report(f"{name}  step {step}/{steps}  L1 {float(loss.detach()):.4f}")
        if step in snapshots:
            save(coder, folder / f"autoencoder_{coder.size}_{coder.bottleneck}_{step}.safetensors")


def save(coder: Autoencoder, path: Path) -> None:
    """Write an autoencoder."""
    shape = {"size": coder.size, "width": coder.width, "bottleneck": coder.bottleneck}
    write_tensors(path, coder.state_dict(), shape)


def load_autoencoders(paths: Sequence[str]) -> tuple[Autoencoder, ...]:
    """Read autoencoders, or all of a folder, sorted by name.

    Raises:
        ConfigError: a folder holds none, or a file is not one.
    """
    found: list[Path] = []
    for path in map(Path, paths):
        files = sorted(path.glob("autoencoder_*.safetensors")) if path.is_dir() else [path]
        if not files:
            raise ConfigError(f"{path}: holds no autoencoder_*.safetensors; train them first")
        found += files
    return tuple(load(path) for path in found)


def load(path: Path) -> Autoencoder:
    """Read an autoencoder that `save` wrote, for painting.

    Raises:
        ConfigError: the file is not one.
    """
    shape, tensors = read_tensors(path, "autoencoder")
    try:
        coder = Autoencoder(**shape)
        coder.load_state_dict(tensors)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{path}: no autoencoder: {error}") from error
    return coder.eval().requires_grad_(False)
