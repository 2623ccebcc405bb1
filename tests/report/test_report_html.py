from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tellframe.report import write_html
from tellframe.report.pictures import SCALE_FLOOR, choose_moments, heat_scale, hottest_place
from tellframe.report.svg import MAX_MARKS, thin, ticks, timeline
from tellframe.report.words import percent
from tellframe.scoring import Calibration
from tellframe.types import Evidence, Label, Moment, Reason, Sandbox, Verdict

VOID = {"meta", "img", "br"}
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Page(HTMLParser):
    """Parses a page strictly: every element is closed in order, every id is unique."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(source)
        self.close()
        assert self._open == []
        ids = [attrs["id"] for _, attrs in self.elements if "id" in attrs]
        assert len(ids) == len(set(ids))

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs)
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if "style" not in self._open:
            self.text += data

    def all(self, tag: str, kind: str = "") -> list[dict[str, str]]:
        return [
            attrs
            for name, attrs in self.elements
            if name == tag and kind in [*attrs.get("class", "").split(), ""]
        ]

    @property
    def words(self) -> str:
        return " ".join(self.text.split())


def check(path: Path) -> Page:
    """Parse a page and check what holds for every page."""
    source = path.read_text("utf-8")
    assert "http" not in source.replace("http-equiv", "")
    assert "://" not in source
    page = Page(source)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "link", "iframe", "object", "form", "base", "foreignobject"}
    assert not any(name.startswith("on") for _, attrs in page.elements for name in attrs)
    for image in page.all("img"):
        assert image["src"].startswith("data:image/jpeg;base64,")
        assert image["alt"]
    assert {"http-equiv": "Content-Security-Policy", "content": POLICY} in page.all("meta")
    assert page.elements[0] == ("html", {"lang": "en"})
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in zip([0, *levels], levels, strict=False))
    assert all("scope" in attrs for attrs in page.all("th"))
    known = {"#" + attrs["id"] for _, attrs in page.elements if "id" in attrs}
    for _, attrs in page.elements:
        if attrs.get("href", "").startswith("#"):
            assert attrs["href"] in known
    return page


def render(tmp_path: Path, verdicts: Verdict | list[Verdict]) -> Page:
    return check(write_html(verdicts, tmp_path / "report.html"))


def test_verdict_in_plain_words(tmp_path, rich_verdict):
    page = render(tmp_path, rich_verdict)
    for text in (
        "Likely fake",
        "interview.mp4",
        "97.3 %",
        "The face of person 1 shows traces",
        "360 × 640",
        "1.2 MB (1,234,567 bytes)",
        "ab" * 32,
        "cd" * 32,
        "num_frames = 32",
        "Frames sampled from the video",
        "Something new",
        "not a proof of authenticity",
        "The voice",
    ):
        assert text in page.words


@pytest.mark.parametrize(
    ("label", "title"),
    [
        (Label.FAKE, "Likely fake"),
        (Label.REAL, "No sign of a fake found"),
        (Label.INCONCLUSIVE, "Inconclusive"),
    ],
)
def test_every_label_has_words(tmp_path, make, label, title):
    assert title in render(tmp_path, make.verdict(label=label)).words


@pytest.mark.parametrize(
    ("fakes", "words"),
    [
        ((), "Taken together, the faces in this video show"),
        ((2,), "The face of person 2 shows"),
        ((1, 3), "The faces of persons 1 and 3 show"),
        ((1, 2, 3), "The faces of persons 1, 2 and 3 show"),
    ],
)
def test_who_is_fake(tmp_path, make, fakes, words):
    people = tuple(make.person(n, Label.FAKE if n in fakes else Label.REAL) for n in (1, 2, 3))
    assert words in render(tmp_path, make.verdict(people=people)).words


def test_changed_recipe_is_not_called_calibrated(tmp_path, verdict):
    assert "Calibrated: where" not in render(tmp_path, verdict).words
    model = dataclasses.replace(verdict.model, recipe_overrides={})
    page = render(tmp_path, dataclasses.replace(verdict, model=model))
    assert "of 100 that score like this one about 97 would show a fake face" in page.words


@pytest.mark.parametrize(
    ("prior", "words"),
    [
        (0.5, "Calibrated: where half of the videos are fakes, of 100"),
        (0.125, "Calibrated: where 12.5 % of the videos are fakes, of 100"),
        (None, "Calibrated: where as many of the videos are fakes as its calibration assumes, of"),
    ],
)
def test_the_share_of_fakes_for_which_a_probability_holds_is_said(tmp_path, verdict, prior, words):
    model = dataclasses.replace(verdict.model, recipe_overrides={}, prior_use=prior)
    assert words in render(tmp_path, dataclasses.replace(verdict, model=model)).words


@pytest.mark.parametrize("reason", [Reason.DEGRADED, Reason.TOO_SMALL, Reason.TOO_FEW_FRAMES])
def test_where_nobody_was_judged_the_number_is_not_called_calibrated(tmp_path, make, reason):
    person = dataclasses.replace(make.person(), label=Label.INCONCLUSIVE, reasons=(reason,))
    verdict = make.verdict(people=(person,), label=Label.INCONCLUSIVE)
    model = dataclasses.replace(verdict.model, recipe_overrides={})
    verdict = dataclasses.replace(verdict, model=model, reasons=(reason,))
    words = render(tmp_path, verdict).words
    assert "of 100 that score" not in words
    assert "Not calibrated: nobody in this video could be judged" in words
    assert "highest score of a face, none of which could be judged" in words
    unsure = dataclasses.replace(person, reasons=(Reason.UNCERTAIN,))
    words = render(tmp_path, dataclasses.replace(verdict, people=(unsure,), reasons=())).words
    assert "of 100 that score" in words
    assert "probability that at least one face is fake" in words


def test_the_probability_is_that_of_those_who_were_judged(tmp_path, make):
    brief = dataclasses.replace(
        make.person(2), label=Label.INCONCLUSIVE, reasons=(Reason.TOO_FEW_FRAMES,)
    )
    verdict = make.verdict(people=(make.person(), brief))
    said = ", among the people who were judged"
    assert said not in render(tmp_path, verdict).words
    verdict = dataclasses.replace(verdict, reasons=(Reason.PERSON_NOT_JUDGED,))
    assert f"at least one face is fake{said}" in render(tmp_path, verdict).words


LIMITS = {"real_to": 0.2266, "fake_from": 0.885}


def with_limits(verdict, **limits):
    return dataclasses.replace(
        verdict, model=dataclasses.replace(verdict.model, **(limits or LIMITS))
    )


def test_the_limits_are_said_and_drawn(tmp_path, make):
    person = dataclasses.replace(make.person(), reasons=(Reason.UNCERTAIN,))
    verdict = make.verdict(people=(person,), label=Label.INCONCLUSIVE)
    verdict = dataclasses.replace(verdict, reasons=(Reason.UNCERTAIN,))
    page = render(tmp_path, with_limits(verdict))
    said = "The score lies between the limits for real and fake (22.7 % and 88.5 %)."
    assert page.words.count(said) == 2  # of the video, and of the person
    assert "REAL up to 22.7 %, FAKE from 88.5 %" in page.words
    (scale,) = page.all("svg", "scale")
    assert scale["aria-label"].endswith("to 100 %: REAL up to 22.7 %, FAKE from 88.5 %")
    zones = [(z["class"], z["x1"], z["x2"]) for z in page.all("line", "zone")]
    assert zones == [("zone REAL", "0", "22.7%"), ("zone FAKE", "88.5%", "100%")]
    assert "50 %" not in page.words
    old = render(tmp_path, verdict)
    assert "between the limits for real and fake." in old.words
    assert old.all("line", "zone") == []


@pytest.mark.parametrize(
    ("limits", "kinds"),
    [
        # P(fake) is 0.9, 0.2, 0.97, 0.6, 0.8.
        ({}, ["high", "low", "high", "high", "high"]),
        (LIMITS, ["high", "low", "high", "mid", "mid"]),
        ({"real_to": 0.6, "fake_from": 0.9}, ["high", "low", "high", "low", "mid"]),
        ({"real_to": 0.5, "fake_from": 0.5}, ["high", "low", "high", "high", "high"]),
    ],
)
def test_moments_are_marked_by_the_limits_of_the_model(tmp_path, make, limits, kinds):
    person = make.person(probabilities=(0.9, 0.2, 0.97, 0.6, 0.8))
    verdict = make.verdict(people=(person,))
    page = render(tmp_path, with_limits(verdict, **limits) if limits else verdict)
    marks = [attrs for attrs in page.all("use", "mark") if "x" in attrs]
    assert [mark["href"] for mark in marks] == [f"#mark-{kind}" for kind in kinds]
    assert [mark["class"] for mark in marks] == [f"mark {kind}" for kind in kinds]
    for text in [f"from {percent(limits['fake_from'])} on"] if limits else ["above 50 %"]:
        assert f"judged frame {text}" in page.words


@pytest.mark.parametrize("limits", [(0.0, 1.0), (0.01, 0.99), (0.5, 0.5), (0.45, 0.55)])
def test_labels_of_the_timeline_do_not_lie_on_each_other(limits, make):
    drawing = timeline(make.person(), 10.0, {}, limits)
    heights = [float(y) for y in re.findall(r'x="-8" y="([\d.]+)"', drawing)]
    gaps = np.diff(sorted(heights[:-1]))  # the last one names the axis
    assert gaps.min() >= 12


def test_gaps_between_frames_and_who_was_left_out_are_said(tmp_path, make):
    brief = dataclasses.replace(
        make.person(2), label=Label.INCONCLUSIVE, reasons=(Reason.TOO_FEW_FRAMES,)
    )
    verdict = make.verdict(people=(make.person(), brief))
    assert "Looked at" not in render(tmp_path, verdict).words
    media = dataclasses.replace(verdict.media, sampled_every=60.0)
    counters = {"dropped_many": 1, "dropped_faces": 12}
    words = render(tmp_path, dataclasses.replace(verdict, media=media, counters=counters)).words
    assert (
        "Looked at one frame every 60 s; what shows for less may be missed, and too little is seen "
        "of 1 of 2 people to judge them: --frames N looks closer."
    ) in words
    assert "1 person left out, more than are followed: --max-people N follows more." in words
    assert "12 faces left out, more than are looked at in one frame." in words
    assert "Faces left out, more than the limit of one frame" in words


def test_a_model_that_was_never_calibrated_is_not_called_calibrated(tmp_path, verdict):
    model = dataclasses.replace(
        verdict.model, recipe_overrides={}, calibrated_on=Calibration().fitted_on
    )
    words = render(tmp_path, dataclasses.replace(verdict, model=model)).words
    assert "Not calibrated: this number is a score" in words
    assert "tellframe calibrate" in words
    assert "of 100 that score" not in words
    assert "as trained and calibrated" not in words


def test_unreadable_file(tmp_path, unreadable):
    page = render(tmp_path, unreadable)
    assert "Could not be read" in page.words
    assert "broken.mp4 is no video: convert it" in page.words
    assert page.all("img") == []


def test_no_people(tmp_path, make):
    page = render(tmp_path, make.verdict(people=(), label=Label.INCONCLUSIVE))
    assert "No face was found in the sampled frames." in page.words
    assert page.all("svg", "timeline") == []


def test_hostile_names(tmp_path, hostile_name, make):
    verdict = dataclasses.replace(
        make.verdict(hostile_name),
        error=hostile_name,
        counters={hostile_name: 1},
        model=dataclasses.replace(
            make.verdict().model, name=hostile_name, recipe_overrides={hostile_name: hostile_name}
        ),
    )
    for path in (tmp_path / "one.html", tmp_path / "folder"):
        page = check(write_html([verdict], path))
        assert all(c == "\n" or c.isprintable() for c in page.text)
    names = [path.name for path in (tmp_path / "folder").iterdir()]
    assert all(re.fullmatch(r"(\d{4}-[\w-]{1,60}|index)\.html", name, re.ASCII) for name in names)


def test_one_mark_a_judged_frame(tmp_path, rich_verdict):
    page = render(tmp_path, rich_verdict)
    marks = [attrs for attrs in page.all("use", "mark") if "x" in attrs]
    assert len(marks) == sum(len(person.moments) for person in rich_verdict.people)
    moments = rich_verdict.people[0].moments
    assert [mark["href"] for mark in marks[: len(moments)]] == [
        "#mark-high" if moment.probability > 0.5 else "#mark-low" for moment in moments
    ]
    assert marks[0]["x"] == "5.00%"
    assert len(page.all("svg", "timeline")) == 3
    assert all("judged frame" in svg["aria-label"] for svg in page.all("svg", "timeline"))


def test_pictures_and_legend_only_with_evidence(tmp_path, rich_verdict, verdict):
    page = render(tmp_path, rich_verdict)
    assert len(page.all("img")) == 2 * (6 + 2)
    assert len(page.all("div", "legend")) == 2
    assert "strong (3.0)" in page.words
    assert "strong (1.0)" in page.words
    assert "logit" not in page.words
    assert "most speaks for fake in the lower middle" in str(page.all("img"))
    assert "hardly anything speaks for fake" not in str(page.all("img")[:12])
    without = render(tmp_path, verdict)
    assert without.all("img") == []
    assert without.all("div", "legend") == []
    assert "No pictures are shown" in without.words


def test_crops_are_the_ones_given(tmp_path, make):
    person = make.person(evidence=True)
    crops = np.zeros((4, 64, 64, 3), dtype=np.uint8)
    crops[:] = (np.arange(4) * 60)[:, None, None, None]
    heat = np.full((4, 3, 3), -1.0, dtype=np.float32)
    person = dataclasses.replace(person, evidence=Evidence(crops, heat))
    images = render(tmp_path, make.verdict(people=(person,))).all("img")
    values = []
    for image in images:
        data = base64.b64decode(image["src"].partition(",")[2])
        pixels = np.asarray(Image.open(io.BytesIO(data)))
        assert pixels.shape == (64, 64, 3)
        values.append(int(pixels.mean().round()))
    # P(fake) is 0.9, 0.2, 0.97, 0.6: shown are 2 and 0 as highest, 1 and 3 as lowest.
    assert values[::2] == pytest.approx([120, 0, 60, 180], abs=1)
    assert "hardly anything speaks for fake" in images[1]["alt"]


def test_evidence_that_does_not_fit_is_refused(tmp_path, make):
    person = make.person(evidence=True)
    person = dataclasses.replace(person, moments=person.moments[:-1])
    with pytest.raises(ValueError, match="3 moments, but evidence of 4 crops"):
        write_html(make.verdict(people=(person,)), tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


def test_zero_duration_and_one_moment(tmp_path, make):
    person = make.person(probabilities=(0.7,), evidence=True)
    person = dataclasses.replace(
        person, start=0.0, end=0.0, moments=(Moment(0.0, 0.7, (0.0, 0.0, 1.0, 1.0)),)
    )
    page = render(tmp_path, make.verdict(people=(person,), duration=0.0))
    assert [m["x"] for m in page.all("use", "mark") if "x" in m] == ["50.00%"]
    assert "Seen at 0.0 s" in page.words
    assert len(page.all("img")) == 2


def test_many_moments_and_people_stay_small(tmp_path, make):
    rng = np.random.default_rng(0)
    people = tuple(
        make.person(n, probabilities=tuple(rng.random(300).tolist()), evidence=True)
        for n in range(1, 21)
    )
    target = write_html(make.verdict(people=people), tmp_path / "report.html")
    assert target.stat().st_size < 4_000_000
    page = check(target)
    assert len([m for m in page.all("use", "mark") if "x" in m]) == 20 * 300
    assert len(page.all("img")) == 20 * 12


def test_several_videos_in_one_page(tmp_path, make, unreadable):
    page = render(tmp_path, [make.verdict(), make.verdict("b.mp4"), unreadable])
    assert len(page.all("article")) == 3
    assert "Report on 3 videos" in page.words
    assert "2 FAKE" in page.words
    assert "1 file could not be read" in page.words


@pytest.mark.parametrize("target", ["new", "new.d/", "existing.dir"])
def test_folder_with_index(tmp_path, make, unreadable, target):
    (tmp_path / "existing.dir").mkdir()
    verdicts = (v for v in [make.verdict("a/x.mp4"), make.verdict("b/x.mp4"), unreadable])
    index = write_html(verdicts, f"{tmp_path}/{target}")
    assert index == tmp_path / target.rstrip("/") / "index.html"
    links = [a["href"] for a in check(index).all("a")]
    assert links == ["0001-x.html", "0002-x.html", "0003-broken.html"]
    for link in links:
        assert {"href": "index.html"} in check(index.parent / link).all("a")
    assert len(list(index.parent.iterdir())) == 4


def test_no_videos(tmp_path):
    assert "Report on 0 videos" in render(tmp_path, []).words


@pytest.mark.parametrize("count", range(9))
def test_no_moment_is_shown_twice(count):
    rng = np.random.default_rng(count)
    moments = [Moment(float(i), float(rng.random()), (0.0,) * 4) for i in range(count)]
    most, least = choose_moments(moments)
    assert len({*most, *least}) == len(most) + len(least) == min(count, 6)
    high = [moments[i].probability for i in most]
    low = [moments[i].probability for i in least]
    assert high == sorted(high, reverse=True)
    assert low == sorted(low)
    assert not low or not high or max(low) <= min(high)


def test_thinning_keeps_the_extremes():
    rng = np.random.default_rng(0)
    moments = [Moment(i / 10, float(rng.random()), (0.0,) * 4) for i in range(5000)]
    kept = thin(moments)
    assert len(kept) <= MAX_MARKS
    assert [m.time for m in kept] == sorted(m.time for m in kept)
    for extreme in (min, max):
        assert extreme(moments, key=lambda m: m.probability) in kept
    assert thin(moments[:MAX_MARKS]) == moments[:MAX_MARKS]


@pytest.mark.parametrize("span", [0.0, 0.05, 0.4, 9.7, 59.0, 61.0, 3725.2, 1e6])
def test_ticks(span):
    times = ticks(span)
    assert times[0] == 0.0
    assert len(times) <= 6
    assert times[-1] <= span + 1e-6


def test_scale_is_honest_about_weak_evidence():
    crops = np.zeros((2, 4, 4, 3), dtype=np.uint8)
    weak = Evidence(crops, np.full((2, 3, 3), 0.05, dtype=np.float32))
    odd = Evidence(crops, np.array([[[np.nan, np.inf], [2.5, -np.inf]]] * 2, dtype=np.float32))
    assert heat_scale(weak) == SCALE_FLOOR
    assert heat_scale(odd) == 2.5
    assert hottest_place(weak.heat[0], SCALE_FLOOR) is None


@pytest.mark.parametrize(
    ("row", "column", "place"),
    [(0, 0, "upper left"), (3, 3, "middle"), (6, 3, "lower middle"), (3, 6, "middle right")],
)
def test_hottest_place(row, column, place):
    heat = np.zeros((7, 7), dtype=np.float32)
    heat[row, column] = 2.0
    assert hottest_place(heat, 2.0) == place


@pytest.mark.parametrize(
    ("sandbox", "line"),
    [
        (None, "the process that asked, not confined"),
        (
            Sandbox(("rlimits", "landlock 6", "seccomp")),
            "a process of its own, confined by rlimits, landlock 6, seccomp",
        ),
        (
            Sandbox(("rlimits",), {"landlock": "<kernel> too old"}),
            "a process of its own, confined by rlimits; no landlock: <kernel> too old",
        ),
        (Sandbox(), "a process of its own, confined by nothing"),
    ],
)
def test_the_sandbox_is_a_line_of_the_file(tmp_path, make, sandbox, line):
    for verdict in (make.verdict(), make.unreadable()):
        page = render(tmp_path, dataclasses.replace(verdict, sandbox=sandbox))
        assert f"Decoded in{line}" in page.text.replace("\n", "")


def test_reasons_of_a_limited_verdict(tmp_path, make):
    verdict = dataclasses.replace(make.verdict(), reasons=(Reason.PERSON_NOT_JUDGED,))
    assert (
        "At least one person in the video could not be judged." in render(tmp_path, verdict).words
    )
