"""What a source holds: its files, loose ones and those within zips, none of them unpacked."""

from __future__ import annotations

import os
import re
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final

from tellframe.data.zips import Member, find_fault, list_members, read_member
from tellframe.errors import DataError, StoreError, UsageError
from tellframe.limits import ARCHIVE_LIMITS, ArchiveLimits
from tellframe.store import Store, is_remote, open_store, split_location
from tellframe.video import VIDEO_SUFFIXES

METADATA: Final = "metadata.json"
"""DFDC's labels, one file a part."""
TEST_LIST: Final = "List_of_testing_videos.txt"
"""Celeb-DF's test set."""
CHUNK: Final = 8 * 2**20
"""Bytes of a loose file that are in memory at once while its checksum is computed."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in a source that is not as it should be."""

    code: str
    """One of `tellframe.data.index.CODES`."""
    where: str
    """The video or file."""
    what: str
    """What is wrong, as a sentence for people."""


@dataclass(frozen=True, slots=True)
class File:
    """A file of a source, loose or in a zip."""

    path: str
    """Name of the source, then folders, a zip's name without suffix among them, then the file."""
    location: str
    """Absolute path or address of the file, or of the zip that holds it."""
    store: Store
    key: str
    """Of the file in its store, or of the zip."""
    bytes: int
    member: Member | None = None
    """Where the file is within its zip."""

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """Its path without the last part."""
        return self.path.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Source:
    """One place that was asked to be indexed."""

    name: str
    """Last part of its path, without suffix; for a table the folder that holds it."""
    path: str
    """Absolute path or address, without suffix."""
    store: Store
    files: tuple[File, ...] = ()
    """Videos and what describes them; other files are passed over."""
    table: str = ""
    """Key of the CSV where the source is one."""
    endpoint: str = ""
    """See `open_store`."""
    others: dict[str, Store] = field(default_factory=dict)
    """Stores elsewhere that a CSV names, by address."""
    limits: ArchiveLimits = ARCHIVE_LIMITS
    """Of its zips and its files of labels."""

    @property
    def videos(self) -> list[File]:
        """Its files that look like videos."""
        return [f for f in self.files if is_video(f.name)]


def list_source(
    location: str,
    endpoint: str,
    problems: list[Problem],
    limits: ArchiveLimits = ARCHIVE_LIMITS,
) -> Source:
    """List a folder, a zip, a CSV, or a prefix of an object store.

    Args:
        location: where it is.
        endpoint: see `open_store`.
        problems: grows.
        limits: of its zips and its files of labels.

    Raises:
        DataError: there is no such thing.
        MissingExtraError: obstore is not installed.
        StoreError: it cannot be listed.
        UsageError: it is a file of another kind.
    """
    remote = is_remote(location)
    full = location.rstrip("/") if remote else os.path.normpath(Path(location).absolute())
    if not _is_text(full):
        raise UsageError(f"{full!r}: control characters, or bytes that are no UTF-8; rename it")
    if not remote and not Path(full).exists():
        raise DataError(f"{location}: there is no such file or folder")
    kind = PurePosixPath(full).suffix.lower()
    if not remote and Path(full).is_dir():
        kind = ""
    elif not remote and kind not in (".zip", ".csv"):
        raise UsageError(f"{location}: is no source; give a folder, zip, CSV or s3:// address")
    if kind not in (".zip", ".csv"):
        store, name = open_store(full, endpoint), _last(full)
        files = tuple(_list_files(store, name, problems, limits))
        return Source(name, full, store, files, limits=limits)
    stem = full[: -len(kind)]
    if kind == ".csv":
        # A store of its folder, not of its bucket: the files that it names are listed there.
        folder, _, key = full.rpartition("/")
        store = open_store(folder or "/", endpoint)
        return Source(_last(folder), stem, store, table=key, endpoint=endpoint, limits=limits)
    place, key = split_location(full)
    store, name = open_store(place, endpoint), _last(stem)
    files = tuple(_list_zip(store, key, name, problems, limits))
    return Source(name, stem, store, files, limits=limits)


def _last(path: str) -> str:
    return path.rpartition("/")[2] or "root"


def _list_files(
    store: Store, source: str, problems: list[Problem], limits: ArchiveLimits
) -> Iterator[File]:
    for key, size in store.list_files().items():
        path, location = f"{source}/{key}", store.name(key)
        if key.lower().endswith(".zip") and not _is_hidden(key):
            yield from _list_zip(store, key, path[: -len(".zip")], problems, limits)
        elif _is_wanted(key):
            if is_good_name(key):
                yield File(path, location, store, key, size)
            else:
                problems.append(_bad_name(location))


