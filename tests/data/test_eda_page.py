"""The page: complete in itself, safe with hostile names, and true to the facts."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("pyarrow", reason="needs the extra: pip install 'tellframe[data]'")
pytest.importorskip("matplotlib", reason="needs the extra: pip install 'tellframe[data]'")

from tellframe.bundle import load_bundle
from tellframe.cli import run, status
from tellframe.data.cut import VideoRecord
from tellframe.data.eda import count_by, describe, distribution
from tellframe.data.eda_cards import find_words
from tellframe.data.eda_look import Look, Pictures, draw_faces
from tellframe.data.eda_page import DARK_FRAMES, FRAMES_A_CLASS, Album, write_page
from tellframe.data.eda_plots import draw_bars, draw_histogram, load_matplotlib
from tellframe.data.manifest import Video, write_manifest
from tellframe.errors import MissingExtraError
from tellframe.types import Face

RECIPE = dataclasses.replace(load_bundle().recipe, brighten_below=60.0)
HOSTILE = "<script>alert(1)</script>/\u202egpj.\x1b[31m'\"&$x^2$ 日本語.mp4"
FRAME = draw_faces(np.full((90, 160, 3), 128, np.uint8), [])


def seen(name: str, label: str, *, level: float = 120.0, faces: int = 1) -> Look:
    """Return a look at a video of two frames with the same faces."""
    record = VideoRecord(name, "ok" if faces else "no_face", people=faces, codec="h264",
                         container="mov,mp4,m4a,3gp,3g2,mj2", width=1920, height=1080,
                         duration=10.0, num_frames=300, frame_rate=30.0)  # fmt: skip
    dark = FRAME if level < RECIPE.brighten_below else b""
    return Look(
        label,
        record,
        levels=(level, level),
        lumas=(level - 9, level - 9),
        faces=(faces, faces),
        sizes=(100.0, 110.0) * faces,
        confidence=(0.999, 0.95) * faces,
        pictures=Pictures(FRAME, (0.999,) * faces, dark, dark),
    )


def make_looks() -> list[Look]:
    looks = [seen(f"p/{n:02d}.mp4", "REAL" if n % 3 else "FAKE") for n in range(60)]
    looks += [seen(f"p/dark{n}.mp4", "REAL", level=30 + n) for n in range(10)]
    looks += [seen("p/none.mp4", "FAKE", faces=0), seen(HOSTILE, "")]
    lost = VideoRecord("p/lost<b>.mp4", "missing", "p/lost<b>.mp4: cannot be read \u202e")
    return [*looks, Look("FAKE", lost)]


def make_page(looks: list[Look], path: Path) -> tuple[str, dict]:
    videos = [
        Video(k.record.video, "", bytes=1000 * (n + 1), label=k.label, part=f"part_{n % 12}",
              source=HOSTILE, method=HOSTILE if k.label == "FAKE" else "")
        for n, k in enumerate(looks)
    ]  # fmt: skip
    album = Album()
    facts = describe(videos, [album.add(k) for k in looks], RECIPE)
    write_page(facts, album, path, name=HOSTILE)
    return path.read_text(encoding="utf-8"), facts


class Elements(HTMLParser):
    """Every element of a page, and whether they are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> tuple[str, dict]:
    return make_page(make_looks(), tmp_path_factory.mktemp("page") / "eda.html")


@pytest.fixture(scope="module")
def elements(page) -> Elements:
    parser = Elements()
    parser.feed(page[0])
    parser.close()
    return parser


# --- complete in itself -----------------------------------------------------------------------


def test_the_page_is_sound(elements):
    assert not elements.open
    ids = [attributes["id"] for _, attributes in elements.found if attributes.get("id")]
    assert len(ids) == len(set(ids)), "two elements of one name"


def test_the_page_loads_nothing(page, elements):
    text, _ = page
    assert not re.search(r"https?:|@import|url\((?!#)", text)
    assert "default-src 'none'" in text
    assert not {tag for tag, _ in elements.found} & {"script", "link", "iframe", "object"}
    for tag, attributes in elements.found:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name in ("src", "href", "xlink:href"):
                assert value.startswith(("data:image/jpeg;base64,", "#")), (tag, value)


