"""Reproducible timings, paired in one run: what tellframe costs beside a bare decode.

Here is what all of them share; it imports little, because fresh processes are timed with it, too.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import av

from tellframe.errors import DecodeError, UsageError

__all__ = [
    "Timing",
    "bare_decode",
    "computed_seconds",
    "decode_all",
    "peak_memory",
    "require_rounds",
    "time_in_turns",
]

_PROC: Final = Path("/proc")


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of several rounds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median in seconds."""
        return statistics.median(self.seconds)

    def to_dict(self) -> dict[str, float]:
        """Return median and extremes as JSON-ready values."""
        return {
            "median": round(self.median, 4),
            "min": round(min(self.seconds), 4),
            "max": round(max(self.seconds), 4),
        }


def require_rounds(rounds: int) -> None:
    """Raise unless there is something to measure.

    Raises:
        UsageError: fewer than one round is asked for.
    """
    if rounds < 1:
        raise UsageError(f"bench: {rounds} rounds; give at least 1")


def time_in_turns(
    actions: Mapping[str, Callable[[], object]], rounds: int
) -> tuple[dict[str, Timing], dict[str, Timing]]:
    """Time actions, each once a round, so that a slow spell of the machine meets all of them.

    Args:
        actions: by name, in the order in which they take turns.
        rounds: how many, at least 1.

    Returns:
        By name, the seconds of wall time, and those that all threads computed, of this
        process and of its workers.
    """
    wall: dict[str, list[float]] = {name: [] for name in actions}
    computed: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            begin_computed, begin = computed_seconds(), time.perf_counter()
            action()
            wall[name].append(time.perf_counter() - begin)
            computed[name].append(computed_seconds() - begin_computed)
    return (
        {name: Timing(tuple(values)) for name, values in wall.items()},
        {name: Timing(tuple(values)) for name, values in computed.items()},
    )


def bare_decode(path: Path, threads: int) -> int:
    """Decode every picture of a file in turn, converting none; return how many there were.

    Args:
        path: the video.
        threads: of the decoder.

    Raises:
        DecodeError: it cannot be decoded to its end.
    """
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = threads
            return sum(1 for _ in container.decode(stream))
    except (av.error.FFmpegError, OSError, ValueError, IndexError) as error:
        raise DecodeError(f"{path}: cannot be decoded ({error}); give a sound video") from error


def decode_all(paths: list[Path], workers: int) -> int:
    """Decode files as `bare_decode`, several at a time, a thread each; return how many pictures.

    The decoder does not hold Python's lock, so that every thread keeps a core busy.

    Raises:
        DecodeError: one of them cannot be decoded to its end.
    """
    with ThreadPoolExecutor(workers) as pool:
        return sum(pool.map(lambda path: bare_decode(path, 1), paths))


def computed_seconds() -> float:
    """Return the seconds that all threads of this process and of its workers have computed so far.

    Workers that still run are counted on Linux only.
    """
    used = os.times()
    total = time.process_time() + used.children_user + used.children_system
    tick = os.sysconf("SC_CLK_TCK")
    return total + sum(sum(map(int, _stat(pid)[11:15])) / tick for pid in _list_workers())


def peak_memory() -> dict[str, float]:
    """Return largest resident sizes so far, in MB.

    Returns:
        "self": of this process; "workers": those of the worker processes that still run, added up
        (Linux only, 0 elsewhere); "largest_worker": of the largest that has ended. getrusage(2),
        which says the last, counts for a process what the one that started it held at that moment.
    """
    import resource

    unit = 1 if sys.platform == "darwin" else 2**10  # getrusage(2): bytes there, KiB on Linux
    who = {"self": resource.RUSAGE_SELF, "largest_worker": resource.RUSAGE_CHILDREN}
    peaks = {k: resource.getrusage(v).ru_maxrss * unit / 1e6 for k, v in who.items()}
    peaks["self"] = _peak("self") or peaks["self"]
    peaks["workers"] = sum(_peak(pid) for pid in _list_workers())
    return {name: round(size, 1) for name, size in peaks.items()}


def _peak(process: int | str) -> float:
    """Return the largest resident size in MB of a process; 0 where the system does not say."""
    with suppress(OSError):
        for line in (_PROC / str(process) / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 2**10 / 1e6
    return 0.0


def _list_workers() -> list[int]:
    """Return the processes that this one has started, and those that they have, on Linux."""
    parents = {}
    for pid in (int(p.name) for p in _PROC.glob("[0-9]*")):
        if fields := _stat(pid):
            parents[pid] = int(fields[1])
    found, last = [], [os.getpid()]
    while last := [pid for pid, parent in parents.items() if parent in last]:
        found += last
    return found


def _stat(pid: int) -> list[str]:
    """Return the fields of proc_pid_stat(5) from the third on; none where it has just ended."""
    with suppress(OSError):
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return []
