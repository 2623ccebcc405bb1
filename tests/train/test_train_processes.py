"""Training by several processes: the same steps as by one, and no way to hang.

Started by torchrun on CPUs, with gloo. On GPUs, with nccl, nothing here has been run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tellframe.data.build import Workplace, build
from tellframe.data.manifest import Video
from tellframe.data.plan import plan_build
from tellframe.errors import ConfigError
from tellframe.recipe import Recipe
from tellframe.train import loop, processes
from tellframe.train.checkpoint import read_checkpoint
from tellframe.train.config import load_config
from tellframe.train.loop import train
from tellframe.train.norms import batch_norm
from tellframe.video import list_frames, read_frames

pytestmark = pytest.mark.train

TOLERANCE = 1e-4
"""Largest relative difference of a loss, and of a tensor by its norm, to that of one process."""
# One process has a pair in order, the other none; gradients are never clipped, so that their scale
# shows; and batch norm is in the backbone and in the head.
CONFIG = """
name = "shared"
[recipe]
crop_size = 64
[model]
backbone = "test_efficientnet"
head = "dfdcnet"
hidden = 16
layers = 1
dropout = 0.0
[batch]
frames = 4
clip_pairs = 3
part_blends = 1
self_blends = 0
balance = "weighted"
video_pairs = 0
still_pairs = 0
[optim]
lr = 1e-4
steps = 6
warmup = 2
threads = 1
clip = 100.0
validate_every = 3
checkpoint_every = 3
"""


SCENES = (("train", 2, 82), ("train", 12, 60), ("held", 4, 82))
"""Split, number of frames, and row of the picture from which the fake is darkened."""


@pytest.fixture(scope="module")
def config_file(samples, make_video, tmp_path_factory) -> Path:
    """A configuration with its shards: clips of different lengths, and one scene held out."""
    folder = tmp_path_factory.mktemp("shared")
    path = samples / "real.mp4"
    frames = [f.image[::2, ::2] for f in read_frames(path, list_frames(path), range(12))]

    def write(name: str, count: int, row: int, strength: int) -> str:
        def draw(number: int, *_size: int):
            picture = frames[number].copy()
            picture[row : row + 16, 105:140] //= strength
            return picture

        options = {"crf": "10"}
        return str(make_video(folder / name, count, size=(240, 240), draw=draw, options=options))

    videos = []
    for number, (split, count, row) in enumerate(SCENES):
        group, real = f"group{number}", f"real{number}"
        videos += [
            Video(
                *(real, write(f"{real}.mp4", count, row, 1)),
                **{"label": "REAL", "group": group, "split": split},
            ),
            Video(
                *(f"fake{number}", write(f"fake{number}.mp4", count, row, 3)),
                **{"label": "FAKE", "original": real, "group": group, "split": split},
            ),
        ]
    wide = Recipe(margin=0.7, crop_size=160, num_frames=6, crop_format="png")
    build(plan_build(videos, wide), Workplace(str(folder / "faces")))
    data = f'[data]\nshards = ["{folder}/faces"]\nvalidation_split = "held"\n'
    (folder / "shared.toml").write_text(CONFIG + data)
    return folder / "shared.toml"


def torchrun(*words: object, count: int = 2) -> subprocess.CompletedProcess[str]:
    """Run a module or script in several processes of this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(count), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def train_by_two(config_file: Path, folder: Path, *words: str) -> None:
    given = ("-o", folder, *words)
    done = torchrun("-m", "tellframe", "train", config_file, *given)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("trained:") == 1  # the first process alone says so
    shown = ["6"] if "--resume" in words else ["1", "3", "6"]  # the first one, and validations
    assert re.findall(r"^step (\d)/6", done.stderr, re.MULTILINE) == shown


