"""What an ablation takes as done already."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="needs the extra: pip install 'tellframe[data]'")

sys.path.append(str(Path(__file__).resolve().parents[2] / "scripts"))

import run_ablation
from tellframe.errors import UsageError


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run the script with the stills of a name; return the verbs of tellframe that it called."""
    lines = ["path,label,source,method,group,pair,split"]
    lines += [f"{split}.mp4,REAL,s,m,g,p,{split}" for split in ("train", "dev")]
    (tmp_path / "labels.csv").write_text("\n".join(lines) + "\n")
    verbs: list[str] = []

    def run_tellframe(verb, source, _, target, *words):
        verbs.append(verb)
        if verb == "index":
            Path(target).touch()

    monkeypatch.setattr(run_ablation, "run_tellframe", run_tellframe)
    monkeypatch.setattr(run_ablation, "measure", lambda *_: None)

    def run(stills="a.zip"):
        verbs.clear()
        words = ["--labels", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["x", *words, "--stills", stills])
        run_ablation.main()
        return list(verbs)

    return run


def test_an_interrupted_build_is_gone_on_with(call, tmp_path):
    assert call() == ["index", "index", "build"]
    (tmp_path / "out" / "faces").mkdir()
    assert call() == ["build"]
    (tmp_path / "out" / "faces" / "index.parquet").touch()
    assert call() == []
    assert (tmp_path / "out" / "table.md").read_text().startswith("| variant | live face swaps |")


def test_results_of_other_labels_or_stills_are_not_mixed(call, tmp_path):
    call()
    with pytest.raises(UsageError, match="another ablation"):
        call("b.zip")
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("more.mp4,FAKE,s,m,g,p,dev\n")
    with pytest.raises(UsageError, match="another ablation"):
        call()
