"""Labelled videos wherever they come from: a CSV, a manifest, or a built data set of clips."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from tellframe.data.cut import Outcome, VideoRecord
from tellframe.data.manifest import Video, read_manifest
from tellframe.data.shards import ClipRow
from tellframe.data.verify import read_index, read_recipe, read_records
from tellframe.errors import ConfigError, DataError, UsageError
from tellframe.evaluate.rows import Row
from tellframe.recipe import Recipe
from tellframe.store import Store, open_store

COLUMNS: Final = ("path", "label", "source", "method", "group", "pair", "split")
"""Of a CSV of labelled videos."""
EVERY: Final = "all"
"""Stands for all splits."""
HOUSE: Final = "dev"
"""The split that is taken where several are there and none is asked for."""


@dataclass(frozen=True, slots=True)
class Videos:
    """Labelled videos that are to be decoded."""

    rows: tuple[Row, ...]
    videos: tuple[Video, ...]
    """Where they lie, in the same order."""
    endpoint: str = ""
    """Of the object store."""
    unlabelled: int = 0
    """Videos that were left out because nobody says what they are."""


@dataclass(frozen=True, slots=True)
class Shards:
    """Labelled videos whose clips are cut already."""

    rows: tuple[Row, ...]
    store: Store
    recipe: Recipe
    clips: Mapping[str, Sequence[ClipRow]]
    """By video."""
    records: Mapping[str, VideoRecord]
    """By video."""
    unlabelled: int = 0
    """As in `Videos`; those without a clip are among them where no manifest was given."""


Source = Videos | Shards


def open_source(
    location: str,
    split: str | None = None,
    *,
    limit: int | None = None,
    manifest: str = "",
    endpoint: str = "",
) -> tuple[Source, str]:
    """Read what is known of labelled videos; opens none of them.

    Args:
        location: a CSV (see `COLUMNS`), a manifest (.parquet), or the folder or address of a built
            data set.
        split: take its videos only; "all" takes every one. By default the only one, or "dev".
        limit: at most so many videos: groups in the order of a hash of their name, so that a real
            video stays with its fakes and the same ones are taken every time.
        manifest: for a built data set: says what the videos without a clip are, and goes before
            what its index says.
        endpoint: of the object store.

    Returns:
        The videos, and the split that was taken.

    Raises:
        TellframeError: it cannot be read, or has no such split.
    """
    if location.endswith(".csv"):
        source: Source = _open_csv(Path(location))
    elif location.endswith(".parquet"):
        source = _open_manifest(location, endpoint)
    else:
        source = _open_shards(location, manifest, endpoint)
    if manifest and not isinstance(source, Shards):
        raise UsageError("--manifest belongs to a built data set; this is none")
    split = _choose_split(location, [r.split for r in source.rows], split)
    if twice := [name for name, n in Counter(r.path for r in source.rows).items() if n > 1]:
        raise ConfigError(f"{location}: {twice[0]} is there twice")
    rows = [r for r in source.rows if split in (EVERY, r.split)]
    return _take(source, draw(rows, limit)), split


def _choose_split(location: str, splits: Iterable[str], asked: str | None) -> str:
    counts = Counter(splits)
    if asked == "":  # as a shell passes on an empty variable
        return EVERY
    if asked is None:
        if HOUSE in counts or len(counts) <= 1:
            return HOUSE if HOUSE in counts else EVERY
        listed = ", ".join(f"{s or 'without a split'} ({n})" for s, n in sorted(counts.items()))
        raise UsageError(f"{location}: has {listed}; choose with --split NAME or --split all")
    if asked != EVERY and asked not in counts:
        there = ", ".join(sorted(filter(None, counts))) or "none"
        raise ConfigError(f"{location}: holds no video of the split {asked!r}; there is: {there}")
    return asked


def draw(rows: Sequence[Row], limit: int | None) -> list[Row]:
    """Return at most so many rows, whole groups first; see `open_source`."""
    if limit is None or limit >= len(rows):
        return list(rows)

    def place(row: Row) -> tuple[str, str]:
        return hashlib.sha256(f"limit:{row.group}".encode()).hexdigest(), row.path

    kept = {id(row) for row in sorted(rows, key=place)[:limit]}
    return [row for row in rows if id(row) in kept]


def _take(source: Source, rows: Sequence[Row]) -> Source:
    """Return the source with some of its rows."""
    if isinstance(source, Shards):
        return dataclasses.replace(source, rows=tuple(rows))
    place = {row.path: video for row, video in zip(source.rows, source.videos, strict=True)}
    videos = tuple(place[row.path] for row in rows)
    return dataclasses.replace(source, rows=tuple(rows), videos=videos)


def _open_csv(path: Path) -> Videos:
    rows = read_labels(path)
    return Videos(tuple(rows), tuple(Video(r.path, str(path.parent / r.path)) for r in rows))


def _open_manifest(path: str, endpoint: str) -> Videos:
    videos = read_manifest(path, endpoint)
    known = tuple(v for v in videos if v.fake is not None)
    if not known:
        raise DataError(f"{path}: none of its videos has a label")
    return Videos(tuple(map(_row_of, known)), known, endpoint, len(videos) - len(known))


def _open_shards(location: str, manifest: str, endpoint: str) -> Shards:
    store = open_store(location, endpoint)
    recipe = read_recipe(store)
    records = {record.video: record for record in read_records(store)}
    clips: dict[str, list[ClipRow]] = {}
    for clip in read_index(store):
        clips.setdefault(clip.video, []).append(clip)
    if manifest:
        videos = read_manifest(manifest, endpoint)
        if missing := [v.video for v in videos if v.video not in records]:
            raise DataError(
                f"{location}: lacks {len(missing)} videos of {manifest}, such as {missing[0]}"
            )
    else:
        videos = [_video_of(some[0]) for some in clips.values()]
    known = [v for v in videos if v.fake is not None]
    if not known:
        raise DataError(f"{location}: none of its videos has a label")
    return Shards(
        rows=tuple(map(_row_of, known)),
        store=store,
        recipe=recipe,
        clips=clips,
        records=records,
        unlabelled=len(videos if manifest else records) - len(known),
    )


def _video_of(clip: ClipRow) -> Video:
    names = ("video", "label", "original", "group", "split", "part", "source", "method")
    return Video(location="", **{name: getattr(clip, name) for name in names})


def _row_of(video: Video) -> Row:
    return Row(
        path=video.video,
        fake=bool(video.fake),
        source=video.source,
        method=video.method,
        group=video.group or video.video,
        pair=(video.original or "") if video.fake else video.video,
        part=video.part,
        split=video.split,
        original=video.original,
    )


def read_labels(path: str | Path, split: str = "") -> list[Row]:
    """Read labelled videos from a CSV; see `COLUMNS`.

    A video without a group belongs to that of its pair, or is one of its own.

    Args:
        path: of the CSV; paths in it are relative to its folder.
        split: only the rows of this split; all where empty.

    Raises:
        ConfigError: the file cannot be read, lacks a column, has another label, or no row of the
            split.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
            if missing:
                raise ConfigError(f"{path}: lacks the columns {', '.join(missing)}")
            records = [r for r in reader if not split or r["split"] == split]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as labelled videos ({error})") from error
    if not records:
        raise ConfigError(f"{path}: holds no video" + (f" of the split {split!r}" if split else ""))
    try:
        return [
            Row(
                path=r["path"],
                fake=_is_fake(r["path"], r["label"]),
                source=r["source"],
                method=r["method"],
                group=r["group"] or r["pair"] or r["path"],
                pair=r["pair"],
                part=str(PurePosixPath(r["path"]).parent),
                split=r["split"],
            )
            for r in records
        ]
    except ValueError as error:
        raise ConfigError(f"{path}: {error}") from error


