"""The command line as a person or a script meets it."""

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tellframe
from tellframe.cli import build_parser, run
from tellframe.cli.interrupt import until_interrupted
from tellframe.cli.messages import explain
from tellframe.cli.outputs import CSV, check_output
from tellframe.cli.sources import find_videos
from tellframe.cli.tally import Tally
from tellframe.errors import UsageError
from tellframe.types import Label, Reason, Verdict

VERBS = (
    *("detect", "models", "doctor", "train", "export", "calibrate", "evaluate", "submit", "score"),
    *("bench", "sweep"),
)


@pytest.fixture
def bad(tmp_path):
    path = tmp_path / "bad.mp4"
    path.write_text("no video")
    return str(path)


def verdict(label, error=None):
    return Verdict("v", label, None, (Reason.UNREADABLE,) if error else (), (), error=error)


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_shows_an_example(verb, capsys):
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args([verb, "--help"] if verb else ["--help"])
    assert stopped.value.code == 0
    assert f"example: tellframe {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("verdicts", "fail_on_fake", "status"),
    [
        ([verdict(Label.REAL)], False, 0),
        ([verdict(Label.FAKE)], False, 0),
        ([verdict(Label.FAKE)], True, 10),
        ([verdict(Label.INCONCLUSIVE)], True, 0),
        ([verdict(Label.REAL), verdict(Label.INCONCLUSIVE, "bad")], True, 3),
        ([verdict(Label.FAKE), verdict(Label.INCONCLUSIVE, "bad")], False, 3),
        ([verdict(Label.FAKE), verdict(Label.INCONCLUSIVE, "bad")], True, 10),
        ([verdict(Label.INCONCLUSIVE, "bad")], True, 4),
    ],
)
def test_exit_status(verdicts, fail_on_fake, status):
    tally = Tally()
    for given in verdicts:
        tally.add(given)
    assert tally.status(fail_on_fake=fail_on_fake) == status


def test_jsonl_has_one_row_for_every_input(samples, bad, tmp_path, capsys):
    missing = str(tmp_path / "missing.mp4")
    real = str(samples / "real.mp4")
    assert run(["detect", real, bad, missing, "--jsonl", "--frames", "3"]) == 3
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["video"] for row in rows] == [real, bad, missing]
    assert list(rows[0])[:5] == ["video", "label", "probability", "reasons", "people"]
    assert list(rows[0]["people"][0])[:6] == [
        "person",
        "label",
        "probability",
        "start",
        "end",
        "frames",
    ]
    for row in rows[1:]:
        assert (row["label"], row["probability"], row["reasons"]) == (
            "INCONCLUSIVE",
            None,
            ["unreadable"],
        )
    assert "[1/3]" in err


def test_all_outputs_at_once(samples, tmp_path, capsys):
    page, table = tmp_path / "new" / "report.html", tmp_path / "verdicts.csv"
    arguments = ["detect", str(samples), "--html", str(page), "--csv", str(table), "--json"]
    labels = [v.label for v in tellframe.load().detect_many(sorted(samples.glob("*.mp4")))]
    status = 10 if Label.FAKE in labels else 0
    assert run([*arguments, "--quiet", "--fail-on", "fake"]) == status
    out, err = capsys.readouterr()
    assert [row["label"] for row in json.loads(out)] == labels
    assert page.read_text(encoding="utf-8").count("data:image/jpeg") >= 4
    assert str(page) in err
    with table.open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 4


def test_a_folder_of_reports(samples, tmp_path, capsys):
    target = tmp_path / "reports"
    assert run(["detect", str(samples), "--html", f"{target}/", "--frames", "3"]) == 0
    assert "VERDICT" in capsys.readouterr().out
    assert len(list(target.glob("*.html"))) == 4


