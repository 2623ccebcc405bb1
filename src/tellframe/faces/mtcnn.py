"""MTCNN, a cascade of three small networks, on ONNX Runtime.

Zhang et al. 2016, "Joint Face Detection and Alignment using Multi-task Cascaded Convolutional
Networks".

P-Net slides over a pyramid of ever smaller pictures and proposes boxes, R-Net looks at each of
them at 24 pixels and O-Net at 48 pixels, which also places the landmarks. Constants and rounding
follow facenet-pytorch, whose weights these are (see weights/NOTICE.md), so that recipes made with
it stay true.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellframe.faces.boxes import suppress_overlaps
from tellframe.runtime import Session
from tellframe.types import Face

_Array = NDArray[np.float32]

_WEIGHTS: Final = Path(__file__).parent / "weights"
_CELL: Final = 12
"""Side in pixels of the window that one output cell of P-Net sees."""
_STRIDE: Final = 2
"""Pixels between the windows of two neighbouring cells."""
_REFINE_SIDE: Final = 24
_OUTPUT_SIDE: Final = 48
_SAME_LEVEL_OVERLAP: Final = 0.5
"""Overlap limits of the suppression, as published with the original MATLAB code."""
_OVERLAP: Final = 0.7
_BATCH: Final = 64
"""Crops a run of R-Net or O-Net: one layer of O-Net then takes 17 MB at the most."""
_STRIP: Final = 1 << 16
"""Pixels of a pyramid level that P-Net sees in one run. The layers of a strip fit into the cache
of a core, and the memory of a run does not depend on the size of the picture."""
_MAX_PROPOSALS: Final = 4096
"""Proposals kept a pyramid level, the best first. Ordinary pictures have some hundreds; noise has
hundreds of thousands, and must cost neither minutes nor gigabytes."""
_SPARE: Final = 1.6
"""Every resize starts from the most halved copy of the picture that is still this many times
larger than its target. Reading the full picture every time took twice as long on 1080p, and the
boxes came no closer to those of facenet-pytorch."""

_REACH: Final = 0.6
"""How far a face is looked for around its old place, in sides of its old box."""
_FITS: Final = (0.5, 1.7)
"""Sides of P-Net's window, in sides of the old box, at which the face is looked for again."""
_NEAR_OVERLAP: Final = 0.5
"""Overlap limit between R-Net and O-Net where known faces are looked for. With `_FITS` it leaves
2.2 boxes a face to O-Net, the costliest of the three; with `_OVERLAP` and windows of 0.4 to 2.0
sides there were 6.3. In 243 frames no face was missed for that; the box that is left lies 0.02 of
its side (median) from that of the whole cascade."""
_GRID: Final = 64
"""Pixels to which parts of a picture are rounded, so that up to 1/64 of the size the copies of a
part are those of the whole."""

_Box = tuple[float, float, float, float]


class Halvings:
    """A picture with its copies at 1/2, 1/4, 1/8 ... of the size, made when first asked for.

    Args:
        image: shape (H, W, 3), RGB, uint8.
        parts: xyxy boxes outside of which probably nothing is asked for. Copies of them alone are
            made; where they do not suffice, copies of the whole picture.
    """

    def __init__(self, image: NDArray[np.uint8], parts: Sequence[_Box] = ()) -> None:
        self._image = image
        self.size = (image.shape[1], image.shape[0])
        self._parts = [self._round(part) for part in parts]
        self._copies: dict[tuple[int, int, int, int], list[Image.Image]] = {}

    def resize(self, box: _Box, size: tuple[int, int]) -> Image.Image:
        """Return the pixels inside xyxy `box` of the full picture at (width, height) `size`."""
        part = next((p for p in self._parts if _holds(p, box)), (0, 0, *self.size))
        left, top, right, bottom = part
        if part not in self._copies:
            pixels = self._image[top:bottom, left:right]
            self._copies[part] = [Image.fromarray(np.ascontiguousarray(pixels))]
        copies = self._copies[part]
        step = min((box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1])
        halvings = max(0, math.floor(math.log2(max(step, 1e-9) / _SPARE)))
        while len(copies) <= halvings:
            copies.append(copies[-1].reduce(2))
        # A power of two divides exactly; an odd side leaves half a pixel over, which the box cuts.
        place = (box[0] - left, box[1] - top, box[2] - left, box[3] - top)
        divided = tuple(side / 2**halvings for side in place)
        return copies[halvings].resize(size, Image.Resampling.HAMMING, box=divided)

    def _round(self, part: _Box) -> tuple[int, int, int, int]:
        """Grow a box to the grid, and cut off what lies outside of the picture."""
        left, top = (max(math.floor(side / _GRID) * _GRID, 0) for side in part[:2])
        right, bottom = (math.ceil(side / _GRID) * _GRID for side in part[2:])
        return left, top, min(right, self.size[0]), min(bottom, self.size[1])


