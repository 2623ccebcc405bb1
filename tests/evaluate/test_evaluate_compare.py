"""Two models on the same videos."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("sklearn", reason="needs the extra: pip install 'tellframe[data]'")

from tellframe.errors import DataError
from tellframe.evaluate.compare import _mcnemar, compare, compare_sets, require_common
from tellframe.evaluate.report import Result, Run, build_report, find_overall, write_report
from tellframe.evaluate.rows import read_scores
from tellframe.evaluate.words import say_comparison


def test_a_model_is_no_better_than_itself(rows):
    some = rows()
    found = compare(some, some)
    assert found["n"] == sum(r.logit is not None for r in some)
    assert found["n_not_scored"] == len(some) - found["n"]
    for figure in found["figures"].values():
        assert figure["difference"] == 0.0
        assert figure["difference_95"] == [0.0, 0.0]
        assert figure["p"] == 1.0
    assert found["mcnemar"] == {"only_first_right": 0, "only_second_right": 0, "p": 1.0}


def test_a_better_model_is_found_on_either_side(rows):
    good, bad = rows(120, gap=4.0), rows(120, gap=0.0, seed=1)
    found, turned = compare(good, bad)["figures"], compare(bad, good)["figures"]
    for name, sign in (("auc", 1), ("accuracy", 1), ("log_loss", -1), ("balanced_log_loss", -1)):
        low, high = found[name]["difference_95"]
        assert low * sign > 0
        assert high * sign > 0
        assert found[name]["p"] == pytest.approx(2 / 1001, abs=1e-6)
        assert turned[name]["difference"] == pytest.approx(-found[name]["difference"])
        assert turned[name]["difference_95"] == pytest.approx([-high, -low])


def test_what_is_hard_for_both_cancels(rows):
    # The same scores but for a little: each model's own interval is wide, the difference is not.
    first = rows(120, gap=1.0)
    second = [
        r if r.logit is None else dataclasses.replace(r, logit=r.logit + 0.02 * (n % 2))
        for n, r in enumerate(first)
    ]
    low, high = compare(first, second)["figures"]["auc"]["difference_95"]
    assert high - low < 0.02


def test_only_videos_of_both_count(rows):
    some = rows()
    found = compare(some[:40], some[20:])
    assert (found["n_first_only"], found["n_second_only"]) == (20, 20)
    with pytest.raises(DataError, match="no scored video in common"):
        compare(some[:20], some[20:])
    lie = [dataclasses.replace(some[0], fake=not some[0].fake), *some[1:]]
    with pytest.raises(DataError, match="different labels"):
        compare(some, lie)


def test_what_can_be_compared_is_known_by_the_names(rows):
    some = rows()
    unscored = [dataclasses.replace(r, logit=None, probability=None) for r in some]
    require_common(unscored, some[59:])
    require_common(unscored + crops_of(some), crops_of(some))
    with pytest.raises(DataError, match="no video in common: the first model's are named as"):
        require_common(unscored, crops_of(some))


def test_scores_that_cannot_be_compared_are_written_all_the_same(rows, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra: pip install 'tellframe[data]'")
    some = rows()
    unscored = [dataclasses.replace(r, logit=None, probability=None) for r in some]
    results = [Result(Run(name, "s"), (*side,)) for name, side in (("a", some), ("b", unscored))]
    with pytest.raises(DataError, match="no scored video in common"):
        write_report(results, tmp_path)
    assert [read_scores(tmp_path / f"scores{end}.csv")[1] for end in ("", "_against")] == ["a", "b"]


def crops_of(rows, source="crops"):
    return [dataclasses.replace(r, path=f"{r.path}.png", source=source, still=True) for r in rows]


def test_videos_and_single_crops_are_never_pooled(rows, few_resamples):
    # On the crops the first is better, on the videos the second: pooled it would be one figure.
    good, bad = rows(gap=4.0), rows(gap=0.0, seed=1)
    crops = (crops_of(side) for side in (rows(240, gap=4.0), rows(240, gap=0.0, seed=1)))
    first, second = ([*some, *more] for some, more in zip((bad, good), crops, strict=True))
    found = compare_sets(first, second)
    assert list(found) == ["all videos", "all single crops"]
    assert found["all videos"] == compare(bad, good)
    assert found["all single crops"]["figures"]["auc"]["difference"] > 0.2
    assert found["all videos"]["figures"]["auc"]["difference"] < -0.2
    facts = build_report([Result(Run("a", "s"), (*first,)), Result(Run("b", "s"), (*second,))])
    for result, side in zip(facts["results"], ("first", "second"), strict=True):
        compared = facts["comparison"]["all videos"]["figures"]["auc"][side]
        assert compared == find_overall(result)["auc"]
    words = [say_comparison(name, one) for name, one in found.items()]
    assert "On the 57 videos that both" in words[0]
    assert "On the 228 single crops that both" in words[1]


def test_what_only_one_has_scored_is_compared_with_nothing(rows, few_resamples):
    some = rows()
    found = compare_sets([*some, *crops_of(some)], some)
    assert found["all videos"]["n"] == 57
    assert found["all single crops"] is None
    assert "no single crop that both" in say_comparison("all single crops", None)
    with pytest.raises(DataError, match="no scored video in common"):
        compare_sets(some, crops_of(some))


def test_crops_of_several_sources_are_one_set_that_the_page_begins_with(rows, few_resamples):
    first, second = (
        (*crops_of(side[:30], "a"), *crops_of(side[30:], "b")) for side in (rows(), rows(seed=1))
    )
    facts = build_report([Result(Run("1", "s"), first), Result(Run("2", "s"), second)])
    (name, found), *others = facts["comparison"].items()
    assert (name, others) == ("all single crops", [])
    assert found["figures"]["auc"]["first"] == find_overall(facts["results"][0])["auc"]


def test_groups_are_drawn_not_videos(row):
    # In one group only the first is right, in the other only the second: 0 on the whole, and by
    # group a resample has twice the one, twice the other, or both.
    reals = [(row(False, sign, g, path=f"{g}r{n}"), row(False, -sign, g, path=f"{g}r{n}"))
             for g, sign in (("a", -1.0), ("b", 1.0)) for n in range(50)]  # fmt: skip
    found = compare(*map(list, zip(*reals, strict=True)))
    assert found["figures"]["accuracy"]["difference_95"] == [-1.0, 1.0]


def test_one_class_is_compared_by_its_loss_alone(rows):
    fakes = [r for r in rows() if r.fake]
    found = compare(fakes, fakes)["figures"]
    assert found["auc"] == {
        **dict.fromkeys(("first", "second", "difference", "difference_95", "p")),
    }
    assert found["log_loss"]["difference"] == 0.0


@settings(max_examples=50)
@given(st.integers(0, 200), st.integers(0, 200))
def test_mcnemar_is_the_exact_binomial_test(first_only, second_only):
    from scipy.stats import binomtest

    one = np.array([True] * first_only + [False] * second_only + [True, False], bool)
    other = np.array([False] * first_only + [True] * second_only + [True, False], bool)
    n = first_only + second_only
    expected = binomtest(first_only, n).pvalue if n else 1.0
    assert _mcnemar(one, other)["p"] == pytest.approx(expected, abs=1e-6)
    assert math.isfinite(_mcnemar(one, other)["p"])
