"""The benchmark of training: what it says, not how fast it is."""

import dataclasses

import pytest

from tellframe.errors import UsageError
from tellframe.train import bench
from tellframe.train.bench import bench_train

pytestmark = pytest.mark.train


def test_images_a_second_of_both(config, faces, monkeypatch):
    monkeypatch.setattr(bench, "load_data", lambda *_: (faces.data(), faces.data()))
    monkeypatch.setattr(bench, "keep_memory", lambda: None)  # changes the whole process
    result = bench_train(config, rounds=2, steps=2, workers=0)
    assert result["images_per_batch"] == 2 * config.batch.num_pairs
    speed = result["images_per_second"]
    assert result["train_to_bare"] == pytest.approx(speed["train"] / speed["bare"], abs=0.05)
    assert min(speed.values()) > 0
    with pytest.raises(UsageError, match="0 rounds"):
        bench_train(dataclasses.replace(config), rounds=0)
