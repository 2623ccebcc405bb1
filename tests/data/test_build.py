"""Building: complete whatever happens, once, and the same byte for byte on every engine."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs the extra: pip install 'tellframe[data]'")

from tellframe.bundle import load_bundle
from tellframe.data import cut
from tellframe.data.build import Workplace, build, build_units
from tellframe.data.manifest import Video, write_manifest
from tellframe.data.plan import list_open_units, plan_build
from tellframe.data.verify import verify_dataset
from tellframe.errors import DataError, LeakError, RecipeMismatchError, StoreError
from tellframe.isolation import Limits
from tellframe.store import FolderStore
from tellframe.video import list_frames, read_frames

RECIPE = dataclasses.replace(load_bundle().recipe, num_frames=3)


@pytest.fixture(scope="module")
def videos(samples, tmp_path_factory) -> list[Video]:
    """Fifteen videos in all: the samples four times under other names, and some bad ones."""
    folder = tmp_path_factory.mktemp("videos")
    (folder / "bad.mp4").write_text("no video")
    paths = [p for p in sorted(samples.glob("*.mp4")) for _ in range(4)]
    found = [Video(f"set/{n:02d}-{p.name}", str(p), label="REAL") for n, p in enumerate(paths)]
    found.append(Video("set/bad.mp4", str(folder / "bad.mp4"), label="FAKE"))
    found.append(Video("set/gone.mp4", str(folder / "gone.mp4"), label="FAKE"))
    return found


@pytest.fixture(scope="module")
def undisturbed(videos, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    summary = build(plan_build(videos, RECIPE, 3), Workplace(str(folder), workers=2))
    assert summary.outcomes == {"missing": 1, "ok": 12, "unreadable": 1}
    assert (summary.units, summary.units_open, summary.clips) == (5, 0, 16)
    return folder


def content(folder: Path) -> dict[str, str]:
    """Return {name: digest} of every file in a data set, leftovers included."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def command(manifest: Path, target: Path, *more: str) -> list[str]:
    """Return the command line of a build."""
    return [
        *(sys.executable, "-m", "tellframe", "build", str(manifest), "-o", str(target)),
        *("--set", "num_frames=3", "--videos-per-shard", "3", "--quiet", *more),
    ]


