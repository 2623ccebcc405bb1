"""The DFDC project from zips to a scored submission, in its small form."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

from run_dfdc_project import run_project

pytestmark = pytest.mark.train
SMALL = (
    *("model.backbone=test_efficientnet", "recipe.crop_size=64", "model.hidden=16"),
    # So few videos have none for validation.
    *("data.validation_split=''", "optim.keep=last", "optim.schedule=cosine"),
)


@pytest.mark.timeout(900)
def test_from_zips_to_a_scored_submission(tmp_path, capfd):
    run_project(tmp_path, videos=24, zips=2, steps=4, overrides=SMALL)
    with (tmp_path / "submission.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len({r["filename"] for r in rows}) == 24
    assert all(0 <= float(r["label"]) <= 1 for r in rows)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report
    shown = capfd.readouterr().out
    assert "without a label, not counted: 1" in shown
    assert "log loss of the best constant" in shown
