"""Index, explore, build and verify the demo data, out of zips in a real S3 server.

    python scripts/run_demo_data.py --out out/demo-data --videos 120

Every step is the command that a user would type; it is printed before it runs.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT / "tests"), str(ROOT / "scripts")]

from make_demo_data import make_demo  # noqa: E402
from s3_server import S3Server  # noqa: E402
from tellframe.store import open_store  # noqa: E402

BUCKET = "demo"
DONE = 0
SOME_FAILED = 3
"""Exit status where a video cannot be read, as some of the demo data are made to be."""


def run(*words: str, expected: Collection[int] = (DONE,)) -> None:
    """Run a verb; show command and time; end here where it does not end as expected."""
    print(f"\n$ tellframe {shlex.join(words)}", flush=True)
    begin = time.monotonic()
    status = subprocess.run([sys.executable, "-m", "tellframe", *words], check=False).returncode
    print(f"({time.monotonic() - begin:.1f} s, exit status {status})", flush=True)
    if status not in expected:
        raise SystemExit(f"expected exit status {' or '.join(map(str, expected))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--videos", type=int, default=120, help="default: 120")
    parser.add_argument("--zips", type=int, default=3, help="default: 3")
    options = parser.parse_args()
    out: Path = options.out.resolve()
    make_demo(out / "zips", videos=options.videos, zips=options.zips)
    manifest = str(out / "manifest.parquet")
    # What an earlier run left may be of other videos, and its bucket could not be made again.
    shutil.rmtree(out / "s3", ignore_errors=True)
    with S3Server(out / "s3") as server:
        os.environ |= server.environment()
        server.create_bucket(BUCKET)
        store = open_store(f"s3://{BUCKET}")
        for path in sorted((out / "zips").glob("*.zip")):
            with path.open("rb") as file:
                store.put_if_absent(f"zips/{path.name}", file)
        source, faces = f"s3://{BUCKET}/zips", f"s3://{BUCKET}/faces"
        split = "train=0.8,validation=0.1,test=0.1"
        run("index", source, "-o", manifest, "--split", split)
        run("eda", manifest, "-o", str(out / "eda.html"), "--quiet")
        run("build", manifest, "-o", faces, "--quiet", expected=(SOME_FAILED,))
        run("data", "verify", faces, "--manifest", manifest)
    print(f"\nopen {out / 'eda.html'}")


if __name__ == "__main__":
    main()
