"""The benchmarks: what they say, not how fast anything is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tellframe
from tellframe import bench
from tellframe.bench import fresh, videos
from tellframe.bench.detect import _without_worker, bench_detect, bench_folder
from tellframe.bench.stages import STAGES, Stopwatch, watch_stages
from tellframe.cli import run
from tellframe.errors import DataError, DecodeError, MediaError, UsageError
from tellframe.video import list_frames

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "benchmarks" / "peers"


@pytest.fixture(scope="module")
def detector():
    return tellframe.load(num_frames=3)


def test_every_stage_is_seen_and_the_shares_are_a_whole(detector, samples):
    result = bench_detect(detector, samples / "two_people.mp4", 2, fresh=False)
    stages = result["stages"]
    assert set(stages) == {*STAGES, "rest"}
    assert all(stages[name]["median"] > 0 for name in STAGES)
    assert sum(stage["share"] for stage in stages.values()) == pytest.approx(1, abs=0.01)
    seconds = result["seconds"]
    ratio = seconds["detect"]["median"] / seconds["bare_decode"]["median"]
    assert result["detect_to_bare_decode"] == pytest.approx(ratio, rel=0.05)
    assert (result["people"], result["pictures"], result["height"]) == (2, 100, 360)
    assert "fresh" not in result


def test_workers_count(tmp_path):
    """A process that computes and holds memory, while it runs and after it has ended."""
    code = "b = bytearray(b'1') * 50_000_000; sum(range(3_000_000)); print(1, flush=True)"
    before = bench.computed_seconds()
    with subprocess.Popen(
        [sys.executable, "-c", code + "; input()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        if Path("/proc/self/stat").is_file():
            assert bench.computed_seconds() > before
            assert bench.peak_memory()["workers"] > 50
        child.communicate(b"\n")
    assert bench.computed_seconds() > before


def test_watching_changes_no_verdict_and_leaves_nothing_behind(detector, samples):
    path = samples / "real.mp4"
    detector = _without_worker(detector)
    before = detector.detect(path)
    named = (tellframe.extract_clips.__globals__["crop_face"], type(detector).judge)
    with watch_stages() as watch:
        during = detector.detect(path)
    assert during.probability == before.probability
    assert named == (tellframe.extract_clips.__globals__["crop_face"], type(detector).judge)
    counted = dict(watch.seconds)
    detector.detect(path)
    assert watch.seconds == counted


def test_a_stage_counts_without_those_inside_of_it(monkeypatch):
    clock = iter([0.0, 1.0, 4.0, 10.0])
    monkeypatch.setattr("tellframe.bench.stages.time.perf_counter", lambda: next(clock))
    watch = Stopwatch()
    with watch.run("convert"), watch.run("decode"):
        pass
    assert (watch.seconds["decode"], watch.seconds["convert"]) == (3.0, 7.0)


def test_an_iterator_is_timed_while_it_is_asked(monkeypatch):
    watch = Stopwatch()
    assert list(watch.wrap_iterator(range, "decode")(3)) == [0, 1, 2]
    assert watch.seconds["decode"] > 0


def test_many_videos(detector, samples):
    result = bench_folder(detector, [samples / "real.mp4", samples / "fake.mp4"], 1)
    seconds = result["seconds"]["detect"]["median"]
    assert result["videos_per_minute"] == pytest.approx(120 / seconds, rel=0.05)
    assert result["names"] == ["fake.mp4", "real.mp4"]


def test_a_video_that_cannot_be_read_is_no_timing(detector, samples, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    with pytest.raises(DecodeError, match=r"bad\.mp4"):
        bench.bare_decode(bad, 1)
    with pytest.raises(MediaError, match=r"bad\.mp4"):
        bench_detect(detector, bad, 1)
    with pytest.raises((DataError, DecodeError), match=r"bad\.mp4"):
        bench_folder(detector, [samples / "real.mp4", bad], 1)
    with pytest.raises(UsageError, match="0 rounds"):
        bench_detect(detector, samples / "real.mp4", 0)
    with pytest.raises(UsageError, match="no video"):
        bench_folder(detector, [])


def test_fresh_processes(samples, tmp_path):
    detector = tellframe.load(num_frames=3)
    result = fresh.bench_fresh(detector, samples / "real.mp4", 1)
    parts = sum(part["median"] for part in result["detect_parts"].values())
    assert parts < result["seconds"]["detect"]["median"]
    peak = result["peak_rss_mb"]
    assert 20 < peak["bare_decode"] < peak["detect"] + peak["detect_workers"] < 1500
    with pytest.raises(DataError, match="nothing"):
        fresh.bench_fresh(detector, tmp_path / "nothing.mp4", 1)


def test_memory_of_who_started_a_process_does_not_count():
    ballast = bytearray(b"1") * 300_000_000
    code = "from tellframe.bench import peak_memory; print(peak_memory()['self'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(ballast) > 0
    if Path("/proc/self/status").is_file():
        assert 0 < float(done.stdout) < 200


@pytest.mark.parametrize("codec", videos.ENCODERS)
def test_videos_are_made(samples, tmp_path, codec):
    if not videos.has_encoder(codec):
        pytest.skip(f"FFmpeg has no encoder for {codec} here")
    film = videos.Film(180, codec, people=2, seconds=1)
    (path,) = videos.make_videos([samples / "real.mp4"], tmp_path, [film]).files
    media = list_frames(path).media
    assert (media.width, media.height, media.num_frames) == (320, 180, 30)
    assert media.duration == pytest.approx(1, abs=0.02)
    assert [p.name for p in tmp_path.iterdir()] == [film.name]


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="needs Linux's scheduling")
@pytest.mark.parametrize("codec", videos.ENCODERS)
def test_making_videos_leaves_the_process_its_priority(samples, tmp_path, codec):
    if not videos.has_encoder(codec):
        pytest.skip(f"FFmpeg has no encoder for {codec} here")
    before = os.sched_getscheduler(os.getpid())
    videos.make_video([samples / "real.mp4"], tmp_path / "a.mkv", videos.Film(180, codec, 1, 1))
    assert os.sched_getscheduler(os.getpid()) == before


def test_people_are_found_in_them(samples, tmp_path):
    film = videos.Film(360, people=3, seconds=1)
    videos.make_video([samples / "real.mp4"], tmp_path / film.name, film)
    assert len(tellframe.load(num_frames=3).detect(tmp_path / film.name).people) == 3


def test_a_long_video_is_a_short_one_over_and_over(samples, make_video, tmp_path, read_number):
    source = make_video(tmp_path / "short.mp4", 30, rate=30, b_frames=2, gop=30)
    videos.loop_video(source, tmp_path / "long.mp4", 4)
    listing = list_frames(tmp_path / "long.mp4")
    assert listing.media.num_frames == 120
    assert listing.media.duration == pytest.approx(4, abs=0.01)
    assert bench.bare_decode(tmp_path / "long.mp4", 1) == 120
    assert not listing.media.partial
    with pytest.raises(DecodeError, match=r"nothing\.mp4"):
        videos.loop_video(tmp_path / "nothing.mp4", tmp_path / "x.mp4", 2)


def test_films_differ_from_the_first_in_one_respect():
    first, *others = videos.FILMS
    assert len({film.name for film in videos.FILMS}) == len(videos.FILMS)
    for film in others:
        fields = ("codec", "people", "seconds")
        changed = [f for f in fields if getattr(film, f) != getattr(first, f)]
        assert len(changed) <= 1
    assert videos.choose_films("1080p-h264-1face-10s*") == [first]


def test_a_codec_without_encoder_is_named(samples, tmp_path, monkeypatch):
    monkeypatch.setitem(videos.ENCODERS, "av1", ("no_such_encoder", {}, ".mp4"))
    made = videos.make_videos([samples / "real.mp4"], tmp_path, [videos.Film(codec="av1")])
    assert (made.files, made.missing) == ([], {"av1": "no_such_encoder"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["videos"], "-o DIR"),
        (["videos", "-o", "x"], "--portrait"),
        (["videos", "-o", "x", "--only", "nothing"], "no name matches"),
        (["folder"], "give videos"),
        (["folder", "samples/real.mp4", "--copies", "0"], "--copies"),
        (["folder", "samples/real.mp4", "--plot", "x.svg"], "--plot belongs to bench detect\n"),
        (
            ["detect", "samples/real.mp4", "--copies", "-5", "--clients", "-1"],
            "--copies belongs to bench folder, build; --clients belongs to bench serve",
        ),
        (["build", "samples/real.mp4", "--workers", "2"], "--workers belongs to bench serve"),
        (["train", "x.toml", "--frames", "3"], "--frames belongs to bench detect, folder, build"),
        (["serve", "samples/real.mp4", "--no-fresh"], "--no-fresh belongs to bench detect"),
        (
            ["serve", "samples/real.mp4", "--url", "http://127.0.0.1:9/", "--queue", "4"],
            "--queue does not reach the server of --url",
        ),
        (["videos", "-o", "x", "--rounds", "1"], "--rounds belongs to bench detect, folder"),
        (["videos", "samples/real.mp4", "-o", "x"], "takes no others"),
        (["detect", "samples/real.mp4", "--plot", "x.pdf"], "named .svg or .png"),
        (["detect", "samples/real.mp4", "--plot", "none/x.svg"], "no such folder"),
    ],
)
def test_usage_errors(arguments, message, capsys, monkeypatch, tmp_path):
    (tmp_path / "samples").symlink_to(ROOT / "samples")
    monkeypatch.chdir(tmp_path)
    assert run(["bench", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_plot_without_matplotlib_names_the_extra(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    options = ["--plot", str(tmp_path / "x.svg")]
    assert run(["bench", "detect", "x.mp4", *options]) == 2
    assert "pip install 'tellframe[data]'" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_a_plot_of_the_stages(samples, tmp_path, capsys, suffix):
    pytest.importorskip("matplotlib")
    target = tmp_path / f"plot.{suffix}"
    options = ["--rounds", "1", "--frames", "3", "--no-fresh", "--plot", str(target)]
    assert run(["bench", "detect", str(samples / "real.mp4"), *options]) == 0
    assert json.loads(capsys.readouterr().out)[0]["kind"] == "detect"
    content = target.read_bytes()
    assert b"h264, 4 s, 1 person, 3 frames" in content or suffix == "png"


def measure_peers(video, folder, *options):
    """Run the pipelines that need nothing else; the others have an environment of their own."""
    command = [sys.executable, PEERS / "run.py", video, "--only", "tellframe", "decode"]
    return subprocess.run(
        [*map(str, command), *options, "--out", str(folder)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_peers_take_turns(samples, tmp_path):
    printed = measure_peers(samples / "real.mp4", tmp_path, "--rounds=2")
    assert "| video | bare decode (PyAV) | `tellframe detect` |" in printed
    result = json.loads((tmp_path / "peers.json").read_text())
    row = result["videos"]["real.mp4"]
    assert row["tellframe"]["to_tellframe"] == 1
    assert row["tellframe"]["faces"] == row["tellframe"]["frames"] == 10
    ratio = row["decode"]["median"] / row["tellframe"]["median"]
    assert row["decode"]["to_tellframe"] == pytest.approx(ratio, abs=0.01)
    assert (tmp_path / "peers.md").read_text() in printed


def test_peers_share_a_folder(samples, tmp_path):
    measure_peers(samples / "real.mp4", tmp_path, "--rounds=1", "--copies=3")
    row = json.loads((tmp_path / "peers.json").read_text())["videos"]["real.mp4"]
    assert row["decode"]["frames"] == 3 * 100
    assert row["tellframe"]["frames"] == row["tellframe"]["faces"] == 3 * 10
