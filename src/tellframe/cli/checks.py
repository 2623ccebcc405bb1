"""The installation and its speed: `models`, `doctor` and `bench`."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tellframe.cli import status
from tellframe.cli.options import add_model_options, add_verb, load_detector
from tellframe.errors import UsageError


def add_models(verbs: Any) -> None:
    """Add the verb."""
    add_verb(verbs, run_models, "models", "list the shipped models", "tellframe models")


def run_models(_options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    from tellframe.bundle import load_bundle, shipped_bundles

    for name in shipped_bundles():
        bundle = load_bundle(name)
        print(f"{name}  version {bundle.version}  recipe {bundle.recipe.digest}  {bundle.graph}")
    return status.DONE


def add_doctor(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_doctor,
        "doctor",
        "check the installation and re-check the model's scores",
        "tellframe doctor",
    )
    add_model_options(parser)


def run_doctor(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    import platform

    import av
    import numpy
    import onnxruntime

    from tellframe.runtime import usable_cores

    ffmpeg = str(av.ffmpeg_version_info)
    print(f"python {platform.python_version()}, numpy {numpy.__version__}, {usable_cores()} cores")
    print(f"onnxruntime {onnxruntime.__version__}, av {av.__version__}, FFmpeg {ffmpeg}")
    detector = load_detector(options)
    gap = detector.check_golden()
    bundle = detector.bundle
    print(f"model {bundle.name} {bundle.version}: graph unaltered, golden scores within {gap:.1e}")
    print(f"face detector {detector.face_detector.name}: loaded")
    print(f"calibration fitted on: {bundle.calibration.fitted_on}")
    return status.DONE


def add_bench(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_bench,
        "bench",
        "time detect and build beside a bare decode, train beside a bare loop",
        "tellframe bench detect video.mp4 --rounds 7",
    )
    parser.add_argument("what", choices=("detect", "build", "train"), help="what to time")
    parser.add_argument(
        "videos", nargs="*", type=Path, metavar="VIDEO|CONFIG.toml", help="train: its configuration"
    )
    parser.add_argument(
        "--portrait", type=Path, metavar="VIDEO", help="make a 10 s 1080p video with this face"
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N")
    parser.add_argument(
        "--copies", type=int, default=20, metavar="N", help="build: how often each video is taken"
    )
    add_model_options(parser)


def run_bench(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    if options.what == "train":
        return _run_bench_train(options)
    import tempfile

    from tellframe.bench import bench_build, bench_detect, make_video
    from tellframe.runtime import usable_cores

    if not options.videos and not options.portrait:
        raise UsageError("bench: give videos, or --portrait VIDEO to make one")
    detector = load_detector(options)
    with tempfile.TemporaryDirectory() as folder:
        videos = list(options.videos)
        if options.portrait:
            videos.append(Path(folder) / "1080p-h264-10s.mp4")
            make_video(options.portrait, videos[-1])
        if options.what == "build":
            results: Any = bench_build(
                videos * options.copies,
                detector.recipe,
                workers=options.threads or usable_cores(),
                rounds=options.rounds,
            )
        else:
            results = [bench_detect(detector, video, options.rounds) for video in videos]
    print(json.dumps(results, indent=2))
    return status.DONE


def _run_bench_train(options: argparse.Namespace) -> int:
    if len(options.videos) != 1:
        raise UsageError("bench train: give one training configuration")
    from tellframe.cli.training import need_train

    need_train("bench train")
    from tellframe.train.bench import bench_train
    from tellframe.train.config import load_config

    result = bench_train(load_config(options.videos[0]), rounds=options.rounds)
    print(json.dumps(result, indent=2))
    return status.DONE
