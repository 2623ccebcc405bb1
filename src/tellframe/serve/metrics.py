"""Figures for Prometheus, in its text format."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tellframe.serve.jobs import State

MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS: Final = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
"""Seconds of an analysis."""


class Metrics:
    """Counts since the start; used by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ended: Counter[str] = Counter()
        self._answers: Counter[str] = Counter()
        self._times: Counter[float] = Counter()
        self._seconds = 0.0
        self._analyses = 0
        self._received = 0

    def count(self, outcome: str) -> None:
        """Count a job that ended as "done" or "failed"."""
        with self._lock:
            self._ended[outcome] += 1

    def answer(self, status: int) -> None:
        """Count an answer by its HTTP status."""
        with self._lock:
            self._answers[str(status)] += 1

    def receive(self, size: int) -> None:
        """Count bytes of a complete upload."""
        with self._lock:
            self._received += size

    def observe(self, seconds: float) -> None:
        """Count an analysis and its wall time."""
        with self._lock:
            self._analyses += 1
            self._seconds += seconds
            self._times.update(limit for limit in BUCKETS if seconds <= limit)

    def mean_seconds(self) -> float:
        """Return the mean wall time of an analysis; 0 before the first."""
        with self._lock:
            return self._seconds / self._analyses if self._analyses else 0.0

    def write(self, jobs: Mapping[State, int], *, ready: bool, starts: int) -> str:
        """Return all figures.

        Args:
            jobs: number of jobs by state.
            ready: whether analyses can run.
            starts: worker processes started.
        """
        with self._lock:
            lines = [
                *_family(
                    "jobs", "gauge", "Jobs by state.", "state", {str(s): n for s, n in jobs.items()}
                ),
                *_family("jobs_ended_total", "counter", "Ended jobs.", "outcome", self._ended),
                *_family("answers_total", "counter", "HTTP answers.", "status", self._answers),
                *_single("received_bytes_total", "counter", "Uploaded.", self._received),
                *_single("ready", "gauge", "1 where a worker is ready.", int(ready)),
                *_single("worker_starts_total", "counter", "Worker processes.", starts),
                *_single("resident_bytes", "gauge", "Memory of the server.", resident_bytes()),
                *self._histogram(),
            ]
        return "\n".join(lines) + "\n"

    def _histogram(self) -> Iterator[str]:
        name = "tellframe_analysis_seconds"
        yield f"# HELP {name} Wall time of an analysis."
        yield f"# TYPE {name} histogram"
        for limit in BUCKETS:
            yield f'{name}_bucket{{le="{limit:g}"}} {self._times[limit]}'
        yield f'{name}_bucket{{le="+Inf"}} {self._analyses}'
        yield f"{name}_sum {self._seconds:.6f}"
        yield f"{name}_count {self._analyses}"


def resident_bytes() -> int:
    """Return the resident memory of this process; 0 where the system does not say."""
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * resource.getpagesize()


def _single(name: str, kind: str, text: str, value: int) -> Iterator[str]:
    yield f"# HELP tellframe_{name} {text}"
    yield f"# TYPE tellframe_{name} {kind}"
    yield f"tellframe_{name} {value}"


def _family(
    name: str, kind: str, text: str, label: str, values: Mapping[str, int]
) -> Iterator[str]:
    yield f"# HELP tellframe_{name} {text}"
    yield f"# TYPE tellframe_{name} {kind}"
    for value, count in sorted(values.items()):
        yield f'tellframe_{name}{{{label}="{value}"}} {count}'
