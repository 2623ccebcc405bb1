"""Competitions: `submit` and `score`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tellframe.cli import status
from tellframe.cli.evaluation import add_work_options, require_same_model
from tellframe.cli.messages import say_passed_over
from tellframe.cli.options import add_verb, archive_limits, follow, num_workers
from tellframe.cli.outputs import CSV, check_output, make_parent
from tellframe.errors import UsageError

if TYPE_CHECKING:
    from tellframe.bundle import Bundle
    from tellframe.data.manifest import Video

_FAILED = "not read"


def add_submit(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_submit,
        "submit",
        "write P(fake) of every video as Kaggle wants it: filename,label",
        "tellframe submit bundles/mine test_videos/ -o submission.csv",
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="shipped name, folder or hf://...")
    parser.add_argument(
        "videos",
        nargs="+",
        metavar="VIDEO",
        help="video files and folders, or one manifest (.parquet), or one scores.csv",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.csv")
    parser.add_argument(
        "--missing",
        type=float,
        default=0.5,
        metavar="P",
        help="label of videos without a face and of those that cannot be read; default: 0.5",
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of the model")
    add_work_options(parser)


def run_submit(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    from tellframe.bundle import load_bundle
    from tellframe.evaluate.submission import name_files, write_submission

    if options.threads < 0:
        raise UsageError(f"--threads {options.threads}: give 0 or more")
    if not 0 <= options.missing <= 1:
        raise UsageError(f"--missing {options.missing}: give a probability")
    check_output("-o", options.output, folder=False, kinds=CSV, inputs=options.videos)
    first = options.videos[0]
    if len(options.videos) == 1 and first.endswith(".csv"):
        found = _from_scores(Path(first), load_bundle(options.bundle))
        names = name_files(path for path, _, _ in found)
    else:
        videos = _list_videos(options.videos, options.endpoint)
        names = name_files(v.video for v in videos)  # before the work
        found = _judge(videos, options)
    answers = {
        name: options.missing if p is None else p
        for name, (_, p, _) in zip(names, found, strict=True)
    }
    make_parent(options.output)
    write_submission(answers, options.output)
    why = Counter(outcome for _, p, outcome in found if p is None)
    _say_missing(why, len(found), options.missing)
    print(f"{options.output}: {len(answers)} videos, {sum(why.values())} of them not scored")
    failed = why.total() - why["no_face"]
    if failed == len(found):
        return status.NONE_ANALYSED
    return status.SOME_FAILED if failed else status.DONE


def _say_missing(why: Counter[str], total: int, missing: float) -> None:
    if why:
        listed = ", ".join(f"{outcome} {count}" for outcome, count in sorted(why.items()))
        print(
            f"{why.total()} of {total} videos have no score ({listed}): label {missing:g}, by "
            "--missing",
            file=sys.stderr,
        )


def _list_videos(inputs: Sequence[str], endpoint: str) -> list[Video]:
    from tellframe.cli.sources import find_videos
    from tellframe.data.manifest import Video, read_manifest

    if any(name.endswith((".parquet", ".csv")) for name in inputs):
        if len(inputs) > 1:
            raise UsageError("give one manifest or one scores.csv, or files and folders")
        return read_manifest(inputs[0], endpoint)
    for name in inputs:
        if not Path(name).exists():
            raise UsageError(f"{name}: no such file or folder")
    paths = find_videos(inputs, say_passed_over)
    if empty := [path for path in paths if Path(path).is_dir()]:
        raise UsageError(f"{empty[0]}: no video in this folder")
    return [Video(path, path) for path in paths]


Answer = tuple[str, float | None, str]
"""Path, P(fake), and what became of the video."""


def _from_scores(path: Path, bundle: Bundle) -> list[Answer]:
    """Take the scores of an earlier report, with the bundle's calibration of today."""
    from tellframe.evaluate.report import Run
    from tellframe.evaluate.rows import read_scores

    rows, model = read_scores(path)
    require_same_model(Run(model=model, source=path.name), bundle)
    return [
        (
            row.path,
            None if row.logit is None else float(bundle.calibration.probability(row.logit)),
            row.outcome or _FAILED,
        )
        for row in rows
        if not row.still
    ]


def _judge(videos: Sequence[Video], options: argparse.Namespace) -> list[Answer]:
    from tellframe.detector import load
    from tellframe.evaluate.score import judge_videos

    if not videos:
        raise UsageError("no video was found")
    detector = load(options.bundle, threads=options.threads, keep_evidence=False, isolate=False)
    workers = num_workers(options)
    found = judge_videos(detector, videos, workers, options.endpoint, archive_limits(options))
    judged = follow(found, len(videos), options.quiet)
    return [
        (v.video, j.probability, j.outcome or _FAILED) for v, j in zip(videos, judged, strict=True)
    ]


def add_score(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_score,
        "score",
        "score a submission by its log loss",
        "tellframe score submission.csv metadata.json",
    )
    parser.add_argument("submission", type=Path, metavar="SUBMISSION.csv")
    parser.add_argument(
        "labels", type=Path, metavar="LABELS", help="metadata.json, manifest, or CSV with labels"
    )


def run_score(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    from tellframe.evaluate.metrics import load_sklearn
    from tellframe.evaluate.submission import read_submission, read_truth, score_submission

    load_sklearn()
    found = score_submission(read_submission(options.submission), read_truth(options.labels))
    print(f"videos: {found['n']} ({found['n_fake']} FAKE)")
    if found["unlabelled"]:
        print(f"without a label, not counted: {found['unlabelled']}")
    print(f"log loss: {found['log_loss']:.5f} (clipped at {found['clip']:g})")
    print(f"log loss, not clipped: {found['log_loss_unclipped']:.5f}")
    print(f"log loss of the best constant: {found['log_loss_prior']:.5f}")
    print(f"ROC-AUC: {found['auc']:.5f}")
    return status.DONE
