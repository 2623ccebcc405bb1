"""`evaluate` and `calibrate` from videos, from shards and from scores; `submit` and `score`."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("sklearn", reason="needs the extra: pip install 'tellframe[data]'")
pytest.importorskip("pyarrow", reason="needs the extra: pip install 'tellframe[data]'")
pytest.importorskip("matplotlib", reason="needs the extra: pip install 'tellframe[data]'")

from tellframe.bundle import SHIPPED, load_bundle, write_bundle
from tellframe.cli import run
from tellframe.cli.evaluation import say_failed
from tellframe.data.manifest import Video, write_manifest
from tellframe.detector import load
from tellframe.evaluate import in_calibration_half, read_scores, score_stills

FRAMES = ("--frames", "4", "--workers", "1", "--threads", "1", "--quiet")
SAMPLES = Path(__file__).resolve().parents[2] / "samples"
GROUPS = [g for g in (f"group{i}" for i in range(50)) if in_calibration_half(g)][:3]


@pytest.fixture(scope="module")
def folder(samples, make_video, tmp_path_factory) -> Path:
    """Return a folder of videos: three reals and three fakes, one without a face, one broken."""
    place = tmp_path_factory.mktemp("videos")
    for n in range(3):
        for kind in ("real", "fake"):
            (place / f"{kind}{n}.mp4").symlink_to(samples / f"{kind}.mp4")
    make_video(place / "nobody.mp4", 12)
    (place / "broken.mp4").write_text("no video")
    return place


@pytest.fixture(scope="module")
def manifest(folder) -> Path:
    videos = []
    for path in sorted(folder.glob("*.mp4")):
        kind, number = path.stem[:-1], path.stem[-1]
        named = kind in ("real", "fake")
        video = Video(
            path.name,
            str(path),
            bytes=path.stat().st_size,
            label="REAL" if kind == "real" else "FAKE",
            group=GROUPS[int(number)] if named else path.stem,
            original=f"real{number}.mp4" if kind == "fake" else "",
            source="samples",
            method="" if kind == "real" else "swap",
            split="test",
        )
        videos.append(video)
    videos.append(Video("unknown.mp4", str(folder / "real0.mp4"), group="u", split="test"))
    write_manifest(videos, folder / "m.parquet")
    return folder / "m.parquet"


@pytest.fixture(scope="module")
def report(manifest, tmp_path_factory) -> Path:
    """Return the report on the videos of the manifest."""
    place = tmp_path_factory.mktemp("report")
    assert run(["evaluate", str(manifest), *FRAMES, "-o", str(place)]) == 3  # one is broken
    return place


@pytest.fixture(scope="module")
def built(manifest, tmp_path_factory) -> Path:
    """Return a data set built from the same manifest."""
    place = tmp_path_factory.mktemp("built")
    small = ("--set", "num_frames=4", "--workers", "1", "--quiet")
    assert run(["build", str(manifest), "-o", str(place), *small]) == 3  # one is broken
    return place


def read(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def overall(folder: Path) -> dict:
    return read(folder)["results"][0]["sets"]["all videos"]


# --- evaluate ---------------------------------------------------------------------------------


def test_a_manifest(report):
    facts, figures = read(report), overall(report)
    assert (figures["n"], figures["n_fake"], figures["n_scored"]) == (8, 5, 6)
    assert (figures["coverage"], figures["n_pairs"]) == (0.75, 3)
    assert figures["auc"] == figures["pair_ranking"] == 1.0
    assert figures["log_loss_all"] > figures["log_loss"]
    result = facts["results"][0]
    assert result["outcomes"] == [
        {"name": "no_face", "REAL": 0, "FAKE": 1},
        {"name": "ok", "REAL": 3, "FAKE": 3},
        {"name": "unreadable", "REAL": 0, "FAKE": 1},
    ]
    assert result["run"]["unlabelled"] == 1
    assert result["run"]["model"].startswith("frame_lite0 ")
    assert [s["name"] for s in result["strata"]["method"]] == ["swap (samples)"]
    rows, model = read_scores(report / "scores.csv")
    assert model == result["run"]["model"]
    by_name = {r.path: r for r in rows}
    assert by_name["nobody.mp4"].reasons == ("no_face",)
    assert by_name["broken.mp4"].reasons == ("unreadable",)
    real = by_name["real0.mp4"]
    assert (real.outcome, real.people, real.codec) == ("ok", 1, "h264")
    assert 20 < real.brightness < 235
    assert real.face_size > 48
    page = (report / "index.html").read_text()
    assert "No score: 2 of 8 (25.0 %) (read, without a face 1, not decodable 1)." in page


def test_shards_give_nearly_the_same(report, built, manifest, tmp_path, capsys):
    options = ("--manifest", str(manifest))
    assert run(["evaluate", str(built), *FRAMES, *options, "-o", str(tmp_path)]) == 3
    assert "1 of 8 not analysed: broken.mp4 (not decodable)" in capsys.readouterr().err
    assert overall(tmp_path)["coverage"] == 0.75
    assert read(tmp_path)["results"][0]["outcomes"] == read(report)["results"][0]["outcomes"]
    mine, _ = read_scores(tmp_path / "scores.csv")
    theirs, _ = read_scores(report / "scores.csv")
    assert {r.path for r in mine} == {r.path for r in theirs}
    for row, other in zip(sorted(mine, key=by_path), sorted(theirs, key=by_path), strict=True):
        same = ("fake", "outcome", "people", "codec", "reasons", "group", "pair", "split")
        for name in same:
            assert getattr(row, name) == getattr(other, name)
        if row.logit is not None:  # JPEG of the crops
            assert row.logit == pytest.approx(other.logit, abs=0.6)
            assert row.brightness == pytest.approx(other.brightness, abs=1)


def by_path(row):
    return row.path


def test_shards_without_a_manifest_know_no_label_of_what_has_no_clip(built, tmp_path):
    assert run(["evaluate", str(built), *FRAMES, "--limit", "4", "-o", str(tmp_path)]) == 0
    assert overall(tmp_path)["n"] == 4
    assert read(tmp_path)["results"][0]["run"]["unlabelled"] == 3


def test_shards_of_another_recipe_are_refused(built, capsys):
    assert run(["evaluate", str(built), "--quiet"]) == 2
    assert "num_frames: 4 against 10" in capsys.readouterr().err


def test_a_report_from_its_scores_is_the_same(report, tmp_path, capsys):
    assert run(["evaluate", "--scores", str(report / "scores.csv"), "-o", str(tmp_path)]) == 0
    for name in ("report.json", "scores.csv", "table.md", "index.html"):
        assert (tmp_path / name).read_bytes() == (report / name).read_bytes(), name
    assert capsys.readouterr().out == (report / "table.md").read_text()


def test_two_sets_of_scores_side_by_side(report, tmp_path, capsys):
    scores = report / "scores.csv"
    other = tmp_path / "other.csv"
    with scores.open(newline="") as file:
        rows = list(csv.DictReader(file))
    with other.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video", "label", "probability"])
        writer.writerows((r["video"], r["label"], r["probability"] and "0.5") for r in rows)
    options = ("--scores", str(scores), "--against", str(other), "-o", str(tmp_path / "out"))
    assert run(["evaluate", *options]) == 0
    facts = read(tmp_path / "out")
    auc = facts["comparison"]["all videos"]["figures"]["auc"]
    assert (auc["first"], auc["second"], auc["difference"]) == (1.0, 0.5, 0.5)
    assert [r["run"]["model"] for r in facts["results"]][1] == "other.csv"
    out = capsys.readouterr().out
    assert "auc: 1.0 - 0.5 = 0.5" in out
    heads = [line for line in out.splitlines() if line.startswith("## ")]
    first = load_bundle()
    assert heads == [
        f"## First model: {first.name} {first.version} {first.sha256[:12]}",
        "## Second model: other.csv",
        "## First against second model, all videos",
    ]
    assert out.count("\n\n## ") == 2
    assert "\n|  |" not in out
    page = (tmp_path / "out" / "index.html").read_text()
    assert "First against second model" in page
    assert (tmp_path / "out" / "scores_against.csv").is_file()


def test_a_second_bundle(manifest, write_stills, tmp_path, capsys):
    options = ("--limit", "2", "--against", "frame_lite0", "--stills")
    stills = write_stills(
        tmp_path / "crops.zip", [(f"{n}.png", ("REAL", "FAKE")[n % 2], f"o{n}") for n in range(4)]
    )
    assert run(["evaluate", str(manifest), *FRAMES, *options, str(stills)]) == 3  # one is broken
    assert "auc: " in (out := capsys.readouterr().out)
    assert out.count("| crops (single crops) | 4 (2) | 1.000 |") == 2


def break_stills(path):
    """Add to a zip of crops some that are no picture, damaged in the zip, or missing."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    lines = [content.pop("labels.csv").decode()]
    lines += [f"{name}.png,FAKE,{name}" for name in ("text", "damaged", "missing", "cut")]
    content |= {"text.png": b"no picture", "damaged.png": b"checksum", "cut.png": cut_png()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
        archive.writestr("labels.csv", "\n".join(lines))
    path.write_bytes(path.read_bytes().replace(b"checksum", b"checkbum"))


def cut_png():
    buffer = io.BytesIO()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(buffer, "PNG")
    data = buffer.getvalue()
    return data[:60] + b"\0" * 8 + data[68:]  # Pillow raises SyntaxError or OSError


def test_a_broken_crop_costs_itself_alone(manifest, write_stills, tmp_path, capsys):
    stills = write_stills(tmp_path / "crops.zip", [("a.png", "REAL", "a"), ("b.png", "FAKE", "a")])
    break_stills(stills)
    options = ("--limit", "2", "--stills", str(stills), "-o", str(tmp_path / "report"))
    assert run(["evaluate", str(manifest), *FRAMES, *options]) == 3
    err = capsys.readouterr().err
    assert (
        "5 of 8 not analysed: broken.mp4 (not decodable), text.png (not decodable), damaged.png "
        "(damaged in its zip), missing.png (missing file), cut.png (not decodable)" in err
    )
    rows, _ = read_scores(tmp_path / "report" / "scores.csv")
    outcomes = {r.path: r.outcome for r in rows if r.still}
    assert outcomes == {
        **{"a.png": "ok", "b.png": "ok", "text.png": "unreadable"},
        **{"damaged.png": "damaged", "missing.png": "missing", "cut.png": "unreadable"},
    }
    for row in rows:
        assert (row.logit is not None) == (row.outcome == "ok")
    # Scores that are read are said to be of what was analysed once before.
    assert run(["evaluate", "--scores", str(tmp_path / "report" / "scores.csv")]) == 0


def test_nothing_analysed_is_an_exit_status_of_its_own(folder, tmp_path):
    header = "path,label,source,method,group,pair,split\n"
    (tmp_path / "labels.csv").write_text(f"{header}{folder / 'broken.mp4'},REAL,s,,,,dev\n")
    assert run(["evaluate", str(tmp_path / "labels.csv"), *FRAMES]) == 4


def test_failures_are_said_once_and_in_short(row, capsys):
    failed = [row(True, None, path=f"{n}\x1b.mp4", outcome="missing") for n in range(7)]
    assert say_failed([[*failed, row(True, 1.0)], [*failed, row(True, 1.0)]]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("7 of 8 not analysed: 0\\x1b.mp4 (missing file), ")
    assert line.endswith("4\\x1b.mp4 (missing file) and 2 more")
    assert say_failed([[row(True, None)]]) == 0  # read, without a face


@pytest.mark.parametrize(
    ("verb", "options", "message"),
    [
        ("evaluate", ("--stills", "nosuch.zip"), "nosuch.zip: cannot be read as a zip"),
        ("evaluate", ("--stills", "twice.zip"), "a.png is there twice"),
        ("evaluate", ("--against", "nosuchmodel"), "nosuchmodel"),
        ("evaluate", ("--against", "nosuch.csv"), "nosuch.csv: cannot be read as scores"),
        ("evaluate", ("--against", "other.csv"), "broken.mp4, the second's as x/real0.mp4"),
        ("evaluate", ("--against", "wrong.csv"), "real0.mp4: the two sets of scores give it diff"),
        ("calibrate", ("--model", "bundle", "--frames", "12"), "calibrate without --frames"),
    ],
)
def test_what_is_missing_is_found_before_the_work(
    manifest, write_stills, tmp_path, monkeypatch, capsys, verb, options, message
):
    def score_source(*_):
        raise AssertionError("the work has begun")

    monkeypatch.setattr("tellframe.evaluate.score.score_source", score_source)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SHIPPED / "frame_lite0", "bundle")
    Path("other.csv").write_text("video,label,probability\nx/real0.mp4,REAL,0.1\n")
    Path("wrong.csv").write_text("video,label,probability\nreal0.mp4,FAKE,0.1\n")
    with pytest.warns(UserWarning, match="Duplicate name"):
        write_stills(Path("twice.zip"), [("a.png", "REAL", "a"), ("a.png", "FAKE", "a")])
    assert run([verb, str(manifest), "--threads", "1", *options]) == 2
    assert message in capsys.readouterr().err


def test_clips_of_another_recipe_than_the_second_models_are_found_before_the_work(
    built, bundle, tmp_path, monkeypatch, capsys
):
    def score_source(*_):
        raise AssertionError("the work has begun")

    monkeypatch.setattr("tellframe.evaluate.score.score_source", score_source)
    options = ("--model", str(bundle), "--against", "frame_lite0", "--threads", "1")
    assert run(["evaluate", str(built), *options]) == 2
    assert "num_frames: 4 against 10" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("--frames", "4"), ("--face-detector", "yunet"), ("--manifest", "m.parquet")),
        *(("--stills", "s.zip"), ("--endpoint", "http://x"), ("--workers", "1")),
        *(("--threads", "1"), ("--max-zip-ratio", "7"), ("--frames", "0")),
    ],
)
def test_scores_take_no_option_of_videos(report, capsys, option, value):
    assert run(["evaluate", "--scores", str(report / "scores.csv"), option, value]) == 2
    assert f"{option}: for videos; --scores are scored already" in capsys.readouterr().err


