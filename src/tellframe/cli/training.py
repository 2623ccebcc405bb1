"""Making and measuring models: `train`, `export`, `calibrate` and `evaluate`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tellframe.cli import status
from tellframe.cli.options import add_model_options, add_verb, load_detector
from tellframe.errors import MissingExtraError, UsageError

if TYPE_CHECKING:
    from tellframe.detector import Detector
    from tellframe.evaluate import Row


def need_train(verb: str) -> None:
    """Raise unless the training extra is installed."""
    from importlib.util import find_spec

    needed = ("torch", "timm", "cv2", "onnx", "onnxscript", "safetensors", "sklearn")
    missing = [module for module in needed if not find_spec(module)]
    if missing:
        raise MissingExtraError(
            f"{verb} needs {', '.join(missing)}; install it with: pip install 'tellframe[train]'"
        )
    # A thread that spins at a barrier takes the core from those it waits for, as soon as anything
    # else runs on the machine. Must be set before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def add_train(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_train,
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


def run_train(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    need_train("train")
    from tellframe.train.config import load_config
    from tellframe.train.loop import train

    config = load_config(options.config, options.set)
    folder = options.output or Path("runs") / config.name
    train(config, folder, resume=options.resume, workers=options.workers)
    print(f"trained: {folder}; next: tellframe export {folder} -o BUNDLE")
    return status.DONE


def add_export(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_export,
        "export",
        "make a bundle from a training folder",
        "tellframe export runs/lite0 -o bundles/mine --bundle-version 1",
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the training folder")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="BUNDLE")
    parser.add_argument("--bundle-version", default="0.1.0", metavar="V")


def run_export(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    need_train("export")
    from tellframe.train.export import export

    gap = export(options.folder, options.output, version=options.bundle_version)
    print(f"{options.output}: logits differ from torch's by at most {gap:.1e}; not yet calibrated")
    return status.DONE


def _add_label_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("labels", type=Path, metavar="LABELS.csv")
    parser.add_argument("--split", default="dev", help="rows of this split; default: dev")
    parser.add_argument(
        "--stills", type=Path, metavar="ZIP", help="also a zip of face crops with a labels.csv"
    )
    add_model_options(parser)


def _score_labels(options: argparse.Namespace) -> tuple[Detector, list[Row]]:
    """Score the labelled videos with progress on stderr."""
    from tellframe.evaluate import read_labels, score_rows, score_stills

    detector = load_detector(options)
    rows = read_labels(options.labels, options.split)
    scored, begin = [], time.monotonic()
    for row in score_rows(detector, rows, options.labels.parent):
        scored.append(row)
        left = (time.monotonic() - begin) / len(scored) * (len(rows) - len(scored))
        print(f"\r{len(scored)}/{len(rows)} videos, {left:.0f} s left ", end="", file=sys.stderr)
    print(file=sys.stderr)
    if options.stills:
        scored += score_stills(detector, options.stills)
    return detector, scored


def add_calibrate(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_calibrate,
        "calibrate",
        "fit a bundle's calibration on half of the groups of labelled videos",
        "tellframe calibrate labels.csv --model bundles/mine",
    )
    _add_label_options(parser)


def run_calibrate(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    from tellframe.bundle import write_bundle
    from tellframe.evaluate import calibrate, recalibrated, tables

    if not options.model or not (Path(options.model) / "bundle.json").is_file():
        raise UsageError("calibrate changes the bundle: give its folder with --model")
    detector, rows = _score_labels(options)
    calibration = calibrate(rows, f"half of the groups of {options.labels.name} {options.split}")
    metrics = tables(recalibrated(rows, calibration))
    for figures in metrics.values():
        del figures["verdicts"]  # they were given before the calibration
    bundle = dataclasses.replace(detector.bundle, calibration=calibration, metrics=metrics)
    write_bundle(bundle, Path(options.model))
    print(f"slope {calibration.slope:.4f}, intercept {calibration.intercept:.4f}")
    return status.DONE


def add_evaluate(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_evaluate,
        "evaluate",
        "measure a model on labelled videos",
        "tellframe evaluate labels.csv -o report/",
    )
    _add_label_options(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="also write files here")


def run_evaluate(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    from tellframe.evaluate import markdown, tables

    detector, rows = _score_labels(options)
    figures = tables(rows)
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
    return status.DONE
