"""The draft of the model card: filled from the bundle, with no figure of its own."""

from __future__ import annotations

import dataclasses
import re

import pytest

from tellframe.bundle import load_bundle
from tellframe.scoring import Calibration
from tellframe.train.card import MARK, TODO, model_card, write_card

pytestmark = pytest.mark.train


@pytest.fixture
def bundle():
    return load_bundle("frame_lite0")


def section(card, title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL)[1]


def test_the_card_holds_what_the_bundle_knows(bundle):
    card = model_card(bundle)
    assert card.startswith(f"{MARK}\n# Model card: {bundle.name}, version {bundle.version}\n")
    config = bundle.training["config"]
    for value in (config["model"]["backbone"], config["data"]["labels"], bundle.sha256):
        assert value in card
    training = section(card, "How it was trained")
    assert f"- steps: {bundle.training['steps']}\n" in training
    assert f"- seed: {config['optim']['seed']}\n" in training
    assert f'"weight_decay": {config["optim"]["weight_decay"]}' in training
    assert "It is no proof" in section(card, "What it is for, and what not")
    assert f"FAKE from {bundle.decision.fake_from:g}" in section(card, "Known limits")
    assert bundle.licence in section(card, "Licence")


def test_metrics_are_those_of_the_bundle_or_none(bundle):
    metrics = {"all": {"n": 9, "auc": 0.875}, "some": {"auc": None, "auc_95": [0.5, 1.0]}}
    text = section(model_card(dataclasses.replace(bundle, metrics=metrics)), "How well it does")
    assert "| measured on | n | auc | auc_95 |\n| --- | --- | --- | --- |\n" in text
    assert "| all | 9 | 0.875 | - |\n| some | - | - | 0.5, 1.0 |\n" in text
    blank = dataclasses.replace(bundle, metrics={}, calibration=Calibration())
    text = section(model_card(blank), "How well it does")
    assert "Not measured yet" in text
    assert "It is not calibrated" in text
    assert not re.search(r"\d", text)


def test_terms_that_nobody_stated_are_asked_for(bundle):
    text = section(model_card(bundle), "Training data, and its terms")
    assert TODO in text
    config = bundle.training["config"]
    stated = {**config, "data": {**config["data"], "terms": "for research only"}}
    bundle = dataclasses.replace(bundle, training={**bundle.training, "config": stated})
    text = section(model_card(bundle), "Training data, and its terms")
    assert "| `terms` | `for research only` |" in text
    assert TODO not in text


def test_a_bundle_that_knows_little_has_a_card(bundle):
    card = model_card(dataclasses.replace(bundle, training={}, licence=""))
    assert TODO in section(card, "Licence")
    assert TODO in section(card, "Training data, and its terms")


@pytest.mark.parametrize("head", ["mean", "attention", "gru", "dfdcnet"])
def test_the_method_is_named(bundle, head):
    config = bundle.training["config"]
    config = {**config, "model": {**config["model"], "head": head}}
    text = model_card(dataclasses.replace(bundle, training={"config": config}))
    words = {"mean": "The mean of", "attention": "attention", "gru": "A GRU", "dfdcnet": "An LSTM"}
    assert words[head] in section(text, "What it is")


def test_a_card_taken_over_by_a_person_is_kept(bundle, tmp_path):
    assert write_card(bundle, tmp_path)
    path = tmp_path / "model_card.md"
    first = path.read_text(encoding="utf-8")
    assert write_card(dataclasses.replace(bundle, version="9"), tmp_path)
    assert path.read_text(encoding="utf-8") != first
    path.write_text("# My own card\n", encoding="utf-8")
    assert not write_card(bundle, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["model_card.md"]
    assert path.read_text(encoding="utf-8") == "# My own card\n"
