"""Judging videos, one or many, beside a bare decode of the same files."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import av
import numpy as np
import onnxruntime

from tellframe.bench import (
    Timing,
    bare_decode,
    decode_all,
    peak_memory,
    require_rounds,
    time_in_turns,
)
from tellframe.bench.fresh import bench_fresh
from tellframe.bench.stages import time_stages
from tellframe.detector import Detector
from tellframe.errors import DataError, UsageError
from tellframe.runtime import usable_cores

_NAMES: Final = ("bare_decode", "detect", "detect_in_process")


def bench_detect(
    detector: Detector, path: Path, rounds: int = 5, *, fresh: bool = True
) -> dict[str, Any]:
    """Time `detect` and a bare sequential decode of the same file in turns, and every stage.

    Args:
        detector: models loaded; one video is judged before the first round.
        path: the video.
        rounds: how many of each.
        fresh: whether fresh processes are timed as well, and their memory measured.

    Returns:
        JSON-ready: facts on video and machine; wall seconds and computed seconds (of all threads
        and workers) of both, and of `detect` without a worker process; the ratios of the medians
        of the first two; wall seconds and shares of the stages, which are
        run one after the other for that (see `tellframe.bench.stages`), and their sum; with
        `fresh`, what `bench_fresh` returns.

    Raises:
        MediaError: the video cannot be read.
        UsageError: fewer than one round is asked for.
    """
    require_rounds(rounds)
    verdict = detector.detect(path)
    alone = _without_worker(detector)
    alone.detect(path)
    threads = detector.threads or usable_cores()
    staged: list[dict[str, float]] = []
    timings, computed = time_in_turns(
        {
            "bare_decode": lambda: bare_decode(path, threads),
            "detect": lambda: detector.detect(path),
            "detect_in_process": lambda: alone.detect(path),
            "stages": lambda: staged.append(time_stages(alone, path)),
        },
        rounds,
    )
    stages = {name: Timing(tuple(run[name] for run in staged)) for name in staged[0]}
    total = sum(timing.median for timing in stages.values())
    media = verdict.media
    assert media is not None  # only what could not be read has none
    return {
        "kind": "detect",
        "video": path.name,
        "codec": media.codec,
        "width": media.width,
        "height": media.height,
        "duration": round(media.duration, 3),
        "pictures": media.num_frames,
        "megabytes": round(media.bytes / 1e6, 3),
        "people": len(verdict.people),
        "label": str(verdict.label),
        **_settings(detector),
        "rounds": rounds,
        "seconds": _to_dict(timings, *_NAMES),
        "computed_seconds": _to_dict(computed, *_NAMES),
        "detect_to_bare_decode": _ratio(timings),
        "detect_to_bare_decode_computed": _ratio(computed),
        "stages": {
            name: {**timing.to_dict(), "share": round(timing.median / total, 4)}
            for name, timing in stages.items()
        },
        "stages_total": round(total, 4),
        **({"fresh": bench_fresh(detector, path, rounds)} if fresh else {}),
        "machine": describe_machine(),
    }


def bench_folder(
    detector: Detector, paths: Sequence[Path], rounds: int = 3, *, workers: int = 0
) -> dict[str, Any]:
    """Time `detect_many` and a bare decode of the same files in turns, all cores busy in both.

    The bare decode takes as many files at a time as there are workers, a thread each.

    Args:
        detector: models loaded; one video is judged before the first round.
        paths: the videos; a path may come several times.
        rounds: how many of each.
        workers: of the bare decode; 0 for one a core.

    Returns:
        JSON-ready: wall seconds and computed seconds of both, ratios of their medians, videos a
        minute, and the largest resident sizes so far, in MB, of this process, which holds the
        threads of both, and of its workers.

    Raises:
        UsageError: fewer than one round is asked for, or no video.
        DataError: a video cannot be read.
    """
    require_rounds(rounds)
    if not paths:
        raise UsageError("bench: no video; give at least one")
    workers = workers or detector.threads or usable_cores()
    detector.detect(paths[0])

    def judge() -> None:
        for verdict in detector.detect_many(paths):
            if verdict.error:
                raise DataError(f"bench: {verdict.error}")

    actions = {"bare_decode": lambda: decode_all(list(paths), workers), "detect": judge}
    timings, computed = time_in_turns(actions, rounds)
    return {
        "kind": "folder",
        "videos": len(paths),
        "names": sorted({path.name for path in paths}),
        **_settings(detector),
        "workers": workers,
        "rounds": rounds,
        "seconds": _to_dict(timings, *actions),
        "computed_seconds": _to_dict(computed, *actions),
        "videos_per_minute": round(60 * len(paths) / timings["detect"].median, 1),
        "detect_to_bare_decode": _ratio(timings),
        "detect_to_bare_decode_computed": _ratio(computed),
        "peak_rss_mb": peak_memory(),
        "machine": describe_machine(),
    }


def _without_worker(detector: Detector) -> Detector:
    """Return a detector like this one that reads videos in this process."""
    return Detector(
        detector.bundle,
        detector.recipe,
        detector.face_detector,
        threads=detector.threads,
        keep_evidence=detector.keep_evidence,
    )


def describe_machine() -> dict[str, Any]:
    """Return what a timing depends on: processor, cores, load at the moment, versions."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
        model = next(named, model)
    return {
        "processor": model,
        "cores": usable_cores(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "av": av.__version__,
        "ffmpeg": str(av.ffmpeg_version_info),
    }


def _settings(detector: Detector) -> dict[str, Any]:
    return {
        "model": detector.bundle.name,
        "recipe": detector.recipe.digest,
        "frames": detector.recipe.num_frames,
        "face_detector": detector.recipe.face_detector,
        "threads": detector.threads,
    }


def _to_dict(timings: dict[str, Timing], *names: str) -> dict[str, dict[str, float]]:
    return {name: timings[name].to_dict() for name in names}


def _ratio(timings: dict[str, Timing]) -> float:
    return round(timings["detect"].median / timings["bare_decode"].median, 3)
