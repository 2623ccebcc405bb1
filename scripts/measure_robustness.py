"""How a model fares when videos are compressed, shrunk, blurred, darkened and so on.

    python scripts/measure_robustness.py --out runs/robustness

Every labelled video is made anew under one condition at a time, judged, and deleted, in a folder
outside of the repository. The scores of a condition are kept in a folder that names the model, its
SHA-256 and its settings: what is there is not done again, so that the script can be stopped and
started again. `conditions.py` says what the conditions are.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import av

from conditions import CONDITIONS, Condition, make_video
from measuring import (
    PRESET,
    ROOT,
    Figures,
    cell,
    compare_auc,
    figures_of,
    folder_of,
    follow,
    keep_rows,
    load_model,
    make_parser,
    name_model,
    open_labels,
    parts_of,
    run_script,
    say,
    slug,
    table,
    write_results,
)
from tellframe.data.manifest import Video
from tellframe.detector import Detector
from tellframe.errors import DataError, MediaError, UsageError
from tellframe.evaluate import score_source
from tellframe.evaluate.rows import Row
from tellframe.evaluate.sources import COLUMNS, Videos, open_source
from tellframe.types import Label

ORIGINAL: Final = "as they are"


def make_all(source: Videos, folder: Path, condition: Condition, workers: int) -> Videos:
    """Make all videos anew, under the names that they have.

    A video that cannot be made is said, and is missing; it counts against the coverage.

    Args:
        source: the labelled videos.
        folder: to write to, with a labels.csv.
        condition: how.
        workers: threads, each with a video of its own.

    Returns:
        The same labels, of the new videos.

    Raises:
        DataError: the name of a video leads out of the folder.
    """

    def make(row: Row, video: Video) -> None:
        target = folder / row.path
        if not target.resolve().is_relative_to(folder.resolve()):
            raise DataError(f"{row.path}: leads out of the folder; give relative paths")
        try:
            make_video(video.location, target, condition)
        except MediaError as error:
            say(f"{condition.name}: {error}")
            target.unlink(missing_ok=True)  # or what was made until then would be judged

    with ThreadPoolExecutor(workers) as pool:
        made = pool.map(make, source.rows, source.videos)
        try:
            for _ in follow(made, len(source.rows), f"{condition.name}, made"):
                pass
        finally:
            pool.shutdown(cancel_futures=True)
    write_labels(source.rows, folder / "labels.csv")
    found, _ = open_source(str(folder / "labels.csv"), "all")
    assert isinstance(found, Videos)
    return found


def write_labels(rows: Iterable[Row], path: Path) -> None:
    """Write labelled videos as `tellframe.evaluate.read_labels` reads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for r in rows:
            label = "FAKE" if r.fake else "REAL"
            writer.writerow([r.path, label, r.source, r.method, r.group, r.pair, r.split])


def measure_condition(
    source: Videos, detector: Detector, condition: Condition | None, options: argparse.Namespace
) -> list[Row]:
    """Return the scored rows of one condition, from the folder where they are there already.

    Args:
        source: the labelled videos.
        detector: the model.
        condition: how they are made anew; None judges them as they are.
        options: out, work and workers.
    """
    model = name_model(detector)
    name = f"{condition.name}-{condition.digest}" if condition else ORIGINAL
    path = folder_of(options, model) / f"{slug(name)}.csv"

    def score() -> Iterator[Row]:
        if condition is None:
            yield from judge(source, detector, options.workers, name)
            return
        with tempfile.TemporaryDirectory(prefix="tellframe-", dir=options.work) as folder:
            made = make_all(source, Path(folder), condition, options.workers)
            yield from judge(made, detector, options.workers, condition.name)

    return keep_rows(path, source.rows, model, score)


def judge(source: Videos, detector: Detector, workers: int, what: str) -> Iterator[Row]:
    """Judge labelled videos with progress on stderr."""
    rows = score_source(source, detector, workers)
    yield from follow(rows, len(source.rows), f"{what}, judged")


Measured = dict[str, dict[str, Figures]]
"""By condition, and by part: see `parts_of`."""


def summarise_all(scored: Mapping[str, Sequence[Row]]) -> Measured:
    """Return the figures of all conditions.

    Args:
        scored: rows by condition, `ORIGINAL` among them.

    Returns:
        What `summarise` says; under "change" how the AUC differs from that of the same videos as
        they are, where both have a score (paired bootstrap over groups); None where none has.
    """
    before = parts_of(scored[ORIGINAL])
    measured = {name: figures_of(rows) for name, rows in scored.items()}
    for name, rows in scored.items():
        for part, after in parts_of(rows).items():
            measured[name][part]["change"] = compare_auc(after, before[part])
    return measured


