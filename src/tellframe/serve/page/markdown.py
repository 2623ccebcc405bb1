"""The part of Markdown that the model card is written in, as HTML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from tellframe.report.words import escaped

_INLINE: Final = (
    (re.compile(r"`([^`]+)`"), r"<code>\1</code>"),
    (re.compile(r"\*\*(.+?)\*\*"), r"<b>\1</b>"),
    (re.compile(r"\[([^\]]+)\]\(\s*(https://[^)\s]+)\s*\)"), r'<a href="\2">\1</a>'),
    # Links to other files of the repository lead nowhere here.
    (re.compile(r"\[([^\]]+)\]\([^)]*\)"), r"\1"),
)


def render(text: str) -> str:
    """Return Markdown as HTML: headings, paragraphs, lists and tables; code, bold and links.

    Whatever else there is stays text, and nothing in it becomes markup.
    """
    return "\n".join(_block(lines) for lines in _blocks(text))


def _blocks(text: str) -> Iterator[list[str]]:
    """Yield what blank lines separate; a heading is a block of its own."""
    lines: list[str] = []
    for line in [*text.splitlines(), ""]:
        if lines and (not line.strip() or line.startswith("#")):
            yield lines
            lines = []
        if line.startswith("#"):
            yield [line]
        elif line.strip():
            lines.append(line)


def _block(lines: list[str]) -> str:
    first = lines[0]
    if first.startswith("#"):
        marks, _, title = first.partition(" ")
        return f"<h{len(marks)}>{_inline(title)}</h{len(marks)}>"
    if first.startswith("|"):
        return _table(lines)
    if first.startswith("- "):
        items = re.split(r"^- ", "\n".join(lines), flags=re.MULTILINE)[1:]
        listed = "".join(f"<li>{_inline(item)}</li>" for item in items)
        return f"<ul>{listed}</ul>"
    return f"<p>{_inline(' '.join(lines))}</p>"


def _table(lines: list[str]) -> str:
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]
    head, body = rows[0], [row for row in rows[1:] if any(set(cell) - set("-: ") for cell in row)]
    titles = "".join(f'<th scope="col">{_inline(cell)}</th>' for cell in head)
    listed = "".join(
        f'<tr><th scope="row">{_inline(row[0])}</th>'
        + "".join(f"<td>{_inline(cell)}</td>" for cell in row[1:])
        + "</tr>"
        for row in body
    )
    # It can be wider than a phone, and must be scrolled without a mouse too.
    return (
        '<div class="scroll" role="region" aria-label="Table" tabindex="0"><table>'
        f"<thead><tr>{titles}</tr></thead><tbody>{listed}</tbody></table></div>"
    )


def _inline(text: str) -> str:
    found = escaped(" ".join(text.split()))
    for pattern, markup in _INLINE:
        found = pattern.sub(markup, found)
    return found
