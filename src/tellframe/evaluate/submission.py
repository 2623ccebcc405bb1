"""Kaggle's form of an answer: filename and P(fake) of every video, and what it scores."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final

import numpy as np

from tellframe.data.manifest import read_manifest
from tellframe.errors import DataError, UsageError
from tellframe.evaluate.metrics import CLIP, log_loss, prior_log_loss, roc_auc
from tellframe.report.files import open_replacing

HEADER: Final = ("filename", "label")
_SHOWN: Final = 5
"""Names that a message lists."""
_CLASSES: Final = {"REAL": 0, "FAKE": 1, "0": 0, "1": 1}


def name_files(paths: Iterable[str]) -> list[str]:
    """Return the file names of videos, by which a submission knows them.

    Raises:
        UsageError: two have the same, or one cannot be written in a CSV.
    """
    paths = list(paths)
    names = [PurePosixPath(path).name for path in paths]
    for path, name in zip(paths, names, strict=True):
        # Bytes that are not UTF-8 are surrogates here, which no file can hold.
        if not name or any(c in "\r\n" or "\ud800" <= c <= "\udfff" for c in name):
            raise UsageError(f"{path!r}: not a file name that a submission can hold; rename it")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        same = [path for path, name in zip(paths, names, strict=True) if name == twice[0]]
        raise UsageError(
            f"{len(twice)} file names are there more than once, such as {' and '.join(same[:2])}; "
            "a submission has one row a name: submit one folder at a time, or rename them"
        )
    return names


def write_submission(answers: Mapping[str, float], path: str | Path) -> None:
    """Write a submission; replaced only when complete.

    Args:
        answers: P(fake) by file name.
        path: of the CSV.
    """
    with open_replacing(path) as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows((name, repr(p)) for name, p in answers.items())


def read_submission(path: str | Path) -> dict[str, float]:
    """Read a submission.

    Raises:
        DataError: it cannot be read, names a file twice, or says what is no probability.
    """
    answers: dict[str, float] = {}
    for line, name, text in _read_pairs(path):
        try:
            answers[name] = float(text)
        except ValueError:
            answers[name] = math.nan
        if not 0 <= answers[name] <= 1:
            raise DataError(f"{path}: line {line}: {name}: {text!r} is no probability")
    return answers


def read_truth(path: str | Path) -> dict[str, int | None]:
    """Read labels by file name, 1 = FAKE; None for a video of a manifest that has no label.

    Args:
        path: DFDC's metadata.json, a manifest (.parquet), or a CSV with the columns filename (or
            path, or video) and label: REAL or FAKE, 1 or 0.

    Raises:
        DataError: it cannot be read, or a label is neither.
        UsageError: two files have the same name.
    """
    text = str(path)
    if text.endswith(".parquet"):
        named: Sequence[tuple[str, Any]] = [(v.video, v.label) for v in read_manifest(path)]
    elif text.endswith(".json"):
        named = _read_metadata(path)
    else:
        named = [(name, label) for _, name, label in _read_pairs(path)]
    names = name_files(name for name, _ in named)
    truth: dict[str, int | None] = {}
    for name, (_, label) in zip(names, named, strict=True):
        if label == "" and text.endswith(".parquet"):
            truth[name] = None
            continue
        if str(label) not in _CLASSES:
            raise DataError(f"{path}: {name}: label {label!r}, expected REAL or FAKE, 0 or 1")
        truth[name] = _CLASSES[str(label)]
    if not truth:
        raise DataError(f"{path}: holds no labels")
    return truth


def _read_metadata(path: str | Path) -> list[tuple[str, Any]]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        return [(name, facts["label"]) for name, facts in found.items()]
    except (OSError, ValueError, AttributeError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as metadata.json ({error!r})") from error


def _read_pairs(path: str | Path) -> list[tuple[int, str, str]]:
    """Return line, name and label of the rows of a CSV."""
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="")
            columns = reader.fieldnames or ()
            key = next((c for c in ("filename", "path", "video") if c in columns), "")
            if not key or "label" not in columns:
                raise DataError(f"{path}: lacks the columns filename and label")
            rows = [(reader.line_num, r[key], r["label"]) for r in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as a CSV ({error})") from error
    seen: set[str] = set()
    for line, name, _ in rows:
        if name in seen:
            raise DataError(f"{path}: line {line}: {name} is there twice")
        seen.add(name)
    return rows


def score_submission(
    answers: Mapping[str, float], truth: Mapping[str, int | None]
) -> dict[str, Any]:
    """Score a submission.

    Args:
        answers: P(fake) by file name.
        truth: labels by file name; where there is none, the answer does not count.

    Returns:
        n, n_fake, unlabelled, log_loss (clipped at `CLIP`), log_loss_unclipped (inf where a
        certain answer is wrong), log_loss_prior of the best constant, and auc; NaN where a class
        is missing.

    Raises:
        DataError: it lacks a file, or has one too many; the message names them.
    """
    problems = [
        f"{len(names)} {what}: {', '.join(names[:_SHOWN])}{', ...' if names[_SHOWN:] else ''}"
        for what, names in (
            ("files are missing", sorted(truth.keys() - answers.keys())),
            ("files have no label", sorted(answers.keys() - truth.keys())),
        )
        if names
    ]
    if problems:
        raise DataError("the submission does not match the labels: " + "; ".join(problems))
    labelled = [name for name in answers if truth[name] is not None]
    if not labelled:
        raise DataError("the labels are all empty: nothing can be scored")
    fake = np.array([truth[name] for name in labelled], dtype=np.int64)
    p = np.array([answers[name] for name in labelled])
    with np.errstate(divide="ignore"):
        unclipped = -np.log(np.where(fake == 1, p, 1 - p))
    return {
        "n": len(fake),
        "n_fake": int(fake.sum()),
        "unlabelled": len(answers) - len(labelled),
        "log_loss": log_loss(fake, p),
        "log_loss_unclipped": float(unclipped.mean()),
        "log_loss_prior": prior_log_loss(fake),
        "auc": roc_auc(fake, p),
        "clip": CLIP,
    }
