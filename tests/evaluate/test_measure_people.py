"""Clips of several people with one swapped face, and who ranks first in them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the extra: pip install 'tellframe[data]'")

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import scenes
from measure_people import Result, count_results, find_people, judge_scene, make_table, when
from measuring import encode
from scenes import (
    DUO_EDGES,
    REAL_PORTRAIT,
    SWAPPED_PORTRAIT,
    Scene,
    lay,
    make_clip,
    make_edit,
    make_scenes,
    play,
)
from tellframe.detector import load
from tellframe.types import FaceVerdict, Label, Moment, Verdict
from tellframe.video import list_frames, read_frames


@pytest.fixture
def pairs(row):
    return [
        row(fake, None, f"{source} {n}", path=f"{source}/{n}{fake}", source=source, pair=f"p{n}")
        for source in ("a", "b")
        for n in range(4)
        for fake in (False, True)
    ]


def person(x, probability):
    moment = Moment(0.0, 0.5, (x - 10.0, 0.0, x + 10.0, 20.0))
    return FaceVerdict(1, Label.REAL, probability, 0.0, 1.0, 1, moments=(moment,))


def test_every_scene_has_one_swapped_person_and_no_scene_twice(pairs):
    made = make_scenes(pairs)
    assert make_scenes(pairs[::-1]) == made
    assert {s.count for s in made} == {2, 3}
    for scene in made[:-1]:
        assert sum(part.fake for part in scene.parts) == 1
        assert scene.parts[scene.swapped].fake
        assert len({part.group for part in scene.parts}) == scene.count
        assert len({part.source for part in scene.parts} - {REAL_PORTRAIT.source}) == 1
    assert {s.swapped for s in made if s.count == 3} == {0, 1, 2}
    assert not made[-1].parts


def test_scenes_that_cannot_be_filled_are_said(pairs, capsys):
    made = make_scenes([r for r in pairs if r.group == "a 0"])
    assert "left out" in capsys.readouterr().err
    assert {s.count for s in made} == {2}


def test_videos_play_side_by_side_at_one_rate(tmp_path, make_video, read_number):
    slow = make_video(tmp_path / "slow.mp4", 10, size=(96, 64), rate=10)
    fast = make_video(tmp_path / "fast.mp4", 50, size=(120, 96), rate=50)
    assert make_clip([slow, fast], tmp_path / "both.mp4") == (96.0, 216.0)
    listing = list_frames(tmp_path / "both.mp4")
    assert len(listing.times) == 25
    frames = [f.image for f in read_frames(tmp_path / "both.mp4", listing, range(25))]
    assert frames[0].shape == (96, 216, 3)
    assert [read_number(f[16:80, :96]) for f in frames[::5]] == [0, 2, 4, 6, 8]
    assert [read_number(np.ascontiguousarray(f[:, 96:])) for f in frames[::5]] == [
        0,
        10,
        20,
        30,
        40,
    ]


def test_edited_clips_have_one_shot_a_person(pairs):
    made = make_scenes(pairs, (3,))
    assert {s.count for s in made} == {3}
    assert all(s.parts for s in made)


def test_videos_follow_each_other_at_one_rate(tmp_path, make_video, read_number):
    slow = make_video(tmp_path / "slow.mp4", 10, size=(96, 64), rate=10)
    fast = make_video(tmp_path / "fast.mp4", 30, size=(120, 96), rate=50)
    assert make_edit([slow, fast], tmp_path / "both.mp4") == (1.0, 1.6)
    listing = list_frames(tmp_path / "both.mp4")
    frames = [f.image for f in read_frames(tmp_path / "both.mp4", listing, range(40))]
    assert {f.shape for f in frames} == {(96, 120, 3)}
    assert [read_number(np.ascontiguousarray(f[16:80, 12:108])) for f in frames[:25:5]] == [
        *range(0, 10, 2)
    ]
    assert [read_number(f) for f in frames[25::5]] == [0, 10, 20]


def test_people_are_found_by_shot():
    people = [
        FaceVerdict(n, Label.REAL, p, t, t, 1, moments=(Moment(t, p, (0.0, 0.0, 9.0, 9.0)),))
        for n, (p, t) in enumerate([(0.2, 0.5), (0.4, 2.1), (0.9, 2.9)], 1)
    ]
    verdict = Verdict("v", Label.FAKE, 0.9, (), tuple(people))
    assert find_people(verdict, (1.0, 2.0, 3.0), when) == ((0.2, None, 0.9), 1)


def test_lower_pictures_are_centred_on_black():
    laid = lay([np.full((2, 1, 3), 9, np.uint8), np.full((5, 2, 3), 7, np.uint8)])
    assert laid[:, 0, 0].tolist() == [0, 9, 9, 0, 0]
    assert (laid[:, 1:] == 7).all()


def test_people_are_found_by_place():
    verdict = Verdict(
        "v", Label.FAKE, 0.9, (), (person(50, 0.2), person(250, 0.4), person(260, 0.9))
    )
    assert find_people(verdict, (100.0, 200.0, 300.0)) == ((0.2, None, 0.9), 1)


def test_nobody_is_dropped_silently(row):
    scene = Scene("k", (row(True, None), row(False, None, "h")))
    cases = {
        "first": Result(scene, (0.9, 0.1), label=Label.FAKE),
        "second": Result(scene, (0.1, 0.9)),
        "tie": Result(scene, (0.5, 0.5)),
        "lost": Result(scene, (None, 0.1)),
        "other": Result(scene, (0.9, None)),
        "failed": Result(scene),
    }
    counts = count_results(list(cases.values()))
    assert counts == {
        **{"clips": 6, "failed": 1, "swapped_missing": 1, "other_missing": 1, "all_found": 3},
        **{"first": 1, "FAKE": 1, "extra": 0},
    }
    shown = make_table(list(cases.values()))
    assert "| 1 of 3: 0.33 (0.01-0.91) | 1 of 6: 0.17 (0.00-0.64) | 1 | 1 | 1 | 1 of 6 |" in shown


def test_an_unreadable_part_is_a_failed_clip(tmp_path):
    (tmp_path / "x").write_bytes(b"no video")
    scene = Scene("k", (SWAPPED_PORTRAIT, REAL_PORTRAIT))
    places = {part.path: tmp_path / "x" for part in scene.parts}
    assert judge_scene(scene, places, load(keep_evidence=False)) == Result(scene)


def test_the_sample_clips_go_through_the_whole_pipeline(samples):
    detector = load(keep_evidence=False)
    itself = judge_scene(Scene("itself"), {}, detector)
    assert len(itself.people) == len(DUO_EDGES)
    assert itself.first
    scene = Scene("portraits", (REAL_PORTRAIT, SWAPPED_PORTRAIT))
    places = {part.path: scenes.ROOT / part.path for part in scene.parts}
    assert judge_scene(scene, places, detector).first


@pytest.mark.parametrize("isolate", [True, False])
def test_the_people_of_an_edited_clip_are_looked_at_closer(isolate, samples, tmp_path):
    portrait = scenes.ROOT / SWAPPED_PORTRAIT.path
    pictures = [*play(portrait, list_frames(portrait), 100)]
    width = pictures[0].shape[1]
    room = [np.pad(p, ((0, 0), (0, width), (0, 0)), constant_values=230) for p in pictures]
    hall = [np.pad(p, ((0, 0), (width, 0), (0, 0)), constant_values=40) for p in pictures]
    encode([*room, *hall], tmp_path / "edited.mp4", 25)
    detector = load(keep_evidence=False, num_frames=4, isolate=isolate)
    verdict = detector.detect(tmp_path / "edited.mp4")
    detector.close()
    assert verdict.counters["scene_cuts"] == 1
    assert [person.frames for person in verdict.people] == [8, 8]
    assert verdict.people[0].end < 4 < verdict.people[1].start