def _holds(part: _Box, box: _Box) -> bool:
    return all(part[i] <= box[i] and box[i + 2] <= part[i + 2] for i in (0, 1))


class MtcnnDetector:
    """Face detector of three cascaded networks.

    Args:
        thresholds: confidence that P-Net, R-Net and O-Net ask for, each 0 to 1.
        min_face_size: side in pixels of the smallest face that is looked for.
        pyramid_factor: scale step of the pyramid, below 1.
        num_threads: threads that one run uses; 0 takes all cores that this process may use.

    Raises:
        BundleError: the weights inside the package are missing or unreadable.
    """

    name = "mtcnn"

    def __init__(
        self,
        thresholds: tuple[float, ...] = (0.6, 0.7, 0.9),
        min_face_size: int = 40,
        pyramid_factor: float = 0.709,
        num_threads: int = 0,
    ) -> None:
        self._thresholds = thresholds
        self._min_face_size = min_face_size
        self._factor = pyramid_factor
        self._pnet, self._rnet, self._onet = (
            Session(_WEIGHTS / f"mtcnn_{name}.onnx", num_threads)
            for name in ("pnet", "rnet", "onet")
        )

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """Find the faces of one picture of shape (H, W, 3), RGB, uint8; largest face first."""
        height, width = image.shape[:2]
        scales = pyramid_scales(height, width, self._min_face_size, self._factor)
        if not scales:
            return []
        picture = Halvings(image)
        boxes = self._propose(picture, scales)
        boxes = self._refine(picture, boxes)
        faces = self._finish(picture, boxes)
        return sorted(faces, key=lambda face: -face.size)

    def follow(self, image: NDArray[np.uint8], faces: Sequence[Face]) -> list[Face]:
        """Find faces again near where they were, largest first.

        As `detect`, but P-Net looks at their surroundings alone, at the levels of the pyramid that
        fit their sizes: the finest ones, at which small faces would be found, cost most. And fewer
        boxes that overlap go on to O-Net.

        Args:
            image: shape (H, W, 3), RGB, uint8.
            faces: of an earlier picture of the same size.
        """
        height, width = image.shape[:2]
        scales = pyramid_scales(height, width, self._min_face_size, self._factor)
        near = [face.box for face in faces]
        picture = Halvings(image, [_surroundings(box) for box in near])
        boxes = self._propose(picture, scales, near)
        found = self._finish(picture, self._refine(picture, boxes, _NEAR_OVERLAP))
        return sorted(found, key=lambda face: -face.size)

    def _propose(
        self, picture: Halvings, scales: list[float], near: Sequence[_Array] | None = None
    ) -> _Array:
        """Run P-Net over the pyramid, or near some boxes; returns squared boxes, shape (N, 4)."""
        found = [np.empty((0, 9), np.float32)]
        width, height = picture.size
        for scale in scales:
            size = (int(width * scale + 1), int(height * scale + 1))
            whole = (0, 0, *size)
            windows = [whole] if near is None else list(_windows_near(near, scale, size))
            if not windows:
                continue
            across, down = width / size[0], height / size[1]
            parts = []
            for x0, y0, x1, y1 in windows:
                box = x0 * across, y0 * down, min(x1 * across, width), min(y1 * down, height)
                level = np.asarray(picture.resize(box, (x1 - x0, y1 - y0)))
                probability, offsets = slide(self._pnet, level)
                parts.append(
                    decode_proposals(probability, offsets, scale, self._thresholds[0], (x0, y0))
                )
            proposals = np.concatenate(parts)
            keep = suppress_overlaps(proposals[:, :4], proposals[:, 4], _SAME_LEVEL_OVERLAP)
            found.append(proposals[keep])
        proposals = np.concatenate(found)
        proposals = proposals[suppress_overlaps(proposals[:, :4], proposals[:, 4], _OVERLAP)]
        return square(shift(proposals[:, :4], proposals[:, 5:], border=0))

    def _refine(self, picture: Halvings, boxes: _Array, overlap: float = _OVERLAP) -> _Array:
        """Run R-Net on the boxes; returns the surviving ones, shifted and squared."""
        boxes, out = _look(self._rnet, picture, boxes, _REFINE_SIDE)
        good = out["probability"] > self._thresholds[1]
        boxes, scores, offsets = boxes[good], out["probability"][good], out["offsets"][good]
        keep = suppress_overlaps(boxes, scores, overlap)
        return square(shift(boxes[keep], offsets[keep], border=1))

    def _finish(self, picture: Halvings, boxes: _Array) -> list[Face]:
        """Run O-Net on the boxes; returns the faces, best first."""
        boxes, out = _look(self._onet, picture, boxes, _OUTPUT_SIDE)
        good = out["probability"] > self._thresholds[2]
        boxes, scores = boxes[good], out["probability"][good]
        sides = boxes[:, 2:] - boxes[:, :2] + 1
        # Five x, then five y, each as a share of the box.
        shares = out["landmarks"][good].reshape(-1, 2, 5).transpose(0, 2, 1)
        landmarks = shares * sides[:, None] + boxes[:, None, :2] - 1
        boxes = shift(boxes, out["offsets"][good], border=1)
        keep = suppress_overlaps(boxes, scores, _OVERLAP, by_smaller=True)
        return [Face(boxes[i], landmarks[i], float(scores[i])) for i in keep]