def test_a_folder_of_reports_holds_those_of_one_run(bad, tmp_path, capsys):
    target, other = tmp_path / "reports", tmp_path / "other.mp4"
    other.write_text("no video")
    command = ["detect", bad, str(other), "--html", str(target)]
    for _ in range(2):  # the same ones are replaced
        assert run(command) == 4
    pages = {page.name: page.read_bytes() for page in target.iterdir()}
    assert sorted(pages) == ["0001-bad.html", "0002-other.html", "index.html"]
    capsys.readouterr()
    assert run(["detect", bad, "--html", str(target)]) == 2
    err = capsys.readouterr().err
    assert f"--html {target}: holds 0002-other.html, which is no report of these videos" in err
    assert {page.name: page.read_bytes() for page in target.iterdir()} == pages
    (target / "index.html").write_text("<p>My home page")
    assert run(command) == 2
    assert "holds index.html, which is no report, and would be replaced" in capsys.readouterr().err
    assert (target / "index.html").read_text() == "<p>My home page"


def test_progress_says_why_a_file_was_not_judged_and_ends_with_counts(samples, bad, capsys):
    assert run(["detect", bad, str(samples / "real.mp4"), bad, "--jsonl", "--frames", "3"]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f"[1/3] {bad}: INCONCLUSIVE, not a video that can be opened")
    assert lines[1].startswith(f"[2/3] {samples / 'real.mp4'}: ")
    assert lines[1].endswith(" s)")
    assert lines[3].startswith("3 videos: 1 ")
    assert lines[3].endswith(", 2 could not be analysed")


def test_counts_are_said_by_label():
    tally = Tally()
    for given in (*[verdict(Label.FAKE)] * 2, verdict(Label.REAL), verdict(Label.REAL, "bad")):
        tally.add(given)
    assert str(tally) == "4 videos: 2 FAKE, 1 REAL, 1 could not be analysed"


@pytest.fixture
def interrupted(monkeypatch):
    """Return what lets Ctrl-C come while a video is judged, by its number."""

    def at(number):
        def judge(_detector, sources):
            for place, source in enumerate(sources, 1):
                if place == number:
                    os.kill(os.getpid(), signal.SIGINT)
                yield dataclasses.replace(verdict(Label.FAKE), video=source.name)

        monkeypatch.setattr("tellframe.cli.sources.judge_sources", judge)

    before = signal.getsignal(signal.SIGINT)
    yield at
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("page", ["a.html", "pages/"])
def test_what_was_judged_before_ctrl_c_is_written(tmp_path, capsys, interrupted, page):
    videos = [str(tmp_path / f"{name}.mp4") for name in "abcd"]
    table, target = tmp_path / "a.csv", tmp_path / page
    interrupted(3)
    command = ["detect", *videos, "--csv", str(table), "--html", f"{tmp_path}/{page}"]
    assert run(command) == 130
    out, err = capsys.readouterr()
    assert [line.split()[-1] for line in out.splitlines()[1:]] == videos[:2]
    assert len(table.read_text().splitlines()) == 3
    text = (target / "index.html" if page == "pages/" else target).read_text()
    assert "Report on 2 videos" in text
    assert "interrupted after 2 of 4 videos; what is written holds no more than these" in err
    assert "2 videos: 2 FAKE" in err


