"""Scored rows for the tests of evaluation."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tellframe.evaluate import summary
from tellframe.evaluate.rows import Row
from tellframe.types import Label


def make_row(fake: bool, logit: float | None, group: str = "g", **more) -> Row:
    """Return one row; verdicts at 0.5."""
    probability = None if logit is None else 1 / (1 + math.exp(-logit))
    verdict = Label.INCONCLUSIVE if logit is None else Label.FAKE if logit > 0 else Label.REAL
    values = {
        **{"path": "p", "source": "s", "method": "m", "pair": "", "verdict": verdict},
        **{"outcome": "no_face" if logit is None else "ok", "people": int(logit is not None)},
    }
    return Row(fake=fake, group=group, logit=logit, probability=probability, **{**values, **more})


def make_rows(count: int = 60, gap: float = 1.5, seed: int = 0) -> list[Row]:
    """Return rows of two sources and three methods, some of them without a face."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(count):
        fake = n % 3 > 0
        logit = None if n % 20 == 7 else float(rng.normal(gap * fake, 1))
        rows.append(
            make_row(
                fake,
                logit,
                f"group{n // 3}",
                path=f"part_{n % 2}/{n:03d}.mp4",
                source=f"source {n // 3 % 2}",
                method=f"method {n % 3}" if fake else "",
                pair=f"part_{(n - n % 3) % 2}/{n - n % 3:03d}.mp4",
                part=f"part_{n % 2}",
                split="test",
                codec="h264" if n % 5 else "hevc",
                people=0 if logit is None else 1 + n % 5,
                brightness=None if logit is None else float(rng.uniform(20, 200)),
                face_size=None if logit is None else float(rng.uniform(30, 400)),
                reasons=("no_face",) if logit is None else (),
            )
        )
    return rows


def make_stills(path: Path, names: list[tuple[str, str, str]]) -> Path:
    """Write a zip of grey crops with their file, label and original."""
    with zipfile.ZipFile(path, "w") as archive:
        lines = ["file,label,original"]
        for name, label, original in names:
            buffer = io.BytesIO()
            Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(buffer, "PNG")
            archive.writestr(name, buffer.getvalue())
            lines.append(f"{name},{label},{original}")
        archive.writestr("labels.csv", "\n".join(lines))
    return path


@pytest.fixture
def write_stills() -> Callable[..., Path]:
    """Return `make_stills`."""
    return make_stills


@pytest.fixture
def row() -> Callable[..., Row]:
    """Return `make_row`."""
    return make_row


@pytest.fixture
def rows() -> Callable[..., list[Row]]:
    """Return `make_rows`."""
    return make_rows


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make intervals quick, and rough."""
    monkeypatch.setattr(summary, "RESAMPLES", 60)
