"""One pipeline in a process of its own, its models loaded; asked line by line.

Takes the paths of videos, a JSON list a line; answers with a line of JSON: seconds of wall time,
seconds that its threads computed, what was seen, and its largest resident size so far in MB.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PIPELINES = ("decode", "tellframe", "student", "winner")
PACKAGES = ("tellframe", "av", "onnxruntime", "torch", "timm", "facenet-pytorch", "numpy")


class Decode:
    """No pipeline: every picture is decoded by PyAV, and none is looked at."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def judge_all(self, paths: Sequence[Path]) -> dict[str, float]:
        """Decode videos."""
        from tellframe.bench import bare_decode

        return {"frames": sum(bare_decode(path, self.threads) for path in paths)}


class Tellframe:
    """What `tellframe detect` does."""

    def __init__(self, threads: int, workers: int) -> None:
        from tellframe.detector import load
        from tellframe.runtime import usable_cores

        # As a user has it: no number where all cores are meant.
        threads = 0 if threads == usable_cores() else threads
        self.detector = load(threads=threads, workers=workers, keep_evidence=False)

    def judge_all(self, paths: Sequence[Path]) -> dict[str, float]:
        """Judge videos; return what was seen of all of them."""
        counters = [verdict.counters for verdict in self.detector.detect_many(paths)]
        kinds = {"frames": "frames_sampled", "faces": "faces_detected"}
        return {name: sum(c[kind] for c in counters) for name, kind in kinds.items()}


class Peer:
    """A pipeline that judges one video after the other.

    Args:
        judge: returns what was seen of a video.
    """

    def __init__(self, judge: Callable[[Path], dict[str, float]]) -> None:
        self.judge = judge

    def judge_all(self, paths: Sequence[Path]) -> dict[str, float]:
        """Judge videos; return what was seen of all of them."""
        seen = [self.judge(path) for path in paths]
        return {name: sum(one[name] for one in seen) for name in seen[0]}


def load_pipeline(name: str, threads: int, workers: int) -> Any:
    """Load a pipeline by name; torch and OpenCV, where it uses them, get so many threads."""
    if name == "decode":
        return Decode(threads)
    if name == "tellframe":
        return Tellframe(threads, workers)
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    return Peer(importlib.import_module(name).Pipeline(threads).judge)


def computed_seconds() -> float:
    """Return the seconds that all threads have computed so far; workers of tellframe's count."""
    try:
        from tellframe import bench
    except ImportError:  # in the environment of the others, which start no workers
        return time.process_time()
    return bench.computed_seconds()


def peak_memory() -> float:
    """Return the largest resident size so far in MB, workers included; Linux only, 0 elsewhere."""
    try:
        from tellframe import bench
    except ImportError:
        status = Path("/proc/self/status")
        lines = status.read_text().splitlines() if status.is_file() else []
        sizes = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
        return round(sum(sizes) * 1024 / 1e6, 1)
    peak = bench.peak_memory()
    return round(peak["self"] + peak["workers"], 1)


def installed() -> dict[str, str]:
    """Return the versions of what a timing depends on."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("pipeline", choices=PIPELINES)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1, help="of tellframe, in its process")
    parser.add_argument("--check", action="store_true", help="load the models, and end")
    options = parser.parse_args()
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    pipeline = load_pipeline(options.pipeline, options.threads, options.workers)
    answers.write(json.dumps({"ready": options.pipeline, "versions": installed()}) + "\n")
    if options.check:
        return
    for line in sys.stdin:
        computed, begin = computed_seconds(), time.perf_counter()
        seen = pipeline.judge_all([Path(path) for path in json.loads(line)])
        facts = {
            "seconds": time.perf_counter() - begin,
            "computed": computed_seconds() - computed,
            "peak_rss_mb": peak_memory(),
            **seen,
        }
        answers.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