def _list_zip(
    store: Store, key: str, path: str, problems: list[Problem], limits: ArchiveLimits
) -> Iterator[File]:
    """Yield the files of a zip, each name once: the last of those that share it, as unzip does."""
    location = store.name(key)
    try:
        if not is_good_name(key):
            raise DataError("the name of the zip is not one for a file")
        members = [m for m in list_members(store, key, limits) if _is_wanted(m.name)]
    except (DataError, StoreError) as error:
        if isinstance(error, StoreError) and error.missing:
            raise
        problems.append(Problem("unreadable_source", location, str(error)))
        return
    last = {m.name: m for m in members}
    for member in members:
        where = f"{location}:{member.name}"
        if not is_good_name(member.name):
            problems.append(_bad_name(where))
        elif member is not last[member.name]:
            problems.append(
                Problem("duplicate_name", where, "is in the zip twice; the last one counts")
            )
        else:
            if fault := find_fault(member, limits):
                problems.append(Problem("unreadable_member", where, fault))
            yield File(f"{path}/{member.name}", location, store, key, member.bytes, member)


def is_video(name: str) -> bool:
    """Tell by its suffix whether a name is that of a video."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem) and dot + suffix.lower() in VIDEO_SUFFIXES


def _is_wanted(name: str) -> bool:
    last = name.rpartition("/")[2]
    return (is_video(last) or last in (METADATA, TEST_LIST)) and not _is_hidden(name)


def _is_hidden(name: str) -> bool:
    """Tell whether a name is hidden, or what macOS puts beside every file in a zip."""
    return any(p == "__MACOSX" or (p[:1] == "." and p.strip(".")) for p in name.split("/"))


def is_good_name(name: str) -> bool:
    """Tell whether a name is a relative path of plain parts that can be written as text.

    Parts such as "..", an absolute path, backslashes, control characters and bytes that are no
    UTF-8 are not.
    """
    if "\\" in name or re.match("[A-Za-z]:", name):
        return False
    return _is_text(name) and all(part not in ("", ".", "..") for part in name.split("/"))


def _is_text(name: str) -> bool:
    """Tell whether a name is without control characters and bytes that are no UTF-8."""
    kinds = () if name.isprintable() else {unicodedata.category(c) for c in name}
    return not {"Cc", "Cs", "Zl"}.intersection(kinds)


def _bad_name(where: str) -> Problem:
    return Problem("bad_name", where, "is not a name for a file within a data set; left out")


def read_small(file: File, limits: ArchiveLimits) -> bytes:
    """Return a whole file that describes others.

    Raises:
        DataError: it is larger than the limits allow, or damaged.
        StoreError: it cannot be read.
    """
    if file.bytes > limits.metadata_bytes:
        raise DataError(
            f"{file.location}: {file.path} has more than {limits.metadata_bytes} bytes; refused, "
            "see --max-metadata-bytes"
        )
    if file.member:
        return read_member(file.store, file.key, file.member, limits)
    return file.store.get_range(file.key, 0, file.bytes)


def checksum(file: File) -> int:
    """Return the CRC-32 of a file: from the directory of its zip, else by reading all of it.

    Raises:
        StoreError: it cannot be read.
    """
    if file.member:
        return file.member.crc
    crc = 0
    for start in range(0, file.bytes, CHUNK):
        crc = zlib.crc32(file.store.get_range(file.key, start, CHUNK), crc)
    return crc


def shortest_tails(paths: Iterable[str]) -> dict[str, str]:
    """Name every path by as few of its last parts as tell it from the others.

    >>> shortest_tails(["/a/x/part_0", "/a/y/part_0", "/a/y/part_1"])
    {'/a/x/part_0': 'x/part_0', '/a/y/part_0': 'y/part_0', '/a/y/part_1': 'part_1'}
    """
    tails = {path: _tails(path) for path in paths}
    count: dict[str, int] = {}
    for tail in (t for some in tails.values() for t in some):
        count[tail] = count.get(tail, 0) + 1
    return {
        path: next((t for t in some if count[t] == 1), path.strip("/"))
        for path, some in tails.items()
    }


def _tails(path: str) -> list[str]:
    parts = path.strip("/").split("/")
    return ["/".join(parts[i:]) for i in reversed(range(len(parts)))]
