"""Let a model judge videos: decoded in worker processes, or from clips that are cut already."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tellframe.data.cut import (
    Cutter,
    Outcome,
    VideoRecord,
    extract_video,
    given_up,
    load_cutter,
)
from tellframe.data.manifest import Video
from tellframe.data.media import open_descriptor
from tellframe.data.shards import ClipRow, measure_luma, read_clip
from tellframe.detector import Detector
from tellframe.evaluate.rows import Judgement, Row
from tellframe.evaluate.sources import Shards, Source, Still, Videos, read_stills
from tellframe.isolation import Failure, Limits, map_isolated
from tellframe.limits import ARCHIVE_LIMITS, ArchiveLimits
from tellframe.scoring import judge_video
from tellframe.types import Clip, Reason

LIMITS: Final = Limits(seconds=600.0, attempts=2)
"""What one video may cost; a build, which is repeated less easily, tries more often."""
_READERS: Final = 8
"""Threads that fetch clips: an object store takes its time for each, and serves many at once."""

Extracted = tuple[VideoRecord, tuple[Clip, ...]]


def score_source(
    source: Source,
    detector: Detector,
    workers: int,
    archives: ArchiveLimits = ARCHIVE_LIMITS,
) -> Iterator[Row]:
    """Judge labelled videos; yields every row with its judgement, in order.

    Args:
        source: from `tellframe.evaluate.sources.open_source`.
        detector: the model.
        workers: processes that decode; not used for clips that are cut already.
        archives: of zips that videos come from.

    Raises:
        RecipeMismatchError: the clips were cut with another recipe than the model's.
    """
    match source:
        case Videos():
            judged = judge_videos(detector, source.videos, workers, source.endpoint, archives)
        case Shards():
            judged = judge_shards(detector, source)
    with closing(judged):
        for row, judgement in zip(source.rows, judged, strict=True):
            yield row.judged(judgement)


def judge_videos(
    detector: Detector,
    videos: Sequence[Video],
    workers: int,
    endpoint: str = "",
    archives: ArchiveLimits = ARCHIVE_LIMITS,
) -> Generator[Judgement, None, None]:
    """Judge videos, which are decoded in worker processes: none of them can end the others.

    Yields:
        A judgement for every video, in order; its outcome says what could not be read.

    Raises:
        StoreError: the object store does not answer.
        WorkerError: worker processes cannot be started.
    """
    results = map_isolated(
        extract_whole,
        videos,
        setup=load_cutter,
        arguments=(detector.recipe, endpoint),
        workers=workers,
        limits=LIMITS,
        returns=Extracted,
        open_item=functools.partial(open_descriptor, endpoint=endpoint, limits=archives),
    )
    with closing(results):
        for video, result in results:
            if isinstance(result, Failure):
                yield judge_clips(detector, given_up(video, result).record, ())
            else:
                yield judge_clips(detector, *result)


def extract_whole(cutter: Cutter, video: Video, descriptor: int | None = None) -> Extracted:
    """Extract a video and keep the clips as they are; runs in the workers."""
    return extract_video(cutter, video, lambda clip: clip, descriptor)


def judge_shards(detector: Detector, shards: Shards) -> Generator[Judgement, None, None]:
    """Judge videos from the clips of a data set; yields in the order of its rows.

    Raises:
        RecipeMismatchError: they were cut with another recipe than the model's.
        StoreError: a shard cannot be read.
        DataError: a shard does not hold what the index says.
    """
    require_same_recipe(shards, detector)

    def fetch(row: Row) -> Extracted:
        found: Sequence[ClipRow] = shards.clips.get(row.path, ())
        clips = [read_clip(shards.store, c, shards.recipe) for c in found]
        return shards.records[row.path], tuple(sorted(clips, key=lambda c: c.person))

    pending: deque[Future[Extracted]] = deque()
    with ThreadPoolExecutor(_READERS) as threads:
        try:
            for row in shards.rows:
                pending.append(threads.submit(fetch, row))
                if len(pending) >= 2 * _READERS:
                    yield judge_clips(detector, *pending.popleft().result())
            while pending:
                yield judge_clips(detector, *pending.popleft().result())
        finally:
            threads.shutdown(cancel_futures=True)


def require_same_recipe(source: Source, detector: Detector) -> None:
    """Raise unless clips that are cut already were cut with the model's recipe.

    Raises:
        RecipeMismatchError: they were not; the message says what differs.
    """
    if isinstance(source, Shards):
        source.recipe.require_same(detector.recipe, f"{source.store.url} and the model")


def judge_clips(detector: Detector, record: VideoRecord, clips: Sequence[Clip]) -> Judgement:
    """Judge the people of one video by the rule `any_person`.

    Args:
        detector: the model.
        record: what became of the video.
        clips: one a person.
    """
    if record.outcome not in (Outcome.OK, Outcome.NO_FACE):
        return Judgement(outcome=record.outcome, reasons=(Reason.UNREADABLE,))
    people = detector.judge(clips)
    verdict, probability, reasons = judge_video(
        people, detector.bundle.decision, partial=record.partial, left_out=record.left_out
    )
    found = Judgement(
        outcome=record.outcome,
        codec=record.codec,
        people=len(people),
        verdict=verdict,
        reasons=tuple(map(str, reasons)),
    )
    if probability is None:
        return found
    # The one whose probability became that of the video.
    worst = next(i for i, p in enumerate(people) if p.probability == probability)
    return dataclasses.replace(
        found,
        probability=probability,
        logit=detector.bundle.calibration.logit(probability),
        brightness=measure_luma(clips[worst].pixels[clips[worst].valid]),
        face_size=clips[worst].face_size,
    )


def score_stills(detector: Detector, path: str | Path) -> Iterator[Row]:
    """Judge single face crops, each seen whole at the recipe's size; yields one row a crop.

    Its outcome says where one cannot be read.

    Raises:
        ConfigError: the zip cannot be read as one of labelled crops, see `read_stills`.
    """
    for still in read_stills(path, keep_lost=True):
        yield label_still(still, path).judged(judge_still(detector, still))


def judge_still(detector: Detector, still: Still) -> Judgement:
    """Judge a single face crop."""
    size = detector.recipe.crop_size
    outcome = still.outcome
    if outcome is Outcome.OK:
        try:
            picture = Image.open(io.BytesIO(still.data)).convert("RGB").resize((size, size))
        except Exception:  # Pillow raises a dozen unrelated types; one crop must not end the rest
            outcome = Outcome.UNREADABLE
    if outcome is not Outcome.OK:
        return Judgement(outcome=outcome, reasons=(Reason.UNREADABLE,))
    pixels = np.asarray(picture)[None]
    (person,) = detector.judge([_clip_of(pixels, detector.recipe.digest)])
    probability = person.probability
    assert probability is not None  # it has a frame
    return Judgement(
        outcome=Outcome.OK,
        people=1,
        logit=detector.bundle.calibration.logit(probability),
        probability=probability,
        # Of the probability alone: one frame would be too few for a video.
        verdict=detector.bundle.decision.label(probability),
        brightness=measure_luma(pixels),
    )


def label_still(still: Still, path: str | Path) -> Row:
    """Return the row of a single crop of a zip, not yet scored."""
    return Row(
        path=still.file,
        fake=still.fake,
        source=f"{Path(path).stem} (single crops)",
        method="",
        group=still.original,
        pair=still.original,
        original=still.original if still.fake else "",
        still=True,
    )


def _clip_of(pixels: NDArray[np.uint8], digest: str) -> Clip:
    """Return a clip of one frame whose face is the whole picture."""
    size = pixels.shape[1]
    return Clip(
        person=1,
        pixels=pixels,
        times=np.zeros(1),
        valid=np.ones(1, np.bool_),
        boxes=np.array([[0, 0, size, size]], np.float32),
        landmarks=np.zeros((1, 5, 2), np.float32),
        confidence=np.ones(1, np.float32),
        recipe_digest=digest,
    )
