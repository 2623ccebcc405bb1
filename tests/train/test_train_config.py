"""The training configuration: what is refused, what is converted, and the files we ship."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from tellframe.cli import run
from tellframe.errors import ConfigError
from tellframe.recipe import Recipe
from tellframe.train.config import (
    AugmentConfig,
    BatchConfig,
    DataConfig,
    OptimConfig,
    TrainConfig,
    config_from_dict,
    load_config,
)

pytestmark = pytest.mark.train

CONFIGS = (Path(__file__).parents[2] / "configs").glob("*.toml")
SHIPPED = sorted(path for path in CONFIGS if not path.stem.startswith("sweep_"))


@pytest.fixture
def toml(tmp_path):
    def write(text=""):
        path = tmp_path / "config.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimm": {}}, "unknown table 'optimm'; did you mean 'optim'?"),
        ({"nam": "x"}, "unknown table 'nam'; did you mean 'name'?"),
        ({"optim": {"learning_rat": 1.0}}, "[optim]: unknown key 'learning_rat'; did you mean"),
        ({"optim": {"warm_up": 3}}, "[optim]: unknown key 'warm_up'; did you mean 'warmup'?"),
        ({"batch": {"stil_pairs": 3}}, "[batch]: unknown key 'stil_pairs'; did you mean 'still_p"),
        ({"recipe": {"cropsize": 64}}, "[recipe]: unknown key 'cropsize'; did you mean 'crop_s"),
        ({"optim": {"steps": 10.0}}, "[optim]: steps = 10.0 must be of type int"),
        ({"optim": {"lr": "fast"}}, "[optim]: lr = 'fast' must be of type float"),
        ({"optim": {"lr": True}}, "[optim]: lr = True must be of type float"),
        ({"optim": {"steps": 0}}, "[optim] steps = 0 is out of range"),
        ({"optim": {"lr": -0.1}}, "[optim] lr = -0.1 is out of range"),
        ({"optim": {"ema": 1.0}}, "[optim] ema = 1.0 is out of range"),
        ({"optim": {"threads": -1}}, "[optim] threads = -1 is out of range"),
        ({"optim": {"validate_every": 0}}, "[optim] validate_every = 0 is out of range"),
        ({"optim": {"checkpoint_every": 0}}, "[optim] checkpoint_every = 0 is out of range"),
        ({"batch": {"balance": "weighted"}}, "is of clips of shards: set clip_pairs"),
        ({"data": {"validation": 7.0}}, "[data] validation = 7.0 is out of range"),
        ({"data": {"validation": -0.5}}, "[data] validation = -0.5 is out of range"),
        ({"data": {"validation": float("nan")}}, "[data] validation = nan is out of range"),
        ({"data": {"frames_per_video": -4}}, "[data] frames_per_video = -4 is out of range"),
        ({"data": {"frames_per_video": 0}}, "[data] frames_per_video = 0 is out of range"),
        ({"batch": {"video_pairs": -1}}, "[batch] video_pairs = -1 is out of range"),
        ({"batch": {"still_pairs": -1}}, "[batch] still_pairs = -1 is out of range"),
        ({"batch": {"part_blends": -3}}, "[batch] part_blends = -3 is out of range"),
        ({"batch": {"self_blends": -1}}, "[batch] self_blends = -1 is out of range"),
        ({"batch": {"clip_pairs": -1}}, "[batch] clip_pairs = -1 is out of range"),
        ({"batch": {"crop_size": 8}}, "[batch] crop_size = 8 is out of range"),
        ({"batch": {"crop_size": 2048}}, "[batch] crop_size = 2048 is out of range"),
        ({"batch": {"favour": -1}}, "[batch] favour = -1.0 is out of range"),
        ({"batch": {"favour": 0}}, "[batch] favour = 0.0 is out of range"),
        ({"batch": {"favour": float("inf")}}, "[batch] favour = inf is out of range"),
        ({"quality": {"crops": 1}}, "[quality] crops = 1: give 0, or 2 and more"),
        ({"quality": {"crops": -1}}, "[quality] crops = -1: give 0, or 2 and more"),
        ({"optim": {"seed": True}}, "[optim]: seed = True must be of type int"),
        (
            {"model": {"frozen": True}},
            "[model] frozen: random weights would stay random; set",
        ),
        ({"model": {"frozen_stages": 2}}, "[model] frozen: random weights would stay random"),
        ({"model": {"stages": -1}}, "[model] stages = -1 is out of range"),
        ({"model": {"frozen_stages": -1}}, "[model] frozen_stages = -1 is out of range"),
        ({"optim": {"precision": "half"}}, "[optim] precision = 'half': did you mean"),
        ({"model": {"backbone": 3}}, "[model]: backbone = 3 must be of type str"),
        ({"data": {"stills": "one.zip"}}, "[data]: stills = 'one.zip' must be of type tuple"),
        ({"data": {"stills": [1]}}, "[data]: stills = 1 must be of type str"),
        ({"augment": {"jpg": 0.5}}, "[augment]: unknown key 'jpg'; did you mean 'jpeg'?"),
        ({"augment": {"blur": 1.5}}, "[augment]: blur = 1.5 must lie between 0 and 1"),
        ({"augment": {"h264": -0.1}}, "[augment]: h264 = -0.1 must lie between 0 and 1"),
        ({"augment": {"flip": float("nan")}}, "[augment]: flip = nan must lie between 0 and 1"),
        ({"augment": {"self_blend": 0, "swap_blend": 0}}, "one of self_blend, swap_blend, p"),
        ({"augment": {"part_blend": 0}}, "[augment]: one of part_blend, mixup must be above 0"),
        ({"recipe": {"crop_size": 8}}, "crop_size = 8 is out of range"),
        ({"optim": 3}, "[optim] must be a table, not 3"),
        ({"recipe": [{"margin": 0.1}]}, "[recipe] must be a table, not [{'margin': 0.1}]"),
    ],
)
def test_bad_values_are_errors_that_say_what_to_do(values, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        config_from_dict(values)


@pytest.mark.parametrize("weights", [{"pretrained": "timm"}, {"start": "runs/lite0"}])
def test_a_backbone_with_weights_may_be_frozen(weights):
    assert config_from_dict({"model": {"frozen": True, **weights}}).model.frozen


def test_empty_tables_give_the_defaults():
    assert config_from_dict({}) == TrainConfig()
    assert config_from_dict({"optim": {}, "recipe": {}}) == TrainConfig()


def test_an_integer_stands_for_a_float_and_a_list_for_a_tuple():
    config = config_from_dict(
        {"optim": {"lr": 1}, "data": {"stills": ["a"]}, "recipe": {"mean": [0, 1, 0]}}
    )
    assert (config.optim.lr, type(config.optim.lr)) == (1.0, float)
    assert config.data.stills == ("a",)
    assert config.recipe.mean == (0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("override", "table", "key", "value"),
    [
        ("optim.lr=1e-3", "optim", "lr", 1e-3),
        ("optim.lr=1", "optim", "lr", 1.0),
        (" optim.steps =5", "optim", "steps", 5),
        ("model.backbone=resnet18", "model", "backbone", "resnet18"),
        ("model.backbone='resnet18'", "model", "backbone", "resnet18"),
        ("model.pretrained=", "model", "pretrained", ""),
        ("data.labels=../a b/labels.csv", "data", "labels", "../a b/labels.csv"),
        ('data.stills=["a.zip", "b.zip"]', "data", "stills", ("a.zip", "b.zip")),
        ("augment.h264=0.3", "augment", "h264", 0.3),
        ("augment.jpeg=1", "augment", "jpeg", 1.0),
        ("recipe.keep_all=false", "recipe", "keep_all", False),
    ],
)
def test_overrides_take_toml_values_and_bare_words(toml, override, table, key, value):
    config = load_config(toml("[optim]\nlr = 0.5\nsteps = 7\n"), [override])
    assert getattr(getattr(config, table), key) == value
    untouched = {"lr": 0.5, "steps": 7}
    untouched.pop(key, None)
    assert {k: getattr(config.optim, k) for k in untouched} == untouched


def test_the_last_override_holds_and_the_name_is_a_bare_word(toml):
    config = load_config(toml(), ["optim.lr=1.0", "name=second", "optim.lr=2.0"])
    assert (config.name, config.optim.lr) == ("second", 2.0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["optim.lr"], "expected table.key=value"),
        (["optim.rl=1"], "did you mean 'lr'"),
        (["optm.lr=1"], "did you mean 'optim'"),
        (["optim.lr=fast"], "must be of type float"),
        (["model=small"], "[model] must be a table"),
    ],
)
def test_bad_overrides_are_errors(toml, overrides, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(toml(), overrides)


def test_files_that_cannot_be_read_are_errors_that_name_them(toml, tmp_path):
    with pytest.raises(ConfigError, match=r"absent\.toml"):
        load_config(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match=r"config\.toml: cannot be read as TOML"):
        load_config(toml("[optim\n"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_configurations_load(path):
    config = load_config(path)
    assert config.name == path.stem
    assert config.batch.num_pairs > 0
    assert config_from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_something_is_shipped():
    assert SHIPPED


def test_json_round_trip_keeps_every_field():
    config = TrainConfig(
        name="other",
        recipe=Recipe(margin=0.3, mean=(0.4, 0.5, 0.6), crop_size=64),
        data=DataConfig(labels="a.csv", stills=("b.zip", "c.zip"), validation=0.5),
        batch=BatchConfig(still_pairs=1),
        augment=AugmentConfig(h264=0.25, mixup=0.5),
        optim=OptimConfig(lr=1e-3, ema=0.9),
    )
    again = config_from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    assert again.recipe.digest == config.recipe.digest
    assert again != dataclasses.replace(config, name="unnamed")


def test_pairs_of_a_batch_are_counted():
    batch = BatchConfig(video_pairs=1, still_pairs=2, part_blends=3, self_blends=4)
    assert batch.num_pairs == 10


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["train", "empty.toml", "-o"], "-o"),
        (["train", "empty.toml", "--show-augment"], "--show-augment"),
        (["sweep", "empty.toml", "space.toml", "-o"], "-o"),
        (["export", "run", "-o"], "-o"),
    ],
)
def test_verbs_that_train_know_their_output_before_the_work(
    command, option, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    Path("empty.toml").touch()
    Path("space.toml").write_text("[optim.lr]\nlow = 1e-4\nhigh = 1e-3\n")
    assert run([*command, "empty.toml/a.html"]) == 2
    err = capsys.readouterr().err
    assert f"{option} empty.toml/a.html: {tmp_path}/empty.toml is no folder; name another" in err
