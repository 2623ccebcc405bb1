"""The trials of a sweep: what came of them, and what a folder and a person get to see of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import optuna
from optuna.trial import FrozenTrial, TrialState

from tellframe.report.files import open_replacing
from tellframe.train.config import TrainConfig
from tellframe.train.space import Space

ATTEMPTS: Final = 3
"""A trial that was cut off this often is given up: its settings may be what kills it."""
WEIGHTS: Final = (
    *("checkpoint.safetensors", "checkpoint.json", "best.safetensors"),
    "quality.safetensors",
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a trial."""

    number: int
    """From 0; its folder is trial-NNNN."""
    state: str
    """"done", "pruned", "failed", or "cut off" where it has to be done again."""
    value: float | None
    """Of the objective, for the weights that are kept; where pruned, when that was."""
    settings: Mapping[str, Any]
    """What was tried, by key."""
    measured: Mapping[str, float]
    """All figures of that validation."""
    steps: int
    """Steps of training until the last validation."""
    seconds: float | None
    error: str = ""

    @property
    def finished(self) -> bool:
        """Whether it counts."""
        return self.state != "cut off"


def read_outcomes(study: optuna.Study, space: Space) -> list[Outcome]:
    """Return all trials of a study in order."""
    outcomes: list[Outcome] = []
    lost = 0  # times in a row that the same settings were cut off
    for trial in study.get_trials(deepcopy=False):
        state, error = _state(trial), str(trial.user_attrs.get("error", ""))
        if state == "cut off":
            lost += "interrupted" not in trial.user_attrs
            if lost >= ATTEMPTS:
                state, error = "failed", f"cut off {lost} times"
        if state != "cut off":
            lost = 0
        outcomes.append(
            Outcome(
                number=trial.number,
                state=state,
                value=trial.value,
                settings=space.tidy(trial.params),
                measured=trial.user_attrs.get("measured", {}),
                steps=0 if trial.last_step is None else trial.last_step + 1,
                seconds=trial.duration.total_seconds() if trial.duration else None,
                error=error,
            )
        )
    return outcomes


def _state(trial: FrozenTrial) -> str:
    if trial.state == TrialState.COMPLETE:
        return "done"
    if trial.state == TrialState.PRUNED:
        return "pruned"
    return "failed" if "error" in trial.user_attrs else "cut off"


def find_best(outcomes: Sequence[Outcome], space: Space) -> Outcome | None:
    """Return the best of the trials that ran to their end, the first of equals."""
    ranked = rank(outcomes, space)
    return ranked[0] if ranked else None


def rank(outcomes: Sequence[Outcome], space: Space) -> list[Outcome]:
    """Return the trials that ran to their end, the best first."""
    sign = 1 if space.minimised else -1
    valued = [(sign * o.value, o) for o in outcomes if o.state == "done" and o.value is not None]
    return [o for _, o in sorted(valued, key=lambda pair: pair[0])]


def trial_folder(folder: Path, number: int) -> Path:
    """Return the training folder of a trial."""
    return folder / f"trial-{number:04}"


def record(
    outcomes: Sequence[Outcome],
    config: TrainConfig,
    space: Space,
    folder: Path,
    keep_all: bool = False,
) -> None:
    """Write trials.csv and best.toml, and delete the weights of all trials but the best.

    Args:
        outcomes: all trials.
        config: what they share.
        space: what differs.
        folder: of the study.
        keep_all: delete nothing.
    """
    write_table(outcomes, space, folder / "trials.csv")
    best = find_best(outcomes, space)
    if best:
        with open_replacing(folder / "best.toml") as stream:
            stream.write(_best_toml(best, outcomes, config, space))
    for outcome in outcomes:
        if not keep_all and outcome is not best:
            for name in WEIGHTS:
                (trial_folder(folder, outcome.number) / name).unlink(missing_ok=True)


def write_table(outcomes: Sequence[Outcome], space: Space, path: Path) -> None:
    """Write one row a trial: state, value, settings, figures, steps, seconds and error."""
    measured = sorted({name for o in outcomes for name in o.measured})
    with open_replacing(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(
            ["trial", "state", "value", *space.parameters, *measured, "steps", "seconds", "error"]
        )
        for o in outcomes:
            settings = [o.settings.get(key, "") for key in space.parameters]
            figures = [o.measured.get(name, "") for name in measured]
            seconds = "" if o.seconds is None else round(o.seconds, 1)
            value = "" if o.value is None else o.value
            writer.writerow(
                [o.number, o.state, value, *settings, *figures, o.steps, seconds, o.error]
            )


def _best_toml(
    best: Outcome, outcomes: Sequence[Outcome], config: TrainConfig, space: Space
) -> str:
    finished = sum(o.finished for o in outcomes)
    chosen = space.apply(config, best.settings)
    lines = [
        f"# Trial {best.number}, the best of {finished}: {space.objective} {best.value:.6g}",
        f"# Searched: {', '.join(space.parameters)}",
        f"# tellframe {version('tellframe')}, recipe {chosen.recipe.digest}, "
        f"seed {chosen.optim.seed}",
    ]
    return "\n".join(lines) + "\n" + to_toml(chosen)


def to_toml(config: TrainConfig) -> str:
    """Return a configuration as TOML that reads back as the same."""
    lines: list[str] = []
    for table, fields in config.to_dict().items():
        if isinstance(fields, dict):
            lines.append(f"\n[{table}]")
            lines += [f"{name} = {_toml_value(value)}" for name, value in fields.items()]
        else:
            lines.append(f"{table} = {_toml_value(fields)}")
    return "\n".join(lines) + "\n"


def _toml_value(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(_toml_value(v) for v in value)}]"
    if isinstance(value, float):
        return repr(value)
    # The escapes of JSON are TOML's too; DEL alone JSON leaves as it is.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def progress(outcomes: Sequence[Outcome], space: Space, total: int) -> str:
    """Return one line: the last trial, the best so far, and the time left."""
    last, best = outcomes[-1], find_best(outcomes, space)
    finished = sum(o.finished for o in outcomes)
    parts = [f"trial {last.number} ({finished}/{total})"]
    parts += [f"{k} {show(v)}" for k, v in last.settings.items()]
    if last.state == "failed":
        # Torch's messages go on for many lines; the table has them all.
        parts.append(f"failed: {last.error.partition(chr(10))[0]}")
    else:
        value = "nan" if last.value is None else f"{last.value:.4f}"
        early = f" pruned after {last.steps} steps" if last.state == "pruned" else ""
        parts.append(f"{space.objective} {value}{early}")
    if best and best.value is not None:
        parts.append(f"best {best.value:.4f} (trial {best.number})")
    spent = [o.seconds for o in outcomes if o.state in ("done", "pruned") and o.seconds is not None]
    if spent:
        left = sum(spent) / len(spent) * max(total - finished, 0) / 60
        parts.append(f"{left:.0f} min left")
    return "  ".join(parts)


def show(value: Any) -> str:
    """Return a setting for people, numbers to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def tabulate(outcomes: Sequence[Outcome], space: Space, rows: int = 5) -> str:
    """Return the best trials as a table for people."""
    head = ["TRIAL", space.objective.upper(), *space.parameters, "STEPS", "SECONDS"]
    body = [
        [
            str(o.number),
            f"{o.value:.4f}",
            *(show(o.settings[key]) for key in space.parameters),
            str(o.steps),
            "" if o.seconds is None else f"{o.seconds:.0f}",
        ]
        for o in rank(outcomes, space)[:rows]
    ]
    widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        for row in [head, *body]
    )
