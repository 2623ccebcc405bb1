"""The index: every layout is recognised, every problem is found, hostile input does no harm."""

from __future__ import annotations

import json
import os
import time
import zipfile

import pytest

pytest.importorskip("pyarrow")

from tellframe.cli import run
from tellframe.data import sources, tables
from tellframe.data.index import CODES, LAYOUTS, index_sources
from tellframe.data.layouts import parse_metadata
from tellframe.data.manifest import read_manifest
from tellframe.data.media import open_video
from tellframe.data.splits import Policy
from tellframe.errors import DataError, LeakError, UsageError
from tellframe.limits import ArchiveLimits


def real(split="train"):
    return {"label": "REAL", "split": split, "original": None}


def fake(original, split="train"):
    return {"label": "FAKE", "split": split, "original": original}


def write(folder, files):
    """Write files below a folder: {name: content}; JSON and its own name where that is no text."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, dict):
            content = json.dumps(content)
        path.write_bytes(content if isinstance(content, bytes) else (content or name).encode())
    return folder


def pack(path, files):
    """Write a zip; files as a list of pairs, or as for `write`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items() if isinstance(files, dict) else files:
            if isinstance(content, dict):
                content = json.dumps(content)
            archive.writestr(name, content if isinstance(content, bytes) else content or name)
    return path


def names(count, *folders):
    return {f"{folder}/{i}.mp4": "" for folder in folders for i in range(count)}


def index(*places, **options):
    """Index; return the videos by name, and the codes of all problems with where they are."""
    problems = []
    found = index_sources([str(p) for p in places], problems, **options)
    assert {p.code for p in problems} <= set(CODES)
    return {v.video: v for v in found.videos}, sorted((p.code, p.where) for p in problems)


PART_0 = {"a.mp4": "", "b.mp4": "", "c.mp4": "", "metadata.json": {
    "a.mp4": real(), "b.mp4": fake("a.mp4"), "c.mp4": fake("a.mp4")}}  # fmt: skip
PART_1 = {"d.mp4": "", "e.mp4": "", "metadata.json": {"d.mp4": real(), "e.mp4": fake("d.mp4")}}
DFDC_NAMES = {
    "dfdc_train_part_0": {"a.mp4", "b.mp4", "c.mp4"},
    "dfdc_train_part_1": {"d.mp4", "e.mp4"},
}


def below(folder, files):
    return {f"{folder}/{name}": content for name, content in files.items()}


def as_folders(root):
    write(root / "dfdc_train_part_0", PART_0)
    write(root / "dfdc_train_part_1", PART_1)
    return [root]


def as_nested_folders(root):
    write(root / "train/x/dfdc_train_part_0", PART_0)
    write(root / "train/y/dfdc_train_part_1", PART_1)
    return [root]


def as_zips(root):
    pack(root / "dfdc_train_part_00.zip", below("dfdc_train_part_0", PART_0))
    pack(root / "dfdc_train_part_1.zip", below("dfdc_train_part_1", PART_1))
    return [root]


def as_flat_zips(root):
    pack(root / "deep/dfdc_train_part_00.zip", PART_0)
    pack(root / "deep/dfdc_train_part_01.zip", PART_1)
    return [root]


def as_zip_arguments(root):
    as_zips(root)
    return sorted(root.iterdir())


def as_folder_and_zip(root):
    write(root / "dfdc_train_part_0", PART_0)
    return [root / "dfdc_train_part_0", pack(root / "dfdc_train_part_1.zip", PART_1)]


def as_one_zip(root):
    files = below("dfdc_train_part_0", PART_0) | below("dfdc_train_part_1", PART_1)
    return [pack(root / "all.zip", files)]


