"""Fuzz one of our parsers with atheris: `python fuzz/run.py TARGET [SECONDS]`; see README.md."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["tellframe", "json", "tomllib", "zipfile"]):
    from targets import TARGETS


def main(name: str, seconds: str = "600") -> None:
    """Run until the time is over or something is found, which is written to this folder."""
    call, seeds = TARGETS[name]
    corpus = Path(tempfile.mkdtemp(prefix=f"corpus-{name}-"))
    for number, seed in enumerate(seeds):
        (corpus / f"seed{number}").write_bytes(seed)
    # atheris 3.0.0 keeps the result of every comparison of arrays, of which only MTCNN has many.
    memory = 12_000 if name == "mtcnn" else 3000
    limits = [f"-max_total_time={seconds}", "-max_len=16384", "-timeout=20"]
    limits.append(f"-rss_limit_mb={memory}")
    atheris.Setup([sys.argv[0], *limits, "-print_final_stats=1", str(corpus)], call)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
