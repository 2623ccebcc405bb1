"""The command line: one thin function a verb."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tellframe.errors import MissingExtraError, TellframeError, UsageError
from tellframe.types import Label, Verdict

if TYPE_CHECKING:
    from tellframe.detector import Detector

DONE: Final = 0
USAGE: Final = 2
SOME_FAILED: Final = 3
NONE_ANALYSED: Final = 4
FAKE_FOUND: Final = 10
INTERRUPTED: Final = 130

STATUS_TEXT: Final = """exit status:
  0   done
  2   wrong usage, or the model could not be loaded
  3   some inputs could not be analysed
  4   no input could be analysed
  10  a fake was found (only with --fail-on fake)
"""


def run(arguments: Sequence[str]) -> int:
    """Run one command.

    Args:
        arguments: without the name of the program.

    Returns:
        The exit status.
    """
    options = build_parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except TellframeError as error:
        print(f"tellframe: error: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:
        # The reader (head, less) has seen enough; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        print("tellframe: interrupted", file=sys.stderr)
        return INTERRUPTED
    return status


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs."""
    from importlib.metadata import version

    parser = argparse.ArgumentParser(
        prog="tellframe",
        description="Says who in a video is a deepfake, when, and how sure we can be.",
        epilog="example: tellframe detect interview.mp4 --html report.html",
    )
    parser.add_argument("--version", action="version", version=version("tellframe"))
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_detect(verbs)
    _add_models(verbs)
    _add_doctor(verbs)
    _add_train(verbs)
    _add_export(verbs)
    _add_calibrate(verbs)
    _add_evaluate(verbs)
    _add_bench(verbs)
    return parser


def _verb(verbs: Any, name: str, help_text: str, example: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = verbs.add_parser(
        name,
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}.",
        epilog=f"example: {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=globals()[f"_run_{name}"])
    return parser


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", metavar="BUNDLE", help="shipped name, folder or hf://owner/repository"
    )
    parser.add_argument("--frames", type=int, metavar="N", help="frames sampled from a video")
    parser.add_argument("--face-detector", choices=("mtcnn", "yunet"), help="face detector")
    parser.add_argument(
        "--threads", type=int, default=0, metavar="N", help="threads; default: one a core"
    )


def _load(options: argparse.Namespace, *, keep_evidence: bool = False) -> Detector:
    from tellframe.detector import load

    if options.threads < 0:
        raise UsageError(f"--threads {options.threads}: give 0 or more")
    overrides = {"num_frames": options.frames, "face_detector": options.face_detector}
    return load(
        options.model,
        threads=options.threads,
        keep_evidence=keep_evidence,
        **{k: v for k, v in overrides.items() if v is not None},
    )


