"""The demo data has the shape of the DFDC's parts, and every oddity that it says it has."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import numpy as np
import pytest

from tellframe.errors import DecodeError
from tellframe.extract import Extraction, extract_clips
from tellframe.faces import load_face_detector
from tellframe.recipe import Recipe
from tellframe.video import list_frames, read_frames

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "make_demo_data.py"
SMALL = {"videos": 12, "zips": 2, "size": (320, 240), "seconds": 2.0}
TINY = {**SMALL, "seconds": 0.12}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location(SCRIPT.stem, SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[SCRIPT.stem] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    return module


class Demo:
    """The small form, unpacked."""

    def __init__(self, folder: Path, oddities: dict[str, list[str]]) -> None:
        self.zips = sorted(folder.glob("*.zip"))
        self.oddities = oddities
        self.files: dict[str, Path] = {}
        self.labels: dict[str, dict[str, str]] = {}
        for path in self.zips:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(folder)
                names = [n for n in archive.namelist() if n.endswith(".mp4")]
            self.files |= {name: folder / name for name in names}
            metadata = json.loads((folder / path.stem / "metadata.json").read_text())
            self.labels |= {f"{path.stem}/{name}": entry for name, entry in metadata.items()}

    def kind(self, video: str) -> str:
        return next((kind for kind, ids in self.oddities.items() if video in ids), "")

    def only(self, kind: str) -> str:
        (video,) = self.oddities[kind]
        return video

    def original(self, video: str) -> str:
        return f"{video.split('/')[0]}/{self.labels[video]['original']}"

    def pictures(self, video: str, count: int = 3) -> np.ndarray:
        listing = list_frames(self.files[video])
        wanted = np.linspace(0, len(listing.times) - 1, count).astype(int)
        frames = read_frames(self.files[video], listing, wanted)
        return np.stack([frame.image for frame in frames]).astype(np.float32)


@pytest.fixture(scope="module")
def demo(script, tmp_path_factory) -> Demo:
    folder = tmp_path_factory.mktemp("demo")
    oddities = script.make_demo(folder, **SMALL)
    assert json.loads((folder / "demo.json").read_text()) == oddities
    return Demo(folder, oddities)


@pytest.fixture(scope="module")
def extractions(demo) -> dict[str, Extraction]:
    recipe = Recipe()
    detector = load_face_detector(recipe)
    broken = demo.oddities["not_a_video"]
    files = {video: path for video, path in demo.files.items() if video not in broken}
    return {video: extract_clips(path, recipe, detector) for video, path in files.items()}


def test_zips_are_shaped_like_the_dfdc(demo):
    assert [path.name for path in demo.zips] == ["dfdc_train_part_0.zip", "dfdc_train_part_1.zip"]
    for path in demo.zips:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
        assert {m.compress_type for m in members} == {zipfile.ZIP_STORED}
        assert {m.filename.split("/")[0] for m in members} == {path.stem}
    assert all(re.fullmatch(r"dfdc_train_part_\d/[a-z]{10}\.mp4", name) for name in demo.files)
    assert len(demo.files) == SMALL["videos"]
    for entry in demo.labels.values():
        assert entry["split"] == "train"
        assert entry["label"] == ("FAKE" if "original" in entry else "REAL")


def test_files_and_entries_belong_together_but_for_two(demo):
    assert set(demo.files) - set(demo.labels) == {demo.only("no_entry")}
    assert set(demo.labels) - set(demo.files) == {demo.only("no_file")}


def test_originals_lie_in_the_same_zip_but_for_the_missing(demo):
    fakes = [video for video, entry in demo.labels.items() if "original" in entry]
    lonely = [video for video in fakes if demo.original(video) not in demo.files]
    assert lonely == demo.oddities["missing_original"]
    names = {video.split("/")[1] for video in (*demo.files, *demo.labels)}
    assert demo.labels[lonely[0]]["original"] not in names
    assert all(demo.labels[demo.original(v)]["label"] == "REAL" for v in set(fakes) - set(lonely))


def test_faces_are_found_where_they_should_be(demo, extractions):
    people = {"no_face": 0, "two_people": 2}
    for video, extraction in extractions.items():
        assert len(extraction.clips) == people.get(demo.kind(video), 1), video
        for clip in extraction.clips:
            assert clip.valid.all()
            assert (clip.boxes[:, 3] - clip.boxes[:, 1]).min() >= 60


def test_one_is_cut_off(demo, extractions):
    cut = [video for video, extraction in extractions.items() if extraction.media.partial]
    assert cut == demo.oddities["truncated"]


def test_one_is_dark(demo, extractions):
    luma = {video: demo.pictures(video) @ (0.299, 0.587, 0.114) for video in extractions}
    dark = [video for video, values in luma.items() if values.mean() < 40]
    assert dark == demo.oddities["dark"]


def test_one_lies_on_its_side(demo, extractions):
    lying = [video for video, extraction in extractions.items() if extraction.media.rotation]
    assert lying == demo.oddities["rotated"]
    media = extractions[lying[0]].media
    assert (media.width, media.height) == SMALL["size"][::-1]
    assert demo.pictures(lying[0]).shape == demo.pictures(demo.original(lying[0])).shape


def test_one_is_no_video(demo):
    with pytest.raises(DecodeError):
        list_frames(demo.files[demo.only("not_a_video")])


def test_two_real_videos_have_the_same_bytes(demo):
    first, copy = demo.oddities["duplicate"]
    assert {demo.labels[video]["label"] for video in (first, copy)} == {"REAL"}
    assert first.split("/")[0] != copy.split("/")[0]
    contents = [path.read_bytes() for path in demo.files.values()]
    assert len(set(contents)) == len(contents) - 1
    assert demo.files[first].read_bytes() == demo.files[copy].read_bytes()


def test_a_fake_differs_from_its_original_in_one_face_alone(demo, extractions):
    odd = {*demo.oddities["missing_original"], *demo.oddities["dark"], *demo.oddities["truncated"]}
    fakes = [v for v in extractions if v not in odd and "original" in demo.labels.get(v, ())]
    assert {demo.kind(video) for video in fakes} == {"", "rotated", "two_people"}
    for video in fakes:
        difference = np.abs(demo.pictures(video) - demo.pictures(demo.original(video)))
        pixels = difference.mean(axis=(0, 3))
        left, top, right, bottom = extractions[video].clips[-1].boxes.mean(axis=0).astype(int)
        assert pixels[top:bottom, left:right].mean() > 6, video
        pixels[top - 20 : bottom + 20, left - 20 : right + 20] = 0
        assert pixels.mean() < 2, video


def test_the_same_arguments_give_the_same_bytes(script, tmp_path):
    for name in "ab":
        script.make_demo(tmp_path / name, **TINY)
    files = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert len(files) == 3
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()}


def test_zips_of_an_earlier_call_are_deleted(script, tmp_path):
    (tmp_path / "dfdc_train_part_7.zip").write_bytes(b"old")
    (tmp_path / "mine.zip").write_bytes(b"of somebody else")
    script.make_demo(tmp_path, **TINY)
    parts = ["dfdc_train_part_0.zip", "dfdc_train_part_1.zip"]
    assert sorted(path.name for path in tmp_path.glob("*.zip")) == [*parts, "mine.zip"]


def test_the_demo_can_be_run_again(tmp_path, monkeypatch):
    pytest.importorskip("obstore", reason="needs the extra: pip install 'tellframe[data]'")
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    demo = importlib.import_module("run_demo_data")
    starts = []

    def serve(folder):
        starts.append(folder.exists())
        folder.mkdir()
        return MagicMock()

    monkeypatch.setattr(demo, "S3Server", serve)
    monkeypatch.setattr(demo, "open_store", MagicMock())
    monkeypatch.setattr(demo, "make_demo", MagicMock())
    monkeypatch.setattr(demo, "run", MagicMock())
    monkeypatch.setattr(sys, "argv", ["run_demo_data.py", "--out", str(tmp_path)])
    demo.main()
    demo.main()
    assert starts == [False, False]


@pytest.mark.parametrize("videos", [12, 13, 24, 120, 500])
def test_the_plan_holds_for_every_size(script, videos):
    for zips in (1, videos // 8 + 1):
        plan = script.plan(videos, zips, np.random.default_rng(1))
        files = [video for video in plan if video.kind != "no_file"]
        assert len(files) == videos
        assert {video.part for video in files} == set(range(zips))
    share = sum(not video.original for video in files) / videos
    assert videos < 100 or share == pytest.approx(0.17, abs=0.01)


@pytest.mark.parametrize(
    "wrong", [{"videos": 11}, {"zips": 0}, {"zips": 3}, {"size": (320, 180)}, {"seconds": 0.01}]
)
def test_impossible_wishes_are_refused(script, wrong, tmp_path):
    with pytest.raises(ValueError, match=r"few|zips|size|no pictures"):
        script.make_demo(tmp_path, **(SMALL | wrong))
