"""The clips of `measure_people.py`: who is in them, and how they are put together."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from measuring import ROOT, Picture, encode, say
from tellframe.evaluate.rows import Row
from tellframe.video import Listing, list_frames, read_frames

SECONDS: Final = 4.0
"""Length of a clip; that of its shortest part where this is shorter."""
RATE: Final = 25
PORTRAITS: Final = "sample portraits"
REAL_PORTRAIT: Final = Row(path="samples/real.mp4", fake=False, source=PORTRAITS, method="",
                           group=PORTRAITS, pair=PORTRAITS)  # fmt: skip
SWAPPED_PORTRAIT: Final = Row(path="samples/fake.mp4", fake=True, source=PORTRAITS, method="",
                              group=PORTRAITS, pair=PORTRAITS)  # fmt: skip
DUO: Final = ROOT / "samples" / "two_people.mp4"
DUO_EDGES: Final[tuple[float, ...]] = (400.0, 640.0)
"""Right ends of the halves of `DUO` in pixels; the person in the second one is swapped."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One clip of several people; without parts it is `DUO`, as it is."""

    kind: str
    """Row of the table."""
    parts: tuple[Row, ...] = ()
    """From left to right, or first to last; one is fake."""

    @property
    def count(self) -> int:
        """Number of people."""
        return len(self.parts) or len(DUO_EDGES)

    @property
    def swapped(self) -> int:
        """Place of the swapped person, from 0."""
        return [part.fake for part in self.parts].index(True) if self.parts else 1


def make_scenes(rows: Sequence[Row], counts: Sequence[int] = (2, 3)) -> list[Scene]:
    """Choose who is together; the same for the same videos, whatever their order.

    Every fake of a pair comes together with reals of the same source and other scenes; the swapped
    portrait with the real of every pair; the real portrait with a fake of every pair, too.

    Args:
        rows: labelled videos.
        counts: how many people a clip has, each in turn.
    """
    rows = sorted((r for r in rows if r.pair and not r.still), key=lambda r: r.path)
    fakes, reals = [r for r in rows if r.fake], [r for r in rows if not r.fake]
    reals = [real for real in reals if any(f.pair == real.pair for f in fakes)]
    one_each = list({fake.pair: fake for fake in fakes}.values())
    scenes = []
    for count in counts:
        scenes += [_choose(f.source, [f], reals, count) for f in fakes]
        scenes += [_choose("swapped portrait", [SWAPPED_PORTRAIT, r], reals, count) for r in reals]
        scenes += [_choose("real portrait", [f, REAL_PORTRAIT], reals, count) for f in one_each]
    made = [scene for scene in scenes if scene]
    if len(made) < len(scenes):
        say(f"{len(scenes) - len(made)} clips left out: too few other scenes of their source")
    return [*made, Scene(f"{DUO.name} itself")] if len(DUO_EDGES) in counts else made


def _choose(kind: str, fixed: Sequence[Row], reals: Sequence[Row], count: int) -> Scene | None:
    """Fill up with reals of the same source and other scenes, and mix the places."""
    (source,) = {row.source for row in fixed} - {PORTRAITS}
    rng = np.random.default_rng(zlib.crc32(f"{count}:{[row.path for row in fixed]}".encode()))
    others = [r for r in reals if r.source == source]
    chosen = list(fixed)
    for place in rng.permutation(len(others)):
        if len(chosen) < count and others[place].group not in {row.group for row in chosen}:
            chosen.append(others[place])
    if len(chosen) < count:
        return None
    return Scene(kind, tuple(chosen[place] for place in rng.permutation(count)))


def make_clip(paths: Sequence[Path], target: Path) -> tuple[float, ...]:
    """Put videos side by side, on black and none of them scaled, at `RATE` pictures a second.

    Args:
        paths: from left to right.
        target: an MP4.

    Returns:
        The right end of each in pixels.

    Raises:
        MediaError: one cannot be read.
    """
    listings = [list_frames(path) for path in paths]
    seconds = min(SECONDS, *(listing.media.duration for listing in listings))
    count = max(1, int(seconds * RATE))
    played = [play(p, listing, count) for p, listing in zip(paths, listings, strict=True)]
    edges: tuple[float, ...] = ()

    def pictures() -> Iterator[Picture]:
        nonlocal edges
        for parts in zip(*played, strict=True):
            edges = tuple(map(float, np.cumsum([part.shape[1] for part in parts])))
            yield lay(parts)

    encode(pictures(), target, RATE)
    return edges


def make_edit(paths: Sequence[Path], target: Path) -> tuple[float, ...]:
    """Show videos one after another, centred on black and none of them scaled, as `make_clip`.

    Returns:
        The end of each in seconds.
    """
    listings = [list_frames(path) for path in paths]
    counts = [max(1, int(min(SECONDS, one.media.duration) * RATE)) for one in listings]
    played = [play(*three) for three in zip(paths, listings, counts, strict=True)]
    firsts = [next(pictures) for pictures in played]
    height, width = (max(first.shape[side] for first in firsts) for side in (0, 1))

    def pictures() -> Iterator[Picture]:
        for first, others in zip(firsts, played, strict=True):
            for picture in (first, *others):
                yield centre(picture, height, width)

    encode(pictures(), target, RATE)
    return tuple(map(float, np.cumsum(counts) / RATE))


def play(path: Path, listing: Listing, count: int) -> Iterator[Picture]:
    """Yield so many pictures of a video at `RATE`: at each time the one that is shown."""
    wanted = np.searchsorted(listing.times, np.arange(count) / RATE + 1e-6, side="right") - 1
    frames = read_frames(path, listing, np.unique(wanted), threads=1)
    frame = next(frames)
    for position in wanted:
        while frame.index < position and (following := next(frames, None)):
            frame = following
        yield frame.image


def lay(pictures: Sequence[Picture]) -> Picture:
    """Put pictures side by side; lower ones are centred on black."""
    height = max(len(picture) for picture in pictures)
    return np.concatenate([centre(p, height, p.shape[1]) for p in pictures], axis=1)


def centre(picture: Picture, height: int, width: int) -> Picture:
    """Put a picture into the middle of a black one that is no smaller."""
    above, left = (height - picture.shape[0]) // 2, (width - picture.shape[1]) // 2
    below, right = height - picture.shape[0] - above, width - picture.shape[1] - left
    return np.pad(picture, ((above, below), (left, right), (0, 0)))
