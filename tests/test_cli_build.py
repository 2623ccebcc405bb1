"""`tellframe build` and `tellframe data verify` as a person or a script meets them."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs the extra: pip install 'tellframe[data]'")

from tellframe.cli import build as cli_build
from tellframe.cli import build_parser, run
from tellframe.cli.options import archive_limits
from tellframe.data import ray_engine
from tellframe.data.build import build_units
from tellframe.data.manifest import Video, write_manifest
from tellframe.data.verify import read_index, read_recipe
from tellframe.limits import ArchiveLimits
from tellframe.store import FolderStore


@pytest.fixture(scope="module")
def manifests(samples, tmp_path_factory) -> dict[str, str]:
    """Return the paths of manifests: good videos, and others among them."""
    folder = tmp_path_factory.mktemp("manifests")
    (folder / "bad\x1b[2J.mp4").write_text("no video")
    good = [Video(p.name, str(p), label="REAL") for p in sorted(samples.glob("*.mp4"))]
    bad = [Video(n, str(folder / n)) for n in ("bad\x1b[2J.mp4", "gone.mp4")]
    kinds = {"good": good, "mixed": good + bad, "none": [], "bad": bad}
    for name, videos in kinds.items():
        write_manifest(videos, folder / name)
    return {name: str(folder / name) for name in kinds}


def build(manifest, place, *more: str) -> int:
    small = ("--set", "num_frames=2", "--videos-per-shard", "2", "--workers", "1")
    return run(["build", manifest, "-o", str(place), *small, *more])


@pytest.fixture(scope="module")
def built(manifests, tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("built")
    assert build(manifests["good"], place, "--quiet") == 0
    return place


@pytest.mark.parametrize("verb", ["build", "data"])
def test_help_shows_an_example(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args([verb, "--help"])
    assert stopped.value.code == 0
    assert f"example: tellframe {verb}" in capsys.readouterr().out


def test_all_good(manifests, built, capsys):
    assert build(manifests["good"], built) == 0  # nothing is left to do
    out, err = capsys.readouterr()
    assert out == f"{built}: 4 clips in 2 shards; videos: 3 ok\n"
    assert err == ""
    assert run(["data", "verify", str(built), "--manifest", manifests["good"]]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.splitlines()[0] == "3 videos (3 ok), 4 clips"
    assert out.splitlines()[1].startswith("2 shards read, 0.")
    assert out.splitlines()[2:] == ["sound"]


def test_some_failed(manifests, tmp_path, capsys):
    assert build(manifests["mixed"], tmp_path) == 3
    out, err = capsys.readouterr()
    assert out == f"{tmp_path}: 4 clips in 3 shards; videos: 1 missing, 3 ok, 1 unreadable\n"
    assert "missing: gone.mp4" in err
    assert "unreadable: bad" in err
    assert "\x1b" not in err
    assert build(manifests["mixed"], tmp_path, "--quiet") == 3  # still
    assert capsys.readouterr() == (out, "")
    assert run(["data", "verify", str(tmp_path)]) == 0  # as it should be, though not all were good


def test_quiet(manifests, tmp_path, capsys):
    assert build(manifests["bad"], tmp_path, "--quiet") == 3
    out, err = capsys.readouterr()
    assert out == f"{tmp_path}: 0 clips in 1 shards; videos: 1 missing, 1 unreadable\n"
    assert err == ""
    assert not (tmp_path / "shards").exists()
    assert run(["data", "verify", str(tmp_path)]) == 0


def test_no_videos(manifests, tmp_path, capsys):
    assert build(manifests["none"], tmp_path) == 0
    assert run(["data", "verify", str(tmp_path), "--manifest", manifests["none"]]) == 0
    assert capsys.readouterr().out.endswith("sound\n")


def test_two_workers_one_after_the_other(manifests, built, tmp_path, capsys):
    assert build(manifests["good"], tmp_path, "--worker", "0/2") == 0
    assert capsys.readouterr().out == (
        f"{tmp_path}: 1 of 2 shards are left to other workers; whoever ends last writes the index\n"
    )
    assert not (tmp_path / "index.parquet").exists()
    assert run(["data", "verify", str(tmp_path)]) == 2
    assert "index.parquet: is missing; run tellframe build" in capsys.readouterr().err
    assert build(manifests["good"], tmp_path, "--worker", "0/2") == 0  # again, nothing to do
    assert "1 of 2 shards are left" in capsys.readouterr().out
    assert build(manifests["good"], tmp_path, "--worker", "1/2") == 0
    assert capsys.readouterr().out == f"{tmp_path}: 4 clips in 2 shards; videos: 3 ok\n"
    for key, size in FolderStore(built).list_files().items():
        assert (tmp_path / key).read_bytes() == (built / key).read_bytes(), (key, size)


def test_progress(manifests, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(cli_build, "_REPORT_SECONDS", 0.0)
    assert build(manifests["good"], tmp_path, "--worker", "1/2") == 0
    assert "1 videos done, of 3 in the manifest; " in capsys.readouterr().err


def test_the_engine_asked_for_builds(manifests, built, tmp_path, monkeypatch):
    asked = []

    def build_on_a_cluster(recipe, units, *given):
        asked.extend(units)
        build_units(recipe, units, *given)

    monkeypatch.setattr(ray_engine, "build_units", build_on_a_cluster)
    assert build(manifests["good"], tmp_path / "here", "--quiet") == 0
    assert asked == []
    assert build(manifests["good"], tmp_path / "ray", "--quiet", "--engine", "ray") == 0
    assert len(asked) == 2
    assert FolderStore(tmp_path / "ray").list_files() == FolderStore(built).list_files()


def test_set_changes_the_recipe(manifests, tmp_path):
    assert build(manifests["good"], tmp_path, "--set", "num_frames=5", "--quiet") == 0
    store = FolderStore(tmp_path)
    assert read_recipe(store).num_frames == 5
    assert {row.frames for row in read_index(store)} == {5}


def test_a_recipe_from_a_file(manifests, tmp_path):
    recipe = tmp_path / "r.toml"
    recipe.write_text('[recipe]\nnum_frames = 1\ncrop_format = "png"\n')
    command = ["build", manifests["bad"], "-o", str(tmp_path / "d"), "--recipe", str(recipe)]
    assert run([*command, "--set", "crop_size=64", "--quiet"]) == 3
    found = read_recipe(FolderStore(tmp_path / "d"))
    assert (found.num_frames, found.crop_format, found.crop_size) == (1, "png", 64)


@pytest.mark.parametrize(
    ("more", "text"),
    [
        (("--worker", "2/2"), "--worker 2/2: give i/N with i from 0 to N-1"),
        (("--worker=-1/2",), "--worker -1/2: give i/N"),
        (("--worker", "1"), "--worker 1: give i/N"),
        (("--worker", "a/b"), "--worker a/b: give i/N"),
        (("--worker", "0/1/2"), "--worker 0/1/2: give i/N"),
        (("--worker", "0/0"), "--worker 0/0: give i/N"),
        (("--workers", "-1"), "--workers -1: give 0 or more"),
        (("--attempts", "0"), "--attempts: give more than 0"),
        (("--videos-per-shard", "0"), "--videos-per-shard: give more than 0"),
        (("--timeout", "0"), "--timeout: give more than 0"),
        (("--timeout", "nan"), "--timeout: give more than 0"),
        (("--timeout", "inf"), "--timeout: give more than 0"),
        (("--set", "num_frame=5"), "did you mean 'num_frames'?"),
        (("--set", "num_frames=0"), "num_frames = 0 is out of range"),
        (("--set", "num_frames"), "expected table.key=value"),
        (("--recipe", "no-such-model"), "no-such-model"),
        (("--recipe", "none.toml"), "none.toml: cannot be read as TOML"),
        (("-o", "ftp://host/x"), "ftp://host/x: unknown kind of place"),
    ],
)
def test_wrong_usage(manifests, tmp_path, capsys, more, text):
    assert build(manifests["good"], tmp_path / "place", *more) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tellframe: error: ")
    assert text in err
    assert not (tmp_path / "place").exists()


def test_another_recipe_is_refused(manifests, built, capsys):
    assert build(manifests["good"], built, "--set", "num_frames=5", "--set", "margin=0.5") == 2
    assert capsys.readouterr().err == (
        f"tellframe: error: {built} and this build were made with different recipes: "
        "num_frames: 2 against 5; margin: 0.1 against 0.5\n"
    )


@pytest.mark.parametrize(
    ("manifest", "more", "text"),
    [("mixed", (), "manifest_sha256, videos"), ("good", ("--videos-per-shard", "1"), "shard")],
)
def test_another_data_set_is_refused(manifests, built, capsys, manifest, more, text):
    assert build(manifests[manifest], built, *more) == 2
    err = capsys.readouterr().err
    assert f"{built}: holds another data set (" in err
    assert text in err


def test_no_manifest(tmp_path, capsys):
    assert build(str(tmp_path / "none"), tmp_path / "place") == 2
    assert "none: cannot be read as Parquet" in capsys.readouterr().err
    (tmp_path / "text").write_text("no manifest")
    assert build(str(tmp_path / "text"), tmp_path / "place") == 2
    assert not (tmp_path / "place").exists()


def test_a_place_that_cannot_be_written(manifests, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert build(manifests["good"], tmp_path / "file") == 2
    assert "file is no folder; name another" in capsys.readouterr().err


def test_verify_names_what_is_damaged(manifests, built, tmp_path, capsys):
    store = FolderStore(tmp_path)
    for key in (sound := FolderStore(built)).list_files():
        store.put_if_absent(key, sound.get(key))
    lost, altered = store.list_files("shards")
    store.delete(lost)
    (tmp_path / altered).write_bytes(b"altered")
    (tmp_path / "shards" / "orphan.tar").write_bytes(b"x")
    assert run(["data", "verify", str(tmp_path), "--manifest", manifests["mixed"]]) == 3
    out, err = capsys.readouterr()
    assert "unused: shards/orphan.tar (" in out
    assert out.endswith("5 problems\n")
    for text in (
        f"problem: {lost}: is missing; delete units/",
        f"problem: {altered}: its content was altered",
        "problem: gone.mp4: in the manifest, not in the data set",
        "problem: the manifest differs",
    ):
        assert text in err
    assert "\x1b" not in err


@pytest.mark.parametrize(("place", "text"), [("none", "holds no dataset.json"), ("ftp://x/y", "")])
def test_verify_of_nothing(tmp_path, capsys, place, text):
    assert run(["data", "verify", place if "://" in place else str(tmp_path / place)]) == 2
    assert text in capsys.readouterr().err


def test_a_unit_altered_by_hand(manifests, built, tmp_path, capsys):
    store = FolderStore(tmp_path)
    for key in (sound := FolderStore(built)).list_files():
        if key.endswith(".json"):
            store.put_if_absent(key, sound.get(key))
    (unit, _) = store.list_files("units")
    (tmp_path / unit).write_text(json.dumps({"clips": 1}))
    assert build(manifests["good"], tmp_path) == 2
    assert f"{unit}: damaged (" in capsys.readouterr().err


@pytest.fixture(scope="module")
def zipped(samples, tmp_path_factory) -> str:
    """Return the path of a manifest of one video in a zip."""
    folder = tmp_path_factory.mktemp("zipped")
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.write(samples / "real.mp4", "real.mp4")
        archive.writestr("metadata.json", '{"real.mp4": {"label": "REAL"}}')
    assert run(["index", str(folder / "a.zip"), "-o", str(folder / "m.parquet")]) == 0
    return str(folder / "m.parquet")


@pytest.mark.parametrize("option", ["--max-zip-bytes", "--max-zip-ratio"])
@pytest.mark.parametrize("verb", ["build", "eda", "evaluate", "submit"])
def test_limits_of_zips_are_options(verb, option, zipped, tmp_path, capsys):
    inputs = ["frame_lite0", zipped] if verb == "submit" else [zipped]
    output = tmp_path / {"build": "shards", "eda": "a.html", "submit": "a.csv"}.get(verb, "out")
    arguments = [verb, *inputs, "-o", str(output), "--workers", "1"]
    assert run([*arguments, option, "0"]) == 2
    assert "give more than 0" in capsys.readouterr().err
    defaults = archive_limits(build_parser().parse_args(arguments))
    assert defaults == ArchiveLimits()
    given = archive_limits(build_parser().parse_args([*arguments, option, "1"]))
    assert given != defaults


@pytest.mark.parametrize("verb", ["build", "eda"])
def test_a_video_beyond_the_limits_of_zips_is_named(verb, zipped, tmp_path, capsys):
    output = tmp_path / ("shards" if verb == "build" else "a.html")
    arguments = [verb, zipped, "-o", str(output), "--workers", "1", "--set", "num_frames=2"]
    run([*arguments, "--max-zip-bytes", "1000"])
    assert "more than the limit of 1000; refused, see --max-zip-bytes" in capsys.readouterr().err
