"""Tellframe beside detectors that others published, on the same faces of the same videos.

    python scripts/compare_peers.py --peers ../shared/peers --out runs/peers_report

Meso4 and MesoInception4 (Afchar et al. 2018, weights "DF") judge the faces that tellframe finds, at
the same moments, cut and scaled as their authors do. LRNet (Sun et al. 2021) judges landmarks that
its authors' extraction found. What lacks its weights or its input is named, with the reason. Scores
that are in the folder already are not made again.

Needs h5py, besides the extras `data` and `train`: pip install h5py
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from measuring import (
    BESIDE,
    Figures,
    cell,
    compare_auc,
    digest_of,
    figures_of,
    folder_of,
    follow,
    keep_rows,
    load_model,
    make_parser,
    name_model,
    open_labels,
    parts_of,
    read_kept,
    run_script,
    say,
    slug,
    table,
    write_kept,
    write_results,
)
from peers import (
    LRNET,
    Peers,
    load_peers,
    score_crops,
    score_landmarks,
    score_videos,
    share_called_real,
)
from tellframe.detector import Detector
from tellframe.evaluate import read_stills, score_source
from tellframe.evaluate.rows import Row
from tellframe.evaluate.score import label_still, score_stills
from tellframe.evaluate.sources import Videos

TELLFRAME: Final = "tellframe"


def label_stills(zipped: Path, limit: int | None) -> list[Row]:
    """Return the labels of the single crops in a zip; none where there is no zip.

    Args:
        zipped: as `tellframe.evaluate.read_stills` takes it.
        limit: only so many.
    """
    if not zipped.is_file():
        say(f"{zipped}: no single crops there; left out")
        return []
    return [label_still(still, zipped) for still in islice(read_stills(zipped), limit)]


def score_tellframe(
    source: Videos, stills: Sequence[Row], detector: Detector, options: argparse.Namespace
) -> list[Row]:
    """Return the rows of the model itself; from the folder where they are there already."""
    name = name_model(detector)

    def score() -> Iterator[Row]:
        rows = score_source(source, detector, options.workers)
        yield from follow(rows, len(source.rows), "tellframe, videos")
        if stills:
            crops = islice(score_stills(detector, options.stills), len(stills))
            yield from follow(crops, len(stills), "tellframe, crops")

    expected = [*source.rows, *stills]
    return keep_rows(folder_of(options, name) / "tellframe.csv", expected, name, score)


def score_peers(
    source: Videos,
    stills: Sequence[Row],
    detector: Detector,
    peers: Peers,
    options: argparse.Namespace,
) -> dict[str, list[Row]]:
    """Return the rows of all peers; from the folder where they are there already.

    LRNet has no single crops, and is not kept: it takes no time.
    """
    faces = digest_of([detector.recipe.to_dict(), dataclasses.asdict(detector.bundle.decision)])
    names = {peer: f"{peer} {peers.digests[peer]} on faces {faces}" for peer in peers.networks}
    folder = folder_of(options, name_model(detector))
    paths = {peer: folder / f"{slug(name)}.csv" for peer, name in names.items()}
    expected = [*source.rows, *stills]
    found = {peer: read_kept(paths[peer], expected, name) for peer, name in names.items()}
    missing = {p: network for p, network in peers.networks.items() if found[p] is None}
    videos = score_videos(source, detector, missing) if missing else {}
    for peer, rows in videos.items():
        crops = score_crops(stills, options.stills, missing[peer])
        rows += follow(crops, len(stills), f"{peer}, crops")
        write_kept(rows, paths[peer], names[peer])
    scored = {peer: videos.get(peer) or found[peer] or [] for peer in names}
    if peers.lrnet:
        scored[LRNET] = score_landmarks(source.rows, options.landmarks, peers.lrnet)
    return scored


def measure(scored: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Figures]]:
    """Return the figures by part (see `parts_of`) and detector.

    Args:
        scored: rows by detector; the first one is compared with every other.

    Returns:
        What `summarise` says, and under "auc_against" how the first detector's AUC differs from
        this one's on what both scored: paired bootstrap over groups.
    """
    own = parts_of(next(iter(scored.values())))
    found: dict[str, dict[str, Figures]] = {part: {} for part in own}
    for place, (name, rows) in enumerate(scored.items()):
        parts = parts_of(rows)
        for part, figures in figures_of(rows).items():
            against = compare_auc(own[part], parts[part]) if place else None
            found[part][name] = figures | {"auc_against": against}
    return found


def make_table(
    figures: Mapping[str, Mapping[str, Figures]], reasons: Mapping[str, str], model: str
) -> str:
    """Return the Markdown: one row a part and detector, and why others are left out."""
    rows = []
    for part, detectors in figures.items():
        for name, f in detectors.items():
            against = f["auc_against"] or {}
            rows.append(
                [
                    part,
                    model if name == TELLFRAME else name,
                    f"{f['n_scored']} of {f['n']} ({f['n_fake']} fake)",
                    cell(f["auc"], f["auc_95"]),
                    f"{cell(f['pair_ranking'], f['pair_ranking_95'])} of {f['n_pairs']}",
                    cell(against.get("difference"), against.get("difference_95"), sign="+"),
                    "-" if against.get("p") is None else f"{against['p']:.3f}",
                ]
            )
    rows += [["any", name, "not measured", "-", "-", "-", "-"] for name in reasons]
    heads = ["videos", "detector", "scored", "AUC", "fake above its own real"]
    heads += ["AUC of tellframe less this", "p"]
    notes = "".join(f"\n{name} was not measured. {why}\n" for name, why in reasons.items())
    return table(heads, rows) + "\n" + NOTE + notes


NOTE: Final = (
    "In brackets: 95 % intervals, bootstrapped over groups; none where all are of one group, and "
    "of no width, which is no certainty, where all resamples agree. p: two-sided, from the same "
    "resamples for both detectors, not below 2 / 1001. Sources with reals or fakes alone count "
    "among all videos only. Peers are used as published, trained on other data; the model may have "
    "been trained on other videos of the same sources, which is an advantage. MesoNet sees the "
    "faces that tellframe found, at the same moments, cut as its authors cut them; single crops "
    "are seen whole by all.\n"
)


def main() -> None:
    parser = make_parser(__doc__ or "", "runs/peers_report")
    parser.add_argument("--peers", type=Path, default=BESIDE / "peers", help="folder of weights")
    parser.add_argument(
        "--landmarks",
        type=Path,
        metavar="DIR",
        help="for LRNet, those of VIDEO at VIDEO.txt; default: lrnet/landmarks below the peers",
    )
    parser.add_argument(
        "--stills",
        type=Path,
        default=BESIDE / "data" / "dev" / "dfdc_faces.zip",
        metavar="ZIP",
        help="single crops with a labels.csv",
    )
    parser.add_argument(
        "--real-faces",
        type=Path,
        default=BESIDE / "data" / "train" / "faces" / "mesonet_frames",
        metavar="DIR",
        help="pictures of real faces as MesoNet was trained on, to check it",
    )
    options = parser.parse_args()
    options.landmarks = options.landmarks or options.peers / "lrnet" / "landmarks"
    source = open_labels(options)
    if source is None:
        return
    detector = load_model(options)
    peers = load_peers(options.peers, options.landmarks)
    for name, why in peers.reasons.items():
        say(f"{name}: left out. {why}")
    stills = label_stills(options.stills, options.limit)
    scored = {TELLFRAME: score_tellframe(source, stills, detector, options)}
    scored |= score_peers(source, stills, detector, peers, options)
    figures = measure(scored)
    checks = {n: share_called_real(options.real_faces, f) for n, f in peers.networks.items()}
    model = name_model(detector)
    facts = {
        "model": model,
        "labels": options.labels.name,
        "split": options.split,
        "figures": figures,
        "share_of_real_faces_called_real": checks,
        "not_measured": peers.reasons,
    }
    shown = f"{detector.bundle.name} {detector.bundle.version}"
    checked = "".join(
        f"\n{name} calls {value:.1%} of the real faces in {options.real_faces.name} real.\n"
        for name, value in checks.items()
        if value is not None
    )
    markdown = make_table(figures, peers.reasons, shown) + checked
    write_results(folder_of(options, model), markdown, facts)


if __name__ == "__main__":
    run_script(main)