def test_a_crop_is_judged_by_its_score_alone(write_stills, tmp_path):
    stills = write_stills(tmp_path / "crops.zip", [("a.png", "REAL", "a")])
    detector = load(threads=1)
    (row,) = score_stills(detector, stills)
    size = detector.recipe.crop_size
    expected = float(detector.score(np.full((1, size, size, 3), 90, np.uint8))[0][0])
    assert row.logit == pytest.approx(expected, abs=1e-4)
    assert row.verdict is detector.bundle.decision.label(row.probability)
    assert (row.still, row.brightness, row.pair) == (True, 90.0, "a")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate"], "give labelled videos, or --scores"),
        (["evaluate", "x.csv", "--scores", "y.csv"], "give labelled videos, or --scores"),
        (["evaluate", "no-such.csv"], "no-such.csv"),
        (["evaluate", "no-such.parquet"], "no-such.parquet"),
        (["evaluate", "no-such-folder"], "no dataset.json"),
        (["evaluate", "x.csv", "--limit", "0"], "--limit"),
        (["calibrate", "x.csv", "--model", "B", "--error-rate", "0.5"], "--error-rate"),
        (["calibrate", "x.csv", "--model", "B", "--prior-use", "1"], "--prior-use"),
        (["submit", "frame_lite0", ".", "-o", "B/s.csv", "--threads", "-1"], "--threads -1: give"),
        (["submit", "frame_lite0", ".", "-o", "B/s.csv", "--workers", "-1"], "--workers -1: give"),
    ],
)
def test_usage_errors(arguments, message, tmp_path, capsys):
    bundle = shutil.copytree(SHIPPED / "frame_lite0", tmp_path / "bundle")
    assert run([str(bundle) if a == "B" else a for a in arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_bundle_cannot_be_compared_without_videos(report, capsys):
    scores = str(report / "scores.csv")
    assert run(["evaluate", "--scores", scores, "--against", "frame_lite0"]) == 2
    assert "needs the videos" in capsys.readouterr().err
    assert run(["evaluate", "--scores", scores, "--split", "train"]) == 2
    assert "'train'" in capsys.readouterr().err


def test_a_report_leaves_no_folder_after_an_error_and_is_refused_at_once(tmp_path, capsys):
    assert run(["evaluate", "-o", str(tmp_path / "new" / "report")]) == 2
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "closed").mkdir(mode=0o500)
    for place, word in (
        ("file", "is no folder"),
        ("file/report", "is no folder"),
        ("dangling", "is no folder"),
        ("closed", "check your rights"),
        ("closed/a/b", "check your rights"),
    ):
        if word == "check your rights" and os.geteuid() == 0:  # root may write everything
            continue
        capsys.readouterr()
        # The labelled videos are missing, too: the folder is looked at before them.
        assert run(["evaluate", "none.parquet", "-o", str(tmp_path / place)]) == 2
        err = capsys.readouterr().err
        assert f"-o {tmp_path / place}: " in err
        assert word in err


@pytest.mark.parametrize("option", ["--scores", "--against"])
def test_a_report_does_not_replace_what_it_is_made_of(report, tmp_path, capsys, option):
    scores, other = tmp_path / "a" / "scores.csv", report / "scores.csv"
    scores.parent.mkdir()
    shutil.copy(other, scores)
    (tmp_path / "link").symlink_to("a")
    options = {"--scores": other, "--against": other, option: scores}
    given = [str(text) for pair in options.items() for text in pair]
    before = scores.read_bytes()
    for folder in ("a", "link"):
        assert run(["evaluate", *given, "-o", str(tmp_path / folder)]) == 2
        err = capsys.readouterr().err
        assert f"-o {tmp_path / folder}/scores.csv: is one of the inputs" in err
    assert [path.name for path in scores.parent.iterdir()] == ["scores.csv"]
    assert scores.read_bytes() == before
    # Beside an input of another name there is room.
    named = str(scores.rename(scores.with_name("mine.csv")))
    assert run(["evaluate", "--scores", named, "-o", str(tmp_path / "a")]) == 0


# --- calibrate --------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path) -> Path:
    """Return the shipped bundle with the recipe that the report was made with."""
    shipped = load_bundle()
    recipe = dataclasses.replace(shipped.recipe, num_frames=4)
    place = shutil.copytree(SHIPPED / "frame_lite0", tmp_path / "bundle")
    write_bundle(dataclasses.replace(shipped, recipe=recipe), place)
    return place


def test_calibrate_from_scores(report, bundle, tmp_path, capsys):
    before = load_bundle(bundle)
    scores = ("--scores", str(report / "scores.csv"), "--model", str(bundle))
    options = ("--method", "temperature", "--prior-use", "0.1", "--error-rate", "0")
    assert run(["calibrate", *scores, *options]) == 0
    out = capsys.readouterr().out
    after = load_bundle(bundle)
    assert after.calibration.method == "temperature"
    assert (after.calibration.intercept, after.calibration.prior_use) == (0.0, 0.1)
    assert after.calibration.fitted_on == "half of the groups of m.parquet all: samples (6)"
    assert f"shift {after.calibration.shift:+.4f}" in out
    assert "fitted on: 0 of 3 (0.0 %) reals called FAKE, 0 of 3 (0.0 %) fakes called REAL" in out
    assert after.decision.fake_from == 0.5
    assert after.metrics["samples"]["auc"] == 1.0
    assert after.metrics["samples"]["false_alarm_rate"] == 0.0
    assert after.recipe == before.recipe
    # As if the videos were scored again.
    again = ("--scores", str(report / "scores.csv"), "--model", str(bundle))
    assert run(["evaluate", *again, "-o", str(tmp_path / "again")]) == 0
    rows, _ = read_scores(tmp_path / "again" / "scores.csv")
    detector = load(bundle, threads=1, keep_evidence=False)
    for row in rows[-2:]:
        verdict = detector.detect(SAMPLES / f"{row.path[:4]}.mp4")
        assert row.probability == pytest.approx(verdict.probability, abs=1e-3)
        assert row.verdict is verdict.label
        assert row.reasons == verdict.reasons
    capsys.readouterr()
    # Platt, as it always was.
    assert run(["calibrate", *scores]) == 0
    assert load_bundle(bundle).calibration.prior_use == 0.5
    assert load_bundle(bundle).decision == after.decision


def test_scores_of_another_recipe_are_refused(report, manifest, bundle, capsys):
    scores = ("--scores", str(report / "scores.csv"))
    shipped = shutil.copytree(SHIPPED / "frame_lite0", bundle.parent / "shipped")
    calibrations = {place: load_bundle(place).calibration for place in (bundle, shipped)}
    assert run(["calibrate", *scores, "--model", str(shipped)]) == 2
    assert run(["calibrate", str(manifest), "--model", str(bundle), "--frames", "3"]) == 2
    assert capsys.readouterr().err.count("calibrate without --frames and --face-detector") == 2
    assert calibrations == {place: load_bundle(place).calibration for place in calibrations}


def test_scores_of_another_model_are_refused(report, bundle, tmp_path, capsys):
    scores = tmp_path / "scores.csv"
    scores.write_text((report / "scores.csv").read_text().replace("frame_lite0 ", "other "))
    assert run(["calibrate", "--scores", str(scores), "--model", str(bundle)]) == 2
    assert "the scores are of other" in capsys.readouterr().err
    assert run(["submit", str(bundle), str(scores), "-o", str(tmp_path / "s.csv")]) == 2
    assert "the scores are of other" in capsys.readouterr().err


def test_a_bundle_of_format_1_gives_the_same_figures(tmp_path):
    bundle = shutil.copytree(SHIPPED / "frame_lite0", tmp_path / "bundle")
    values = json.loads((bundle / "bundle.json").read_text())
    old = {k: values["calibration"][k] for k in ("slope", "intercept", "fitted_on")}
    (bundle / "bundle.json").write_text(json.dumps({**values, "format": 1, "calibration": old}))
    calibration = load_bundle(bundle).calibration
    assert (calibration.method, calibration.shift) == ("platt", 0.0)
    p = float(calibration.probability(1.0))
    assert p == 1 / (1 + np.exp(-(old["slope"] + old["intercept"])))


# --- submit and score -------------------------------------------------------------------------


def read_csv(path: Path) -> dict[str, float]:
    with path.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["filename", "label"]
    assert len({name for name, _ in rows}) == len(rows)
    return {name: float(label) for name, label in rows}


def test_every_file_is_submitted_once(folder, tmp_path, capsys):
    target = tmp_path / "new" / "submission.csv"
    some = tmp_path / "some"
    some.mkdir()
    for name in ("real0", "fake0", "nobody", "broken"):
        (some / f"{name}.mp4").symlink_to((folder / f"{name}.mp4").resolve())
    bundle = shutil.copytree(SHIPPED / "frame_lite0", tmp_path / "bundle")
    options = ("--workers", "1", "--quiet")
    assert run(["submit", str(bundle), str(some), *options, "-o", str(target)]) == 3
    out, err = capsys.readouterr()
    answers = read_csv(target)
    assert set(answers) == {p.name for p in some.iterdir()}
    assert answers["nobody.mp4"] == answers["broken.mp4"] == 0.5
    detector = load(threads=1, keep_evidence=False)
    for kind in ("real", "fake"):
        verdict = detector.detect(SAMPLES / f"{kind}.mp4")
        assert answers[f"{kind}0.mp4"] == pytest.approx(verdict.probability, abs=1e-3)
    assert answers["real0.mp4"] < answers["fake0.mp4"]
    assert "2 of 4 videos have no score (no_face 1, unreadable 1): label 0.5" in err
    assert f"{target}: 4 videos, 2 of them not scored" in out
    assert len(target.read_text().splitlines()) == 5


def test_scores_are_submitted_with_the_policy_asked_for(report, tmp_path, capsys):
    target = tmp_path / "submission.csv"
    scores = str(report / "scores.csv")
    assert run(["submit", "frame_lite0", scores, "--missing", "0.8", "-o", str(target)]) == 3
    answers = read_csv(target)
    assert answers["nobody.mp4"] == answers["broken.mp4"] == 0.8
    rows, _ = read_scores(scores)
    for row in rows:
        if row.probability is not None:
            assert answers[row.path] == pytest.approx(row.probability, abs=1e-9)
    assert "label 0.8" in capsys.readouterr().err


def test_a_manifest_is_submitted_and_scored(manifest, tmp_path, capsys):
    some = tmp_path / "some.parquet"
    from tellframe.data.manifest import read_manifest

    wanted = ("real0.mp4", "fake0.mp4")
    write_manifest([v for v in read_manifest(manifest) if v.video in wanted], some)
    target = tmp_path / "submission.csv"
    options = ("--workers", "1", "--quiet", "-o", str(target))
    assert run(["submit", "frame_lite0", str(some), *options]) == 0
    assert capsys.readouterr().err == ""
    assert run(["score", str(target), str(some)]) == 0
    out = capsys.readouterr().out
    assert "videos: 2 (1 FAKE)" in out
    assert "ROC-AUC: 1.00000" in out
    assert run(["score", str(target), str(manifest)]) == 2
    assert "7 files are missing: broken.mp4" in capsys.readouterr().err


def test_names_that_are_there_twice_are_found_before_the_work(samples, folder, capsys):
    (folder / "deep").mkdir(exist_ok=True)
    (folder / "deep" / "real0.mp4").symlink_to(samples / "real.mp4")
    try:
        assert run(["submit", "frame_lite0", str(folder), "-o", str(folder / "s.csv")]) == 2
    finally:
        shutil.rmtree(folder / "deep")
    err = capsys.readouterr().err
    assert "there more than once" in err
    assert "deep/real0.mp4" in err
    assert not (folder / "s.csv").exists()


@pytest.mark.parametrize(
    ("videos", "message"),
    [
        (["no-such.mp4"], "no such file"),
        (["{folder}"], "no video in this folder"),
        (["{folder}"], "1 file passed over, whose name does not end as a video's does"),
        (["a.parquet", "b.mp4"], "give one manifest"),
        (["x.mp4", "--missing", "2"], "--missing"),
    ],
)
def test_nothing_to_submit(videos, message, tmp_path, capsys):
    (tmp_path / "odd.2024").touch()
    given = [v.format(folder=tmp_path) for v in videos]
    assert run(["submit", "frame_lite0", *given, "-o", str(tmp_path / "s.csv")]) == 2
    assert message in capsys.readouterr().err
