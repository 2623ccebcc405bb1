"""Among several people of whom exactly one is swapped: is it that one who ranks first?

    python scripts/measure_people.py --out runs/people_report
    python scripts/measure_people.py --edited --out runs/edited_report

Clips are made by putting labelled videos side by side, a fake with one or two reals of other
scenes, or with --edited by showing six of them one after another, a shot each, and the portraits in
samples/ (see `make_samples.py`) with both; each goes through the whole pipeline and is deleted. Of
the labelled videos those of pairs are taken, of a real and its fakes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from measuring import (
    CLEAN,
    PRESET,
    ROOT,
    exact_interval,
    folder_of,
    follow,
    load_model,
    make_parser,
    name_model,
    open_labels,
    run_script,
    say,
    table,
    write_results,
)
from scenes import (
    DUO,
    DUO_EDGES,
    RATE,
    REAL_PORTRAIT,
    SWAPPED_PORTRAIT,
    Scene,
    make_clip,
    make_edit,
    make_scenes,
)
from tellframe.detector import Detector
from tellframe.errors import MediaError
from tellframe.types import Label, Moment, Verdict

SHOTS: Final = 6
"""Of an edited clip."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the pipeline made of one scene."""

    scene: Scene
    people: tuple[float | None, ...] = ()
    """P(fake) of the person in each place, None where nobody was found; empty where the clip could
    not be made or analysed."""
    extra: int = 0
    """People found beyond one a place."""
    label: Label = Label.INCONCLUSIVE
    """Of the video."""

    @property
    def all_found(self) -> bool:
        """Whether everybody was found."""
        return bool(self.people) and None not in self.people

    @property
    def first(self) -> bool:
        """Whether everybody was found and the swapped person has the highest P(fake), alone."""
        if not self.all_found:
            return False
        ranked = [p or 0.0 for p in self.people]
        swapped = ranked.pop(self.scene.swapped)
        return swapped > max(ranked)


def across(moment: Moment) -> float:
    """Return where a face is in the picture, in pixels from the left."""
    return (moment.box[0] + moment.box[2]) / 2


def when(moment: Moment) -> float:
    """Return when a face is seen, in seconds."""
    return moment.time


def find_people(
    verdict: Verdict, edges: Sequence[float], where: Callable[[Moment], float] = across
) -> tuple[tuple[float | None, ...], int]:
    """Say how fake the person in each place is taken to be.

    Args:
        verdict: of the clip.
        edges: the end of each place.
        where: what of a moment tells the place.

    Returns:
        P(fake), the highest where several people were found in one place, None where nobody was;
        and how many people were found beyond one a place.
    """
    found: list[list[float]] = [[] for _ in edges]
    for person in verdict.people:
        if person.probability is not None:
            centre = np.median([where(moment) for moment in person.moments])
            place = min(int(np.searchsorted(edges, centre, side="right")), len(edges) - 1)
            found[place].append(person.probability)
    extra = sum(max(len(some) - 1, 0) for some in found)
    return tuple(max(some, default=None) for some in found), extra


def judge_scene(
    scene: Scene, places: Mapping[str, Path], detector: Detector, edited: bool = False
) -> Result:
    """Make a clip, judge it and delete it."""
    make, where = (make_edit, when) if edited else (make_clip, across)
    with tempfile.TemporaryDirectory(prefix="tellframe-") as folder:
        target, edges = Path(folder) / "people.mp4", DUO_EDGES
        try:
            if scene.parts:
                edges = make([places[part.path] for part in scene.parts], target)
            verdict = detector.detect(target if scene.parts else DUO)
        except MediaError as error:
            say(str(error))
            return Result(scene)
    return Result(scene, *find_people(verdict, edges, where), verdict.label)


