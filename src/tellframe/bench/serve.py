"""The service under load: many clients that upload, follow, and begin again.

Every upload has bytes of its own, so that none is answered with the result of another.
"""

from __future__ import annotations

import http.client
import json
import secrets
import statistics
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tellframe.bench import Timing
from tellframe.bench.server import Server, resident_sizes
from tellframe.errors import UsageError

PAUSE_SECONDS: Final = 1.0
"""A client that was refused waits for as long as the server says, or so long if that is less."""
SAMPLE_SECONDS: Final = 1.0
"""Between two looks at the memory of the server."""


@dataclass
class Load:
    """What clients have seen; they share it."""

    answers: Counter[int] = field(default_factory=Counter)
    """Answers to uploads, by status."""
    states: Counter[str] = field(default_factory=Counter)
    """Jobs by their last state; "lost" where the server has none."""
    ids: list[str] = field(default_factory=list)
    """Of accepted jobs."""
    accepted_after: list[float] = field(default_factory=list)
    """Seconds from the beginning of an upload to 202."""
    ended_after: list[float] = field(default_factory=list)
    """Seconds from the beginning of an upload to the end of its job."""
    errors: Counter[str] = field(default_factory=Counter)
    """Connections that broke, and answers that are none, by what was wrong."""
    lock: threading.Lock = field(default_factory=threading.Lock)


def bench_serve(
    server: Server, video: bytes, *, clients: int = 32, seconds: float = 60.0
) -> dict[str, Any]:
    """Let clients upload a video again and again, each time with other bytes, and follow it.

    Args:
        server: ready.
        video: an MP4 or MOV file; a box that players skip is appended, with a number in it.
        clients: how many at once.
        seconds: for which they begin anew; what was accepted by then is waited for.

    Returns:
        JSON-ready: uploads accepted and refused (429), others by status, and errors; jobs done,
        failed, lost (the server does not know them, or they never end) and doubled (given the id
        of another, or judged more than once, which the jobs of others look like: measure a server
        that nobody else uses); seconds of wall time to the last verdict; videos a minute;
        latencies from the upload to 202 and to the verdict; resident sizes of the server and its
        workers in MB at the start, in the middle and at the end, and the largest
        one (Linux, and only where the server is ours).

    Raises:
        DataError: the server does not tell its figures.
        UsageError: the video is of another kind, or a number is out of range.
    """
    _check(video, clients, seconds)
    judged = server.read_metric("tellframe_analysis_seconds_count")
    load, stop = Load(), threading.Event()
    begin = time.monotonic()
    sizes = [(0.0, resident_sizes(server.pid))]
    watch = threading.Thread(target=_watch_memory, args=(server, begin, stop, sizes))
    threads = [
        threading.Thread(target=_run_client, args=(server, video, begin + seconds, load))
        for _ in range(clients)
    ]
    for thread in (watch, *threads):
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - begin
    stop.set()
    watch.join()
    sizes.append((took, resident_sizes(server.pid)))
    judged = server.read_metric("tellframe_analysis_seconds_count") - judged
    return {
        "clients": clients,
        "seconds": seconds,
        "megabytes": round(len(video) / 1e6, 3),
        **_summarise(load, took, int(judged)),
        "resident_mb": _at_three_times(sizes, seconds) if server.pid else None,
    }


def _check(video: bytes, clients: int, seconds: float) -> None:
    if video[4:8] != b"ftyp":
        raise UsageError("bench serve: the video is no MP4 or MOV; give one, bytes are added to it")
    if clients < 1 or not 0 < seconds < float("inf"):
        raise UsageError("bench serve: give at least 1 client, and more than 0 seconds")


def vary(video: bytes) -> bytes:
    """Return a video of other bytes and the same pictures: with a box of type "free" at its end.

    ISO/IEC 14496-12, 8.1.2: the contents of such a box are irrelevant and may be ignored.
    """
    return video + struct.pack(">I4s16s", 24, b"free", secrets.token_bytes(16))


def _run_client(server: Server, video: bytes, end: float, load: Load) -> None:
    """Upload and follow until the time has come."""
    while time.monotonic() < end:
        try:
            _upload_once(server, vary(video), load)
        except (OSError, http.client.HTTPException, ValueError, LookupError) as error:
            with load.lock:
                load.errors[f"{type(error).__name__}: {error}"] += 1
            time.sleep(0.1)


def _upload_once(server: Server, body: bytes, load: Load) -> None:
    begin = time.monotonic()
    status, headers, answer = server.ask("POST", "/v1/jobs?name=bench.mp4", body)
    accepted = time.monotonic() - begin
    with load.lock:
        load.answers[status] += 1
    if status != 202:
        time.sleep(min(float(headers.get("Retry-After", PAUSE_SECONDS)), PAUSE_SECONDS))
        return
    job_id = json.loads(answer)["id"]
    with load.lock:
        load.ids.append(job_id)
        load.accepted_after.append(accepted)
    state = follow(server, job_id)
    with load.lock:
        load.states[state] += 1
        load.ended_after.append(time.monotonic() - begin)


