"""The detectors of others, rebuilt: with made-up weights, since theirs are not ours to ship."""

from __future__ import annotations

import io
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import compare_peers
import lrnet
import mesonet
import peers
from tellframe.data.cut import Outcome
from tellframe.data.manifest import Video
from tellframe.detector import load
from tellframe.errors import DataError, MediaError
from tellframe.evaluate.rows import Row
from tellframe.evaluate.sources import Videos
from tellframe.types import Label, Reason

pytestmark = pytest.mark.train


def make_row(name: str, fake: bool = True) -> Row:
    return Row(path=name, fake=fake, source="s", method="m", group=name, pair=name)


def make_mesonet(name: str, bias: float = 0.0) -> mesonet.MesoNet:
    rng = np.random.default_rng(0)

    def draw(*shape):
        return rng.normal(0, 0.2, shape).astype(np.float32)

    shapes = mesonet.SHAPES[name]
    norms = [(np.ones(n, np.float32), draw(n), draw(n), np.ones(n, np.float32))
             for (n,) in shapes["batch_normalization"]]  # fmt: skip
    dense = [(draw(*s), draw(s[-1])) for s in shapes["dense"]]
    # Small enough that nothing is certain, or all outputs would be alike.
    dense[-1] = (dense[-1][0] * np.float32(0.02), np.full(1, bias, np.float32))
    return mesonet.MesoNet(name, [(draw(*s), draw(s[-1])) for s in shapes["conv2d"]], norms, dense)


