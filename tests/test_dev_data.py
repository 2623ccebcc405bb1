"""The shipped model on real matched pairs, where the data lies beside the repository."""

from pathlib import Path

import pytest

import tellframe
from tellframe.evaluate import Row, read_labels, score_rows, summarise

LABELS = Path(__file__).resolve().parents[2] / "shared" / "data" / "labels.csv"

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not LABELS.is_file(), reason=f"no labelled videos at {LABELS}"),
]


@pytest.fixture(scope="module")
def pairs() -> list[Row]:
    rows = [r for r in read_labels(LABELS, "dev") if r.source == "deepfacelive-pairs"]
    return list(score_rows(tellframe.load(keep_evidence=False), rows, LABELS.parent))


def test_live_face_swaps_of_unseen_people(pairs):
    figures = summarise(pairs)
    assert figures["n_pairs"] == 10
    assert figures["coverage"] == 1.0
    assert figures["auc"] >= 0.80
    assert figures["pair_ranking"] >= 0.90
