"""Sets of videos in which a model may do better or worse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

from tellframe.evaluate.rows import Row
from tellframe.evaluate.summary import Figures, summarise

BRIGHTNESS: Final = (0, 40, 60, 90, 120, 256)
"""Edges of mean luma, 0 to 255; many videos of DFDC lie below the first."""
FACE_SIZE: Final = (0, 48, 80, 128, 224, 1e9)
"""Edges in pixels: 48 is the smallest face that is judged, 224 the side of crops in training."""
MOST_FACES: Final = 4
"""Videos of this many people or more are one stratum."""


def find_strata(rows: Sequence[Row]) -> dict[str, list[dict[str, Any]]]:
    """Return the figures of every stratum of every kind that divides the videos at all.

    A method's stratum is its fakes with all reals of their source: a method has no reals.

    Args:
        rows: scored; single crops have a kind of their own.

    Returns:
        By kind of stratum, rows with a name and the figures of `summarise`.
    """
    videos = [r for r in rows if not r.still]
    crops = [r for r in rows if r.still]
    found = {
        "people": _divide(videos, _people),
        "brightness": _divide(videos, lambda r: _between(r.brightness, BRIGHTNESS)),
        "face_size": _divide(videos, lambda r: _between(r.face_size, FACE_SIZE)),
        "codec": _divide(videos, lambda r: (0.0, r.codec)),
        "source": _divide(videos, lambda r: (0.0, r.source)),
        "method": list(_methods(videos)),
        "part": _divide(videos, lambda r: (0.0, r.part)),
        "crops_brightness": _divide(crops, lambda r: _between(r.brightness, BRIGHTNESS)),
    }
    return {kind: strata for kind, strata in found.items() if strata}


Key = tuple[float, str]
"""Place among the strata, and name."""


def _divide(rows: Sequence[Row], key: Callable[[Row], Key]) -> list[dict[str, Any]]:
    """Return the figures of rows by key; nothing where all have the same, or none."""
    members: dict[Key, list[Row]] = {}
    for row in rows:
        if (place := key(row))[1]:
            members.setdefault(place, []).append(row)
    if len(members) < 2:
        return []
    return [_named(place[1], members[place]) for place in sorted(members)]


def _named(name: str, rows: Sequence[Row]) -> dict[str, Any]:
    figures: Figures = summarise(rows)
    return {"name": name, **figures}


def _people(row: Row) -> Key:
    if not row.people:
        return (0.0, "")
    if row.people >= MOST_FACES:
        return (MOST_FACES, f"{MOST_FACES} or more")
    return (row.people, str(row.people))


def _between(value: float | None, edges: Sequence[float]) -> Key:
    if value is None:
        return (0.0, "")
    low, high = next((a, b) for a, b in pairwise(edges) if a <= value < b)
    if high == edges[-1]:
        return (low, f"{low:g} and above")
    return (low, f"{low:g} to {high:g}" if low else f"below {high:g}")


def _methods(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Yield the figures of each method of each source that states one."""
    reals: dict[str, list[Row]] = {}
    fakes: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if not row.fake:
            reals.setdefault(row.source, []).append(row)
        elif row.method:
            fakes.setdefault((row.source, row.method), []).append(row)
    for (source, method), members in sorted(fakes.items()):
        yield _named(f"{method} ({source})", [*members, *reals.get(source, ())])
