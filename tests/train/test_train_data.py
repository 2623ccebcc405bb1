"""Training data: the split, what is cut out of videos and pictures, and the cache of it.

The videos are parts of the sample clips, which are a real and a fake of the same camera path.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import shutil
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellframe.errors import ConfigError
from tellframe.recipe import Recipe
from tellframe.train import data as rooms
from tellframe.train import videos
from tellframe.train.config import DataConfig
from tellframe.train.data import StillScene, TrainingData, held_out, load_data
from tellframe.train.videos import VideoScene

pytestmark = pytest.mark.train

SAMPLES = Path(__file__).parents[2] / "samples"
WINDOW = (slice(0, 320), slice(80, 400))  # the face of the samples, left of and above the middle
FRAMES, UNSWAPPED = 12, 6
RECIPE = Recipe()


def read(name):
    with av.open(str(SAMPLES / name)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    return [np.ascontiguousarray(f[WINDOW]) for f in frames[:: len(frames) // FRAMES][:FRAMES]]


def write_video(path, pictures):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "12", "threads": "1"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, 10)
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def jpeg(picture):
    import cv2

    options = [cv2.IMWRITE_JPEG_QUALITY, 95]
    return cv2.imencode(".jpg", picture[..., ::-1], options)[1].tobytes()


COLUMNS = ("path", "label", "source", "method", "group", "pair", "split")
ROWS = [
    ("v/real.mp4", "REAL", "made", "none", "collins", "first", "train"),
    ("v/fake.mp4", "FAKE", "made", "swap", "collins", "first", "train"),
    ("v/short.mp4", "FAKE", "made", "short", "collins", "first", "train"),
    ("v/alone.mp4", "REAL", "made", "none", "alone", "", "train"),
    # A fake without a real of its own, a real without a face, one that is never to be read.
    ("v/absent.mp4", "FAKE", "made", "swap", "orphan", "", "train"),
    ("v/absent.mp4", "FAKE", "made", "swap", "orphan", "orphan", "train"),
    ("v/blank.mp4", "REAL", "made", "none", "blank", "blank", "train"),
    ("v/fake.mp4", "FAKE", "made", "swap", "blank", "blank", "train"),
    ("v/dev_real.mp4", "REAL", "made", "none", "secret", "first", "dev"),
    ("v/dev_fake.mp4", "FAKE", "made", "dev-swap", "secret", "first", "dev"),
    ("v/dev_real.mp4", "REAL", "made", "none", "secret", "", "dev"),
]


def write_labels(root, rows):
    with (root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([COLUMNS, *rows])


def write_zip(path, members, rows):
    table = io.StringIO()
    csv.writer(table).writerows([("file", "label", "original"), *rows])
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("labels.csv", table.getvalue())
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    """A small data set of all kinds; never written to by a test."""
    root = tmp_path_factory.mktemp("source")
    real, fake = read("real.mp4"), read("fake.mp4")
    # The first half of the fake is not swapped, as in a video of which a part was forged.
    mixed = real[:UNSWAPPED] + fake[UNSWAPPED:]
    blank = [np.full_like(real[0], 90)] * 4
    videos = {"real": real, "fake": mixed, "short": mixed[:2], "alone": real[::3], "blank": blank}
    for name, pictures in videos.items():
        write_video(root / "v" / f"{name}.mp4", pictures)
    for name in ("dev_real", "dev_fake"):
        (root / "v" / f"{name}.mp4").write_bytes(b"reading this would be an error")
    write_labels(root, ROWS)
    members = {f"real{i}.jpg": jpeg(real[i]) for i in range(4)}
    members |= {f"fake{i}.jpg": jpeg(fake[i]) for i in range(4)}
    members |= {"fake0b.jpg": jpeg(fake[1]), "blank.jpg": jpeg(blank[0])}
    rows = [(f"real{i}.jpg", "REAL", f"scene{i}") for i in range(4)]
    # The scene without a fake and the one without a face are of no use as pairs.
    rows += [(f"fake{i}.jpg", "FAKE", f"scene{i}") for i in range(3)]
    rows += [("fake0b.jpg", "FAKE", "scene0"), ("fake3.jpg", "FAKE", "scene9")]
    rows += [("blank.jpg", "REAL", "scene5"), ("fake3.jpg", "FAKE", "scene5")]
    write_zip(root / "stills.zip", members, rows)
    (root / "portraits").mkdir()
    for name in ("film_1.jpg", "film_2.jpg", "other_1.jpg"):
        (root / "portraits" / name).write_bytes(jpeg(real[int(name[-5])]))
    (root / "portraits" / "note.txt").write_text("no picture")
    return root


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def all_of(source, cache):
    return DataConfig(
        labels=str(source / "labels.csv"),
        stills=(str(source / "stills.zip"),),
        portraits=(str(source / "portraits"),),
        cache=str(cache),
        frames_per_video=FRAMES,
        validation=0.0,
    )


@pytest.fixture(scope="session")
def loaded(source, cache):
    train, val = load_data(all_of(source, cache), RECIPE)
    assert val == TrainingData((), (), (), ())
    return train


@pytest.fixture
def copy(source, tmp_path):
    """A data set that a test may change."""
    shutil.copytree(source, tmp_path / "copy")
    return tmp_path / "copy"


def files_of(cache):
    return {p.name: p.stat().st_mtime_ns for p in cache.iterdir()}


# The split.


@given(st.text(max_size=30), st.floats(0, 1))
def test_held_out_is_decided_by_the_name(group, share):
    assert held_out(group, share) is held_out(group, share)
    assert not held_out(group, 0.0)
    assert held_out(group, 1.0)
    # A larger share only adds groups.
    assert held_out(group, share) <= held_out(group, min(1.0, share + 0.1))


@pytest.mark.parametrize("share", [0.05, 0.12, 0.5, 0.9])
def test_held_out_keeps_the_share(share):
    held = np.mean([held_out(f"group {i}", share) for i in range(4000)])
    assert held == pytest.approx(share, abs=0.025)


def test_the_split_never_moves():
    """A group that changed sides would put what an older model was trained on into validation."""
    held = [name for name in "abcdefghijklmnopqrstuvwxyz" if held_out(name, 0.3)]
    assert "".join(held) == "bcdefjnprsuvx"


GROUPS = st.lists(st.sampled_from([f"g{i}" for i in range(30)]), max_size=20)


@settings(max_examples=60)
@given(paired=GROUPS, alone=GROUPS, stills=GROUPS, portraits=GROUPS, share=st.floats(0, 1))
def test_no_group_is_on_both_sides(paired, alone, stills, portraits, share):
    def video(group, fakes):
        picture = np.zeros((fakes, 1, 1, 1, 3), dtype=np.uint8)
        frames = picture[:1] if fakes else np.zeros((1, 1, 1, 3), dtype=np.uint8)
        swapped = np.ones((fakes, 1), dtype=np.bool_)
        methods = ("swap",) * fakes
        return VideoScene(group, frames, picture, methods, swapped, *[np.zeros((1, 4))] * 2)

    def pictures(groups, fakes):
        return [(g, StillScene(g.encode(), (b"",) * fakes, *[np.zeros(4)] * 2)) for g in groups]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rooms, "load_face_detector", lambda recipe: None)
        videos = [video(g, 1) for g in paired] + [video(g, 0) for g in alone]
        patch.setattr(rooms, "cut_videos", lambda *_: iter(videos))
        patch.setattr(rooms, "_still_scenes", lambda *_: pictures(stills, 1))
        patch.setattr(rooms, "_portraits", lambda *_: pictures(portraits, 0))
        config = DataConfig(labels="x", stills=("x",), portraits=("x",), validation=share)
        pictured = (*paired, *alone, *stills, *portraits)
        if pictured and all(held_out(name, share) for name in pictured):
            with pytest.raises(ConfigError, match="holds out every group that there is"):
                load_data(config, RECIPE)
            return
        sides = load_data(config, RECIPE)
    groups = []
    for side in sides:
        named = [s.group for s in side.videos + side.reals]
        named += [s.real.decode() for s in side.stills + side.portraits]
        groups.append(sorted(named))
        assert [s.group for s in side.videos] == [g for g in paired if g in set(named)]
    assert not set(groups[0]) & set(groups[1])
    assert sorted(groups[0] + groups[1]) == sorted([*paired, *alone, *stills, *portraits])


# What is cut out of videos.


def test_rows_of_dev_are_never_read(loaded):
    groups = {s.group for s in loaded.videos + loaded.reals}
    assert groups == {"collins", "alone"}
    assert all("dev" not in m for s in loaded.videos for m in s.methods)


def test_a_scene_holds_the_same_square_of_real_and_fake(loaded):
    (scene,) = loaded.videos
    assert scene.methods == ("swap",)  # "short" has too few of the frames
    assert scene.real.shape == (FRAMES, *scene.real.shape[1:])
    assert scene.fakes.shape == (1, *scene.real.shape)
    assert (scene.real.dtype, scene.fakes.dtype) == (np.uint8, np.uint8)
    assert scene.boxes.shape == (FRAMES, 4)
    assert scene.landmarks.shape == (FRAMES, 5, 2)
    # Away from the face, both show the same place of the same video.
    gap = np.abs(scene.real.astype(int) - scene.fakes[0]).mean(axis=(0, 3))
    assert gap[:15, :15].mean() < 4


def test_unswapped_frames_are_marked(loaded):
    (scene,) = loaded.videos
    expected = [False] * UNSWAPPED + [True] * (FRAMES - UNSWAPPED)
    assert scene.swapped[0].tolist() == expected


def test_boxes_and_landmarks_lie_on_the_face(loaded):
    scene = loaded.videos[0]
    side = scene.real.shape[1]
    for (x0, y0, x1, y1), points in zip(scene.boxes, scene.landmarks, strict=True):
        size = max(x1 - x0, y1 - y0)
        assert (1 + videos.CONTEXT) * size == pytest.approx(side, rel=0.1)
        assert (x0 + x1) / 2 == pytest.approx(side / 2, abs=2)
        assert (y0 + y1) / 2 == pytest.approx(side / 2, abs=2)
        assert np.all((points > (x0, y0)) & (points < (x1, y1)))
        assert points[0, 0] < points[2, 0] < points[1, 0]
        assert points[:2, 1].max() < points[2, 1] < points[3:, 1].min()


def test_a_real_alone_is_material_for_blends(loaded):
    (scene,) = loaded.reals
    assert scene.group == "alone"
    assert scene.fakes.shape == (0, *scene.real.shape)
    pair = scene.sample(0, None)
    assert np.shares_memory(pair.fake, pair.real)


def test_sample_takes_the_frame_of_both(loaded):
    scene = loaded.videos[0]
    pair = scene.sample(7, 0)
    np.testing.assert_array_equal(pair.real, scene.real[7:8])
    np.testing.assert_array_equal(pair.fake, scene.fakes[0, 7:8])
    np.testing.assert_array_equal(pair.boxes, scene.boxes[7:8])


def test_large_faces_are_shrunk(monkeypatch, source, tmp_path, loaded):
    monkeypatch.setattr(videos, "MAX_SIDE", 64)
    config = DataConfig(labels=str(source / "labels.csv"), cache=str(tmp_path), validation=0.0)
    small = load_data(config, RECIPE)[0].reals[0]
    large = loaded.reals[0]
    assert small.real.shape[1:] == (64, 64, 3)
    scale = 64 / large.real.shape[1]
    np.testing.assert_allclose(small.boxes, large.boxes * scale, atol=1)
    np.testing.assert_allclose(small.landmarks, large.landmarks * scale, atol=1)


# What is taken from pictures.


def test_stills_are_scenes_with_a_face_and_a_fake(loaded):
    assert [len(s.fakes) for s in loaded.stills] == [2, 1, 1]
    for scene in loaded.stills:
        pair = scene.sample(0)
        assert pair.real.shape == pair.fake.shape == (1, 320, 320, 3)
        x0, y0, x1, y1 = pair.boxes[0].astype(int)
        gap = np.abs(pair.real[0].astype(int) - pair.fake[0]).mean(axis=2)
        assert gap[y0:y1, x0:x1].mean() > 3 * gap[:30, :30].mean()
        assert np.all((pair.landmarks > (x0, y0)) & (pair.landmarks < (x1, y1)))


def test_pictures_are_decoded_as_rgb(source, loaded):
    with zipfile.ZipFile(source / "stills.zip") as archive, archive.open("real0.jpg") as file:
        from PIL import Image

        expected = np.asarray(Image.open(file).convert("RGB"))
    gap = np.abs(loaded.stills[0].sample(None).real[0].astype(int) - expected)
    assert gap.mean() < 1


def test_portraits_are_reals(loaded):
    assert [s.fakes for s in loaded.portraits] == [(), (), ()]
    pair = loaded.portraits[0].sample(None)
    assert pair.real is pair.fake


def test_portraits_are_known_by_any_usual_ending(copy, tmp_path, loaded):
    for name, other in (("film_1.jpg", "film_1.JPG"), ("other_1.jpg", "other_1.jpeg")):
        (copy / "portraits" / name).rename(copy / "portraits" / other)
    config = DataConfig(portraits=(str(copy / "portraits"),), cache=str(tmp_path), validation=0.0)
    found = load_data(config, RECIPE)[0].portraits
    assert [p.real for p in found] == [p.real for p in loaded.portraits]


def test_pictures_of_one_film_are_one_group(source, cache, monkeypatch):
    monkeypatch.setattr(rooms, "held_out", lambda group, share: group == "film")
    config = dataclasses.replace(all_of(source, cache), labels="", stills=())
    train, val = load_data(config, RECIPE)
    assert (len(train.portraits), len(val.portraits)) == (1, 2)


# The cache.


def test_the_cache_is_reused(source, cache, loaded, monkeypatch):
    def forbidden(*_):
        raise AssertionError("was cut again")

    before = files_of(cache)
    assert before
    monkeypatch.setattr(videos, "_cut_scene", forbidden)
    monkeypatch.setattr(rooms, "load_face_detector", lambda recipe: None)
    again, _ = load_data(all_of(source, cache), RECIPE)
    assert files_of(cache) == before
    for a, b in zip(
        again.videos + again.reals + again.stills + again.portraits,
        loaded.videos + loaded.reals + loaded.stills + loaded.portraits,
        strict=True,
    ):
        for field in dataclasses.fields(a):
            np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


def test_a_copy_elsewhere_uses_the_same_cache(copy, cache, loaded):
    before = files_of(cache)
    load_data(all_of(copy, cache), RECIPE)
    assert files_of(cache) == before


def test_an_interrupted_cut_leaves_nothing_that_is_taken_for_a_cache(source, tmp_path, monkeypatch):
    def interrupted(path, **_):
        Path(path).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(rooms.np, "savez", interrupted)
    for config in (
        dataclasses.replace(all_of(source, tmp_path), stills=(), portraits=()),
        dataclasses.replace(all_of(source, tmp_path), labels="", portraits=()),
    ):
        with pytest.raises(KeyboardInterrupt):
            load_data(config, RECIPE)
    assert [p.name for p in tmp_path.iterdir() if ".part" not in p.name] == []


def replace_row(copy, old, new):
    write_labels(copy, [new if r == old else r for r in ROWS])


KEYED = {
    "a recipe's threshold": lambda c: {"recipe": Recipe(detector_thresholds=(0.6, 0.7, 0.8))},
    "a recipe's face size": lambda c: {"recipe": Recipe(min_face_size=50)},
    "a recipe's pyramid": lambda c: {"recipe": Recipe(pyramid_factor=0.75)},
    "the number of frames": lambda c: {"frames_per_video": 5},
    "the context of the cut": lambda c: {"context": 0.5},
    "the name of a method": lambda c: replace_row(c, ROWS[1], (*ROWS[1][:3], "x", *ROWS[1][4:])),
    "a video": lambda c: write_video(c / "v" / "fake.mp4", read("fake.mp4")),
    "a fake more": lambda c: write_labels(c, [*ROWS, ("v/alone.mp4", *ROWS[1][1:])]),
    "a still": lambda c: write_zip(
        c / "stills.zip",
        {"a.jpg": jpeg(read("real.mp4")[5]), "b.jpg": jpeg(read("fake.mp4")[5])},
        [("a.jpg", "REAL", "scene0"), ("b.jpg", "FAKE", "scene0")],
    ),
    "a portrait": lambda c: (c / "portraits" / "film_1.jpg").write_bytes(jpeg(read("real.mp4")[7])),
}
UNKEYED = {
    "the split": lambda c: {"validation": 0.4},
    "what the model sees": lambda c: {"recipe": Recipe(margin=0.3, crop_size=64, num_frames=3)},
    "a row of dev": lambda c: write_labels(c, ROWS[:-1]),
    "the order of the rows": lambda c: write_labels(c, [*ROWS[3:], *ROWS[:3]]),
}


@pytest.mark.parametrize("name", [*KEYED, *UNKEYED])
def test_the_cache_is_keyed_by_what_decides_its_content(copy, cache, loaded, monkeypatch, name):
    # Only names matter here: nothing is cut, so that this takes no time.
    made = []
    old = next(p for p in cache.iterdir() if p.name.startswith("first-"))
    shutil.copytree(cache, copy / "cache")

    def pretend(*arguments):
        made.append("video")
        with np.load(old) as arrays:
            return dict(arrays), []

    class Nobody:
        def detect(self, image):
            made.append("pictures")
            return []

    monkeypatch.setattr(videos, "_cut_scene", pretend)
    monkeypatch.setattr(rooms, "load_face_detector", lambda recipe: Nobody())
    changes = {**KEYED, **UNKEYED}[name](copy)
    changes = changes if isinstance(changes, dict) else {}
    recipe = changes.pop("recipe", RECIPE)
    monkeypatch.setattr(videos, "CONTEXT", changes.pop("context", videos.CONTEXT))
    load_data(dataclasses.replace(all_of(copy, copy / "cache"), **changes), recipe)
    assert bool(made) is (name in KEYED)


# What is missing.


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"labels": "absent.csv"}, r"\[data\] labels: absent\.csv: cannot be read"),
        ({"stills": ("absent.zip",)}, r"\[data\] stills: absent\.zip: cannot be read"),
        ({"portraits": ("absent",)}, r"\[data\] portraits: absent: no such folder"),
    ],
)
def test_a_missing_source_is_an_error_that_names_the_key(tmp_path, fields, message):
    with pytest.raises(ConfigError, match=message):
        load_data(DataConfig(cache=str(tmp_path), **fields), RECIPE)


def test_a_folder_without_portraits_is_an_error_that_names_it(tmp_path):
    (tmp_path / "note.txt").write_text("no picture")
    message = r"\[data\] portraits: .*: holds no picture \(\.jpg, \.jpeg, \.png\)"
    with pytest.raises(ConfigError, match=message):
        load_data(DataConfig(portraits=(str(tmp_path),), cache=str(tmp_path / "c")), RECIPE)


def test_no_source_at_all_gives_no_data(tmp_path):
    nothing = TrainingData((), (), (), ())
    assert load_data(DataConfig(cache=str(tmp_path)), RECIPE) == (nothing, nothing)


@pytest.mark.parametrize("content", [None, b"no video"])
def test_a_real_that_cannot_be_read_is_named_and_left_out(copy, tmp_path, content, capsys):
    name = copy / "v" / "real.mp4"
    name.unlink()
    if content:
        name.write_bytes(content)
    config = DataConfig(labels=str(copy / "labels.csv"), cache=str(tmp_path / "c"), validation=0.0)
    for _ in range(2):  # nothing that is kept says that it has no face
        train, _ = load_data(config, RECIPE)
        assert (train.videos, [s.group for s in train.reals]) == ((), ["alone"])
        assert f"left out: {name}: " in capsys.readouterr().err
    assert not list((tmp_path / "c").glob("first-*"))


def test_a_fake_that_cannot_be_read_is_named_and_left_out(copy, tmp_path, loaded, capsys):
    """A copy of a video that broke off has the size of the whole one, to be copied again."""
    config = dataclasses.replace(all_of(copy, tmp_path / "c"), stills=(), portraits=())
    name = copy / "v" / "fake.mp4"
    whole = name.read_bytes()
    name.write_bytes(bytes(len(whole)))
    assert load_data(config, RECIPE)[0].videos == ()
    named = [r for r in capsys.readouterr().err.splitlines() if r.startswith("left out: ")]
    assert [r.split(": ")[1] for r in named] == [str(name)] * 2  # in either of its scenes
    assert not list((tmp_path / "c").glob("first-*"))
    name.write_bytes(whole)
    (scene,) = load_data(config, RECIPE)[0].videos
    assert capsys.readouterr().err == ""
    for field in dataclasses.fields(scene):  # as if it had never been away, and kept from now on
        there = getattr(loaded.videos[0], field.name)
        np.testing.assert_array_equal(getattr(scene, field.name), there)
    assert len(list((tmp_path / "c").glob("first-*"))) == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (jpeg(np.zeros((40, 60, 3), dtype=np.uint8)), "expected a square picture, found 60 x 40"),
        (b"no picture", "expected a square picture, found no picture"),
    ],
)
@pytest.mark.parametrize("kind", ["portraits", "stills"])
def test_pictures_that_are_not_square_are_errors_that_name_them(tmp_path, data, message, kind):
    if kind == "portraits":
        source = tmp_path / "folder"
        source.mkdir()
        (source / "wide.jpg").write_bytes(data)
    else:
        source = tmp_path / "stills.zip"
        write_zip(source, {"wide.jpg": data}, [("wide.jpg", "REAL", "wide")])
    config = DataConfig(cache=str(tmp_path / "cache"), **{kind: (str(source),)})
    with pytest.raises(ConfigError, match=f"wide.*{message}"):
        load_data(config, RECIPE)
