"""An evaluation as one HTML page that runs no script and loads nothing from anywhere.

Every number on it comes from the facts of `tellframe.evaluate.report.build_report`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from tellframe.data.eda_cards import OUTCOME_TEXT
from tellframe.evaluate.definitions import FIGURES
from tellframe.evaluate.plots import draw_curves, draw_reliability, draw_scores
from tellframe.evaluate.report import find_overall
from tellframe.evaluate.words import (
    STRATA,
    find_words,
    number,
    range_of,
    rate,
    say_comparison,
    words_on_calls,
)
from tellframe.report.drawing import DRAWING_RULES
from tellframe.report.shell import page_shell
from tellframe.report.words import escaped
from tellframe.types import Label

Facts = Mapping[str, Any]

_COLUMNS: Final = (*("auc", "log_loss", "balanced_log_loss", "recall", "fpr", "inconclusive_rate"),)
"""Figures of the tables of sets and strata."""
_HEADS: Final = {
    "auc": "ROC-AUC",
    "log_loss": "Log loss",
    "balanced_log_loss": "Balanced loss",
    "recall": "Recall",
    "fpr": "False alarms",
    "inconclusive_rate": "Inconclusive",
}
_LEGEND: Final = ("first model", "second model")
_WITH: Final = {1: ", with 95 % intervals", 2: ""}
_RULES: Final = """
.glance{grid-template-columns:repeat(4,1fr)}
.figures td,.figures th,.sets td,.sets th{font-size:14.5px}
.figures td.n,.figures th.n{padding-right:18px}
.sets td.n,.sets th.n{padding-right:12px}
.sets td.n:last-child,.sets th.n:last-child{padding-right:0}
.sets thead th{white-space:normal;vertical-align:bottom}
.sets th[scope=row]{overflow-wrap:anywhere;min-width:8em}
.range{color:var(--soft);font-size:12.5px}
.sets .range{display:block}
.figures .means{color:var(--soft);font-size:13.5px;max-width:30em}
.pairs>.card{display:block}
.pairs .note{margin:0 0 10px;font-size:14px}
.matrix td,.matrix thead th{text-align:right}
.matrix th{font-weight:400;color:var(--soft)}
.matrix thead td{border:0}
.matrix .right{font-weight:700}
@media screen and (max-width:760px){
.glance{grid-template-columns:1fr 1fr}
.stack td.n{padding-right:0}
.stack .means{grid-column:1/-1}
.stack.sets tr{grid-template-columns:minmax(0,1fr) minmax(0,1fr)}
.stack.figures tr{grid-template-columns:minmax(0,1fr)}
.stack td.n{white-space:normal}
}
"""


def draw_page(facts: Facts) -> str:
    """Return the page as HTML.

    Args:
        facts: from `tellframe.evaluate.report.build_report`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    results = facts["results"]
    run = results[0]["run"]
    title = f"Evaluation on {run['source']}"
    body = [
        '<header class="top"><p class="brand">tellframe</p><p>How well a model does</p></header>',
        f"<h1>{escaped(title)}</h1>",
        f'<p class="lead">{_models(results)}</p>',
        _glance(find_overall(results[0])),
        _list(find_words(facts), "found"),
        *_comparisons(facts),
        _part("Curves", _cards(results), "plots"),
        _part("Calls", _calls(results), "pairs"),
        _all_figures(results),
        *_tables(results[0], ", first model" if len(results) > 1 else ""),
        _coverage(results[0]),
        _part("How it was measured", [_list(map(escaped, facts["conventions"]), "limits")], "card"),
        f'<footer class="foot">Made by tellframe {escaped(facts["tellframe"])}, report format '
        f"{facts['format']}. The same in numbers: report.json and scores.csv beside this page. It "
        "is complete in itself: it runs no script and loads nothing.</footer>",
    ]
    return page_shell(title, filter(None, body), DRAWING_RULES + _RULES)


def _models(results: Sequence[Facts]) -> str:
    """Return who was measured; the second one's videos, where they come from elsewhere."""
    names = [f"<bdi>{escaped(r['run']['model'])}</bdi>" for r in results]
    if len(results) == 1:
        return names[0]
    first, second = (r["run"]["source"] for r in results)
    where = "" if first == second else f", on <bdi>{escaped(second)}</bdi>"
    return f"First model: {names[0]}. Second model: {names[1]}{where}."


def _glance(overall: Facts) -> str:
    items = {
        "Videos": f"{overall['n']:,}",
        "REAL / FAKE": f"{overall['n'] - overall['n_fake']:,} / {overall['n_fake']:,}",
        "ROC-AUC": number(overall["auc"]),
        "Log loss": number(overall["log_loss"]),
        "Best constant": number(overall["log_loss_prior"]),
        "Precision of FAKE": number(overall["precision"]),
        "Recall of FAKE": number(overall["recall"]),
        "Scored": rate(overall["coverage"]),
    }
    cells = "".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in items.items())
    return f'<dl class="glance">{cells}</dl>'


