"""The report: sound, safe with hostile names, and true to its facts."""

from __future__ import annotations

import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest

pytest.importorskip("sklearn", reason="needs the extra: pip install 'tellframe[data]'")
pytest.importorskip("matplotlib", reason="needs the extra: pip install 'tellframe[data]'")

from tellframe.bundle import load_bundle
from tellframe.evaluate.calibration import sources_of
from tellframe.evaluate.definitions import FIGURES
from tellframe.evaluate.page import draw_page
from tellframe.evaluate.report import (
    Result,
    Run,
    build_report,
    find_overall,
    read_run,
    write_report,
)
from tellframe.evaluate.summary import summarise
from tellframe.evaluate.words import find_words

HOSTILE = "<script>alert(1)</script>/\u202egpj.\x1b[31m'\"&$x^2$ 日本語"
RUN = Run("model 1", "videos", "test", 3, "digest", 0.65, 0.35, "half of something")


class Elements(HTMLParser):
    """Every element with its attributes; fails where one is not closed."""

    def __init__(self):
        super().__init__()
        self.open, self.found = [], []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def elements_of(page):
    parser = Elements()
    parser.feed(page)
    parser.close()
    assert not parser.open
    return parser.found


@pytest.fixture
def results(rows, few_resamples):
    """Return two models; the names of the first one's world are hostile."""
    first = [
        dataclasses.replace(r, source=HOSTILE, method=HOSTILE, codec=HOSTILE, split=HOSTILE)
        for r in rows(90)
    ]
    second = rows(90, gap=0.5, seed=1)
    names = dict.fromkeys(("model", "source", "split", "calibration"), HOSTILE)
    run = dataclasses.replace(RUN, **names)
    return [Result(run, tuple(first)), Result(RUN, tuple(second))]


def test_the_page_is_sound_and_loads_nothing(results):
    page = draw_page(build_report(results))
    found = elements_of(page)
    assert not re.search(r"https?:|@import|url\((?!#)", page)
    assert "default-src 'none'" in page
    assert not {tag for tag, _ in found} & {"script", "link", "iframe", "object", "img"}
    for tag, attributes in found:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href"):
                assert value.startswith("#"), (tag, value)
    assert page.count("<style") == 1
    ids = [attributes["id"] for _, attributes in found if attributes.get("id")]
    assert len(ids) == len(set(ids))


def test_hostile_names_are_shown_and_do_nothing(results):
    page = draw_page(build_report(results))
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "\u202e" not in page
    assert "\x1b" not in page


def test_every_figure_is_explained(results):
    facts = build_report(results[:1])
    page = draw_page(facts)
    overall = find_overall(facts["results"][0])
    measured = {name for name in overall if f"{name}_95" in overall}
    assert measured == set(FIGURES) == set(facts["definitions"])
    for title, _ in FIGURES.values():
        assert f'<th scope="row">{title}</th>' in page
    for name in measured - {"coverage"}:
        assert f"{overall[name]:.3f}" in page


def test_the_facts_are_json_and_those_of_the_rows(results):
    facts = build_report(results)
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts
    rows = results[0].rows
    assert find_overall(facts["results"][0]) == summarise(rows)
    curves = facts["results"][0]["curves"]
    scored = [r for r in rows if r.logit is not None]
    assert sum(b["n"] for b in curves["reliability"]) == len(scored)
    assert sum(curves["histogram"]["FAKE"]) == sum(r.fake for r in scored)
    for one in curves["reliability"]:
        assert one["low"] <= one["mean_probability"] <= one["high"]
        low, high = one["share_fake_95"] or (0, 1)
        assert low <= high
    for x, y in (("fpr", "tpr"),):
        assert curves["roc"][x] == sorted(curves["roc"][x])
        assert (curves["roc"][x][0], curves["roc"][y][0]) == (0, 0)
        assert (curves["roc"][x][-1], curves["roc"][y][-1]) == (1, 1)
    assert curves["precision_recall"]["recall"] == sorted(curves["precision_recall"]["recall"])


def test_long_curves_are_thinned(rows, few_resamples):
    (result,) = build_report([Result(RUN, tuple(rows(2000)))])["results"]
    assert len(result["curves"]["roc"]["fpr"]) <= 400
    assert len(result["curves"]["precision_recall"]["recall"]) <= 400
    assert result["curves"]["roc"]["fpr"][-1] == 1


