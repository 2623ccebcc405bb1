"""Verifying: a sound data set has no problem, and every kind of damage is named."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs the extra: pip install 'tellframe[data]'")

from tellframe.bundle import load_bundle
from tellframe.data.build import Workplace, _parquet, build
from tellframe.data.cut import VideoRecord
from tellframe.data.manifest import Video, load_pyarrow, read_parquet
from tellframe.data.plan import plan_build
from tellframe.data.shards import ClipRow, read_clip
from tellframe.data.verify import (
    _read_table,
    read_index,
    read_recipe,
    read_records,
    verify_dataset,
)
from tellframe.errors import DataError, TellframeError
from tellframe.store import FolderStore, open_store

RECIPE = dataclasses.replace(load_bundle().recipe, num_frames=3)


@pytest.fixture(scope="module")
def videos(samples, tmp_path_factory) -> list[Video]:
    bad = tmp_path_factory.mktemp("bad") / "bad.mp4"
    bad.write_text("no video")
    paths = [*sorted(samples.glob("*.mp4")), bad]
    return [Video(f"set/{p.name}", str(p), label="REAL", group=p.name) for p in paths]


@pytest.fixture(scope="module")
def built(videos, tmp_path_factory) -> Path:
    """Four videos in two shards, with four clips."""
    folder = tmp_path_factory.mktemp("built")
    build(plan_build(videos, RECIPE, 2), Workplace(str(folder), workers=2))
    return folder


@pytest.fixture
def place(built, tmp_path) -> Path:
    """A copy to damage."""
    return shutil.copytree(built, tmp_path / "copy")


def check(place: Path, videos=None) -> str:
    return "\n".join(verify_dataset(FolderStore(place), videos).problems)


def test_a_sound_data_set(built, videos):
    calls = []
    report = verify_dataset(FolderStore(built), videos, lambda *call: calls.append(call))
    shards = sorted((built / "shards").iterdir())
    assert (report.problems, report.unused) == ([], [])
    assert (report.videos, report.clips, report.shards) == (4, 4, 2)
    assert report.bytes == sum(p.stat().st_size for p in shards)
    assert report.outcomes == {"ok": 3, "unreadable": 1}
    assert calls == [(1, 2), (2, 2)]


def test_every_clip_is_readable_by_the_index(built):
    store = FolderStore(built)
    recipe, rows = read_recipe(store), read_index(store)
    assert recipe == RECIPE
    assert sorted((r.video, r.person) for r in rows) == [
        ("set/fake.mp4", 1),
        ("set/real.mp4", 1),
        ("set/two_people.mp4", 1),
        ("set/two_people.mp4", 2),
    ]
    for row in rows:
        clip = read_clip(store, row, recipe)
        assert (clip.num_valid, clip.person, len(clip.times)) == (row.seen, row.person, row.frames)
        assert clip.pixels[clip.valid].std() > 10
        assert (row.label, row.group) == ("REAL", row.video[4:])


def test_a_data_set_in_a_bucket(built, bucket, videos):
    store = open_store(bucket)
    for key in (local := FolderStore(built)).list_files():
        store.put_if_absent(key, local.get(key))
    assert verify_dataset(store, videos) == verify_dataset(local, videos)
    (key, *_) = store.list_files("shards")
    store.delete(key)
    (problem,) = verify_dataset(store).problems
    assert problem.startswith(f"{key}: is missing; delete units/00000")


def shards(place: Path) -> list[Path]:
    return sorted((place / "shards").iterdir())


def units(place: Path) -> list[Path]:
    return sorted((place / "units").iterdir())


def flip(path: Path, where: float) -> None:
    data = bytearray(path.read_bytes())
    data[int(where * len(data))] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("where", [0, 0.001, 0.5, 0.9999])
def test_a_flipped_byte_in_a_shard(place, where):
    (path, _) = shards(place)
    flip(path, where)
    text = check(place)
    assert re.fullmatch(
        rf"shards/{path.name}: its content was altered; delete it and units/0.*build again", text
    )


@pytest.mark.parametrize("change", [lambda data: data[:-512], lambda data: data + b"\0", bytes])
def test_a_shard_of_another_length(place, change):
    (path, _) = shards(place)
    path.write_bytes(change(path.read_bytes()) if change is not bytes else b"")
    assert f"{path.name}: its content was altered" in check(place)


def test_what_is_said_to_do_repairs_it(place, built, videos):
    lost, altered = shards(place)
    lost.unlink()
    flip(altered, 0.5)
    said = re.findall(r"(?:shards|units)/[\w.-]+", check(place))
    assert len(set(said)) == 4
    for key in said:
        (place / key).unlink(missing_ok=True)
    build(plan_build(videos, RECIPE, 2), Workplace(str(place), workers=2))
    assert check(place, videos) == ""
    assert [p.read_bytes() for p in shards(place)] == [p.read_bytes() for p in shards(built)]


def test_a_missing_shard(place):
    (path, _) = shards(place)
    path.unlink()
    report = verify_dataset(FolderStore(place))
    assert re.fullmatch(
        rf"shards/{path.name}: is missing; delete units/\S+ and.*", *report.problems
    )
    assert report.shards == 1


def test_a_missing_unit(place):
    units(place)[0].unlink()
    report = verify_dataset(FolderStore(place))
    text = "\n".join(report.problems)
    assert "units: 1 are done of 2" in text
    assert "index.parquet: is not what the units say" in text
    assert "videos.parquet: is not what the units say" in text
    assert len(report.unused) == 1


def alter(unit: dict, path: str, value) -> None:
    """Set a value in nested lists and tables; `KeyError` as value removes it."""
    *way, last = [int(name) if name.isdigit() else name for name in path.split(".")]
    for name in way:
        unit = unit[name]
    if value is KeyError:
        del unit[last]
    else:
        unit[last] = value


UNIT_DAMAGE = [
    ("shard.sha256", "0" * 64, "its content was altered"),
    ("shard.key", "shards/other.tar", "shards/other.tar: is missing"),
    ("shard.key", KeyError, "damaged"),
    ("shard", None, r"^units/\S+: has clips but no shard; delete it and build again$"),
    ("shard", [], r"^units/\S+: has clips but no shard; delete it and build again$"),
    ("shard", "x", "damaged"),
    ("clips", KeyError, "damaged"),
    ("clips", 1, "damaged"),
    ("clips", [], "index.parquet: is not what the units say"),
    ("clips.0", {}, "damaged"),
    ("clips.0.extra", 1, "damaged"),
    ("clips.0.offset", 512, "index.parquet.*\n.*is not what the index says"),
    ("clips.0.offset", "0", "damaged"),
    ("clips.0.offset", 10**30, "damaged"),
    ("clips.0.offset", None, "index.parquet.*"),
    ("clips.0.person", 9, "index.parquet.*\n.*is not what the index says"),
    ("clips.0.label", "FAKE", "index.parquet"),
    ("clips.0.video", ["x"], "damaged"),
    ("videos", [], "videos.parquet: is not what the units say"),
    ("videos.0.outcome", "no_face", "videos.parquet: is not what the units say"),
    ("videos.0.width", {}, "damaged"),
    ("videos.0", None, "damaged"),
]


@pytest.mark.parametrize(("path", "value", "problem"), UNIT_DAMAGE)
def test_an_altered_unit(place, path, value, problem):
    file = units(place)[0]
    unit = json.loads(file.read_text())
    alter(unit, path, value)
    file.write_text(json.dumps(unit))
    report = verify_dataset(FolderStore(place))
    assert report.problems
    assert re.search(problem, "\n".join(report.problems))
    if value in (None, []) and path == "shard":
        assert len(report.unused) == 1


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 99_999, b'{"a": 1}'])
def test_a_unit_that_is_none(place, text):
    file = units(place)[1]
    file.write_bytes(text)
    assert f"units/{file.name}: damaged" in check(place)


def test_one_unit_too_many(place):
    (place / "units" / "000009-0123456789abcdef.json").write_bytes(units(place)[0].read_bytes())
    assert "units: 3 are done of 2" in check(place)


INDEX_DAMAGE = {
    "one row less": lambda rows: rows[1:],
    "one row more": lambda rows: [*rows, rows[0]],
    "another label": lambda rows: [dataclasses.replace(rows[0], label="FAKE"), *rows[1:]],
    "another place": lambda rows: [dataclasses.replace(rows[0], offset=1024), *rows[1:]],
    "another shard": lambda rows: [dataclasses.replace(rows[0], shard="x"), *rows[1:]],
    "a digit": lambda rows: [dataclasses.replace(rows[0], end=rows[0].end + 1e-9), *rows[1:]],
}


@pytest.mark.parametrize("how", INDEX_DAMAGE)
def test_an_altered_index(place, how):
    rows = INDEX_DAMAGE[how](read_index(FolderStore(place)))
    (place / "index.parquet").write_bytes(_parquet(rows, ClipRow))
    assert check(place).startswith("index.parquet: is not what the units say")


def test_another_order_of_the_index_is_sound(place):
    rows = read_index(FolderStore(place))[::-1]
    (place / "index.parquet").write_bytes(_parquet(rows, ClipRow))
    assert check(place) == ""


def test_altered_videos(place):
    rows = _read_table(FolderStore(place), "videos.parquet", VideoRecord)
    (place / "videos.parquet").write_bytes(_parquet(rows[1:], VideoRecord))
    assert "videos.parquet: 3 videos, dataset.json says 4" in check(place)
    rows[0] = dataclasses.replace(rows[0], message="altered")
    (place / "videos.parquet").write_bytes(_parquet(rows, VideoRecord))
    assert check(place).startswith("videos.parquet: is not what the units say")


def test_videos_of_an_earlier_version(place):
    store = FolderStore(place)
    records = read_records(store)
    for path in (place / "units").iterdir():
        unit = json.loads(path.read_text())
        unit["videos"] = [{k: v for k, v in row.items() if k != "left_out"}
                          for row in unit["videos"]]  # fmt: skip
        path.write_text(json.dumps(unit))
    path, write_table = place / "videos.parquet", load_pyarrow().parquet.write_table
    write_table(read_parquet(path).drop_columns("left_out"), path)
    assert check(place) == ""
    assert read_records(store) == records
    write_table(read_parquet(path).drop_columns("partial"), path)
    with pytest.raises(DataError, match=r"lacks the columns partial$"):
        read_records(store)


@pytest.mark.parametrize("name", ["index.parquet", "videos.parquet"])
def test_tables_that_are_none(place, name):
    data = (place / name).read_bytes()
    (place / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: is missing; run tellframe build"):
        check(place)
    for bad in (b"", b"no parquet", data[:-50], data[: len(data) // 2]):
        (place / name).write_bytes(bad)
        with pytest.raises(DataError, match=rf"{name}: cannot be read as Parquet"):
            check(place)
    (place / name).write_bytes(_parquet([], NoColumns))
    with pytest.raises(DataError, match=rf"{name}: lacks the columns"):
        check(place)


@dataclasses.dataclass
class NoColumns:
    nothing: str = ""


def test_no_flipped_byte_of_the_index_is_another_exception(place):
    path = place / "index.parquet"
    data, store = path.read_bytes(), FolderStore(place)
    for where in range(0, len(data), 29):
        path.write_bytes(data)
        flip(path, where / len(data))
        try:
            read_index(store)
        except DataError as error:
            assert "index.parquet" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"recipe": {"margin": 0.5}}, r"dataset\.json: the recipe was altered"),
        ({"recipe_digest": "0" * 16}, r"dataset\.json: the recipe was altered"),
        ({"recipe": {"no_such": 1}}, "unknown key 'no_such'"),
        ({"recipe": {"crop_size": 9}}, "crop_size = 9 is out of range"),
        ({"recipe": None}, r"dataset\.json: lacks recipe"),
        ({"units": None, "videos": None}, r"dataset\.json: lacks units, videos"),
        ({"format": 2}, r"dataset\.json: is not of format 1"),
        ({"videos": 5}, r"videos\.parquet: 4 videos, dataset\.json says 5"),
        ({"units": 3}, "units: 2 are done of 3"),
        ({"manifest_sha256": "0" * 64}, "the manifest differs"),
    ],
)
def test_an_altered_description(place, videos, changes, problem):
    description = json.loads((place / "dataset.json").read_text())
    for key, value in changes.items():
        whole = {**description[key], **value} if isinstance(value, dict) else value
        alter(description, key, KeyError if whole is None else whole)
    (place / "dataset.json").write_text(json.dumps(description))
    try:
        text = check(place, videos)
    except TellframeError as error:
        text = str(error)
    assert re.search(problem, text)


def test_another_recipe_all_through_the_description(place):
    recipe = dataclasses.replace(RECIPE, margin=0.5)
    description = json.loads((place / "dataset.json").read_text())
    description |= {"recipe": recipe.to_dict(), "recipe_digest": recipe.digest}
    (place / "dataset.json").write_text(json.dumps(description))
    assert check(place).count("is of another recipe") == 4


@pytest.mark.parametrize("text", [None, "{", "[]", "null", ""])
def test_no_description(place, text):
    (place / "dataset.json").unlink()
    if text is not None:
        (place / "dataset.json").write_text(text)
    with pytest.raises(DataError, match=r"dataset\.json"):
        check(place)


def test_a_shard_of_no_unit_is_unused(place):
    (place / "shards" / "orphan.tar").write_bytes(b"x")
    report = verify_dataset(FolderStore(place))
    assert (report.problems, report.unused) == ([], ["shards/orphan.tar"])


def test_other_manifests(built, videos):
    more = [*videos, Video("set/more.mp4", "more.mp4")]
    differs = "the manifest differs from the one that the data set was built from"
    assert check(built, more).split("\n") == [
        "set/more.mp4: in the manifest, not in the data set",
        differs,
    ]
    assert check(built, videos[1:]).split("\n") == [
        f"{videos[0].video}: in the data set, not in the manifest",
        differs,
    ]
    relabelled = [dataclasses.replace(videos[0], label="FAKE"), *videos[1:]]
    assert check(built, relabelled) == differs
    assert check(built, videos[::-1]) == ""
