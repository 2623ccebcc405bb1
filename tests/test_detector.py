"""The main job on the sample clips."""

import dataclasses

import numpy as np
import pytest

import tellframe
from tellframe.errors import BundleError, ConfigError, MediaError, RecipeMismatchError
from tellframe.types import Clip, Label, Reason

LABELS = {
    "real": (Label.REAL, [Label.REAL]),
    "fake": (Label.FAKE, [Label.FAKE]),
    "two_people": (Label.FAKE, [Label.REAL, Label.FAKE]),  # from left to right
}


@pytest.fixture(scope="module")
def detector():
    return tellframe.load()


@pytest.mark.parametrize("name", LABELS)
def test_the_samples_get_the_right_verdict(detector, samples, name):
    verdict = detector.detect(samples / f"{name}.mp4")
    label, people = LABELS[name]
    assert verdict.label is label
    from_left = sorted(verdict.people, key=lambda p: p.moments[0].box[0])
    assert [p.label for p in from_left] == people
    assert verdict.probability == max(p.probability for p in verdict.people)
    assert verdict.faces is verdict.people
    assert verdict.media.codec == "h264"
    assert verdict.model.recipe_digest == detector.recipe.digest
    for p in verdict.people:
        assert 0 <= p.start <= p.end <= verdict.media.duration
        assert p.frames == len(p.moments) == len(p.evidence.crops) == len(p.evidence.heat)


def test_people_are_told_apart_by_place(detector, samples):
    verdict = detector.detect(samples / "two_people.mp4")
    left, right = sorted(verdict.people, key=lambda p: p.moments[0].box[0])
    assert all(m.box[0] + m.box[2] < verdict.media.width for m in left.moments)
    assert all(m.box[0] + m.box[2] > verdict.media.width for m in right.moments)


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
    clips = tellframe.load(num_frames=2).extract(samples / "real.mp4").clips
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
