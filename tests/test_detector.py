"""The main job on the sample clips."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

import tellframe
from tellframe.errors import (
    BundleError,
    ConfigError,
    MediaError,
    RecipeMismatchError,
    UsageError,
)
from tellframe.scoring import Calibration, judge_video
from tellframe.types import Clip, Label, Reason

README = Path(__file__).resolve().parents[1] / "README.md"
ROW = re.compile(
    r"^ *(REAL|FAKE|INCONCLUSIVE) +([\d.]+) % +(?:samples/(\w+)\.mp4|person \d)\b", re.MULTILINE
)


def read_readme() -> dict[str, list[tuple[Label, float]]]:
    """Return what the README's first example shows of each sample: of the video, then of people."""
    block = README.read_text(encoding="utf-8").split("```console\n")[1].partition("```")[0]
    shown: dict[str, list[tuple[Label, float]]] = {}
    name = ""
    for label, percent, video in ROW.findall(block):
        name = video or name
        shown.setdefault(name, []).append((Label(label), float(percent) / 100))
    return shown


SHOWN = read_readme()


@pytest.fixture(scope="module")
def detector():
    return tellframe.load()


def test_the_readme_shows_every_sample(samples):
    assert set(SHOWN) == {path.stem for path in samples.glob("*.mp4")}


@pytest.mark.parametrize("name", SHOWN)
def test_the_samples_get_the_verdicts_of_the_readme(detector, samples, name):
    verdict = detector.detect(samples / f"{name}.mp4")
    labels, probabilities = zip(*SHOWN[name], strict=True)
    found = [verdict, *verdict.people]
    assert [v.label for v in found] == list(labels)
    # Shown to a tenth of a percent; processors round differently.
    assert [v.probability for v in found] == pytest.approx(probabilities, abs=0.005)
    assert verdict.probability == max(p.probability for p in verdict.people)
    assert verdict.faces is verdict.people
    assert verdict.media.codec == "h264"
    assert verdict.model.recipe_digest == detector.recipe.digest
    for p in verdict.people:
        assert 0 <= p.start <= p.end <= verdict.media.duration
        assert p.frames == len(p.moments) == len(p.evidence.crops) == len(p.evidence.heat)


def test_the_fake_stands_above_its_real(detector, samples):
    fake, real = (detector.detect(samples / f"{name}.mp4").probability for name in ("fake", "real"))
    assert fake > real


def test_people_are_told_apart_by_place(detector, samples):
    verdict = detector.detect(samples / "two_people.mp4")
    left, right = sorted(verdict.people, key=lambda p: p.moments[0].box[0])
    assert all(m.box[0] + m.box[2] < verdict.media.width for m in left.moments)
    assert all(m.box[0] + m.box[2] > verdict.media.width for m in right.moments)
    assert right.probability > left.probability  # the fake


def test_verdicts_repeat_exactly(detector, samples):
    first, second = (detector.detect(samples / "fake.mp4") for _ in range(2))
    assert dataclasses.replace(first, seconds=0) == dataclasses.replace(second, seconds=0)


def test_a_score_does_not_depend_on_the_company(detector):
    rng = np.random.default_rng(0)
    size = detector.recipe.crop_size
    crops = rng.integers(0, 256, (20, size, size, 3), dtype=np.uint8)
    together = detector.score(crops)[0]
    alone = np.concatenate([detector.score(c[None])[0] for c in crops])
    np.testing.assert_allclose(together, alone, atol=1e-4)


def test_the_heat_map_explains_the_logit(detector):
    rng = np.random.default_rng(0)
    size = detector.recipe.crop_size
    logits, heat = detector.score(rng.integers(0, 256, (3, size, size, 3), dtype=np.uint8))
    np.testing.assert_allclose(heat.mean(axis=(1, 2)), logits, atol=1e-4)


