"""Face clips on disk: plain tar files in WebDataset layout, and one row a clip in an index.

A clip is a run of members with the same key: KEY.json (times, boxes, landmarks, facts) and one
picture for every frame in which the person was seen, KEY.007.jpg for the eighth. Any tool that
reads WebDataset reads it; the index makes every clip one ranged read away.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Collection
from dataclasses import dataclass
from typing import IO, Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellframe.errors import DataError
from tellframe.faces.align import LUMA
from tellframe.recipe import Recipe
from tellframe.store import Store
from tellframe.types import Clip

SUFFIXES: Final = {"jpeg": "jpg", "png": "png"}
"""File suffix by `Recipe.crop_format`."""
_LARGEST: Final = 1e9
"""Upper limit of what is read as a number of seconds, pixels or bytes."""


@dataclass(frozen=True, slots=True)
class ClipRow:
    """Where a clip lies, and what is known of it: one row of the index."""

    shard: str
    """Key of the tar file."""
    offset: int
    """Bytes from its start to the clip's first member."""
    size: int
    """Bytes of all its members."""
    video: str
    """As in the manifest."""
    person: int
    """Number of the person in the video, from 1."""
    people: int
    """Number of people in the video."""
    start: float
    """Seconds at which the person is first seen."""
    end: float
    """Seconds at which the person is last seen."""
    frames: int
    """Sampled frames of the video."""
    seen: int
    """Those in which the person was seen: the number of pictures."""
    face_size: float
    """Median length in pixels of the longer side of the box in the video."""
    brightness: float
    """Mean luma of the pictures, 0 to 255."""
    label: str
    """Of the video, as in the manifest; so are the following."""
    original: str
    group: str
    split: str
    part: str
    source: str
    method: str
    recipe_digest: str
    """Digest of the recipe that made the clip."""


@dataclass(frozen=True, slots=True)
class StoredClip:
    """One clip as the files of a shard."""

    facts: dict[str, Any]
    """What `KEY.json` says."""
    pictures: tuple[tuple[int, bytes], ...]
    """(position of the frame, encoded picture)."""
    brightness: float
    face_size: float


def store_clip(clip: Clip, recipe: Recipe) -> StoredClip:
    """Encode a clip; rounds boxes and landmarks to a hundredth of a pixel."""
    seen = np.flatnonzero(clip.valid)
    pixels = clip.pixels[seen]
    return StoredClip(
        facts={
            "person": clip.person,
            "times": [round(t, 6) for t in clip.times.tolist()],
            "seen": seen.tolist(),
            "boxes": clip.boxes[seen].astype(float).round(2).tolist(),
            "landmarks": clip.landmarks[seen].astype(float).round(2).tolist(),
            "confidence": clip.confidence[seen].astype(float).round(4).tolist(),
            "recipe_digest": clip.recipe_digest,
        },
        pictures=tuple((int(i), _encode(clip.pixels[i], recipe)) for i in seen),
        brightness=measure_luma(pixels) if len(seen) else 0.0,
        face_size=round(clip.face_size, 2),
    )


def measure_luma(crops: NDArray[np.uint8]) -> float:
    """Return the mean luma, 0 to 255, of crops of shape (N, S, S, 3), N at least 1."""
    return round(float(crops.mean(axis=(0, 1, 2)) @ LUMA), 2)


def _encode(picture: NDArray[np.uint8], recipe: Recipe) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(picture)
    if recipe.crop_format == "png":
        image.save(buffer, "PNG", compress_level=1)
    else:
        image.save(buffer, "JPEG", quality=recipe.crop_quality, subsampling=0)
    return buffer.getvalue()


def clip_key(video: str, person: int) -> str:
    """Return the name of a clip's members: legible, safe on any file system, and unique.

    >>> clip_key("dfdc_train_part_0/aaqaifqrwn.mp4", 1)
    'aaqaifqrwn-abe67f0d7cfcde77_p1'
    """
    stem = re.sub(r"[^A-Za-z0-9_-]", "_", video.rsplit("/", 1)[-1].rsplit(".", 1)[0])[:40]
    return f"{stem}-{hashlib.sha256(video.encode()).hexdigest()[:16]}_p{person}"


class ShardWriter:
    """Write clips into a tar file; the same clips give the same bytes.

    Args:
        file: opened for writing, at its start.
        suffix: of the pictures.
    """

    def __init__(self, file: IO[bytes], suffix: str) -> None:
        self._tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)
        self._suffix = suffix

    def add(self, key: str, clip: StoredClip) -> tuple[int, int]:
        """Append a clip; return its offset and size in bytes."""
        begin = self._tar.offset
        text = json.dumps(clip.facts, separators=(",", ":"))
        self._add(f"{key}.json", text.encode())
        for position, data in clip.pictures:
            self._add(f"{key}.{position:03d}.{self._suffix}", data)
        return begin, self._tar.offset - begin

    def _add(self, name: str, data: bytes) -> None:
        info = tarfile.TarInfo(name)  # with time, owner and rights of its own: none
        info.size = len(data)
        self._tar.addfile(info, io.BytesIO(data))

    def close(self) -> None:
        """Write the end of the archive."""
        self._tar.close()


