"""Bad files of many kinds: each ends within its limits, and as its kind calls for."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

import tellframe
from bad_files import KINDS, PARTIAL, READ, REFUSED, make_all, table
from tellframe.isolation import Limits
from tellframe.limits import FileLimits
from tellframe.report.words import damage
from tellframe.types import Label, Reason

ROOT = Path(__file__).parents[1]
SECONDS = 20
"""For one file, on a machine that does other things as well."""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return make_all(tmp_path_factory.mktemp("bad") / "files")


@pytest.fixture(scope="module")
def detector():
    limits = Limits(seconds=SECONDS, memory=2**31, attempts=1)
    detector = tellframe.load(num_frames=3, threads=1, limits=limits)
    yield detector
    detector.close()


@pytest.mark.parametrize("name", KINDS)
def test_every_file_ends_as_its_kind_calls_for(name, files, detector):
    found = Counter()
    for verdict in detector.detect_many(files[name]):
        outcome = READ
        if verdict.error is not None:
            outcome = REFUSED
            assert verdict.error.startswith(verdict.video)
            assert verdict.reasons == (Reason.UNREADABLE,)
            for word in ("ended the process", "longer than", "itself fail", "nonsense"):
                assert word not in verdict.error, "not a clean refusal"
        elif Reason.PARTIAL in verdict.reasons:
            outcome = PARTIAL
            assert verdict.media.partial
            assert damage(verdict.media).startswith("read ")
        if verdict.media is not None:  # what was looked at is what was decoded, and no more
            media, counters = verdict.media, verdict.counters
            assert 0 < media.num_decoded <= media.num_asked <= 3
            assert counters["frames_sampled"] == media.num_decoded
            assert all(person.frames <= media.num_decoded for person in verdict.people)
        assert outcome in KINDS[name].outcomes, (verdict.video, verdict.error)
        assert verdict.sandbox.holds
        assert verdict.seconds < SECONDS
        found[outcome] += 1
    if name in ("cut_mp4_index_first", "cut_stream"):
        assert found[PARTIAL], "no damage was noticed"
    if name == "cut_mp4_index_first":
        said = [damage(v.media) for v in detector.detect_many(files[name]) if v.media]
        assert all("the header announces" in text for text in said)


def test_there_are_enough_and_the_table_is_up_to_date(files):
    assert sum(map(len, files.values())) >= 150
    assert table(files) in (ROOT / "docs" / "security.md").read_text(encoding="utf-8")


def test_no_traceback_reaches_the_user(files, tmp_path):
    """And no name acts on the terminal, the table or the page."""
    paths = [str(path) for name in files for path in files[name][:2]]
    paths += map(str, files["hostile_names"])
    page, rows = tmp_path / "pages", tmp_path / "rows.csv"
    begin = time.monotonic()
    command = [sys.executable, "-m", "tellframe", "detect", "--frames", "3", "--html", f"{page}/"]
    done = subprocess.run(
        [*command, "--csv", str(rows), "--jsonl", "--", *paths],
        capture_output=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 3
    assert time.monotonic() - begin < 200
    for text in (done.stdout, done.stderr):
        assert b"Traceback" not in text
    assert not any(c < 32 and c != 10 for c in done.stderr), "something acts on the terminal"
    assert "\u202e" not in done.stderr.decode()
    found = [json.loads(line)["video"] for line in done.stdout.splitlines()]
    assert found == paths
    with rows.open(newline="", encoding="utf-8") as file:
        cells = [row["video"] for row in csv.DictReader(file)]
    assert len(cells) >= len(paths)
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]
    for path in page.iterdir():
        assert "<script>" not in (text := path.read_text(encoding="utf-8"))
        assert "<img src=x" not in text
    assert len(list(page.iterdir())) == len(paths) + 1


@pytest.mark.parametrize(
    ("limit", "value", "text"),
    [
        ("bytes", 1000, "bytes, more than the limit of 1000; see --max-bytes"),
        ("pixels", 1000, "more than the limit of 1000; .*--max-pixels"),
        ("pictures", 10, "more than 10 pictures; .*--max-pictures"),
        ("seconds", 1, "lasts 4 s, more than the limit of 1; .*--max-seconds"),
    ],
)
def test_limits_are_kept(limit, value, text, samples):
    detector = tellframe.load(num_frames=3, isolate=False, file_limits=FileLimits(**{limit: value}))
    with pytest.raises(tellframe.LimitError, match=text):
        detector.detect(samples / "real.mp4")


def test_a_limit_of_decoded_pictures_leaves_the_rest(samples):
    detector = tellframe.load(isolate=False, file_limits=FileLimits(decoded=20))
    verdict = detector.detect(samples / "real.mp4")
    assert Reason.PARTIAL in verdict.reasons
    assert 0 < verdict.counters["frames_sampled"] < 10


def test_a_limit_of_people_keeps_those_seen_most(samples):
    detector = tellframe.load(isolate=False, file_limits=FileLimits(people=1))
    verdict = detector.detect(samples / "two_people.mp4")
    assert [(p.label, p.start) for p in verdict.people] == [(Label.REAL, 0.2)]
    assert verdict.counters["dropped_many"] == 1
    # The other one is the fake.
    assert (verdict.label, verdict.reasons) == (Label.REAL, (Reason.PERSON_NOT_JUDGED,))


def test_a_limit_of_faces_in_a_frame_leaves_the_smaller_ones_and_says_so(samples):
    detector = tellframe.load(isolate=False, max_faces=1)
    verdict = detector.detect(samples / "two_people.mp4")
    assert len(verdict.people) == 1
    assert verdict.counters["dropped_faces"] >= 1  # followed, the other is not seen
    assert Reason.PERSON_NOT_JUDGED in verdict.reasons


def test_memory_without_end_is_as_much_as_there_is(monkeypatch):
    from tellframe import detector
    from tellframe.cli import build_parser
    from tellframe.cli.options import load_detector

    monkeypatch.setattr(detector, "load", lambda _model, *, limits, **_: limits)
    for given, expected in (("inf", 2**62), ("1e300", 2**62), ("0.5", 2**29)):
        options = build_parser().parse_args(["detect", "a.mp4", "--memory", given])
        assert load_detector(options).memory == expected


def test_limits_are_options(samples, capsys):
    from tellframe.cli import run

    assert run(["detect", str(samples), "--max-pixels", "1000", "--quiet"]) == 4
    assert "--max-pixels" in capsys.readouterr().out
    for option in ("--max-pixels", "--max-seconds", "--timeout", "--memory"):
        assert run(["detect", str(samples), option, "0"]) == 2
        assert "more than 0" in capsys.readouterr().err


def test_the_same_file_gives_the_same_json(samples, files):
    """Byte for byte, times aside, also of damaged files, and from another process."""
    paths = [samples / "fake.mp4", *files["flipped_bits"][:12], *files["cut_stream"][::3]]
    rows = []
    for threads in ("2", "2"):
        command = [sys.executable, "-m", "tellframe", "detect", "--jsonl", "--threads", threads]
        done = subprocess.run([*command, *map(str, paths)], capture_output=True, check=False)
        found = [json.loads(line) for line in done.stdout.splitlines()]
        rows.append([json.dumps(row | {"seconds": 0}) for row in found])
    assert len(rows[0]) == len(paths)
    assert rows[0] == rows[1]
