from __future__ import annotations

import dataclasses
import re

import pytest

from tellframe.report import format_table
from tellframe.report.page import article
from tellframe.report.words import clock, percent, printable, sentence
from tellframe.scoring import Calibration
from tellframe.types import Label, Reason


def test_lines_of_one_video(make):
    lines = format_table(make.verdict()).splitlines()
    assert len(lines) == 3
    assert re.fullmatch(r"VERDICT +P\(FAKE\)  VIDEO", lines[0])
    assert re.fullmatch(r"FAKE +97\.3 %  folder/interview\.mp4", lines[1])
    assert re.fullmatch(
        r"  FAKE +66\.8 %    person 1 +0\.5-9\.5 s +4 frames +"
        r"most suspicious: 6\.5 s \(97\.0 %\), 0\.5 s \(90\.0 %\), 9\.5 s \(60\.0 %\)",
        lines[2],
    )
    assert lines[0].index("VIDEO") == lines[1].index("folder")
    assert lines[1].index(" %") == lines[2].index(" %")


def test_reasons_are_plain_words(make, unreadable):
    text = format_table([make.verdict(people=()), unreadable])
    assert "no face was found in the sampled frames" in text
    assert "the file cannot be read as a video" in text
    assert "error: broken.mp4 is no video: convert it" in text
    assert "no_face" not in text


