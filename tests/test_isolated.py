"""Videos in a confined worker: what one file does to it costs that file alone."""

from __future__ import annotations

import ctypes
import dataclasses
import os
import pickle
import socket
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tellframe
from tellframe import isolated
from tellframe.channel import WorkerEnd
from tellframe.errors import (
    BundleError,
    DecodeError,
    LimitError,
    MediaError,
    MediaNotFoundError,
    NoVideoError,
    OutOfMemoryError,
)
from tellframe.isolated import IsolatedExtractor
from tellframe.isolation import Limits
from tellframe.recipe import Recipe
from tellframe.types import Label, Reason
from tellframe.worker import RETURNED

extract = isolated._extract


class Taken:
    """What a worker that was taken over could say: unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def say(data: bytes) -> None:
    """Write to the parent, past all code of ours."""
    for descriptor in range(3, 64):
        try:
            is_socket = stat.S_ISSOCK(os.fstat(descriptor).st_mode)
        except OSError:
            continue
        if is_socket:
            os.write(descriptor, data)


def misbehave(tools, path, descriptor):
    """Do what the name of the file says, and otherwise what is right; runs in the worker."""
    content = os.pread(descriptor, 200, 0)
    match Path(path).stem:
        case "segfault":
            ctypes.string_at(0)
        case "hang":
            time.sleep(600)
        case "eat":
            kept = []
            while True:
                kept.append(bytearray(2**24))
        case "network":
            raise OutOfMemoryError("memory does not suffice to run rnet.onnx on {}")
        case "exit":
            os._exit(0)
        case "abort":
            os.abort()
        case "bug":
            raise KeyError("\x1b[31m" + "x" * 10_000)
        case "unpicklable":
            return object()
        case "pickle":
            data = pickle.dumps(Taken(content.decode()))
            say(struct.pack("<Q?", len(data) + 1, False) + RETURNED + data)
        case "endless":
            say(struct.pack("<Q?", 2**60, False))
        case "half":
            say(struct.pack("<Q?", 1000, False) + RETURNED)
            time.sleep(600)
        case "noise":
            say(os.urandom(4000))
        case "liar":
            found = extract(tools, path, descriptor)
            return dataclasses.replace(
                found,
                clips=tuple(
                    dataclasses.replace(c, pixels=np.zeros((5, 9, 9, 3), np.uint8))
                    for c in found.clips
                ),
            )
        case "stranger":
            found = extract(tools, path, descriptor)
            return dataclasses.replace(
                found, media=dataclasses.replace(found.media, path="/another")
            )
        case "miscount":
            found = extract(tools, path, descriptor)
            return dataclasses.replace(found, media=dataclasses.replace(found.media, num_asked=99))
    return extract(tools, path, descriptor)


KINDS = {
    "segfault": (DecodeError, "ended the process"),
    "hang": (LimitError, "longer than 4 s.*--timeout"),
    "eat": (LimitError, "more memory than 1 GiB.*--memory"),
    "network": (LimitError, "network.mp4: needs more memory than 1 GiB; allow more with --memory"),
    "exit": (DecodeError, "ended the process"),
    "abort": (DecodeError, "ended the process"),
    "bug": (MediaError, "made tellframe itself fail.*KeyError"),
    "unpicklable": (MediaError, "made tellframe itself fail"),
    "pickle": (DecodeError, "ended the process"),
    "endless": (DecodeError, "ended the process"),
    "half": (LimitError, "longer than"),
    "noise": (DecodeError, "ended the process"),
    "liar": (DecodeError, "answers nonsense"),
    "stranger": (DecodeError, "answers nonsense"),
    "miscount": (DecodeError, "answers nonsense"),
}
LIMITS = Limits(seconds=4, memory=2**30, attempts=1)


@pytest.fixture(scope="module")
def misbehaving():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isolated, "_extract", misbehave)
        detector = tellframe.load(num_frames=3, threads=1, limits=LIMITS)
    yield detector
    detector.close()


def link(folder: Path, name: str, target: Path) -> Path:
    path = folder / f"{name}.mp4"
    path.hardlink_to(target) if target.stat().st_dev == folder.stat().st_dev else (
        path.write_bytes(target.read_bytes())
    )
    return path


def test_fifty_files_of_which_four_end_the_worker(misbehaving, samples, tmp_path):
    sources = [samples / "real.mp4", samples / "two_people.mp4"]
    paths = [link(tmp_path, f"{n:02d}", sources[n % 2]) for n in range(50)]
    bad = {11: "segfault", 23: "hang", 30: "eat", 31: "exit"}
    for number, name in bad.items():
        paths[number] = link(tmp_path, name, sources[0])
    alone = tellframe.load(num_frames=3, threads=1, isolate=False)
    expected = [alone.detect(source) for source in sources]
    verdicts = list(misbehaving.detect_many(paths))
    assert [v.video for v in verdicts] == [str(p) for p in paths]
    for number, verdict in enumerate(verdicts):
        if number in bad:
            kind, _ = KINDS[bad[number]]
            assert verdict.reasons == (Reason.UNREADABLE,)
            assert verdict.label is Label.INCONCLUSIVE
            assert verdict.error.startswith(str(paths[number]))
            assert issubclass(kind, MediaError)
        else:
            right = expected[number % 2]
            assert verdict.people == right.people
            assert (verdict.label, verdict.probability) == (right.label, right.probability)
            assert verdict.media.sha256 == right.media.sha256
            assert verdict.sandbox.holds


@pytest.mark.parametrize("name", KINDS)
def test_what_a_worker_does_is_an_error_of_that_file(name, misbehaving, samples, tmp_path):
    path = link(tmp_path, name, samples / "real.mp4")
    made = tmp_path / "made"
    if name == "pickle":
        path.unlink()
        path.write_text(str(made))
    kind, text = KINDS[name]
    with pytest.raises(kind, match=text) as caught:
        misbehaving.detect(path)
    assert type(caught.value) is kind
    assert len(str(caught.value)) < 5000
    assert not made.exists()
    assert misbehaving.detect(samples / "real.mp4").people


def test_files_are_opened_here(misbehaving, samples, tmp_path):
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    for name in ("folder", "pipe", "device", "loop", "missing", "x" * 300):
        with pytest.raises(MediaNotFoundError, match=name):
            misbehaving.detect(tmp_path / f"{name}.mp4")
    with pytest.raises(MediaNotFoundError):
        misbehaving.detect("a\0b.mp4")
    odd = tmp_path / "\udcff\x1b[31m=cmd.mp4"
    odd.write_bytes((samples / "real.mp4").read_bytes())
    verdict = misbehaving.detect(odd)
    assert verdict.media.path == verdict.video == str(odd)


def test_errors_of_the_decoder_keep_their_kind(misbehaving, tmp_path):
    for content, kind in ((b"", DecodeError), (b"no video" * 99, DecodeError)):
        (tmp_path / "a.mp4").write_bytes(content)
        with pytest.raises(kind, match=r"a\.mp4"):
            misbehaving.detect(tmp_path / "a.mp4")
    assert issubclass(NoVideoError, MediaError)


def test_the_file_that_was_checked_is_the_one_that_is_read(samples, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes((samples / "real.mp4").read_bytes())
    with isolated._open(str(path)) as descriptor:
        path.unlink()
        path.symlink_to("/etc/passwd")
        assert os.fstat(descriptor).st_size == (samples / "real.mp4").stat().st_size


def test_a_worker_that_cannot_load_its_models_says_so(monkeypatch, samples):
    monkeypatch.setattr(isolated, "_load_tools", fail_to_load)
    extractor = IsolatedExtractor(Recipe(), threads=1)
    try:
        with pytest.raises(BundleError, match="no weights"):
            extractor.extract(samples / "real.mp4")
    finally:
        extractor.close()


def fail_to_load(recipe, threads, file_limits):
    raise BundleError("no weights")


def test_a_detector_that_is_set_works_in_this_process(samples):
    detector = tellframe.load(num_frames=3, threads=1)
    with_worker = detector.detect(samples / "real.mp4")
    assert with_worker.sandbox
    detector.face_detector = detector.face_detector
    assert detector.sandbox is None
    assert detector.detect(samples / "real.mp4").people == with_worker.people


AT_THE_TOP = """
import os, sys
import tellframe
detector = tellframe.load(num_frames=4, threads=1)
print(detector.detect(sys.argv[1]).label)
print(len(os.listdir("/proc/self/fd")))
"""


def test_a_script_needs_no_guard_and_leaves_nothing(samples, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(AT_THE_TOP)
    done = subprocess.run(
        [sys.executable, "-X", "dev", script, samples / "real.mp4"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.split()[0] == "REAL"
    assert (done.returncode, done.stderr) == (0, "")


def test_a_worker_killed_between_two_files_costs_neither(misbehaving, samples):
    expected = misbehaving.detect(samples / "real.mp4")
    for _ in range(3):
        (worker,) = misbehaving._apart._crew._workers
        worker.process.kill()
        again = misbehaving.detect(samples / "real.mp4")
        assert (again.label, again.people) == (expected.label, expected.people)
        assert misbehaving._apart._crew._workers != {worker}


def test_descriptors_do_not_grow(misbehaving, samples, tmp_path):
    missing = tmp_path / "missing.mp4"
    misbehaving.detect(samples / "real.mp4")
    before = sorted(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for _ in range(5):
        misbehaving.detect(samples / "real.mp4")
        with pytest.raises(MediaNotFoundError):
            misbehaving.detect(missing)
    assert sorted(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_the_worker_end_ends_with_the_parent():
    ours, theirs = socket.socketpair()
    end = WorkerEnd(theirs.detach())
    ours.close()
    with pytest.raises(EOFError):
        end.receive()
    end._socket.close()
