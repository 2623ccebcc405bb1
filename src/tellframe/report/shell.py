"""The frame of every page: complete in itself, it runs no script and loads nothing."""

from __future__ import annotations

from collections.abc import Iterable

from tellframe.report.style import style_sheet
from tellframe.report.svg import SYMBOLS
from tellframe.report.words import escaped


def page_shell(title: str, body: Iterable[str], rules: str = "") -> str:
    """Return a page as HTML.

    Args:
        title: plain text.
        body: parts of HTML.
        rules: CSS of this kind of page, beside that of all pages.
    """
    content = "\n".join(body)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{escaped(title)}</title>
<style>
{style_sheet()}{rules}</style>
</head>
<body>
{SYMBOLS}
<main>
{content}
</main>
</body>
</html>
"""