@pytest.fixture(scope="module")
def by_two(config_file, tmp_path_factory) -> Path:
    """The folder of a run by two processes; never written to by a test."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    train_by_two(config_file, folder)
    return folder


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses_of(folder: Path) -> dict[float, tuple[float, ...]]:
    return {r["step"]: (r["loss"], r["pair"], r["map"]) for r in log_of(folder) if "loss" in r}


def joint(tensors: dict[str, torch.Tensor], start: str, end: str = "") -> torch.Tensor:
    """Join all tensors of such a name into one vector."""
    chosen = [k for k in sorted(tensors) if k.startswith(start) and k.endswith(end)]
    return torch.cat([tensors[k].double().flatten() for k in chosen])


def test_two_processes_take_the_steps_of_one(config_file, by_two, tmp_path, monkeypatch):
    """In losses, gradients, weights and batch statistics, and in what is measured at the end.

    Tensors are compared together: where the gradient of a bias is nothing but rounding, as before
    another batch norm, Adam makes whole steps of it, in a direction of its own in every process.
    """
    monkeypatch.setattr(loop, "keep_memory", lambda: None)  # changes the whole process
    train(load_config(config_file), tmp_path, workers=0)
    for step, expected in losses_of(tmp_path).items():
        assert losses_of(by_two)[step] == pytest.approx(expected, rel=TOLERANCE), step
    assert [set(row) for row in log_of(by_two)] == [set(row) for row in log_of(tmp_path)]
    two, one = (log_of(folder)[-1]["log_loss"] for folder in (by_two, tmp_path))
    assert two == pytest.approx(one, rel=TOLERANCE)
    (meta, tensors), (other, expected) = (read_checkpoint(f) for f in (by_two, tmp_path))
    assert meta["step"] == other["step"] == 6
    assert tensors.keys() == expected.keys()
    for name in (
        ("model.",),
        ("mean.",),
        ("optimizer.", ".exp_avg"),
        ("optimizer.", ".exp_avg_sq"),
    ):
        one = joint(expected, *name)
        assert (joint(tensors, *name) - one).norm() < TOLERANCE * one.norm(), name


STOP = """
import sys
from pathlib import Path
from tellframe.train.config import load_config
from tellframe.train.loop import train

def stop(step, measured):
    raise InterruptedError(f"after step {step}, with {sorted(measured)}")

train(load_config(sys.argv[1]), Path(sys.argv[2]), workers=0, observe=stop)
"""


def test_a_run_goes_on_where_two_processes_were_stopped(config_file, by_two, tmp_path, monkeypatch):
    """By two to the same bits, or by one; what is raised after a validation ends both."""
    script = tmp_path / "stop.py"
    script.write_text(STOP)
    done = torchrun(script, config_file, tmp_path / "run")
    assert done.returncode != 0
    assert "InterruptedError: after step 2, with ['clip_auc'" in done.stderr
    assert read_checkpoint(tmp_path / "run")[0]["step"] == 3
    shutil.copytree(tmp_path / "run", tmp_path / "alone")
    train_by_two(config_file, tmp_path / "run", "--resume")
    (meta, tensors), (other, expected) = (read_checkpoint(f) for f in (tmp_path / "run", by_two))
    assert meta == other
    assert all(torch.equal(tensors[k], expected[k]) for k in expected)
    assert losses_of(tmp_path / "run") == losses_of(by_two)
    monkeypatch.setattr(loop, "keep_memory", lambda: None)
    train(load_config(config_file), tmp_path / "alone", resume=True, workers=0)
    for step, losses in losses_of(tmp_path / "alone").items():
        assert losses == pytest.approx(losses_of(by_two)[step], rel=TOLERANCE), step


HANG = """
import sys, time
from datetime import timedelta
from tellframe.train import processes

processes.PATIENCE = timedelta(seconds=3)
with processes.joined():
    if processes.rank() == 1:
        time.sleep(600) if sys.argv[1] == "hang" else sys.exit(1)
    processes.by_first(print, "alone")
    processes.in_turn(print, "never")
"""


@pytest.mark.parametrize("way", ["hang", "end"])
def test_nobody_waits_for_ever(tmp_path, way):
    """Neither for a process that hangs nor for one that has ended; without torchrun to help."""
    script = tmp_path / "hang.py"
    script.write_text(HANG)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    started = [
        subprocess.Popen(
            [sys.executable, script, way],
            env={
                **os.environ,
                **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"},
                **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        _, errors = started[0].communicate(timeout=120)
    finally:
        for process in started:
            process.kill()
            process.communicate()
    assert started[0].returncode == 1
    assert "WorkerError: process 0: another process has ended, or has not answered" in errors


PARTS = """
import sys
import torch
from torch.nn.functional import batch_norm
from tellframe.errors import ConfigError
from tellframe.train import processes
from tellframe.train.norms import shared_norms

def norm(values, state, weight, bias):
    return batch_norm(values, *state, weight, bias, True, 0.3, 1e-5)