@pytest.mark.parametrize(
    "lay",
    [
        as_folders,
        as_nested_folders,
        as_zips,
        as_flat_zips,
        as_zip_arguments,
        as_folder_and_zip,
        as_one_zip,
    ],
)
def test_dfdc_is_the_same_however_it_lies(tmp_path, lay):
    videos, problems = index(*lay(tmp_path))
    assert problems == []
    assert set(videos) == {f"{p}/{n}" for p, some in DFDC_NAMES.items() for n in some}
    video = videos["dfdc_train_part_0/b.mp4"]
    assert (video.label, video.original) == ("FAKE", "dfdc_train_part_0/a.mp4")
    assert (video.part, video.source, video.split) == ("dfdc_train_part_0", "DFDC", "train")
    originals = {"dfdc_train_part_0/a.mp4", "dfdc_train_part_1/d.mp4"}
    assert {v.group for v in videos.values()} == originals
    assert all(v.group == "dfdc_train_part_0/a.mp4" for v in videos.values() if v.part[-1] == "0")
    for v in videos.values():
        assert os.path.isabs(v.location)  # noqa: PTH117
        with open_video(v) as path, open(path, "rb") as file:  # noqa: PTH123
            assert file.read().decode().endswith(v.video.split("/")[1])


FACEFORENSICS = [
    "original_sequences/youtube/c23/videos/033.mp4",
    "original_sequences/youtube/c23/videos/097.mp4",
    "original_sequences/youtube/c40/videos/033.mp4",
    "original_sequences/youtube/c23/videos/500.mp4",
    "original_sequences/actors/c23/videos/01__walking_down.mp4",
    "original_sequences/actors/c23/videos/01__kitchen_pan.mp4",
    "manipulated_sequences/Deepfakes/c23/videos/033_097.mp4",
    "manipulated_sequences/Face2Face/c40/videos/097_033.mp4",
    "manipulated_sequences/DeepFakeDetection/c23/videos/01_02__walking_down__YVGY8LOK.mp4",
    "manipulated_sequences/Deepfakes/masks/videos/033_097.mp4",
]


@pytest.mark.parametrize("root", ["", "FaceForensics++", "some/where"])
def test_faceforensics(tmp_path, root):
    write(tmp_path / root, dict.fromkeys(FACEFORENSICS, ""))
    videos, problems = index(tmp_path)
    assert problems == []
    assert set(videos) == set(FACEFORENSICS[:-1])
    assert [videos[n].label for n in FACEFORENSICS[:-1]] == ["REAL"] * 6 + ["FAKE"] * 3
    swap, other, acted = (videos[n] for n in FACEFORENSICS[6:9])
    assert swap.original == FACEFORENSICS[0]
    assert (swap.method, swap.part, swap.source) == (
        "Deepfakes",
        "Deepfakes/c23",
        "FaceForensics++",
    )
    assert other.original == FACEFORENSICS[1]  # of another compression, but the only one there is
    assert acted.original == FACEFORENSICS[4]
    assert swap.group == other.group == "FaceForensics++/youtube/033"
    assert acted.group == "FaceForensics++/actors/01__walking_down"
    assert len({v.group for v in videos.values()}) == 4
    videos, _ = index(tmp_path, by_person=True)
    assert videos[FACEFORENSICS[5]].group == "person FaceForensics++ actor 01"
    assert len({v.group for v in videos.values()}) == 3


CELEBDF = {
    "Celeb-real/id0_0000.mp4": "",
    "Celeb-real/id0_0001.mp4": "",
    "Celeb-real/id1_0000.mp4": "",
    "Celeb-synthesis/id0_id1_0000.mp4": "",
    "Celeb-synthesis/id0_id2_0000.mp4": "",
    "YouTube-real/00000.mp4": "",
    "List_of_testing_videos.txt": "1 Celeb-real/id0_0001.mp4\n1 YouTube-real/00000.mp4\n"
    "0 Celeb-synthesis/id0_id1_0000.mp4\n",
}


def test_celebdf(tmp_path):
    videos, problems = index(write(tmp_path / "v2", CELEBDF))
    assert problems == []
    assert set(videos) == set(list(CELEBDF)[:-1])
    swap = videos["Celeb-synthesis/id0_id1_0000.mp4"]
    assert (swap.label, swap.original) == ("FAKE", "Celeb-real/id0_0000.mp4")
    assert (swap.part, swap.source, swap.split) == ("Celeb-synthesis", "Celeb-DF", "test")
    assert videos["YouTube-real/00000.mp4"].label == "REAL"
    assert videos["Celeb-synthesis/id0_id2_0000.mp4"].group == swap.group == "Celeb-DF/id0_0000"
    assert len({v.group for v in videos.values()}) == 4
    videos, _ = index(tmp_path / "v2", by_person=True)
    assert len({v.group for v in videos.values()}) == 3


