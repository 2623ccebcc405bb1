"""Measuring models: `evaluate`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tellframe.cli import status
from tellframe.cli.options import (
    add_archive_options,
    add_model_options,
    add_verb,
    archive_limits,
    follow,
    load_detector,
    num_workers,
)
from tellframe.cli.outputs import check_output
from tellframe.errors import UsageError
from tellframe.limits import ArchiveLimits

if TYPE_CHECKING:
    from tellframe.bundle import Bundle
    from tellframe.evaluate.report import Run
    from tellframe.evaluate.rows import Row


def add_evaluate(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_evaluate,
        "evaluate",
        "measure a model on labelled videos, or two models side by side",
        "tellframe evaluate manifest.parquet --split test --model bundles/mine -o report/\n"
        "         tellframe evaluate --scores a/scores.csv --against b/scores.csv -o report/",
    )
    add_source_options(parser)
    parser.add_argument(
        "--against",
        metavar="BUNDLE|SCORES.csv",
        help="a second model, or its scores on the same videos",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="also write a report here")


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which labelled videos are scored, and by what."""
    parser.add_argument(
        "source",
        nargs="?",
        metavar="SOURCE",
        help="manifest (.parquet), built data set (folder or s3://...), or CSV of labelled videos",
    )
    parser.add_argument(
        "--scores", type=Path, metavar="SCORES.csv", help="of an earlier report, in place of SOURCE"
    )
    parser.add_argument(
        "--split", metavar="NAME", help="videos of this split, or all; default: the only one, dev"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="at most so many videos, the same ones every time"
    )
    parser.add_argument(
        "--stills", type=Path, metavar="ZIP", help="also a zip of face crops with a labels.csv"
    )
    parser.add_argument(
        "--manifest",
        default="",
        metavar="FILE.parquet",
        help="of a built data set: labels of the videos in which no face was found",
    )
    add_work_options(parser)
    add_model_options(parser)


def add_work_options(parser: argparse.ArgumentParser) -> None:
    """Add the options on how videos are fetched and decoded."""
    parser.add_argument(
        "--workers",
        type=int,
        default=0,
        metavar="N",
        help="processes; 0, the default, for one a core",
    )
    parser.add_argument("--endpoint", default="", metavar="URL", help="of S3 outside of Amazon")
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    add_archive_options(parser)