def _surroundings(box: _Array) -> _Box:
    """Return what P-Net's windows near a box reach, and a quarter of the largest more, as xyxy.

    So much may be added by the grid of the cells, and by the pixels that resizing averages.
    """
    side = float((box[2:] - box[:2]).max())
    reach = (_REACH + _FITS[1] * (0.5 + 0.25)) * side
    x, y = ((box[:2] + box[2:]) / 2).tolist()
    return x - reach, y - reach, x + reach, y + reach


def _windows_near(
    boxes: Sequence[_Array], scale: float, size: tuple[int, int]
) -> Iterator[tuple[int, int, int, int]]:
    """Yield xyxy windows of a pyramid level in which faces may be that were in `boxes`.

    None for a face that the level is too fine or too coarse for. The corners lie on the grid of
    P-Net's cells, so that it proposes there what it would in the whole level.
    """
    for box in boxes:
        side = float((box[2:] - box[:2]).max())
        if not _FITS[0] * side <= _CELL / scale <= _FITS[1] * side:
            continue
        centre = (box[:2] + box[2:]) / 2
        low = np.floor((centre - _REACH * side) * scale - _CELL / 2).astype(int)
        low = low.clip(0) // _STRIDE * _STRIDE
        high = np.ceil((centre + _REACH * side) * scale + _CELL / 2).astype(int)
        high = np.minimum(high, size)
        if (high - low >= _CELL).all():
            yield int(low[0]), int(low[1]), int(high[0]), int(high[1])


def pyramid_scales(height: int, width: int, min_face_size: int, factor: float) -> list[float]:
    """Return the scales of the pyramid, largest first; empty where the picture is too small."""
    scale = _CELL / min_face_size
    side = min(height, width) * scale
    scales = []
    while side >= _CELL:
        scales.append(scale)
        scale *= factor
        side *= factor
    return scales


