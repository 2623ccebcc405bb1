"""What the page on a data set says: its plots with their captions, and the facts in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from tellframe.data.cut import Outcome
from tellframe.data.eda_look import CLASSES, READABLE
from tellframe.data.eda_plots import draw_bars, draw_histogram
from tellframe.report.words import escaped, number_of

Facts = Mapping[str, Any]
"""What `tellframe.data.eda.describe` returns, or a part of it."""

OUTCOME_TEXT: Final = {
    Outcome.OK: "read, with a face",
    Outcome.NO_FACE: "read, without a face",
    Outcome.MISSING: "missing file",
    Outcome.DAMAGED: "damaged in its zip",
    Outcome.UNREADABLE: "not decodable",
    Outcome.LIMIT: "too large to decode",
    Outcome.UNFORESEEN: "made tellframe fail",
    Outcome.CRASH: "ended the decoder",
    Outcome.TIMEOUT: "took too long",
}
"""What became of a video, in a few words."""

_CONTAINERS: Final = {"mov,mp4,m4a,3gp,3g2,mj2": "MP4 or MOV", "matroska,webm": "MKV or WebM"}


def find_words(facts: Facts) -> Iterator[str]:
    """Yield what a person has to know first, a sentence or two each, as HTML."""
    yield from _words_on_manifest(facts["manifest"])
    yield from _words_on_sample(facts["manifest"], facts["sample"])


def _words_on_manifest(manifest: Facts) -> Iterator[str]:
    total, labels = manifest["videos"], manifest["labels"]
    shares = ", ".join(f"{_share(labels[c], total)} {c}" for c in ("REAL", "FAKE"))
    yield f"{number_of(total, 'video')}, {_size(manifest['bytes'])}: {shares}."
    manifest_lacks = {
        "the label": labels["unknown"],
        "the size": manifest["without_size"],
        "the group": manifest["groups"]["videos_without"],
        "the split": sum(_total(r) for r in manifest["splits"] if not r["name"]),
        "the method of fakes": sum(r["FAKE"] for r in manifest["methods"] if not r["name"]),
        "the original of fakes": manifest["originals"]["fakes_without"],
    }
    listed = [f"{what} ({n:,})" for what, n in manifest_lacks.items() if n]
    if listed:
        yield f"Not in the manifest, by number of videos: {', '.join(listed)}."
    if lost := manifest["originals"]["not_in_manifest"]:
        yield f"Originals that fakes name and the manifest lacks: {lost:,}."
    if crossing := manifest["groups"]["on_two_sides"]:
        yield (
            f"<strong>{number_of(crossing, 'group')} on two sides of the split:</strong> "
            "what is measured on such a split is too good to be true."
        )
    divided = "source" if len(manifest["sources"]) > 1 else manifest["divided_by"]
    rows = manifest["sources" if divided == "source" else "divisions"]
    if one_sided := [r["name"] for r in rows if not (r["REAL"] and r["FAKE"])]:
        names = ", ".join(f"<bdi>{escaped(n) or '(none)'}</bdi>" for n in one_sided[:8])
        more = f" and {len(one_sided) - 8} more" if len(one_sided) > 8 else ""
        yield (
            f"{number_of(len(one_sided), divided)} without both REAL and FAKE ({names}{more}): "
            f"there, a model can learn the {divided} and not the fake."
        )


def _words_on_sample(manifest: Facts, sample: Facts) -> Iterator[str]:
    opened, failed = sample["videos"], len(sample["failures"])
    read, dark = opened - failed, sample["dark"]
    if opened < manifest["videos"]:
        begin = (
            f"{opened:,} of them were drawn (seed {sample['seed']}, every class with its share) "
            "and opened; what follows holds for these. "
        )
    else:
        begin = f"All {opened:,} were opened. "
    if failed:
        reasons = ", ".join(
            f"{OUTCOME_TEXT[Outcome(row['name'])]} {_total(row):,}"
            for row in sample["outcomes"]
            if row["name"] not in READABLE
        )
        yield f"{begin}Not readable: {_share(failed, opened)}: {reasons}."
    else:
        yield f"{begin}All can be read."
    yield f"Without a face: {_share(sample['no_face'], read)} of those that can be read."
    frames, dark_frames = sample["frames"], dark["frames"]
    yield (
        f"Dark: {_share(dark['videos'], read)}, and "
        f"{_share(dark_frames['sampled'], frames['sampled'])} of the sampled frames: the 75th "
        f"percentile of their luma is below {dark['below']:g} of 255. They are brightened before "
        "faces are looked for."
    )
    if dark_frames["sampled"]:
        others = {k: frames[k] - dark_frames[k] for k in frames}
        yield (
            f"A face was found in {_share(dark_frames['with_face'], dark_frames['sampled'])} of "
            f"the dark frames, and in {_share(others['with_face'], others['sampled'])} of the "
            "others."
        )
    yield f"With several people: {_share(sample['several_people'], read)}."
    for key, words in (("rotated", "Stored rotated"), ("partial", "Incomplete")):
        if sample[key]:
            yield f"{words}: {_share(sample[key], read)}."


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _share(count: int, total: int) -> str:
    return f"{count:,} ({100 * count / max(total, 1):.1f} %)"


def _total(row: Facts) -> int:
    return sum(row[c] for c in CLASSES)


def _bars(title: str, rows: Sequence[Facts], caption: str, **options: Any) -> str:
    """Return the card of a table."""
    if not rows:
        return ""
    drawing = draw_bars(rows, title, **options)
    return _card(title, drawing, f"{caption}; n = {sum(map(_total, rows)):,}.")


def _histogram(
    title: str, values: Facts, caption: str, *, symbol: str = "", factor: float = 1, **options: Any
) -> str:
    """Return the card of a distribution."""
    if not values["n"]:
        return ""
    drawing = draw_histogram(values, title, factor=factor, **options)
    low, middle, high = (_number(values[k] * factor) for k in ("min", "median", "max"))
    spread = f"median {middle}{symbol}, from {low} to {high}{symbol}"
    if low == high:
        spread = f"all {middle}{symbol}"
    return _card(title, drawing, f"{caption}; n = {values['n']:,}, {spread}.")


def _card(title: str, drawing: str, caption: str) -> str:
    return (
        f'<figure class="card"><h3>{escaped(title)}</h3>{drawing}'
        f"<figcaption>{escaped(caption)}</figcaption></figure>"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def manifest_cards(manifest: Facts) -> Iterator[str]:
    """Yield the plots from all rows of the manifest, as HTML."""
    labels = [
        {"name": c, **dict.fromkeys(CLASSES, 0), c: n} for c, n in manifest["labels"].items() if n
    ]
    by = manifest["divided_by"]
    yield _bars("Class balance", labels, "Videos by label")
    yield _bars(
        f"Class balance by {by}",
        manifest["divisions"],
        f"Videos by {by} and label",
        most=60,
        natural=by == "part",
    )
    if by == "part" and len(manifest["sources"]) > 1:
        yield _bars(
            "Class balance by source", manifest["sources"], "Videos by source and label", most=60
        )
    yield _bars("Methods", manifest["methods"], "Fakes by the method that made them")
    yield _bars("Splits", manifest["splits"], "Videos by split and label")
    yield _histogram(
        "Fakes per original",
        manifest["originals"]["fakes_per_original"],
        "Originals by the number of their fakes",
        axis="fakes of one original",
        unit="originals",
    )
    yield _histogram(
        "Videos per group",
        manifest["groups"]["sizes"],
        "Groups by the number of their videos",
        axis="videos of one group",
        unit="groups",
    )
    unit, factor = ("MB", 1e-6) if manifest["sizes"].get("median", 0) >= 1e6 else ("kB", 1e-3)
    yield _histogram(
        "File size",
        manifest["sizes"],
        "Videos by size",
        axis=f"{unit}, on a log scale",
        symbol=f" {unit}",
        factor=factor,
    )


def video_cards(sample: Facts) -> Iterator[str]:
    """Yield the plots on the files of the opened videos, as HTML."""
    outcomes = _renamed(sample["outcomes"], lambda name: OUTCOME_TEXT[Outcome(name)])
    yield _bars("Outcome", outcomes, "Opened videos by what became of them")
    yield _histogram(
        "Duration",
        sample["duration"],
        "Videos by duration, counted from time stamps",
        axis="seconds",
        symbol=" s",
    )
    yield _histogram(
        "Frames", sample["num_frames"], "Videos by counted frames", axis="frames in the video"
    )
    yield _histogram(
        "Frame rate",
        sample["frame_rate"],
        "Videos of more than one frame by mean frame rate",
        axis="frames a second",
    )
    sizes = _renamed(sample["resolutions"], lambda name: name.replace("x", " × "))
    yield _bars("Resolution", sizes, "Videos by upright width × height in pixels", most=12)
    yield _bars(
        "Orientation",
        sample["orientations"],
        f"Videos as a person sees them, {sample['rotated']:,} of them stored rotated",
    )
    yield _bars("Codec", sample["codecs"], "Videos by codec", most=12)
    # FFmpeg lists the names of all that one of its readers reads.
    containers = _renamed(sample["containers"], lambda name: _CONTAINERS.get(name, name))
    yield _bars("Container", containers, "Videos by container", most=12)


def _renamed(rows: Sequence[Facts], rename: Callable[[str], str]) -> list[Facts]:
    return [{**row, "name": rename(row["name"])} for row in rows]


def light_cards(sample: Facts) -> Iterator[str]:
    """Yield the plots on how bright they are, as HTML."""
    below = sample["dark"]["below"]
    yield _histogram(
        "Brightness",
        sample["level"],
        "Videos by the 75th percentile of luma, median over their frames",
        axis="luma, 0-255",
        limit=(below, f"dark, below {below:g}"),
    )
    yield _histogram(
        "Mean luma",
        sample["luma"],
        "Videos by mean luma, median over their frames",
        axis="luma, 0-255",
    )


def face_cards(sample: Facts) -> Iterator[str]:
    """Yield the plots on the faces in them, as HTML."""
    yield _histogram(
        "Faces per frame",
        sample["faces_per_frame"],
        "Sampled frames by the number of faces found, before false ones are dropped",
        axis="faces in one frame",
        unit="frames",
    )
    yield _histogram(
        "People per video",
        sample["people"],
        "Videos by the number of people followed through them",
        axis="people in one video",
    )
    yield _histogram(
        "Face size",
        sample["face_size"],
        "Faces by the longer side of the box in pixels of the video",
        axis="pixels, on a log scale",
        symbol=" px",
        unit="faces",
    )
    yield _histogram(
        "Detector confidence",
        sample["confidence"],
        "Faces by the detector's score, from its threshold on",
        axis="confidence; bins grow narrower towards 1",
        unit="faces",
    )
