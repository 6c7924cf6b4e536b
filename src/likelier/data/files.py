"""Numbered raw rows out of a file, a saved `datasets` folder or the hub, streamed or memory-mapped.

A name is `path`, or for folders and the hub `name[:configuration][:split]`; the split is `train` unless
named.
Every row is `(number, value)`, the first number is 1; what is no row becomes a `Fault`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from likelier.data.faults import did_you_mean, excerpt, one_line
from likelier.data.json_rows import READ_ERRORS, Raw, broken_off, json_rows, line_rows
from likelier.data.tables import csv_rows, parquet_rows
from likelier.errors import DataError

SUFFIXES = (".jsonl", ".ndjson", ".json", ".parquet", ".csv", ".tsv")
"""Endings of files that can be read; `.gz` may follow any of them."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+){0,2}")
_SAVED = ("dataset_dict.json", "state.json", "dataset_info.json")
_COPY = "refs/convert/parquet"
"""The branch of a dataset in which the hub keeps its rows as Parquet files, `CONFIGURATION/SPLIT/0000.parquet`."""
_GZIP_MAGIC = b"\x1f\x8b"


def raw_rows(name: str) -> Iterator[Raw]:
    """The rows of a file, a folder or a hub dataset; raises `DataError` at once where there is none.

    >>> list(raw_rows("nowhere.jsonl"))
    Traceback (most recent call last):
    likelier.errors.DataError: no such file: nowhere.jsonl
    """
    path = Path(name)
    folder, _, split = name.rpartition(":")
    try:
        if path.is_file():
            return _file_rows(path, name)
        if name.strip() and path.is_dir():
            return _folder_rows(path, "", name)
        if folder and Path(folder).is_dir():
            return _folder_rows(Path(folder), split, name)
        if name.strip() and path.exists():
            raise DataError(f"{name} is a pipe or a device, which cannot be read twice: write it to a file")
    except OSError as error:
        raise DataError(f"cannot read {excerpt(name, limit=200)}: {error.strerror}") from None
    if _suffix(path) in SUFFIXES or not _HUB_NAME.fullmatch(name) or _neighbours(path, f"{path.name}."):
        shown = one_line(name) if name.strip() else excerpt(name)
        raise DataError(f"no such file: {shown}{did_you_mean(path.name, _neighbours(path, ''))}")
    return _hub_rows(name)


def _neighbours(path: Path, beginning: str) -> list[str]:
    """Names beside a path that begin so."""
    with contextlib.suppress(OSError, ValueError):
        return [one_line(other.name) for other in path.parent.iterdir() if other.name.startswith(beginning)]
    return []


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _file_rows(path: Path, name: str) -> Iterator[Raw]:
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        ending = f"ends in `{suffix}`" if suffix else "has no ending"
        known = ", ".join(SUFFIXES)
        raise DataError(f"{name}: cannot tell what is in a file that {ending}; rename it to one of {known}")
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
            yield from parquet_rows(stream, name, zipped=zipped)
            return
        try:
            _require_text(stream, name)
        except READ_ERRORS as error:
            yield broken_off(name, 1, error)
            return
        if suffix == ".json":
            yield from json_rows(stream, name)
        elif suffix in (".csv", ".tsv"):
            yield from csv_rows(stream, name, "\t" if suffix == ".tsv" else ",")
        else:
            yield from line_rows(stream, name)


def _require_text(stream: IO[bytes], name: str) -> None:
    """Refuses what its first bytes show to be no UTF-8, as a whole: each line would be a fault of its own."""
    start = stream.read(4)
    stream.seek(0)
    if start[:2] == _GZIP_MAGIC:
        raise DataError(f"{name} is compressed twice: unpack it once")
    if start == b"PAR1":
        raise DataError(f"{name} is a Parquet file: let its name end in .parquet")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or (
        len(start) == 4 and start.replace(b"\0", b"").strip() and b"\0" in start
    ):
        raise DataError(f"{name} is not UTF-8 but UTF-16 or UTF-32, it seems: save it as UTF-8")


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
    return dataset_rows(_pick_split(loaded, split, name), name)


def _hub_rows(name: str) -> Iterator[Raw]:
    """The rows of a dataset from the hub (or its cache on this machine), memory-mapped."""
    repository, *parts = name.split(":")
    configuration = parts[0] if len(parts) == 2 else None
    print(f"looking for the dataset {repository} on the hub", file=sys.stderr)
    try:
        with _quiet_hub():
            loaded = _load_from_hub(repository, configuration)
    except DataError:
        raise
    except Exception as error:  # what the hub's client raises is no closed list; each becomes one line
        reason = " ".join(str(error).split())
        message = f"`{name}` is no file here and cannot be had from the hub"
        raise DataError(f"{message} ({type(error).__name__}: {reason[:200]})") from error
    return dataset_rows(_pick_split(loaded, parts[-1] if parts else "", name), name)


def _load_from_hub(repository: str, configuration: str | None) -> Any:
    """A dataset that a script would make is read from the copy that the hub makes of it, and no script is run."""
    from datasets import load_dataset

    try:
        return load_dataset(repository, configuration)
    except (RuntimeError, ValueError) as error:
        # Once a copy has been read, the library looks for the configuration among what it keeps, and says that instead.
        if not any(told in str(error) for told in ("scripts are no longer supported", "find cache for")):
            raise
    if configuration is None:
        raise DataError(
            f"{repository} is made by a script, which is not run, and the hub's copies of it have one folder for each"
            f" configuration: name it, as {repository}:CONFIGURATION:SPLIT"
        )
    print(f"{repository} is made by a script: reading the hub's copy in {_COPY} instead", file=sys.stderr)
    return load_dataset(repository, data_dir=configuration, revision=_COPY)


@contextlib.contextmanager
def _quiet_hub() -> Iterator[None]:
    """Without the hub client's lines on every retry: what it says in the end is one line of ours."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


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


def dataset_rows(dataset: Any, name: str = "<dataset>") -> Iterator[Raw]:
    """The rows of a `datasets.Dataset` or `IterableDataset` in memory, on disk or streamed, as plain values."""
    number = 0
    try:
        for number, value in enumerate(_undecoded(dataset), start=1):
            yield number, value
    except Exception as error:  # a dataset reads through code of many makers; each fault becomes one line
        yield broken_off(name, number + 1, error)


def _undecoded(dataset: Any) -> Any:
    """The dataset without tensors, and with pictures and sound as they lie in the file: rows name them."""
    plain = dataset.with_format(None) if hasattr(dataset, "with_format") else dataset
    for column, feature in (getattr(plain, "features", None) or {}).items():
        if getattr(feature, "decode", False) and hasattr(plain, "cast_column"):
            plain = plain.cast_column(column, dataclasses.replace(feature, decode=False))
    return plain
