"""Numbered raw rows out of a file, a saved `datasets` folder or the hub, streamed or memory-mapped.

A name is `path`, or for folders and the hub `name[:configuration][:split]`; the split is `train` unless
named.
Every row is `(number, value)`, the first number is 1; what is no row becomes a `Fault`.
"""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from likelier.data.faults import Fault, RowError, excerpt
from likelier.data.json_rows import MAX_ROW_BYTES, Raw, broken_off, json_rows, json_value, line_rows
from likelier.errors import DataError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")
"""Endings of files that can be read; `.gz` may follow any of them."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+){0,2}")
_SAVED = ("dataset_dict.json", "state.json", "dataset_info.json")
_GZIP_MAGIC = b"\x1f\x8b"
_CSV_TURNS = re.compile(r'\s*\[?\s*\{\s*"(role|from|content|value|text)"')
_CSV_VALUES = {
    "weight",
    "margin",
    "label",
    "kto_tag",
    "completions",
    "scores",
    "ranking",
    "tokens",
    "finish",
    "labels",
}
_CSV_VALUES |= {"annotator1", "annotator2", "annotator3", "overall_preference", "preference_strength"}
_CSV_VALUES |= {"score_chosen", "score_rejected", "helpfulness", "history", "chat_template_kwargs"}
_CSV_OPTIONAL = _CSV_VALUES | {"id", "source", "system", "tools"}


def raw_rows(name: str) -> Iterator[Raw]:
    """The rows of a file, a folder or a hub dataset; raises `DataError` at once where there is none.

    >>> list(raw_rows("nowhere.jsonl"))
    Traceback (most recent call last):
    likelier.errors.DataError: no such file: nowhere.jsonl
    """
    path = Path(name)
    if path.is_file():
        return _file_rows(path, name)
    if path.is_dir():
        return _folder_rows(path, "", name)
    folder, _, split = name.rpartition(":")
    if folder and Path(folder).is_dir():
        return _folder_rows(Path(folder), split, name)
    if _suffix(path) in SUFFIXES or not _HUB_NAME.fullmatch(name):
        raise DataError(f"no such file: {name}")
    return _hub_rows(name)


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _file_rows(path: Path, name: str) -> Iterator[Raw]:
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise DataError(
            f"{name}: cannot tell what is in a file that ends in `{suffix}`; rename it to one of {known}"
        )
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == _GZIP_MAGIC
    except OSError as error:
        raise DataError(f"cannot read {name}: {error.strerror}") from None
    return _stream_rows(path, name, suffix, zipped=zipped)


def _stream_rows(path: Path, name: str, suffix: str, *, zipped: bool) -> Iterator[Raw]:
    stream: IO[bytes]
    with gzip.open(path, "rb") if zipped else path.open("rb") as stream:  # type: ignore[assignment]
        if suffix == ".parquet":
            yield from _parquet_rows(stream, name, zipped=zipped)
        elif suffix == ".json":
            yield from json_rows(stream, name)
        elif suffix in (".csv", ".tsv"):
            yield from _csv_rows(stream, name, "\t" if suffix == ".tsv" else ",")
        else:
            yield from line_rows(stream, name)


def _parquet_rows(stream: IO[bytes], name: str, *, zipped: bool) -> Iterator[Raw]:
    """Batch after batch; a gzipped file is unpacked first, since Parquet is read from its end."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    with contextlib.ExitStack() as closing:
        try:
            if zipped:
                unpacked = closing.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(stream, unpacked)
                stream = unpacked
            for batch in pq.ParquetFile(stream).iter_batches(batch_size=512):
                for value in batch.to_pylist():
                    number += 1
                    yield number, value
        except (pa.ArrowException, OSError, EOFError, ValueError, zlib.error) as error:
            yield broken_off(name, number + 1, error)


