"""Judge many files in one process, and watch memory, descriptors and children.

    python scripts/soak_detect.py --files 10000 --out soak.json

A few small files, sound and damaged, come round and round; every thousandth ends its worker.
Memory of this process and of the worker, open descriptors and child processes are written down
every hundred files. Ends with status 1 where one of them grew.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tellframe

ROOT = Path(__file__).resolve().parents[1]
WARM = 0.2
"""Share of the files after which things may no longer grow."""
GROWTH = 1.1
"""Factor by which memory may still differ."""


def main() -> int:
    """Run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = list(soak(options.files, Path(folder)))
    fault = find_growth(rows)
    result = {"files": options.files, "fault": fault, "rows": rows}
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for row in (rows[0], rows[len(rows) // 2], rows[-1]):
        print(row)
    print(fault or "nothing grew")
    return 1 if fault else 0


def soak(count: int, folder: Path) -> Iterator[dict[str, Any]]:
    """Judge so many files; yield what this process holds, every hundred files."""
    paths = make_files(folder)
    detector = tellframe.load(num_frames=2, keep_evidence=False)
    begin, errors = time.monotonic(), 0
    for number in range(1, count + 1):
        if number % 1000 == 0:
            for child in children():
                os.kill(child, 9)
        for verdict in detector.detect_many([paths[number % len(paths)]]):
            errors += verdict.error is not None
        if number % 100 == 0:
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
    found = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    threads = Path("/proc/self/task").iterdir()
    for thread in threads:
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
    """Return what grew after the first fifth; empty where nothing did."""
    later = rows[int(len(rows) * WARM) :]
    for name in ("rss_mb", "worker_rss_mb"):
        if later[-1][name] > GROWTH * max(later[0][name], 1):
            return f"{name}: from {later[0][name]} to {later[-1][name]}"
    for name in ("descriptors", "children"):
        if later[-1][name] > later[0][name]:
            return f"{name}: from {later[0][name]} to {later[-1][name]}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
