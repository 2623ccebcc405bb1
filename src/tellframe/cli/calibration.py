"""From logits to probabilities and verdicts: `calibrate`."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tellframe.cli import status
from tellframe.cli.evaluation import (
    add_source_options,
    open_task,
    require_same_model,
    say_failed,
)
from tellframe.cli.options import add_verb
from tellframe.errors import UsageError

if TYPE_CHECKING:
    from tellframe.evaluate.rows import Row
    from tellframe.scoring import Calibration, Decision


def add_calibrate(verbs: Any) -> None:
    """Add the verb."""
    parser = add_verb(
        verbs,
        run_calibrate,
        "calibrate",
        "fit a bundle's calibration on half of the groups of labelled videos",
        "tellframe calibrate labels.csv --model bundles/mine --error-rate 0.05",
    )
    add_source_options(parser)
    parser.add_argument(
        "--method",
        choices=("platt", "temperature"),
        default="platt",
        help="fit a slope and an intercept, or a slope alone; default: platt",
    )
    parser.add_argument(
        "--prior-use",
        type=float,
        default=0.5,
        metavar="P",
        help="share of fakes where the model will be used; default: 0.5",
    )
    parser.add_argument(
        "--prior-train",
        type=float,
        default=0.5,
        metavar="P",
        help="share of fakes for which the fit holds; default: 0.5, as both classes weigh the same",
    )
    parser.add_argument(
        "--error-rate",
        type=float,
        metavar="E",
        help="widen the inconclusive zone until at most this share of the reals is called FAKE, "
        "and of the fakes REAL",
    )
    parser.add_argument(
        "--miss-rate", type=float, metavar="E", help="another share for fakes called REAL"
    )


def run_calibrate(options: argparse.Namespace) -> int:
    """Run the verb; return the exit status."""
    from tellframe.bundle import load_bundle, write_bundle
    from tellframe.evaluate.calibration import (
        calibrate,
        choose_limits,
        choose_rows,
        describe_data,
        recalibrated,
        sources_of,
    )
    from tellframe.evaluate.metrics import load_sklearn
    from tellframe.evaluate.summary import tables

    if not options.model or not (Path(options.model) / "bundle.json").is_file():
        raise UsageError("calibrate changes the bundle: give its folder with --model")
    for name in ("error_rate", "miss_rate"):
        rate = getattr(options, name)
        if rate is not None and not 0 <= rate < 0.5:
            raise UsageError(f"--{name.replace('_', '-')} {rate}: give a share from 0 to below 0.5")
    if options.miss_rate is not None and options.error_rate is None:
        raise UsageError("--miss-rate: give --error-rate as well, the share of reals called FAKE")
    _check_priors(options)
    load_sklearn()
    bundle = load_bundle(options.model)
    task = open_task(options)
    require_same_model(task.run, bundle)
    if task.run.recipe_digest not in ("", bundle.recipe.digest):
        raise UsageError(
            f"the scores are of recipe {task.run.recipe_digest}, the bundle's is "
            f"{bundle.recipe.digest}: calibrate without --frames and --face-detector"
        )
    scored = task.score()
    calibration = calibrate(
        scored,
        describe_data(task.run.source, task.run.split),
        method=options.method,
        prior_train=options.prior_train,
        prior_use=options.prior_use,
    )
    decision = bundle.decision
    rows = recalibrated(scored, calibration, decision)
    if options.error_rate is not None:
        misses = options.error_rate if options.miss_rate is None else options.miss_rate
        decision = choose_limits(choose_rows(rows), options.error_rate, misses, decision)
        rows = recalibrated(rows, calibration, decision)
    seen = sources_of(calibration.fitted_on, task.run.source, task.run.split)
    metrics = {name: _keep(figures) for name, figures in tables(rows, seen).items()}
    write_bundle(
        dataclasses.replace(bundle, calibration=calibration, decision=decision, metrics=metrics),
        Path(options.model),
    )
    _say_calibration(calibration, decision, rows)
    return say_failed([rows]) if task.reads else status.DONE


def _check_priors(options: argparse.Namespace) -> None:
    for name in ("prior_use", "prior_train"):
        if not 0 < getattr(options, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')}: give a share between 0 and 1")


_KEPT = (
    *("auc", "pr_auc", "log_loss", "balanced_log_loss", "pair_ranking", "coverage"),
    *("false_alarm_rate", "miss_rate", "inconclusive_rate"),
)


def _keep(figures: dict[str, Any]) -> dict[str, Any]:
    """Return what a bundle says of itself."""
    kept = {k: figures[k] for k in ("n", "n_fake", "n_pairs", "groups")}
    return kept | {k: figures[k] for name in _KEPT for k in (name, f"{name}_95")}


def _say_calibration(calibration: Calibration, decision: Decision, rows: Iterable[Row]) -> None:
    """Print what was fitted, and what its limits call wrongly."""
    from tellframe.evaluate.calibration import choose_rows, count_errors
    from tellframe.evaluate.rows import in_calibration_half

    scored = list(rows)
    print(
        f"{calibration.method}: slope {calibration.slope:.4f}, intercept "
        f"{calibration.intercept:.4f}, shift {calibration.shift:+.4f} of the log-odds"
    )
    print(f"FAKE from {decision.fake_from:g} on, REAL up to {decision.real_to:g}")
    for name, some in (
        ("fitted on", choose_rows(scored)),
        ("not seen", [r for r in scored if not in_calibration_half(r.group)]),
    ):
        e = count_errors(some, decision)
        print(
            f"{name}: {_share(e.false_alarms, e.reals)} reals called FAKE, "
            f"{_share(e.missed, e.fakes)} fakes called REAL, {e.undecided} inconclusive"
        )


def _share(count: int, total: int) -> str:
    return f"{count} of {total}" + (f" ({100 * count / total:.1f} %)" if total else "")
