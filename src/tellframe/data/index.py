"""Index data sets where they lie: one row a video, checked, grouped and split; nothing unpacked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tellframe.data.layouts import (
    Draft,
    find_layout,
    read_celebdf,
    read_dfdc,
    read_faceforensics,
    read_plain,
)
from tellframe.data.manifest import Video, require_no_leak
from tellframe.data.sources import Problem, Source, checksum, list_source, shortest_tails
from tellframe.data.splits import Policy, Ties, assign_splits, name_groups
from tellframe.data.tables import read_csv
from tellframe.errors import DataError, StoreError, UsageError
from tellframe.limits import ARCHIVE_LIMITS, ArchiveLimits

LAYOUTS: Final[dict[str, Callable[[Source, list[Problem]], list[Draft]]]] = {
    "dfdc": read_dfdc,
    "csv": read_csv,
    "faceforensics": read_faceforensics,
    "celebdf": read_celebdf,
    "plain": read_plain,
}
CODES: Final = {
    "bad_name": "a name that leads out of the data set, or that no file should have; left out",
    "damaged_metadata": "a file of labels cannot be read; its videos have no labels",
    "duplicate_content": "two videos of the same size and CRC-32; they share a group",
    "duplicate_name": "a video is named twice; it has one row",
    "empty_file": "a video of no bytes; left out",
    "file_without_label": "a video that its data set does not label",
    "label_without_file": "a label for a video that is not there",
    "missing_original": "the original of a fake is not in the index, or not known",
    "no_metadata": "a part of DFDC without metadata.json; its videos have no labels",
    "original_label_mismatch": "the original of a fake is itself labelled FAKE",
    "person_without_file": "a person in a video that is not in the index",
    "unknown_label": "a label that is neither REAL nor FAKE, or contradicts another",
    "unreadable_member": "a video in a zip that is encrypted, or packed in a way we do not read",
    "unreadable_source": "a zip or file that cannot be read; left out",
}
"""Problems that an index can have, and what each means."""


@dataclass(frozen=True, slots=True)
class Index:
    """What was found."""

    videos: list[Video]
    """Sorted by name."""
    requests: int
    """To the stores."""
    bytes_read: int
    """From the stores."""


def index_sources(
    locations: Iterable[str],
    problems: list[Problem],
    *,
    layout: str = "",
    endpoint: str = "",
    people: Mapping[str, Sequence[str]] | None = None,
    by_person: bool = False,
    policy: Policy | None = None,
    limits: ArchiveLimits = ARCHIVE_LIMITS,
    say: Callable[[str], None] = lambda _line: None,
) -> Index:
    """Index data sets: folders, zips, CSVs, and prefixes of object stores.

    Videos are not opened. Of a zip, the directory and its metadata.json are read; a loose file is
    read as a whole only where another video has the same size, to compare their CRC-32.

    Args:
        locations: where they are.
        problems: grows by what is not as it should be; none of it stops the index.
        layout: one of `LAYOUTS`; empty to recognise it.
        endpoint: see `open_store`.
        people: who is in which video, by name in the data set or by name of the file, with or
            without suffix.
        by_person: whether videos of a person, where names tell who is filmed, share a group.
        policy: how videos come to their splits; default: as the sources say.
        limits: of zips and files of labels; one that asks for more is a problem of its own.
        say: called with a line for each source.

    Raises:
        DataError: a source does not exist or is no such thing, or no video was found.
        LeakError: a group would be on two sides of a split.
        MissingExtraError: obstore is not installed.
        StoreError: a source cannot be listed.
        UsageError: a source has the marks of several layouts, or there is no part to hold out.
    """
    policy = policy or Policy()
    sources, found = [], []
    for location in locations:
        source = list_source(location, endpoint, problems, limits)
        drafts = _read_source(source, location, layout, problems, say)
        sources.append(source)
        found.append(drafts)
    _tell_apart(sources, found)
    drafts = _drop_unusable([d for some in found for d in some], problems)
    if not drafts:
        why = f"; {problems[0].where}: {problems[0].what}" if problems else ""
        raise DataError(f"no video was found in {', '.join(s.path for s in sources)}{why}")
    _find_originals(drafts, problems)
    twins = _find_twins(drafts, problems, say)
    drafts.sort(key=lambda d: d.name)
    for draft in drafts:
        if policy.shares and draft.split_is_default:
            draft.split = ""
    groups = _find_groups(drafts, twins, people or {}, by_person, problems)
    videos = [_to_video(d, group) for d, group in zip(drafts, groups, strict=True)]
    videos = _split(videos, policy, say)
    stores = [s for source in sources for s in (source.store, *source.others.values())]
    return Index(videos, sum(s.requests for s in stores), sum(s.bytes_read for s in stores))


def _read_source(
    source: Source,
    location: str,
    layout: str,
    problems: list[Problem],
    say: Callable[[str], None],
) -> list[Draft]:
    before = len(problems)
    name = layout or find_layout(source)
    if (name == "csv") != bool(source.table):
        raise UsageError(f"{location}: cannot be read with --layout {layout}")
    drafts = LAYOUTS[name](source, problems)
    say(f"{location}: {name}, {len(drafts)} videos, {len(problems) - before} problems")
    return drafts


def _tell_apart(sources: Sequence[Source], found: Sequence[Sequence[Draft]]) -> None:
    """Put the end of a source's path before its names where it shares names with another."""
    owner: dict[str, str] = {}
    sharing: set[str] = set()
    for source, drafts in zip(sources, found, strict=True):
        for draft in drafts:
            first = owner.setdefault(draft.name, source.path)
            if first != source.path:
                sharing |= {first, source.path}
    tails = shortest_tails(s.path for s in sources)
    for source, drafts in zip(sources, found, strict=True):
        for draft in drafts if source.path in sharing else ():
            draft.name = f"{tails[source.path]}/{draft.name}"
            draft.original = draft.original and f"{tails[source.path]}/{draft.original}"