@pytest.fixture(scope="module")
def manifest(videos, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("manifest") / "manifest.parquet"
    write_manifest(videos, path)
    return path


def test_a_finished_build_is_sound_and_complete(videos, undisturbed):
    report = verify_dataset(FolderStore(undisturbed), videos)
    assert (report.problems, report.unused) == ([], [])
    assert (report.videos, report.clips) == (14, 16)


def test_two_runs_are_equal_byte_for_byte(videos, undisturbed, tmp_path):
    build(plan_build(videos[::-1], RECIPE, 3), Workplace(str(tmp_path), workers=1))
    assert content(tmp_path) == content(undisturbed)


def test_shares_add_up(videos, undisturbed, tmp_path):
    plan, place = plan_build(videos, RECIPE, 3), Workplace(str(tmp_path))
    summaries = [build(plan, place, share=(i, 3)) for i in range(3)]
    assert [s.units_open for s in summaries] == [3, 1, 0]
    assert content(tmp_path) == content(undisturbed)


def test_two_ray_nodes_build_the_same_even_if_one_is_lost(videos, undisturbed, tmp_path):
    ray = pytest.importorskip("ray", reason="needs the extra: pip install 'tellframe[ray]'")
    from ray.cluster_utils import Cluster

    from tellframe.data import ray_engine

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    second, done = cluster.add_node(num_cpus=1), []

    def lose_a_node(record) -> None:
        done.append(record)
        if len(done) == 3:  # the first unit is done, and both nodes are at the next
            cluster.remove_node(second, allow_graceful=False)

    ray.init(address=cluster.address, log_to_driver=False, logging_level=40)
    try:
        assert len(ray.nodes()) == 2
        plan, place = plan_build(videos, RECIPE, 3), Workplace(str(tmp_path))
        build(plan, place, engine=ray_engine.build_units, progress=lose_a_node)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert {record.video for record in done} == {video.video for video in videos}
    assert content(tmp_path) == content(undisturbed)


def test_kill_at_any_moment_loses_and_doubles_nothing(manifest, undisturbed, tmp_path):
    """Ten kills, of the whole process group or of the parent alone, each followed by a resume."""
    rng, kills, folder = random.Random(0), 0, 0
    begin = time.monotonic()
    assert subprocess.run(command(manifest, tmp_path / "whole"), check=False).returncode == 3
    whole = time.monotonic() - begin
    while kills < 10:
        assert folder < 30, "builds end before they can be killed"
        target = tmp_path / str(folder)
        process = subprocess.Popen(command(manifest, target), start_new_session=True)
        try:
            assert process.wait(timeout=rng.uniform(0.1, 0.9) * whole) == 3
        except subprocess.TimeoutExpired:
            group = kills % 2 == 0
            (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
            process.wait()
            kills += 1
        else:  # done, whatever came before; go on with another
            assert content(target) == content(undisturbed)
            folder += 1
    assert subprocess.run(command(manifest, target), check=False).returncode == 3
    assert content(target) == content(undisturbed)


def test_two_workers_at_once(manifest, undisturbed, tmp_path):
    processes = [subprocess.Popen(command(manifest, tmp_path)) for _ in range(2)]
    assert [p.wait() for p in processes] == [3, 3]
    assert content(tmp_path) == content(undisturbed)


def test_workers_do_not_outlive_a_killed_build(manifest, tmp_path):
    process = subprocess.Popen(
        command(manifest, tmp_path, "--workers", "2"), start_new_session=True
    )
    try:
        deadline = time.monotonic() + 60
        while not list(tmp_path.glob("units/*")):  # until then, no worker need have begun
            assert process.poll() is None, "the build ended before it could be killed"
            assert time.monotonic() < deadline, "no unit was written"
            time.sleep(0.05)
        assert len(_group_members(process.pid)) >= 2  # the build, and a worker
    finally:
        process.kill()
        process.wait()
    assert process.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while living := _group_members(process.pid):
        assert time.monotonic() < deadline, f"still living: {living}"
        time.sleep(0.1)


def _group_members(group: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:  # it ended meanwhile
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


def _cut_badly(cutter, video, descriptor):
    """Stand in for `cut_video`: some videos end their worker."""
    if "00-" in video.video:
        os._exit(11)
    if "05-" in video.video:
        time.sleep(60)
    return cut.cut_video(cutter, video, descriptor)


def test_poison_is_tried_recorded_and_passed(videos, tmp_path, monkeypatch):
    monkeypatch.setattr("tellframe.data.build.cut_video", _cut_badly)
    limits = Limits(seconds=3, attempts=2)
    summary = build(
        plan_build(videos, RECIPE, 3), Workplace(str(tmp_path), workers=2, limits=limits)
    )
    assert summary.outcomes == {"crash": 1, "missing": 1, "ok": 10, "timeout": 1, "unreadable": 1}
    assert verify_dataset(FolderStore(tmp_path), videos).problems == []


def test_another_recipe_is_refused(videos, undisturbed):
    plan = plan_build(videos, dataclasses.replace(RECIPE, margin=0.5), 3)
    with pytest.raises(RecipeMismatchError, match=r"margin: 0\.1 against 0\.5"):
        build(plan, Workplace(str(undisturbed)))


def test_another_manifest_is_refused(videos, undisturbed):
    with pytest.raises(DataError, match="manifest_sha256"):
        build(plan_build(videos[:-1], RECIPE, 3), Workplace(str(undisturbed)))


def test_a_leak_is_refused(videos):
    sides = [
        dataclasses.replace(v, group="g", split=s)
        for v, s in zip(videos, ("train", "test"), strict=False)
    ]
    with pytest.raises(LeakError, match="'g'"):
        plan_build(sides, RECIPE)


def test_a_disk_that_fills_up_costs_nothing_that_is_done(
    videos, undisturbed, tmp_path, monkeypatch
):
    plan, place, written = plan_build(videos, RECIPE, 3), Workplace(str(tmp_path)), []

    def put(store, key, content, original=FolderStore.put_if_absent):
        if len(written) == 4:
            raise OSError(28, "No space left on device")
        written.append(key)
        return original(store, key, content)

    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "put_if_absent", put)
        with pytest.raises(OSError, match="No space left"):
            build(plan, place)
    left = list_open_units(plan, FolderStore(tmp_path))
    assert 0 < len(left) < len(plan.units)
    build_units(plan.recipe, left, place, lambda record: None)
    build(plan, place)
    assert content(tmp_path) == content(undisturbed)


MEMORY = """
import json, sys
from tellframe.bench import peak_memory
from tellframe.cli import run
status = run(sys.argv[1:])
print(json.dumps({"status": status, **peak_memory()}))
"""


def test_memory_does_not_grow_with_the_number_of_videos(samples, make_video, tmp_path):
    """Thirty against three hundred here; the two thousand are in docs/scale.md."""
    picture = next(read_frames(path := samples / "real.mp4", list_frames(path), [20])).image
    small = np.ascontiguousarray(picture[60:240, 150:330][::2, ::2])
    video = make_video(tmp_path / "small.mp4", 4, size=(90, 90), draw=lambda *_: small)
    peaks = []
    for count in (30, 300):
        manifest = tmp_path / f"{count}.parquet"
        write_manifest([Video(f"set/{n}.mp4", str(video)) for n in range(count)], manifest)
        options = ["build", manifest, "-o", tmp_path / str(count), "--quiet", "--set"]
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, *map(str, options), "num_frames=1"],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks.append(json.loads(done.stdout.splitlines()[-1]))
    small_build, large_build = peaks
    assert small_build["status"] == large_build["status"] == 0
    for who in ("self", "largest_worker"):
        assert large_build[who] <= 1.2 * small_build[who], peaks


@pytest.mark.parametrize("member", ["", "part/a.mp4"])
def test_a_source_that_is_not_there_is_no_missing_video(tmp_path, member):
    video = Video("set/a.mp4", str(tmp_path / "unmounted" / "a"), member=member)
    with pytest.raises(StoreError, match="unmounted"):
        build(plan_build([video], RECIPE), Workplace(str(tmp_path / "faces")))
    assert not (tmp_path / "faces").exists()


def test_what_nobody_foresaw_costs_one_video(samples, monkeypatch):
    def fail(*_args, **_options):
        raise IndexError("tuple index out of range")

    monkeypatch.setattr(cut, "extract_clips", fail)
    record = cut.cut_video(cut.Cutter(RECIPE, None, ""), Video("a", str(samples / "real.mp4")))
    assert (record.record.outcome, record.clips) == ("unforeseen", ())
    assert "IndexError('tuple index out of range')" in record.record.message