def largest_drop(measured: Measured, part: str) -> tuple[str, Figures] | None:
    """Return the condition under which the AUC of a part falls most, and its "change".

    Returns:
        None where no AUC fell.
    """
    changes = {name: figures[part]["change"] for name, figures in measured.items()}
    falls = {n: c for n, c in changes.items() if c and (c["difference"] or 0) < 0}
    name = min(falls, key=lambda n: float(falls[n]["difference"]), default=None)
    return None if name is None else (name, falls[name])


def make_tables(measured: Measured, what: Mapping[str, str]) -> str:
    """Return the Markdown: AUCs by condition, the largest drops, and the verdicts by condition.

    Args:
        measured: from `summarise_all`.
        what: each condition in plain words.
    """
    parts = list(measured[ORIGINAL])
    aucs, verdicts = [], []
    for name, figures in measured.items():
        every = figures[parts[-1]]
        shown = f"{name}: {what[name]}" if name in what else name
        change = every["change"] or {}
        aucs.append(
            [
                shown,
                f"{every['n_scored']} of {every['n']}",
                *(cell(figures[part]["auc"], figures[part]["auc_95"]) for part in parts),
                "-"
                if name == ORIGINAL
                else cell(change.get("difference"), change.get("difference_95"), sign="+"),
                cell(every["pair_ranking"], every["pair_ranking_95"]),
            ]
        )
        verdicts.append([shown, *say_verdicts(every)])
    heads = ["condition", "scored", *(f"AUC, {part}" for part in parts), "change of the last"]
    auc_table = table([*heads, "fake above its own real"], aucs)
    kinds = [f"{kind} called {label}" for kind in ("real", "fake") for label in Label]
    drops = "".join(_say_drop(measured, part) for part in parts)
    return f"{auc_table}\n{drops}\n{table(['condition', *kinds], verdicts)}\n{NOTE}"


def say_verdicts(figures: Figures) -> list[str]:
    """Return the shares of REAL, FAKE and INCONCLUSIVE, of real and then of fake videos."""
    totals = {"real": figures["n"] - figures["n_fake"], "fake": figures["n_fake"]}
    shown = []
    for kind, total in totals.items():
        for label in Label:
            count = figures["verdicts"][f"{kind}_{label}"]
            shown.append(f"{count} of {total}: {count / total:.0%}" if total else "-")
    return shown


NOTE: Final = (
    "In brackets: 95 % intervals, bootstrapped over groups; none where all are of one group. "
    "AUC and pairs are of the videos that have a score, those of faces too small for a verdict "
    "among them; the change is that of the same videos as they are, both scored, and its interval "
    "is paired. Where all resamples agree, an interval has no width, which is no certainty.\n"
)


def _say_drop(measured: Measured, part: str) -> str:
    found = largest_drop(measured, part)
    if found is None:
        return f"- {part}: no condition lowers the AUC.\n"
    name, change = found
    p = "" if change["p"] is None else f", p = {change['p']:.3f} before allowing for many looks"
    difference = cell(change["difference"], change["difference_95"], sign="+")
    return f"- {part}: largest drop of the AUC {name}: {difference} on {change['n']} videos{p}.\n"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line.

    Raises:
        UsageError: --work lies in the repository.
    """
    parser = make_parser(__doc__ or "", "runs/robustness")
    parser.add_argument(
        "--work", type=Path, metavar="DIR", help="for the videos, outside of the repository"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[c.name for c in CONDITIONS])
    options = parser.parse_args(arguments)
    if options.work:
        # The videos may not be passed on: none of them may be committed by mistake.
        if options.work.resolve().is_relative_to(ROOT):
            raise UsageError(f"{options.work}: lies in the repository; give another --work")
        options.work.mkdir(parents=True, exist_ok=True)
    return options


def main() -> None:
    options = parse()
    source = open_labels(options)
    if source is None:
        return
    detector = load_model(options)
    chosen = [c for c in CONDITIONS if not options.only or c.name in options.only]
    scored = {ORIGINAL: measure_condition(source, detector, None, options)}
    for condition in chosen:
        scored[condition.name] = measure_condition(source, detector, condition, options)
    measured = summarise_all(scored)
    what = {c.name: c.what for c in chosen}
    model = name_model(detector)
    facts = {
        "model": model,
        "labels": options.labels.name,
        "split": options.split,
        "encoder": f"libx264 by PyAV {av.__version__}, preset {PRESET}",
        "conditions": what,
        "figures": measured,
        "largest_drop": {part: largest_drop(measured, part) for part in measured[ORIGINAL]},
    }
    write_results(folder_of(options, model), make_tables(measured, what), facts)


if __name__ == "__main__":
    run_script(main)