def _list(items: Iterable[str], kind: str) -> str:
    return f'<ul class="{kind}">{"".join(f"<li>{item}</li>" for item in items)}</ul>'


def _part(title: str, content: Iterable[str], kind: str) -> str:
    inner = "\n".join(filter(None, content))
    if not inner:
        return ""
    return f'<section class="part"><h2>{title}</h2>\n<div class="{kind}">{inner}</div></section>'


def _table(kind: str, heads: Sequence[str], rows: Iterable[str], note: str = "") -> str:
    """Return a table in a card; the first column is of text, the others of numbers."""
    cells = "".join(
        f'<th scope="col"{"" if i == 0 else " class=n"}>{head}</th>' for i, head in enumerate(heads)
    )
    caption = f'<p class="note">{note}</p>' if note else ""
    return (
        f'<div class="card"><table class="stack {kind}"><thead><tr>{cells}</tr></thead><tbody>'
        f"{''.join(rows)}</tbody></table>{caption}</div>"
    )


def _cell(head: str, figures: Facts, name: str) -> str:
    return (
        f'<td class="n" data-name="{head}">{number(figures[name])} '
        f'<span class="range">{range_of(figures[f"{name}_95"])}</span></td>'
    )


def _cards(results: Sequence[Facts]) -> Iterator[str]:
    """Yield the plots with their captions."""
    names = _LEGEND[: len(results)]
    curves = [r["curves"] for r in results]
    overall = find_overall(results[0])
    if all(c["roc"] for c in curves):
        yield _card(
            "ROC",
            draw_curves(
                [(n, c["roc"]["fpr"], c["roc"]["tpr"]) for n, c in zip(names, curves, strict=True)],
                "ROC curve",
                axes=("share of reals above the threshold", "share of fakes above it"),
                constant=[(0, 0), (1, 1)],
            ),
            "Every threshold on the score. Dotted: a model that knows nothing.",
        )
        c = overall["confusion"]
        share = (c["tp"] + c["fn"]) / overall["n_scored"]
        yield _card(
            "Precision and recall",
            draw_curves(
                [
                    (n, c["precision_recall"]["recall"], c["precision_recall"]["precision"])
                    for n, c in zip(names, curves, strict=True)
                ],
                "Precision over recall",
                axes=("recall of FAKE", "precision of FAKE"),
                constant=[(0, share), (1, share)],
            ),
            "Every threshold on the score. Dotted: the share of fakes, which is the precision of a "
            "model that knows nothing.",
        )
    if all(c["reliability"] for c in curves):
        yield _card(
            "Reliability",
            draw_reliability(
                [(n, c["reliability"]) for n, c in zip(names, curves, strict=True)], "Reliability"
            ),
            f"Share of fakes among videos of about the same P(fake){_WITH[len(results)]}. Dotted: "
            "a model whose probabilities hold. Below it, P(fake) is too high.",
        )
    for name, result in zip(names, results, strict=True):
        if result["curves"]["reliability"]:
            fake_from = result["run"]["fake_from"]
            title = "P(fake) by class" + (f", {name}" if len(names) > 1 else "")
            yield _card(
                title,
                draw_scores(result["curves"]["histogram"], title, fake_from),
                "The further apart the two, the better.",
            )


def _card(title: str, drawing: str, caption: str) -> str:
    return (
        f'<figure class="card"><h3>{escaped(title)}</h3>{drawing}'
        f"<figcaption>{escaped(caption)}</figcaption></figure>"
    )


def _calls(results: Sequence[Facts]) -> Iterator[str]:
    """Yield the confusion matrix at 0.5, and the verdicts by class."""
    for legend, result in zip(_LEGEND, results, strict=False):
        overall = find_overall(result)
        c = overall["confusion"]
        name = f", {legend}" if len(results) > 1 else ""
        yield (
            f'<div class="card"><h3>Called at 0.5{name}</h3>'
            '<p class="note">Videos that have a score; FAKE from P(fake) = 0.5 on.</p>'
            + _matrix(
                ("called REAL", "called FAKE"),
                {"REAL": (c["tn"], c["fp"]), "FAKE": (c["fn"], c["tp"])},
            )
            + "</div>"
        )
        counts = overall["verdicts"]
        order = (Label.REAL, Label.INCONCLUSIVE, Label.FAKE)
        yield (
            f'<div class="card"><h3>Verdicts{name}</h3>'
            f'<p class="note">{escaped(words_on_calls(result["run"]))}</p>'
            + _matrix(
                [label.lower() if label is Label.INCONCLUSIVE else label for label in order],
                {kind: [counts[f"{kind.lower()}_{x}"] for x in order] for kind in ("REAL", "FAKE")},
            )
            + "</div>"
        )


