"""Judge many files in one process, and watch memory, descriptors and children.

    python scripts/soak_detect.py --files 10000 --workers 3 --out soak.json

A few small files, sound and damaged, come round and round; every thousandth ends all workers.
Memory of this process and of its largest worker, open descriptors and child processes are written
down every hundred files. Ends with status 1 where one of them grew.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import tellframe

ROOT: Final = Path(__file__).resolve().parents[1]
EVERY: Final = 100
"""Files from one look at what is held to the next."""
FIFTH: Final = 5
"""The second fifth of the files, when all is warm, is compared with the last."""
GROWTH: Final = {"rss_mb": 1.1, "worker_rss_mb": 1.1, "descriptors": 1.0, "children": 1.0}
"""What is watched, and the factor by which it may still differ."""


def main() -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.files < FIFTH * EVERY:
        parser.error(f"--files: at least {FIFTH * EVERY}, or nothing can be compared")
    if options.workers < 1:
        parser.error("--workers: at least 1")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        rows = list(soak(options.files, options.workers, Path(folder)))
    fault = find_growth(rows)
    result = {"files": options.files, "workers": options.workers, "fault": fault, "rows": rows}
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for row in (rows[0], rows[len(rows) // 2], rows[-1]):
        print(row)
    print(fault or "nothing grew")
    return 1 if fault else 0


def soak(count: int, workers: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Judge so many files; yield what this process holds, every hundred files."""
    paths = itertools.islice(itertools.cycle(make_files(folder)), count)
    detector = tellframe.load(num_frames=3, workers=workers, keep_evidence=False)
    begin, errors = time.monotonic(), 0
    for number, verdict in enumerate(detector.detect_many(paths), start=1):
        errors += verdict.error is not None
        if number % 1000 == 0:
            for child in children():
                os.kill(child, 9)
        if number % EVERY == 0:
            living = children()
            yield {
                "files": number,
                "seconds": round(time.monotonic() - begin, 1),
                "errors": errors,
                "rss_mb": resident(os.getpid()),
                "worker_rss_mb": max(map(resident, living), default=0.0),
                "descriptors": len(list(Path("/proc/self/fd").iterdir())),
                "children": len(living),
            }
    detector.close()


def make_files(folder: Path) -> list[Path]:
    """Write sound and damaged files; return their paths, one of them of no file."""
    data = (ROOT / "samples" / "real.mp4").read_bytes()
    contents = {"sound": data, "cut": data[: len(data) // 2], "text": b"no video", "empty": b""}
    for name, content in contents.items():
        (folder / f"{name}.mp4").write_bytes(content)
    return [*(folder / f"{name}.mp4" for name in contents), folder / "missing.mp4", folder]


def children() -> list[int]:
    """Return the ids of the child processes, dead ones that nobody waited for included."""
    found: list[str] = []
    for thread in Path("/proc/self/task").iterdir():
        found += (thread / "children").read_text().split()
    return sorted({int(child) for child in found})


def resident(process: int) -> float:
    """Return the resident size of a process in MB; 0 where it has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def find_growth(rows: list[dict[str, Any]]) -> str:
    """Return what grew from the second fifth to the last, by their maxima; empty for nothing."""
    size = len(rows) // FIFTH
    for name, factor in GROWTH.items():
        early = max(row[name] for row in rows[size : 2 * size])
        late = max(row[name] for row in rows[-size:])
        if late > factor * early:
            return f"{name}: from {early} to {late}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
