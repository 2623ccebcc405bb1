"""YuNet's graph is taken from where the environment says."""

from __future__ import annotations

import json
import shutil

import pytest

from tellframe.cli import run
from tellframe.errors import BundleError
from tellframe.faces import load_face_detector, yunet
from tellframe.recipe import Recipe

RECIPE = Recipe(face_detector="yunet")


@pytest.fixture(autouse=True)
def _no_download(monkeypatch, tmp_path):
    monkeypatch.setattr(yunet, "fetch", lambda *_, **__: pytest.fail("fetches the graph"))
    monkeypatch.setenv("TELLFRAME_CACHE", str(tmp_path / "cache"))


def test_the_graph_that_the_variable_names_is_taken(
    monkeypatch, tmp_path, yunet_graph, portrait, samples, capsys
):
    path = shutil.copy(yunet_graph, tmp_path / "mine.onnx")
    monkeypatch.setenv("TELLFRAME_YUNET", str(path))
    assert len(load_face_detector(RECIPE).detect(portrait)) == 1
    # In the worker process, too, which gets little of the environment.
    options = ["--face-detector", "yunet", "--frames", "3", "--threads", "1", "--jsonl"]
    assert run(["detect", str(samples / "real.mp4"), *options]) == 0
    assert json.loads(capsys.readouterr().out)["people"]


def test_a_graph_that_the_variable_names_and_is_not_there(monkeypatch, tmp_path, samples, capsys):
    monkeypatch.setenv("TELLFRAME_YUNET", str(tmp_path / "mine.onnx"))
    with pytest.raises(BundleError, match=r"mine\.onnx"):
        load_face_detector(RECIPE)
    assert run(["detect", str(samples / "real.mp4"), "--face-detector", "yunet"]) == 2
    assert "mine.onnx" in capsys.readouterr().err
