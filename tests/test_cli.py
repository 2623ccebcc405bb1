"""The command line as a person or a script meets it."""

import csv
import json
import os
import subprocess
import sys

import pytest

import tellframe
from tellframe.cli import build_parser, run
from tellframe.cli.detect import Tally
from tellframe.cli.sources import find_videos
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
    assert err.splitlines()[-1] == "tellframe: error: [Errno 28] No space left on device"


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
    assert counts[1] > counts[0] == 3


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
    command = f"'{sys.executable}' -m tellframe detect '{samples}' --jsonl --frames 2 --quiet"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command} | head -c 1"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
