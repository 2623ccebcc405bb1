"""How groups are dealt out for cross-validation."""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="needs the extra: pip install 'tellframe[data]'")

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import cross_validate
from tellframe.errors import UsageError
from tellframe.evaluate.sources import COLUMNS


def label(path, source="swaps", group="", pair="", split="train"):
    return dict(zip(COLUMNS, (path, "REAL", source, "m", group, pair, split), strict=True))


ROWS = [
    *(label(f"{n}-{half}", group=f"g{n}", pair=f"p{n}") for n in range(7) for half in "ab"),
    *(label(f"lip-{n}", "lips", f"l{n}", f"q{n}", "dev") for n in range(3)),
    label("shared", "lips", "g1", "q9", "dev"),
    label("alone", "talks", "t0"),
    label("alone in dev", "talks", "t1", split="dev"),
]


def test_groups_of_every_source_are_dealt_out_evenly():
    fold_of = cross_validate.deal_out(ROWS, 3)
    assert set(fold_of) == {f"g{n}" for n in range(7)} | {f"l{n}" for n in range(3)}
    sizes = Counter(fold for group, fold in fold_of.items() if group.startswith("g"))
    assert sorted(sizes.values()) == [2, 2, 3]


def test_a_fold_is_never_trained_on_and_each_video_is_held_once(tmp_path):
    fold_of = cross_validate.deal_out(ROWS, 3)
    held = Counter()
    for fold in range(3):
        cross_validate.write_fold(ROWS, fold_of, fold, tmp_path / "fold.csv")
        with (tmp_path / "fold.csv").open(encoding="utf-8") as file:
            written = list(csv.DictReader(file))
        splits = {row["path"]: row["split"] for row in written}
        assert splits["alone"] == "train"
        assert "alone in dev" not in splits
        mine = {row["path"] for row in written if row["split"] == cross_validate.HELD}
        trained = {row["group"] for row in written if row["split"] == "train"}
        assert not trained & {row["group"] for row in written if row["path"] in mine}
        held.update(mine)
    assert held == {row["path"]: 1 for row in ROWS if row["pair"]}


def test_paths_stay_right_wherever_the_labels_of_a_fold_lie(tmp_path):
    columns = ",".join(COLUMNS)
    (tmp_path / "labels.csv").write_text(f"{columns}\nclips/a.mp4,REAL,s,m,g,p,train\n")
    (row,) = cross_validate.read_labels(tmp_path / "labels.csv")
    assert row["path"] == str((tmp_path / "clips" / "a.mp4").resolve())


def test_the_second_network_of_a_fold_starts_from_its_first_and_judges_beside_it(
    tmp_path, monkeypatch
):
    commands = []
    monkeypatch.setattr(cross_validate, "run_tellframe", lambda *words: commands.append(words))
    monkeypatch.setattr(cross_validate, "read_scores", lambda _path: ([], None))
    options = argparse.Namespace(
        out=tmp_path, config="one.toml", steps=4, beside="two.toml", beside_steps=8, set=[]
    )
    cross_validate.judge_fold(1, options)
    first, second, export, evaluate = commands
    run, beside = str(tmp_path / "fold-1"), str(tmp_path / "fold-1-beside")
    labels = f"data.labels='{tmp_path / 'fold-1.csv'}'"
    assert first[:4] == ("train", "one.toml", "-o", run)
    assert second[:4] == ("train", "two.toml", "-o", beside)
    assert labels in first
    assert labels in second
    assert f"model.start='{tmp_path / 'base'}'" in first
    assert f"model.start='{run}'" in second
    assert export[:3] == ("export", run, beside)
    assert evaluate[:2] == ("evaluate", str(tmp_path / "fold-1.csv"))


def test_folds_of_another_cross_validation_are_not_taken_for_ones_own(tmp_path, monkeypatch):
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["x", "--labels", str(labels), "--out", str(out), *words])
        cross_validate.main()

    labels, out = tmp_path / "labels.csv", tmp_path / "out"
    cross_validate.write_labels(ROWS, labels)
    monkeypatch.setattr(cross_validate, "train", lambda *_: None)
    monkeypatch.setattr(cross_validate, "judge_fold", lambda *_: [])
    call("--set", "optim.seed=1")
    call("--set", "optim.seed=1")
    for words in ([], ["--set", "optim.seed=1", "--steps", "9"]):
        with pytest.raises(UsageError, match="another cross-validation"):
            call(*words)
    cross_validate.write_labels(ROWS[:-1], labels)
    with pytest.raises(UsageError, match="digest of labels"):
        call("--set", "optim.seed=1")
