"""How measured timings get onto the page."""

import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn", reason="needs the extra: pip install 'tellframe[data]'")
ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts"))

import plot_performance as page  # noqa: E402


def timing(median):
    return {"median": median, "min": median - 0.1, "max": median + 0.2}


def detect(**facts):
    stages = {name: {**timing(0.5), "share": 0.1} for name in page.STAGES}
    peaks = {"detect": 300.0, "detect_workers": 200.0, "bare_decode": 50.0}
    fresh = {
        "seconds": {"detect": timing(2.5), "bare_decode": timing(1.25)},
        "detect_parts": {name: timing(0.75) for name in ("imports", "load", "verdict")},
        "detect_to_bare_decode": 2.0,
        "detect_to_warm_bare_decode": 2.25,
        "peak_rss_mb": peaks,
    }
    return {
        "kind": "detect",
        "video": "a.mp4",
        **page.BASE,
        "rounds": 7,
        "seconds": {
            "detect": timing(1.5),
            "bare_decode": timing(1.0),
            "detect_in_process": timing(1.25),
        },
        "detect_to_bare_decode": 1.5,
        "detect_to_bare_decode_computed": 1.4,
        "stages": stages,
        "stages_total": 4.5,
        "fresh": fresh,
        **facts,
    }


def test_a_panel_varies_one_thing():
    results = [detect(frames=32), detect(height=720), detect(), detect(frames=32, height=720)]
    assert [one["frames"] for one in page.select(results, "frames")] == [10, 32]
    assert [one["height"] for one in page.select(results, "height")] == [720, 1080]
    assert len(page.select([detect(duration=10.03)], "duration")) == 1
    assert page.select([detect(codec="vp9")], "people") == []


def test_the_page_is_filled_again_and_again(tmp_path, monkeypatch):
    doc = tmp_path / "page.md"
    marks = (f"<!-- measured: {name} -->\nold\n<!-- end -->\n" for name in (*page.BLOCKS, "plot"))
    doc.write_text("# Title\n" + "\n".join(marks))
    peer = {"median": 3.0, "to_tellframe": 2.0, "peak_rss_mb": 900.0}
    files = {
        "detect": [detect(), detect(frames=32, video="b.mp4")],
        "peers": {"kind": "peers", "rounds": 3, "videos": {"a.mp4": {"student": peer}}},
        "many": {"kind": "peers", "rounds": 3, "copies": 9, "videos": {"b.mp4": {"student": peer}}},
    }
    for name, content in files.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    paths = [str(tmp_path / f"{name}.json") for name in files]
    monkeypatch.setattr(sys, "argv", ["plot", *paths, "--doc", str(doc)])
    page.main()
    text = doc.read_text()
    assert "1080p h264, 10 s, 1 person, 32 frames | 1.00 s (0.90-1.20) | 1.50 s" in text
    assert "| **1.50** | 1.40 | 1.25 s (1.15-1.45) | 7 |" in text
    assert "| 0.75 + 0.75 + 0.75 |" in text
    assert "| 300 + 200 MB | 50 MB |" in text
    assert "| a.mp4 | 3.00 s (2.00) |" in text
    assert "| b.mp4 | 3.00 s (2.00) |" in text
    assert "Medians of 3 rounds, 9 copies of each video." in text
    assert "measured: folder -->\nold\n" in text  # nothing of that kind was measured
    assert "![Seconds a video](page.svg)" in text
    drawn = doc.with_suffix(".svg").read_bytes()
    page.main()
    assert (doc.read_text(), doc.with_suffix(".svg").read_bytes()) == (text, drawn)


def test_peers_can_be_timed_without_tellframe():
    peer = {"median": 3.0, "peak_rss_mb": 900.0}
    result = {"kind": "peers", "rounds": 3, "videos": {"a|b.mp4": {"student": peer}}}
    assert "| a/b.mp4 | 3.00 s |\n" in page.table_peers([result])


@pytest.mark.parametrize("content", [None, "no JSON", "[1]"])
def test_what_cannot_be_read_is_a_sentence(content, tmp_path, monkeypatch, capsys):
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    monkeypatch.setattr(sys, "argv", ["plot", str(tmp_path / "x.json")])
    with pytest.raises(SystemExit, match="2"):
        page.main()
    assert "x.json" in capsys.readouterr().err


def test_what_is_no_timing_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"x\.json"):
        page.load_results([tmp_path / "x.json"])
    with pytest.raises(ValueError, match="no place for 'plot'"):
        page.fill("text", "plot", "")


def test_the_page_in_docs_has_a_place_for_everything():
    text = (ROOT / "docs" / "performance.md").read_text()
    for name in (*page.BLOCKS, "plot"):
        page.fill(text, name, "x\n")