def test_plots_bring_no_style_of_their_own(page):
    assert page[0].count("<style") == 1


def test_hostile_names_are_shown_and_do_nothing(page):
    text, _ = page
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "\\u202egpj.\\x1b[31m" in text
    assert "p/lost&lt;b&gt;.mp4: cannot be read \\u202e" in text


# --- true to the facts ------------------------------------------------------------------------


def test_every_plot_says_what_is_counted(page):
    text, _ = page
    plots = text.count('<svg class="drawing"')
    captions = re.findall(r"<figcaption>([^<]*; n = [\d,]+[^<]*)</figcaption>", text)
    assert plots == len(captions) == 19
    assert "Videos by label; n = 73." in captions
    assert "Faces by the longer side of the box in pixels of the video; n = 142, median 105 px, " \
        "from 100 to 110 px." in captions  # fmt: skip


def test_the_words_say_the_numbers(page):
    words = " ".join(find_words(page[1]))
    assert "73 videos, 2.7 MB: 50 (68.5 %) REAL, 22 (30.1 %) FAKE." in words
    assert "All 73 were opened. Not readable: 1 (1.4 %): missing file 1." in words
    assert "Without a face: 1 (1.4 %) of those that can be read." in words
    assert "Dark: 10 (13.9 %), and 20 (13.9 %) of the sampled frames" in words
    assert "A face was found in 20 (100.0 %) of the dark frames, and in 122 (98.4 %)" in words


def test_a_leak_is_said_first():
    videos = [Video("a", "", group="g", split="train"), Video("b", "", group="g", split="test")]
    words = list(find_words(describe(videos, [], RECIPE)))
    assert any("1 group on two sides of the split" in sentence for sentence in words)


def test_the_album_is_bounded(page):
    text, facts = page
    album = Album()
    for look in make_looks():
        assert album.add(look).pictures == Pictures()
    counts = {c: len(looks) for c, looks in album.frames.items()}
    assert counts == {"REAL": FRAMES_A_CLASS, "FAKE": FRAMES_A_CLASS, "unknown": 1}
    assert (len(album.no_face), len(album.dark)) == (1, DARK_FRAMES)
    assert text.count("<img") == 2 * FRAMES_A_CLASS + 1 + 1 + 2 * DARK_FRAMES
    assert json.loads(json.dumps(facts)) == facts


def test_a_page_of_nothing_readable(tmp_path):
    lost = Look("", VideoRecord("a", "timeout", "a: took longer"))
    text, _ = make_page([lost], tmp_path / "a.html")
    assert "Not readable: 1 (100.0 %): took too long 1." in text
    assert "<h2>Faces</h2>" not in text


# --- the drawings -----------------------------------------------------------------------------


def test_names_stay_letters_in_natural_order():
    rows = count_by((f"part_{n}", "FAKE") for n in (10, 2, 1) for _ in range(n))
    svg = draw_bars(rows, "title", natural=True)
    assert re.findall(r">(part_\d+)<", svg) == ["part_1", "part_2", "part_10"]
    assert re.findall(r">(part_\d+)<", draw_bars(rows, "t")) == ["part_10", "part_2", "part_1"]


def test_small_rows_are_added_up():
    rows = count_by((f"n{n:03d}", "REAL") for n in range(30) for _ in range(60 - n))
    svg = draw_bars(rows, "title", most=10)
    assert ">21 others<" in svg
    assert f">{sum(60 - n for n in range(9, 30)):,}<" in svg


@pytest.mark.parametrize(("name", "shown"), [
    ("", "(none)"),
    ("a long name of a method (version 1)", "a long name of a…sion 1)"),
    ("videos/of/a/very/long/path/fake", "…f/a/very/long/path/fake"),
    ("$a_1$ \\frac{1}{2}", "$a_1$ \\frac{1}{2}"),
])  # fmt: skip
def test_names_beside_bars(name, shown):
    assert f">{shown}<" in draw_bars(count_by([(name, "REAL")]), "title")