def test_the_test_set_of_celebdf_stays_what_it_is(tmp_path):
    """The published list puts fakes in the test set whose originals are not in it."""
    videos, _ = index(write(tmp_path, CELEBDF), policy=Policy((("train", 1.0),)))
    assert {n for n, v in videos.items() if v.split == "test"} == {
        "Celeb-real/id0_0001.mp4", "YouTube-real/00000.mp4", "Celeb-synthesis/id0_id1_0000.mp4"
    }  # fmt: skip
    assert {n for n, v in videos.items() if v.split == "train"} == {"Celeb-real/id1_0000.mp4"}


def test_two_versions_of_celebdf_are_told_apart_and_kept_together(tmp_path):
    write(tmp_path / "v1", CELEBDF)
    write(tmp_path / "v2", CELEBDF)
    for places in ([tmp_path], [tmp_path / "v1", tmp_path / "v2"]):
        videos, problems = index(*places)
        assert len(videos) == 12
        assert {c for c, _ in problems} == {"duplicate_content"}
        assert (
            videos["v2/Celeb-synthesis/id0_id1_0000.mp4"].original == "v2/Celeb-real/id0_0000.mp4"
        )
        assert len({v.group for v in videos.values()}) == 4


def test_csv(tmp_path):
    write(tmp_path, {"set/real/a.mp4": "", "set/fake/a.mp4": "", "b.mp4": "bb", "c.mov": "ccc"})
    (tmp_path / "set/labels.csv").write_text(
        "\ufeffpath,label,pair,group,split,method,note,original,source,part\n"
        'real/a.mp4,REAL,1,,dev,none,"x, y",,,\n'
        "./fake/a.mp4,fake,1,,dev,swap,,,,\n"
        f"{tmp_path}/b.mp4,FAKE,,g,train,,,../c.mov,mine,p7\n"
        "../c.mov,real\n"
    )
    videos, problems = index(tmp_path / "set/labels.csv")
    assert problems == []
    b = f"{tmp_path}/b.mp4".lstrip("/")
    assert set(videos) == {"real/a.mp4", "fake/a.mp4", b, "c.mov"}
    assert videos["fake/a.mp4"].original == "real/a.mp4"
    assert {videos[n].group for n in ("fake/a.mp4", "real/a.mp4")} == {"pair 1"}
    assert videos["fake/a.mp4"].location == f"{tmp_path}/set/fake/a.mp4"
    assert (videos["real/a.mp4"].method, videos["fake/a.mp4"].method) == ("", "swap")
    assert (videos["real/a.mp4"].source, videos["real/a.mp4"].part) == ("set", "real")
    assert (videos[b].original, videos[b].group) == ("c.mov", "g")
    assert (videos[b].source, videos[b].part, videos[b].split) == ("mine", "p7", "train")
    assert (videos["c.mov"].label, videos["c.mov"].group) == ("REAL", "g")


def test_a_pair_with_two_real_videos_names_no_original(tmp_path):
    write(tmp_path, {"a.mp4": "", "bb.mp4": "", "ccc.mp4": ""})
    (tmp_path / "l.csv").write_text(
        "path,label,pair\na.mp4,REAL,1\nbb.mp4,REAL,1\nccc.mp4,FAKE,1\n"
    )
    videos, problems = index(tmp_path / "l.csv")
    assert (videos["ccc.mp4"].original, problems) == ("", [])
    assert len({v.group for v in videos.values()}) == 1


def test_plain(tmp_path):
    write(tmp_path / "set", {"a.mp4": "", "x/b.MOV": "bb", "x/notes.txt": "", ".trash/c.mp4": ""})
    pack(tmp_path / "set/y.zip", {"d.mkv": "ddd", "__MACOSX/._d.mkv": "?", "._d.mkv": "?"})
    videos, problems = index(tmp_path / "set")
    assert problems == []
    assert set(videos) == {"a.mp4", "x/b.MOV", "y/d.mkv"}
    assert {(v.label, v.split, v.original, v.source) for v in videos.values()} == {
        ("", "", "", "set")
    }
    assert [v.part for v in videos.values()] == ["set", "x", "y"]
    assert len({v.group for v in videos.values()}) == 3


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    write(tmp_path / "elsewhere", {"a.mp4": ""})
    (tmp_path / "set").mkdir()
    (tmp_path / "set/part").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/up").symlink_to(tmp_path / "set")
    videos, problems = index(tmp_path / "set")
    assert (set(videos), problems) == ({"part/a.mp4"}, [])