def count_results(results: Sequence[Result]) -> dict[str, int]:
    """Count what became of clips; nothing is left out.

    Returns:
        clips; failed (could not be made or analysed); swapped_missing and other_missing (somebody
        was not found, the swapped person or else another); all_found; first (of those); FAKE, the
        videos that are called so; and extra people found.
    """
    analysed = [r for r in results if r.people]
    lost = sum(r.people[r.scene.swapped] is None for r in analysed)
    found = sum(r.all_found for r in results)
    return {
        "clips": len(results),
        "failed": len(results) - len(analysed),
        "swapped_missing": lost,
        "other_missing": len(analysed) - lost - found,
        "all_found": found,
        "first": sum(r.first for r in results),
        "FAKE": sum(r.label is Label.FAKE for r in results),
        "extra": sum(r.extra for r in results),
    }


def share(successes: int, trials: int) -> str:
    """Return a count of a count as a share with its exact interval.

    >>> share(10, 10), share(0, 0)
    ('10 of 10: 1.00 (0.69-1.00)', '-')
    """
    if not trials:
        return "-"
    low, high = exact_interval(successes, trials)
    return f"{successes} of {trials}: {successes / trials:.2f} ({low:.2f}-{high:.2f})"


def group_results(results: Sequence[Result]) -> dict[tuple[str, str], list[Result]]:
    """Return the results by kind and number of people, and those of all clips by the latter."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.scene.kind, str(result.scene.count)), []).append(result)
    counts = sorted({r.scene.count for r in results})
    for count in counts:
        groups["all clips", str(count)] = [r for r in results if r.scene.count == count]
    return groups | {("all clips", " or ".join(map(str, counts))): list(results)}


def make_table(results: Sequence[Result]) -> str:
    """Return the Markdown: one row a kind and number of people."""
    rows = []
    for (kind, people), some in group_results(results).items():
        c = count_results(some)
        ranks = [share(c["first"], c["all_found"]), share(c["first"], c["clips"])]
        lost = [str(c[n]) for n in ("swapped_missing", "other_missing", "failed")]
        rows.append([kind, people, *ranks, *lost, f"{c['FAKE']} of {c['clips']}", str(c["extra"])])
    heads = ["fake from", "people", "swapped one first, where all are found"]
    heads += ["the same, of all clips", "swapped one not found", "another not found"]
    heads += ["not analysed", "video called FAKE", "people beyond those"]
    return table(heads, rows) + "\n" + NOTE


NOTE: Final = (
    "In brackets: exact 95 % intervals of a binomial share, which take clips for independent. They "
    "are not quite: fakes of one scene share its real video, and all clips of the swapped portrait "
    "share that one; the intervals are too narrow for that. In the second share a clip in which "
    "somebody was not found counts as a failure. The portraits are stills under a moving camera.\n"
)


def main() -> None:
    parser = make_parser(__doc__ or "", "runs/people_report")
    parser.add_argument(
        "--edited", action="store_true", help=f"{SHOTS} people in turn, and not side by side"
    )
    options = parser.parse_args()
    source = open_labels(options)
    if source is None:
        return
    detector = load_model(options)
    videos = zip(source.rows, source.videos, strict=True)
    places = {row.path: Path(video.location) for row, video in videos}
    places |= {row.path: ROOT / row.path for row in (REAL_PORTRAIT, SWAPPED_PORTRAIT)}
    scenes = make_scenes(source.rows, (SHOTS,) if options.edited else (2, 3))
    judged = (judge_scene(scene, places, detector, options.edited) for scene in scenes)
    results = list(follow(judged, len(scenes), "clips"))
    model = name_model(detector)
    facts: dict[str, Any] = {
        "model": model,
        "labels": options.labels.name,
        "split": options.split,
        "edited": options.edited,
        "encoder": f"libx264, CRF {CLEAN}, preset {PRESET}, {RATE} pictures a second",
        "counts": {" / ".join(k): count_results(r) for k, r in group_results(results).items()},
        "clips": [
            {
                "kind": r.scene.kind,
                "parts": [part.path for part in r.scene.parts],
                "swapped": r.scene.swapped,
                "probabilities": r.people,
                "extra": r.extra,
                "label": r.label,
            }
            for r in results
        ],
    }
    write_results(folder_of(options, model), make_table(results), facts)


if __name__ == "__main__":
    run_script(main)
