"""Reproducible timings, paired in one run: what tellframe costs beside a bare decode."""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import av
import numpy as np

from tellframe.data.build import Workplace, build
from tellframe.data.manifest import Video
from tellframe.data.plan import plan_build
from tellframe.detector import Detector
from tellframe.errors import DataError, UsageError
from tellframe.isolation import Limits, map_isolated
from tellframe.recipe import Recipe
from tellframe.video import SAMPLERS, list_frames, read_frames

WIDTH: Final = 1920
HEIGHT: Final = 1080
SECONDS: Final = 10
RATE: Final = 30


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


def bare_decode(path: Path, threads: int = 0) -> int:
    """Decode every picture of a file, converting none; return how many there were."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        stream.codec_context.thread_count = threads
        return sum(1 for _ in container.decode(stream))


def _time(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def bench_detect(detector: Detector, path: Path, rounds: int = 5) -> dict[str, Any]:
    """Time `detect` and a bare sequential decode of the same file in turns.

    Args:
        detector: warm; models are loaded, one video has been judged before the first round.
        path: the video.
        rounds: how many of each.

    Returns:
        JSON-ready: seconds of both, the ratio of their medians, and the seconds of reading,
        of extraction as a whole, and of the network alone.

    Raises:
        MediaError: the video cannot be read.
        UsageError: fewer than one round is asked for.
    """
    if rounds < 1:
        raise UsageError(f"bench: {rounds} rounds; give at least 1")
    verdict = detector.detect(path)
    clips = detector.extract(path).clips
    stages: dict[str, Callable[[], object]] = {
        "bare_decode": lambda: bare_decode(path, detector.threads),
        "detect": lambda: detector.detect(path),
        "read_wanted_frames": lambda: _read(path, detector),
        "extract": lambda: detector.extract(path),
        "judge": lambda: detector.judge(clips),
    }
    seconds: dict[str, list[float]] = {name: [] for name in stages}
    for _ in range(rounds):
        for name, action in stages.items():
            seconds[name].append(_time(action))
    timings = {name: Timing(tuple(values)) for name, values in seconds.items()}
    return {
        "video": str(path),
        "frames": detector.recipe.num_frames,
        "people": len(verdict.people),
        "rounds": rounds,
        "seconds": {name: timing.to_dict() for name, timing in timings.items()},
        "detect_to_bare_decode": round(timings["detect"].median / timings["bare_decode"].median, 3),
    }


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
    seconds: dict[str, list[float]] = {"bare_decode": [], "build": []}
    for _ in range(rounds):
        seconds["bare_decode"].append(_time(lambda: _decode_all(paths, workers)))
        with tempfile.TemporaryDirectory() as folder:
            place = Workplace(folder, workers=workers)
            begin = time.perf_counter()
            summary = build(plan, place)
            seconds["build"].append(time.perf_counter() - begin)
        if summary.outcomes != {"ok": len(videos)}:
            raise DataError(f"bench: not every video gave a clip: {summary.outcomes}")
    timings = {name: Timing(tuple(values)) for name, values in seconds.items()}
    return {
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


def _decode_all(paths: Sequence[Path], workers: int) -> None:
    decoded = map_isolated(_decode_one, paths, setup=_nothing, workers=workers, limits=Limits())
    if not all(isinstance(count, int) and count > 0 for _, count in decoded):
        raise DataError("bench: a video cannot be decoded")


def _nothing() -> str:
    return "nothing"


def _decode_one(_context: object, path: Path) -> int:
    return bare_decode(path, threads=1)


def peak_memory() -> dict[str, float]:
    """Return the largest resident size so far, in MB, of this process and of its largest child."""
    import resource

    unit = 2**20 if sys.platform == "darwin" else 2**10  # getrusage(2): bytes there, KiB on Linux
    who = {"self": resource.RUSAGE_SELF, "largest_worker": resource.RUSAGE_CHILDREN}
    return {k: round(resource.getrusage(v).ru_maxrss * unit / 1e6, 1) for k, v in who.items()}


def _read(path: Path, detector: Detector) -> int:
    listing = list_frames(path)
    wanted = SAMPLERS[detector.recipe.sampling](listing.times, detector.recipe.num_frames)
    return sum(1 for _ in read_frames(path, listing, wanted, threads=detector.threads))


def make_video(portrait: Path, target: Path) -> None:
    """Write a 10 s 1080p H.264 video like the DFDC's: a moving face, camera noise, GOP 250.

    Args:
        portrait: a video of a person; its pictures are shown in the middle, swaying.
        target: the MP4 file to write.
    """
    with av.open(str(portrait)) as container:
        faces = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    size = 720
    rng = np.random.default_rng(0)
    light = np.linspace(60, 130, HEIGHT)[:, None, None] + np.linspace(0, 40, WIDTH)[None, :, None]
    room = np.repeat(light, 3, axis=2).astype(np.uint8)
    grain = rng.normal(0, 4, (4, HEIGHT, WIDTH, 1)).astype(np.int16)
    with av.open(str(target), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream.options = {"crf": "23", "preset": "medium", "g": "250"}
        for i in range(SECONDS * RATE):
            picture = room.copy()
            face = av.VideoFrame.from_ndarray(faces[i % len(faces)], format="rgb24")
            left = (WIDTH - size) // 2 + round(120 * np.sin(i / 25))
            large = face.reformat(width=size, height=size, format="rgb24").to_ndarray()
            picture[180 : 180 + size, left : left + size] = large
            noisy = np.clip(picture + grain[i % 4], 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, format="rgb24")))
        container.mux(stream.encode())