def _drop_unusable(drafts: list[Draft], problems: list[Problem]) -> list[Draft]:
    """Return the drafts without empty files, and every name and every file once."""
    names: set[str] = set()
    files: dict[tuple[str, str], str] = {}
    kept = []
    for draft in drafts:
        file = draft.file
        place = (file.location, file.member.name if file.member else "")
        if not file.bytes:
            problems.append(Problem("empty_file", draft.name, "has no bytes"))
        elif draft.name in names or place in files:
            what = f"is there again: {file.location} ({files.get(place, draft.name)} is kept)"
            problems.append(Problem("duplicate_name", draft.name, what))
        else:
            names.add(draft.name)
            files[place] = draft.name
            kept.append(draft)
    return kept


def _find_originals(drafts: Sequence[Draft], problems: list[Problem]) -> None:
    """Replace the expected names of originals by those that they have."""
    names = {d.name: d for d in drafts}
    keys: dict[str, Draft] = {}
    for draft in sorted((d for d in drafts if d.key), key=lambda d: d.name, reverse=True):
        keys[draft.key] = draft
    for draft in drafts:
        if not draft.original:
            continue
        original = names.get(draft.original) or keys.get(draft.links[0] if draft.links else "")
        if original is None:
            what = f"was made from {draft.original}, which is not in the index"
            problems.append(Problem("missing_original", draft.name, what))
            continue
        draft.original = original.name
        if original.label == "FAKE":
            what = f"was made from {original.name}, which is labelled FAKE"
            problems.append(Problem("original_label_mismatch", draft.name, what))


def _find_twins(
    drafts: list[Draft], problems: list[Problem], say: Callable[[str], None]
) -> list[tuple[str, str]]:
    """Return pairs of keys of videos with the same content; drops what cannot be read."""
    sizes = Counter(d.file.bytes for d in drafts)
    loose = [d for d in drafts if not d.file.member and sizes[d.file.bytes] > 1]
    if loose:
        say(f"comparing {len(loose)} loose files with others of the same size")
    unreadable = set()
    for draft in drafts:
        if draft.file.member or sizes[draft.file.bytes] > 1:
            try:
                draft.crc = checksum(draft.file)
            except StoreError as error:
                problems.append(Problem("unreadable_source", draft.name, str(error)))
                unreadable.add(draft.name)
    drafts[:] = [d for d in drafts if d.name not in unreadable]
    seen: dict[tuple[int, int], Draft] = {}
    twins = []
    for draft in sorted((d for d in drafts if d.crc is not None), key=lambda d: d.name):
        first = seen.setdefault((draft.file.bytes, draft.crc or 0), draft)
        if first is not draft:
            contrary = " with another label" if first.label != draft.label else ""
            what = f"is the same as {first.name}{contrary}"
            problems.append(Problem("duplicate_content", draft.name, what))
            twins.append((_key(first), _key(draft)))
    return twins


def _key(draft: Draft) -> str:
    return draft.key or draft.name


def _find_groups(
    drafts: Sequence[Draft],
    twins: Iterable[tuple[str, str]],
    people: Mapping[str, Sequence[str]],
    by_person: bool,
    problems: list[Problem],
) -> list[str]:
    """Return the group of every draft."""
    ties, met = [], set()
    for draft in drafts:
        file = draft.file.name
        names = {draft.name, file, file.rpartition(".")[0]}
        met |= names
        persons = {person for name in names for person in people.get(name, ())}
        if by_person and draft.person:
            persons.add(draft.person)
        links = draft.links or ((draft.original,) if draft.original else ())
        ties.append(Ties(_key(draft), links, draft.group, tuple(sorted(persons)), draft.pair))
    for video in sorted(set(people) - met):
        what = "is in the list of people, but not in the index"
        problems.append(Problem("person_without_file", video, what))
    return name_groups(ties, twins)


def _to_video(draft: Draft, group: str) -> Video:
    file, member = draft.file, draft.file.member
    return Video(
        video=draft.name,
        location=file.location,
        member=member.name if member else "",
        offset=member.offset if member else 0,
        extent=member.extent if member else 0,
        compression=member.compression if member else 0,
        encrypted=bool(member and member.encrypted),
        bytes=file.bytes,
        crc=draft.crc,
        label=draft.label,
        original=draft.original,
        group=group,
        split=draft.split,
        part=draft.part,
        source=draft.source,
        method=draft.method,
    )


def _split(videos: list[Video], policy: Policy, say: Callable[[str], None]) -> list[Video]:
    result = assign_splits(videos, policy)
    require_no_leak(result)
    held = {v.group for v in videos if v.part in policy.held_out}
    moved = sum(v.group in held and v.part not in policy.held_out for v in videos)
    if moved:
        say(f"{moved} videos of other parts are held out with their originals or fakes")
    given = sum(bool(v.split) for v in videos)
    if given and policy.shares and not policy.ignore_given:
        say(f"{given} videos have a split from their source; --ignore-splits would forget it")
    left = sum(not v.split for v in result)
    if left and policy.shares:
        say(
            f"{left} videos stay without a split: their source has put others of their group in one"
        )
    return result


def write_problems(problems: Sequence[Problem], path: str | Path) -> None:
    """Write all problems as JSON: their number by code, and a list."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "counts": dict(sorted(Counter(p.code for p in problems).items())),
        "problems": [{"code": p.code, "where": p.where, "what": p.what} for p in problems],
    }
    part = target.with_name(f".part-{target.name}")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(target)
