from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tellframe import report

ROOM = Path(report.__file__).parent


def test_all_is_sorted_and_complete():
    assert report.__all__ == sorted(report.__all__)
    assert all(callable(getattr(report, name)) for name in report.__all__)


@pytest.mark.parametrize("path", sorted(ROOM.glob("*.py")), ids=lambda path: path.name)
def test_files_and_functions_stay_short(path):
    source = path.read_text("utf-8")
    assert len(source.splitlines()) <= 300
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 50, node.name


def test_import_is_cheap():
    code = (
        "import sys, tellframe; before = set(sys.modules); import tellframe.report; "
        "print(sorted({'PIL', 'torch', 'onnxruntime', 'av'} & (set(sys.modules) - before)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