@pytest.mark.parametrize(
    "keep",
    [
        lambda r: r.fake,
        lambda r: not r.fake,
        lambda r: r.logit is None,
        lambda r: r.path == "part_0/000.mp4",
    ],
)
def test_a_page_of_one_class_or_of_nothing_scored(rows, few_resamples, keep):
    facts = build_report([Result(Run("m", "s"), tuple(filter(keep, rows())))])
    page = draw_page(facts)
    elements_of(page)
    assert "Only one class has scores" in page
    assert facts["results"][0]["curves"]["roc"] is None


def test_a_page_of_crops_alone(rows, few_resamples):
    crops = tuple(dataclasses.replace(r, still=True, source="crops") for r in rows())
    facts = build_report([Result(RUN, crops)])
    assert list(facts["results"][0]["sets"]) == ["crops"]
    elements_of(draw_page(facts))


@pytest.mark.parametrize(
    ("fitted_on", "unseen"),
    [
        ("half of the groups of videos test: a (60)", False),
        ("half of the groups of videos test: a (60), crops (6) (60)", True),
        ("half of the groups of videos dev: crops (6) (60)", False),
        ("half of the groups of others test: crops (6) (60)", False),
        ("nothing", False),
        ("", False),
    ],
)
def test_the_half_that_calibration_did_not_see_is_told_where_it_saw_the_other(
    rows, few_resamples, fitted_on, unseen
):
    crops = tuple(dataclasses.replace(r, still=True, source="crops (6)") for r in rows())
    run = dataclasses.replace(RUN, calibration=fitted_on)
    (result,) = build_report([Result(run, crops)])["results"]
    name = "crops (6) of the groups that calibration did not see"
    assert list(result["sets"]) == ["crops (6)", *[name] * unseen]


def test_the_shipped_model_has_half_seen_what_the_documents_measure_it_on():
    fitted_on = load_bundle().calibration.fitted_on
    sources = {"deepfacelive-pairs", "dfdc_faces (single crops)", "diff2lip-pairs"}
    assert sources_of(fitted_on, "labels.csv", "dev") == sources
    assert sources_of(fitted_on, "labels.csv", "all") == set()


def test_two_models_are_compared_on_videos_and_on_crops(rows, few_resamples):
    some = rows()
    crops = [dataclasses.replace(r, still=True, source="crops") for r in some]
    facts = build_report([Result(RUN, (*some, *crops)), Result(RUN, (*some, *crops))])
    page = draw_page(facts)
    elements_of(page)
    assert "First against second model, all videos" in page
    assert "First against second model, all single crops" in page
    page = draw_page(build_report([Result(RUN, (*some, *crops)), Result(RUN, tuple(some))]))
    elements_of(page)
    assert "There is no single crop that both have scored." in page


def test_the_words_say_the_numbers(rows, few_resamples):
    words = " ".join(find_words(build_report([Result(RUN, tuple(rows()))])))
    assert "60 videos (20 REAL, 40 FAKE) in 20 groups, split <bdi>test</bdi>." in words
    assert "No score: 3 of 60 (5.0 %) (read, without a face 3)." in words
    assert "calibrated on: <bdi>half of something</bdi>" in words


def test_a_model_that_a_constant_beats_is_told_so(rows, few_resamples):
    bad = [
        r if r.logit is None else dataclasses.replace(r, probability=0.001) for r in rows(gap=0.0)
    ]
    words = " ".join(find_words(build_report([Result(RUN, tuple(bad))])))
    assert "<strong>better than the model</strong>" in words


def test_what_was_measured_is_read_back(results, tmp_path):
    write_report(results, tmp_path)
    assert read_run(tmp_path / "scores.csv") == results[0].run
    assert read_run(tmp_path / "scores_against.csv") == results[1].run
    assert read_run(tmp_path / "other.csv") is None
    facts = json.loads((tmp_path / "report.json").read_text())
    (tmp_path / "report.json").write_text(json.dumps({**facts, "format": 1}))
    assert read_run(tmp_path / "scores.csv") == results[0].run
    for text in ("{", "[]", '{"format": 99}', '{"format": 1, "results": [{"run": {"x": 1}}]}'):
        (tmp_path / "report.json").write_text(text)
        assert read_run(tmp_path / "scores.csv") is None
    (tmp_path / "report.json").unlink()
    assert read_run(tmp_path / "scores.csv") is None