def follow(server: Server, job_id: str) -> str:
    """Wait for the end of a job; return its last state, or "lost" where the server has none."""
    status, _, body = server.ask("GET", f"/v1/jobs/{job_id}/events")
    events = [b for b in body.decode().split("\n\n") if b.startswith("event: job\n")]
    if status != 200 or not events:
        return "lost"
    state = str(json.loads(events[-1].split("\ndata: ", 1)[1])["state"])
    return state if state in ("done", "failed") else "lost"


def _summarise(load: Load, took: float, judged: int) -> dict[str, Any]:
    ended = load.states["done"] + load.states["failed"]
    others = {str(s): n for s, n in sorted(load.answers.items()) if s not in (202, 429)}
    repeated = len(load.ids) - len(set(load.ids))
    return {
        "accepted": load.answers[202],
        "refused_429": load.answers[429],
        "other_answers": others,
        "errors": dict(load.errors),
        "done": load.states["done"],
        "failed": load.states["failed"],
        "lost": load.answers[202] - ended,
        "doubled": max(judged - len(load.ids), 0) + repeated,
        "wall_seconds": round(took, 2),
        "videos_per_minute": round(60 * load.states["done"] / took, 1),
        "seconds_to_202": _quantiles(load.accepted_after),
        "seconds_to_verdict": _quantiles(load.ended_after),
    }


def _quantiles(values: list[float]) -> dict[str, float] | None:
    """Return median, 95th percentile and the largest; None of nothing."""
    if not values:
        return None
    cuts = (
        statistics.quantiles(values, n=20, method="inclusive") if len(values) > 1 else values * 19
    )
    return {name: round(v, 3) for name, v in
            (("p50", cuts[9]), ("p95", cuts[18]), ("max", max(values)))}  # fmt: skip


def _watch_memory(
    server: Server, begin: float, stop: threading.Event, sizes: list[tuple[float, dict[str, float]]]
) -> None:
    while server.pid and not stop.wait(SAMPLE_SECONDS):
        sizes.append((time.monotonic() - begin, resident_sizes(server.pid)))


def _at_three_times(
    sizes: list[tuple[float, dict[str, float]]], seconds: float
) -> dict[str, dict[str, float]]:
    middle = min(sizes, key=lambda entry: abs(entry[0] - seconds / 2))
    return {
        "start": sizes[0][1],
        "middle": middle[1],
        "end": sizes[-1][1],
        "largest": {name: max(size[name] for _, size in sizes) for name in sizes[0][1]},
    }


def time_detect(detector: Any, path: Path, rounds: int) -> dict[str, float]:
    """Return what bare `detect` of a video takes in seconds, models loaded.

    Args:
        detector: a `tellframe.detector.Detector`.
        path: the video.
        rounds: how often it is judged; once more before.

    Raises:
        MediaError: it cannot be read.
    """
    seconds = []
    detector.detect(path)
    for _ in range(rounds):
        begin = time.perf_counter()
        detector.detect(path)
        seconds.append(time.perf_counter() - begin)
    return Timing(tuple(seconds)).to_dict()


def format_load(result: dict[str, Any]) -> str:
    """Return a table for people."""
    lines = [
        ("accepted, done, failed", _join(result, "accepted", "done", "failed")),
        ("lost, doubled", _join(result, "lost", "doubled")),
        ("refused (429), others, errors",
         f"{result['refused_429']}, {sum(result['other_answers'].values())}, "
         f"{sum(result['errors'].values())}"),
        ("videos a minute", f"{result['videos_per_minute']}"),
        ("upload to 202: p50, p95, max", _seconds(result["seconds_to_202"])),
        ("upload to verdict: p50, p95, max", _seconds(result["seconds_to_verdict"])),
    ]  # fmt: skip
    if result["resident_mb"]:
        at = result["resident_mb"]
        for who in ("server", "workers"):
            text = ", ".join(f"{at[when][who]:.0f}" for when in ("start", "middle", "end"))
            lines.append((f"{who}, MB: start, middle, end", text))
    if "detect_seconds" in result:
        lines.append(("bare detect, median", f"{result['detect_seconds']['median']:.2f} s"))
    width = max(len(name) for name, _ in lines)
    return "".join(f"{name:{width}}  {value}\n" for name, value in lines)


def _join(result: dict[str, Any], *names: str) -> str:
    return ", ".join(str(result[name]) for name in names)


def _seconds(values: dict[str, float] | None) -> str:
    return ", ".join(f"{value:.2f} s" for value in values.values()) if values else "-"