def _add_detect(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "detect",
        "judge videos: real, fake or inconclusive, for every person",
        f"tellframe detect a.mp4 b.mov folder/ --csv verdicts.csv\n\n{STATUS_TEXT}",
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="VIDEO", help="video file, or a folder of them"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print one JSON array")
    form.add_argument("--jsonl", action="store_true", help="print one JSON line a video, at once")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write a CSV, a row a person")
    parser.add_argument(
        "--html", metavar="FILE|DIR", help="also write a report: one page, or a folder of pages"
    )
    parser.add_argument(
        "--fail-on", choices=("fake",), help="exit with 10 when a fake was found", metavar="fake"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress on stderr")
    _add_model_options(parser)


def _run_detect(options: argparse.Namespace) -> int:
    from tellframe import report

    detector = _load(options, keep_evidence=bool(options.html))
    paths = find_videos(options.inputs)
    verdicts: list[Verdict] = []

    def follow() -> Iterator[Verdict]:
        """Pass the verdicts on, one by one; keep them without their pictures."""
        for verdict in _with_progress(detector.detect_many(paths), paths, options.quiet):
            if options.jsonl:
                report.write_jsonl(verdict, sys.stdout)
            people = tuple(dataclasses.replace(p, evidence=None) for p in verdict.people)
            verdicts.append(dataclasses.replace(verdict, people=people))
            yield verdict

    if options.html:
        page = report.write_html(follow(), options.html)
        print(f"report: {page}", file=sys.stderr)
    else:
        for _ in follow():
            pass
    if options.csv:
        report.write_csv(verdicts, options.csv)
    if options.json:
        report.write_json(verdicts, sys.stdout)
    elif not options.jsonl:
        color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
        sys.stdout.write(report.format_table(verdicts, color=color))
    return exit_status(verdicts, fail_on_fake=options.fail_on == "fake")


def find_videos(inputs: Iterable[str]) -> list[str]:
    """Expand folders to the videos below them, by suffix, sorted; keep other names as given.

    A folder without a video stays in the list, so that it is reported as one that failed.
    """
    from tellframe.video import VIDEO_SUFFIXES

    paths: list[str] = []
    for name in inputs:
        if Path(name).is_dir():
            found = sorted(
                str(p) for p in Path(name).rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES
            )
            paths += found or [name]
        else:
            paths.append(name)
    return paths


def _with_progress(
    verdicts: Iterable[Verdict], paths: Sequence[str], quiet: bool
) -> Iterator[Verdict]:
    """Pass verdicts on, writing a line for each to stderr."""
    from tellframe.report.words import printable

    for number, verdict in enumerate(verdicts, 1):
        if not quiet:
            print(
                f"[{number}/{len(paths)}] {printable(verdict.video)}: {verdict.label} "
                f"({verdict.seconds:.1f} s)",
                file=sys.stderr,
                flush=True,
            )
        yield verdict


def exit_status(verdicts: Sequence[Verdict], *, fail_on_fake: bool) -> int:
    """Return the exit status; a fake that was asked for goes before inputs that failed."""
    if fail_on_fake and any(v.label is Label.FAKE for v in verdicts):
        return FAKE_FOUND
    failed = sum(v.error is not None for v in verdicts)
    if failed == len(verdicts):
        return NONE_ANALYSED
    return SOME_FAILED if failed else DONE


def _add_models(verbs: Any) -> None:
    _verb(verbs, "models", "list the shipped models", "tellframe models")


def _run_models(_options: argparse.Namespace) -> int:
    from tellframe.bundle import load_bundle, shipped_bundles

    for name in shipped_bundles():
        bundle = load_bundle(name)
        print(f"{name}  version {bundle.version}  recipe {bundle.recipe.digest}  {bundle.graph}")
    return DONE


def _add_doctor(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "doctor",
        "check the installation and re-check the model's scores",
        "tellframe doctor",
    )
    _add_model_options(parser)


def _run_doctor(options: argparse.Namespace) -> int:
    import platform

    import av
    import numpy
    import onnxruntime

    from tellframe.runtime import usable_cores

    ffmpeg = str(av.ffmpeg_version_info)
    print(f"python {platform.python_version()}, numpy {numpy.__version__}, {usable_cores()} cores")
    print(f"onnxruntime {onnxruntime.__version__}, av {av.__version__}, FFmpeg {ffmpeg}")
    detector = _load(options)
    gap = detector.check_golden()
    bundle = detector.bundle
    print(f"model {bundle.name} {bundle.version}: graph unaltered, golden scores within {gap:.1e}")
    print(f"face detector {detector.face_detector.name}: loaded")
    print(f"calibration fitted on: {bundle.calibration.fitted_on}")
    return DONE


def _need_train(verb: str) -> None:
    """Raise unless the training extra is installed."""
    from importlib.util import find_spec

    missing = [m for m in ("torch", "timm", "cv2", "safetensors", "sklearn") if not find_spec(m)]
    if missing:
        raise MissingExtraError(
            f"{verb} needs {', '.join(missing)}; install it with: pip install 'tellframe[train]'"
        )
    # A thread that spins at a barrier takes the core from those it waits for, as soon as anything
    # else runs on the machine. Must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def _add_train(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "train",
        "train a model from a configuration",
        "tellframe train configs/frame_lite0.toml -o runs/lite0 --set optim.steps=200",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.toml")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: runs/NAME")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="such as optim.lr=1e-3"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that prepare batches"
    )


def _run_train(options: argparse.Namespace) -> int:
    _need_train("train")
    from tellframe.train.config import load_config
    from tellframe.train.loop import train

    config = load_config(options.config, options.set)
    folder = options.output or Path("runs") / config.name
    train(config, folder, resume=options.resume, workers=options.workers)
    print(f"trained: {folder}; next: tellframe export {folder} -o BUNDLE")
    return DONE


