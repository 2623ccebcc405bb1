"""When a whole frame is searched, and when known faces are followed."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tellframe.faces.finder import FaceFinder
from tellframe.types import Face

FRAME = np.zeros((90, 160, 3), np.uint8)


def face(left):
    box = np.array([left, 10, left + 50, 70], dtype=np.float32)
    return Face(box, np.zeros((5, 2), np.float32), 0.9)


class Detector:
    """Notes its calls; finds and follows as many faces as it is told."""

    name = "noting"

    def __init__(self, present=1):
        self.present = present
        self.calls = []

    def detect(self, image):
        self.calls.append("search")
        return [face(10 * k) for k in range(self.present)]

    def follow(self, image, faces):
        self.calls.append("follow")
        return list(faces)[: self.present]


def calls(times, detector, every=0.99, until=math.inf):
    finder = FaceFinder(detector, every, until)
    for time in times:
        finder.find(FRAME, time)
    return detector.calls


def test_known_faces_are_followed_until_a_search_is_due():
    times = [0.0, 0.3, 0.6, 0.9, 1.2, 1.5]
    assert calls(times, Detector()) == ["search", *["follow"] * 3, "search", "follow"]


@pytest.mark.parametrize("every", [0.0, 0.99])
def test_ten_frames_of_ten_seconds_are_all_searched(every):
    assert calls(np.arange(10) + 0.5, Detector(), every) == ["search"] * 10


def test_nobody_new_is_looked_for_at_the_end():
    times = [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]
    assert calls(times, Detector(), until=2.0) == ["search", "follow"] * 2 + ["follow"] * 2
    assert calls(times, Detector(present=0), until=2.0) == ["search"] * 6


def test_frames_without_a_known_face_are_all_searched():
    assert calls([0, 0.1, 0.2], Detector(present=0)) == ["search"] * 3


def test_a_lost_face_brings_a_search_of_the_same_frame():
    detector = Detector(present=2)
    finder = FaceFinder(detector, 10.0)
    assert len(finder.find(FRAME, 0)) == 2
    detector.present = 1
    assert len(finder.find(FRAME, 0.1)) == 1
    assert detector.calls == ["search", "follow", "search"]
    finder.find(FRAME, 0.2)  # the one that is left is followed from here
    assert detector.calls[3:] == ["follow"]


def test_no_more_faces_than_the_limit_are_kept_and_the_others_counted():
    detector = Detector(present=5)
    finder = FaceFinder(detector, 1.0, most=3)
    assert [len(finder.find(FRAME, time)) for time in (0.0, 0.5, 1.0)] == [3, 3, 3]
    # Those that are followed are the three that are known, so that no more are seen.
    assert detector.calls == ["search", "follow", "search"]
    assert finder.num_cut == 4


def test_one_that_finds_all_when_it_should_follow_is_cut_likewise():
    class All(Detector):
        def follow(self, image, faces):
            self.calls.append("follow")
            return [face(10 * k) for k in range(self.present)]

    detector = All(present=5)
    finder = FaceFinder(detector, 10.0, most=3)
    assert [len(finder.find(FRAME, time)) for time in (0.0, 0.5)] == [3, 3]
    assert detector.calls == ["search", "follow"]
    assert finder.num_cut == 4


def test_a_frame_of_another_size_is_searched():
    detector = Detector()
    finder = FaceFinder(detector, 10.0)
    finder.find(FRAME, 0)
    finder.find(FRAME[:, :80], 0.1)
    assert detector.calls == ["search", "search"]


def test_the_first_frame_of_a_scene_is_searched():
    detector = Detector()
    finder = FaceFinder(detector, 10.0)
    for time, new_scene in ((0, False), (1, False), (2, True), (3, False)):
        finder.find(FRAME, time, new_scene)
    assert detector.calls == ["search", "follow", "search", "follow"]