def make_lrnet_weights(seed: int = 0, shift: float = 0.0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    gru = torch.nn.GRU(136, 32, batch_first=True, bidirectional=True)
    names = {"dense.1.fn.net.0": (64, 64), "dense.1.fn.net.3": (64, 64), "dense.3": (2, 64)}
    weights = {f"gru.{k}": v.detach() for k, v in gru.state_dict().items()}
    weights |= {f"{k}.weight": 0.1 * torch.randn(s) for k, s in names.items()}
    weights |= {f"{k}.bias": torch.zeros(s[0]) for k, s in names.items()}
    weights["dense.3.bias"] = torch.tensor([0.0, shift])
    return weights | {"hidden_state": torch.randn(2, 1, 32)}


@pytest.mark.parametrize("name", mesonet.SHAPES)
def test_mesonet_judges_each_crop_by_itself(name):
    crops = np.random.default_rng(1).integers(0, 256, (3, 256, 256, 3), np.uint8)
    network = make_mesonet(name)
    together = network(crops)
    apart = np.concatenate([network(crop[None]) for crop in crops])
    assert together.shape == (3,)
    assert together.min() > 0.01
    assert together.max() < 0.99
    assert np.ptp(together) > 1e-4
    np.testing.assert_allclose(together, apart, rtol=1e-4)
    assert (make_mesonet(name, 2.0)(crops) > network(crops)).all()
    assert network(crops[:0]).shape == (0,)


def test_mesonet_refuses_the_weights_of_the_other():
    meso4 = make_mesonet("Meso4")
    layers = [[tuple(t.numpy() for t in part)] for part in meso4._norms]
    with pytest.raises(ValueError, match="conv2d has the shapes"):
        mesonet.MesoNet("MesoInception4", [], [n[0] for n in layers], [])


def test_mesonet_weights_are_read_in_the_order_of_their_numbers(tmp_path):
    h5py = pytest.importorskip("h5py", reason="needs h5py, of the group data-tests")
    network = make_mesonet("Meso4")
    with h5py.File(tmp_path / "w.h5", "w") as file:
        for kind, layers, names in (
            ("conv2d", network._convolutions, ("kernel", "bias")),
            ("batch_normalization", network._norms,
             ("gamma", "beta", "moving_mean", "moving_variance")),
            ("dense", network._dense, ("kernel", "bias")),
        ):  # fmt: skip
            for number, layer in enumerate(layers, 9):  # "10" sorts before "9" as text
                for name, values in zip(names, layer, strict=True):
                    array = values.numpy()
                    array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
                    file[f"{kind}_{number}/{kind}_{number}/{name}:0"] = array
    crops = np.random.default_rng(1).integers(0, 256, (2, 256, 256, 3), np.uint8)
    found = mesonet.load_mesonet("Meso4", tmp_path / "w.h5")(crops)
    np.testing.assert_allclose(found, network(crops), rtol=1e-5)
    with pytest.raises(ValueError, match="MesoInception4"):
        mesonet.load_mesonet("MesoInception4", tmp_path / "w.h5")


@pytest.mark.parametrize("turn", [0, 30, 90])
def test_a_turned_face_is_cut_upright_around_the_nose(turn):
    c, s = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    offsets = np.array([[-20, -25], [20, -25], [0, 0], [-15, 22], [15, 22]]) @ [[c, s], [-s, c]]
    points = (offsets + 150).astype(np.float32)
    image = np.zeros((300, 300, 3), np.uint8)
    for (x, y), colour in zip(points.round().astype(int), np.eye(5, 3) * 255, strict=True):
        image[y - 3 : y + 4, x - 3 : x + 4] = colour if colour.any() else 128
    crop = mesonet.align_face(image, points).astype(float)
    assert crop.shape == (256, 256, 3)
    nose = np.argwhere((crop[..., 2] > 150) & (crop[..., 0] < 60)).mean(axis=0)
    np.testing.assert_allclose(nose, 127.5, atol=3)
    left_eye = np.argwhere((crop[..., 0] > 150) & (crop[..., 1] < 60)).mean(axis=0)
    side = mesonet.CROP * 47
    np.testing.assert_allclose(left_eye, 127.5 + np.array([-25, -20]) * 256 / side, atol=4)


def test_beyond_the_border_the_picture_is_mirrored():
    image = np.zeros((40, 40, 3), np.uint8)
    image[:, :10] = 200
    points = np.array([[2, 10], [18, 10], [10, 18], [4, 26], [16, 26]], np.float32)
    crop = mesonet.align_face(image, points)
    np.testing.assert_allclose(crop[128, 30:110].mean(), 200, atol=2)


def test_a_video_is_as_fake_as_its_most_suspicious_person():
    crops = [np.full((2, 256, 256, 3), n, np.uint8) for n in (10, 200)]
    found = peers.judge_people(crops, lambda some: some[:, 0, 0, 0] / 250)
    assert found.probability == pytest.approx(1 - 10 / 250)
    assert (found.verdict, found.people) == (Label.FAKE, 2)
    assert peers.judge_people([], lambda some: some).outcome == Outcome.NO_FACE


def test_an_unreadable_video_is_a_row_without_a_score():
    def extract(path):
        raise MediaError(f"{path}: no video")

    source = Videos((make_row("a.mp4"),), (Video("a.mp4", "a.mp4"),))
    scored = peers.score_videos(source, SimpleNamespace(extract=extract), {"Meso4": len})
    (row,) = scored["Meso4"]
    assert (row.outcome, row.probability) == (Outcome.UNREADABLE, None)


def test_scores_of_other_weights_are_made_again(tmp_path, monkeypatch):
    asked = []

    def score_videos(source, detector, networks):
        asked.extend(networks)
        return {name: [row.judged(peers.judged(0.7)) for row in source.rows] for name in networks}

    monkeypatch.setattr(compare_peers, "score_videos", score_videos)
    source = Videos((make_row("a.mp4"),), (Video("a.mp4", "a.mp4"),))
    options = SimpleNamespace(out=tmp_path, limit=None, stills=tmp_path / "none.zip")
    for digest in ("0123456789ab", "0123456789ab", "ba9876543210"):
        found = peers.Peers({"Meso4": len}, {"Meso4": digest})
        scored = compare_peers.score_peers(source, [], load(keep_evidence=False), found, options)
        assert len(scored["Meso4"]) == 1
    assert asked == ["Meso4", "Meso4"]


def test_weights_are_told_apart_by_their_digest(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "load_mesonet", lambda *_: len)
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda _: True)
    path = tmp_path / peers.MESONETS["Meso4"]
    path.parent.mkdir()
    path.write_bytes(b"abc")
    assert peers.load_peers(tmp_path, tmp_path).digests == {"Meso4": "ba7816bf8f01"}


def test_lrnet_averages_branches_and_whole_blocks():
    places, movements = (lrnet.Branch(make_lrnet_weights(seed)) for seed in (0, 1))
    landmarks = np.random.default_rng(0).random((2 * lrnet.BLOCK + 7, 136), np.float32)
    whole = lrnet.LRNet(places, movements)(landmarks)
    first, second = landmarks[: lrnet.BLOCK], landmarks[lrnet.BLOCK : 2 * lrnet.BLOCK]
    parts = [places(x[None])[0] for x in (first, second)]
    parts += [movements(np.diff(x, axis=0)[None])[0] for x in (first, second)]
    assert whole == pytest.approx(np.mean(parts))
    assert lrnet.LRNet(places, movements)(landmarks[: lrnet.BLOCK - 1]) is None
    sure = lrnet.Branch(make_lrnet_weights(0, shift=9.0))
    assert lrnet.LRNet(sure, sure)(landmarks) > 0.9


