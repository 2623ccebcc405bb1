"""What is kept of the judgement of a video."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="needs the extra: pip install 'tellframe[data]'")
pytest.importorskip("pyarrow", reason="needs the extra: pip install 'tellframe[data]'")

from tellframe.bundle import load_bundle
from tellframe.data.cut import Outcome, VideoRecord, load_cutter
from tellframe.data.manifest import Video
from tellframe.evaluate.score import extract_whole, judge_clips
from tellframe.scoring import Calibration, Decision, judge_person
from tellframe.types import Clip, Label, Reason

CALIBRATION = Calibration(slope=0.5)


def make_clip(person, luma, size):
    """Return a person of so bright pixels and so large a face; the last frame does not count."""
    pixels = np.full((5, 8, 8, 3), luma, np.uint8)
    pixels[-1] = 255
    return Clip(
        person=person,
        pixels=pixels,
        times=np.arange(5.0),
        valid=np.arange(5) < 4,
        boxes=np.tile(np.float32([0, 0, size, size]), (5, 1)),
        landmarks=np.zeros((5, 5, 2), np.float32),
        confidence=np.ones(5, np.float32),
        recipe_digest="",
    )


class Judge:
    """A detector that gives every person a logit of their own."""

    bundle = SimpleNamespace(calibration=CALIBRATION, decision=Decision())

    def __init__(self, logits):
        self.logits = logits

    def judge(self, clips):
        return tuple(
            judge_person(clip, np.full(4, logit), None, CALIBRATION, Decision())
            for clip, logit in zip(clips, self.logits, strict=True)
        )


@pytest.mark.parametrize("worst", [0, 1, 2])
def test_what_is_told_of_a_person_is_of_the_most_suspicious(worst):
    clips = [make_clip(n + 1, 50 * (n + 1), 100 * (n + 1)) for n in range(3)]
    logits = [-3.0 - n for n in range(3)]
    logits[worst] = 4.0
    found = judge_clips(Judge(logits), VideoRecord("v.mp4", Outcome.OK, codec="h264"), clips)
    assert found.brightness == pytest.approx(50 * (worst + 1), abs=0.5)
    assert found.face_size == 100 * (worst + 1)
    assert found.logit == pytest.approx(4.0)
    assert (found.people, found.verdict, found.codec) == (3, Label.FAKE, "h264")


@pytest.mark.parametrize(("most", "reasons"), [(1, (Reason.PERSON_NOT_JUDGED,)), (2, ())])
def test_who_was_left_out_is_a_reason_as_it_is_for_detect(samples, most, reasons):
    recipe = dataclasses.replace(load_bundle().recipe, num_frames=4, max_faces=most)
    video = Video("v.mp4", str(samples / "two_people.mp4"))
    record, clips = extract_whole(load_cutter(recipe, ""), video)
    assert len(clips) == most
    found = judge_clips(Judge([-4.0] * most), record, [make_clip(n, 90, 100) for n in range(most)])
    assert (found.verdict, found.reasons) == (Label.REAL, reasons)
