"""Groups and splits: what belongs together stays together, and stays where it was."""

from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tellframe.data.manifest import Video, require_no_leak
from tellframe.data.splits import (
    Policy,
    Ties,
    assign_splits,
    draw_split,
    name_groups,
    parse_held_out,
    parse_shares,
)
from tellframe.errors import LeakError, UsageError

SHARES = (("train", 0.6), ("validation", 0.2), ("test", 0.2))

# Originals r0 to r9, of which not all are in the data set; fakes are made from one or two of them.
REALS = st.integers(0, 9).map("r{}".format)
FAKES = st.dictionaries(
    st.integers(0, 40).map("f{}".format), st.lists(REALS, min_size=1, max_size=2), max_size=30
)
GRAPHS = st.tuples(st.sets(REALS, max_size=6), FAKES)


def to_ties(reals, fakes):
    return [Ties(r) for r in sorted(reals)] + [Ties(f, tuple(o)) for f, o in fakes.items()]


def groups_of(ties):
    return dict(zip((t.key for t in ties), name_groups(ties), strict=True))


@given(GRAPHS)
def test_no_split_leaks(graph):
    ties = to_ties(*graph)
    videos = [
        Video(t.key, "", group=group) for t, group in zip(ties, name_groups(ties), strict=True)
    ]
    videos = assign_splits(videos, Policy(SHARES))
    require_no_leak(videos)
    assert all(v.split for v in videos)
    # Not only by the name of the group: nothing in one split is connected to anything in another.
    sides = defaultdict(set)
    for tie, video in zip(ties, videos, strict=True):
        for key in (tie.key, *tie.links):
            sides[key].add(video.split)
    assert all(len(s) == 1 for s in sides.values())


@given(GRAPHS, GRAPHS, st.randoms())
def test_more_videos_move_no_group_unless_they_unite_it(old, new, random):
    before = to_ties(*old)
    after = to_ties(old[0] | new[0], new[1] | old[1])
    random.shuffle(after)
    first, second = groups_of(before), groups_of(after)
    originals = defaultdict(set)
    for tie in after:
        originals[second[tie.key]] |= {k for k in (tie.key, *tie.links) if k.startswith("r")}
    for key, group in first.items():
        known = {k for t in before if first[t.key] == group for k in (t.key, *t.links)}
        united = originals[second[key]] - known
        assert second[key] == group or united


@given(GRAPHS, st.randoms())
def test_order_does_not_matter(graph, random):
    ties = to_ties(*graph)
    first = groups_of(ties)
    random.shuffle(ties)
    assert groups_of(ties) == first


@pytest.mark.parametrize(
    ("ties", "groups"),
    [
        ([Ties("r"), Ties("f", ("r",))], ["r", "r"]),
        ([Ties("a", ("r",)), Ties("b", ("r",))], ["r", "r"]),  # the original is missing
        ([Ties("a", ("r", "s")), Ties("s"), Ties("t")], ["r", "r", "t"]),
        ([Ties("a", ("a",)), Ties("b", ("c",)), Ties("c", ("b",))], ["a", "b", "b"]),
        ([Ties("a", group="g"), Ties("b", ("a",)), Ties("c", group="g")], ["g"] * 3),
        ([Ties("a", group="a"), Ties("z", group="a"), Ties("0", ("z",))], ["a"] * 3),
        ([Ties("a", pair="1"), Ties("b", pair="1"), Ties("c")], ["pair 1", "pair 1", "c"]),
        (
            [Ties("a", people=("x",)), Ties("b", people=("x", "y")), Ties("c", people=("y",))],
            ["person x"] * 3,
        ),
        ([Ties("a", people=("x",)), Ties("b", ("a",)), Ties("c")], ["person x", "person x", "c"]),
    ],
)
def test_names_of_groups(ties, groups):
    assert name_groups(ties) == groups


def test_same_content_unites():
    assert name_groups([Ties("a"), Ties("b"), Ties("c")], [("c", "a")]) == ["a", "b", "a"]


def test_a_long_chain_is_no_trouble():
    ties = [Ties(f"{i}", (f"{i + 1}",)) for i in range(20_000)]
    assert set(name_groups(ties)) == {"20000"}


def test_shares_are_kept_and_every_value_is_known():
    names = [f"DFDC/{i}.mp4" for i in range(20_000)]
    count = Counter(draw_split(name, SHARES) for name in names)
    for split, share in SHARES:
        assert count[split] / len(names) == pytest.approx(share, abs=0.01)
    # Stored manifests rely on it: these must never change.
    drawn = " ".join(draw_split(n, SHARES) for n in names[:12])
    assert drawn == (
        "train train train train train train validation test train validation test validation"
    )


@pytest.mark.parametrize("order", ["train,test", "test,train"])
def test_training_holds_out_its_share_of_every_split(order):
    """Both follow from the names of the groups, but have nothing to do with each other."""
    held_out = pytest.importorskip(
        "tellframe.train.data", reason="needs the training extra"
    ).held_out
    shares = [(name, {"train": 0.8, "test": 0.2}[name]) for name in order.split(",")]
    names = [f"DFDC/{i}.mp4" for i in range(20_000)]
    held = [held_out(name, 0.12) for name in names if draw_split(name, shares) == "train"]
    assert sum(held) / len(held) == pytest.approx(0.12, abs=0.01)


@pytest.mark.parametrize(
    "text", ["", "train", "train=", "=1", "train=x", "train=0.5", "a=0.5,a=0.5", "a=1.5,b=-0.5"]
)
def test_shares_that_make_no_sense(text):
    with pytest.raises(UsageError, match="--split"):
        parse_shares(text)


def test_shares_in_any_order():
    assert parse_shares("b=0.9, a=0.1") == (("b", 0.9), ("a", 0.1))


@pytest.mark.parametrize("texts", [["p"], ["=p"], ["v="], ["v=p,"], ["v=p", "t=p"]])
def test_held_out_that_makes_no_sense(texts):
    with pytest.raises(UsageError, match="--hold-out"):
        parse_held_out(texts)


def test_held_out():
    assert parse_held_out(["v=1,2", "t=3"]) == {"1": "v", "2": "v", "3": "t"}


VIDEOS = [
    Video("a", "", group="1", part="p0", split="train"),
    Video("b", "", group="1", part="p1"),
    Video("c", "", group="2", part="p1", split="test"),
    Video("d", "", group="3", part="p2"),
]


@pytest.mark.parametrize(
    ("policy", "splits"),
    [
        (Policy(), ["train", "", "test", ""]),
        (Policy((("x", 1.0),)), ["train", "", "test", "x"]),
        (Policy((("x", 1.0),), ignore_given=True), ["x"] * 4),
        (Policy(ignore_given=True), [""] * 4),
        (Policy(held_out={"p0": "v"}), ["v", "v", "test", ""]),
        (Policy((("x", 1.0),), {"p1": "v"}), ["v", "v", "v", "x"]),
        (Policy(held_out={"p0": "v", "p2": "t"}), ["v", "v", "test", "t"]),
    ],
)
def test_policies(policy, splits):
    assert [v.split for v in assign_splits(VIDEOS, policy)] == splits


def test_parts_that_share_a_group_cannot_be_held_out_apart():
    with pytest.raises(LeakError, match="a in 'v', b in 't'"):
        assign_splits(VIDEOS, Policy(held_out={"p0": "v", "p1": "t"}))


def test_a_part_that_is_not_there():
    with pytest.raises(UsageError, match="no part is called p9; there are p0, p1, p2"):
        assign_splits(VIDEOS, Policy(held_out={"p9": "v"}))
