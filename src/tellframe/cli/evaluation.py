"""Measuring models: `evaluate`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from tellframe.bundle import Bundle
    from tellframe.detector import Detector
    from tellframe.evaluate.report import Result, Run


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
    from tellframe.evaluate.metrics import load_sklearn
    from tellframe.evaluate.report import build_report, write_report
    from tellframe.report.drawing import load_matplotlib

    load_sklearn()  # to find out now, and not after hours of work, that it is missing
    if options.output:
        load_matplotlib()
        check_output("-o", options.output, folder=True)
    results = [load_result(options)]
    if options.scores and options.model:
        results[0] = _recalibrate(results[0], options.model)
    if options.against:
        results.append(_load_second(options))
    facts = write_report(results, options.output) if options.output else build_report(results)
    _print_figures(facts)
    if options.output:
        print(f"report: {options.output / 'index.html'}", file=sys.stderr)
    return status.DONE


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


def load_result(options: argparse.Namespace) -> Result:
    """Score labelled videos, or read the scores of an earlier report.

    Raises:
        UsageError: both were asked for, or neither.
    """
    if bool(options.source) == bool(options.scores):
        raise UsageError("give labelled videos, or --scores of an earlier report")
    if options.limit is not None and options.limit < 1:
        raise UsageError(f"--limit {options.limit}: give 1 or more")
    if options.scores:
        if options.stills:
            raise UsageError("--stills are scored with the videos; --scores are scored already")
        return _read_result(options.scores, options)
    return _score(options, load_detector(options, judge_only=True))


def _load_second(options: argparse.Namespace) -> Result:
    """Score the same videos with the model to compare with, or read its scores."""
    if options.against.endswith(".csv"):
        return _read_result(Path(options.against), options)
    if not options.source:
        raise UsageError("--against BUNDLE needs the videos; or give its scores")
    second = argparse.Namespace(**{**vars(options), "model": options.against})
    return _score(second, load_detector(second, judge_only=True))


def _read_result(path: Path, options: argparse.Namespace) -> Result:
    """Read scores, and of the report beside them what was measured."""
    from tellframe.evaluate.report import Result, Run, read_run
    from tellframe.evaluate.rows import read_scores
    from tellframe.evaluate.sources import EVERY, draw

    rows, model = read_scores(path)
    run = read_run(path) or Run(model=model or path.name, source=path.name)
    if options.split and options.split != EVERY:
        rows = [r for r in rows if r.split == options.split]
        run = dataclasses.replace(run, split=options.split)
    if not rows:
        raise UsageError(f"{path}: holds no video of the split {options.split!r}")
    return Result(run, tuple(draw(rows, options.limit)))


def _recalibrate(result: Result, model: str) -> Result:
    """Return scores as a bundle judges them whose calibration was changed since."""
    from tellframe.bundle import load_bundle
    from tellframe.evaluate.calibration import recalibrated
    from tellframe.evaluate.report import Result

    bundle = load_bundle(model)
    require_same_model(result.run, bundle)
    rows = recalibrated(result.rows, bundle.calibration, bundle.decision)
    run = dataclasses.replace(
        result.run,
        fake_from=bundle.decision.fake_from,
        real_to=bundle.decision.real_to,
        calibration=bundle.calibration.fitted_on,
    )
    return Result(run, tuple(rows))


def _score(options: argparse.Namespace, detector: Detector) -> Result:
    """Score labelled videos with progress on stderr."""
    from tellframe.evaluate.report import Result, Run
    from tellframe.evaluate.score import score_source, score_stills
    from tellframe.evaluate.sources import open_source

    source, split = open_source(
        options.source,
        options.split,
        limit=options.limit,
        manifest=options.manifest,
        endpoint=options.endpoint,
    )
    workers = num_workers(options)
    rows = score_source(source, detector, workers, archive_limits(options))
    scored = list(follow(rows, len(source.rows), options.quiet))
    if options.stills:
        scored += score_stills(detector, options.stills)
    bundle, info = detector.bundle, detector.model_info
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
    return Result(run, tuple(scored))


def name_model(bundle: Bundle) -> str:
    """Return a name that tells a bundle from others: of its graph, not of its calibration."""
    return f"{bundle.name} {bundle.version} {bundle.sha256[:12]}"


def require_same_model(run: Run, bundle: Bundle) -> None:
    """Raise unless scores are of a bundle's graph."""
    if run.model != name_model(bundle):
        raise UsageError(f"the scores are of {run.model}, not of {name_model(bundle)}")
