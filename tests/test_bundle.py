"""Bundles: what is incomplete, altered or foreign is refused."""

import dataclasses
import hashlib
import http.server
import json
import shutil
import threading
from functools import partial

import numpy as np
import pytest

from tellframe import bundle
from tellframe.bundle import (
    SHIPPED,
    golden_crops,
    golden_input,
    load_bundle,
    shipped_bundles,
    write_bundle,
)
from tellframe.errors import BundleError, DownloadError, UsageError

NAME = "frame_lite0"


@pytest.fixture
def folder(tmp_path):
    """Return a copy of the shipped bundle."""
    return shutil.copytree(SHIPPED / NAME, tmp_path / "copy")


def change(folder, **values):
    path = folder / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_the_default_is_shipped_and_small():
    assert NAME in shipped_bundles()
    assert load_bundle() == load_bundle(NAME)
    assert sum(p.stat().st_size for p in (SHIPPED / NAME).iterdir()) <= 20e6


def test_a_folder_loads_and_writes_back(folder):
    bundle = load_bundle(folder)
    changed = dataclasses.replace(bundle, version="9")
    write_bundle(changed, folder)
    assert load_bundle(folder) == changed


def test_an_altered_graph_is_refused(folder):
    graph = folder / "model.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    with pytest.raises(BundleError, match="SHA-256 differs"):
        load_bundle(folder)


def test_a_missing_graph_is_refused(folder):
    (folder / "model.onnx").unlink()
    with pytest.raises(BundleError, match="missing"):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 99}, "bundle format 99"),
        ({"recipe": {"margin": 0.3}}, "recipe was altered"),
        ({"recipe": {"margn": 0.3}}, "did you mean 'margin'"),
        ({"calibration": {"slop": 1}}, "not a readable bundle"),
        ({"decision": None}, "not a readable bundle"),
        ({"kind": "sound"}, "a model of kind 'sound', this version knows frame and clip"),
    ],
)
def test_an_altered_description_is_refused(folder, values, message):
    change(folder, **values)
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


@pytest.mark.parametrize(
    ("part", "values", "message"),
    [
        ("calibration", {"slope": float("nan")}, r"slope = nan"),
        ("calibration", {"slope": 0.0}, r"slope = 0\.0 is not above 0"),
        ("calibration", {"slope": -0.7}, r"slope = -0\.7 is not above 0"),
        ("calibration", {"intercept": float("inf")}, r"intercept = inf"),
        ("calibration", {"prior_use": 1.0}, r"prior_use = 1\.0"),
        ("decision", {"fake_from": 1.2}, r"fake_from = 1\.2"),
        ("decision", {"fake_from": float("nan")}, r"fake_from = nan"),
        ("decision", {"fake_from": 0.2, "real_to": 0.3}, r"real_to = 0\.3"),
        ("decision", {"real_to": -0.1}, r"real_to = -0\.1"),
        ("decision", {"min_frames": 0}, r"min_frames = 0"),
        ("decision", {"min_face_size": float("nan")}, r"min_face_size = nan"),
        ("decision", {"max_degraded": 2.0}, r"max_degraded = 2\.0"),
    ],
)
def test_a_calibration_or_limits_without_sense_are_refused(part, values, message, folder):
    good = json.loads((folder / "bundle.json").read_text())[part]
    change(folder, **{part: good | values})
    with pytest.raises(BundleError, match=rf"bundle\.json: .*{message}"):
        load_bundle(folder)


def test_a_verdict_is_told_the_limits_and_the_share_of_fakes(folder):
    values = json.loads((folder / "bundle.json").read_text())
    change(folder, calibration=values["calibration"] | {"prior_use": 0.1})
    bundle = load_bundle(folder)
    info = bundle.info(bundle.recipe)
    assert (info.real_to, info.fake_from) == (bundle.decision.real_to, bundle.decision.fake_from)
    assert info.prior_use == 0.1


def test_limits_may_lie_at_the_ends_and_on_each_other(folder):
    good = json.loads((folder / "bundle.json").read_text())["decision"]
    for real_to, fake_from in ((0.0, 1.0), (0.5, 0.5), (0.0, 0.0), (1.0, 1.0)):
        change(folder, decision=good | {"real_to": real_to, "fake_from": fake_from})
        assert load_bundle(folder).decision.fake_from == fake_from


