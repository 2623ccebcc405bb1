"""What a build will do, decided before it begins, and what of it is left to do."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from tellframe.data.manifest import Video, require_no_leak
from tellframe.errors import DataError, StoreError
from tellframe.recipe import Recipe
from tellframe.store import Store, is_remote, open_store, split_location

FORMAT: Final = 1
"""Version of the layout of a data set."""
_DESCRIPTION: Final = frozenset(
    ("recipe", "recipe_digest", "manifest_sha256", "videos", "videos_per_shard", "units")
)
"""What dataset.json must hold for others to read it."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A run of videos that becomes one shard."""

    key: str
    """Of its JSON file: number, and a hash of all that decides its content."""
    videos: tuple[Video, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a build does, decided before it begins."""

    recipe: Recipe
    units: tuple[Unit, ...]
    description: dict[str, Any] = field(repr=False)
    """Content of dataset.json."""


def plan_build(videos: Sequence[Video], recipe: Recipe, videos_per_shard: int = 64) -> Plan:
    """Divide a manifest into units; videos of one zip stay in the order of its bytes.

    Raises:
        LeakError: a group lies on two sides of a split.
    """
    require_no_leak(videos)
    ordered = sorted(videos, key=lambda v: (v.location, v.offset, v.video))
    rows = [json.dumps(dataclasses.astuple(v), separators=(",", ":")) for v in ordered]
    description = {
        "format": FORMAT,
        "tellframe": version("tellframe"),
        "recipe": recipe.to_dict(),
        "recipe_digest": recipe.digest,
        "manifest_sha256": _hash("\n".join(sorted(rows))),
        "videos": len(ordered),
        "videos_per_shard": videos_per_shard,
    }
    salt = json.dumps(description, sort_keys=True)
    units = tuple(
        Unit(
            key=f"units/{number:06d}-{_hash(salt, *rows[start:end])[:16]}.json",
            videos=tuple(ordered[start:end]),
        )
        for number, start in enumerate(range(0, len(ordered), videos_per_shard))
        for end in (start + videos_per_shard,)
    )
    return Plan(recipe, units, {**description, "units": len(units)})


def _hash(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def require_sources(plan: Plan, endpoint: str = "") -> None:
    """Make sure that every zip, and every folder of loose files, is there.

    A file that is gone is recorded as missing for good. A disk that is not mounted, or a bucket
    that was misspelt, must not look like thousands of those.

    Raises:
        StoreError: one is not.
    """
    videos = [video for unit in plan.units for video in unit.videos]
    for location in sorted({v.location for v in videos if v.member}):
        place, key = split_location(location)
        open_store(place, endpoint).size(key)
    loose = {split_location(v.location)[0] for v in videos if not v.member}
    for place in sorted(loose):
        if not is_remote(place) and not Path(place).is_dir():
            raise StoreError(
                f"{place}: no such folder, and the manifest names videos in it; mount it, or make "
                "the manifest again",
                missing=True,
            )


def begin_build(plan: Plan, store: Store) -> None:
    """Claim a place for this data set, or make sure that it is this one that was begun there.

    Raises:
        RecipeMismatchError: it is being built with another recipe; the message says what differs.
        DataError: it holds another data set; the message says what differs.
        StoreError: it cannot be written.
    """
    text = json.dumps(plan.description, indent=2, sort_keys=True) + "\n"
    if store.put_if_absent("dataset.json", text.encode()):
        return
    found = read_description(store)
    Recipe.from_dict(found["recipe"]).require_same(plan.recipe, f"{store.url} and this build")
    if found != plan.description:
        differing = [k for k in plan.description if found.get(k) != plan.description[k]]
        raise DataError(
            f"{store.url}: holds another data set ({', '.join(differing)} differ); "
            "choose another destination, or give what it was begun with"
        )


def read_description(store: Store) -> dict[str, Any]:
    """Return dataset.json.

    Raises:
        DataError: there is none, or it is none of ours.
    """
    if not store.exists("dataset.json"):
        raise DataError(f"{store.url}: holds no dataset.json; build one with: tellframe build")
    try:
        found = json.loads(store.get("dataset.json"))
    except ValueError as error:
        raise DataError(f"{store.name('dataset.json')}: is no JSON ({error})") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise DataError(f"{store.name('dataset.json')}: is not of format {FORMAT}")
    if missing := _DESCRIPTION - set(found):
        raise DataError(f"{store.name('dataset.json')}: lacks {', '.join(sorted(missing))}")
    return found


def list_open_units(plan: Plan, store: Store, share: tuple[int, int] = (0, 1)) -> list[Unit]:
    """Return the units of a worker's share that are not done, beginning anywhere.

    Args:
        plan: the build.
        store: its destination.
        share: (i, N): every N-th unit from the i-th on.
    """
    done = store.list_files("units")
    left = [u for u in plan.units[share[0] :: share[1]] if u.key not in done]
    # Two that were started with the same share meet half-way instead of doing everything twice.
    start = random.randrange(len(left)) if left else 0
    return left[start:] + left[:start]
