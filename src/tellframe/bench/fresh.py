"""Fresh processes: what the first verdict costs from nothing, and the memory that it takes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from tellframe.bench import Timing, bare_decode
from tellframe.detector import Detector
from tellframe.errors import DataError
from tellframe.runtime import usable_cores

_DETECT: Final = """
import json, sys, time
begin = time.perf_counter()
from tellframe.detector import load
from tellframe.report import format_table
imported = time.perf_counter()
source, threads, overrides, path = json.loads(sys.argv[1])
detector = load(source, threads=threads, keep_evidence=False, **overrides)
loaded = time.perf_counter()
format_table([detector.detect(path)])
done = time.perf_counter()
from tellframe.bench import peak_memory
peak = peak_memory()
print(json.dumps({"imports": imported - begin, "load": loaded - imported,
                  "verdict": done - loaded, "peak_rss_mb": peak["self"],
                  "peak_workers_rss_mb": peak["workers"]}))
"""
_DECODE: Final = """
import json, sys
from tellframe.bench import bare_decode
path, threads = json.loads(sys.argv[1])
bare_decode(path, threads)
from tellframe.bench import peak_memory
print(json.dumps({"peak_rss_mb": peak_memory()["self"]}))
"""


def bench_fresh(detector: Detector, path: Path, rounds: int = 5) -> dict[str, Any]:
    """Time fresh processes that judge or decode one video, and a decode in this warm process.

    They take turns, after one of each to bring files into the system's cache.

    Args:
        detector: says which model, recipe and threads the processes use.
        path: the video.
        rounds: how many of each.

    Returns:
        JSON-ready: seconds from the start of a process to its end, for one that judges the video
        and for one that decodes it barely, and seconds of a bare decode in this process; ratios of
        the medians; for the first, the seconds of imports, of loading the models and of the
        verdict; and the largest resident size of a process of each kind, in MB, as well as that of
        the workers that judging starts, if any.

    Raises:
        DataError: a process ends with an error.
    """
    bundle = detector.bundle
    overrides = {k: mine for k, (mine, _) in detector.recipe.differences(bundle.recipe).items()}
    source = str(Path(str(bundle.graph)).parent)
    judge = json.dumps([source, detector.threads, overrides, str(path)])
    threads = detector.threads or usable_cores()
    decode = json.dumps([str(path), threads])
    seconds: dict[str, list[float]] = {"detect": [], "bare_decode": [], "warm_bare_decode": []}
    parts: dict[str, list[float]] = {"imports": [], "load": [], "verdict": []}
    peaks = {"detect": 0.0, "detect_workers": 0.0, "bare_decode": 0.0}
    for number in range(rounds + 1):  # the first to warm up
        facts, spent = _run(_DETECT, judge)
        decode_facts, decode_spent = _run(_DECODE, decode)
        begin = time.perf_counter()
        bare_decode(path, threads)
        warm = time.perf_counter() - begin
        if not number:
            continue
        for name, value in zip(seconds, (spent, decode_spent, warm), strict=True):
            seconds[name].append(value)
        for name in parts:
            parts[name].append(facts[name])
        peaks["detect"] = max(peaks["detect"], facts["peak_rss_mb"])
        peaks["detect_workers"] = max(peaks["detect_workers"], facts["peak_workers_rss_mb"])
        peaks["bare_decode"] = max(peaks["bare_decode"], decode_facts["peak_rss_mb"])
    timings = {name: Timing(tuple(values)) for name, values in seconds.items()}
    of_detect = {name: Timing(tuple(values)) for name, values in parts.items()}
    median = timings["detect"].median
    return {
        "seconds": {name: timing.to_dict() for name, timing in timings.items()},
        "detect_parts": {name: timing.to_dict() for name, timing in of_detect.items()},
        "detect_to_bare_decode": round(median / timings["bare_decode"].median, 3),
        "detect_to_warm_bare_decode": round(median / timings["warm_bare_decode"].median, 3),
        "peak_rss_mb": peaks,
    }


def _run(code: str, argument: str) -> tuple[dict[str, float], float]:
    """Return what a process prints, and the seconds from its start to its end."""
    command = [sys.executable, "-c", code, argument]
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    spent = time.perf_counter() - begin
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise DataError(f"bench: a fresh process ended with {done.returncode}: {last}")
    facts: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return facts, spent
