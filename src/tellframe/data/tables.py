"""Tables that people write: a CSV of labelled videos, a CSV of who is in which video."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from stat import S_ISREG
from typing import Final

from tellframe.data.layouts import Draft, check_label, label_without_file
from tellframe.data.sources import File, Problem, Source, is_good_name
from tellframe.errors import DataError
from tellframe.store import FolderStore, Store, is_remote, open_store, split_location

MAX_TABLE: Final = 128 * 2**20
"""Largest CSV in bytes that is read: more than a million videos."""
REQUIRED: Final = ("path", "label")
OPTIONAL: Final = ("original", "group", "split", "part", "source", "method", "pair")
"""Other columns are passed over."""


def read_csv(source: Source, problems: list[Problem]) -> list[Draft]:
    """Read a CSV with a row a video; paths count from the folder that it lies in.

    Raises:
        DataError: it cannot be read as such.
        StoreError: it, or what it names in an object store, cannot be read.
    """
    drafts: list[Draft] = []
    find = _finder(source)
    for row in _read_rows(source.store, source.table, REQUIRED):
        path, name = row["path"], _name(row["path"])
        if not is_good_name(name):
            problems.append(Problem("bad_name", path, "is not a name for a file; left out"))
        elif file := find(path):
            drafts.append(_draft(source, row, name, file, problems))
        else:
            problems.append(label_without_file(path, source.table))
    reals: dict[str, list[Draft]] = {}
    for draft in drafts:
        if draft.label == "REAL" and draft.pair:
            reals.setdefault(draft.pair, []).append(draft)
    for draft in drafts:
        if draft.label == "FAKE" and not draft.original and len(reals.get(draft.pair, ())) == 1:
            draft.original = reals[draft.pair][0].name
    return drafts


def read_people(path: str | Path) -> dict[str, list[str]]:
    """Read who is in which video: a CSV with the columns video and person, a row for each.

    Returns:
        The people by video: its name in the data set, or that of its file without folder or suffix.

    Raises:
        DataError: it cannot be read as such.
        StoreError: it cannot be read.
    """
    people: dict[str, list[str]] = {}
    store = FolderStore(Path(path).absolute().parent)
    for row in _read_rows(store, Path(path).name, ("video", "person")):
        if row["video"] and row["person"]:
            people.setdefault(row["video"], []).append(row["person"])
    return people


def _read_rows(store: Store, key: str, required: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Yield the rows of a CSV; what is missing at the end of a row is empty."""
    name = store.name(key)
    size = store.size(key)
    if size > MAX_TABLE:
        raise DataError(f"{name}: has more than {MAX_TABLE} bytes; refused")
    try:
        text = store.get_range(key, 0, size).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="")
        if missing := [c for c in required if c not in (reader.fieldnames or ())]:
            raise DataError(f"{name}: lacks the columns {', '.join(missing)}")
        for row in reader:
            if None in row:
                raise DataError(f"{name}: line {reader.line_num} has more fields than the header")
            yield {column: value.strip() for column, value in row.items()}
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name}: cannot be read as a CSV in UTF-8 ({error})") from error


def _draft(
    source: Source, row: dict[str, str], name: str, file: File, problems: list[Problem]
) -> Draft:
    given = {column: row.get(column, "") for column in OPTIONAL}
    label = check_label(row["label"], name, problems)
    part = given["part"] or name.rpartition("/")[0] or source.name
    draft = Draft(file, name, part, given["source"] or source.name, label)
    draft.group, draft.pair, draft.split = given["group"], given["pair"], given["split"]
    draft.method = "" if given["method"].lower() == "none" else given["method"]
    draft.original = _name(given["original"]) if label == "FAKE" and given["original"] else ""
    return draft


def _name(path: str) -> str:
    """Return the name in the data set of a path in a CSV: what it begins with does not count."""
    plain = path.partition("://")[2] if is_remote(path) else path
    return re.sub(r"^(\.\./|/)+", "", os.path.normpath(plain)) if plain else ""


def _finder(source: Source) -> Callable[[str], File | None]:
    """Return a function that finds the file at a path of a CSV; None where there is none."""
    store = source.store
    # One listing instead of a request a video.
    listed = store.list_files() if is_remote(store.url) else None

    def find(path: str) -> File | None:
        name = _name(path)
        if is_remote(path):
            place, key = split_location(path)
            if place not in source.others:
                source.others[place] = open_store(place, source.endpoint)
            other = source.others[place]
            return File(name, path, other, key, other.size(key)) if other.exists(key) else None
        if listed is not None:
            key = os.path.normpath(path)
            return File(name, store.name(key), store, key, listed[key]) if key in listed else None
        location = os.path.normpath(Path(store.url) / path)
        try:
            facts = Path(location).stat()
        except OSError:
            return None
        return (
            File(name, location, store, location, facts.st_size) if S_ISREG(facts.st_mode) else None
        )

    return find