def test_sources_that_share_names_are_told_apart(tmp_path):
    write(tmp_path / "x/videos", {"a.mp4": "1"})
    write(tmp_path / "y/videos", {"a.mp4": "22", "b.mp4": "333"})
    write(tmp_path / "z", {"c.mp4": "4444"})
    expected = {"x/videos/a.mp4", "y/videos/a.mp4", "y/videos/b.mp4", "c.mp4"}
    places = [tmp_path / "x/videos", tmp_path / "y/videos", tmp_path / "z"]
    for order in (places, places[::-1]):
        videos, problems = index(*order)
        assert (set(videos), problems) == (expected, [])


def test_layout_can_be_forced(tmp_path):
    write(tmp_path / "dfdc_train_part_0", PART_0)
    videos, _ = index(tmp_path, layout="plain")
    assert {v.label for v in videos.values()} == {""}
    with pytest.raises(UsageError, match="--layout csv"):
        index(tmp_path, layout="csv")
    assert set(LAYOUTS) == {"dfdc", "csv", "faceforensics", "celebdf", "plain"}


def test_two_layouts_in_one_source_are_refused(tmp_path):
    write(tmp_path, dict.fromkeys(FACEFORENSICS, "") | CELEBDF)
    with pytest.raises(UsageError, match="looks like faceforensics and celebdf"):
        index(tmp_path)


def edit_part(**changes):
    """Return PART_0 with files changed; None removes one."""
    files = {**PART_0, **{k.replace("_", ".", 1): v for k, v in changes.items()}}
    return {k: v for k, v in files.items() if v is not None}


def meta(**rows):
    return {f"{name}.mp4": row for name, row in rows.items()}


A, B, C = real(), fake("a.mp4"), fake("a.mp4")
PROBLEMS = [
    (edit_part(metadata_json=None), "no_metadata", "p", "dfdc"),
    (edit_part(metadata_json=b"{"), "damaged_metadata", "p", ""),
    (edit_part(metadata_json=b"[" * 100_000), "damaged_metadata", "p", ""),
    (edit_part(metadata_json=b"[]"), "damaged_metadata", "p", ""),
    (edit_part(metadata_json=b"\xff{}"), "damaged_metadata", "p", ""),
    (edit_part(metadata_json=b"9" * 5000), "damaged_metadata", "p", ""),
    (edit_part(metadata_json=meta(a=A, b=B, c=[])), "damaged_metadata", "p", ""),
    (edit_part(metadata_json=meta(a=A, b=B, c={"label": 1})), "damaged_metadata", "p", ""),
    (edit_part(metadata_json=meta(a=A, b=B, c=fake({}))), "damaged_metadata", "p", ""),
    (edit_part(metadata_json=meta(a=A, b=B, c=real("\ud800"))), "damaged_metadata", "p", ""),
    (edit_part(metadata_json=meta(a=A, b=B, c=C, x=real())), "label_without_file", "p/x.mp4", ""),
    (edit_part(metadata_json=meta(a=A, b=B)), "file_without_label", "p/c.mp4", ""),
    (edit_part(metadata_json=meta(a=A, b=B, c={})), "file_without_label", "p/c.mp4", ""),
    (edit_part(metadata_json=meta(a=A, b=B, c=fake("x.mp4"))), "missing_original", "p/c.mp4", ""),
    (edit_part(metadata_json=meta(a=A, b=B, c={"label": "X"})), "unknown_label", "p/c.mp4", ""),
    (edit_part(c_mp4="b.mp4"), "duplicate_content", "p/c.mp4", ""),
    (
        edit_part(metadata_json=meta(a=A, b=B, c=fake("b.mp4"))),
        "original_label_mismatch",
        "p/c.mp4",
        "",
    ),
    (edit_part(metadata_json=meta(a=A, b=B, c=fake("../a.mp4"))), "bad_name", "p/c.mp4", ""),
    (edit_part(c_mp4=b"", metadata_json=meta(a=A, b=B, c=C)), "empty_file", "p/c.mp4", ""),
    (
        edit_part(metadata_json=json.dumps(meta(a=A, b=B, c=C))[:-1] + ', "a.mp4": {}}'),
        "duplicate_name",
        "p/a.mp4",
        "",
    ),
]


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(
    ("files", "code", "where", "layout"),
    PROBLEMS,
    ids=[f"{i}-{p[1]}" for i, p in enumerate(PROBLEMS)],
)
def test_problems(tmp_path, files, code, where, layout, zipped):
    if files.get("c.mp4") == b"" and zipped:
        files = files | {"c.mp4": b""}
    place = pack(tmp_path / "p.zip", files) if zipped else write(tmp_path / "p", files)
    videos, problems = index(place, layout=layout)
    found = [p for p in problems if not (p[0] == "file_without_label" and p[1] == "p/a.mp4")]
    assert found == [(code, where)]
    assert set(videos) == {f"p/{n}" for n in files if n.endswith(".mp4") and files[n] != b""}
    if code in ("no_metadata", "damaged_metadata"):
        assert {v.label for v in videos.values()} == {""}


