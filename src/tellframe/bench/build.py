"""A build of shards beside a bare decode of the same files."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tellframe.bench import bare_decode, peak_memory, time_in_turns
from tellframe.data.build import Workplace, build
from tellframe.data.manifest import Video
from tellframe.data.plan import plan_build
from tellframe.errors import DataError, UsageError
from tellframe.isolation import Limits, map_isolated
from tellframe.recipe import Recipe


def bench_build(
    paths: Sequence[Path], recipe: Recipe, *, workers: int, rounds: int = 3
) -> dict[str, Any]:
    """Time a build of shards and a bare decode of the same files in turns, all cores busy in both.

    Start of the processes and loading of the models included.

    Args:
        paths: the videos; a path may come several times.
        recipe: how they become clips.
        workers: processes, for both; each decodes its video with one thread.
        rounds: how many of each.

    Returns:
        JSON-ready: seconds of both, the ratio of their medians, videos a minute, and the peak
        memory of this process and of the largest worker so far.

    Raises:
        UsageError: fewer than one round is asked for, or no video.
        DataError: a video gave no clip, so that the times would mean nothing.
    """
    if rounds < 1 or not paths:
        raise UsageError(f"bench: {rounds} rounds of {len(paths)} videos; give at least 1 of each")
    videos = [Video(f"{n:04d}-{path.name}", str(path.resolve())) for n, path in enumerate(paths)]
    plan = plan_build(videos, recipe)

    def build_once() -> None:
        with tempfile.TemporaryDirectory() as folder:
            summary = build(plan, Workplace(folder, workers=workers))
        if summary.outcomes != {"ok": len(videos)}:
            raise DataError(f"bench: not every video gave a clip: {summary.outcomes}")

    actions = {"bare_decode": lambda: _decode_apart(paths, workers), "build": build_once}
    timings, _ = time_in_turns(actions, rounds)
    return {
        "kind": "build",
        "videos": len(videos),
        "frames": recipe.num_frames,
        "face_detector": recipe.face_detector,
        "workers": workers,
        "rounds": rounds,
        "seconds": {name: timing.to_dict() for name, timing in timings.items()},
        "videos_per_minute": round(60 * len(videos) / timings["build"].median, 1),
        "build_to_bare_decode": round(timings["build"].median / timings["bare_decode"].median, 3),
        "peak_rss_mb": peak_memory(),
    }


def _decode_apart(paths: Sequence[Path], workers: int) -> None:
    """Decode in worker processes, as a build does."""
    decoded = map_isolated(_decode_one, paths, setup=_nothing, workers=workers, limits=Limits())
    if not all(isinstance(count, int) and count > 0 for _, count in decoded):
        raise DataError("bench: a video cannot be decoded")


def _nothing() -> str:
    return "nothing"


def _decode_one(_context: object, path: Path) -> int:
    return bare_decode(path, threads=1)
