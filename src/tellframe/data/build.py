"""Build a data set: every video of a manifest into clips, in shards, resumable and shared.

The unit of work is a run of videos. It becomes one shard, named by its content, and one small
JSON file that names the shard: written last, and only if it is absent, it says that the unit is
done. Whoever comes along, after a crash or at the same time, does what is not done yet. When all
units are done, the index is a function of them, so that it does not matter who writes it.

    DEST/dataset.json            what is built: recipe, manifest, units
    DEST/units/000007-HASH.json  a finished unit: its shard, clips and outcomes
    DEST/shards/HASH.tar         its clips
    DEST/index.parquet           one row a clip (`ClipRow`)
    DEST/videos.parquet          one row a video (`VideoRecord`)
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from tellframe.data.cut import CutVideo, Outcome, VideoRecord, cut_video, given_up, load_cutter
from tellframe.data.manifest import Video, load_pyarrow, table_of
from tellframe.data.media import open_descriptor
from tellframe.data.plan import Plan, Unit, begin_build, list_open_units, require_sources
from tellframe.data.shards import SUFFIXES, ClipRow, ShardWriter, StoredClip, clip_key
from tellframe.errors import DataError
from tellframe.isolation import Failure, Limits, map_isolated
from tellframe.limits import ARCHIVE_LIMITS, ArchiveLimits
from tellframe.recipe import Recipe
from tellframe.store import Store, open_store


@dataclass(frozen=True, slots=True)
class Workplace:
    """Where a build reads and writes, and what it may cost; the same for every engine."""

    destination: str
    """Folder or address."""
    endpoint: str = ""
    """Of the object store."""
    workers: int = 1
    """Processes on this machine."""
    limits: Limits = field(default_factory=Limits)
    archives: ArchiveLimits = ARCHIVE_LIMITS
    """Of zips that videos come from."""


Progress = Callable[[VideoRecord], None]


def be_silent(record: VideoRecord) -> None:
    """Report nothing."""


def build_units(
    recipe: Recipe, units: Sequence[Unit], place: Workplace, progress: Progress
) -> None:
    """Build units with worker processes on this machine.

    Raises:
        StoreError: something cannot be read or written; what is done is done.
    """
    store = open_store(place.destination, place.endpoint)
    pending = (
        (unit, video) for unit in units if not store.exists(unit.key) for video in unit.videos
    )
    sent, handed = itertools.tee(pending)
    results = map_isolated(
        cut_video,
        (video for _, video in sent),
        setup=load_cutter,
        arguments=(recipe, place.endpoint),
        workers=place.workers,
        limits=place.limits,
        returns=CutVideo,
        open_item=functools.partial(
            open_descriptor, endpoint=place.endpoint, limits=place.archives
        ),
    )
    with closing(results):  # an error here must not leave workers behind
        paired = zip(handed, results, strict=True)
        for unit, group in itertools.groupby(paired, key=lambda pair: pair[0][0]):
            cuts = (
                given_up(video, result) if isinstance(result, Failure) else result
                for _, (video, result) in group
            )
            write_unit(recipe, unit, _reporting(cuts, progress), store)


def _reporting(cuts: Iterable[CutVideo], progress: Progress) -> Iterator[CutVideo]:
    for cut in cuts:
        progress(cut.record)
        yield cut


def write_unit(recipe: Recipe, unit: Unit, cuts: Iterable[CutVideo], store: Store) -> None:
    """Write the shard of a unit, then the file that says that it is done."""
    suffix = SUFFIXES[recipe.crop_format]
    rows: list[ClipRow] = []
    records: list[VideoRecord] = []
    with tempfile.TemporaryFile() as file:
        writer = ShardWriter(file, suffix)
        for video, cut in zip(unit.videos, cuts, strict=True):
            records.append(cut.record)
            for clip in cut.clips:
                key = clip_key(video.video, clip.facts["person"])
                rows.append(_row(video, cut, clip, *writer.add(key, clip), recipe.digest))
        writer.close()
        size = file.tell()
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        name = f"shards/{digest[:32]}.tar"
        if rows:
            file.seek(0)
            store.put_if_absent(name, file)
    shard = {"key": name, "bytes": size, "sha256": digest} if rows else None
    result = {
        "shard": shard,
        "clips": [{**dataclasses.asdict(r), "shard": name} for r in rows],
        "videos": [dataclasses.asdict(r) for r in records],
    }
    store.put_if_absent(unit.key, json.dumps(result, separators=(",", ":")).encode())


def _row(
    video: Video, cut: CutVideo, clip: StoredClip, offset: int, size: int, digest: str
) -> ClipRow:
    """Return the index row of a clip; the name of its shard is not known yet."""
    times, seen = clip.facts["times"], clip.facts["seen"]
    return ClipRow(
        shard="",
        offset=offset,
        size=size,
        video=video.video,
        person=clip.facts["person"],
        people=cut.record.people,
        start=times[seen[0]],
        end=times[seen[-1]],
        frames=len(times),
        seen=len(seen),
        face_size=clip.face_size,
        brightness=clip.brightness,
        label=video.label,
        original=video.original,
        group=video.group,
        split=video.split,
        part=video.part,
        source=video.source,
        method=video.method,
        recipe_digest=digest,
    )


@dataclass(frozen=True, slots=True)
class Summary:
    """How a build stands."""

    units: int
    units_open: int
    """Not done yet: left to other workers."""
    outcomes: dict[str, int]
    """Videos by `Outcome`; empty while units are open."""
    clips: int

    @property
    def failed(self) -> int:
        """Videos that gave neither a clip nor the certainty that nobody is in them."""
        good = (Outcome.OK, Outcome.NO_FACE)
        return sum(count for name, count in self.outcomes.items() if name not in good)


def finish_build(plan: Plan, store: Store) -> Summary:
    """Write the index if every unit is done.

    Raises:
        StoreError: a unit cannot be read, or the index not written.
        DataError: a unit is damaged.
    """
    done = store.list_files("units")
    left = sum(unit.key not in done for unit in plan.units)
    if left:
        return Summary(len(plan.units), left, {}, 0)
    clips: list[ClipRow] = []
    records: list[VideoRecord] = []
    for unit in plan.units:
        result = read_unit(store, unit.key)
        clips += result.clips
        records += result.videos
    store.put_if_absent("index.parquet", _parquet(clips, ClipRow))
    store.put_if_absent("videos.parquet", _parquet(records, VideoRecord))
    outcomes = Counter(record.outcome for record in records)
    return Summary(len(plan.units), 0, dict(sorted(outcomes.items())), len(clips))


@dataclass(frozen=True, slots=True)
class UnitResult:
    """What a finished unit says."""

    shard: str
    """Key of its shard; empty where the unit has no clips."""
    sha256: str
    """Hex digest of the shard."""
    clips: tuple[ClipRow, ...]
    videos: tuple[VideoRecord, ...]


def read_unit(store: Store, key: str) -> UnitResult:
    """Return what a finished unit says.

    Raises:
        StoreError: it cannot be read.
        DataError: it is damaged.
    """
    try:
        found = json.loads(store.get(key))
        shard = found["shard"] or {"key": "", "sha256": ""}
        clips = tuple(ClipRow(**row) for row in found["clips"])
        videos = tuple(VideoRecord(**row) for row in found["videos"])
        for rows, cls in ((clips, ClipRow), (videos, VideoRecord)):
            table_of(rows, cls)  # raises where a value is not of its column's type
        return UnitResult(str(shard["key"]), str(shard["sha256"]), clips, videos)
    except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as error:
        raise DataError(
            f"{store.name(key)}: damaged ({error!r}); delete it and build again"
        ) from error


def _parquet(rows: Sequence[Any], cls: type) -> bytes:
    buffer = io.BytesIO()
    load_pyarrow().parquet.write_table(table_of(rows, cls), buffer, compression="zstd")
    return buffer.getvalue()


Engine = Callable[[Recipe, Sequence[Unit], Workplace, Progress], None]
"""Builds units somewhere: `build_units` here, or `tellframe.data.ray_engine.build_units`."""


def build(
    plan: Plan,
    place: Workplace,
    *,
    share: tuple[int, int] = (0, 1),
    engine: Engine = build_units,
    progress: Progress = be_silent,
) -> Summary:
    """Build a data set, or a worker's share of it.

    Args:
        plan: from `plan_build`.
        place: where, and with how many processes.
        share: (i, N): this worker's units are every N-th from the i-th on.
        engine: who does the units.
        progress: called for every video.

    Raises:
        DataError: the destination holds another data set.
        StoreError: a source is not there, or something cannot be read or written; started again,
            the build goes on there.
    """
    store = open_store(place.destination, place.endpoint)
    require_sources(plan, place.endpoint)
    begin_build(plan, store)
    engine(plan.recipe, list_open_units(plan, store, share), place, progress)
    return finish_build(plan, store)
