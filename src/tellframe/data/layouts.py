"""The layouts that data sets come in, and what each says of a video: label, original, split."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final

from tellframe.data.sources import (
    METADATA,
    TEST_LIST,
    File,
    Problem,
    Source,
    is_good_name,
    is_video,
    read_small,
    shortest_tails,
)
from tellframe.errors import DataError, StoreError, UsageError
from tellframe.limits import ARCHIVE_LIMITS, ArchiveLimits

DFDC: Final = "DFDC"
FACEFORENSICS: Final = "FaceForensics++"
CELEBDF: Final = "Celeb-DF"
_DFDC_PART: Final = re.compile(r"(?<![^/])dfdc_train_part_0*(\d+)(?=/|$)")
_DFDC_NAME: Final = re.compile(r"[a-z]{10}\.mp4")
"""Ten random letters: in DFDC itself, a name tells a video from those of all parts."""
_FACEFORENSICS: Final = re.compile(
    r"(?<![^/])(original|manipulated)_sequences/([^/]+)/(raw|c0|c23|c40)/videos/([^/]+)\.\w+$"
)
"""`download-FaceForensics.py` of the data set's authors makes these folders."""
_CELEBDF: Final = re.compile(r"(?<![^/])(Celeb-real|YouTube-real|Celeb-synthesis)/([^/]+)\.\w+$")
_DFD: Final = re.compile(r"(\d+)(_\d+)?__(.+?)(?(2)__\w+)$")
"""DeepFakeDetection: 01__walking_down is a clip of actor 01, 01_02__walking_down__YVGY8LOK the same
with the face of 02."""


@dataclass(slots=True)
class Draft:
    """A video as its source describes it."""

    file: File
    name: str
    """As `Video.video`, until sources that share names are told apart."""
    part: str
    source: str
    label: str = ""
    original: str = ""
    """Name of the original."""
    key: str = ""
    """Names the recording wherever and however often it is stored; empty: as `name`."""
    links: tuple[str, ...] = ()
    """Keys of the recordings that it was made from, the original first; empty: as `original`."""
    group: str = ""
    """Given by the source."""
    pair: str = ""
    """Given by the source: a real video and its fakes share one."""
    person: str = ""
    """Who is filmed, where the name tells."""
    split: str = ""
    split_is_default: bool = False
    """Whether the split is only what the data set says of everything."""
    method: str = ""
    crc: int | None = None


