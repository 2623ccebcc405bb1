"""Training scenes out of shards: a real clip with its fakes, read when a batch asks for them.

The crops of a real video and of its fake were cut at the boxes that the detector found in each. To
compare them they are brought into one square, both by one interpolation, so that neither is softer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray

from tellframe.data.manifest import require_no_leak
from tellframe.data.shards import ClipRow, parse_clip, read_bytes
from tellframe.data.verify import read_index, read_recipe
from tellframe.errors import ConfigError, RecipeMismatchError
from tellframe.faces.boxes import overlaps
from tellframe.recipe import Recipe
from tellframe.store import FolderStore, Store, open_store
from tellframe.train.augment import Points, Sample, find_swapped
from tellframe.train.shift import measure_shift
from tellframe.types import Clip

FREE: Final = frozenset(
    {"margin", "crop_scales", "crop_size", "crop_format", "crop_quality", "num_frames"}
)
"""Recipe fields in which shards and model may differ: training cuts its input out of wider, larger
crops, for the augmentation to have room, and takes as many frames as it needs."""
MIN_OVERLAP: Final = 0.3
"""Intersection over union of the boxes of the same person in a real video and in its fake."""
SAME_TIME: Final = 0.02
"""Seconds between a frame of a real video and the same frame of its fake."""
SHIFT_FRAMES: Final = 8
"""Frames of a pair, about, that tell how far the whole fake is moved."""
KEPT_CLIPS: Final = 512
"""Clips kept, as they are stored, in every process that prepares batches."""
MAX_DRAWS: Final = 4
"""Times that frames of a pair are drawn until one shows a difference."""


@dataclass(frozen=True, slots=True)
class ClipScene:
    """One person in a real video, and the same person in its fakes; or one of both alone."""

    group: str
    real: ClipRow | None
    fakes: tuple[ClipRow, ...]
    source: ClipSource

    @property
    def methods(self) -> tuple[str, ...]:
        """How each fake was made."""
        return tuple(row.method for row in self.fakes)

    def pair(self, fake: int, rng: np.random.Generator, num_frames: int) -> Sample | None:
        """Read frames of the real and the same frames of one fake.

        Args:
            fake: which.
            rng: draws the frames, `num_frames` in a row where there are more.
            num_frames: how many; fewer where the clips are short.

        Returns:
            None where they have no frame in common, or none was drawn in which the face differs.
        """
        assert self.real, "a pair needs a real"
        theirs = self.fakes[fake]
        pairs = self.source.match(self.real, theirs)
        if not len(pairs):
            return None
        shift = self.source.shift(self.real, theirs)
        for _ in range(MAX_DRAWS):
            at = _draw(pairs, rng, num_frames)
            joined = self.source.join(self.real, theirs, at, shift)
            swapped = find_swapped(joined.real, joined.fake[None], joined.boxes)[0]
            if swapped.any():
                return Sample(
                    *(joined.real[swapped], joined.fake[swapped]),
                    *(joined.boxes[swapped], joined.landmarks[swapped]),
                )
        return None

    def alone(self, fake: int | None, rng: np.random.Generator, num_frames: int) -> Sample:
        """Read frames of one fake, or of the real; both halves of the sample are the same array."""
        row = self.real if fake is None else self.fakes[fake]
        assert row, "this scene has no real"
        seen = _draw(np.flatnonzero(self.source.read(row, ()).valid), rng, num_frames)
        clip = self.source.read(row, seen)
        pixels, boxes, landmarks = _own_square(clip, seen, self.source.recipe.margin)
        return Sample(pixels, pixels, boxes, landmarks)


class ClipSource:
    """A data set of clips, read by range and kept for a while.

    Args:
        location: folder or address of a data set.
        endpoint: of the object store.
        keep: folder that gets a copy of every shard when it is first read; empty for no copies.
    """

    def __init__(self, location: str, endpoint: str = "", keep: str = "") -> None:
        self.location, self.endpoint, self.keep = location, endpoint, keep
        self.recipe = read_recipe(open_store(location, endpoint))
        self._store: Store | None = None
        self._bytes = lru_cache(KEPT_CLIPS)(self._read_bytes)
        self.shift = lru_cache(None)(self._measure_shift)

    def rows(self) -> list[ClipRow]:
        """Return the index."""
        return read_index(open_store(self.location, self.endpoint))

    def read(self, row: ClipRow, frames: Sequence[int] | NDArray[np.int64] | None = None) -> Clip:
        """Return a clip, with the pictures of some frames or of all."""
        chosen = None if frames is None else [int(f) for f in frames]
        return parse_clip(self._bytes(row), row, self.recipe, chosen)

    def match(self, real: ClipRow, fake: ClipRow) -> NDArray[np.int64]:
        """Return what `match_frames` does, of stored clips."""
        return match_frames(self.read(real, ()), self.read(fake, ()))

    def join(
        self, real: ClipRow, fake: ClipRow, pairs: NDArray[np.int64], shift: NDArray[np.int64]
    ) -> Sample:
        """Return what `join` does, of stored clips."""
        halves = self.read(real, pairs[:, 0]), self.read(fake, pairs[:, 1])
        return join(*halves, pairs, self.recipe.margin, shift)

    def _measure_shift(self, real: ClipRow, fake: ClipRow) -> NDArray[np.int64]:
        """Measure once for a fake how far it lies off its real, in pixels of the crops."""
        pairs = self.match(real, fake)
        few = pairs[:: max(1, len(pairs) // SHIFT_FRAMES)]
        joined = self.join(real, fake, few, np.zeros(2, dtype=np.int64))
        return measure_shift(zip(joined.real, joined.fake, strict=True))

    def _read_bytes(self, row: ClipRow) -> bytes:
        # Opened by the process that reads: connections do not survive a fork.
        self._store = self._store or open_store(self.location, self.endpoint)
        if not self.keep:
            return read_bytes(self._store, row)
        # A data set's shards are named by their content: one of the same name is the same.
        copies, copy = FolderStore(self.keep), replace(row, shard=PurePosixPath(row.shard).name)
        if not copies.exists(copy.shard):
            copies.put_if_absent(copy.shard, self._store.get(row.shard))
        return read_bytes(copies, copy)

    def __getstate__(self) -> tuple[str, str, str]:
        return self.location, self.endpoint, self.keep

    def __setstate__(self, state: tuple[str, str, str]) -> None:
        self.__init__(*state)  # type: ignore[misc]


def load_scenes(
    locations: Sequence[str],
    recipe: Recipe,
    *,
    endpoint: str = "",
    split: str = "",
    keep: str = "",
) -> list[ClipScene]:
    """Read the indexes of data sets and put real clips and their fakes together.

    Args:
        locations: folders or addresses of data sets.
        recipe: of the model.
        endpoint: of the object store.
        split: only its clips; empty for all.
        keep: folder for copies of the shards that are read; empty for none.

    Raises:
        ConfigError: no data set has a clip of that split.
        LeakError: a group lies on two sides of a split.
        RecipeMismatchError: a data set was made in a way that the model cannot be fed from.
    """
    scenes: list[ClipScene] = []
    rows: list[ClipRow] = []
    for location in locations:
        source = ClipSource(location, endpoint, keep)
        require_room(source.recipe, recipe, location)
        found = source.rows()
        rows += found
        scenes += group_scenes((r for r in found if not split or r.split == split), source)
    require_no_leak(rows)
    if not scenes:
        raise ConfigError(
            f"[data] shards: {', '.join(locations)} hold no clip of the split {split!r}"
        )
    return scenes


def require_room(shards: Recipe, model: Recipe, what: str) -> None:
    """Raise unless the input of a model can be cut out of stored crops.

    Raises:
        RecipeMismatchError: they were made with another detector, sampling or brightening, are no
            squares, or show less of the face; the message says what differs.
    """
    differences = {k: v for k, v in shards.differences(model).items() if k not in FREE}
    if shards.margin < model.margin - 1e-9:
        differences["margin"] = (shards.margin, model.margin)
    if shards.alignment != "square":
        differences["alignment"] = (shards.alignment, "square")
    if set(shards.crop_scales) != {1.0}:  # the crops are cut anew, from the whole square
        differences["crop_scales"] = (shards.crop_scales, (1.0,))
    if differences:
        listed = "; ".join(f"{k}: {a!r} against {b!r}" for k, (a, b) in differences.items())
        raise RecipeMismatchError(
            f"{what} cannot feed this model, their recipes differ: {listed}; build with --recipe "
            "and the training configuration, square crops of one scale, and a margin at least as "
            "wide"
        )


def group_scenes(rows: Iterable[ClipRow], source: ClipSource) -> list[ClipScene]:
    """Put every person of a real video together with the same person in its fakes.

    A person of a fake whose number nobody has in the original, or whose original is not there, is a
    scene alone.
    """
    by_video: dict[str, list[ClipRow]] = defaultdict(list)
    for row in rows:
        by_video[row.video].append(row)
    fakes: dict[tuple[str, int], list[ClipRow]] = defaultdict(list)
    alone: list[ClipRow] = []
    for clips in by_video.values():
        for row in clips:
            if row.label != "FAKE":
                continue
            # People are numbered by first appearance and place, in the original as in the fake.
            twins = [r for r in by_video.get(row.original, ()) if r.person == row.person]
            (fakes[twins[0].video, twins[0].person] if twins else alone).append(row)
    scenes = [
        ClipScene(row.group or row.video, row, tuple(fakes[row.video, row.person]), source)
        for clips in by_video.values()
        for row in clips
        if row.label == "REAL"
    ]
    return scenes + [ClipScene(row.group or row.video, None, (row,), source) for row in alone]


def has_both(scenes: Iterable[ClipScene]) -> bool:
    """Say whether there is a real clip, and a fake one, be it of another scene."""
    some = list(scenes)
    return any(s.real for s in some) and any(s.fakes for s in some)


def match_frames(real: Clip, fake: Clip) -> NDArray[np.int64]:
    """Return positions (K, 2) of the frames that both clips show at the same time and place."""
    pairs = []
    for i in np.flatnonzero(real.valid):
        j = int(np.abs(fake.times - real.times[i]).argmin())
        near = abs(fake.times[j] - real.times[i]) <= SAME_TIME
        shared = overlaps(real.boxes[i : i + 1], fake.boxes[j : j + 1])[0, 0]
        if fake.valid[j] and near and shared >= MIN_OVERLAP:
            pairs.append((i, j))
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _draw(candidates: NDArray[np.int64], rng: np.random.Generator, count: int) -> NDArray[np.int64]:
    """Return `count` neighbours out of the candidates, (N, ...), in order."""
    first = int(rng.integers(max(len(candidates) - count, 0) + 1))
    return candidates[first : first + count]


def squares(boxes: NDArray[np.float32], margin: float) -> NDArray[np.float64]:
    """Return the squares (T, 3), centre x, centre y and side, that "square" alignment cuts."""
    sides = (1 + margin) * np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return np.column_stack([centres, sides]).astype(np.float64)


def _own_square(
    clip: Clip, seen: NDArray[np.int64], margin: float
) -> tuple[NDArray[np.uint8], Points, Points]:
    cut = squares(clip.boxes[seen], margin)
    pixels = clip.pixels[seen]
    return (pixels, *_inside(clip, seen, cut, pixels.shape[1]))


def _inside(
    clip: Clip, seen: NDArray[np.int64], cut: NDArray[np.float64], size: int
) -> tuple[Points, Points]:
    """Return boxes and landmarks in pixels of squares of `size` pixels cut out of the video."""
    corner, scale = cut[:, :2] - cut[:, 2:] / 2, size / cut[:, 2]
    boxes = (clip.boxes[seen] - np.tile(corner, 2)) * scale[:, None]
    landmarks = (clip.landmarks[seen] - corner[:, None]) * scale[:, None, None]
    return boxes.astype(np.float32), landmarks.astype(np.float32)


def join(
    real: Clip,
    fake: Clip,
    pairs: NDArray[np.int64],
    margin: float,
    shift: NDArray[np.int64],
) -> Sample:
    """Bring the crops of a real clip and of its fake into the same squares of the video.

    Args:
        real: the real clip.
        fake: the fake clip.
        pairs: positions (K, 2), real and fake, of frames that show the same.
        margin: of the recipe that both were cut with.
        shift: x and y by which the fake lies off its real, in pixels of the result.
    """
    size = real.pixels.shape[1]
    mine, theirs = pairs[:, 0], pairs[:, 1]
    own = [squares(real.boxes[mine], margin), squares(fake.boxes[theirs], margin)]
    # The square of the real, shrunk to what both show.
    common = own[0].copy()
    offset = np.abs(own[1][:, :2] - own[0][:, :2]).max(axis=1)
    common[:, 2] = np.minimum(own[0][:, 2], own[1][:, 2] - 2 * offset).clip(min=own[0][:, 2] / 2)
    reals = _warp(real.pixels[mine], own[0], common, size)
    moved = common.copy()
    moved[:, :2] += shift * common[:, 2:] / size
    fakes = _warp(fake.pixels[theirs], own[1], moved, size)
    return Sample(reals, fakes, *_inside(real, mine, common, size))


def _warp(
    pixels: NDArray[np.uint8], own: NDArray[np.float64], wanted: NDArray[np.float64], size: int
) -> NDArray[np.uint8]:
    """Cut the wanted squares of the video out of crops that show their own squares of it."""
    frames = []
    for picture, (x, y, side), (wx, wy, wanted_side) in zip(pixels, own, wanted, strict=True):
        scale = side / wanted_side
        corner = (
            (np.array([wx, wy]) - wanted_side / 2 - (np.array([x, y]) - side / 2)) / side * size
        )
        matrix = np.array([[scale, 0, -corner[0] * scale], [0, scale, -corner[1] * scale]])
        frames.append(
            cv2.warpAffine(
                picture, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
            )
        )
    return np.asarray(frames, dtype=np.uint8)