@pytest.mark.parametrize(
    "name", ["hidden_state", "gru.weight_hh_l0", "dense.3.weight", "dense.3.bias"]
)
def test_lrnet_refuses_other_weights(name):
    with pytest.raises(ValueError, match="LRNet"):
        lrnet.Branch({**make_lrnet_weights(), name: torch.zeros(3, 3)})


@pytest.mark.parametrize("part", ["dense.1.fn.net.0", "dense.1.fn.net.3", "dense.3"])
def test_lrnet_refuses_weights_that_lack_a_bias(part):
    weights = make_lrnet_weights()
    del weights[f"{part}.bias"]
    with pytest.raises(ValueError, match="LRNet"):
        lrnet.Branch(weights)


def save(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"PK\x03\x04 no zip", pickle.dumps(Path("x")),
     save(make_lrnet_weights())[:5000], save(3), save([torch.zeros(1)]), save({"hidden_state": 3})],
)  # fmt: skip
def test_what_holds_no_weights_is_refused(content, tmp_path):
    folder = tmp_path / "peers" / "lrnet"
    folder.mkdir(parents=True)
    torch.save(make_lrnet_weights(), folder / lrnet.WEIGHTS[0])
    (folder / lrnet.WEIGHTS[1]).write_bytes(content)
    with pytest.raises(DataError, match=r"LRNet: its weights cannot be read \(.*g2\.pth"):
        peers.load_peers(tmp_path / "peers", tmp_path)


def test_peers_without_weights_or_input_are_named_with_the_reason(tmp_path):
    found = peers.load_peers(tmp_path / "peers", tmp_path / "landmarks")
    assert not found.networks
    assert found.lrnet is None
    assert set(found.reasons) == {*peers.MESONETS, peers.LRNET}
    folder = tmp_path / "peers" / "lrnet"
    folder.mkdir(parents=True)
    for seed, file in enumerate(lrnet.WEIGHTS):
        torch.save(make_lrnet_weights(seed), folder / file)
    reason = peers.load_peers(tmp_path / "peers", tmp_path / "landmarks").reasons[peers.LRNET]
    assert "--landmarks" in reason
    (tmp_path / "landmarks").mkdir()
    assert peers.load_peers(tmp_path / "peers", tmp_path / "landmarks").lrnet
    torch.save({}, folder / lrnet.WEIGHTS[0])
    with pytest.raises(DataError, match="LRNet: its weights cannot be read"):
        peers.load_peers(tmp_path / "peers", tmp_path / "landmarks")


def test_lrnet_scores_the_videos_that_have_landmarks(tmp_path):
    np.savetxt(tmp_path / "a.mp4.txt", np.random.default_rng(0).random((40, 136)))
    branch = lrnet.Branch(make_lrnet_weights())
    network = lrnet.LRNet(branch, branch)
    rows = [make_row("a.mp4"), make_row("b.mp4")]
    scored, lacking = peers.score_landmarks(rows, tmp_path, network)
    assert scored.probability is not None
    assert (lacking.probability, lacking.reasons) == (None, (Reason.TOO_FEW_FRAMES,))
    np.savetxt(tmp_path / "b.mp4.txt", np.zeros((40, 10)))
    with pytest.raises(DataError, match="136"):
        peers.score_landmarks(rows, tmp_path, network)


def test_the_table_has_every_detector_and_why_others_are_missing():
    def score(gap):
        rng = np.random.default_rng(gap)
        for n in range(20):
            row = make_row(f"{n}", fake=n % 2 > 0)
            p = 1 / (1 + np.exp(-rng.normal(gap * row.fake)))
            yield row.judged(peers.judged(float(p)))

    figures = compare_peers.measure({"tellframe": list(score(3)), "Meso4": list(score(0))})
    assert set(figures) == {"s", "all videos"}
    assert figures["s"]["tellframe"]["auc_against"] is None
    assert figures["s"]["Meso4"]["auc_against"]["difference"] > 0
    shown = compare_peers.make_table(figures, {"LRNet": "It lacks something."}, "mine 1.0")
    assert "| s | mine 1.0 | 20 of 20 (10 fake) |" in shown
    assert "LRNet was not measured. It lacks something." in shown
