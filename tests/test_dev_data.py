"""The shipped model on real matched pairs, where the data lies beside the repository."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sklearn", reason="needs the extra: pip install 'tellframe[data]'")

import tellframe
from tellframe.data.manifest import Video
from tellframe.evaluate import judge_videos, read_labels, summarise

LABELS = Path(__file__).resolve().parents[2] / "shared" / "data" / "labels.csv"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not LABELS.is_file(), reason=f"no labelled videos at {LABELS}"),
]


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    rows = [r for r in read_labels(LABELS, "dev") if r.source == "deepfacelive-pairs"]
    videos = [Video(r.path, str(LABELS.parent / r.path)) for r in rows]
    judged = judge_videos(tellframe.load(keep_evidence=False), videos, workers=2)
    return summarise([row.judged(j) for row, j in zip(rows, judged, strict=True)])


def test_live_face_swaps_of_unseen_people(figures):
    assert figures["n_pairs"] == 10
    assert figures["coverage"] == 1.0
    assert figures["auc"] >= 0.80
    assert figures["pair_ranking"] >= 0.90


def test_the_figures_of_the_model_card(figures):
    """In docs/model_card.md; processors round differently."""
    assert figures["auc"] == pytest.approx(0.930, abs=0.03)
    assert figures["balanced_log_loss"] == pytest.approx(0.414, abs=0.03)