@pytest.mark.parametrize(
    ("limit", "value"), [("bytes", 100), ("depth", 1), ("entries", 1)], ids=str
)
def test_metadata_beyond_the_limits_is_not_read(limit, value, tmp_path):
    limits = ArchiveLimits(**{f"metadata_{limit}": value})
    for place in (write(tmp_path / "p", PART_0), pack(tmp_path / "q.zip", PART_0)):
        problems = []
        found = index_sources([str(place)], problems, limits=limits)
        assert [p.code for p in problems] == ["damaged_metadata"]
        assert f"--max-metadata-{limit}" in problems[0].what
        assert {v.label for v in found.videos} == {""}
        assert index(place)[1] == []


@pytest.mark.parametrize("value", [[[[{}]]], {"a": {"b": {"c": []}}}])
def test_metadata_is_no_deeper_than_the_limit(value):
    content = json.dumps({"a.mp4": {"label": "FAKE", "more": value}}).encode()
    assert parse_metadata(content, "x", ArchiveLimits(metadata_depth=6)).rows
    with pytest.raises(DataError, match="more than 5 deep; see --max-metadata-depth"):
        parse_metadata(content, "x", ArchiveLimits(metadata_depth=5))
    with pytest.raises(DataError, match="x: "):
        parse_metadata(b'{"a":' * 100_000, "x", ArchiveLimits(metadata_depth=10**9))


@pytest.mark.parametrize(
    "option",
    [
        *("zip-directory", "zip-entries", "zip-ratio", "zip-bytes"),
        *("metadata-bytes", "metadata-depth", "metadata-entries"),
    ],
)
def test_limits_are_options(option, tmp_path, capsys):
    """Each changes what is read, and none is taken that is not above 0."""
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in PART_0.items():
            archive.writestr(name, json.dumps(content) if content else name.encode() * 999)
        for number in range(400):  # a directory longer than what is read of every zip
            archive.writestr(f"{'long' * 40}{number}", b"")
    arguments = ["index", str(tmp_path / "p.zip"), "-o", str(tmp_path / "m.parquet")]
    assert run(arguments) == 0
    assert "--max-" not in capsys.readouterr().err
    run([*arguments, f"--max-{option}", "1"])
    assert f"see --max-{option}" in capsys.readouterr().err
    assert run([*arguments, f"--max-{option}", "0"]) == 2
    assert "give more than 0" in capsys.readouterr().err


LETTERS = "aaqaifqrwn.mp4"  # as in DFDC itself, unlike a.mp4


def test_fakes_of_a_missing_original_share_a_group(tmp_path):
    write(tmp_path / "p", {"b.mp4": "", "metadata.json": meta(b=fake(LETTERS))})
    write(tmp_path / "q", {"c.mp4": "", "metadata.json": meta(c=fake(LETTERS))})
    videos, problems = index(tmp_path)
    assert [code for code, _ in problems] == ["missing_original"] * 2
    assert {v.group for v in videos.values()} == {f"DFDC/{LETTERS}"}
    assert [v.original for v in videos.values()] == [f"p/{LETTERS}", f"q/{LETTERS}"]