def test_clips_from_disk_give_the_same_verdict(detector, samples, tmp_path):
    clips = detector.extract(samples / "two_people.mp4").clips
    loaded = []
    for clip in clips:
        path = tmp_path / f"{clip.person}.npz"
        np.savez(path, **{f.name: getattr(clip, f.name) for f in dataclasses.fields(clip)})
        with np.load(path) as arrays:
            values = {k: arrays[k] for k in arrays.files}
        values |= {"person": int(values["person"]), "recipe_digest": str(values["recipe_digest"])}
        loaded.append(Clip(**values))
    for clip, again in zip(clips, loaded, strict=True):
        assert clip.pixels.tobytes() == again.pixels.tobytes()
        assert clip.boxes.tobytes() == again.boxes.tobytes()
    before, after = detector.judge(clips), detector.judge(loaded)
    assert before == after


def test_clips_of_another_recipe_are_refused(detector, samples):
    clips = tellframe.load(num_frames=3).extract(samples / "real.mp4").clips
    with pytest.raises(RecipeMismatchError, match="another"):
        detector.judge([dataclasses.replace(clips[0], recipe_digest="another")])
    with pytest.raises(RecipeMismatchError, match="extract the clip again"):
        detector.judge(clips)


def test_overrides_are_named_in_the_verdict(samples):
    verdict = tellframe.load(num_frames=4).detect(samples / "real.mp4")
    assert verdict.model.recipe_overrides == {"num_frames": 4}
    assert verdict.counters["frames_sampled"] == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [({"num_frame": 3}, "num_frames"), ({"face_detector": "haar"}, "face_detector")],
)
def test_bad_overrides_are_errors(overrides, message):
    with pytest.raises(ConfigError, match=message):
        tellframe.load(**overrides)


@pytest.mark.parametrize("overrides", [{"num_frames": 2}, {"mean": (0.4, 0.4, 0.4)}])
def test_overrides_that_can_do_no_good_are_errors(overrides):
    with pytest.raises(UsageError, match=r"INCONCLUSIVE|changes no verdict"):
        tellframe.load(**overrides)


