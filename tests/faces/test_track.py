"""Tracks: each person keeps an identity, whatever the order of faces; false faces are dropped."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tellframe.faces import track
from tellframe.faces.looks import Looks, look_at
from tellframe.faces.track import FaceTrack, Sighting, Tracker, keep_people, least_sightings
from tellframe.types import FAR_APART, Face

STAGE = np.full((90, 160, 3), 90, np.uint8)
OTHER_STAGE = np.full((90, 160, 3), 200, np.uint8)


def draw_looks(person: int, change: float = 0.0, seed: int | None = None, noise: float = 0.0):
    """A crop (64, 64, 3): a pattern of its own for every person, its halves moved apart."""
    y, x = np.mgrid[:64, :64]
    rng = np.random.default_rng(person)
    picture = np.zeros((64, 64, 3))
    for channel, angle in enumerate(rng.uniform(0, np.pi, 3)):
        along = (x + change * np.sign(y - 32)) * np.cos(angle) + y * np.sin(angle)
        picture[..., channel] = 128 + 90 * np.sin(along / rng.uniform(8, 14) + rng.uniform(0, 6))
    picture += np.random.default_rng(seed).normal(0, noise, picture.shape) if noise else 0
    return picture.clip(0, 255).astype(np.uint8)


def see(position, x, y, size, person, *, time=None, **looks) -> Sighting:
    """A sighting whose confidence names the person, so that tests can tell who is who."""
    box = np.array([x - size / 2, y - size / 2, x + size / 2, y + size / 2], np.float32)
    face = Face(box, np.zeros((5, 2), np.float32), person / 10)
    time = float(position) if time is None else time
    crop = draw_looks(person, **looks)
    return Sighting(position, time, face, crop, crop)


def follow(frames, stages=None) -> list[FaceTrack]:
    tracker = Tracker()
    for sightings, stage in itertools.zip_longest(frames, stages or (), fillvalue=STAGE):
        tracker.begin_frame(stage)
        tracker.update(list(sightings))
    return tracker.finish()


def persons(found: FaceTrack) -> list[int]:
    return [round(10 * s.face.confidence) for s in found.sightings]


def positions(found: FaceTrack) -> list[int]:
    return [s.position for s in found.sightings]


def as_sets(tracks: list[FaceTrack]) -> set[frozenset[tuple[int, bytes]]]:
    return {frozenset((s.position, s.face.box.tobytes()) for s in t.sightings) for t in tracks}


# --- who is who -------------------------------------------------------------------------------


def crossing(order=(0, 1)):
    """Two people of the same size walk through each other: at the middle they change sides."""
    for position in range(11):
        here = (
            see(position, 100 + 20 * position, 100, 60, 1),
            see(position, 300 - 20 * position, 104, 60, 2),
        )
        yield [here[i] for i in order]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_people_who_cross_keep_their_identity(order):
    tracks = follow(crossing(order))
    assert sorted(persons(t) for t in tracks) == [[1] * 11, [2] * 11]


def test_order_within_frames_means_nothing():
    frames = [list(frame) for frame in crossing()]
    rng = np.random.default_rng(0)
    for _ in range(20):
        shuffled = [[frame[i] for i in rng.permutation(len(frame))] for frame in frames]
        assert as_sets(follow(shuffled)) == as_sets(follow(frames))


people = st.lists(
    st.tuples(
        st.integers(1, 6),
        st.floats(0, 600, width=32),
        st.floats(0, 400, width=32),
        st.floats(20, 120, width=32),
    ),
    min_size=0,
    max_size=4,
    unique_by=lambda p: p[1:],
)


@settings(max_examples=40)
@given(st.lists(people, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_permuting_faces_never_changes_the_tracks(frames, random):
    seen = [
        [see(n, x, y, size, person) for person, x, y, size in frame]
        for n, frame in enumerate(frames)
    ]
    shuffled = [random.sample(frame, len(frame)) for frame in seen]
    tracks = follow(seen)
    assert as_sets(follow(shuffled)) == as_sets(tracks)
    # Every sighting lies in exactly one track, and no track has two faces of one frame.
    assert sum(len(t.sightings) for t in tracks) == sum(len(frame) for frame in seen)
    for found in tracks:
        assert positions(found) == sorted(set(positions(found)))


def test_people_beside_each_other_stay_apart():
    frames = [[see(n, 100, 100, 60, 1), see(n, 165, 100, 60, 2)] for n in range(8)]
    frames[3].reverse()
    assert sorted(persons(t) for t in follow(frames)) == [[1] * 8, [2] * 8]


def test_who_comes_later_is_numbered_later():
    frames = [[see(n, 100, 100, 60, 1)] for n in range(6)]
    for n in (2, 3, 4):
        frames[n].insert(0, see(n, 400, 100, 90, 2))
    assert [persons(t)[0] for t in follow(frames)] == [1, 2]


def test_of_two_who_come_together_the_left_one_is_first():
    frames = [[see(n, 400, 100, 90, 1), see(n, 100, 100, 40, 2)] for n in range(4)]
    assert [persons(t)[0] for t in follow(frames)] == [2, 1]


# --- what the same person may do --------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.25, 1 / 1.25])
def test_a_face_that_grows_or_shrinks_is_one_person(factor):
    frames = [[see(n, 200, 150, 40 * factor**n, 1)] for n in range(8)]
    assert [persons(t) for t in follow(frames)] == [[1] * 8]


@pytest.mark.parametrize(
    ("shift", "ratio", "num_tracks"),
    [(1.4, 1.0, 1), (1.6, 1.0, 2), (0.0, 1.7, 1), (0.0, 1.9, 2), (0.0, 1 / 1.7, 1)],
)
def test_limits_of_movement_and_growth(shift, ratio, num_tracks):
    size = 60
    shifted = 200 + shift * (size + size * ratio) / 2
    frames = [[see(0, 200, 150, size, 1)], [see(1, shifted, 150, size * ratio, 1)]]
    assert len(follow(frames)) == num_tracks


@pytest.mark.parametrize(
    ("recoloured", "relit", "num_tracks"),
    [
        (track.NEW_FACE + 0.01, track.NEW_LIGHT + 1, 2),
        (track.NEW_FACE - 0.01, track.NEW_LIGHT + 1, 1),  # new light on the same colours
        (track.NEW_FACE + 0.01, track.NEW_LIGHT - 1, 1),  # hardly any difference
    ],
)
def test_another_look_is_another_person(recoloured, relit, num_tracks):
    first, second = see(0, 200, 150, 60, 1), see(1, 200, 150, 60, 1)
    colours = first.looks.colours * (1 - recoloured)
    colours[:, -1] += recoloured
    second.looks = Looks(first.looks.thumbnail + np.float32(relit), colours)
    assert len(follow([[first], [second]])) == num_tracks


def test_two_people_at_one_place_are_two_where_the_cut_is_not_seen():
    frames = [[see(n, 200, 150, 60, 1 if n < 4 else 2)] for n in range(8)]
    for sighting in (frame[0] for frame in frames[4:]):
        sighting.looks = look_at(np.full((32, 32, 3), 230, np.uint8), 8)
    assert [persons(t) for t in follow(frames)] == [[1] * 4, [2] * 4]


@pytest.mark.parametrize(
    ("gap_frames", "gap_seconds", "num_tracks"),
    [
        (1, 0.1, 1),
        (3, 60.0, 1),  # few frames, sampled far apart
        (30, 1.9, 1),  # many frames, sampled close together
        (4, 2.1, 2),
    ],
)
def test_a_gap_is_bridged_unless_it_is_long_in_frames_and_in_time(
    gap_frames, gap_seconds, num_tracks
):
    frames = [[see(0, 200, 150, 60, 1, time=0.0)]]
    frames += [[] for _ in range(gap_frames - 1)]
    frames.append([see(gap_frames, 205, 150, 60, 1, time=gap_seconds)])
    tracks = follow(frames)
    assert len(tracks) == num_tracks
    assert [n for t in tracks for n in positions(t)] == [0, gap_frames]


def test_a_scene_cut_ends_all_tracks():
    frames = [[see(n, 200, 150, 60, 1)] for n in range(8)]
    tracker = Tracker()
    for n, sightings in enumerate(frames):
        assert tracker.begin_frame(STAGE if n < 5 else OTHER_STAGE) == (n == 5)
        tracker.update(sightings)
    tracks = tracker.finish()
    assert tracker.num_cuts == 1
    assert [positions(t) for t in tracks] == [[0, 1, 2, 3, 4], [5, 6, 7]]
    assert [t.scene_frames for t in tracks] == [5, 3]


def test_a_cut_without_faces_ends_tracks_as_well():
    frames = [[see(0, 200, 150, 60, 1)], [], [see(2, 200, 150, 60, 1)]]
    assert len(follow(frames)) == 1
    assert len(follow(frames, [STAGE, OTHER_STAGE, OTHER_STAGE])) == 2
    assert len(follow(frames, [STAGE, OTHER_STAGE, STAGE])) == 2


@pytest.mark.parametrize(
    ("brighter", "share", "num_cuts"),
    [
        (50, 1.0, 1),
        (30, 1.0, 0),  # new light on the same colours
        (track.NEW_LIGHT - 5, 1.0, 0),  # a flash
        (100, 0.3, 0),  # somebody came
        (100, 0.5, 1),
    ],
)
@pytest.mark.parametrize("bars", [0, 40])
def test_what_counts_as_a_cut(brighter, share, num_cuts, bars):
    before, after = STAGE.copy(), STAGE.copy()
    after[: round(len(after) * share)] += np.uint8(brighter)
    before[:, :bars] = after[:, :bars] = 0  # what is black in both says nothing about a cut
    before[:, 160 - bars :] = after[:, 160 - bars :] = 0
    tracker = Tracker()
    for stage in (before, after, after):
        tracker.begin_frame(stage)
    assert tracker.num_cuts == num_cuts


def test_frames_may_change_their_size():
    tracker = Tracker()
    tracker.begin_frame(STAGE)
    tracker.update([see(0, 80, 45, 30, 1)])
    tracker.begin_frame(np.full((720, 1280, 3), 90, np.uint8))
    tracker.update([see(1, 82, 45, 30, 1)])
    assert tracker.num_cuts == 0
    assert len(tracker.finish()) == 1


def test_no_faces_no_tracks():
    assert follow([[], [], []]) == []
    assert follow([]) == []
    assert keep_people([], 10, 1.0) == ([], {})


# --- what is no living face -------------------------------------------------------------------


def living(person=1, count=10, x=200.0, size=60.0):
    return FaceTrack([see(n, x, 150, size, person, change=4 * np.sin(2 * n)) for n in range(count)])


def still(person=2, count=10, x=205.0, size=30.0, noise=2.0):
    """A print on the chest of `living`: always the same crop, but for the noise of the camera."""
    looks = [{"noise": noise, "seed": 100 * person + n} for n in range(count)]
    return FaceTrack([see(n, x + n, 240, size, person, **looks[n]) for n in range(count)])


def names(tracks) -> list[int]:
    return [persons(t)[0] for t in tracks]


@pytest.mark.parametrize("order", [1, -1])
def test_a_print_is_dropped_beside_a_living_face(order):
    kept, dropped = keep_people([living(), still()][::order], 10, 1.0)
    assert names(kept) == [1]
    assert dropped == {"print": 1}


@pytest.mark.parametrize("size", [30.0, 60.0])
def test_where_all_is_still_nothing_is_dropped(size):
    tracks = [still(1, size=60.0), still(2, size=size), still(3, size=20.0)]
    kept, dropped = keep_people(tracks, 10, 1.0)
    assert names(kept) == [1, 2, 3]
    assert not dropped


@pytest.mark.parametrize(("together", "kept_names"), [(0, [1, 2]), (4, [1, 2]), (5, [1])])
def test_a_print_hangs_where_a_living_face_is(together, kept_names):
    """A calm person in another shot of an edited video is no print."""
    calm = still()
    for sighting in calm.sightings:
        sighting.position += 10 - together
    kept, dropped = keep_people([living(), calm], 20, 1.0)
    assert names(kept) == kept_names
    assert dropped["print"] == 2 - len(kept_names)


def test_a_still_face_alone_is_kept():
    kept, dropped = keep_people([still()], 10, 1.0)
    assert names(kept) == [2]
    assert not dropped


def test_two_living_people_are_kept():
    kept, dropped = keep_people([living(1), living(2, x=400.0, size=30.0)], 10, 1.0)
    assert names(kept) == [1, 2]
    assert not dropped


def test_two_sightings_are_too_few_to_call_a_face_a_print():
    kept, dropped = keep_people([living(count=8), still(count=2)], 8, 1.0)
    assert names(kept) == [1, 2]
    assert not dropped


@pytest.mark.parametrize(
    ("seen", "num_frames", "dropped"),
    [(1, 10, 1), (2, 10, 0), (1, 5, 0), (2, 30, 1), (3, 30, 0), (3, 300, 0), (1, 2, 0)],
)
def test_a_short_lived_face_is_dropped_and_counted(seen, num_frames, dropped):
    tracks = [living(count=num_frames), living(2, count=seen)]
    kept, causes = keep_people(tracks, num_frames, FAR_APART)
    assert causes["short"] == dropped
    assert names(kept) == [1, 2][: 2 - dropped]
    assert (seen < least_sightings(num_frames, FAR_APART)) == bool(dropped)


@pytest.mark.parametrize(("scene_frames", "dropped"), [(1, 0), (4, 0), (5, 1), (None, 1)])
def test_who_fills_a_short_scene_does_not_flash_up(scene_frames, dropped):
    brief = FaceTrack([see(n, 400, 100, 60, 2) for n in (18, 19)], scene_frames)
    kept, counted = keep_people([living(), brief], 20, 1.0)
    assert counted["short"] == dropped == 2 - len(kept)


@pytest.mark.parametrize(("seen", "num_frames"), [(1, 10), (1, 40), (2, 40)])
def test_in_frames_that_lie_far_apart_nobody_is_short_lived(seen, num_frames):
    spacing = FAR_APART + 0.1
    tracks = [living(count=num_frames), living(2, count=seen)]
    kept, causes = keep_people(tracks, num_frames, spacing)
    assert names(kept) == [1, 2]
    assert not causes
    assert least_sightings(num_frames, spacing) == 1


def test_where_all_are_short_lived_the_longest_is_kept():
    kept, dropped = keep_people([living(1, 1), living(2, 2), living(3, 1)], 40, 1.0)
    assert names(kept) == [2]
    assert dropped == {"short": 2}


def test_one_frame_is_enough_where_there_is_only_one():
    kept, dropped = keep_people([living(count=1)], 1, 1.0)
    assert names(kept) == [1]
    assert not dropped


def test_size_is_the_median():
    found = FaceTrack([see(n, 100, 100, size, 1) for n, size in enumerate((40, 60, 500))])
    assert found.size == pytest.approx(60)


def test_the_order_of_tracks_is_kept():
    tracks = [living(1), still(2), living(4, x=400.0), living(3, x=600.0)]
    kept, dropped = keep_people(tracks, 10, 1.0)
    assert names(kept) == [1, 4, 3]
    assert dropped == {"print": 1}