def test_an_original_in_another_part_is_found(tmp_path):
    write(tmp_path / "p", {"b.mp4": "", "metadata.json": meta(b=fake(LETTERS))})
    write(tmp_path / "q", {LETTERS: "", "metadata.json": {LETTERS: real()}})
    for places in ([tmp_path], [tmp_path / "p", tmp_path / "q"]):
        videos, problems = index(*places)
        assert (videos["p/b.mp4"].original, problems) == (f"q/{LETTERS}", [])
        assert len({v.group for v in videos.values()}) == 1


def test_plain_names_count_within_their_part(tmp_path):
    write(
        tmp_path / "p",
        {"1.mp4": "p1", "2.mp4": "p_2", "metadata.json": {"1.mp4": A, "2.mp4": fake("1.mp4")}},
    )
    write(
        tmp_path / "q",
        {"1.mp4": "q__1", "2.mp4": "q___2", "metadata.json": {"1.mp4": A, "2.mp4": fake("3.mp4")}},
    )
    videos, problems = index(tmp_path)
    assert problems == [("missing_original", "q/2.mp4")]
    assert [v.group for v in videos.values()] == ["p/1.mp4", "p/1.mp4", "q/1.mp4", "q/3.mp4"]


HOSTILE = ["../x.mp4", "/x.mp4", "p/../../x.mp4", "C:/x.mp4", "p\\x.mp4", "p/x\n.mp4", "p//x.mp4"]


@pytest.mark.parametrize("name", [*HOSTILE, "p/\x1b[31m.mp4", "./x.mp4", "p/\0/x.mp4"])
def test_hostile_names_in_zips_are_left_out(tmp_path, name):
    data = pack(tmp_path / "a.zip", {name.replace("\0", "~"): "", "p/y.mp4": ""}).read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(b"p/~/", b"p/\0/") if "\0" in name else data)
    videos, problems = index(tmp_path / "a.zip")
    assert set(videos) == {"p/y.mp4"}
    assert [code for code, _ in problems] == ["bad_name"]


@pytest.mark.parametrize("name", [b"x\n.mp4", b"\xff.mp4"])
def test_hostile_names_in_folders_are_left_out(tmp_path, name):
    write(tmp_path, {"y.mp4": ""})
    (tmp_path / os.fsdecode(name)).write_bytes(b"x")
    videos, problems = index(tmp_path)
    assert set(videos) == {"y.mp4"}
    assert [code for code, _ in problems] == ["bad_name"]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_the_last_of_two_members_of_one_name_counts(tmp_path):
    place = pack(tmp_path / "a.zip", [("a.mp4", "old"), ("b.mp4", "bb"), ("a.mp4", "newer")])
    videos, problems = index(place)
    assert [code for code, _ in problems] == ["duplicate_name"]
    with open_video(videos["a.mp4"]) as path, open(path, "rb") as file:  # noqa: PTH123
        assert file.read() == b"newer"


def test_a_source_given_twice_counts_once(tmp_path):
    write(tmp_path / "p", PART_0)
    videos, problems = index(tmp_path / "p", tmp_path / "p")
    assert len(videos) == 3
    assert {code for code, _ in problems} == {"duplicate_name"}


def test_a_damaged_zip_among_others(tmp_path):
    as_zips(tmp_path)
    (tmp_path / "dfdc_train_part_2.zip").write_bytes(b"no zip")
    videos, problems = index(tmp_path)
    assert len(videos) == 5
    assert problems == [("unreadable_source", f"{tmp_path}/dfdc_train_part_2.zip")]
    with pytest.raises(DataError, match=r"no video was found in .* not a zip"):
        index(tmp_path / "dfdc_train_part_2.zip")


def test_encrypted_members_are_reported(tmp_path):
    data = bytearray(pack(tmp_path / "a.zip", {"a.mp4": ""}).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "a.zip").write_bytes(data)
    videos, problems = index(tmp_path / "a.zip")
    assert videos["a.mp4"].encrypted
    assert [code for code, _ in problems] == ["unreadable_member"]


