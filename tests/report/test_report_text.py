from __future__ import annotations

import dataclasses
import re

import pytest

from tellframe.report import format_table
from tellframe.report.page import article
from tellframe.report.words import clock, percent, printable, sentence
from tellframe.scoring import Calibration
from tellframe.types import FAR_APART, Label, Reason


def test_lines_of_one_video(make):
    lines = format_table(with_model(make.verdict())).splitlines()
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
        with_model(make.verdict(people=(person, make.person(2)))),
        reasons=(Reason.PERSON_NOT_JUDGED,),
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
    model = dataclasses.replace(make.verdict().model, recipe_overrides={hostile_name: 1})
    text += format_table(dataclasses.replace(make.verdict(), model=model))
    assert all(char == "\n" or char.isprintable() for char in text)
    text.encode("utf-8")


def test_color_only_on_demand(verdict):
    plain, colored = format_table(verdict), format_table(verdict, color=True)
    assert "\x1b" not in plain
    assert "\x1b[31mFAKE" in colored
    assert re.sub(r"\x1b\[\d+m", "", colored) == plain


def with_model(verdict, **changes):
    model = dataclasses.replace(verdict.model, recipe_overrides={}, **changes)
    return dataclasses.replace(verdict, model=model)


def test_a_model_that_was_never_calibrated_is_told_below_the_table(verdict, unreadable):
    said = "not calibrated: P(FAKE) is a score, no frequency; see tellframe calibrate"
    row = with_model(verdict, calibrated_on=Calibration().fitted_on)
    rows = [row, dataclasses.replace(unreadable, model=row.model)]
    text = format_table(rows)
    assert text == f"{format_table([with_model(verdict), unreadable])}{said}\n"
    assert said not in format_table(rows[1:])


def test_a_changed_recipe_is_told_below_the_table(verdict, unreadable):
    plain = with_model(verdict)
    assert "not calibrated" not in format_table([plain])
    said = "not calibrated: P(FAKE) is no longer a frequency, as the recipe was changed: "
    model = dataclasses.replace(plain.model, recipe_overrides={"margin": 0.2, "num_frames": 4})
    other = dataclasses.replace(verdict, model=model)
    text = format_table([plain, verdict, other])
    assert text.endswith(f"\n{said}num_frames, margin\n")
    assert text.count("not calibrated") == 1
    assert said not in format_table(dataclasses.replace(unreadable, model=model))


def test_the_limits_of_the_model_are_said(make):
    person = dataclasses.replace(make.person(label=Label.INCONCLUSIVE), reasons=(Reason.UNCERTAIN,))
    people = (person, dataclasses.replace(person, person=2))
    verdict = with_model(make.verdict(people=people), real_to=0.2266, fake_from=0.885)
    text = format_table(dataclasses.replace(verdict, reasons=(Reason.UNCERTAIN,)))
    assert text.count("between the limits for real and fake (22.7 % and 88.5 %)") == 3


def test_gaps_between_frames_and_who_was_left_out_are_said(make):
    verdict = make.verdict()
    assert "note:" not in format_table(verdict)
    for every, shown in ((FAR_APART, ""), (2.04, "2.0 s"), (9.96, "10.0 s"), (3600, "3600 s")):
        media = dataclasses.replace(verdict.media, sampled_every=every)
        lines = format_table(dataclasses.replace(verdict, media=media)).splitlines()
        found = [line for line in lines if "note:" in line]
        said = f"looked at one frame every {shown}; what shows for less may be missed"
        assert found == ([f"  note: {said}: --frames N looks closer"] if shown else [])
    counters = {"dropped_many": 3, "dropped_faces": 1, "dropped_short": 2}
    text = format_table(dataclasses.replace(verdict, counters=counters))
    assert "  note: 3 people left out, more than are followed: --max-people N" in text
    assert "  note: 1 face left out, more than are looked at in one frame\n" in text
    assert text.count("note:") == 2
    narrow = format_table(dataclasses.replace(verdict, counters=counters), width=60)
    assert narrow.split() == text.split()
    assert "\n  note: 3 people left out, more than are followed:\n" in narrow
    assert max(len(line) for line in narrow.splitlines() if "person 1" not in line) <= 60


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
