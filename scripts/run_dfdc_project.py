"""The DFDC project from end to end on made-up data, by the commands that a user would type.

    python scripts/run_dfdc_project.py --out out/dfdc-project --videos 120 --steps 200

Zips -> index -> eda -> build -> train -> export -> evaluate per number of faces -> submit -> score.
The videos are synthetic: what is shown is that the steps fit together, not how good a model is.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "scripts"))

from make_demo_data import make_demo  # noqa: E402
from run_demo_data import DONE, SOME_FAILED, run  # noqa: E402


def run_project(
    out: Path, *, videos: int, zips: int, steps: int, overrides: tuple[str, ...] = ()
) -> None:
    """Run every step; end with an error where one does not do what it should.

    Args:
        out: folder for all that comes of it.
        videos: how many to make.
        zips: how many parts.
        steps: of training.
        overrides: of the training configuration, "table.key=value".
    """
    make_demo(out / "zips", videos=videos, zips=zips)
    manifest, faces, bundle = (str(out / n) for n in ("manifest.parquet", "faces", "bundle"))
    trained, submission = str(out / "trained"), str(out / "submission.csv")
    split = "train=0.6,validation=0.2,test=0.2"
    run("index", str(out / "zips"), "-o", manifest, "--split", split)
    run("eda", manifest, "-o", str(out / "eda.html"), "--quiet")
    config = str(ROOT / "configs/dfdcnet_mixnet_m.toml")
    build = ("--recipe", config, "--quiet")
    run("build", manifest, "-o", faces, *build, expected=(SOME_FAILED,))
    data = (f'data.shards=["{faces}"]', "data.validation_split=validation")
    options = (*data, f"optim.steps={steps}", *overrides)
    settings = [word for option in options for word in ("--set", option)]
    run("train", config, "-o", trained, *settings)
    run("export", trained, "-o", bundle)
    judge = ("--model", bundle, "--split", "test", "-o", str(out / "report"))
    # Whether one that cannot be read is in the split hangs on how many videos are made.
    run("evaluate", manifest, *judge, expected=(DONE, SOME_FAILED))
    run("submit", bundle, manifest, "-o", submission, expected=(SOME_FAILED,))
    run("score", submission, manifest)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--videos", type=int, default=120, help="default: 120")
    parser.add_argument("--zips", type=int, default=3, help="default: 3")
    parser.add_argument("--steps", type=int, default=200, help="of training; default: 200")
    options = parser.parse_args()
    run_project(
        options.out.resolve(), videos=options.videos, zips=options.zips, steps=options.steps
    )


if __name__ == "__main__":
    main()