def _csv_rows(stream: IO[bytes], name: str, delimiter: str) -> Iterator[Raw]:
    """The rows below the header. Cells are text, or JSON in columns that hold numbers or lists."""
    number = 0
    # The limit is the module's own and belongs to the whole process: it is raised, never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), min(MAX_ROW_BYTES, sys.maxsize)))
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    try:
        lines = csv.reader(text, delimiter=delimiter, strict=True)
        header = next(lines, [])
        for cells in lines:
            if cells:
                number += 1
                yield _csv_row(header, cells, name, number)
    except UnicodeDecodeError:
        message = "not UTF-8 here or shortly after; the rest of the file cannot be read: save it as UTF-8"
        yield Fault(name, number + 1, None, "malformed", message)
    except (csv.Error, OSError, EOFError, zlib.error) as error:
        yield broken_off(name, number + 1, error)
    finally:
        text.detach()  # the stream is closed by the one who opened it


def _csv_row(header: list[str], cells: list[str], name: str, number: int) -> Raw:
    if len(cells) != len(header):
        message = (
            f"{len(cells)} cells under {len(header)} column names: quote cells that hold commas or line ends"
        )
        return Fault(name, number, None, "malformed", message, cells)
    try:
        return number, {column: _cell(column, cell) for column, cell in zip(header, cells, strict=True)}
    except RowError as error:
        return Fault(
            name, number, error.field, error.kind, error.message, dict(zip(header, cells, strict=True))
        )


def _cell(column: str, cell: str) -> Any:
    """What a CSV cell says: text; a JSON value where the column calls for one; turns where it holds turns."""
    if column in _CSV_OPTIONAL and not cell.strip():
        return None
    if column in _CSV_VALUES:
        with contextlib.suppress(RowError):
            return json_value(cell.lower() if cell.lower() in ("true", "false") else cell)
    elif _CSV_TURNS.match(cell):
        with contextlib.suppress(RowError):
            return json_value(cell)
    return cell


def _folder_rows(folder: Path, split: str, name: str) -> Iterator[Raw]:
    """The rows of a folder that `save_to_disk` wrote, memory-mapped."""
    if not any((folder / marker).is_file() for marker in _SAVED):
        raise DataError(f"{name} is no folder that `datasets` saved with save_to_disk; name a file in it")
    from datasets import load_from_disk

    try:
        loaded = load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        reason = excerpt(" ".join(str(error).split()), limit=160)
        raise DataError(f"{name} is a damaged `datasets` folder ({reason}); save it again") from None
    return dataset_rows(_pick_split(loaded, split, name))


def _hub_rows(name: str) -> Iterator[Raw]:
    """The rows of a dataset from the hub (or its cache on this machine), memory-mapped."""
    from datasets import load_dataset

    repository, *parts = name.split(":")
    configuration = parts[0] if len(parts) == 2 else None
    try:
        loaded = load_dataset(repository, configuration)
    except Exception as error:  # what the hub's client raises is no closed list; each becomes one line
        reason = " ".join(str(error).split())
        message = f"`{name}` is no file here and cannot be had from the hub"
        raise DataError(f"{message} ({type(error).__name__}: {reason[:200]})") from error
    return dataset_rows(_pick_split(loaded, parts[-1] if parts else "", name))


def _pick_split(loaded: Any, split: str, name: str) -> Any:
    """The split asked for; unasked, the only one or `train`."""
    if not isinstance(loaded, Mapping):
        if split:
            raise DataError(f"{name}: this dataset has no splits; leave out `:{split}`")
        return loaded
    wanted = split or (next(iter(loaded)) if len(loaded) == 1 else "train")
    if wanted not in loaded:
        base = name.removesuffix(f":{split}") if split else name
        raise DataError(
            f"{name} has no split `{wanted}`; name one: " + ", ".join(f"{base}:{key}" for key in loaded)
        )
    return loaded[wanted]


def dataset_rows(dataset: Any) -> Iterator[Raw]:
    """The rows of a `datasets.Dataset` or `IterableDataset` in memory, on disk or streamed."""
    yield from enumerate(dataset, start=1)