DAMAGED = {
    "all": (
        {"num_declared": 300, "num_packets": 180, "num_asked": 10, "num_decoded": 7}
        | {"decode_errors": 3},
        "read 7 of 10 pictures; 3 decode errors; the header announces 300 pictures, the file "
        "holds 180",
    ),
    "a cut file": (
        {"num_declared": 300, "num_packets": 180, "num_asked": 10, "num_decoded": 10},
        "read 10 of 10 pictures; the header announces 300 pictures, the file holds 180",
    ),
    "no word in the header": (
        {"num_packets": 180, "num_asked": 1, "num_decoded": 1, "decode_errors": 1},
        "read 1 of 1 picture; 1 decode error",
    ),
    "an older verdict": ({}, ""),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_said_in_numbers(name, make):
    facts, text = DAMAGED[name]
    verdict = make.verdict()
    media = dataclasses.replace(verdict.media, **facts)
    assert "partial:" not in format_table(dataclasses.replace(verdict, media=media))
    media = dataclasses.replace(media, partial=True)
    verdict = dataclasses.replace(verdict, media=media, reasons=(Reason.PARTIAL,))
    found = [line for line in format_table(verdict).splitlines() if "partial:" in line]
    assert found == ([f"  partial: {text}"] if text else [])
    page = article(verdict, 1, "video")
    assert f"only a part of it{': ' if text else ''}{text}</td>" in page


def test_seconds_are_rounded_alike_in_the_table_and_on_the_page(make):
    times = (0.05, 0.15, 0.25, 1.25, 2.05)
    person = make.person(probabilities=(0.9,) * len(times))
    moments = tuple(
        dataclasses.replace(moment, time=time)
        for moment, time in zip(person.moments, times, strict=True)
    )
    person = dataclasses.replace(person, start=0.05, end=2.05, moments=moments)
    assert [clock(time) for time in times] == ["0.1 s", "0.2 s", "0.3 s", "1.3 s", "2.1 s"]
    line = format_table(make.verdict(people=(person,))).splitlines()[2]
    assert " 0.1-2.1 s " in line
    assert "most suspicious: 0.1 s (90.0 %), 0.2 s (90.0 %), 0.3 s (90.0 %)" in line


def test_person_without_probability(make):
    person = dataclasses.replace(
        make.person(probabilities=()), label=Label.INCONCLUSIVE, reasons=(Reason.TOO_SMALL,)
    )
    line = format_table(make.verdict(people=(person,))).splitlines()[2]
    assert re.search(r"INCONCLUSIVE +-    person 1 .* the face is too small to be judged$", line)


def test_a_reason_is_not_said_twice_of_a_single_person(make):
    def uncertain(number):
        person = make.person(number, Label.INCONCLUSIVE)
        return dataclasses.replace(person, reasons=(Reason.UNCERTAIN,))

    said = "the score lies between the limits"
    for people, reasons, count in (
        ((uncertain(1),), (Reason.UNCERTAIN, Reason.PARTIAL), 1),
        ((uncertain(1),), (), 1),
        ((uncertain(1), uncertain(2)), (Reason.UNCERTAIN,), 3),
    ):
        verdict = dataclasses.replace(make.verdict(people=people), reasons=reasons)
        assert format_table(verdict).count(said) == count


@pytest.mark.parametrize("color", [False, True])
def test_reasons_and_moments_go_below_where_the_terminal_is_narrow(make, color):
    reasons = (Reason.TOO_SMALL, Reason.DEGRADED)
    person = dataclasses.replace(make.person(), reasons=reasons)
    verdict = dataclasses.replace(
        make.verdict(people=(person, make.person(2))), reasons=(Reason.PERSON_NOT_JUDGED,)
    )
    whole = format_table(verdict, color=color)
    narrow = format_table(verdict, color=color, width=80)
    plain = re.sub(r"\x1b\[\d+m", "", narrow).splitlines()
    assert max(map(len, plain)) <= 80
    assert [line[:14].split()[:1] for line in plain if not line.startswith("    ")] == [
        ["VERDICT"],
        *([["FAKE"]] * 3),
    ]
    assert "    most suspicious: 6.5 s (97.0 %), 0.5 s (90.0 %), 9.5 s (60.0 %)" in narrow
    assert narrow.split() == whole.split()
    longest = max(map(len, re.sub(r"\x1b\[\d+m", "", whole).splitlines()))
    assert format_table(verdict, color=color, width=longest) == whole
    assert format_table(verdict, color=color, width=longest - 1) != whole
    assert format_table(verdict, color=color, width=1).split() == whole.split()


def test_hostile_names_are_harmless(hostile_name, make):
    verdict = dataclasses.replace(make.unreadable(hostile_name), error=hostile_name)
    text = format_table(verdict)
    assert all(char == "\n" or char.isprintable() for char in text)
    assert len(text.splitlines()) == 3
    text.encode("utf-8")


def test_color_only_on_demand(verdict):
    plain, colored = format_table(verdict), format_table(verdict, color=True)
    assert "\x1b" not in plain
    assert "\x1b[31mFAKE" in colored
    assert re.sub(r"\x1b\[\d+m", "", colored) == plain


def test_a_model_that_was_never_calibrated_is_told_below_the_table(verdict, unreadable):
    said = "not calibrated: P(FAKE) is a score, no frequency; see tellframe calibrate"
    model = dataclasses.replace(verdict.model, calibrated_on=Calibration().fitted_on)
    rows = [dataclasses.replace(row, model=model) for row in (verdict, unreadable)]
    text = format_table(rows)
    assert text == f"{format_table([verdict, unreadable])}{said}\n"
    assert said not in format_table(rows[1:])


def test_a_sentence_ends_once():
    for text, expected in (
        ("no face was found", "No face was found."),
        ("no face was found.", "No face was found."),
        ("is it complete?", "Is it complete?"),
        ("stop!", "Stop!"),
    ):
        assert sentence(text) == expected


def test_no_videos():
    assert format_table([]).count("\n") == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0.0, "<0.1 %"), (0.0005, "<0.1 %"), (0.5, "50.0 %"), (0.99996, ">99.9 %")],
)
def test_percent_never_claims_certainty(value, text):
    assert percent(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (9.74, "9.7 s"), (59.96, "1:00.0"), (69.7, "1:09.7"), (3669.7, "1:01:09.7")],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


@pytest.mark.parametrize(
    ("text", "visible"),
    [
        ("a\tb\n", "a\\x09b\\x0a"),
        ("\udcff", "\\xff"),
        ("\u202e\u2028", "\\u202e\\u2028"),
        ("\U000e0001", "\\U000e0001"),
        ("Ünï 映像", "Ünï 映像"),
    ],
)
def test_printable(text, visible):
    assert printable(text) == visible
