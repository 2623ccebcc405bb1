"""Face autoencoders: they learn to paint faces, and what they paint becomes a pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tellframe.errors import ConfigError
from tellframe.train.autoencoder import (
    Autoencoder,
    align,
    align_matrices,
    all_makers,
    load_autoencoders,
    repaint,
    save,
    train_autoencoder,
)

pytestmark = pytest.mark.train

SIZE = 32


@pytest.fixture(scope="module")
def trained(tmp_path_factory, faces):
    """A folder with the snapshots of a short training on drawn faces."""
    folder = tmp_path_factory.mktemp("coders")
    torch.manual_seed(0)
    train_autoencoder(
        Autoencoder(SIZE, 8, 6),
        lambda rng: faces.sample(int(rng.integers(12)), 1),
        folder,
        steps=150,
        snapshots=(5, 150),
        pool=24,
        report=lambda _: None,
    )
    return folder


def painting_error(coder, faces):
    """Mean difference in grey levels between faces that were not trained on and their painting."""
    samples = [faces.sample(seed, 1) for seed in range(100, 106)]
    cut = np.concatenate([align(s.real, align_matrices(s.landmarks, SIZE), SIZE) for s in samples])
    return np.abs(coder.paint(cut).astype(int) - cut).mean()


def test_it_learns_to_paint_faces(trained, faces):
    late, early = load_autoencoders([str(trained)])  # by name: _150 before _5
    assert painting_error(late, faces) < 0.5 * painting_error(early, faces)


def test_snapshots_are_named_by_size_and_step_and_read_back(trained, tmp_path):
    names = [p.name for p in sorted(trained.iterdir())]
    assert names == ["autoencoder_32_6_150.safetensors", "autoencoder_32_6_5.safetensors"]
    (coder,) = load_autoencoders([str(trained / names[0])])
    assert (coder.size, coder.width, coder.bottleneck, coder.training) == (SIZE, 8, 6, False)
    save(coder, tmp_path / "again.safetensors")
    (again,) = load_autoencoders([str(tmp_path / "again.safetensors")])
    picture = np.full((1, SIZE, SIZE, 3), 90, dtype=np.uint8)
    np.testing.assert_array_equal(coder.paint(picture), again.paint(picture))


def test_what_is_no_autoencoder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ConfigError, match=r"holds no autoencoder_\*"):
        load_autoencoders([str(tmp_path)])
    file = tmp_path / "autoencoder_1.safetensors"
    file.write_bytes(b"no weights")
    with pytest.raises(ConfigError, match=r"autoencoder_1\.safetensors: no autoencoder"):
        load_autoencoders([str(tmp_path)])


def test_a_painter_that_changes_nothing_leaves_the_face_in_its_place(faces):
    """The way there and back: only the resolution is lost."""
    sample = faces.sample(3, 2)

    class Mirror(Autoencoder):
        def paint(self, pictures):
            return pictures

    same = repaint(sample, sample.real, Mirror(96), np.random.default_rng(0))
    gap = np.abs(same.astype(int) - sample.real)
    assert 0 < gap.mean() < 2


def test_painted_blends_differ_by_their_painter(trained, faces):
    sample, other = faces.sample(1, 2), faces.sample(2, 2)
    fakes = [
        all_makers((coder,))["painted_blend"](sample, other, np.random.default_rng(0)).fake
        for coder in load_autoencoders([str(trained)])
    ]
    assert (fakes[0] != fakes[1]).any()