def run_evaluate(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    from tellframe.evaluate.compare import require_common
    from tellframe.evaluate.metrics import load_sklearn
    from tellframe.evaluate.report import Result, build_report, write_report
    from tellframe.report.drawing import load_matplotlib

    load_sklearn()  # to find out now, and not after hours of work, that it is missing
    if options.output:
        load_matplotlib()
        _check_report(options)
    tasks = [open_task(options)]
    if options.scores and options.model:
        tasks[0] = _recalibrate(tasks[0], options.model)
    if options.against:
        tasks.append(_open_second(options))
        require_common(*(task.rows for task in tasks))
    results = [Result(task.run, tuple(task.score())) for task in tasks]
    facts = write_report(results, options.output) if options.output else build_report(results)
    _print_figures(facts)
    if options.output:
        print(f"report: {options.output / 'index.html'}", file=sys.stderr)
    return say_failed(r.rows for r, task in zip(results, tasks, strict=True) if task.reads)


def _check_report(options: argparse.Namespace) -> None:
    """Refuse a folder that a report cannot be written to, or where it would replace an input.

    Raises:
        UsageError: it is such.
    """
    from tellframe.evaluate.report import FILES

    check_output("-o", options.output, folder=True)
    given = (options.source, options.scores, options.against, options.manifest, options.stills)
    inputs = [name for name in given if name]
    for name in FILES:
        check_output("-o", options.output / name, folder=False, inputs=inputs)


def _print_figures(facts: Mapping[str, Any]) -> None:
    """Print the table of each model, and of two how they differ."""
    from tellframe.evaluate.summary import markdown
    from tellframe.evaluate.words import say_comparison
    from tellframe.report.words import printable

    results = facts["results"]
    if len(results) == 1:
        sys.stdout.write(markdown(results[0]["sets"]))
        return
    for legend, result in zip(("First", "Second"), results, strict=True):
        print(f"## {legend} model: {printable(result['run']['model'])}\n")
        print(markdown(result["sets"]))
    for place, (name, found) in enumerate(facts["comparison"].items()):
        print("\n" * (place > 0) + f"## First against second model, {name}\n")
        for figure, d in found["figures"].items() if found else ():
            print(f"{figure}: {d['first']} - {d['second']} = {d['difference']}, p = {d['p']}")
        print(say_comparison(name, found))


@dataclass(frozen=True, slots=True)
class Task:
    """What is measured, all of it opened: what is missing is found before the work."""

    run: Run
    rows: Sequence[Row]
    """What is scored: names and labels, and where it is scored already, all of it."""
    score: Callable[[], Sequence[Row]]
    """Does the work; returns the scored rows."""
    reads: bool
    """Whether that reads videos or their clips; else they are scored already."""


def open_task(options: argparse.Namespace) -> Task:
    """Open labelled videos, or the scores of an earlier report.

    Raises:
        UsageError: both were asked for, or neither, or what has no part in what was asked for.
        TellframeError: something of it is missing, or is not what it should be.
    """
    if bool(options.source) == bool(options.scores):
        raise UsageError("give labelled videos, or --scores of an earlier report")
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit {options.limit}: give 1 or more")
    if not options.scores:
        return _open_videos(options)
    if idle := [name for name, default in _OF_VIDEOS.items() if getattr(options, name) != default]:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise UsageError(f"{names}: for videos; --scores are scored already, and nothing is read")
    return _open_scores(options.scores, options)


_OF_VIDEOS: Final = {
    **{"stills": None, "manifest": "", "frames": None, "face_detector": None},
    **{"endpoint": "", "workers": 0, "threads": 0},
    **{f"max_{name}": getattr(ArchiveLimits(), name) for name in ("zip_ratio", "zip_bytes")},
}
"""Options that say how videos are scored, and their defaults."""


def _open_second(options: argparse.Namespace) -> Task:
    """Open the same videos for the model to compare with, or its scores."""
    if options.against.endswith(".csv"):
        return _open_scores(Path(options.against), options)
    if not options.source:
        raise UsageError("--against BUNDLE needs the videos; or give its scores")
    return _open_videos(argparse.Namespace(**{**vars(options), "model": options.against}))


def _open_scores(path: Path, options: argparse.Namespace) -> Task:
    """Read scores, and of the report beside them what was measured."""
    from tellframe.evaluate.report import Run, read_run
    from tellframe.evaluate.rows import read_scores
    from tellframe.evaluate.sources import EVERY, draw

    rows, model = read_scores(path)
    run = read_run(path) or Run(model=model or path.name, source=path.name)
    if options.split and options.split != EVERY:
        rows = [r for r in rows if r.split == options.split]
        run = dataclasses.replace(run, split=options.split)
    if not rows:
        raise UsageError(f"{path}: holds no video of the split {options.split!r}")
    taken = draw(rows, options.limit)
    return Task(run, taken, lambda: taken, reads=False)


def _recalibrate(task: Task, model: str) -> Task:
    """Return scores as a bundle judges them whose calibration was changed since."""
    from tellframe.bundle import load_bundle
    from tellframe.evaluate.calibration import recalibrated

    bundle = load_bundle(model)
    require_same_model(task.run, bundle)
    run = dataclasses.replace(
        task.run,
        fake_from=bundle.decision.fake_from,
        real_to=bundle.decision.real_to,
        calibration=bundle.calibration.fitted_on,
    )
    return dataclasses.replace(
        task,
        run=run,
        score=lambda: recalibrated(task.score(), bundle.calibration, bundle.decision),
    )


def _open_videos(options: argparse.Namespace) -> Task:
    """Open labelled videos; they are scored with progress on stderr."""
    from tellframe.evaluate.report import Run
    from tellframe.evaluate.score import (
        label_still,
        require_same_recipe,
        score_source,
        score_stills,
    )
    from tellframe.evaluate.sources import list_stills, open_source

    workers, archives = num_workers(options), archive_limits(options)
    source, split = open_source(
        options.source,
        options.split,
        limit=options.limit,
        manifest=options.manifest,
        endpoint=options.endpoint,
    )
    stills = list_stills(options.stills) if options.stills else ()
    rows = (*source.rows, *(label_still(still, options.stills) for still in stills))
    detector = load_detector(options, judge_only=True)
    require_same_recipe(source, detector)
    bundle, info = detector.bundle, detector.model_info

    def score() -> Iterator[Row]:
        yield from score_source(source, detector, workers, archives)
        if options.stills:
            yield from score_stills(detector, options.stills)

    run = Run(
        model=name_model(bundle),
        source=Path(options.source.rstrip("/")).name,
        split=split,
        unlabelled=source.unlabelled,
        recipe_digest=info.recipe_digest,
        fake_from=bundle.decision.fake_from,
        real_to=bundle.decision.real_to,
        calibration=bundle.calibration.fitted_on,
    )
    return Task(run, rows, lambda: list(follow(score(), len(rows), options.quiet)), reads=True)


def say_failed(scored: Iterable[Sequence[Row]]) -> int:
    """Say on stderr which videos and crops could not be analysed; return the exit status.

    Args:
        scored: the rows of every model; they have mostly failed alike, which is said once.
    """
    from tellframe.data.cut import Outcome
    from tellframe.data.eda_cards import OUTCOME_TEXT
    from tellframe.report.words import printable

    found, said = status.DONE, set[str]()
    for rows in scored:
        failed = [r for r in rows if r.outcome not in (Outcome.OK, Outcome.NO_FACE)]
        if not failed:
            continue
        found = max(found, status.NONE_ANALYSED if len(failed) == len(rows) else status.SOME_FAILED)
        listed = [
            f"{printable(r.path)} ({OUTCOME_TEXT[Outcome(r.outcome)]})" for r in failed[:_SHOWN]
        ]
        more = f" and {len(failed) - _SHOWN:,} more" if len(failed) > _SHOWN else ""
        said.add(f"{len(failed):,} of {len(rows):,} not analysed: {', '.join(listed)}{more}")
    for line in sorted(said):
        print(line, file=sys.stderr)
    return found


_SHOWN: Final = 5
"""Names that a message lists; scores.csv has all."""


def name_model(bundle: Bundle) -> str:
    """Return a name that tells a bundle from others: of its graph, not of its calibration."""
    return f"{bundle.name} {bundle.version} {bundle.sha256[:12]}"


def require_same_model(run: Run, bundle: Bundle) -> None:
    """Raise unless scores are of a bundle's graph."""
    if run.model != name_model(bundle):
        raise UsageError(f"the scores are of {run.model}, not of {name_model(bundle)}")