CSV_PROBLEMS = [
    ("path,label\na.mp4,REAL\nx.mp4,FAKE\n", ("label_without_file", "x.mp4")),
    ("path,label\na.mp4,REAL\nfolder.mp4,FAKE\n", ("label_without_file", "folder.mp4")),
    (f"path,label\na.mp4,REAL\n{'x' * 5000},FAKE\n", ("label_without_file", "x" * 5000)),
    ("path,label\na.mp4,\n", ("file_without_label", "a.mp4")),
    ("path,label\na.mp4,1\n", ("unknown_label", "a.mp4")),
    ("path,label\na.mp4,REAL\n\x1b.mp4,REAL\n", ("bad_name", "\x1b.mp4")),
    ("path,label\na.mp4,REAL\n,REAL\n", ("bad_name", "")),
    ("path,label\na.mp4,REAL\n./a.mp4,REAL\n", ("duplicate_name", "a.mp4")),
    ("path,label,original\na.mp4,FAKE,x.mp4\n", ("missing_original", "a.mp4")),
]


@pytest.mark.parametrize(("text", "problem"), CSV_PROBLEMS)
def test_problems_of_a_csv(tmp_path, text, problem):
    write(tmp_path, {"a.mp4": "", "folder.mp4/x.txt": "", "l.csv": text})
    videos, problems = index(tmp_path / "l.csv")
    assert (set(videos), problems) == ({"a.mp4"}, [problem])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"path,labels\n", "lacks the columns label"),
        (b"", "lacks the columns"),
        (b"path,label\na,REAL,x\n", "line 2 has more fields"),
        (b"path,label\n\xff,REAL\n", "UTF-8"),
        (b"path,label\n\0,REAL\n", "cannot be read|no video"),
        (b'path,label\n"' + b"x" * 200_000 + b'",REAL\n', "field larger"),
        (b"path,label\n", "no video was found"),
    ],
)
def test_what_is_no_csv_is_refused(tmp_path, content, words):
    (tmp_path / "l.csv").write_bytes(content)
    with pytest.raises(DataError, match=words):
        index(tmp_path / "l.csv")


def test_a_csv_beyond_the_limit_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "MAX_TABLE", 10)
    write(tmp_path, {"l.csv": "path,label\n"})
    with pytest.raises(DataError, match="more than 10 bytes"):
        index(tmp_path / "l.csv")


def test_celebdf_list_that_contradicts(tmp_path):
    text = "0 Celeb-real/id0_0001.mp4\n1 YouTube-real/00009.mp4\n\n"
    files = CELEBDF | {"List_of_testing_videos.txt": text, "Celeb-synthesis/strange.mp4": "s"}
    _, problems = index(write(tmp_path, files | {"elsewhere.mp4": "ee"}))
    assert problems == [
        ("file_without_label", f"{tmp_path.name}/elsewhere.mp4"),
        ("label_without_file", "YouTube-real/00009.mp4"),
        ("missing_original", "Celeb-synthesis/strange.mp4"),
        ("unknown_label", "Celeb-real/id0_0001.mp4"),
    ]


def test_loose_files_are_read_only_where_sizes_collide(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "CHUNK", 1000)
    write(tmp_path, {"a.mp4": b"x" * 2500, "b.mp4": b"x" * 2500, "c.mp4": b"y" * 2499})
    problems = []
    found = index_sources([str(tmp_path)], problems)
    assert [(p.code, p.where) for p in problems] == [("duplicate_content", "b.mp4")]
    assert (found.bytes_read, found.requests) == (5000, 7)
    assert [v.crc is None for v in found.videos] == [False, False, True]
    assert len({v.group for v in found.videos}) == 2


def test_people_unite_groups(tmp_path):
    write(tmp_path / "p", PART_0)
    write(tmp_path / "q", PART_1)
    (tmp_path / "who.csv").write_text("video,person\na,anna\nq/d.mp4,anna\nq/d.mp4,ben\nzz,ben\n")
    people = tables.read_people(tmp_path / "who.csv")
    videos, problems = index(tmp_path, people=people)
    assert problems == [("person_without_file", "zz")]
    assert {v.group for v in videos.values()} == {"person anna"}


def test_held_out_part_takes_its_originals_along(tmp_path):
    write(tmp_path / "p", {"b.mp4": "", "metadata.json": meta(b=fake(LETTERS))})
    rows = {LETTERS: real(), **meta(c=fake(LETTERS), d=fake(LETTERS), x=real())}
    write(tmp_path / "q", {**dict.fromkeys(rows, ""), "x.mp4": "xxx", "metadata.json": rows})
    lines = []
    policy = Policy(held_out={"p": "test"})
    videos, _ = index(tmp_path, policy=policy, say=lines.append)
    assert {n for n, v in videos.items() if v.split == "test"} == set(videos) - {"q/x.mp4"}
    assert "3 videos of other parts are held out" in "\n".join(lines)


