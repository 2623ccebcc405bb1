"""Check a data set: is everything there, is it what was written, is anything missing?"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tellframe.data.build import UnitResult, read_unit
from tellframe.data.cut import VideoRecord
from tellframe.data.manifest import Video, explaining_parquet, read_parquet, rows_of
from tellframe.data.plan import plan_build, read_description
from tellframe.data.shards import ClipRow, parse_clip
from tellframe.errors import DataError, StoreError
from tellframe.recipe import Recipe
from tellframe.store import Store


@dataclass(slots=True)
class Report:
    """What was found."""

    videos: int = 0
    clips: int = 0
    shards: int = 0
    bytes: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    """Videos by outcome."""
    problems: list[str] = field(default_factory=list)
    """One line each; empty for a sound data set."""
    unused: list[str] = field(default_factory=list)
    """Files that belong to no unit: left by a worker that was overtaken. They do no harm."""


def read_index(store: Store) -> list[ClipRow]:
    """Read the index of a data set.

    Raises:
        StoreError: it cannot be read.
        DataError: it is not finished, or damaged.
    """
    return _read_table(store, "index.parquet", ClipRow)


def read_records(store: Store) -> list[VideoRecord]:
    """Read what became of the videos of a data set; raises as `read_index`."""
    return _read_table(store, "videos.parquet", VideoRecord, later=("left_out",))


def read_recipe(store: Store) -> Recipe:
    """Read the recipe of a data set; raises as `read_index`."""
    description = read_description(store)
    recipe = Recipe.from_dict(description["recipe"])
    if recipe.digest != description["recipe_digest"]:
        raise DataError(f"{store.name('dataset.json')}: the recipe was altered; build again")
    return recipe


def _read_table(store: Store, key: str, cls: type, later: Collection[str] = ()) -> list[Any]:
    if not store.exists(key):
        raise DataError(f"{store.name(key)}: is missing; run tellframe build until it is finished")
    data = io.BytesIO(store.get(key))
    with explaining_parquet(store.name(key)):
        return list(rows_of(read_parquet(data), cls, later))


def verify_dataset(
    store: Store,
    videos: Sequence[Video] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Read everything once and compare: checksums, counts, recipe, and the manifest if given.

    Args:
        store: the data set.
        videos: of the manifest that it should hold.
        progress: called with the number of shards done and in all.

    Raises:
        StoreError: the store does not answer.
        DataError: there is no finished data set.
    """
    report, recipe = Report(), read_recipe(store)
    description = read_description(store)
    files = store.list_files()
    clips = read_index(store)
    records = read_records(store)
    report.videos, report.clips = len(records), len(clips)
    report.outcomes = dict(sorted(Counter(r.outcome for r in records).items()))
    if len(records) != description["videos"]:
        report.problems.append(
            f"videos.parquet: {len(records)} videos, dataset.json says {description['videos']}"
        )
    named = [key for key in files if key.startswith("units/")]
    if len(named) != description["units"]:
        report.problems.append(f"units: {len(named)} are done of {description['units']}")
    units = {key: unit for key in named if (unit := _checked_unit(store, key, report))}
    for name, ours, theirs in (
        ("index.parquet", clips, [row for unit in units.values() for row in unit.clips]),
        ("videos.parquet", records, [video for unit in units.values() for video in unit.videos]),
    ):
        if _as_text(ours) != _as_text(theirs):
            report.problems.append(f"{name}: is not what the units say; delete it and build again")
    for key, unit in units.items():
        if unit.clips and not unit.shard:
            report.problems.append(f"{key}: has clips but no shard; delete it and build again")
    stated = {unit.shard: key for key, unit in units.items() if unit.shard}
    for number, (_, key) in enumerate(sorted(stated.items()), 1):
        _check_shard(store, key, units[key], recipe, report)
        if progress:
            progress(number, len(stated))
    report.unused = sorted(k for k in files if k.startswith("shards/") and k not in stated)
    if videos is not None:
        _check_manifest(videos, description, records, report)
    return report


def _as_text(rows: Iterable[Any]) -> list[str]:
    """Return rows in an order and a form that is the same for those that are equal."""
    return sorted(json.dumps(dataclasses.asdict(row)) for row in rows)


def _checked_unit(store: Store, key: str, report: Report) -> UnitResult | None:
    try:
        return read_unit(store, key)
    except DataError as error:
        report.problems.append(str(error))
        return None


def _check_shard(
    store: Store, unit_key: str, unit: UnitResult, recipe: Recipe, report: Report
) -> None:
    key = unit.shard
    try:
        data = store.get(key)
    except StoreError as error:
        if not error.missing:
            raise
        report.problems.append(f"{key}: is missing; delete {unit_key} and build again")
        return
    report.shards += 1
    report.bytes += len(data)
    if hashlib.sha256(data).hexdigest() != unit.sha256:
        report.problems.append(
            f"{key}: its content was altered; delete it and {unit_key}, and build again"
        )
        return
    for row in unit.clips:
        try:
            clip = parse_clip(data[row.offset : row.offset + row.size], row, recipe)
        except (DataError, TypeError) as error:
            report.problems.append(str(error))
            continue
        if clip.recipe_digest != recipe.digest:
            report.problems.append(f"{key}: the clip of {row.video} is of another recipe")


def _check_manifest(
    videos: Sequence[Video],
    description: dict[str, Any],
    records: Sequence[VideoRecord],
    report: Report,
) -> None:
    wanted, found = {v.video for v in videos}, {r.video for r in records}
    for name in sorted(wanted - found):
        report.problems.append(f"{name}: in the manifest, not in the data set")
    for name in sorted(found - wanted):
        report.problems.append(f"{name}: in the data set, not in the manifest")
    recipe = Recipe.from_dict(description["recipe"])
    plan = plan_build(videos, recipe, description["videos_per_shard"])
    if plan.description["manifest_sha256"] != description["manifest_sha256"]:
        report.problems.append("the manifest differs from the one that the data set was built from")