def test_colours_follow_the_page():
    facts = distribution([("REAL", 1), ("FAKE", 2), ("FAKE", 3)])
    svg = draw_histogram(facts, 'a "title"', axis="x", limit=(2, "dark"))
    assert "var(--real)" in svg
    assert "var(--fake)" in svg
    assert "FAKE: % of 2 videos" in svg
    assert 'aria-label="a &quot;title&quot;"' in svg


@pytest.mark.parametrize("values", [[0], [5] * 3, [1e-3, 1e6], [10.0], list(range(40))])
@pytest.mark.parametrize("scale", ["linear", "auto"])
def test_any_distribution_can_be_drawn(values, scale):
    facts = distribution((("", v) for v in values), scale=scale, whole=values == [0])
    assert draw_histogram(facts, "t", axis="x", unit="things").endswith("</svg>\n")


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"tellframe\[data\]"):
        load_matplotlib()


def test_boxes_are_drawn_at_the_size_of_the_picture():
    face = Face(np.array([80, 160, 480, 640], np.float32), np.full((5, 2), 320, np.float32), 0.9)
    with Image.open(io.BytesIO(draw_faces(np.zeros((1280, 640, 3), np.uint8), [face]))) as picture:
        assert picture.size == (160, 320)
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    yellow = (pixels[..., 0] > 120) & (pixels[..., 1] > 120) & (pixels[..., 2] < 120)
    ys, xs = np.nonzero(yellow)
    assert (xs.min(), xs.max(), ys.min(), ys.max()) == pytest.approx((20, 120, 40, 160), abs=2)
    assert yellow[78:83, 78:83].any(), "no landmarks"


# --- the command ------------------------------------------------------------------------------


@pytest.fixture
def manifest(samples, tmp_path) -> Path:
    videos = [
        Video(f"{n}.mp4", str(samples / f"{n}.mp4"), label=n.upper()) for n in ("real", "fake")
    ]
    write_manifest([*videos, Video("gone.mp4", str(tmp_path / "gone.mp4"))], tmp_path / "m.parquet")
    return tmp_path / "m.parquet"


def test_the_command(manifest, tmp_path, capsys):
    page, numbers = tmp_path / "new" / "a.html", tmp_path / "a.json"
    command = ["eda", str(manifest), "-o", str(page), "--json", str(numbers), "--sample", "all"]
    assert run([*command, "--workers", "1", "--set", "num_frames=2"]) == status.DONE
    facts = json.loads(numbers.read_text())
    assert (facts["recipe"]["num_frames"], facts["sample"]["asked"]) == (2, "all")
    assert [row["outcome"] for row in facts["sample"]["rows"]] == ["ok", "missing", "ok"]
    assert facts["sample"]["frames"] == {"sampled": 4, "with_face": 4}
    assert "m.parquet" in page.read_text()
    printed = capsys.readouterr()
    assert "3 videos, 3 opened, 2 of them read" in printed.out
    assert "missing: gone.mp4: cannot be read" in printed.err
    assert "[3/3]" in printed.err


def test_the_command_where_nothing_can_be_read(tmp_path, capsys):
    write_manifest([Video("a.mp4", str(tmp_path / "a.mp4"))], tmp_path / "m.parquet")
    command = ["eda", str(tmp_path / "m.parquet"), "-o", str(tmp_path / "a.html"), "--quiet"]
    assert run([*command, "--workers", "1"]) == status.NONE_ANALYSED
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("sample", ["0", "-3", "some", "1.5", "²"])
def test_a_senseless_sample(sample, capsys):
    with pytest.raises(SystemExit, match="2"):
        run(["eda", "m.parquet", "-o", "a.html", f"--sample={sample}"])
    assert "give a number of videos from 1, or all" in capsys.readouterr().err