with processes.joined():
    rank, count = processes.rank(), processes.count()
    assert count == 3
    assert processes.total(torch.tensor([rank, 1])).tolist() == [3, 3]
    assert processes.by_first(lambda: f"of {rank}") == "of 0"
    processes.require_same({"seed": 1})
    try:
        processes.require_same({"seed": 1, "step": rank // 2})
    except ConfigError as error:
        assert "process 2 differs from process 0 in its step" in str(error)
    else:
        raise AssertionError

    # Batch norm over 5, 2 and 1 values a channel and place, far from zero, as over all eight.
    torch.manual_seed(0)
    whole = (1000 + torch.randn(8, 4, 3, 3, dtype=torch.double)).requires_grad_()
    slope = torch.randn_like(whole)
    weight, bias = (torch.randn(4, dtype=torch.double).requires_grad_() for _ in range(2))
    state = torch.zeros(4, dtype=torch.double), torch.ones(4, dtype=torch.double)
    expected = norm(whole, state, weight, bias)
    (expected * slope).sum().backward()
    own = slice(*((0, 5), (5, 7), (7, 8))[rank])
    part = whole.detach()[own].requires_grad_()
    layer = torch.nn.ParameterList([t.detach().clone() for t in (weight, bias)])
    shared = torch.zeros(4, dtype=torch.double), torch.ones(4, dtype=torch.double)
    with shared_norms():
        normalised = norm(part, shared, *layer)
        judged = batch_norm(part, *shared, *layer, False)
    (normalised * slope[own]).sum().backward()
    processes.sum_gradients(layer)
    pairs = [(normalised, expected[own]), (part.grad, whole.grad[own])]
    pairs += list(zip(shared, state)) + [(layer[0].grad, weight.grad), (layer[1].grad, bias.grad)]
    pairs += [(judged, batch_norm(part, *state, weight, bias, False))]
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    processes.in_turn(print, f"process {rank} ran", flush=True)
"""


def test_the_parts_by_three_processes(tmp_path):
    script = tmp_path / "parts.py"
    script.write_text(PARTS)
    done = torchrun(script, count=3)
    assert done.returncode == 0, done.stderr
    # A line and its end are two writes, between which another process may write.
    ran = re.findall(r"process \d ran", done.stdout)
    assert ran[0] == "process 0 ran"
    assert sorted(ran) == [f"process {rank} ran" for rank in range(3)]


@pytest.mark.parametrize("shape", [(5, 3), (4, 3, 2, 5), (2, 3, 7)])
@pytest.mark.parametrize("plain", [False, True])
def test_batch_norm_is_that_of_torch(shape, plain):
    torch.manual_seed(0)
    values = torch.randn(shape, dtype=torch.double, requires_grad=True)
    weight, bias = (torch.randn(3, dtype=torch.double, requires_grad=True) for _ in range(2))
    given = (values,) if plain else (values, weight, bias)

    def norm(function, *given):
        return function(given[0], None, None, *given[1:], training=True)

    expected = norm(torch.nn.functional.batch_norm, *given)
    torch.testing.assert_close(norm(batch_norm, *given), expected)
    assert torch.autograd.gradcheck(lambda *given: norm(batch_norm, *given), given)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_batch_norm_in_half_precision_measures_in_single(dtype):
    values = (300 + torch.randn(64, 3, 4, 4)).to(dtype)
    state, expected = ((torch.zeros(3), torch.ones(3)) for _ in range(2))
    normalised = batch_norm(values, *state, training=True)
    torch.nn.functional.batch_norm(values.float(), *expected, training=True)
    assert normalised.dtype == dtype
    torch.testing.assert_close(state, expected)


# What is refused.


def test_pairs_that_cannot_be_shared_are_refused(config_file, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 4)
    monkeypatch.setattr(processes, "rank", lambda: 1)
    assert list(processes.own_places(12)) == [1, 5, 9]
    monkeypatch.setattr(loop, "keep_memory", lambda: None)
    monkeypatch.setattr(loop, "load_data", lambda *_: pytest.fail("loads first"))
    config = load_config(config_file, ["batch.clip_pairs=4"])
    with pytest.raises(ConfigError, match=r"\[batch\]: its 5 pairs cannot be shared evenly by 4"):
        train(config, tmp_path)


def test_a_process_that_torchrun_did_not_start_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    for name in ("LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    expected = "but not LOCAL_RANK, MASTER_ADDR, MASTER_PORT: start .* with torchrun"
    with pytest.raises(ConfigError, match=expected), processes.joined():
        pass


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert processes.device() == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(ConfigError, match="more than 2 processes on a machine with 2 GPUs"):
        processes.device()
