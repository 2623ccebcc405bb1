"""TensorBoard shows what log.jsonl holds."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tellframe.cli import run, status
from tellframe.train import log as room
from tellframe.train import loop
from tellframe.train.log import open_log
from tellframe.train.loop import train

pytestmark = pytest.mark.train

NAMES = (
    "log_loss",
    *(f"{a}_{b}" for a in ("video", "still") for b in ("auc", "ranked", "log_loss")),
)


def events_of(folder):
    """Read {tag: {step: value}} back."""
    reader = EventAccumulator(str(folder / "tensorboard"))
    reader.Reload()
    return {tag: {e.step: e.value for e in reader.Scalars(tag)} for tag in reader.Tags()["scalars"]}


def rows_of(folder):
    """Read the same out of log.jsonl, of every step the last row."""
    found = {}
    for line in (folder / "log.jsonl").read_text().splitlines():
        row = json.loads(line)
        kind = "train" if "loss" in row else "validation"
        for name in row.keys() - {"step", "seconds"}:
            found.setdefault(f"{kind}/{name}", {})[row["step"]] = row[name]
    return found


def assert_same(events, rows):
    assert events.keys() == rows.keys()
    for tag in rows:
        assert events[tag] == pytest.approx(rows[tag], rel=1e-6), tag  # kept in float32


def test_a_run_is_logged_to_tensorboard(config, faces, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "load_data", lambda *_: (faces.data(), faces.data()))
    monkeypatch.setattr(loop, "keep_memory", lambda: None)  # changes the whole process
    config = dataclasses.replace(config, optim=dataclasses.replace(config.optim, validate_every=4))
    train(config, tmp_path, workers=0, tensorboard=True)
    events = events_of(tmp_path)
    assert_same(events, rows_of(tmp_path))
    names = {f"train/{n}" for n in ("loss", "pair", "map")} | {f"validation/{n}" for n in NAMES}
    assert events.keys() == names
    assert list(events["train/map"]) == list(range(6))
    assert list(events["validation/log_loss"]) == [3, 5]


def test_what_a_resumed_run_does_again_is_shown_once(tmp_path):
    for first, last in ((0, 5), (3, 7)):  # five steps, of which three reached a checkpoint
        with open_log(tmp_path, first, 7, 2, tensorboard=True) as log:
            for step in range(first, last):
                log(step, {"loss": first + step / 8})
    assert events_of(tmp_path)["train/loss"] == {
        **{step: step / 8 for step in range(3)},
        **{step: 3 + step / 8 for step in range(3, 7)},
    }


def test_without_the_option_there_is_no_such_folder(tmp_path):
    with open_log(tmp_path, 0, 1, 2, tensorboard=False) as log:
        log(0, {"loss": math.pi})
    assert [p.name for p in tmp_path.iterdir()] == ["log.jsonl"]


def test_of_several_processes_the_first_one_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(room, "rank", lambda: 1)
    with open_log(tmp_path, 0, 1, 2, tensorboard=True) as log:
        log(0, {"loss": math.pi})
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr().err == ""


def test_without_the_package_it_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(room, "find_spec", lambda name: None)
    (tmp_path / "config.toml").write_text("")
    words = ["train", str(tmp_path / "config.toml"), "-o", str(tmp_path / "run"), "--tensorboard"]
    assert run(words) == status.USAGE
    expected = "--tensorboard needs tensorboard; install it with: pip install 'tellframe[train]'"
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
