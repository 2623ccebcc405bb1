"""Videos made anew under conditions, and what is said of them."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the extra: pip install 'tellframe[data]'")

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import measure_robustness
import measuring
from conditions import CONDITIONS
from conditions import make_video as make_one
from measure_robustness import (
    ORIGINAL,
    largest_drop,
    make_all,
    make_tables,
    measure_condition,
    parse,
)
from tellframe.data.manifest import Video
from tellframe.detector import load
from tellframe.errors import DataError, MediaError, UsageError
from tellframe.evaluate.sources import Videos, open_source
from tellframe.video import list_frames, read_frames

BY_NAME = {c.name: c for c in CONDITIONS}


def pictures(path):
    listing = list_frames(path)
    return [f.image.astype(float) for f in read_frames(path, listing, range(len(listing.times)))]


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda c: c.name)
def test_every_condition_makes_a_video_of_as_many_pictures(condition, make_video, tmp_path):
    source = make_video(tmp_path / "a.mp4", 6, size=(96, 64))
    target = tmp_path / "new" / "a.mp4"
    make_one(source, target, condition)
    before, after = list_frames(source), list_frames(target)
    np.testing.assert_allclose(after.times, before.times, atol=1e-3)
    factor = {"half size": 2, "quarter size": 4}.get(condition.name, 1)
    assert (after.media.width, after.media.height) == (96 // factor, 64 // factor)


@pytest.mark.parametrize(
    ("name", "level"), [("re-encoded", 90), ("darkened", 30), ("brightened", 153), ("noised", 90)]
)
def test_brightness_is_what_the_condition_says(name, level, tmp_path, make_video):
    def draw(number, width, height):
        return np.full((height, width, 3), 90, np.uint8)

    source = make_video(tmp_path / "a.mp4", 3, draw=draw)
    make_one(source, tmp_path / "b.mp4", BY_NAME[name])
    after = np.stack(pictures(tmp_path / "b.mp4"))
    assert after.mean() == pytest.approx(level, abs=3)
    assert bool(after.std() > 3) is (name == "noised")


def test_a_letterbox_hides_an_eighth_on_either_side():
    image = np.full((64, 32, 3), 200, np.uint8)
    boxed = BY_NAME["letterboxed"].change(image, np.random.default_rng(0))
    assert boxed.shape == image.shape
    assert [int(boxed[y].max()) for y in (7, 8, 55, 56)] == [0, 200, 200, 0]


def test_bars_hide_a_quarter():
    image = np.full((40, 240, 3), 200, np.uint8)
    hidden = BY_NAME["occluded"].change(image, np.random.default_rng(0))
    assert (hidden == 128).mean() == pytest.approx(0.25, abs=0.01)
    assert (image == 200).all()
    assert hidden[0, :21, 0].tolist() == [128] * 5 + [200] * 15 + [128]


def test_a_watermark_only_brightens():
    image = np.full((120, 200, 3), 50, np.uint8)
    marked = BY_NAME["watermarked"].change(image, np.random.default_rng(0)).astype(int)
    assert marked.min() == 50
    assert 100 < marked.max() <= 50 + 0.35 * 205 + 1
    assert 0.02 < (marked > 60).mean() < 0.5


def test_a_condition_is_measured_once_and_leaves_nothing(tmp_path, make_video, monkeypatch):
    (tmp_path / "data").mkdir()
    lines = ["path,label,source,method,group,pair,split"]
    for name in ("real", "fake"):
        make_video(tmp_path / "data" / f"{name}.mp4", 5)
        lines.append(f"{name}.mp4,{name.upper()},s,m,{name},p,dev")
    (tmp_path / "data" / "labels.csv").write_text("\n".join(lines) + "\n")
    source, _ = open_source(str(tmp_path / "data" / "labels.csv"), "dev")
    work = tmp_path / "work"
    work.mkdir()
    options = argparse.Namespace(out=tmp_path / "out", work=work, workers=1, limit=None)
    asked = []

    def judge(made, detector, workers, what):
        asked.append(what)
        for row, video in zip(made.rows, made.videos, strict=True):
            assert Path(video.location).is_relative_to(work)
            assert list_frames(video.location).media.num_frames == 5
            yield dataclasses.replace(row, logit=1.0, probability=0.7, outcome="ok")

    monkeypatch.setattr(measure_robustness, "judge", judge)
    detector = load(keep_evidence=False)
    condition = BY_NAME["quarter size"]
    first = measure_condition(source, detector, condition, options)
    assert measure_condition(source, detector, condition, options) == first
    assert asked == ["quarter size"]
    changed = dataclasses.replace(condition, what="something else")
    measure_condition(source, detector, changed, options)
    assert len(asked) == 2
    assert not list(work.iterdir())
    assert not list((tmp_path / "out").rglob("*.mp4"))


def test_a_video_that_cannot_be_made_is_missing(tmp_path, row, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    source = Videos((row(True, None, path="a.mp4", split="dev"),),
                    (Video("a.mp4", str(tmp_path / "broken.mp4")),))  # fmt: skip
    made = make_all(source, tmp_path / "new", CONDITIONS[0], 1)
    assert not Path(made.videos[0].location).exists()
    assert [r.path for r in made.rows] == ["a.mp4"]
    assert "broken.mp4" in capsys.readouterr().err


def test_a_video_that_is_half_made_is_not_judged(tmp_path, row, monkeypatch):
    def make(source, target, condition):
        target.parent.mkdir()
        target.write_bytes(b"the first half")
        raise MediaError(f"{source}: damaged")

    monkeypatch.setattr(measure_robustness, "make_video", make)
    source = Videos((row(True, None, path="a.mp4"),), (Video("a.mp4", "a.mp4"),))
    made = make_all(source, tmp_path / "new", CONDITIONS[0], 1)
    assert not Path(made.videos[0].location).exists()


def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, row):
    source = Videos((row(True, None, path="../a.mp4"),), (Video("../a.mp4", "a.mp4"),))
    with pytest.raises(DataError, match="leads out of the folder"):
        make_all(source, tmp_path / "new", CONDITIONS[0], 1)


def test_videos_are_not_made_in_the_repository():
    with pytest.raises(UsageError, match="in the repository"):
        parse(["--work", str(measuring.ROOT / "runs" / "x")])


def test_the_largest_drop_and_the_verdicts_are_named(rows, few_resamples):
    good, bad = rows(60, gap=4.0), rows(60, gap=0.0, seed=1)
    measured = measure_robustness.summarise_all({ORIGINAL: good, "same": good, "worse": bad})
    name, change = largest_drop(measured, "all videos")
    assert name == "worse"
    assert change["difference"] < 0
    shown = make_tables(measured, {"worse": "in some way"})
    assert "largest drop of the AUC worse" in shown
    lines = [line for line in shown.splitlines() if line.startswith("| worse: in some way")]
    assert len(lines) == 2
    shares = [cell.split(":")[-1].strip(" %") for cell in lines[1].split("|")[2:-1]]
    assert sum(map(int, shares[:3])) == pytest.approx(100, abs=1)
    assert sum(map(int, shares[3:])) == pytest.approx(100, abs=1)


def test_nothing_is_named_where_nothing_falls(rows, few_resamples):
    some = rows(30)
    measured = measure_robustness.summarise_all({ORIGINAL: some, "same": some})
    assert largest_drop(measured, "all videos") is None
