"""Time tellframe and its peers on the same videos and cores, in turns; Markdown and JSON.

    benchmarks/peers/install.sh
    python benchmarks/peers/run.py VIDEO... --rounds 3 --out out/peers
    python benchmarks/peers/run.py VIDEO... --rounds 3 --out out/peers-folder --copies 20

With `--copies`, every video is a folder of so many: tellframe judges it with its own confined
workers, every other pipeline in as many processes as there are cores, with a thread and a share
each.

Run it in the environment that tellframe is installed in.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PEERS_PYTHON = HERE / ".venv-peers" / "bin" / "python"
NAMES = {
    "decode": "bare decode (PyAV)",
    "tellframe": "`tellframe detect`",
    "student": "DFDC student project: 10 frames, MTCNN, MixNet-M + LSTM",
    "winner": "like the DFDC's winner: 32 frames, MTCNN at half size, one EfficientNet-B7",
}
"""The pipelines, in the order in which they take turns."""


class Worker:
    """A pipeline in a process of its own; to be used in a `with`.

    Args:
        name: one of `NAMES`.
        python: of the environment that it is installed in.
        threads: that it may use.
        workers: of tellframe, within those threads.

    Raises:
        RuntimeError: it ends before it is ready.
    """

    def __init__(self, name: str, python: Path, threads: int, workers: int = 1) -> None:
        self.name = name
        command = [str(python), str(HERE / "worker.py"), name]
        command += ["--threads", str(threads), "--workers", str(workers)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.versions: dict[str, str] = self._answer()["versions"]

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def begin(self, videos: Sequence[Path]) -> None:
        """Let it judge videos; to be followed by `end`."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([str(video) for video in videos]) + "\n")
        self._process.stdin.flush()

    def end(self) -> dict[str, float]:
        """Wait; return seconds, memory and what was seen of the videos.

        Raises:
            RuntimeError: the process has ended.
        """
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name}: ended with {self._process.wait()}; see its message")
        return json.loads(line)


Team = Sequence[Worker]
"""The processes of one pipeline."""


def judge(team: Team, videos: Sequence[Path]) -> dict[str, float]:
    """Let the processes of a pipeline share videos; return the seconds until the last is done.

    What was seen, computed and held in memory is that of all of them.
    """
    for number, worker in enumerate(team):
        worker.begin(videos[number :: len(team)])
    answers = [worker.end() for worker in team]
    total = {name: sum(answer[name] for answer in answers) for name in answers[0]}
    return {**total, "seconds": max(answer["seconds"] for answer in answers)}


def measure(
    teams: Sequence[Team], videos: Sequence[Path], rounds: int, copies: int
) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Let pipelines judge videos in turns, after the first video once each to warm up.

    Returns:
        By name of the video and of the pipeline, the answers of all rounds.
    """
    for team in teams:
        judge(team, [videos[0]] * len(team))
    answers: dict[str, dict[str, list[dict[str, float]]]] = {}
    for number in range(rounds):
        for video in videos:
            for team in teams:
                answer, name = judge(team, [video] * copies), team[0].name
                answers.setdefault(video.name, {}).setdefault(name, []).append(answer)
                say = f"[{number + 1}/{rounds}] {video.name} {name}"
                print(f"{say}: {answer['seconds']:.2f} s", file=sys.stderr, flush=True)
    return answers


def summarise(
    answers: dict[str, dict[str, list[dict[str, float]]]],
) -> dict[str, dict[str, dict[str, float]]]:
    """Return medians and extremes in seconds, and the ratio to tellframe's median, by video."""
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for video, by_pipeline in answers.items():
        medians = {n: statistics.median(a["seconds"] for a in v) for n, v in by_pipeline.items()}
        for name, given in by_pipeline.items():
            seconds = [answer["seconds"] for answer in given]
            row = {
                "median": round(medians[name], 4),
                "min": round(min(seconds), 4),
                "max": round(max(seconds), 4),
                "computed": round(statistics.median(a["computed"] for a in given), 4),
                "peak_rss_mb": max(answer["peak_rss_mb"] for answer in given),
                "frames": given[-1]["frames"],
                "faces": given[-1].get("faces", 0),
            }
            if "tellframe" in medians:
                row["to_tellframe"] = round(medians[name] / medians["tellframe"], 3)
            rows.setdefault(video, {})[name] = row
    return rows


