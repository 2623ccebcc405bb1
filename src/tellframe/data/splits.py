"""Groups of videos that belong together, and splits that keep every group whole."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from tellframe.data.manifest import Video
from tellframe.errors import LeakError, UsageError


@dataclass(frozen=True, slots=True)
class Ties:
    """What a video shares with others."""

    key: str
    """Names the recording."""
    links: tuple[str, ...] = ()
    """Keys of the recordings it was made from, be they in the data set or not."""
    group: str = ""
    """Given by the source."""
    people: tuple[str, ...] = ()
    """Who is to be seen."""
    pair: str = ""
    """Given by the source."""


def name_groups(videos: Sequence[Ties], same: Iterable[tuple[str, str]] = ()) -> list[str]:
    """Unite videos that share anything, at any remove, and name every group.

    A group is called after the group that its source gives; else after a person, a pair, or the
    original, whether that is in the data set or not; the first by name where there are several.
    So a group keeps its name when videos are added to it, unless they unite it with another.

    Args:
        videos: in any order.
        same: pairs of keys that are to be united as well.

    Returns:
        The name of each video's group.
    """
    above: dict[str, str] = {}
    levels: dict[str, int] = {}
    made: set[str] = set()

    def find(node: str) -> str:
        while (parent := above.setdefault(node, node)) != node:
            above[node] = above[parent]
            node = parent
        return node

    for video in videos:
        if any(link != video.key for link in video.links):
            made.add(video.key)
        for level, node in _nodes(video):
            levels[node] = min(levels.get(node, level), level)
            above[find(node)] = find(video.key)
    for a, b in same:
        above[find(a)] = find(b)
    names: dict[str, tuple[int, str]] = {}
    for node, level in levels.items():
        # What was made from something else gives no name while there is anything better.
        name = (level + (level == _RECORDING and node in made), node)
        root = find(node)
        names[root] = min(names.get(root, name), name)
    return [names[find(video.key)][1] for video in videos]


_RECORDING: Final = 3


def _nodes(video: Ties) -> Iterator[tuple[int, str]]:
    """Yield what unites videos, the best to name a group first, with its rank."""
    if video.group:
        yield 0, video.group
    for person in video.people:
        yield 1, f"person {person}"
    if video.pair:
        yield 2, f"pair {video.pair}"
    for key in (video.key, *video.links):
        yield _RECORDING, key


@dataclass(frozen=True, slots=True)
class Policy:
    """How videos come to their splits."""

    shares: tuple[tuple[str, float], ...] = ()
    """Split and share of the groups, for those whose source gives none; adding up to 1."""
    held_out: dict[str, str] = field(default_factory=dict)
    """{part: split} of whole parts."""
    ignore_given: bool = False
    """Whether the splits that sources give do not count."""


def parse_shares(text: str) -> tuple[tuple[str, float], ...]:
    """Parse "train=0.8,validation=0.1,test=0.1".

    Raises:
        UsageError: it is of another form, or does not add up to 1.
    """
    shares = []
    for name, value in _parse(text, "--split", "train=0.8,validation=0.1,test=0.1"):
        try:
            shares.append((name, float(value)))
        except ValueError as error:
            raise UsageError(f"--split {text}: {value!r} is no number") from error
    if len(dict(shares)) < len(shares):
        raise UsageError(f"--split {text}: names a split twice")
    if not all(s > 0 for _, s in shares) or not math.isclose(sum(s for _, s in shares), 1):
        raise UsageError(f"--split {text}: give shares above 0 that add up to 1")
    return tuple(shares)


def parse_held_out(texts: Iterable[str]) -> dict[str, str]:
    """Parse "validation=dfdc_train_part_48,dfdc_train_part_49" to {part: split}.

    Raises:
        UsageError: it is of another form, or a part is in two splits.
    """
    held: dict[str, str] = {}
    for text in texts:
        split, _, parts = text.partition("=")
        names = [p.strip() for p in parts.split(",")]
        if not split.strip() or not all(names):
            raise UsageError(f"--hold-out {text}: write it as validation=PART,PART")
        for part in names:
            if held.setdefault(part, split.strip()) != split.strip():
                raise UsageError(f"--hold-out {text}: {part} is also in {held[part]!r}")
    return held


def _parse(text: str, option: str, example: str) -> list[tuple[str, str]]:
    pairs = [item.partition("=") for item in text.split(",")]
    if not all(name.strip() and value.strip() for name, _, value in pairs):
        raise UsageError(f"{option} {text}: write it as {example}")
    return [(name.strip(), value.strip()) for name, _, value in pairs]


def draw_split(group: str, shares: Sequence[tuple[str, float]]) -> str:
    """Return the split of a group, which follows from its name and the shares alone.

    SHA-256 gives a number from 0 to 1; the splits lie along it in the order given.
    """
    # Not of the name alone: training holds out the groups of which that is low, of every split.
    digest = hashlib.sha256(f"split:{group}".encode()).digest()
    number = int.from_bytes(digest[:8], "big") / 2**64
    for split, share in shares:
        if number < share:
            return split
        number -= share
    return shares[-1][0]  # rounding


def assign_splits(videos: Sequence[Video], policy: Policy) -> list[Video]:
    """Return the videos with their splits.

    A held-out part takes everything with it that belongs to its groups. Other videos keep the
    split that their source gives. Those without one are split by `policy.shares`, if asked; but
    where their group is in a split of the source, they stay without, so that the test set of a
    source remains what it is.

    Raises:
        LeakError: parts that are held out in different splits share a group.
        UsageError: there is no such part.
    """
    if missing := set(policy.held_out) - {v.part for v in videos}:
        parts = ", ".join(sorted({v.part for v in videos})[:60])
        raise UsageError(f"--hold-out: no part is called {', '.join(missing)}; there are {parts}")
    taken = _held_groups(videos, policy.held_out)
    given = {v.group for v in videos if v.split and not policy.ignore_given}

    def split_of(video: Video) -> str:
        if video.group in taken:
            return taken[video.group]
        if video.group in given or not policy.shares:
            return "" if policy.ignore_given else video.split
        return draw_split(video.group, policy.shares)

    return [dataclasses.replace(v, split=split_of(v)) for v in videos]


def _held_groups(videos: Sequence[Video], held_out: dict[str, str]) -> dict[str, str]:
    taken: dict[str, Video] = {}
    for video in videos:
        if split := held_out.get(video.part):
            first = taken.setdefault(video.group, video)
            if held_out[first.part] != split:
                raise LeakError(
                    f"group {video.group!r} is on both sides of the split: {first.video} in "
                    f"{held_out[first.part]!r}, {video.video} in {split!r}; hold out "
                    f"{first.part} and {video.part} together"
                )
    return {group: held_out[video.part] for group, video in taken.items()}
