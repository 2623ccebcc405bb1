"""What the page says in sentences, and how it writes numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from tellframe.data.eda_cards import OUTCOME_TEXT
from tellframe.evaluate.compare import LOWER_IS_BETTER
from tellframe.evaluate.report import find_overall
from tellframe.evaluate.strata import MOST_FACES
from tellframe.evaluate.summary import CROPS
from tellframe.report.words import escaped, number_of

Facts = Mapping[str, Any]

STRATA: Final = {
    "people": (
        "By number of people",
        f"People found in the video; {MOST_FACES} and more are one stratum. The most suspicious of "
        "them decides, so that more people mean more chances to be wrong about a real video.",
    ),
    "brightness": (
        "By brightness",
        "Mean luma, 0 to 255, of the face crops of the person that decides.",
    ),
    "face_size": (
        "By size of the face",
        "Median longer side of the face box in pixels of the video, of the person that decides.",
    ),
    "codec": ("By codec", "The codec of the file as it is, not of what it was made from."),
    "method": (
        "By method",
        "The fakes of one method with all reals of their source: a method has no reals.",
    ),
    "part": ("By part", "Part of the data set: a zip or a folder."),
    "crops_brightness": ("Single crops by brightness", "Mean luma, 0 to 255, of the crop."),
}
"""Title and remark of every kind of stratum."""


def number(value: float | None, *, sign: bool = False) -> str:
    """Return a figure with three decimals, a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:+.3f}" if sign else f"{value:.3f}"


def range_of(bounds: Sequence[float] | None, *, sign: bool = False) -> str:
    """Return an interval; nothing where there is none."""
    if not bounds:
        return ""
    low, high = (number(b, sign=sign) for b in bounds)
    return f"{low} to {high}"


def rate(share: float | None) -> str:
    """Return a share in percent."""
    return "-" if share is None else f"{100 * share:.1f} %"


def find_words(facts: Facts) -> Iterator[str]:
    """Yield what a person has to know first, a sentence or two each, as HTML."""
    result = facts["results"][0]
    overall, run = find_overall(result), result["run"]
    reals, fakes, verdicts = (
        overall["n"] - overall["n_fake"],
        overall["n_fake"],
        overall["verdicts"],
    )
    where = f", split <bdi>{escaped(run['split'])}</bdi>" if run["split"] else ""
    yield (
        f"{number_of(overall['n'], 'video')} ({reals:,} REAL, {fakes:,} FAKE) in "
        f"{number_of(overall['groups'], 'group')}{where}."
    )
    if overall["auc"] is None:
        yield "<strong>Only one class has scores</strong>: nothing says how well it is told apart."
    else:
        yield (
            f"A fake scores above a real with chance {number(overall['auc'])}"
            f"{_bracket(overall['auc_95'])}; 0.5 is a coin."
        )
        yield _words_on_loss(overall)
    if reals and fakes:
        yield (
            f"Verdict FAKE for {_of(verdicts['real_FAKE'], reals)} reals, a false alarm; verdict "
            f"REAL for {_of(verdicts['fake_REAL'], fakes)} fakes, a miss; inconclusive for "
            f"{_of(verdicts['real_INCONCLUSIVE'] + verdicts['fake_INCONCLUSIVE'], overall['n'])}."
        )
    yield _words_on_coverage(overall, result["outcomes"])
    if run["calibration"]:
        yield (
            "The probabilities were calibrated on: "
            f"<bdi>{escaped(run['calibration'])}</bdi>. Where videos here were among them, what "
            "hangs on probabilities is better than it will be elsewhere."
        )


def _words_on_loss(overall: Facts) -> str:
    loss, prior = overall["log_loss"], overall["log_loss_prior"]
    text = (
        f"The log loss is {number(loss)}{_bracket(overall['log_loss_95'])}; the best constant, the "
        f"share of fakes, reaches {number(prior)}"
    )
    return f"{text}." if loss < prior else f"{text}: <strong>better than the model</strong>."


def _words_on_coverage(overall: Facts, outcomes: Sequence[Facts]) -> str:
    lost = [
        f"{OUTCOME_TEXT.get(row['name'], escaped(row['name']))} {row['REAL'] + row['FAKE']:,}"
        for row in outcomes
        if row["name"] not in ("ok", "unknown")
    ]
    if overall["n_scored"] == overall["n"]:
        return "All videos have a score."
    missing = _of(overall["n"] - overall["n_scored"], overall["n"])
    return f"No score: {missing}" + (f" ({', '.join(lost)})." if lost else ".")


def _of(count: int, total: int) -> str:
    return f"{count:,} of {total:,} ({rate(count / total)})"


def _bracket(bounds: Sequence[float] | None) -> str:
    return f" ({range_of(bounds)})" if bounds else ""


def words_on_calls(run: Facts) -> str:
    """Say when a verdict is given."""
    text = "All videos, by the bundle's limits"
    if run["fake_from"] is not None:
        text += f": FAKE from P(fake) = {run['fake_from']:g} on, REAL up to {run['real_to']:g}"
    return (
        f"{text}; also inconclusive where the face is too small, is seen too briefly, is not "
        "found, or is too badly degraded for a model that tells."
    )


def say_comparison(name: str, found: Facts | None) -> str:
    """Say how two models were compared on a set, and what McNemar's test says."""
    noun = "single crop" if name == CROPS else "video"
    if found is None:
        return f"There is no {noun} that both have scored."
    test = found["mcnemar"]
    lower = " and ".join(name.replace("_", " ") for name in LOWER_IS_BETTER)
    left = [
        text
        for count, text in (
            (found["n_first_only"], "only the first was given"),
            (found["n_second_only"], "only the second was given"),
            (found["n_not_scored"], "at least one has no score for"),
        )
        if count
    ]
    numbers = [found[k] for k in ("n_first_only", "n_second_only", "n_not_scored") if found[k]]
    apart = "; ".join(f"{n:,} that {t}" for n, t in zip(numbers, left, strict=True))
    return (
        f"On the {number_of(found['n'], noun)} that both have scored"
        f"{f' (left out: {apart})' if apart else ''}. Of {lower}, lower is better. Interval and p "
        "are from a paired bootstrap: groups are drawn once for both models; p is two-sided. Calls "
        f"at 0.5: only the first is right on {test['only_first_right']:,}, only the second on "
        f"{test['only_second_right']:,} (McNemar's exact test, which takes {noun}s for "
        f"independent: p = {test['p']:.3g})."
    )