def test_no_bundle_is_written_that_could_not_be_loaded(folder):
    bundle, before = load_bundle(folder), (folder / "bundle.json").read_bytes()
    turned = dataclasses.replace(bundle.calibration, slope=-1.0)
    with pytest.raises(BundleError, match=r"slope = -1\.0 is not above 0"):
        write_bundle(dataclasses.replace(bundle, calibration=turned), folder)
    assert (folder / "bundle.json").read_bytes() == before


def test_what_a_model_cannot_apply_is_refused():
    bundle = load_bundle()
    for name, value in {
        "mean": (0.4, 0.4, 0.4),
        "std": (0.2, 0.2, 0.2),
        "crop_size": 200,
        "crop_format": "png",
        "crop_quality": 80,
    }.items():
        with pytest.raises(UsageError, match=rf"{name} = .*changes no verdict of {NAME}"):
            bundle.apply({name: value})
        assert bundle.apply({name: getattr(bundle.recipe, name)}) == bundle.recipe
    assert bundle.apply({"num_frames": 32, "margin": 0.2}).num_frames == 32


def test_fewer_frames_than_a_verdict_needs_are_refused():
    bundle = load_bundle()
    least = bundle.decision.min_frames
    assert bundle.apply({"num_frames": least}).num_frames == least
    with pytest.raises(UsageError, match=r"2 frames are too few: .*INCONCLUSIVE; give 3 or more"):
        bundle.apply({"num_frames": least - 1})


def test_a_broken_description_is_refused(folder):
    (folder / "bundle.json").write_text("{")
    with pytest.raises(BundleError, match="not a readable bundle"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["bundle.json", "model.onnx"])
def test_a_file_that_leads_out_of_the_bundle_is_refused(name, folder, tmp_path):
    path, elsewhere = folder / name, tmp_path / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(BundleError, match=rf"{name}: a link that leads out of the bundle"):
        load_bundle(folder)
    path.unlink()
    path.symlink_to(f"../{folder.name}/../elsewhere")
    with pytest.raises(BundleError, match=rf"{name}: a link that leads out of the bundle"):
        load_bundle(folder)


def test_links_within_a_bundle_and_to_one_are_followed(folder, tmp_path):
    (folder / "model.onnx").rename(folder / "graph")
    (folder / "model.onnx").symlink_to("graph")
    (tmp_path / "link").symlink_to(folder)
    assert load_bundle(tmp_path / "link").sha256 == load_bundle(NAME).sha256


@pytest.mark.parametrize("target", ["/dev/zero", "/proc/self/mem", "model.onnx"])
def test_a_graph_that_is_no_file_is_refused(target, folder):
    (folder / "model.onnx").unlink()
    (folder / "model.onnx").symlink_to(target)
    with pytest.raises(BundleError, match=r"model\.onnx: "):
        load_bundle(folder)


def test_sizes_beyond_all_measure_are_refused_unread(folder):
    with (folder / "model.onnx").open("r+b") as file:
        file.truncate(2**40)  # takes no room, and hours to be read
    with pytest.raises(BundleError, match=r"model\.onnx: more than"):
        load_bundle(folder)
    with (folder / "bundle.json").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(BundleError, match=r"bundle\.json: more than"):
        load_bundle(folder)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"format":' * 100_000,
        '{"format": 2, "recipe": ' + '{"margin":' * 50_000,
        '{"format": ' + "9" * 100_000 + "}",
        '{"format": 2, "name": ' + json.dumps("x" * 1_000_000) + "}",
        "[]",
        '"bundle"',
        "NaN",
    ],
    ids=["lists", "objects", "recipe", "digits", "text", "list", "string", "nan"],
)
def test_a_description_that_is_deep_or_odd_is_refused(text, folder):
    (folder / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match=r"bundle\.json: ") as caught:
        load_bundle(folder)
    assert len(str(caught.value)) < 2000