def to_markdown(result: dict[str, Any]) -> str:
    """Return the result as a table: seconds, and how many times those of tellframe they are."""
    pipelines = [name for name in NAMES if any(name in row for row in result["videos"].values())]
    copies = f", {result['copies']} copies of each video" if result["copies"] > 1 else ""
    lines = [
        f"Medians of {result['rounds']} rounds in turns{copies}, models loaded, on the same "
        f"{len(result['cores'])} cores; in brackets, how many times tellframe's.",
        "",
        "| video | " + " | ".join(NAMES[name] for name in pipelines) + " |",
        "| --- |" + " --- |" * len(pipelines),
    ]
    for video, row in result["videos"].items():
        cells = [_cell(row[name]) if name in row else "" for name in pipelines]
        lines.append(f"| {video} | " + " | ".join(cells) + " |")
    peaks = {
        name: max(row[name]["peak_rss_mb"] for row in result["videos"].values() if name in row)
        for name in pipelines
    }
    lines.append("| peak memory | " + " | ".join(f"{peaks[n]:.0f} MB" for n in pipelines) + " |")
    return "\n".join(lines) + "\n"


def _cell(timing: dict[str, float]) -> str:
    ratio = timing.get("to_tellframe")
    return f"{timing['median']:.2f} s" + (f" ({ratio:.2f})" if ratio is not None else "")


def main() -> None:
    """Run the script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--copies", type=int, default=1, help="judge each video so many times at once"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for peers.json, peers.md")
    parser.add_argument("--only", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--cores", default="", help="such as 0,1; default: the first two")
    parser.add_argument("--peers-python", type=Path, default=PEERS_PYTHON)
    options = parser.parse_args()
    if min(options.rounds, options.copies) < 1:
        parser.error("--rounds, --copies: give at least 1")
    for video in options.videos:
        if not video.is_file():
            parser.error(f"{video}: no such file")
    # Answers are told apart by file name.
    names = [video.name for video in options.videos]
    if twice := {name for name in names if names.count(name) > 1}:
        parser.error(f"give each file name once: {', '.join(sorted(twice))}")
    needs_peers = {"student", "winner"} & set(options.only)
    if needs_peers and not options.peers_python.is_file():
        parser.error(f"{options.peers_python}: not there; run {HERE / 'install.sh'} first")
    cores = [int(core) for core in options.cores.split(",") if core]
    cores = cores or sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)  # for the workers, too
    options.out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        teams = []
        for name in (n for n in NAMES if n in options.only):
            python = options.peers_python if name in needs_peers else Path(sys.executable)
            side_by_side = min(options.copies, len(cores))
            # tellframe shares out a folder by itself.
            team = (
                [Worker(name, python, len(cores), side_by_side)]
                if name == "tellframe"
                else [Worker(name, python, len(cores) // side_by_side) for _ in range(side_by_side)]
            )
            teams.append([stack.enter_context(worker) for worker in team])
        videos = [video.resolve() for video in options.videos]
        answers = measure(teams, videos, options.rounds, options.copies)
        versions = {team[0].name: team[0].versions for team in teams}
    result = {
        "kind": "peers",
        "rounds": options.rounds,
        "copies": options.copies,
        "cores": cores,
        "videos": summarise(answers),
        "versions": versions,
    }
    (options.out / "peers.json").write_text(json.dumps(result, indent=2) + "\n")
    (options.out / "peers.md").write_text(to_markdown(result))
    print(to_markdown(result), end="")


if __name__ == "__main__":
    main()