def read_clip(store: Store, row: ClipRow, recipe: Recipe) -> Clip:
    """Read one clip of a data set by one ranged read.

    Args:
        store: the data set.
        row: of its index.
        recipe: that of the data set.

    Raises:
        StoreError: the shard cannot be read.
        DataError: it does not hold the clip that the index says.
    """
    return parse_clip(read_bytes(store, row), row, recipe)


def read_bytes(store: Store, row: ClipRow) -> bytes:
    """Read the members of one clip; arguments and errors as for `read_clip`."""
    if not 0 <= row.offset < 2**40 or not 0 < row.size < _LARGEST:
        raise _mismatch(row, f"{row.size} bytes from {row.offset} on")
    return store.get_range(row.shard, row.offset, row.size)


def parse_clip(
    data: bytes, row: ClipRow, recipe: Recipe, frames: Collection[int] | None = None
) -> Clip:
    """Build a clip from the bytes of its members.

    Args:
        data: as `read_bytes` returns it.
        row: of the index.
        recipe: that of the data set.
        frames: whose pictures to decode; those of others stay black. None for all.

    Raises:
        DataError: the bytes do not hold the clip that the index says.
    """
    try:
        return _parse_clip(_read_tar(data), row, recipe, frames)
    except (
        *(tarfile.TarError, EOFError, ArithmeticError, LookupError, ValueError, TypeError, OSError),
        RecursionError,
    ) as error:
        raise _mismatch(row, repr(error)) from error


def _mismatch(row: ClipRow, reason: str) -> DataError:
    return DataError(
        f"{row.shard}: clip of person {row.person} in {row.video}: is not what the index says "
        f"({reason}); run: tellframe data verify"
    )


def _read_tar(data: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        plain = [member for member in tar if member.isreg() and not member.issparse()]
        files = [(member.name, tar.extractfile(member)) for member in plain]
        return {name: file.read() for name, file in files if file}


def _parse_clip(
    files: dict[str, bytes], row: ClipRow, recipe: Recipe, frames: Collection[int] | None
) -> Clip:
    key, count, size = clip_key(row.video, row.person), row.frames, recipe.crop_size
    facts = json.loads(files[f"{key}.json"])
    seen = np.array(facts["seen"], np.int64).reshape(-1)
    in_order = np.unique(seen[(seen >= 0) & (seen < count)])
    if not 0 < count <= recipe.num_frames or not np.array_equal(in_order, seen):
        raise ValueError(f"frames {facts['seen']} of {count}")
    if (facts["person"], len(seen)) != (row.person, row.seen):
        raise ValueError(f"person {facts['person']}, seen in {len(seen)} frames")
    clip = Clip(
        person=row.person,
        pixels=np.zeros((count, size, size, 3), np.uint8),
        times=_numbers(facts["times"], (count,)),
        valid=np.isin(np.arange(count), seen),
        boxes=np.zeros((count, 4), np.float32),
        landmarks=np.zeros((count, 5, 2), np.float32),
        confidence=np.zeros(count, np.float32),
        recipe_digest=str(facts["recipe_digest"]),
    )
    for name in ("boxes", "landmarks", "confidence"):
        values = getattr(clip, name)
        values[seen] = _numbers(facts[name], (len(seen), *values.shape[1:]))
    suffix = SUFFIXES[recipe.crop_format]
    for position in seen.tolist() if frames is None else sorted(set(seen.tolist()) & set(frames)):
        clip.pixels[position] = _decode(files[f"{key}.{position:03d}.{suffix}"], size)
    return clip


def _numbers(values: Any, shape: tuple[int, ...]) -> NDArray[np.float64]:
    array = np.array(values, np.float64)
    if array.shape != shape or not (np.abs(array) < _LARGEST).all():
        raise ValueError(f"{array.shape} numbers in place of {shape}, or too large")
    return array


def _decode(data: bytes, size: int) -> NDArray[np.uint8]:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            if image.size != (size, size):  # before it is decoded: it may be huge
                raise ValueError(f"picture of {image.size}, not {(size, size)}")
            return np.asarray(image.convert("RGB"))
    except Exception as error:  # Pillow raises many unrelated types, SyntaxError among them
        raise ValueError(f"cannot be decoded: {error}") from error