def test_a_graph_with_weights_in_other_files_is_refused(folder, capsys):
    """Though the description fits it."""
    graph = b"\x3a\x06\x2a\x04\x6a\x00\x70\x01"  # see tests/test_graphfile.py
    (folder / "model.onnx").write_bytes(graph)
    change(folder, sha256=hashlib.sha256(graph).hexdigest())
    from tellframe.cli import run

    assert run(["detect", "--model", str(folder), str(folder)]) == 2
    assert "keeps weights in other files" in capsys.readouterr().err


def test_an_unknown_name_lists_the_shipped():
    with pytest.raises(BundleError, match=f"no bundle.*{NAME}"):
        load_bundle("no-such-bundle")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Serve a copy of the shipped bundle as the hub would; yield the folder that is served."""
    served = tmp_path / "hub" / "someone" / "detector" / "resolve" / "v1"
    shutil.copytree(SHIPPED / NAME, served)
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path / "hub"))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("TELLFRAME_CACHE", str(tmp_path / "cache"))
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_bundle_comes_from_the_hub_once(hub):
    first = load_bundle("hf://someone/detector@v1")
    assert first.sha256 == load_bundle(NAME).sha256
    shutil.rmtree(hub)
    assert load_bundle("hf://someone/detector@v1") == first


def test_a_graph_that_is_not_the_described_one_is_refused(hub):
    (hub / "model.onnx").write_bytes(b"something else")
    with pytest.raises(DownloadError, match="pinned"):
        load_bundle("hf://someone/detector@v1")


@pytest.mark.parametrize(
    "name",
    [
        *("hf://someone", "hf://a/b/c", "hf://../secret", "hf://a/..", "hf://a/b@../../../x"),
        *("hf://a/b@", "hf://a/b c", "hf://a/b?x=1", "hf://user@a/b"),
    ],
)
def test_bad_hub_names_are_refused(name):
    with pytest.raises(BundleError, match="expected hf://"):
        load_bundle(name)


@pytest.mark.parametrize("text", ["[]", "[" * 100_000, '{"sha256": 1}', "\ud800", ""], ids=ascii)
def test_a_description_of_the_hub_that_is_none_is_refused(text, hub):
    (hub / "bundle.json").write_text(text, errors="surrogatepass")
    with pytest.raises(BundleError, match=r"bundle\.json cannot be read"):
        load_bundle("hf://someone/detector@v1")


def test_sizes_of_the_hub_are_limited(hub, monkeypatch):
    monkeypatch.setattr(bundle, "MAX_JSON_BYTES", 100)
    with pytest.raises(DownloadError, match="larger than the limit of 100 bytes"):
        load_bundle("hf://someone/detector@v1")


def test_golden_crops_are_the_same_everywhere():
    crops = golden_crops(32)
    assert crops.shape == (4, 32, 32, 3)
    assert crops.dtype == np.uint8
    assert (crops == golden_crops(32)).all()
    assert len({c.tobytes() for c in crops}) == 4
    # By hand: picture 0, channel 0, at x = 2, y = 1: |(2 * 3 + 1 * 5) % 510 - 255| = 244.
    assert crops[0, 1, 2, 0] == 244


def test_a_bundle_that_names_no_kind_judges_frames(folder):
    values = json.loads((folder / "bundle.json").read_text())
    values.pop("kind", None)
    (folder / "bundle.json").write_text(json.dumps(values))
    bundle = load_bundle(folder)
    assert bundle.kind == "frame"
    write_bundle(dataclasses.replace(bundle, kind="clip"), folder)
    assert load_bundle(folder).kind == "clip"


def test_golden_clips_lack_a_frame_each_but_the_first():
    assert list(golden_input("frame", 32)) == ["crops"]
    assert (golden_input("frame", 32, 3)["crops"] == golden_crops(32, 3)).all()
    inputs = golden_input("clip", 32)
    assert list(inputs) == ["crops", "valid"]
    assert inputs["crops"].shape == (4, 4, 32, 32, 3)
    assert len({crop.tobytes() for crop in inputs["crops"].reshape(16, -1)}) == 16
    assert inputs["valid"].dtype == np.bool_
    assert [np.flatnonzero(~v).tolist() for v in inputs["valid"]] == [[], [0], [1], [2]]
    longer = golden_input("clip", 32, 6)
    assert (longer["crops"][:4] == inputs["crops"]).all()
    assert (longer["valid"][:4] == inputs["valid"]).all()
