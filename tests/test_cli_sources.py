"""`tellframe detect` of what lies elsewhere, comes later, or was judged in part before."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from s3_server import s3_server
from tellframe.cli import run
from tellframe.cli.sources import AHEAD, Source, find_sources, find_videos, judge_sources
from tellframe.cli.watch import Lookout, watch
from tellframe.errors import DecodeError, StoreError
from tellframe.types import Label, Verdict
from tellframe.webfetch import FetchLimits
from web_server import run_web_server

__all__ = ["s3_server"]

FAST = ["--frames", "3", "--threads", "1"]


@pytest.fixture(scope="module")
def web(samples):
    with run_web_server((samples / "fake.mp4").read_bytes()) as running:
        yield running


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def test_links_are_judged_like_files(web, samples, tmp_path, capsys):
    url = f"{web.url}/video/fake.mp4"
    links = [f"{url}?token=secret", f"{web.url}/page", f"{web.url}/broken/a.mp4"]
    arguments = ["detect", *links, str(samples / "fake.mp4"), "--jsonl", *FAST]
    assert run([*arguments, "--allow-private-addresses"]) == 3
    out, err = capsys.readouterr()
    assert "secret" not in out + err
    rows = [json.loads(line) for line in out.splitlines()]
    assert rows[0]["video"] == rows[0]["media"]["path"]
    assert rows[0]["video"].startswith(f"{url}?[query ")
    assert rows[0]["probability"] == rows[3]["probability"]
    assert rows[0]["media"]["sha256"] == rows[3]["media"]["sha256"]
    assert rows[1]["error"] == (
        f"{web.url}/page: is a web page, not a video: give the direct link of the file"
    )
    assert "the connection broke" in rows[2]["error"]
    assert all(row["reasons"] == ["unreadable"] for row in rows[1:3])


def test_what_is_fetched_and_no_video_is_named_by_its_link(web, monkeypatch, capsys):
    monkeypatch.setattr(web, "body", b"Dear Sir or Madam,")
    url = f"{web.url}/video/a.mp4"
    assert run(["detect", url, "--jsonl", "--allow-private-addresses", *FAST]) == 4
    row = json.loads(capsys.readouterr().out)
    assert row["error"].startswith(f"{url}: ")
    assert "/proc" not in row["error"]


def test_private_addresses_and_large_files_are_refused(web, capsys):
    url = f"{web.url}/video/a.mp4"
    assert run(["detect", url, "--jsonl", *FAST]) == 4
    assert "--allow-private-addresses" in json.loads(capsys.readouterr().out)["error"]
    options = ["--allow-private-addresses", "--max-bytes", "1000"]
    assert run(["detect", url, "--jsonl", *FAST, *options]) == 4
    assert "more than 1000 bytes" in json.loads(capsys.readouterr().out)["error"]


class Judge:
    """Stands for a detector: a file is FAKE, whatever is in it."""

    def __init__(self):
        self.paths = []

    def detect_many(self, paths):
        for path in paths:
            self.paths.append(path)
            error = None if Path(path).is_file() else f"{path}: cannot be read"
            yield Verdict(str(path), Label.FAKE, 0.9, (), (), error=error)


def test_few_are_fetched_ahead_and_none_is_kept():
    fetched, most = [], []

    def source(number):
        def fetch(file, _cancelled):
            fetched.append(number)
            if number == 3:
                raise DecodeError("third: is bad")
            file.write(b"x")

        return Source(f"s3://b/{number}", fetch)

    before = open_files()
    verdicts = judge_sources(Judge(), map(source, range(10)))
    for done, verdict in enumerate(verdicts):
        most.append(len(fetched) - done)
        assert verdict.video == f"s3://b/{done}"
        assert (verdict.error == "third: is bad") == (done == 3)
    assert done == 9
    assert max(most) <= AHEAD + 2  # the one that was judged, and the one that was begun since
    assert open_files() == before


def test_who_stops_in_the_middle_leaves_nothing_open():
    cancelled = []

    def fetch(file, is_cancelled):
        file.write(b"x")

    def fetch_slowly(file, is_cancelled):
        while not is_cancelled():
            time.sleep(0.01)
        cancelled.append(1)

    before = open_files()
    slow = [Source(str(number), fetch_slowly) for number in range(AHEAD)]
    verdicts = judge_sources(Judge(), [Source("fast", fetch), *slow])
    assert next(verdicts).video == "fast"
    verdicts.close()
    assert cancelled
    assert open_files() == before


def test_a_store_that_does_not_answer_ends_it_after_what_was_judged():
    def fail(_file, _cancelled):
        raise StoreError("s3://b/1: cannot be read")

    sources = [Source("s3://b/0", lambda file, _: file.write(b"x")), Source("s3://b/1", fail)]
    verdicts = judge_sources(Judge(), sources)
    assert next(verdicts).video == "s3://b/0"
    with pytest.raises(StoreError):
        next(verdicts)


@pytest.fixture
def folder(samples, tmp_path):
    found = tmp_path / "videos"
    found.mkdir()
    for name in ("a", "b", "c"):
        (found / f"{name}.mp4").symlink_to(samples / "real.mp4")
    return found


@pytest.fixture
def refuse(monkeypatch):
    """Return what makes listing a folder raise; rights would mean nothing to root."""
    real, kinds = os.scandir, {}

    def scandir(path):
        if kind := kinds.get(Path(path)):
            raise kind(1, "refused", path)
        return real(path)

    def refuse(path, kind):
        kinds[path] = kind

    monkeypatch.setattr(os, "scandir", scandir)
    return refuse


def verdicts_on(*inputs):
    return list(judge_sources(Judge(), find_sources(map(str, inputs), FetchLimits())))


def test_a_folder_that_cannot_be_read_is_a_line_beside_the_videos(folder, refuse):
    (folder / "b").mkdir()
    refuse(folder / "b", PermissionError)
    verdicts = verdicts_on(folder)
    names = ["a.mp4", "b", "b.mp4", "c.mp4"]
    assert [verdict.video for verdict in verdicts] == [str(folder / name) for name in names]
    assert [bool(verdict.error) for verdict in verdicts] == [False, True, False, False]
    assert verdicts[1].error == f"{folder}/b: cannot be read (refused); check its rights"
    with pytest.raises(PermissionError, match="refused"):
        find_videos([str(folder)])

    refuse(folder, PermissionError)
    assert [v.error for v in verdicts_on(f"{folder}/")] == [
        f"{folder}: cannot be read (refused); check its rights"
    ]


@pytest.mark.parametrize("kind", [FileNotFoundError, NotADirectoryError])
def test_a_folder_that_goes_while_it_is_looked_through_is_no_loss(folder, refuse, kind):
    (folder / "gone").mkdir()
    refuse(folder / "gone", kind)
    assert [Path(v.video).name for v in verdicts_on(folder)] == ["a.mp4", "b.mp4", "c.mp4"]


def test_a_folder_without_a_video_says_so(tmp_path):
    (tmp_path / "notes.txt").touch()
    (verdict,) = verdicts_on(tmp_path)
    assert (verdict.video, verdict.error) == (
        str(tmp_path),
        f"{tmp_path}: holds no video; check the folder",
    )


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["WhatsApp_Video", "b.2024", "deep/c.part"],
            "3 files passed over, whose names do not end as a video's do; give them by name",
        ),
        (["x"], "1 file passed over, whose name does not end as a video's does; give it by name"),
        (["metadata.json", "v.csv", "V.TXT", "a.jsonl", "a.html", ".hidden", ".git/config"], None),
    ],
)
def test_files_that_are_passed_over_for_their_names_are_told(folder, capsys, names, said):
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert run(["detect", str(folder), "--jsonl", "--quiet", *FAST]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert err == (f"{folder}: {said}\n" if said else "")


def test_a_name_that_cannot_be_looked_at_is_a_line(folder, tmp_path, capsys):
    names = [str(folder / "a.mp4"), str(tmp_path / ("x" * 300))]
    for inputs, status in ((names, 3), (names[1:], 4)):
        assert run(["detect", *inputs, "--jsonl", *FAST]) == status
        rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["video"] for row in rows] == inputs
        assert "File name too long" in rows[-1]["error"]


def test_lines_are_appended_and_resumed(folder, tmp_path, capsys):
    target = tmp_path / "new" / "out.jsonl"
    command = ["detect", str(folder), "--jsonl", str(target), *FAST]
    assert run(command) == 0
    whole = target.read_bytes()
    assert [Path(row["video"]).name for row in rows_of(target)] == ["a.mp4", "b.mp4", "c.mp4"]
    assert capsys.readouterr().out == ""

    assert run(command) == 2
    assert "--resume" in capsys.readouterr().err
    assert run([*command, "--resume"]) == 0
    assert target.read_bytes() == whole
    done = f"{target}: 3 videos have a line; nothing is left to judge"
    assert capsys.readouterr().err == f"{done}\n"

    lines = whole.splitlines(keepends=True)
    for half in (lines[1][:-1], lines[1][:100], b'{"vi', b""):
        target.write_bytes(lines[0] + half)
        table = tmp_path / "table.csv"
        assert run([*command, "--resume", "--csv", str(table)]) == 0
        err = capsys.readouterr().err
        assert "a.mp4" not in err
        assert "[1/2]" in err
        assert [Path(r["video"]).name for r in rows_of(target)] == ["a.mp4", "b.mp4", "c.mp4"]
        assert len(table.read_text().splitlines()) == 4


def test_lines_that_do_not_tell_the_calibration_are_resumed(folder, tmp_path):
    target = tmp_path / "o.jsonl"
    command = ["detect", str(folder), "--jsonl", str(target), *FAST]
    assert run(command) == 0
    rows = rows_of(target)
    for row in rows:
        assert row["model"].pop("calibrated_on")
    older = "".join(f"{json.dumps(row)}\n" for row in rows)
    target.write_text(older)
    assert run([*command, "--resume"]) == 0
    assert target.read_text() == older


def test_what_failed_before_counts_in_the_exit_status(folder, tmp_path, capsys):
    target = tmp_path / "o.jsonl"
    (folder / "d.mp4").write_text("no video")
    command = ["detect", str(folder), "--jsonl", str(target), *FAST]
    assert run([*command, "--quiet"]) == 3
    assert capsys.readouterr().err == ""
    assert run([*command, "--resume"]) == 3
    assert capsys.readouterr().err == (
        f"{target}: 4 videos have a line (1 could not be analysed); nothing is left to judge\n"
    )


@pytest.mark.parametrize("content", ["Dear Sir\n", '{"a": 1}\n', "Dear Sir", "[1]\n", "\n"])
def test_a_file_of_something_else_is_left_alone(folder, tmp_path, capsys, content):
    target = tmp_path / "out.jsonl"
    target.write_text(content)
    assert run(["detect", str(folder), "--jsonl", str(target), "--resume", *FAST]) == 2
    assert "line 1 is no verdict" in capsys.readouterr().err
    assert target.read_text() == content


def test_other_settings_do_not_go_on(folder, tmp_path, capsys):
    command = ["detect", str(folder), "--jsonl", str(tmp_path / "o.jsonl"), "--threads", "1"]
    assert run([*command, "--frames", "4"]) == 0
    assert run([*command, "--frames", "3", "--resume"]) == 2
    assert "another model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--jsonl", "b.mp4"], "ends in .jsonl"),
        (["--resume"], "name it with --jsonl"),
        (["--resume", "--jsonl"], "name it with --jsonl"),
        (["--resume", "--jsonl", "o.jsonl", "--html", "x"], "makes no --html"),
        (["--watch", "1"], "give --jsonl"),
        (["--watch", "1", "--jsonl", "--csv", "x.csv"], "writes no --csv"),
        (["--watch", "-1", "--jsonl"], "above 0"),
        (["--watch", "nan", "--jsonl"], "above 0"),
        (["--fetch-timeout", "0"], "above 0"),
    ],
)
def test_usage_errors(options, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.mp4").write_text("precious")
    assert run(["detect", "a.mp4", *options]) == 2
    assert message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["b.mp4"]
    assert (tmp_path / "b.mp4").read_text() == "precious"


class Running:
    """`tellframe detect` in a process of its own."""

    def __init__(self, target, *arguments):
        self.target = target
        command = [sys.executable, "-m", "tellframe", "detect", *map(str, arguments)]
        self.process = subprocess.Popen(
            [*command, "--jsonl", str(target), *FAST], stderr=subprocess.PIPE, text=True
        )

    def lines(self):
        return self.target.read_text().splitlines() if self.target.exists() else []

    def wait_for(self, count):
        end = time.monotonic() + 90
        while len(self.lines()) < count:
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.02)

    def end(self, sig):
        self.process.send_signal(sig)
        err = self.process.communicate(timeout=60)[1]
        return self.process.returncode, err


@contextmanager
def running(target, *arguments):
    process = Running(target, *arguments)
    try:
        yield process
    finally:
        process.process.kill()
        process.process.communicate()


def test_a_place_without_a_video_fails_unless_it_is_watched():
    place = Source("s3://b/none", is_place=True)
    assert Lookout(lambda: [place], 0, ()).look() == [place]
    assert Lookout(lambda: [place], 1, ()).look() == []


def test_what_is_known_is_left_out_and_comes_once():
    sources = [Source(name) for name in ("a", "b", "b")]
    assert [s.name for s in Lookout(lambda: sources, 0, {"a"}).look()] == ["b", "b"]
    assert [s.name for s in Lookout(lambda: sources, 1, {"a"}).look()] == ["b"]


def test_a_second_process_does_not_write_the_same_file(folder, tmp_path, capsys):
    target = tmp_path / "out.jsonl"
    with running(target, folder, "--watch", "60") as process:
        process.wait_for(1)
        assert run(["detect", str(folder), "--jsonl", str(target), "--resume", *FAST]) == 2
    assert "another process writes it" in capsys.readouterr().err


def test_a_folder_is_watched_until_ctrl_c(samples, tmp_path):
    folder, target = tmp_path / "videos", tmp_path / "out.jsonl"
    folder.mkdir()
    with running(target, folder, "--watch", "0.5") as process:
        time.sleep(1)
        clip = (samples / "real.mp4").read_bytes()
        with (folder / "slow.mp4").open("wb", buffering=0) as file:
            for start in range(0, len(clip), len(clip) // 12):  # a copy that takes its time
                file.write(clip[start : start + len(clip) // 12])
                time.sleep(0.15)
        (folder / "notes.txt").touch()
        (folder / "other").touch()
        process.wait_for(1)
        (folder / "next.mp4").write_bytes(clip)
        process.wait_for(2)
        time.sleep(1)
        code, err = process.end(signal.SIGINT)
    assert code == 0, err
    assert err.count("passed over") == 1
    rows = rows_of(target)
    assert [Path(row["video"]).name for row in rows] == ["slow.mp4", "next.mp4"]
    assert [row["error"] for row in rows] == [None, None]
    assert "partial" not in rows[0]["reasons"]


def test_sigterm_ends_a_watch_with_the_status_of_what_was_judged(folder, tmp_path):
    target = tmp_path / "out.jsonl"
    (folder / "d.mp4").write_text("no video")
    with running(target, folder, "--watch", "0.5") as process:
        process.wait_for(4)
        code, err = process.end(signal.SIGTERM)
    assert code == 3, err
    assert "Traceback" not in err
    assert [Path(row["video"]).stem for row in rows_of(target)] == ["a", "b", "c", "d"]


def test_a_watched_store_that_does_not_answer_is_asked_again(capsys):
    interrupted, looks, fetches = [], [], []

    def fail_once(asked, text):
        asked.append(1)
        if len(asked) == 1:
            raise StoreError(text)

    def fetch(file, _cancelled):
        fail_once(fetches, "s3://b/0.mp4: cannot be read")
        file.write(b"x")

    def find():
        fail_once(looks, "s3://b: cannot be listed")
        return [Source("s3://b/0.mp4", fetch)]

    verdicts = watch(Judge(), Lookout(find, 0.01), interrupted)
    assert next(verdicts).video == "s3://b/0.mp4"
    assert (len(looks), len(fetches)) == (3, 2)
    interrupted.append(signal.SIGINT)
    assert list(verdicts) == []
    assert capsys.readouterr().err.splitlines() == [
        "tellframe: s3://b: cannot be listed; trying again",
        "tellframe: s3://b/0.mp4: cannot be read; trying again",
    ]


BUCKET = "videos"


@pytest.fixture(scope="module")
def stored(s3_server, samples):
    """A bucket with videos and other things; the environment to reach it."""
    from tellframe.store import open_store

    s3_server.create_bucket(BUCKET)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.environment().items():
            patch.setenv(name, value)
        store = open_store(f"s3://{BUCKET}")
        for number in range(8):
            store.put_if_absent(f"in/{number}.mp4", (samples / "real.mp4").read_bytes())
        store.put_if_absent("odd/bad.mp4", b"no video")
        store.put_if_absent("odd/deep/Ä b.MOV", (samples / "fake.mp4").read_bytes())
        store.put_if_absent("odd/notes.txt", b"notes")
        store.put_if_absent("odd/other", b"other")
        store.put_if_absent("none/notes.txt", b"notes")
        yield store


def test_a_bucket_is_judged(stored, tmp_path, capsys):
    target = tmp_path / "out.jsonl"
    assert run(["detect", f"s3://{BUCKET}/odd", "--jsonl", str(target), *FAST]) == 3
    assert capsys.readouterr().err.splitlines()[0] == (
        f"s3://{BUCKET}/odd: 1 file passed over, whose name does not end as a video's does; "
        "fetch and give it by name"
    )
    bad, good = rows_of(target)
    assert bad["video"] == f"s3://{BUCKET}/odd/bad.mp4"
    assert bad["error"].startswith(bad["video"])
    assert (good["video"], good["error"]) == (f"s3://{BUCKET}/odd/deep/Ä b.MOV", None)
    assert good["media"]["sha256"]


def test_a_single_object_and_none(stored, capsys):
    assert run(["detect", f"s3://{BUCKET}/in/3.mp4", "--jsonl", *FAST]) == 0
    assert json.loads(capsys.readouterr().out)["video"] == f"s3://{BUCKET}/in/3.mp4"
    assert run(["detect", f"s3://{BUCKET}/none/", "--jsonl", *FAST]) == 4
    assert "holds no video" in json.loads(capsys.readouterr().out)["error"]
    assert run(["detect", "s3://no-such-bucket/", "--jsonl", *FAST]) == 2
    assert "no such key or bucket" in capsys.readouterr().err
    options = ["--jsonl", *FAST, "--max-bytes", "10"]
    assert run(["detect", f"s3://{BUCKET}/in/3.mp4", *options]) == 4
    assert "allow more than 10" in json.loads(capsys.readouterr().out)["error"]


def test_a_bucket_is_resumed_after_a_kill(stored, tmp_path, monkeypatch):
    target, scratch = tmp_path / "out.jsonl", tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    with running(target, f"s3://{BUCKET}/in") as process:
        process.wait_for(3)
        code, _ = process.end(signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert [path.name for path in scratch.iterdir() if path.name != ".ses"] == []  # ONNX Runtime's
    done = len(process.lines())
    assert 3 <= done < 8
    with target.open("a") as file:
        file.write('{"video": "s3://videos/in')
    with running(target, f"s3://{BUCKET}/in", "--resume") as process:
        err = process.process.communicate(timeout=120)[1]
    assert process.process.returncode == 0, err
    assert f"[1/{8 - done}]" in err
    videos = [row["video"] for row in rows_of(target)]
    assert videos == [f"s3://{BUCKET}/in/{number}.mp4" for number in range(8)]


def test_a_bucket_is_watched(stored, samples, tmp_path):
    target = tmp_path / "out.jsonl"
    stored.put_if_absent("watched/0.mp4", b"no video")
    with running(target, f"s3://{BUCKET}/watched", "--watch", "0.3") as process:
        process.wait_for(1)
        stored.put_if_absent("watched/1.mp4", (samples / "real.mp4").read_bytes())
        process.wait_for(2)
        code, err = process.end(signal.SIGINT)
    assert code == 3, err
    assert [row["video"][-5:] for row in rows_of(target)] == ["0.mp4", "1.mp4"]


def test_a_key_that_is_gone_or_cut_short_is_a_line(stored, samples, tmp_path):
    from tellframe.cli.sources import _from_key
    from tellframe.webfetch import FetchLimits

    gone = _from_key(stored, "in/gone.mp4", 100, FetchLimits())
    short = _from_key(stored, "odd/bad.mp4", 100, FetchLimits())
    verdicts = list(judge_sources(Judge(), [gone, short]))
    assert "no such key" in verdicts[0].error
    assert "changed while it was read" in verdicts[1].error


def test_a_single_object_that_is_gone_or_locked_away_is_a_line(
    stored, samples, tmp_path, monkeypatch
):
    target, gone = tmp_path / "out.jsonl", f"s3://{BUCKET}/in/gone.mp4"
    names = [str(samples / "real.mp4"), gone]
    command = ["detect", *names, "--jsonl", str(target), *FAST]
    assert run(command) == 3
    assert [row["video"] for row in rows_of(target)] == names
    assert "no such key" in rows_of(target)[1]["error"]
    assert run([*command, "--resume"]) == 3
    assert len(rows_of(target)) == 2

    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    (verdict,) = verdicts_on(f"s3://{BUCKET}/in/3.mp4")
    assert "access denied" in verdict.error


def test_a_store_that_does_not_answer_for_a_single_object_is_no_line(monkeypatch):
    from tellframe.store import FolderStore

    def size(_store, key):
        raise StoreError(f"{key}: cannot be read")

    monkeypatch.setattr(FolderStore, "size", size)
    monkeypatch.setattr("tellframe.cli.sources.open_store", lambda *_: FolderStore("/nowhere"))
    with pytest.raises(StoreError, match="cannot be read"):
        verdicts_on("s3://b/a.mp4")