def slide(network: Session, level: NDArray[np.uint8]) -> tuple[_Array, _Array]:
    """Run P-Net over a pyramid level in strips, with exactly the result of a single run.

    Args:
        network: P-Net.
        level: shape (H, W, 3), RGB, at least 12 pixels high and wide.

    Returns:
        Probability (h, w) and offsets (4, h, w), one for every window of 12 pixels.
    """
    height, width = level.shape[:2]
    # The pooling rounds up: an odd last row makes a row of cells of its own.
    num_rows = (height - _CELL + 1) // _STRIDE + 1
    rows = max(8, _STRIP // width // _STRIDE)
    parts = []
    for first in range(0, num_rows, rows):
        last_row = (first + rows - 1) * _STRIDE + _CELL
        strip = level[first * _STRIDE : last_row]
        parts.append(network.run({"pixels": _to_pixels(strip[None])}))
    probability = np.concatenate([part["probability"][0] for part in parts], axis=0)
    return probability, np.concatenate([part["offsets"][0] for part in parts], axis=1)


def decode_proposals(
    probability: _Array,
    offsets: _Array,
    scale: float,
    threshold: float,
    origin: tuple[int, int] = (0, 0),
) -> _Array:
    """Turn P-Net's maps into boxes of the full picture.

    Args:
        probability: shape (h, w), that the cell's window holds a face.
        offsets: shape (4, h, w), correction of left, top, right and bottom in box sides.
        scale: scale of the pyramid level.
        threshold: lowest probability kept.
        origin: x and y of the maps' window in the level, on the grid of the cells.

    Returns:
        Shape (N, 9): xyxy, probability, four offsets; at most `_MAX_PROPOSALS` of the best.
    """
    rows, columns = np.nonzero(probability >= threshold)
    scores = probability[rows, columns]
    if scores.size > _MAX_PROPOSALS:
        best = np.sort(np.argpartition(-scores, _MAX_PROPOSALS)[:_MAX_PROPOSALS])
        rows, columns, scores = rows[best], columns[best], scores[best]
    corner = np.stack([columns, rows], axis=1).astype(np.float32) * _STRIDE
    corner += np.array(origin, dtype=np.float32)
    low = np.floor((corner + 1) / np.float32(scale))
    high = np.floor((corner + _CELL) / np.float32(scale))
    return np.concatenate([low, high, scores[:, None], offsets[:, rows, columns].T], axis=1)


def shift(boxes: _Array, offsets: _Array, border: int) -> _Array:
    """Move the four sides of boxes (N, 4) by offsets (N, 4), which are shares of the box side.

    `border` is added to the side length: 1 where the last pixel belongs to the box.
    """
    sides = boxes[:, 2:] - boxes[:, :2] + np.float32(border)
    shifted: _Array = boxes + offsets * np.concatenate([sides, sides], axis=1)
    return shifted


def square(boxes: _Array) -> _Array:
    """Grow the shorter side of boxes (N, 4) around the centre to the longer one."""
    sides = boxes[:, 2:] - boxes[:, :2]
    longest = sides.max(axis=1, keepdims=True)
    low = boxes[:, :2] + (sides - longest) * np.float32(0.5)
    return np.concatenate([low, low + longest], axis=1)


def _look(
    network: Session, picture: Halvings, boxes: _Array, side: int
) -> tuple[_Array, dict[str, _Array]]:
    """Run a network on crops; returns the boxes that touch the picture and its outputs."""
    windows = boxes.astype(np.int32)
    windows[:, :2] = np.maximum(windows[:, :2], 1) - 1
    windows[:, 2:] = np.minimum(windows[:, 2:], picture.size)
    inside = (windows[:, 2:] > windows[:, :2]).all(axis=1)
    boxes, windows = boxes[inside], windows[inside]
    # One below the other, because to make an array of a picture takes longer than to paste it.
    column = Image.new("RGB", (side, side * len(windows)))
    for number, (left, top, right, bottom) in enumerate(windows.tolist()):
        column.paste(picture.resize((left, top, right, bottom), (side, side)), (0, side * number))
    crops = np.asarray(column).reshape(len(windows), side, side, 3)
    parts = [
        network.run({"pixels": _to_pixels(crops[start : start + _BATCH])})
        for start in range(0, max(len(crops), 1), _BATCH)  # once even for none, for the shapes
    ]
    return boxes, {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def _to_pixels(pictures: NDArray[np.uint8]) -> _Array:
    """Turn pictures (N, H, W, 3) into network input (N, 3, H, W), scaled to -1 to 1."""
    pixels = pictures.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    pixels -= np.float32(127.5)
    pixels *= np.float32(1 / 128)
    return pixels