def _is_fake(name: str, label: str) -> bool:
    """Raise ValueError unless the label is one."""
    if label not in ("REAL", "FAKE"):
        raise ValueError(f"{name}: label {label!r}, expected REAL or FAKE")
    return label == "FAKE"


@dataclass(frozen=True, slots=True)
class Still:
    """One labelled face crop."""

    file: str
    fake: bool
    original: str
    """The real crop's name without suffix; an original and its fakes are one group and one pair."""
    data: bytes = b""
    """The encoded picture; empty where it was not read, or cannot be."""
    outcome: Outcome = Outcome.OK
    """`MISSING` or `DAMAGED` where it cannot be taken out of the zip."""


def list_stills(path: str | Path) -> list[Still]:
    """Read the labels of a zip of face crops, and none of the crops; see `read_stills`.

    Raises:
        ConfigError: the zip cannot be read as such, or names a crop twice.
    """
    with _open_stills(path) as archive:
        stills = _label_stills(archive)
    if twice := [name for name, n in Counter(s.file for s in stills).items() if n > 1]:
        raise ConfigError(f"{path}: {twice[0]} is there twice")
    return stills


def read_stills(path: str | Path, *, keep_lost: bool = False) -> Iterator[Still]:
    """Read a zip of face crops with a labels.csv: file, label (REAL or FAKE), original.

    Args:
        path: of the zip.
        keep_lost: whether a crop that cannot be taken out of it is yielded with its outcome; else
            it is an error.

    Raises:
        ConfigError: the zip cannot be read as such.
    """
    with _open_stills(path) as archive:
        for still in _label_stills(archive):
            data, outcome = b"", Outcome.OK
            try:
                data = archive.read(still.file)
            except Exception as error:  # whatever a checksum, a password or a codec raises
                if not keep_lost:
                    raise ConfigError(f"{path}: {still.file} cannot be read ({error})") from error
                missing = isinstance(error, KeyError)
                outcome = Outcome.MISSING if missing else Outcome.DAMAGED
            yield dataclasses.replace(still, data=data, outcome=outcome)


_BROKEN: Final = (
    OSError,
    KeyError,
    ValueError,
    EOFError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What a zip raises that cannot be opened, or whose labels are missing, damaged or encrypted."""


@contextmanager
def _open_stills(path: str | Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (*_BROKEN, csv.Error) as error:
        raise ConfigError(f"{path}: cannot be read as a zip of face crops ({error})") from error


def _label_stills(archive: zipfile.ZipFile) -> list[Still]:
    with archive.open("labels.csv") as raw:
        text = io.TextIOWrapper(raw, encoding="utf-8-sig")
        return [
            Still(r["file"], _is_fake(r["file"], r["label"]), r["original"])
            for r in csv.DictReader(text, restval="")
        ]