@dataclass(slots=True)
class _Labels:
    """A metadata.json."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)


def find_layout(source: Source) -> str:
    """Return the name of the layout of a source.

    Raises:
        UsageError: it has the marks of several.
    """
    if source.table:
        return "csv"
    marks = {
        "faceforensics": any(_FACEFORENSICS.search(f.path) for f in source.videos),
        "celebdf": any(_CELEBDF.search(f.path) for f in source.videos),
        "dfdc": any(f.name == METADATA or _DFDC_PART.search(f.path) for f in source.files),
    }
    found = [name for name, seen in marks.items() if seen]
    if len(found) > 1:
        raise UsageError(
            f"{source.path}: looks like {' and '.join(found)}; give the data sets inside it as "
            "sources of their own, or choose with --layout"
        )
    return found[0] if found else "plain"


def read_dfdc(source: Source, problems: list[Problem]) -> list[Draft]:
    """Read parts of DFDC: folders of videos with a metadata.json beside them.

    {"aa.mp4": {"label": "FAKE", "split": "train", "original": "bb.mp4"}, ...}
    """
    folders: dict[str, list[File]] = {}
    for file in source.files:
        folders.setdefault(file.folder, []).append(file)
    drafts: list[Draft] = []
    names = shortest_tails(_DFDC_PART.sub(r"dfdc_train_part_\1", f) for f in folders)
    for folder, files in folders.items():
        if all(f.name == TEST_LIST for f in files):
            continue
        part = names[_DFDC_PART.sub(r"dfdc_train_part_\1", folder)]
        drafts += _read_part(part, files, problems, source.limits)
    return drafts


def _read_part(
    part: str, files: list[File], problems: list[Problem], limits: ArchiveLimits
) -> Iterator[Draft]:
    labels = _read_labels(part, files, problems, limits)
    rows = labels.rows if labels else {}
    for file in files:
        if not is_video(file.name):
            continue
        draft = Draft(file, f"{part}/{file.name}", part, DFDC, key=_dfdc_key(file.name))
        row = rows.pop(file.name, None)
        if row is not None:
            _apply(row, draft, problems)
        elif labels:
            problems.append(Problem("file_without_label", draft.name, f"is not in its {METADATA}"))
        yield draft
    problems += [label_without_file(f"{part}/{name}", METADATA) for name in rows]


def _apply(row: dict[str, Any], draft: Draft, problems: list[Problem]) -> None:
    draft.label = check_label(row.get("label") or "", draft.name, problems)
    draft.split = row.get("split") or ""
    draft.split_is_default = draft.split == "train"  # all that was published is
    original = row.get("original") or ""
    if original and not is_good_name(original):
        problems.append(Problem("bad_name", draft.name, "its original has a name for no file"))
    elif original:
        draft.links = tuple(filter(None, [_dfdc_key(original)]))
        draft.original = f"{draft.part}/{original}" if draft.label == "FAKE" else ""


def _dfdc_key(name: str) -> str:
    return f"{DFDC}/{name}" if _DFDC_NAME.fullmatch(name) else ""


def _read_labels(
    part: str, files: list[File], problems: list[Problem], limits: ArchiveLimits
) -> _Labels | None:
    """Read the metadata of a part; None, and a problem, where there is none that can be read."""
    found = next((f for f in files if f.name == METADATA), None)
    if not found:
        what = f"has no {METADATA}; its videos have no labels"
        problems.append(Problem("no_metadata", part, what))
        return None
    try:
        name = f"{found.location} ({found.path})"
        labels = parse_metadata(read_small(found, limits), name, limits)
    except (DataError, StoreError) as error:
        problems.append(Problem("damaged_metadata", part, str(error)))
        return None
    for name in labels.twice:
        what = f"is in its {METADATA} twice; the last one counts"
        problems.append(Problem("duplicate_name", f"{part}/{name}", what))
    return labels


def parse_metadata(content: bytes, name: str, limits: ArchiveLimits = ARCHIVE_LIMITS) -> _Labels:
    """Parse a metadata.json, which may come from anywhere.

    Args:
        content: the bytes.
        name: for messages.
        limits: how deep it may be, and how many entries it may have.

    Raises:
        DataError: it is no JSON, not what DFDC's are, or asks for more than the limits allow.
    """
    labels = _Labels()

    def collect(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(pairs) > limits.metadata_entries:
            raise DataError(
                f"{name}: {len(pairs)} entries, more than the limit of {limits.metadata_entries}; "
                "see --max-metadata-entries"
            )
        found = dict(pairs)
        labels.twice.clear()  # the outermost object, the only one that counts, comes last
        if len(found) < len(pairs):
            labels.twice += [k for k, n in Counter(k for k, _ in pairs).items() if n > 1]
        return found

    try:
        rows = json.loads(content, object_pairs_hook=collect)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name}: is no readable JSON ({error}); fetch it again") from error
    if not isinstance(rows, dict):
        raise DataError(f"{name}: is not one JSON object of videos")
    if _is_deeper(rows, limits.metadata_depth):
        raise DataError(
            f"{name}: has objects and lists more than {limits.metadata_depth} deep; see "
            "--max-metadata-depth"
        )
    for key, row in rows.items():
        if not isinstance(row, dict) or not all(
            isinstance(row.get(field), str | None) for field in ("label", "split", "original")
        ):
            raise DataError(
                f"{name}: the entry {key[:100]!r} is not of the form "
                '{"label": "REAL" or "FAKE", "split": text, "original": text}'
            )
        if not (row.get("split") or "").isprintable():
            raise DataError(f"{name}: the entry {key[:100]!r} has a split that is no name")
    labels.rows = rows
    return labels


def _is_deeper(value: Any, limit: int) -> bool:
    """Tell whether JSON has more objects and lists within each other than the limit."""
    level = [value]
    for _ in range(limit):
        level = [
            item
            for outer in level
            for item in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return True


def read_faceforensics(source: Source, problems: list[Problem]) -> list[Draft]:
    """Read FaceForensics++ and DeepFakeDetection by their names.

    manipulated_sequences/Deepfakes/c23/videos/033_097.mp4 is the clip 033 with the face of 097;
    both recordings, whatever their compression, belong to its group.
    """
    drafts, found = _match_all(_FACEFORENSICS, source, problems)
    for file, root, match in found:
        kind, method, quality, stem = match.groups()
        name, part = root + match[0], f"{method}/{quality}"
        draft = Draft(file, name, part, FACEFORENSICS, "REAL")
        draft.key = f"{FACEFORENSICS}/{method}/{stem}"
        drafts.append(draft)
        acted = _DFD.match(stem)
        draft.person = f"{FACEFORENSICS} actor {acted[1]}" if acted else ""
        if kind == "original":
            continue
        draft.label, draft.method = "FAKE", method
        if acted and acted[2]:
            collection, made_from = "actors", [f"{acted[1]}__{acted[3]}"]
        elif re.fullmatch(r"\d+_\d+", stem):
            collection, made_from = "youtube", stem.split("_")
        else:
            problems.append(Problem("missing_original", name, "its name tells no original"))
            continue
        draft.links = tuple(f"{FACEFORENSICS}/{collection}/{stem}" for stem in made_from)
        folder = f"{root}original_sequences/{collection}/{quality}/videos"
        draft.original = f"{folder}/{made_from[0]}{PurePosixPath(file.name).suffix}"
    return drafts


def read_celebdf(source: Source, problems: list[Problem]) -> list[Draft]:
    """Read Celeb-DF, v1 or v2, by its names.

    Celeb-synthesis/id0_id1_0000.mp4 is the clip Celeb-real/id0_0000.mp4 with the face of id1.
    """
    drafts, found = _match_all(_CELEBDF, source, problems)
    for file, root, match in found:
        folder, stem = match.groups()
        draft = Draft(file, root + match[0], folder, CELEBDF, "REAL", key=f"{CELEBDF}/{stem}")
        drafts.append(draft)
        person, _, rest = stem.partition("_")
        if folder != "YouTube-real":
            draft.person = f"{CELEBDF} {person}"
        if folder != "Celeb-synthesis":
            continue
        draft.label, draft.method = "FAKE", folder
        if not re.fullmatch(r"id\d+_\d+", rest):
            what = "its name tells no original"
            problems.append(Problem("missing_original", draft.name, what))
            continue
        clip = f"{person}_{rest.partition('_')[2]}"
        draft.links = (f"{CELEBDF}/{clip}",)
        draft.original = f"{root}Celeb-real/{clip}{PurePosixPath(file.name).suffix}"
    _read_test_lists(source, drafts, problems)
    return drafts


def _match_all(
    pattern: re.Pattern[str], source: Source, problems: list[Problem]
) -> tuple[list[Draft], list[tuple[File, str, re.Match[str]]]]:
    """Return the videos that lie elsewhere, unlabelled, and those whose path fits.

    With those come the start of their name in the data set and the match. The start is empty but
    where the source holds several such data sets.
    """
    found, others = [], []
    for file in source.videos:
        if match := pattern.search(file.path):
            found.append((file, file.path[: match.start()].strip("/"), match))
        elif "/masks/videos/" not in file.path:  # FaceForensics++'s masks are videos too
            others.append(_plain_draft(source, file))
            what = "lies outside of the folders of the data set"
            problems.append(Problem("file_without_label", file.path, what))
    roots = shortest_tails(root for _, root, _ in found)
    if len(roots) == 1:
        return others, [(file, "", match) for file, _, match in found]
    return others, [(file, f"{roots[root]}/", match) for file, root, match in found]


def _read_test_lists(source: Source, drafts: list[Draft], problems: list[Problem]) -> None:
    """Set the split of the videos that are listed as the test set."""
    by_path = {draft.file.path: draft for draft in drafts}
    for file in source.files:
        if file.name != TEST_LIST:
            continue
        try:
            lines = read_small(file, source.limits).decode().splitlines()
        except (DataError, StoreError, UnicodeDecodeError) as error:
            problems.append(Problem("damaged_metadata", file.path, f"cannot be read ({error})"))
            continue
        for line in filter(str.strip, lines):
            label, _, path = line.strip().partition(" ")
            draft = by_path.get(f"{file.folder}/{path.strip()}")
            if not draft:
                problems.append(label_without_file(path or line, TEST_LIST))
                continue
            draft.split = "test"
            # Here 1 is real, the opposite of most other lists.
            if {"1": "REAL", "0": "FAKE"}.get(label) != draft.label:
                what = f"is {label[:20]!r} in {TEST_LIST} (1 = real), but lies in {draft.part}"
                problems.append(Problem("unknown_label", draft.name, what))


def read_plain(source: Source, _problems: list[Problem]) -> list[Draft]:
    """Read videos of which nothing is known."""
    return [_plain_draft(source, f) for f in source.videos]


def _plain_draft(source: Source, file: File) -> Draft:
    part = file.folder.partition("/")[2] or source.name
    return Draft(file, file.path.partition("/")[2], part, source.name)


def check_label(text: str, where: str, problems: list[Problem]) -> str:
    """Return a label as REAL or FAKE; empty, and a problem, where it is neither."""
    label = text.strip().upper()
    if label in ("REAL", "FAKE"):
        return label
    what = f"the label {text[:40]!r} is neither REAL nor FAKE" if text else "has no label"
    problems.append(Problem("unknown_label" if text else "file_without_label", where, what))
    return ""


def label_without_file(where: str, listed: str) -> Problem:
    """Return the problem that a list names a video that is not there."""
    return Problem("label_without_file", where, f"is named in {listed}, but there is no such file")