def test_an_unreadable_file_costs_itself_alone(detector, samples, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    with pytest.raises(MediaError, match=r"bad\.mp4"):
        detector.detect(bad)
    paths = [bad, samples / "real.mp4", tmp_path / "missing.mp4"]
    verdicts = list(detector.detect_many(paths))
    assert [v.video for v in verdicts] == [str(p) for p in paths]
    assert [v.error is None for v in verdicts] == [False, True, False]
    assert verdicts[0].reasons == (Reason.UNREADABLE,)
    assert verdicts[0].probability is None


def test_golden_scores(detector):
    assert detector.check_golden() < 0.01
    wrong = dataclasses.replace(detector.bundle, golden=(1e3,))
    with pytest.raises(BundleError, match="golden scores differ"):
        tellframe.Detector(wrong, wrong.recipe, detector.face_detector).check_golden()
    without = dataclasses.replace(detector.bundle, golden=())
    with pytest.raises(BundleError, match="no golden scores"):
        tellframe.Detector(without, without.recipe, detector.face_detector).check_golden()


def test_no_clips_no_verdicts(detector):
    assert detector.judge(()) == ()


# A network that judges clips as a whole; what a real one computes is for the tests of training.


class ByRed:
    """Stands for a session: a frame scores its red, a clip its reddest frame."""

    def __init__(self):
        self.shapes = []

    def run(self, inputs):
        crops, valid = inputs["crops"], inputs["valid"]
        assert (crops.dtype, valid.dtype) == (np.uint8, np.bool_)
        assert crops.shape[:2] == valid.shape
        assert valid.all()  # frames that are not valid are not worth a run
        self.shapes.append(valid.shape)
        red = (crops[..., 0].mean(axis=(2, 3)) - 128.0) / 16
        heat = np.broadcast_to(red[..., None, None], (*red.shape, 7, 7))
        return {"logit": red.max(axis=1), "frame_logit": red, "heat": heat}


@pytest.fixture
def by_red(detector):
    bundle = dataclasses.replace(detector.bundle, kind="clip", calibration=Calibration())
    made = tellframe.Detector(bundle, bundle.recipe, detector.face_detector)
    made._network._session = ByRed()
    return made


def person(detector, number, reds, valid):
    """A clip whose frames have one colour each."""
    size, frames = detector.recipe.crop_size, len(reds)
    pixels = np.zeros((frames, size, size, 3), np.uint8)
    pixels[..., 0] = np.array(reds)[:, None, None]
    return Clip(
        person=number,
        pixels=pixels,
        times=np.arange(frames, dtype=np.float64),
        valid=np.array(valid, dtype=np.bool_),
        boxes=np.tile(np.array([0, 0, 90, 100], np.float32), (frames, 1)),
        landmarks=np.zeros((frames, 5, 2), np.float32),
        confidence=np.ones(frames, np.float32),
        recipe_digest=detector.recipe.digest,
    )


def test_a_clip_model_judges_people_one_by_one(by_red):
    clips = [
        person(by_red, 1, [64, 64, 192, 255], [1, 1, 1, 0]),
        person(by_red, 2, [255, 64, 64, 64, 64], [0, 1, 1, 1, 1]),
        person(by_red, 3, [255, 255, 255], [0, 0, 0]),
    ]
    fake, real, nobody = by_red.judge(clips)
    assert by_red._network._session.shapes == [(1, 3), (1, 4)]
    assert [p.label for p in (fake, real, nobody)] == [Label.FAKE, Label.REAL, Label.INCONCLUSIVE]
    assert fake.probability == pytest.approx(1 / (1 + np.exp(-4)))
    assert [m.time for m in fake.moments] == [0.0, 1.0, 2.0]
    assert [m.probability > 0.5 for m in fake.moments] == [False, False, True]
    assert fake.evidence.heat.shape == (3, 7, 7)
    assert (fake.evidence.crops == clips[0].pixels[:3]).all()
    assert nobody.probability is None
    # One after the other they are judged as they are together.
    assert tuple(by_red.judge([clip])[0] for clip in clips) == (fake, real, nobody)
    label, probability, _ = judge_video((fake, real, nobody), by_red.bundle.decision)
    assert (label, probability) == (Label.FAKE, fake.probability)


def test_single_crops_are_clips_of_one_frame_to_a_clip_model(by_red):
    crops = person(by_red, 1, range(0, 200, 10), [1] * 20).pixels
    logits, heat = by_red.score(crops)
    assert by_red._network._session.shapes == [(5, 1)] * 4
    np.testing.assert_allclose(logits, (np.arange(0, 200, 10) - 128) / 16)
    assert heat.shape == (20, 7, 7)


class Broken:
    """Stands for a session whose outputs are all well but for one."""

    def __init__(self, output, value, kind):
        self.output, self.value, self.kind = output, value, kind

    def run(self, inputs):
        count = len(inputs["crops"][0] if self.kind == "clip" else inputs["crops"])
        frames = {"heat": np.zeros((count, 7, 7)), "degraded": np.zeros(count)}
        if self.kind == "clip":
            frames["frame_logit"] = np.zeros(count)
            found = {"logit": np.zeros(1), **{n: v[None] for n, v in frames.items()}}
        else:
            found = {"logit": np.zeros(count), **frames}
        found[self.output].reshape(-1)[-1] = self.value
        return found


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("kind", "output"),
    [
        ("frame", "logit"),
        ("frame", "degraded"),
        ("clip", "logit"),
        ("clip", "frame_logit"),
        ("clip", "degraded"),
    ],
)
def test_a_score_that_is_no_number_is_an_error_of_the_model(detector, kind, output, value):
    bundle = dataclasses.replace(detector.bundle, kind=kind, name="odd", version="7")
    made = tellframe.Detector(bundle, bundle.recipe, detector.face_detector)
    clips = [person(made, 1, [64] * 4, [1] * 4)]
    made._network._session = Broken(output, value, kind)
    with pytest.raises(BundleError, match=rf"odd 7: .*no finite number \(output '{output}'\)"):
        made.judge(clips)
    made._network._session = Broken(output, 0.0, kind)
    assert made.judge(clips)[0].probability is not None


def test_a_clip_model_without_evidence_keeps_no_pictures(by_red):
    by_red.keep_evidence = False
    (verdict,) = by_red.judge([person(by_red, 1, [64] * 4, [1] * 4)])
    assert verdict.evidence is None
    assert by_red.judge(()) == ()
