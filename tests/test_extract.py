"""From a video to clips, with a face detector that finds what the test says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tellframe.errors import MediaNotFoundError
from tellframe.extract import extract_clips, leaves_out
from tellframe.faces.align import brighten, crop_face
from tellframe.recipe import Recipe
from tellframe.types import Clip, Face
from tellframe.video import list_frames, read_frames, sample_uniform

COUNT, WIDTH, HEIGHT = 60, 160, 96
RECIPE = Recipe(num_frames=6, crop_size=32, margin=0.0, search_every=0.0)


class FakeDetector:
    """Finds the faces that `find` returns for the number of the call, from 0."""

    name = "fake"

    def __init__(self, find: Callable[[int], list[Face]]) -> None:
        self.find = find
        self.seen: list[np.ndarray] = []

    def detect(self, image) -> list[Face]:
        self.seen.append(image)
        return self.find(len(self.seen) - 1)

    def follow(self, image, _faces) -> list[Face]:
        return self.detect(image)


def make_face(x: float, y: float, size: float = 30, confidence: float = 0.9) -> Face:
    half = size / 2
    box = np.array([x - half, y - half, x + half, y + half], np.float32)
    return Face(box, np.full((5, 2), [x, y], np.float32), confidence)


def draw_scene(number: int, width: int, height: int):
    """A room with a round face that wanders to the right, different in its upper half each time."""
    y, x = np.mgrid[:height, :width]
    image = np.full((height, width, 3), 100.0)
    image[..., 1] += 20 * np.sin(x / 9)
    inside = np.hypot(x - face_centre(number), y - 48) < 14
    image[inside] = [200, 150, 130]
    image[inside & (y < 44)] += [10 * np.sin(number), 0, 30 * np.sin(number / 2)]
    return image.clip(0, 255).astype(np.uint8)


def face_centre(number: int) -> float:
    return 40 + number


@pytest.fixture(scope="module")
def scene(make_video, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("extract") / "scene.mp4"
    return make_video(path, COUNT, size=(WIDTH, HEIGHT), draw=draw_scene, gop=20)


@pytest.fixture(scope="module")
def wanted(scene) -> list[int]:
    return sample_uniform(list_frames(scene).times, RECIPE.num_frames).tolist()


def find_wanderer(wanted) -> FakeDetector:
    return FakeDetector(lambda n: [make_face(face_centre(wanted[n]), 48, confidence=0.9 + n / 100)])


def test_one_person(scene, wanted):
    extraction = extract_clips(scene, RECIPE, find_wanderer(wanted))
    (clip,) = extraction.clips
    assert clip.person == 1
    assert clip.pixels.shape == (6, 32, 32, 3)
    assert clip.pixels.dtype == np.uint8
    assert clip.times.shape == clip.valid.shape == clip.confidence.shape == (6,)
    assert (clip.times.dtype, clip.valid.dtype) == (np.float64, np.bool_)
    assert (clip.boxes.dtype, clip.confidence.dtype) == (np.float32, np.float32)
    assert clip.valid.all()
    assert clip.num_valid == 6
    assert clip.face_size == 30
    assert clip.recipe_digest == RECIPE.digest
    np.testing.assert_allclose(clip.times, np.array(wanted) / 25)
    np.testing.assert_allclose(clip.boxes[:, 0], [face_centre(w) - 15 for w in wanted])
    np.testing.assert_allclose(clip.confidence, 0.9 + np.arange(6) / 100, rtol=1e-6)
    assert extraction.media.num_frames == COUNT
    assert not extraction.media.partial
    assert extraction.counters == {
        "frames_sampled": 6,
        "faces_detected": 6,
        "scene_cuts": 0,
        "dropped_short": 0,
        "dropped_print": 0,
    }


def test_crops_are_cut_from_the_frames(scene, wanted):
    (clip,) = extract_clips(scene, RECIPE, find_wanderer(wanted)).clips
    frames = read_frames(scene, list_frames(scene), wanted)
    for n, frame in enumerate(frames):
        face = make_face(face_centre(wanted[n]), 48)
        np.testing.assert_array_equal(clip.pixels[n], crop_face(frame.image, face, RECIPE))


def test_the_same_call_gives_the_same_bytes(scene, wanted):
    first, second = (
        extract_clips(scene, RECIPE, find_wanderer(wanted), threads=threads) for threads in (1, 3)
    )
    assert first.counters == second.counters
    assert first.media == second.media
    for a, b in zip(first.clips, second.clips, strict=True):
        for field in dataclasses.fields(Clip):
            np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


def test_frames_without_the_person_are_not_valid(scene, wanted):
    def find(n: int) -> list[Face]:
        return [] if n in (1, 4) else [make_face(face_centre(wanted[n]), 48)]

    extraction = extract_clips(scene, RECIPE, FakeDetector(find))
    (clip,) = extraction.clips
    assert clip.valid.tolist() == [True, False, True, True, False, True]
    assert clip.num_valid == 4
    assert not clip.pixels[~clip.valid].any()
    assert not clip.boxes[~clip.valid].any()
    assert not clip.confidence[~clip.valid].any()
    assert clip.pixels[clip.valid].any(axis=(1, 2, 3)).all()
    assert (np.diff(clip.times) > 0).all()
    assert extraction.counters["faces_detected"] == 4


def test_two_people_are_two_clips_in_order_of_appearance(scene, wanted):
    def find(n: int) -> list[Face]:
        first = make_face(face_centre(wanted[n]), 48, 28)
        second = make_face(130 - n, 75, 34)
        return [first] if n < 2 else [second, first]

    first, second = extract_clips(scene, RECIPE, FakeDetector(find)).clips
    assert (first.person, second.person) == (1, 2)
    assert first.face_size == 28
    assert second.face_size == 34
    assert first.valid.all()
    assert second.valid.tolist() == [False, False, True, True, True, True]
    np.testing.assert_array_equal(first.times, second.times)


def test_a_false_face_is_dropped_and_counted(scene, wanted):
    def find(n: int) -> list[Face]:
        faces = [make_face(face_centre(wanted[n]), 48)]
        return [*faces, make_face(20, 20, 25)] if n == 3 else faces

    extraction = extract_clips(scene, RECIPE, FakeDetector(find))
    assert [clip.face_size for clip in extraction.clips] == [30]
    assert extraction.counters["dropped_short"] == 1
    assert extraction.counters["faces_detected"] == 7


@pytest.mark.parametrize("seen", range(6))
@pytest.mark.parametrize("search_every", [0.0, 2.99])
def test_who_is_seen_in_one_frame_of_a_long_video_is_kept(seen, search_every, make_video, tmp_path):
    """A minute of a film of six: the verdict must not pass over it. In the last frame, too."""
    seconds = [60.0 * n for n in range(6)]
    path = make_video(tmp_path / "a.mkv", size=(WIDTH, HEIGHT), seconds=seconds, draw=draw_scene)

    def find(n: int) -> list[Face]:
        faces = [make_face(face_centre(n), 48)]
        return [*faces, make_face(120, 48, 40)] if n == seen else faces

    recipe = dataclasses.replace(RECIPE, search_every=search_every)
    extraction = extract_clips(path, recipe, FakeDetector(find))
    assert sorted(clip.num_valid for clip in extraction.clips) == [1, 6]
    assert extraction.counters["dropped_short"] == 0
    assert extraction.media.sampled_every == 60


def test_how_far_apart_the_frames_lie_is_said(scene, wanted):
    media = extract_clips(scene, RECIPE, find_wanderer(wanted)).media
    assert media.sampled_every == pytest.approx(10 / 25)
    alone = dataclasses.replace(RECIPE, num_frames=1)
    assert extract_clips(scene, alone, find_wanderer(wanted)).media.sampled_every == 0


@pytest.mark.parametrize(
    ("limits", "kept"), [({"max_faces": 2}, 2), ({"keep_all": False}, 1), ({"max_faces": 3}, 3)]
)
def test_faces_beyond_the_limit_of_a_frame_are_counted(limits, kept, scene):
    def find(n: int) -> list[Face]:
        return [make_face(30 + 50 * k, 48, 40 - k) for k in range(3)]

    extraction = extract_clips(scene, dataclasses.replace(RECIPE, **limits), FakeDetector(find))
    assert [clip.face_size for clip in extraction.clips] == [40, 39, 38][:kept]
    assert extraction.counters["faces_detected"] == 6 * kept
    assert extraction.counters.get("dropped_faces", 0) == 6 * (3 - kept)
    assert leaves_out(extraction.counters) == (kept < 3)


@pytest.mark.parametrize(("search_every", "searched"), [(0.0, 6), (0.01, 5), (99.0, 1)])
def test_who_comes_in_the_last_frame_is_not_looked_for(search_every, searched, scene, wanted):
    class Detector(FakeDetector):
        followed = 0

        def follow(self, image, _faces) -> list[Face]:
            self.followed += 1
            return self.detect(image)

    detector = Detector(find_wanderer(wanted).find)
    (clip,) = extract_clips(
        scene, dataclasses.replace(RECIPE, search_every=search_every), detector
    ).clips
    assert clip.valid.all()
    assert detector.followed == len(wanted) - searched


def test_a_video_without_a_face_gives_no_clips(scene):
    extraction = extract_clips(scene, RECIPE, FakeDetector(lambda n: []))
    assert extraction.clips == ()
    assert extraction.counters["frames_sampled"] == 6
    assert extraction.counters["faces_detected"] == 0
    assert extraction.media.num_frames == COUNT


def test_a_scene_cut_is_counted_and_ends_the_person(make_video, tmp_path):
    def draw(number: int, width: int, height: int):
        return np.full((height, width, 3), 40 if number < 30 else 200, np.uint8)

    path = make_video(tmp_path / "a.mp4", COUNT, size=(WIDTH, HEIGHT), draw=draw)
    extraction = extract_clips(path, RECIPE, FakeDetector(lambda n: [make_face(80, 48)]))
    assert extraction.counters["scene_cuts"] == 1
    assert [clip.valid.tolist() for clip in extraction.clips] == [
        [True, True, True, False, False, False],
        [False, False, False, True, True, True],
    ]


@pytest.fixture(scope="module")
def edited(make_video, tmp_path_factory) -> Path:
    """Eight seconds, six pictures in each: a scene of four seconds, and one more."""

    def draw(number: int, width: int, height: int):
        return np.full((height, width, 3), 40 if number < 24 else 200, np.uint8)

    path = tmp_path_factory.mktemp("edited") / "a.mkv"
    times = [n / 6 for n in range(48)]
    return make_video(path, size=(WIDTH, HEIGHT), seconds=times, draw=draw)


@pytest.mark.parametrize(
    ("num_frames", "look_closer", "seen"),
    [
        (4, False, [2, 2]),
        (4, True, [8, 8]),  # every half second
        (2, True, [6, 6]),  # at most six times as many
        (6, True, [3, 3]),  # everybody was seen often enough
    ],
)
def test_who_is_seen_too_seldom_is_looked_at_closer(num_frames, look_closer, seen, edited):
    recipe = dataclasses.replace(RECIPE, num_frames=num_frames)
    detector = FakeDetector(lambda n: [make_face(80, 48)])
    extraction = extract_clips(edited, recipe, detector, look_closer=look_closer)
    assert [clip.num_valid for clip in extraction.clips] == seen
    assert extraction.counters["frames_sampled"] == sum(seen) <= recipe.most_frames
    assert extraction.media.num_asked == extraction.media.num_decoded == sum(seen)


def test_what_was_seen_as_a_whole_is_not_searched_again(make_video, tmp_path):
    def draw(number: int, width: int, height: int):
        return np.full((height, width, 3), 40 if number < 2 else 200, np.uint8)

    times = [2.0 * n for n in range(4)]
    path = make_video(tmp_path / "a.mkv", size=(WIDTH, HEIGHT), seconds=times, draw=draw)
    detector = FakeDetector(lambda n: [make_face(80, 48)])
    extraction = extract_clips(path, dataclasses.replace(RECIPE, num_frames=4), detector)
    assert [clip.num_valid for clip in extraction.clips] == [2, 2]
    assert len(detector.seen) == 4


def test_in_one_scene_that_is_short_nobody_is_looked_at_closer(scene):
    """Who comes for a moment of a few seconds: the frames that were asked for are enough."""
    recipe = dataclasses.replace(RECIPE, num_frames=2)
    detector = FakeDetector(lambda n: [make_face(80, 48)])
    extraction = extract_clips(scene, recipe, detector, look_closer=True)
    assert extraction.counters["frames_sampled"] == len(detector.seen) == 2


@pytest.mark.parametrize(("num_frames", "sampled"), [(1, 1), (7, 7), (500, COUNT)])
def test_as_many_frames_as_asked_for_and_present(num_frames, sampled, scene):
    recipe = dataclasses.replace(RECIPE, num_frames=num_frames)
    detector = FakeDetector(lambda n: [make_face(80, 48)])
    extraction = extract_clips(scene, recipe, detector)
    assert extraction.counters["frames_sampled"] == sampled == len(detector.seen)
    assert extraction.clips[0].pixels.shape == (sampled, 32, 32, 3)
    assert not extraction.media.partial


def test_sampling_policy_start(scene):
    recipe = dataclasses.replace(RECIPE, sampling="start")
    (clip,) = extract_clips(scene, recipe, FakeDetector(lambda n: [make_face(50, 48)])).clips
    np.testing.assert_allclose(clip.times, np.arange(6) / 25)


def test_the_digest_names_the_recipe(scene):
    other = dataclasses.replace(RECIPE, margin=0.2)
    digests = {
        extract_clips(scene, recipe, FakeDetector(lambda n: [make_face(80, 48)]))
        .clips[0]
        .recipe_digest
        for recipe in (RECIPE, other)
    }
    assert digests == {RECIPE.digest, other.digest}


@pytest.mark.parametrize("crops", [False, True])
def test_dark_frames_are_brightened_for_the_detector(crops, make_video, tmp_path):
    def draw(number: int, width: int, height: int):
        return draw_scene(number, width, height) // 5

    path = make_video(tmp_path / "dark.mp4", 6, size=(WIDTH, HEIGHT), draw=draw)
    recipe = dataclasses.replace(RECIPE, brighten_crops=crops)
    detector = FakeDetector(lambda n: [make_face(face_centre(n), 48)])
    (clip,) = extract_clips(path, recipe, detector).clips
    for n, frame in enumerate(read_frames(path, list_frames(path), range(6))):
        bright = brighten(frame.image, recipe.brighten_below)
        assert bright.mean() > 2 * frame.image.mean()
        np.testing.assert_array_equal(detector.seen[n], bright)
        face = make_face(face_centre(n), 48)
        expected = crop_face(bright if crops else frame.image, face, recipe)
        np.testing.assert_array_equal(clip.pixels[n], expected)


def test_a_cut_file_is_partial_and_still_gives_clips(make_video, tmp_path):
    how = {"container_options": {"movflags": "faststart"}}
    path = make_video(tmp_path / "a.mp4", COUNT, size=(WIDTH, HEIGHT), draw=draw_scene, **how)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    extraction = extract_clips(path, RECIPE, FakeDetector(lambda n: [make_face(60, 48)]))
    assert extraction.media.partial
    assert len(extraction.clips) == 1
    assert extraction.counters["frames_sampled"] >= RECIPE.num_frames - 1


def test_frames_that_cannot_be_decoded_make_it_partial(make_video, tmp_path, monkeypatch):
    path = make_video(tmp_path / "a.mp4", COUNT, size=(WIDTH, HEIGHT), draw=draw_scene)

    def read_fewer(path, listing, wanted, **options):
        return read_frames(path, listing, wanted[:4], **options)

    monkeypatch.setattr("tellframe.extract.read_frames", read_fewer)
    extraction = extract_clips(path, RECIPE, FakeDetector(lambda n: [make_face(60, 48)]))
    assert extraction.media.partial
    assert extraction.counters["frames_sampled"] == 4
    assert extraction.clips[0].pixels.shape[0] == 4


def test_errors_pass_through(tmp_path):
    with pytest.raises(MediaNotFoundError, match=r"none\.mp4"):
        extract_clips(tmp_path / "none.mp4", RECIPE, FakeDetector(lambda n: []))


def test_clips_survive_the_disk(scene, wanted, tmp_path):
    clips = extract_clips(scene, RECIPE, find_wanderer(wanted)).clips
    for clip in clips:
        fields = {f.name: getattr(clip, f.name) for f in dataclasses.fields(Clip)}
        np.savez(tmp_path / f"{clip.person}.npz", **fields)
        with np.load(tmp_path / f"{clip.person}.npz", allow_pickle=False) as stored:
            assert set(stored) == set(fields)
            for name, value in fields.items():
                if isinstance(value, np.ndarray):
                    assert stored[name].tobytes() == value.tobytes()
                    assert (stored[name].dtype, stored[name].shape) == (value.dtype, value.shape)
                else:
                    assert stored[name].item() == value


def test_frames_take_turns_at_the_scales_of_the_crop(scene, wanted):
    scales = (1.0, 0.8, 0.6)
    recipe = dataclasses.replace(RECIPE, crop_scales=scales)
    (clip,) = extract_clips(scene, recipe, find_wanderer(wanted)).clips
    frames = list(read_frames(scene, list_frames(scene), wanted))
    for n, frame in enumerate(frames):
        face = make_face(face_centre(wanted[n]), 48)
        expected = crop_face(frame.image, face, recipe, scales[n % 3])
        np.testing.assert_array_equal(clip.pixels[n], expected)


def test_the_scale_of_the_crop_does_not_tear_a_person_apart(scene, wanted):
    recipe = dataclasses.replace(RECIPE, crop_scales=(1.0, 0.3))
    found = extract_clips(scene, recipe, find_wanderer(wanted))
    assert len(found.clips) == 1
    assert found.clips[0].valid.all()
