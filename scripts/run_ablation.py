"""What carries the model, and what does not: one change at a time, several seeds, on the dev split.

    python scripts/run_ablation.py --labels ../shared/data/labels.csv \
        --stills ../shared/data/dev/dfdc_faces.zip --out runs/ablation

Every variant is trained, exported and measured by the commands that a user would type. What is
there already is not done again, and a folder is for the same labels and stills: settings.json says
which. `table.md` has what there is so far. Trainings are short, so that the differences count and
not the figures themselves.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from measuring import (
    digest_of,
    keep_settings,
    read_labels,
    run_script,
    run_tellframe,
    table,
    write_labels,
)
from tellframe.evaluate.metrics import prepare
from tellframe.evaluate.rows import Row, read_scores
from tellframe.evaluate.summary import draw_weights, interval_of, sample_rows

FRAME: Final = "configs/frame_lite0_stage1.toml"
SIZE: Final = 128
STEPS: Final = 200
SHORT: Final = (f"optim.steps={STEPS}", "optim.stop=0", "optim.warmup=20", "optim.ema=0.98",
                "optim.validate_every=1000")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Variant:
    """One row of the table."""

    name: str
    what: str
    settings: tuple[str, ...] = ()
    config: str = FRAME
    against: str = "base"
    size: int = SIZE
    frames: int = 10
    weights_of: str = ""
    """Measure the bundles of this variant instead of training."""


HEAD: Final = (
    *("data.shards=['{out}/faces']", "batch.frames=8", "batch.clip_pairs=3", "batch.part_blends=1"),
    *("batch.self_blends=1", "batch.video_pairs=0", "batch.still_pairs=0", "data.labels=''"),
    *("data.stills=[]", "data.portraits=[]", "model.pretrained=''", "model.frozen=true"),
    *("model.start='{out}/base-{seed}'", "model.hidden=128", "model.layers=1"),
    *("optim.lr=1e-3", "optim.steps=100", "optim.map_weight=0.0"),
)
VARIANTS: Final = (
    Variant("base", f"pairs together, self-blends, no codec, {SIZE} px, 10 frames"),
    Variant("apart", "real and fake of a batch from different scenes", ("batch.balance=apart",)),
    Variant(
        "no_blends",
        "no self-blends: matched pairs in their place",
        ("batch.self_blends=0", "batch.video_pairs=6", "batch.still_pairs=8"),
    ),
    Variant("codec", "half of the pairs through H.264", ("augment.h264=0.5",)),
    Variant("size_160", "160 px", size=160),
    Variant("size_224", "224 px", size=224),
    Variant("frames_5", "5 frames judged", frames=5, weights_of="base"),
    Variant("frames_20", "20 frames judged", frames=20, weights_of="base"),
    Variant("frames_32", "32 frames judged", frames=32, weights_of="base"),
    Variant("head_mean", "clips; mean over frames, frozen base", (*HEAD, "model.head=mean")),
    Variant(
        "head_attention",
        "clips; attention over frames, frozen base",
        (*HEAD, "model.head=attention"),
        against="head_mean",
    ),
    Variant(
        "head_gru",
        "clips; GRU over frames, frozen base",
        (*HEAD, "model.head=gru"),
        against="head_mean",
    ),
    Variant(
        "shuffle",
        "clips; GRU, frames of half of the clips shuffled",
        (*HEAD, "model.head=gru", "augment.shuffle=0.5"),
        against="head_gru",
    ),
)
SUBSETS: Final[dict[str, Callable[[Row], bool]]] = {
    "live face swaps": lambda r: r.source == "deepfacelive-pairs",
    "lip-sync": lambda r: r.source == "diff2lip-pairs",
    "all videos": lambda r: not r.still,
    "DFDC crops": lambda r: r.still,
}


def write_part(labels: Path, split: str, part: Path) -> Path:
    """Write the rows of one split, with whole paths."""
    write_labels([row for row in read_labels(labels) if row["split"] == split], part)
    return part


def measure(variant: Variant, seed: int, options: argparse.Namespace) -> None:
    """Train, export and evaluate one variant with one seed, as far as that is not done."""
    out: Path = options.out
    report = out / f"{variant.name}-{seed}-report"
    if (report / "scores.csv").exists():
        return
    bundle = out / f"{variant.weights_of or variant.name}-{seed}-bundle"
    if not variant.weights_of and not (bundle / "bundle.json").exists():
        folder = out / f"{variant.name}-{seed}"
        settings = [s.format(out=out, seed=seed) for s in (*SHORT, *variant.settings)]
        settings += [f"recipe.crop_size={variant.size}", f"optim.seed={seed}"]
        words = [w for s in settings for w in ("--set", s)]
        resume = ["--resume"] if (folder / "checkpoint.json").exists() else []
        run_tellframe("train", variant.config, "-o", str(folder), *words, *resume)
        run_tellframe("export", str(folder), "-o", str(bundle), "--name", variant.name)
    faces = out / f"dev_{variant.size}_{variant.frames}"
    if not (faces / "index.parquet").exists():
        recipe = (f"crop_size={variant.size}", f"num_frames={variant.frames}")
        words = [w for s in recipe for w in ("--set", s)]
        words += ("--recipe", str(bundle), "--quiet")
        run_tellframe("build", str(out / "dev.parquet"), "-o", str(faces), *words)
    judge = ("--model", str(bundle), "--stills", str(options.stills), "--quiet")
    frames = ("--frames", str(variant.frames)) if variant.weights_of else ()
    run_tellframe("evaluate", str(faces), "--split", "dev", *judge, *frames, "-o", str(report))


Figures = dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Of every subset the AUC, (seeds,), and of resampled groups, (seeds, resamples)."""


