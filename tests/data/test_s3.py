"""From zips in a bucket to shards in a bucket, against a real S3 server that may go away."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs the extra: pip install 'tellframe[data]'")
pytest.importorskip("obstore", reason="needs the extra: pip install 'tellframe[data]'")

from tellframe.cli import run
from tellframe.data.manifest import read_manifest
from tellframe.data.media import member_of
from tellframe.data.verify import read_index
from tellframe.data.zips import list_members, read_member
from tellframe.store import open_store, split_location

ROOT = Path(__file__).resolve().parents[2]


def load_script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Path, dict[str, list[str]]]:
    """Two zips with sixteen videos, every oddity among them."""
    folder = tmp_path_factory.mktemp("demo")
    make = load_script("make_demo_data").make_demo
    return folder, make(folder, videos=16, zips=2, size=(320, 240), seconds=2.0)


@pytest.fixture
def zips(demo, bucket) -> str:
    """The zips in a bucket; the address of their folder."""
    store = open_store(f"{bucket}/zips")
    for path in sorted(demo[0].glob("*.zip")):
        store.put_if_absent(path.name, path.read_bytes())
    return f"{bucket}/zips"


def files_of(address: str) -> dict[str, str]:
    store = open_store(address)
    return {key: hashlib.sha256(store.get(key)).hexdigest() for key in store.list_files()}


def test_index_eda_build_verify(demo, zips, bucket, tmp_path, capsys):
    oddities = demo[1]
    manifest, page = str(tmp_path / "manifest.parquet"), tmp_path / "eda.html"
    assert run(["index", zips, "-o", manifest, "--problems", str(tmp_path / "problems.json")]) == 0
    problems = json.loads((tmp_path / "problems.json").read_text())["counts"]
    assert problems["missing_original"] == len(oddities["missing_original"])
    assert problems["label_without_file"] == len(oddities["no_file"])
    assert problems["file_without_label"] == len(oddities["no_entry"])
    assert problems["duplicate_content"] == 1
    videos = {v.video: v for v in read_manifest(manifest)}
    assert len(videos) == 16

    assert run(["eda", manifest, "-o", str(page), "--quiet"]) == 0
    assert page.stat().st_size > 20_000

    faces = f"{bucket}/faces"
    build = ["build", manifest, "-o", faces, "--videos-per-shard", "4", "--quiet"]
    assert run(build) == 3  # the one that is no video
    assert run(["data", "verify", faces, "--manifest", manifest]) == 0
    assert "sound" in capsys.readouterr().out
    people = {row.video: row.people for row in read_index(open_store(faces))}
    assert not set(oddities["not_a_video"] + oddities["no_face"]) & set(people)
    assert all(people[video] == 2 for video in oddities["two_people"])
    for kind in ("dark", "rotated", "missing_original"):
        assert all(people[video] >= 1 for video in oddities[kind]), kind

    local = tmp_path / "faces"
    assert run(["build", manifest, "-o", str(local), "--videos-per-shard", "4", "--quiet"]) == 3
    assert files_of(faces) == files_of(str(local))


def test_bytes_fetched_from_a_zip_in_the_bucket(zips):
    store = open_store(zips)
    (name, *_) = store.list_files()
    before = store.bytes_read
    members = list_members(store, name)
    directory = store.bytes_read - before
    for member in members:
        read_member(store, name, member)
    assert store.bytes_read - before <= 1.05 * sum(m.bytes for m in members) + directory
    assert directory <= 64 * 1024


def test_members_are_read_where_the_manifest_says(zips, tmp_path):
    run(["index", zips, "-o", str(tmp_path / "m.parquet")])
    for video in read_manifest(tmp_path / "m.parquet"):
        place, key = split_location(video.location)
        assert len(read_member(open_store(place), key, member_of(video))) == video.bytes


def test_a_wrong_secret_is_a_clear_error(zips, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    assert run(["index", zips, "-o", str(tmp_path / "m.parquet")]) == 2
    assert "AWS_SECRET_ACCESS_KEY" in capsys.readouterr().err
    assert not (tmp_path / "m.parquet").exists()


def test_a_server_that_goes_away_and_comes_back(zips, bucket, s3_server, tmp_path):
    manifest = str(tmp_path / "m.parquet")
    run(["index", zips, "-o", manifest])
    options = ["build", manifest, "--videos-per-shard", "2", "--quiet"]
    assert run([*options, "-o", f"{bucket}/undisturbed"]) == 3

    command = [sys.executable, "-m", "tellframe", *options, "-o", f"{bucket}/disturbed"]
    store, deadline = open_store(f"{bucket}/disturbed"), time.monotonic() + 120
    with subprocess.Popen(command) as process:
        try:
            while not store.list_files("shards"):
                assert process.poll() is None, "the build ended before its first shard"
                assert time.monotonic() < deadline, "no shard was written"
                time.sleep(0.05)
            s3_server.kill()
            assert process.poll() is None, "the build ended before the server went away"
            s3_server.start()
            status = process.wait(120)
        finally:
            process.kill()
    # It waits for the server, or says that it is not there; started again, it goes on.
    assert status in (2, 3)
    assert run([*options, "-o", f"{bucket}/disturbed"]) == 3
    assert files_of(f"{bucket}/disturbed") == files_of(f"{bucket}/undisturbed")
