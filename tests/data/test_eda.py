"""The look at a data set: the numbers are right, and nothing is dropped in silence."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs the extra: pip install 'tellframe[data]'")

from tellframe.bundle import load_bundle
from tellframe.data import cut, eda_look
from tellframe.data.cut import VideoRecord, load_cutter
from tellframe.data.eda import count_by, describe, distribution, write_facts
from tellframe.data.eda_look import Look, draw_sample, look_at, measure_brightness
from tellframe.data.manifest import Video
from tellframe.errors import DataError, StoreError
from tellframe.faces.align import brighten
from tellframe.isolation import Failure
from tellframe.video import list_frames, read_frames

RECIPE = dataclasses.replace(load_bundle().recipe, num_frames=4, brighten_below=60.0)


# --- the sample -------------------------------------------------------------------------------


def many(real: int, fake: int, unknown: int = 0) -> list[Video]:
    labels = ["REAL"] * real + ["FAKE"] * fake + [""] * unknown
    return [Video(f"v{n:04d}.mp4", "", label=label) for n, label in enumerate(labels)]


@pytest.mark.parametrize(
    ("counts", "wanted", "drawn"),
    [
        ((100, 500, 0), 60, (10, 50, 0)),
        ((100, 500, 10), 61, (10, 50, 1)),
        ((1, 2, 0), 2, (1, 1, 0)),  # the largest remainder
        ((3, 4, 1), 100, (3, 4, 1)),
        ((3, 4, 1), None, (3, 4, 1)),
        ((0, 0, 0), 5, (0, 0, 0)),
    ],
)
def test_a_sample_keeps_the_share_of_every_class(counts, wanted, drawn):
    found = Counter(v.label for v in draw_sample(many(*counts), wanted))
    assert (found["REAL"], found["FAKE"], found[""]) == drawn


def test_a_sample_depends_on_the_seed_and_on_nothing_else():
    videos = many(100, 500)
    shuffled = random.Random(1).sample(videos, len(videos))
    first = draw_sample(videos, 60, seed=1)
    assert len({v.video for v in first}) == 60
    assert draw_sample(shuffled, 60, seed=1) == first
    assert set(draw_sample(videos, 60, seed=2)) != set(first)
    assert [v.label for v in first] != sorted(v.label for v in first), "not mixed"


# --- real files -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def videos(samples, make_video, tmp_path_factory) -> list[Video]:
    """Return three samples, one of them also dark, one lying on its side, and three bad files."""
    folder = tmp_path_factory.mktemp("videos")
    real = samples / "real.mp4"
    frames = [f.image for f in read_frames(real, list_frames(real), range(0, 100, 10))]
    height, width = frames[0].shape[:2]
    make_video(
        folder / "dark.mp4",
        len(frames),
        size=(width, height),
        rate=10,
        draw=lambda n, *_: (frames[n] * 0.2).astype(np.uint8),
    )
    lying = make_video(folder / "lying.mp4", 30, size=(96, 64), rate=30)
    data = bytearray(lying.read_bytes())
    place = data.index(b"tkhd") + 44  # the display matrix: a quarter turn
    data[place : place + 36] = struct.pack(">9i", 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    lying.write_bytes(data)
    (folder / "text.mp4").write_text("no video")
    places = {
        "a/real.mp4": (real, "REAL"),
        "a/fake.mp4": (samples / "fake.mp4", "FAKE"),
        "a/two.mp4": (samples / "two_people.mp4", "FAKE"),
        "b/dark.mp4": (folder / "dark.mp4", "REAL"),
        "b/lying.mp4": (lying, ""),
        "b/text.mp4": (folder / "text.mp4", "FAKE"),
        "b/gone.mp4": (folder / "gone.mp4", "FAKE"),
    }
    return [Video(name, str(p), label=label, part=name[0]) for name, (p, label) in places.items()]


@pytest.fixture(scope="module")
def looks(videos) -> dict[str, Look]:
    return {k.record.video: k for k in look_at(videos, RECIPE, workers=2)}


@pytest.fixture(scope="module")
def facts(videos, looks):
    return describe(videos, looks.values(), RECIPE)


@pytest.fixture(scope="module")
def rows(facts):
    return {row["video"]: row for row in facts["sample"]["rows"]}


def test_every_video_has_an_outcome(videos, looks, facts):
    assert list(looks) == [v.video for v in videos]
    assert {name: str(look.record.outcome) for name, look in looks.items()} == {
        "a/real.mp4": "ok",
        "a/fake.mp4": "ok",
        "a/two.mp4": "ok",
        "b/dark.mp4": "ok",
        "b/lying.mp4": "no_face",
        "b/text.mp4": "unreadable",
        "b/gone.mp4": "missing",
    }
    sample = facts["sample"]
    assert sample["videos"] == len(sample["rows"]) == sum(r["FAKE"] + r["REAL"] + r["unknown"]
                                                         for r in sample["outcomes"])  # fmt: skip
    assert [f["video"] for f in sample["failures"]] == ["b/gone.mp4", "b/text.mp4"]
    for failure in sample["failures"]:
        assert failure["message"].startswith(f"{failure['video']}: "), "not by its name"
    assert (sample["no_face"], sample["partial"]) == (1, 0)


def test_facts_about_files(rows, facts):
    expected = {
        "a/real.mp4": (4.0, 100, 25.0),
        "b/dark.mp4": (1.0, 10, 10.0),
        "b/lying.mp4": (1.0, 30, 30.0),
    }
    for name, (duration, num_frames, rate) in expected.items():
        row = rows[name]
        assert row["duration"] == pytest.approx(duration)
        assert row["num_frames"] == num_frames
        assert row["frame_rate"] == pytest.approx(rate)
        assert row["codec"] == "h264"
    assert rows["b/text.mp4"]["codec"] == ""
    assert facts["sample"]["duration"]["n"] == 5
    assert facts["sample"]["duration"]["max"] == pytest.approx(4.0)


def test_a_video_that_lies_on_its_side_is_counted_upright(rows, facts):
    row = rows["b/lying.mp4"]
    assert (row["width"], row["height"], row["rotation"]) == (64, 96, 270)
    sample = facts["sample"]
    assert sample["rotated"] == 1
    portrait = next(r for r in sample["orientations"] if r["name"] == "portrait")
    assert portrait == {"name": "portrait", "REAL": 0, "FAKE": 0, "unknown": 1}
    assert "64x96" in {r["name"] for r in sample["resolutions"]}


def test_dark_videos(looks, rows, facts):
    assert [name for name, row in rows.items() if row["dark"]] == ["b/dark.mp4"]
    assert rows["b/dark.mp4"]["level"] == pytest.approx(0.2 * rows["a/real.mp4"]["level"], abs=4)
    assert facts["sample"]["dark"] == {
        "below": 60.0,
        "videos": 1,
        "frames": {"sampled": 4, "with_face": 4},
    }
    assert facts["sample"]["frames"] == {"sampled": 20, "with_face": 16}
    for name, look in looks.items():
        dark = name == "b/dark.mp4"
        assert bool(look.pictures.dark) == bool(look.pictures.brightened) == dark
        assert bool(look.pictures.frame) == look.readable
    assert len(looks["b/dark.mp4"].pictures.dark) < 40_000


def test_faces(looks, rows, facts):
    assert looks["a/real.mp4"].faces == (1, 1, 1, 1)
    assert looks["a/two.mp4"].faces == (2, 2, 2, 2)
    assert looks["b/dark.mp4"].faces == (1, 1, 1, 1), "not brightened before detection"
    assert {n: r["people"] for n, r in rows.items() if r["people"]} == {
        "a/real.mp4": 1,
        "a/fake.mp4": 1,
        "a/two.mp4": 2,
        "b/dark.mp4": 1,
    }
    sample = facts["sample"]
    assert sample["several_people"] == 1
    assert sample["faces_per_frame"]["n"] == 5 * 4
    assert sample["face_size"]["n"] == sample["confidence"]["n"] == 4 + 4 + 8 + 4
    assert 40 < rows["a/real.mp4"]["face_size"] < 300
    assert 0.9 <= rows["a/real.mp4"]["confidence"] <= 1
    assert looks["a/two.mp4"].pictures.confidence == pytest.approx([1, 1], abs=0.1)


def test_every_frame_is_searched_once_where_somebody_leaves(videos):
    """Who is lost sight of is looked for in the whole frame, which is searched already."""
    cutter = load_cutter(RECIPE, "")
    seen: list[int] = []

    class Leaving:
        name = cutter.detector.name

        def detect(self, image):
            seen.append(len(seen))
            faces = cutter.detector.detect(image)
            return faces if len(seen) < 3 else faces[:1]

        follow = None

    two = next(v for v in videos if v.video == "a/two.mp4")
    look = eda_look._look(dataclasses.replace(cutter, detector=Leaving()), two)
    assert look.faces == (2, 2, 1, 1)
    assert len(seen) == len(look.levels) == look.record.frames_sampled == 4


def test_the_same_look_gives_the_same_json(videos, looks, facts, tmp_path):
    cutter = load_cutter(RECIPE, "")
    again = {name: eda_look._look(cutter, v) for name, v in zip(looks, videos, strict=True)}
    for look in again.values():  # here, and not in a worker
        write_facts(describe(videos[::-1], again.values(), RECIPE), tmp_path / "b.json")
        assert look.record == looks[look.record.video].record
    write_facts(facts, tmp_path / "a.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert json.loads((tmp_path / "a.json").read_text()) == facts


# --- what goes wrong --------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["crash", "timeout"])
def test_who_ends_its_worker_is_counted(reason, monkeypatch):
    def fail(_function, items, **_options):
        yield from ((video, Failure(reason, 3)) for video in items)

    monkeypatch.setattr(eda_look, "map_isolated", fail)
    videos = many(1, 1)
    looks = list(look_at(videos, RECIPE, workers=1))
    sample = describe(videos, looks, RECIPE)["sample"]
    assert sample["outcomes"] == [{"name": reason, "REAL": 1, "FAKE": 1, "unknown": 0}]
    assert all("3 times" in failure["message"] for failure in sample["failures"])


@pytest.mark.parametrize("missing", [True, False])
def test_a_store_that_does_not_answer_says_nothing_about_a_video(missing, monkeypatch):
    def refuse(_video, _endpoint):
        raise StoreError("s3://bucket: access denied", missing=missing)

    monkeypatch.setattr(cut, "open_video", refuse)
    cutter = load_cutter(RECIPE, "")
    if missing:
        assert eda_look._look(cutter, Video("a", "s3://b/a")).record.outcome == "missing"
    else:
        with pytest.raises(StoreError, match="access denied"):
            eda_look._look(cutter, Video("a", "s3://b/a"))


def test_an_empty_manifest():
    with pytest.raises(DataError, match="holds no video"):
        describe([], [], RECIPE)


# --- the numbers ------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_brightness_is_what_brighten_compares(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (70 + seed, 90, 3), dtype=np.uint8)
    level, luma = measure_brightness(noise)
    assert brighten(noise, level) is noise
    assert brighten(noise, math.nextafter(level, 256)) is not noise
    assert 0 < luma < level < 255


MANIFEST = [
    Video("o1", "", bytes=10, label="REAL", group="1", split="train", part="p1", source="s"),
    Video("o2", "", bytes=20, label="REAL", group="2", split="train", part="p2", source="s"),
    Video("f1", "", bytes=30, label="FAKE", original="o1", group="1", split="train", part="p1",
          source="s", method="swap"),
    Video("f2", "", bytes=40, label="FAKE", original="o1", group="1", split="test", part="p1",
          source="s", method="swap"),
    Video("f3", "", label="FAKE", original="lost", group="3", split="", part="p10", source="s"),
    Video("f4", "", bytes=50, label="FAKE", group="3", split="test", part="p2", source="s"),
    Video("x", "", bytes=60, part="p2", source="s"),
]  # fmt: skip


def test_facts_of_the_manifest():
    facts = describe(MANIFEST, [], RECIPE)["manifest"]
    assert (facts["videos"], facts["bytes"], facts["without_size"]) == (7, 210, 1)
    assert facts["labels"] == {"REAL": 2, "FAKE": 4, "unknown": 1}
    assert facts["divided_by"] == "part"
    assert facts["divisions"] == [
        {"name": "p1", "REAL": 1, "FAKE": 2, "unknown": 0},
        {"name": "p2", "REAL": 1, "FAKE": 1, "unknown": 1},
        {"name": "p10", "REAL": 0, "FAKE": 1, "unknown": 0},
    ]
    assert [(r["name"], r["FAKE"], r["REAL"]) for r in facts["methods"]] == [
        ("", 2, 0),
        ("swap", 2, 0),
    ]
    groups = facts["groups"]
    assert (groups["groups"], groups["videos_without"], groups["on_two_sides"]) == (3, 1, 1)
    assert groups["by_split"] == {"test": 2, "train": 2}
    assert groups["sizes"]["counts"] == {"unknown": [1, 1, 1]}
    originals = facts["originals"]
    assert originals["fakes_per_original"]["edges"] == [-0.5, 0.5, 1.5, 2.5]
    assert originals.pop("fakes_per_original")["counts"] == {"unknown": [1, 1, 1]}
    assert originals == {
        "named": 2,
        "not_in_manifest": 1,
        "fakes_without": 1,
        "real_without_fake": 1,
    }
    assert facts["sizes"]["n"] == 6
    assert facts["sizes"]["scale"] == "log"


def test_one_part_is_divided_by_source():
    videos = [Video("a", "", source="x"), Video("b", "", source="y")]
    facts = describe(videos, [], RECIPE)["manifest"]
    assert facts["divided_by"] == "source"
    assert [r["name"] for r in facts["divisions"]] == ["x", "y"]


def test_tables_begin_with_the_largest():
    table = count_by([("b", "REAL"), ("a", "FAKE"), ("b", "odd"), ("c", "FAKE")])
    assert [tuple(r.values()) for r in table] == [("b", 1, 0, 1), ("a", 0, 1, 0), ("c", 0, 1, 0)]


@pytest.mark.parametrize(
    ("values", "options", "edges"),
    [
        ([0, 1, 1, 3], {"whole": True}, [-0.5, 0.5, 1.5, 2.5, 3.5]),
        ([0], {"whole": True}, [-0.5, 0.5]),
        ([10.0, 10.0], {}, [10.0, 10.5]),
        ([1, 9], {"edges": (2, 4, 8)}, [2, 4, 8]),
        ([5e3, 6e3], {"scale": "log"}, [4870, 5620, 6490]),
        ([0.7], {"scale": "auto"}, [0.7, 0.75]),
    ],
)
def test_bins(values, options, edges):
    facts = distribution((("REAL", v) for v in values), **options)
    assert facts["edges"] == pytest.approx(edges)
    assert sum(facts["counts"]["REAL"]) == len(values) == facts["n"]


@pytest.mark.parametrize("scale", ["linear", "log", "auto"])
@pytest.mark.parametrize("span", [1e-3, 0.3, 7, 1e3, 1e9])
def test_bins_enclose_all_values(scale, span):
    values = 0.01 + span * np.random.default_rng(0).random(500)
    facts = distribution((("FAKE", v) for v in values.tolist()), scale=scale)
    edges = facts["edges"]
    assert edges == sorted(set(edges))
    assert edges[0] <= values.min() < edges[1]
    assert edges[-2] <= values.max() <= edges[-1]
    assert len(edges) <= 32
    assert sum(facts["counts"]["FAKE"]) == 500


def test_the_structure_of_the_json(facts):
    spread = {"n", "min", "median", "max", "scale", "edges", "counts"}
    assert set(facts) == {"format", "tellframe", "recipe", "recipe_digest", "manifest", "sample"}
    assert facts["format"] == 1
    assert set(facts["manifest"]) == {
        *("videos", "bytes", "without_size", "labels", "divided_by", "divisions", "sources"),
        *("methods", "splits", "groups", "originals", "sizes"),
    }
    distributions = {
        *("duration", "num_frames", "frame_rate", "level", "luma", "faces_per_frame", "people"),
        *("face_size", "confidence"),
    }
    assert set(facts["sample"]) == distributions | {
        *("seed", "asked", "videos", "labels", "outcomes", "failures", "no_face", "partial"),
        *("several_people", "rotated", "frames", "dark", "orientations", "resolutions", "codecs"),
        *("containers", "rows"),
    }
    for name in distributions:
        assert set(facts["sample"][name]) == spread, name
    assert set(facts["sample"]["rows"][0]) == {
        *("video", "label", "outcome", "bytes", "width", "height", "duration", "num_frames"),
        *("frame_rate", "rotation", "container", "codec", "partial", "level", "luma", "dark"),
        *("frames_sampled", "frames_with_face", "faces", "people", "face_size", "confidence"),
    }


def test_nothing_that_can_be_read(tmp_path: Path):
    gone = [Look("", VideoRecord("a", "missing", "a: gone"))]
    facts = describe([Video("a", "")], gone, RECIPE)
    assert facts["sample"]["duration"] == {"n": 0, "scale": "linear", "edges": [], "counts": {}}
    write_facts(facts, tmp_path / "a.json")  # no NaN
