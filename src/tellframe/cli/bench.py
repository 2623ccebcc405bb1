"""Timings: `tellframe bench`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

from tellframe.cli import status
from tellframe.cli.messages import say_passed_over
from tellframe.cli.options import add_model_options, add_verb, load_detector
from tellframe.cli.outputs import check_output
from tellframe.errors import UsageError

_HELP = """what is timed, beside a bare decode of the same files:
  detect   one video after another, models loaded; its stages; fresh processes and their memory
  folder   all videos in one go, all cores busy
  build    all videos into shards, all cores busy
  train    training steps, beside a bare loop
  serve    the service: clients that upload at once, beside bare detect of the same file
videos     makes videos to time, into the folder -o"""
_MODEL: Final = ("detect", "folder", "build", "serve")
_KINDS: Final = {
    "portrait": ("detect", "folder", "build", "videos"),
    "rounds": (*_MODEL, "train"),
    "copies": ("folder", "build"),
    **dict.fromkeys(("plot", "no_fresh"), ("detect",)),
    **dict.fromkeys(("output", "only"), ("videos",)),
    **dict.fromkeys(("clients", "seconds", "workers", "queue", "url"), ("serve",)),
    **dict.fromkeys(("model", "frames", "face_detector", "threads"), _MODEL),
}
"""What is timed with an option."""


def add_bench(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_bench,
        "bench",
        "time detect and build beside a bare decode, train beside a bare loop",
        f"tellframe bench detect video.mp4 --rounds 7\n\n{_HELP}",
    )
    parser.add_argument(
        "what", choices=("detect", "folder", "build", "train", "serve", "videos"), help="see below"
    )
    parser.add_argument(
        "videos", nargs="*", metavar="VIDEO|FOLDER|CONFIG.toml", help="train: its configuration"
    )
    parser.add_argument(
        "--portrait",
        type=Path,
        action="append",
        default=[],
        metavar="VIDEO",
        help="make a 10 s 1080p video with this face; may be given several times for videos",
    )
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--copies",
        type=int,
        metavar="N",
        help="how often each video is taken; build: 20, folder: 1",
    )
    parser.add_argument("--plot", type=Path, metavar="FILE.svg|png", help="detect: draw the stages")
    parser.add_argument("--no-fresh", action="store_true", help="detect: start no fresh processes")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="videos: where to")
    parser.add_argument(
        "--only", default="*", metavar="PATTERN", help="videos: those of these names, as 1080p-*"
    )
    group = parser.add_argument_group("serve")
    group.add_argument("--clients", type=int, default=32, metavar="N", help="default: %(default)s")
    group.add_argument(
        "--seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="for which clients begin anew; default: %(default)g",
    )
    group.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes of the server (those of build: --threads); default: %(default)s",
    )
    group.add_argument(
        "--queue",
        type=int,
        default=32,
        metavar="N",
        help="places in the queue of the server; default: %(default)s",
    )
    group.add_argument(
        "--url", metavar="URL", help="of a server that runs already; its token in $TELLFRAME_TOKENS"
    )
    add_model_options(parser)
    parser.set_defaults(defaults={name: parser.get_default(name) for name in _KINDS})


def run_bench(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    _check_kinds(options)
    if options.what == "train":
        result = _bench_train(options)
    elif options.what == "serve":
        result = _bench_serve(options)
    elif options.what == "videos":
        result = _make_videos(options)
    else:
        result = _bench_videos(options)
    print(json.dumps(result, indent=2))
    return status.DONE


def _check_kinds(options: argparse.Namespace) -> None:
    """Refuse options that would have no effect.

    Raises:
        UsageError: one belongs to something else that can be timed, or to a server of its own.
    """
    given = [name for name in _KINDS if getattr(options, name) != options.defaults[name]]
    idle = [
        f"--{name.replace('_', '-')} belongs to bench {', '.join(_KINDS[name])}"
        for name in given
        if options.what not in _KINDS[name]
    ]
    if options.url:
        idle += [
            f"--{name} does not reach the server of --url"
            for name in ("workers", "queue")
            if name in given
        ]
    if idle:
        raise UsageError(f"bench {options.what}: {'; '.join(idle)}")


def _bench_videos(options: argparse.Namespace) -> Any:
    from tellframe.bench.videos import make_video

    if not options.videos and not options.portrait:
        raise UsageError("bench: give videos, or --portrait VIDEO to make one")
    if options.plot:
        from tellframe.bench.plot import check_target

        check_target(options.plot)
        check_output("--plot", options.plot, folder=False, inputs=options.videos)
    with tempfile.TemporaryDirectory() as folder:
        videos = _expand(options.videos)
        if options.portrait:
            videos.append(Path(folder) / "1080p-h264-1face-10s.mp4")
            make_video(options.portrait, videos[-1])
        return _time(options, videos)


def _expand(inputs: Sequence[str]) -> list[Path]:
    """Expand folders to the videos below them."""
    from tellframe.cli.sources import find_videos

    return [Path(name) for name in find_videos(inputs, say_passed_over)]


def _time(options: argparse.Namespace, videos: list[Path]) -> Any:
    from tellframe.runtime import usable_cores

    side_by_side = (options.threads or usable_cores()) if options.what == "folder" else 1
    detector = load_detector(options, workers=side_by_side)
    if options.what == "build":
        from tellframe.bench.build import bench_build

        return bench_build(
            videos * _copies(options, 20),
            detector.recipe,
            workers=options.threads or usable_cores(),
            rounds=options.rounds,
        )
    from tellframe.bench.detect import bench_detect, bench_folder

    if options.what == "folder":
        return bench_folder(detector, videos * _copies(options, 1), options.rounds)
    fresh = not options.no_fresh
    results = [bench_detect(detector, v, options.rounds, fresh=fresh) for v in videos]
    if options.plot:
        from tellframe.bench.plot import plot_stages

        plot_stages(results, options.plot)
    return results


def _copies(options: argparse.Namespace, default: int) -> int:
    copies: int = default if options.copies is None else options.copies
    if copies < 1:
        raise UsageError(f"--copies {copies}: give at least 1")
    return copies


def _make_videos(options: argparse.Namespace) -> Any:
    from tellframe.bench.videos import choose_films, make_videos

    if not options.output:
        raise UsageError("bench videos: give a folder with -o DIR")
    if options.videos:
        raise UsageError("bench videos: makes videos of --portrait VIDEO, and takes no others")
    check_output("-o", options.output, folder=True)
    made = make_videos(options.portrait, options.output, choose_films(options.only))
    return {"videos": [str(path) for path in made.files], "missing_encoders": made.missing}


def _bench_serve(options: argparse.Namespace) -> Any:
    from tellframe.bench import require_rounds
    from tellframe.bench.detect import describe_machine
    from tellframe.bench.serve import bench_serve, format_load, time_detect
    from tellframe.bench.server import Server, run_server

    if len(options.videos) != 1:
        raise UsageError("bench serve: give one video")
    require_rounds(options.rounds)
    path = Path(options.videos[0])
    video = path.read_bytes()
    detector = load_detector(options)
    bare = time_detect(detector, path, options.rounds)
    detector.close()  # its worker would only take memory from the server
    given = {"--model": options.model, "--frames": options.frames, "--threads": options.threads,
             "--face-detector": options.face_detector, "--workers": options.workers,
             "--queue": options.queue}  # fmt: skip
    arguments = [text for name, value in given.items() if value for text in (name, str(value))]
    there = Server(options.url or "", token=os.environ.get("TELLFRAME_TOKENS", "").split(",")[0])
    with nullcontext(there) if options.url else run_server(arguments) as server:
        result = bench_serve(server, video, clients=options.clients, seconds=options.seconds)
    result = {
        "kind": "serve",
        "video": path.name,
        "server": options.url or " ".join(arguments),
        **result,
        "detect_seconds": bare,
        "machine": describe_machine(),
    }
    print(format_load(result), end="", file=sys.stderr)
    return result


def _bench_train(options: argparse.Namespace) -> Any:
    if len(options.videos) != 1:
        raise UsageError("bench train: give one training configuration")
    from tellframe.cli.training import need_train

    need_train("bench train")
    from tellframe.train.bench import bench_train
    from tellframe.train.config import load_config

    return bench_train(load_config(Path(options.videos[0])), rounds=options.rounds)
