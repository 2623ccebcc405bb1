"""One pipeline in a process of its own, its models loaded; asked line by line.

Takes the path of a video a line, answers with a line of JSON: seconds of wall time, seconds that
its threads computed, what was seen, and its largest resident size so far in MB.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PIPELINES = ("decode", "tellframe", "student", "winner")
PACKAGES = ("tellframe", "av", "onnxruntime", "torch", "timm", "facenet-pytorch", "numpy")


class Decode:
    """No pipeline: every picture is decoded by PyAV, and none is looked at."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def judge(self, path: Path) -> dict[str, float]:
        """Decode a video."""
        from tellframe.bench import bare_decode

        return {"frames": bare_decode(path, self.threads)}


class Tellframe:
    """What `tellframe detect` does."""

    def __init__(self, threads: int) -> None:
        from tellframe.detector import load

        self.detector = load(threads=threads, keep_evidence=False)

    def judge(self, path: Path) -> dict[str, float]:
        """Judge a video; return what was seen, and P(fake)."""
        verdict = self.detector.detect(path)
        faces, frames = verdict.counters["faces_detected"], verdict.counters["frames_sampled"]
        return {"frames": frames, "faces": faces, "score": verdict.probability or 0.0}


def load_pipeline(name: str, threads: int) -> Any:
    """Load a pipeline by name; torch and OpenCV, where it uses them, get so many threads."""
    if name in ("decode", "tellframe"):
        return {"decode": Decode, "tellframe": Tellframe}[name](threads)
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    return importlib.import_module(name).Pipeline(threads)


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
    parser.add_argument("--check", action="store_true", help="load the models, and end")
    options = parser.parse_args()
    # What libraries print must not get between the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    pipeline = load_pipeline(options.pipeline, options.threads)
    answers.write(json.dumps({"ready": options.pipeline, "versions": installed()}) + "\n")
    if options.check:
        return
    for line in sys.stdin:
        computed, begin = computed_seconds(), time.perf_counter()
        seen = pipeline.judge(Path(line.rstrip("\n")))
        facts = {
            "seconds": time.perf_counter() - begin,
            "computed": computed_seconds() - computed,
            "peak_rss_mb": peak_memory(),
            **seen,
        }
        answers.write(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
