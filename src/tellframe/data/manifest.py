"""The manifest: one row a video, where it lies and what is known of it, as Parquet."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tellframe.errors import DataError, LeakError, MissingExtraError
from tellframe.store import is_remote, open_store, split_location

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT: Final = "1"
"""Version of the columns; raised when one changes meaning."""


@dataclass(frozen=True, slots=True)
class Video:
    """One video of a data set."""

    video: str
    """Its name in the data set, unique: "dfdc_train_part_0/aaqaifqrwn.mp4"."""
    location: str
    """Path or address of the file, or of the zip that holds it."""
    member: str = ""
    """Name within the zip; empty where `location` is the video itself."""
    offset: int = 0
    """Bytes from the start of the zip to the member's local header."""
    extent: int = 0
    """Bytes of the member in the zip, its header included."""
    compression: int = 0
    """0 stored, 8 deflated."""
    encrypted: bool = False
    """Whether the zip asks for a password."""
    bytes: int = 0
    """Size of the video."""
    crc: int | None = None
    """CRC-32 of the video; None where it was not needed: loose files of a size of their own."""
    label: str = ""
    """REAL, FAKE, or empty where unknown."""
    original: str = ""
    """The video that a fake was made from; empty where there is none or it is not known."""
    group: str = ""
    """Videos of one group never fall on two sides of a split: an original and all its fakes."""
    split: str = ""
    """train, validation, test, or what the source calls it."""
    part: str = ""
    """Part of the data set: a zip or folder."""
    source: str = ""
    """Name of the data set."""
    method: str = ""
    """How a fake was made, where that is known."""

    @property
    def fake(self) -> bool | None:
        """Whether it is a fake; None where unknown."""
        return {"FAKE": True, "REAL": False}.get(self.label)


_TYPES: Final = {"str": "string", "int": "int64", "int | None": "int64", "bool": "bool_"}


def load_pyarrow() -> Any:
    """Return the modules pyarrow and pyarrow.parquet.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError(
            "data sets need an extra; run: pip install 'tellframe[data]'"
        ) from error
    return pyarrow


def table_of(rows: Sequence[Any], cls: type) -> pa.Table:
    """Return a table whose columns are the fields of a dataclass.

    Args:
        rows: its instances.
        cls: the dataclass; its fields are str, int, int | None, float or bool.
    """
    arrow = load_pyarrow()
    types = {**_TYPES, "float": "float64", "float | None": "float64"}
    fields = dataclasses.fields(cls)
    schema = arrow.schema([(f.name, getattr(arrow, types[str(f.type)])()) for f in fields])
    columns = {f.name: [getattr(row, f.name) for row in rows] for f in fields}
    return arrow.table(columns, schema=schema)


def write_manifest(videos: Iterable[Video], path: str | Path) -> None:
    """Write a manifest, sorted by name; the same videos give the same bytes.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    arrow = load_pyarrow()
    table = table_of(sorted(videos, key=lambda v: v.video), Video)
    table = table.replace_schema_metadata(
        {"tellframe_manifest": FORMAT, "tellframe_version": version("tellframe")}
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".part-{target.name}")
    arrow.parquet.write_table(table, part, compression="zstd")
    part.replace(target)


def read_manifest(path: str | Path, endpoint: str = "") -> list[Video]:
    """Read a manifest.

    Args:
        path: a local file, or its address in an object store.
        endpoint: of the object store.

    Raises:
        DataError: the file cannot be read, or is no manifest.
        StoreError: the object store does not answer, or holds no such file.
        MissingExtraError: pyarrow is not installed.
    """
    source: Any = path
    if is_remote(path):
        place, key = split_location(path)
        source = io.BytesIO(open_store(place, endpoint).get(key))
    with explaining_parquet(path):
        table = read_parquet(source)
        found = (table.schema.metadata or {}).get(b"tellframe_manifest")
        if found != FORMAT.encode():
            raise DataError(f"is no manifest of format {FORMAT}; make one with: tellframe index")
        return list(rows_of(table, Video))


def read_parquet(source: Any) -> pa.Table:
    """Read a Parquet file: its path, or an open file.

    In this thread alone: one of Arrow's own that lets go of Python's memory while the interpreter
    ends aborts the process.
    """
    file = load_pyarrow().parquet.ParquetFile(source, pre_buffer=False)
    return file.read(use_threads=False)


def rows_of(table: pa.Table, cls: type, later: Collection[str] = ()) -> Iterator[Any]:
    """Yield instances of a dataclass from a table whose columns are its fields.

    Args:
        table: read from a file.
        cls: the dataclass.
        later: fields that earlier versions did not write; they have their defaults then.

    Raises:
        DataError: another column is missing.
    """
    names = [f.name for f in dataclasses.fields(cls)]
    if missing := set(names) - set(table.column_names) - set(later):
        raise DataError(f"lacks the columns {', '.join(sorted(missing))}")
    names = [name for name in names if name in table.column_names]
    for batch in table.select(names).to_batches(max_chunksize=10_000):
        for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield cls(**dict(zip(names, values, strict=True)))


@contextmanager
def explaining_parquet(path: str | Path) -> Iterator[None]:
    """Name the file that cannot be read as Parquet, or that lacks a column."""
    arrow = load_pyarrow()
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except (OSError, ValueError, arrow.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet ({error})") from error


def require_no_leak(rows: Iterable[Any]) -> None:
    """Raise if a group lies on two sides of a split; a row without a split is on no side.

    Args:
        rows: `Video` or `ClipRow`: anything with `group`, `split` and `video`.

    Raises:
        LeakError: it does; the message names a group and its videos.
    """
    seen: dict[str, tuple[str, str]] = {}
    for row in rows:
        if not row.group or not row.split:
            continue
        split, video = seen.setdefault(row.group, (row.split, row.video))
        if split != row.split:
            raise LeakError(
                f"group {row.group!r} is on both sides of the split: {video} in {split!r}, "
                f"{row.video} in {row.split!r}; an original and its fakes must stay together"
            )
