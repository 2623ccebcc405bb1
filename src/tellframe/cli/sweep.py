"""Searching for better settings: `sweep`."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from tellframe.cli import status
from tellframe.cli.options import add_verb, asked_workers
from tellframe.cli.outputs import check_output
from tellframe.cli.training import need_train
from tellframe.errors import UsageError


def add_sweep(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_sweep,
        "sweep",
        "search for better settings of a training configuration",
        "tellframe sweep configs/frame_lite0.toml configs/sweep_frame_lite0.toml -o runs/sweep",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="what all trials share")
    parser.add_argument("space", type=Path, metavar="SPACE.toml", help="what is searched")
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="DIR",
        help="the study; given again, the search goes on",
    )
    parser.add_argument(
        "--trials", type=int, metavar="N", help="finished in all; default: what SPACE.toml says"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of the choice of settings"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="such as optim.steps=400"
    )
    parser.add_argument(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="processes that prepare batches; default: %(default)s",
    )
    parser.add_argument(
        "--keep-all", action="store_true", help="keep the weights of all trials, not of the best"
    )


def run_sweep(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    need_train("sweep", "optuna")
    from tellframe.train.config import load_config
    from tellframe.train.quality import fit_probe, has_probe
    from tellframe.train.space import load_space
    from tellframe.train.sweep import sweep
    from tellframe.train.trials import rank, tabulate, trial_folder

    config, space = load_config(options.config, options.set), load_space(options.space)
    fixed = {text.partition("=")[0].strip() for text in options.set}
    if both := sorted(fixed & set(space.parameters)):
        raise UsageError(f"--set {both[0]}: {options.space} searches it; do one or the other")
    folder: Path = options.output
    check_output("-o", folder, folder=True)
    outcomes = sweep(
        config,
        space,
        folder,
        trials=options.trials,
        seed=options.seed,
        workers=asked_workers(options),
        keep_all=options.keep_all,
    )
    ranked = rank(outcomes, space)
    states = Counter(o.state for o in outcomes)
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    if not ranked:
        print(f"no trial ran to its end ({counts}); {folder / 'trials.csv'} says why")
        return status.NONE_ANALYSED
    print(tabulate(outcomes, space))
    print(f"{counts}; all in {folder / 'trials.csv'}; the best in {folder / 'best.toml'}")
    best = trial_folder(folder, ranked[0].number)
    if config.quality.crops and not has_probe(best):
        fit_probe(best, backbone=config.model.backbone)
    print(f"next: tellframe export {best} -o BUNDLE")
    return status.SOME_FAILED if states["failed"] else status.DONE