def _matrix(heads: Sequence[str], rows: Mapping[str, Sequence[int]]) -> str:
    """Return counts by class and call; the right calls stand out."""
    cells = "".join(f'<th scope="col">{h}</th>' for h in heads)
    lines = []
    for kind, counts in rows.items():
        right = 0 if kind == "REAL" else len(counts) - 1
        numbers = "".join(
            f"<td{' class=right' if i == right else ''}>{n:,}</td>" for i, n in enumerate(counts)
        )
        lines.append(f'<tr><th scope="row">{kind} videos</th>{numbers}</tr>')
    return (
        f'<table class="matrix"><thead><tr><td></td>{cells}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _all_figures(results: Sequence[Facts]) -> str:
    """Return every figure of all videos with its meaning."""
    overall = [find_overall(r) for r in results]
    heads = ["Figure", "Value", "Meaning"]
    if len(results) > 1:
        heads[1:2] = ["First", "Second"]
    rows = []
    for name, (title, meaning) in FIGURES.items():
        cells = "".join(
            _cell(head, figures, name) for head, figures in zip(heads[1:], overall, strict=False)
        )
        rows.append(
            f'<tr><th scope="row">{title}</th>{cells}<td class="means">{escaped(meaning)}</td></tr>'
        )
    table = _table("figures", heads, rows).replace(
        '<th scope="col" class=n>Meaning</th>', '<th scope="col">Meaning</th>'
    )
    return f'<section class="part"><h2>All figures</h2>{table}</section>'


def _tables(result: Facts, whose: str) -> Iterator[str]:
    """Yield the tables of sets and strata."""
    yield _strata_table(f"Sets{whose}", [{"name": k, **v} for k, v in result["sets"].items()], "")
    for kind, strata in result["strata"].items():
        if kind != "source":  # the sets have those, and the single crops
            title, note = STRATA[kind]
            yield _strata_table(f"{title}{whose}", strata, note)


def _strata_table(title: str, strata: Sequence[Facts], note: str) -> str:
    heads = ["", "Videos (fake)", *(_HEADS[name] for name in _COLUMNS)]
    rows = [
        f'<tr><th scope="row"><bdi>{escaped(s["name"])}</bdi></th>'
        f'<td class="n" data-name="Videos (fake)">{s["n"]:,} ({s["n_fake"]:,})</td>'
        + "".join(_cell(_HEADS[name], s, name) for name in _COLUMNS)
        + "</tr>"
        for s in strata
    ]
    return f'<section class="part"><h2>{title}</h2>{_table("sets", heads, rows, note)}</section>'


def _coverage(result: Facts) -> str:
    """Return what became of the videos."""
    overall = find_overall(result)
    rows = [
        f'<tr><th scope="row">{OUTCOME_TEXT.get(row["name"], escaped(row["name"]))}</th>'
        f'<td class="n" data-name="REAL">{row["REAL"]:,}</td>'
        f'<td class="n" data-name="FAKE">{row["FAKE"]:,}</td></tr>'
        for row in result["outcomes"]
    ]
    unlabelled = result["run"]["unlabelled"]
    missing = overall["n"] - overall["n_scored"]
    note = "All videos have a score."
    if missing:
        note = (
            f"{missing:,} of {overall['n']:,} videos have no score. With each of them at P(fake) = "
            f"0.5 the log loss is {number(overall['log_loss_all'])}, against "
            f"{number(overall['log_loss'])} of the others."
        )
    if unlabelled:
        note += f" {unlabelled:,} more were left out because nobody says what they are."
    table = _table("sets", ["Outcome", "REAL", "FAKE"], rows, note)
    return f'<section class="part"><h2>What could be judged</h2>{table}</section>'


def _comparisons(facts: Facts) -> Iterator[str]:
    """Yield the differences of two models, on videos and on single crops."""
    for name, found in (facts["comparison"] or {}).items():
        words = escaped(say_comparison(name, found))
        table = _differences(found, words) if found else f'<p class="card note">{words}</p>'
        yield f'<section class="part"><h2>First against second model, {name}</h2>{table}</section>'


def _differences(found: Facts, words: str) -> str:
    heads = ["Figure", "First", "Second", "First − second", "p"]
    rows = [
        f'<tr><th scope="row">{FIGURES[name][0]}</th>'
        f'<td class="n" data-name="First">{number(d["first"])}</td>'
        f'<td class="n" data-name="Second">{number(d["second"])}</td>'
        f'<td class="n" data-name="First − second">{number(d["difference"], sign=True)} '
        f'<span class="range">{range_of(d["difference_95"], sign=True)}</span></td>'
        f'<td class="n" data-name="p">{number(d["p"])}</td></tr>'
        for name, d in found["figures"].items()
    ]
    return _table("figures", heads, rows, words)