def test_ctrl_c_before_all_verdicts_writes_nothing(tmp_path, capsys, interrupted):
    interrupted(1)
    assert run(["detect", "a.mp4", "b.mp4", "--csv", str(tmp_path / "a.csv")]) == 130
    assert capsys.readouterr() == ("", "tellframe: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_lets_what_was_judged_be_written_and_the_second_one_does_not(interrupted):
    seen, taken = [], []
    items = until_interrupted((number for number in range(9)), seen)
    for item in items:
        if item == 2:
            os.kill(os.getpid(), signal.SIGINT)  # while it is written, say
        taken.append(item)
    assert (taken, seen) == ([0, 1, 2], [signal.SIGINT])
    items = until_interrupted((number for number in range(9)), seen := [])
    assert next(items) == 0
    os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
    items.close()


def test_lines_say_how_to_go_on_after_ctrl_c(tmp_path, capsys, interrupted):
    interrupted(2)
    lines = tmp_path / "a.jsonl"
    assert run(["detect", "a.mp4", "b.mp4", "--jsonl", str(lines)]) == 130
    assert "interrupted after 1 of 2 videos; --resume goes on" in capsys.readouterr().err
    assert len(lines.read_text().splitlines()) == 1


def test_an_ignored_ctrl_c_stays_ignored(capsys, interrupted):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as of `tellframe ... &` in a script
    try:
        interrupted(2)
        assert run(["detect", "a.mp4", "b.mp4", "c.mp4", "--jsonl"]) == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_nothing_analysed(bad, capsys):
    assert run(["detect", bad]) == 4
    assert "bad.mp4" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["detect", "x.mp4", "--model", "nothing"], "no bundle"),
        (["detect", "x.mp4", "--frames", "0"], "num_frames"),
        (["detect", "x.mp4", "--threads", "-1"], "--threads"),
        (["bench", "detect"], "give videos"),
        (["calibrate", "labels.csv"], "--model"),
    ],
)
def test_usage_errors(arguments, message, capsys):
    assert run(arguments) == 2
    assert message in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_known_before_the_work(samples, tmp_path, capsys):
    (tmp_path / "file").touch()
    for option, name in (("--csv", "file/verdicts.csv"), ("--html", "file/report.html")):
        assert run(["detect", str(samples), option, str(tmp_path / name)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert f"{option} {tmp_path / name}: {tmp_path / 'file'} is no folder" in err
        assert "[1/3]" not in err


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["submit", "frame_lite0", "a.mp4", "-o"], "-o"),
        (["index", "videos", "-o"], "-o"),
        (["index", "videos", "-o", "new/a.parquet", "--problems"], "--problems"),
        (["eda", "manifest.parquet", "-o"], "-o"),
        (["eda", "manifest.parquet", "-o", "new/a.html", "--json"], "--json"),
        (["build", "manifest.parquet", "-o"], "-o"),
        (["detect", "a.mp4", "--jsonl"], "--jsonl"),
        (["bench", "videos", "-o"], "-o"),
    ],
)
def test_every_verb_knows_its_output_before_the_work(
    command, option, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    assert run([*command, "file/a.jsonl"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == (
        f"tellframe: error: {option} file/a.jsonl: {tmp_path}/file is no folder; name another\n"
    )
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["submit", "-o", "a.mp4", "frame_lite0", "b.mp4"], "-o a.mp4: exists, and does not end"),
        (["submit", "frame_lite0", "scores.csv", "-o", "scores.csv"], "is one of the inputs"),
        (["index", "videos", "-o", "scores.csv"], "does not end in .parquet"),
        (["index", "m.parquet", "-o", "m.parquet"], "is one of the inputs"),
        (["eda", "m.parquet", "-o", "m.parquet"], "is one of the inputs"),
        (["eda", "m.parquet", "-o", "a.html", "--json", "a.mp4"], "does not end in .json"),
    ],
)
def test_no_verb_takes_an_input_for_its_output(command, reason, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.mp4", "b.mp4", "scores.csv", "m.parquet"):
        Path(name).write_text("kept")
    assert run(command) == 2
    assert reason in capsys.readouterr().err
    assert {path.read_text() for path in tmp_path.iterdir()} == {"kept"}


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (["eda", "m", "-o", "b.html", "--json", "b.html"], "--json b.html: is the place of -o"),
        (["eda", "m", "-o", "b.html", "--json", "link"], "--json link: is the place of -o"),
        (["index", "v", "-o", "b", "--problems", "./b"], "--problems b: is the place of -o"),
        (["detect", "v", "--csv", "b", "--html", "x/../b"], "--html x/../b: is the place of --csv"),
        (["detect", "v", "--jsonl", "b.jsonl", "--csv", "b.jsonl"], "--csv b.jsonl: is the place"),
    ],
)
def test_no_output_replaces_another(command, reason, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("b.html")
    assert run(command) == 2
    assert reason in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_a_device_takes_several_outputs(bad, capsys):
    assert run(["detect", bad, "--csv", "/dev/null", "--html", "/dev/null"]) == 4


def test_the_folder_of_an_output_is_made_for_the_work_alone(bad, tmp_path, capsys):
    command = ["detect", bad, "--csv", f"{tmp_path}/new/a/b.csv", "--html", f"{tmp_path}/new/c/"]
    assert run([*command, "--model", "no-such"]) == 2
    assert not (tmp_path / "new").exists()
    assert run(command) == 4
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a", "c"]


def test_an_output_that_may_not_be_written_is_known_before_the_work(tmp_path, capsys, monkeypatch):
    assert run(["detect", "x.mp4", "--csv", str(tmp_path)]) == 2
    assert f"--csv {tmp_path}: is a folder" in capsys.readouterr().err
    monkeypatch.setattr(os, "access", lambda place, _: str(place) == os.devnull)
    for option, name in (
        ("--csv", "a.csv"),
        ("--html", "a.html"),
        ("--html", "a/"),
        ("--html", ""),
    ):
        assert run(["detect", "x.mp4", option, f"{tmp_path}/{name}"]) == 2
        out, err = capsys.readouterr()
        assert (out, "cannot be written" in err, "[1/1]" in err) == ("", True, False)
    assert run(["detect", "x.mp4", "--csv", os.devnull]) == 4


def test_the_table_comes_before_a_file_that_fails(bad, tmp_path, capsys, monkeypatch):
    def fill(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tellframe.report.write_csv", fill)
    for form, word in (("--quiet", "VERDICT"), ("--json", '"video"')):
        assert run(["detect", bad, "--csv", str(tmp_path / "a.csv"), form]) == 2
        out, err = capsys.readouterr()
        assert word in out
        assert "No space left" in err


@pytest.mark.parametrize("name", ["a.html", "pages/"])
def test_a_report_that_cannot_be_written_costs_nothing_else(
    bad, tmp_path, capsys, monkeypatch, name
):
    def fill(*_):
        raise OSError(27, "File too large", "temporary")

    monkeypatch.setattr("tellframe.report.html._write", fill)
    page, table, lines = f"{tmp_path}/{name}", tmp_path / "a.csv", tmp_path / "a.jsonl"
    command = ["detect", bad, bad, "--html", page, "--csv", str(table)]
    for form, word in (([], "VERDICT"), (["--json"], '"video"'), (["--jsonl", str(lines)], "")):
        assert run([*command, *form]) == 2
        out, err = capsys.readouterr()
        assert word in out
        assert err.splitlines()[-1] == (
            f"tellframe: error: --html {page}: cannot be written (File too large)"
        )
        assert "[2/2]" in err
        assert len(table.read_text().splitlines()) == 3
    assert len(lines.read_text().splitlines()) == 2


def test_every_output_that_cannot_be_written_is_named(bad, tmp_path, capsys):
    names = [f"/proc/{name}" for name in ("a.html", "a.csv")]
    assert run(["detect", bad, "--html", names[0], "--csv", names[1]]) == 2
    out, err = capsys.readouterr()
    assert "VERDICT" in out
    assert all(name in err for name in names)
    assert ".tmp" not in err


def test_lines_that_cannot_be_written_are_no_fault_of_the_report(
    bad, tmp_path, capsys, monkeypatch
):
    def fill(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tellframe.report.write_jsonl", fill)
    assert run(["detect", bad, "--jsonl", "--html", str(tmp_path / "a.html")]) == 2
    err = capsys.readouterr().err
    assert err.splitlines()[-1] == (
        "tellframe: error: No space left on device; make room there, or name another place"
    )


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (FileExistsError(17, "File exists", "a/b"), "a/b: File exists; check the path"),
        (PermissionError(13, "Permission denied", "a"), "a: Permission denied; check your rights"),
        (
            OSError(28, "No space left on device", "a.tmp", None, "a"),
            "a: No space left on device; ",
        ),
        (OSError("of no kind"), "of no kind"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_what_the_system_refuses_is_said_with_what_to_do(error, text):
    assert explain(error).startswith(text)


def test_a_video_is_never_taken_for_an_output(samples, tmp_path, capsys):
    video, empty = tmp_path / "a.mp4", tmp_path / "empty.mp4"
    content = (samples / "real.mp4").read_bytes()
    video.write_bytes(content)
    empty.touch()
    link = tmp_path / "link.csv"
    link.symlink_to(video)
    notes = tmp_path / "notes.csv"
    notes.write_text("mine")
    for command, reason in (
        (["--csv", str(video), "x.mp4"], "exists, and does not end in .csv"),  # --csv *.mp4
        (["--csv", str(empty), "x.mp4"], "exists, and does not end in .csv"),
        (["--csv", str(link), "x.mp4"], "exists, and does not end in .csv"),
        (["--html", str(video), "x.mp4"], "exists, and does not end in .html or .htm"),
        (["--html", str(video), str(video)], "is one of the inputs"),
        (["--csv", str(notes), str(notes)], "is one of the inputs"),
    ):
        assert run(["detect", *command]) == 2
        out, err = capsys.readouterr()
        assert (out, f"{command[0]} {command[1]}: {reason}" in err) == ("", True), err
    assert (video.read_bytes(), notes.read_text()) == (content, "mine")


def test_a_file_of_the_right_kind_or_without_content_is_replaced(tmp_path):
    for name, content in (("a.CSV", "old"), ("new.txt", None), ("tmp.Xy12", "")):
        path = tmp_path / name
        if content is not None:
            path.write_text(content)
        check_output("--csv", path, folder=False, kinds=CSV, inputs=["s3://b/a.mp4", "absent"])
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(UsageError, match=r"does not end in \.csv"):
        check_output("--csv", tmp_path / "notes", folder=False, kinds=CSV)


def test_a_name_that_the_terminal_cannot_show_is_escaped():
    done = subprocess.run(
        [sys.executable, "-m", "tellframe", "detect", "Ä漢.mp4", "--quiet"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "1"},
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (4, b"")
    assert "Ä\\u6f22.mp4" in done.stdout.decode("latin-1")


def test_the_table_fits_a_narrow_terminal(samples, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    command = ["detect", str(samples / "real.mp4"), "--quiet", "--frames", "3"]
    counts = []
    for terminal in (False, True):
        monkeypatch.setattr("sys.stdout.isatty", lambda terminal=terminal: terminal)
        assert run(command) == 0
        counts.append(len(capsys.readouterr().out.splitlines()))
    assert counts[1] > counts[0] == 4  # the last one says that the recipe was changed


def test_unknown_options_are_usage_errors():
    for arguments in (["detect"], ["detect", "x", "--json", "--jsonl"], ["fly"], []):
        with pytest.raises(SystemExit) as stopped:
            run(arguments)
        assert stopped.value.code == 2


def test_folders_are_searched(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "empty").mkdir()
    for name in ("b.MP4", "a.mov", "notes.txt", "deep/c.webm"):
        (tmp_path / name).touch()
    (tmp_path / "deep" / "odd.2024").touch()
    told = []
    inputs = [str(tmp_path), "given.xyz", str(tmp_path / "empty")]
    assert find_videos(inputs, lambda *passed_over: told.append(passed_over)) == [
        *(str(tmp_path / n) for n in ("a.mov", "b.MP4", "deep/c.webm")),
        "given.xyz",
        str(tmp_path / "empty"),
    ]
    assert told == [(str(tmp_path), 1)]


def test_bench_tells_what_it_passes_over_for_its_name(tmp_path, capsys):
    (tmp_path / "odd.2024").touch()
    assert run(["bench", "detect", str(tmp_path)]) == 2
    assert f"{tmp_path}: 1 file passed over, whose name does not" in capsys.readouterr().err


def test_models_and_doctor(capsys):
    assert run(["models"]) == 0
    assert "frame_lite0" in capsys.readouterr().out
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "golden scores within" in out
    assert "FFmpeg" in out


def test_bench_prints_the_ratio(samples, capsys):
    video = str(samples / "real.mp4")
    assert run(["bench", "detect", video, "--rounds", "1", "--no-fresh"]) == 0
    (result,) = json.loads(capsys.readouterr().out)
    seconds = result["seconds"]
    ratio = seconds["detect"]["median"] / seconds["bare_decode"]["median"]
    assert result["detect_to_bare_decode"] == pytest.approx(ratio, rel=0.05)


def test_a_closed_pipe_is_no_error(samples):
    command = f"'{sys.executable}' -m tellframe detect '{samples}' --jsonl --frames 3 --quiet"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -c 1"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
