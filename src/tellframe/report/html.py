"""The verdicts as a self-contained HTML page, or as a folder of pages with an index.

A page runs no script, loads nothing from anywhere, and says so in its content security policy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path, PurePath

from tellframe.report import words
from tellframe.report.files import PathLike, as_verdicts, open_replacing
from tellframe.report.page import article, limits
from tellframe.report.rows import tellframe_version
from tellframe.report.shell import page_shell
from tellframe.report.svg import icon
from tellframe.report.words import escaped, number_of, percent
from tellframe.types import SCHEMA_VERSION, Label, Verdict


def write_html(verdicts: Verdict | Iterable[Verdict], path: PathLike) -> Path:
    """Write the report of one video or of several.

    Where `path` is a folder, ends with a slash or has no suffix, every video gets a page of its
    own, and `index.html` links to them. Otherwise all videos are written into one page. Files are
    replaced only when they are complete. Verdicts are taken one by one when a folder is written.

    Args:
        verdicts: One verdict, or any iterable of them. Crops and heat maps are shown for people
            that have `evidence`.
        path: The HTML file, or the folder, which is made where it is missing.

    Returns:
        Path of the page to open: the file, or the index of the folder.

    Raises:
        ValueError: evidence does not hold one crop and one map for every moment.
        OSError: a file cannot be written.
    """
    target = Path(path)
    if _is_folder(path):
        return _write_folder(as_verdicts(verdicts), target)
    rows = list(as_verdicts(verdicts))
    page = single_page(rows[0]) if len(rows) == 1 else _joint_page(rows)
    _write(target, page)
    return target


def _is_folder(path: PathLike) -> bool:
    text = os.fspath(path)
    if os.path.lexists(text):
        return Path(text).is_dir()
    return text.endswith(("/", os.sep)) or not PurePath(text).suffix


def _write_folder(verdicts: Iterable[Verdict], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[tuple[Verdict, str]] = []
    for number, verdict in enumerate(verdicts, 1):
        name = page_name(verdict.video, number)
        _write(folder / name, single_page(verdict, back='<a href="index.html">All videos</a>'))
        entries.append((_without_evidence(verdict), name))
    body = [_head_line(""), _overview(entries), limits(2), _foot()]
    _write(folder / "index.html", page_shell(_overview_title(len(entries)), body))
    return folder / "index.html"


def single_page(verdict: Verdict, back: str = "") -> str:
    """Return the page of one video, with a link back to all where `back` holds it as HTML."""
    title = f"{words.title(verdict)}: {words.file_name(verdict)}"
    return page_shell(title, [_head_line(back), article(verdict, 1, "video"), limits(2), _foot()])


def _joint_page(verdicts: list[Verdict]) -> str:
    entries = [(verdict, f"#video-{i}") for i, verdict in enumerate(verdicts, 1)]
    articles = (article(verdict, 2, f"video-{i}") for i, verdict in enumerate(verdicts, 1))
    body = [_head_line(""), _overview(entries), *articles, limits(2), _foot()]
    return page_shell(_overview_title(len(entries)), body)


def _head_line(back: str) -> str:
    return f"""<header class="top"><p class="brand">tellframe</p>
<p>{back or "Deepfake analysis of the faces in a video"}</p></header>"""


def _foot() -> str:
    return (
        f'<footer class="foot">Made by tellframe {escaped(tellframe_version())}, schema '
        f"{SCHEMA_VERSION}. This page is complete in itself: it runs no script and loads nothing."
        "</footer>"
    )


def _overview_title(count: int) -> str:
    return f"Report on {number_of(count, 'video')}"


def _overview(entries: list[tuple[Verdict, str]]) -> str:
    """Return the table of all videos; every entry is a verdict and where its report is found."""
    rows = "\n".join(_overview_row(verdict, link) for verdict, link in entries)
    return f"""<h1>{_overview_title(len(entries))}</h1>
<ul class="tally">{"".join(_tally(verdict for verdict, _ in entries))}</ul>
<div class="card"><table class="stack videos">
<thead><tr><th scope="col">Video</th><th scope="col">Verdict</th>\
<th scope="col" class="n">P(fake)</th><th scope="col">People</th><th scope="col">Remarks</th></tr>
</thead>
<tbody>
{rows}
</tbody></table></div>"""


def _overview_row(verdict: Verdict, link: str) -> str:
    remarks = words.reason_texts(verdict.reasons, verdict.model)
    if verdict.error is not None:
        remarks = [verdict.error]
    return f"""<tr class="{verdict.label}">\
<th scope="row"><a href="{link}"><bdi>{escaped(words.file_name(verdict))}</bdi></a></th>\
<td><span class="badge">{icon(verdict.label)} {verdict.label}</span></td>\
<td class="n" data-name="P(fake)">{escaped(percent(verdict.probability))}</td>\
<td class="p">{number_of(len(verdict.people), "person", "people")}</td>\
<td class="wide">{escaped("; ".join(remarks))}</td></tr>"""


def _tally(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """Yield one list item for every label that occurs, unreadable files apart."""
    counts = dict.fromkeys(Label, 0)
    unreadable = 0
    for verdict in verdicts:
        if words.is_unreadable(verdict):
            unreadable += 1
        else:
            counts[verdict.label] += 1
    for label in (Label.FAKE, Label.INCONCLUSIVE, Label.REAL):
        if counts[label]:
            yield (
                f'<li class="{label}"><span class="badge">{icon(label)} {counts[label]:,} '
                f"{label}</span></li>"
            )
    if unreadable:
        yield f"<li>{number_of(unreadable, 'file')} could not be read</li>"


def page_name(video: str, number: int) -> str:
    """Return the name of a video's page in a folder.

    It is unique by its number, from 1, and safe on every system and in a link.
    """
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", PurePath(video).stem).strip("-_")
    return f"{number:04d}-{stem[:60] or 'video'}.html"


def _without_evidence(verdict: Verdict) -> Verdict:
    """Return the verdict without its pictures, so that a long batch does not keep them all."""
    return replace(verdict, people=tuple(replace(p, evidence=None) for p in verdict.people))


def _write(path: Path, page: str) -> None:
    with open_replacing(path) as stream:
        stream.write(page)