def test_splits_of_dfdc_give_way_and_others_stay(tmp_path):
    write(tmp_path / "p", {"a.mp4": "", "b.mp4": "bb", "metadata.json": meta(a=A, b=real("test"))})
    videos, _ = index(tmp_path, policy=Policy((("x", 1.0),)))
    assert [v.split for v in videos.values()] == ["x", "test"]


def test_a_split_of_the_source_that_leaks_is_an_error(tmp_path):
    write(
        tmp_path / "p",
        {"a.mp4": "", "b.mp4": "bb", "metadata.json": meta(a=A, b=fake("a.mp4", "test"))},
    )
    with pytest.raises(LeakError, match=r"p/a\.mp4 in 'train', p/b\.mp4 in 'test'"):
        index(tmp_path)
    videos, _ = index(tmp_path, policy=Policy((("x", 0.5), ("y", 0.5)), ignore_given=True))
    assert len({v.split for v in videos.values()}) == 1


@pytest.mark.parametrize("name", ["nothing", "nothing.zip", "nothing.csv", "a.txt", "empty", "x\n"])
def test_what_is_no_source_is_refused(tmp_path, name):
    write(tmp_path, {"a.txt": ""})
    (tmp_path / "empty").mkdir()
    with pytest.raises((DataError, UsageError), match=name.strip()):
        index(tmp_path / name)


def test_twenty_thousand_videos_take_seconds(tmp_path):
    rows = {f"r{i}.mp4": real() for i in range(4000)}
    rows |= {f"f{i}.mp4": fake(f"r{i % 4000}.mp4") for i in range(16_000)}
    pack(tmp_path / "p.zip", {n: n.encode() for n in rows} | {"metadata.json": rows})
    start = time.process_time()
    videos, problems = index(tmp_path, policy=Policy((("a", 0.5), ("b", 0.5))))
    assert (len(videos), problems) == (20_000, [])
    assert len({v.group for v in videos.values()}) == 4000
    assert time.process_time() - start < 15  # about 1 s


def test_hostile_metadata_takes_no_quadratic_time():
    pairs = ", ".join(f'"{i}": {{}}, "{i}": {{}}' for i in range(50_000))
    start = time.process_time()
    assert len(parse_metadata(f"{{{pairs}}}".encode(), "x").twice) == 50_000
    assert time.process_time() - start < 10


def test_command(tmp_path, capsys):
    write(tmp_path / "set", below("p", PART_0) | below("q", PART_1) | {"p/x\u202e.mp4": "x"})
    target, report = tmp_path / "out/m.parquet", tmp_path / "out/p.json"
    arguments = ["index", f"{tmp_path}/set", "-o", str(target), "--problems", str(report)]
    assert run([*arguments, "--split", "train=0.5,test=0.5"]) == 0
    out, err = capsys.readouterr()
    assert "6 videos (2 REAL, 3 FAKE, 1 unlabelled) in 3 groups and 2 parts" in out
    assert "problems: file_without_label 1" in out
    assert "set: dfdc, 6 videos, 1 problems" in err
    assert "x\\u202e.mp4" in err
    assert len(read_manifest(target)) == 6
    assert json.loads(report.read_text())["counts"] == {"file_without_label": 1}
    target.unlink()
    report.unlink()
    assert run([*arguments, "--strict"]) == 2
    assert "no manifest was written" in capsys.readouterr().err
    assert not target.exists()
    assert json.loads(report.read_text())["problems"][0]["code"] == "file_without_label"
    (tmp_path / "set/p/x\u202e.mp4").unlink()
    assert run([*arguments, "--strict"]) == 0


@pytest.mark.parametrize(
    "options",
    [["--split", "x"], ["--hold-out", "x"], ["--hold-out", "v=none"], ["--people", "no.csv"]],
)
def test_command_with_wrong_options(tmp_path, capsys, options):
    write(tmp_path, PART_0)
    assert run(["index", str(tmp_path), "-o", str(tmp_path / "m"), *options]) == 2
    assert "tellframe: error:" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()