def _add_export(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "export",
        "make a bundle from a training folder",
        "tellframe export runs/lite0 -o bundles/mine --bundle-version 1",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the training folder")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE")
    parser.add_argument("--bundle-version", default="0.1.0", metavar="V")


def _run_export(options: argparse.Namespace) -> int:
    _need_train("export")
    from tellframe.train.export import export

    gap = export(options.folder, options.output, version=options.bundle_version)
    print(f"{options.output}: logits differ from torch's by at most {gap:.1e}; not yet calibrated")
    return DONE


def _add_label_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("labels", type=Path, metavar="LABELS.csv")
    parser.add_argument("--split", default="dev", help="rows of this split; default: dev")
    _add_model_options(parser)


def _score_labels(options: argparse.Namespace) -> tuple[Detector, list[Any]]:
    """Score the labelled videos with progress on stderr."""
    from tellframe.evaluate import read_labels, score_rows

    detector = _load(options)
    rows = read_labels(options.labels, options.split)
    scored, begin = [], time.monotonic()
    for row in score_rows(detector, rows, options.labels.parent):
        scored.append(row)
        left = (time.monotonic() - begin) / len(scored) * (len(rows) - len(scored))
        print(f"\r{len(scored)}/{len(rows)} videos, {left:.0f} s left ", end="", file=sys.stderr)
    print(file=sys.stderr)
    return detector, scored


def _add_calibrate(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "calibrate",
        "fit a bundle's calibration on half of the groups of labelled videos",
        "tellframe calibrate labels.csv --model bundles/mine",
    )
    _add_label_options(parser)


def _run_calibrate(options: argparse.Namespace) -> int:
    from tellframe.bundle import write_bundle
    from tellframe.evaluate import calibrate

    if not options.model or not (Path(options.model) / "bundle.json").is_file():
        raise UsageError("calibrate changes the bundle: give its folder with --model")
    detector, rows = _score_labels(options)
    calibration = calibrate(rows, f"half of the groups of {options.labels.name} {options.split}")
    write_bundle(dataclasses.replace(detector.bundle, calibration=calibration), Path(options.model))
    print(f"slope {calibration.slope:.4f}, intercept {calibration.intercept:.4f}")
    return DONE


def _add_evaluate(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "evaluate",
        "measure a model on labelled videos",
        "tellframe evaluate labels.csv -o report/",
    )
    _add_label_options(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="also write files here")
    parser.add_argument(
        "--stills", type=Path, metavar="ZIP", help="also measure a zip of face crops"
    )


def _run_evaluate(options: argparse.Namespace) -> int:
    from tellframe.evaluate import markdown, score_stills, summarise, tables

    detector, rows = _score_labels(options)
    figures = tables(rows)
    if options.stills:
        stills = list(score_stills(detector, options.stills))
        figures[stills[0].source] = summarise(stills)
    table = markdown(figures)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        result = {
            "model": dataclasses.asdict(detector.model_info),
            "figures": figures,
            "videos": [dataclasses.asdict(row) for row in rows],
        }
        text = json.dumps(result, indent=2) + "\n"
        (options.output / "report.json").write_text(text, encoding="utf-8")
        (options.output / "table.md").write_text(table, encoding="utf-8")
    sys.stdout.write(table)
    return DONE


def _add_bench(verbs: Any) -> None:
    parser = _verb(
        verbs,
        "bench",
        "time detect beside a bare decode of the same file",
        "tellframe bench detect video.mp4 --rounds 7",
    )
    parser.add_argument("what", choices=("detect",), help="what to time")
    parser.add_argument("videos", nargs="*", type=Path, metavar="VIDEO")
    parser.add_argument(
        "--portrait", type=Path, metavar="VIDEO", help="make a 10 s 1080p video with this face"
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    _add_model_options(parser)


def _run_bench(options: argparse.Namespace) -> int:
    import tempfile

    from tellframe.bench import bench_detect, make_video

    if not options.videos and not options.portrait:
        raise UsageError("bench: give videos, or --portrait VIDEO to make one")
    detector = _load(options)
    with tempfile.TemporaryDirectory() as folder:
        videos = list(options.videos)
        if options.portrait:
            videos.append(Path(folder) / "1080p-h264-10s.mp4")
            make_video(options.portrait, videos[-1])
        results = [bench_detect(detector, video, options.rounds) for video in videos]
    print(json.dumps(results, indent=2))
    return DONE
