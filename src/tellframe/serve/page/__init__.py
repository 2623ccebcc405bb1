"""The page: static files beside this module, with the report's style sheet, shapes and words."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response

from tellframe.report import words
from tellframe.report.rows import tellframe_version
from tellframe.report.style import style_sheet
from tellframe.report.svg import SYMBOLS
from tellframe.report.words import escaped
from tellframe.serve.page.markdown import render
from tellframe.serve.problems import ProblemError
from tellframe.video import VIDEO_SUFFIXES

FOLDER: Final = Path(__file__).parent
TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
"""Of the files that are served."""
_CARD: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tellframe: model card</title>
<link rel="icon" href="assets/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="assets/report.css">
<link rel="stylesheet" href="assets/page.css">
</head>
<body>
<main class="prose">
<header class="top"><p class="brand">tellframe</p><p><a href="./">Back to the page</a></p></header>
{body}
</main>
</body>
</html>
"""
router = APIRouter(include_in_schema=False)


@router.get("/")
def get_page() -> HTMLResponse:
    """Return the page."""
    return HTMLResponse(_page())


@router.get("/assets/{name}")
def get_asset(name: str) -> Response:
    """Return a script or a style sheet."""
    headers = {"Cache-Control": "no-cache"}
    if name == "report.css":
        return Response(style_sheet(), media_type="text/css", headers=headers)
    path = FOLDER / name
    if path.parent != FOLDER or path.suffix not in TYPES or not path.is_file():
        raise ProblemError("not_found", "No such file.")
    return FileResponse(path, media_type=TYPES[path.suffix], headers=headers)


@router.get("/model-card")
def get_model_card() -> HTMLResponse:
    """Return the model card of the shipped model."""
    packed = FOLDER / "model_card.md"  # in the wheel; beside the source in a checkout
    path = packed if packed.is_file() else FOLDER.parents[3] / "docs" / "model_card.md"
    if not path.is_file():
        raise ProblemError("not_found", "This installation has no model card.")
    return HTMLResponse(_CARD.format(body=render(path.read_text(encoding="utf-8"))))


@cache
def _page() -> str:
    text = (FOLDER / "index.html").read_text(encoding="utf-8")
    limits = "\n".join(f"<li>{escaped(limit)}</li>" for limit in words.LIMITS)
    parts = {
        "SYMBOLS": SYMBOLS,
        "SUFFIXES": ",".join(sorted(VIDEO_SUFFIXES)),
        "LIMITS": limits,
        "VERSION": escaped(tellframe_version()),
    }
    for name, value in parts.items():
        text = text.replace(f"<!--{name}-->", value)
    return text