def read_figures(name: str, seeds: Sequence[int], out: Path) -> Figures | None:
    """Read the scores of all seeds of a variant; None where one is missing."""
    paths = [out / f"{name}-{seed}-report" / "scores.csv" for seed in seeds]
    if not all(path.exists() for path in paths):
        return None
    runs = [read_scores(path)[0] for path in paths]
    figures: Figures = {}
    for subset, chosen in SUBSETS.items():
        found = [_auc([r for r in rows if chosen(r) and r.logit is not None]) for rows in runs]
        figures[subset] = (np.array([f[0] for f in found]), np.stack([f[1] for f in found]))
    return figures


def _auc(rows: Sequence[Row]) -> tuple[float, NDArray[np.float64]]:
    rows = sorted(rows, key=lambda r: r.path)  # the same resamples for every variant
    of = prepare(sample_rows(rows))
    parts = [of(weights)["auc"] for weights in draw_weights([r.group or r.path for r in rows])]
    return float(of(np.ones((1, len(rows))))["auc"][0]), np.concatenate(parts)


def difference_interval(
    one: NDArray[np.float64], other: NDArray[np.float64]
) -> tuple[float, float] | None:
    """Return the 95 % interval of a difference of means over seeds, (seeds, resamples) each.

    Seeds are drawn with replacement as the groups are: both could have come out differently.
    """
    rng = np.random.default_rng(0)
    count, resamples = one.shape
    drawn = [
        values[rng.integers(count, size=(count, resamples)), np.arange(resamples)].mean(axis=0)
        for values in (one, other)
    ]
    return interval_of(drawn[0] - drawn[1])


def make_table(seeds: Sequence[int], out: Path) -> str:
    """Return the Markdown: mean AUC over seeds, and the difference to what it varies."""
    lines = []
    for variant in VARIANTS:
        figures = read_figures(variant.name, seeds, out)
        other = read_figures(variant.against, seeds, out)
        if figures is None or other is None:
            continue
        cells = [f"{variant.name}: {variant.what}"]
        for subset, (auc, resampled) in figures.items():
            cell = f"{auc.mean():.3f} ({auc.min():.3f}-{auc.max():.3f})"
            bounds = difference_interval(resampled, other[subset][1])
            if variant.name != variant.against and bounds:
                gap = auc.mean() - other[subset][0].mean()
                cell += f"; {gap:+.3f} [{bounds[0]:+.3f}, {bounds[1]:+.3f}]"
            cells.append(cell)
        lines.append(cells)
    return table(["variant", *SUBSETS], lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--labels", type=Path, required=True, help="CSV of labelled videos")
    parser.add_argument("--stills", type=Path, required=True, help="zip of single crops to measure")
    parser.add_argument("--out", type=Path, default=Path("runs/ablation"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=[v.name for v in VARIANTS])
    options = parser.parse_args()
    settings = {
        "labels": str(options.labels.resolve()),
        "digest of labels": digest_of(read_labels(options.labels)),
        "stills": str(options.stills.resolve()),
    }
    keep_settings(options.out, "ablation", settings)
    for split in ("train", "dev"):
        if not (options.out / f"{split}.parquet").exists():
            part = write_part(options.labels, split, options.out / f"{split}.csv")
            run_tellframe("index", str(part), "-o", str(options.out / f"{split}.parquet"))
    chosen = [v for v in VARIANTS if not options.only or v.name in options.only]
    if (
        any("faces" in s for v in chosen for s in v.settings)
        # An interrupted build lacks it, and is gone on with.
        and not (options.out / "faces" / "index.parquet").exists()
    ):
        recipe = ("--recipe", "configs/clip_gru.toml")
        wide = (*recipe, "--set=crop_size=320", "--set=margin=0.7", "--set=num_frames=32")
        run_tellframe(
            "build",
            str(options.out / "train.parquet"),
            "-o",
            str(options.out / "faces"),
            *wide,
            "--quiet",
        )
    for seed in options.seeds:
        for variant in chosen:
            measure(variant, seed, options)
            print(f"{variant.name} {seed}", flush=True)
    markdown = make_table(options.seeds, options.out)
    (options.out / "table.md").write_text(markdown, encoding="utf-8")
    print(markdown)


if __name__ == "__main__":
    run_script(main)
