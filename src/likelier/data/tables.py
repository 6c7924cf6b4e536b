"""Rows of tables: CSV, whose cells are text or JSON, and Parquet, batch after batch.

A table's columns are looked at once: two of one name, or a line that is no header, is an error of the file.
"""

from __future__ import annotations

import contextlib
import csv
import io
import re
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, Any

from likelier.data.faults import Fault, RowError, excerpt, one_line
from likelier.data.json_rows import MAX_ROW_BYTES, REST, Raw, broken_off, json_value
from likelier.errors import DataError

_TURNS = re.compile(r'\s*\[?\s*\{\s*"(role|from|content|value|text)"')
_JSON_COLUMNS = """
    weight margin label kto_tag completions scores ranking tokens finish labels annotator1 annotator2 annotator3
    overall_preference preference_strength score_chosen score_rejected helpfulness history chat_template_kwargs
"""
_VALUES = frozenset(_JSON_COLUMNS.split())
"""Columns of a CSV whose cells are JSON."""
_OPTIONAL = _VALUES | {"id", "source", "system", "tools"}


def _require_columns(names: Sequence[str], file: str) -> None:
    """Refuses a table in which a column's name does not say which column is meant."""
    twice = next((name for at, name in enumerate(names) if name and name in names[:at]), None)
    if twice is not None:
        raise DataError(f"{file}: two columns are named {excerpt(twice)}: rename or delete one of them")


def parquet_rows(stream: IO[bytes], file: str, *, zipped: bool) -> Iterator[Raw]:
    """The rows of a Parquet file; a gzipped one is unpacked first, since Parquet is read from its end."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    with contextlib.ExitStack() as closing:
        try:
            if zipped:
                unpacked = closing.enter_context(tempfile.TemporaryFile())
                shutil.copyfileobj(stream, unpacked)
                stream = unpacked
            table = pq.ParquetFile(stream)
            _require_columns(table.schema_arrow.names, file)
            for batch in table.iter_batches(batch_size=512):
                yield from _batch_rows(batch, file, number + 1)
                number += batch.num_rows
        except (pa.ArrowException, OSError, EOFError, ValueError, zlib.error) as error:
            yield broken_off(file, number + 1, error)


def _batch_rows(batch: Any, file: str, first: int) -> Iterator[Raw]:
    """A batch's rows; where it holds what Python cannot, row by row, so that only those are lost."""
    try:
        rows = batch.to_pylist()
    except (ValueError, OverflowError):
        for index in range(batch.num_rows):
            yield _one_row(batch.slice(index, 1), file, first + index)
    else:
        yield from enumerate(rows, start=first)


def _one_row(batch: Any, file: str, number: int) -> Raw:
    try:
        return number, batch.to_pylist()[0]
    except (ValueError, OverflowError) as error:
        message = f"a value that cannot be read ({excerpt(str(error), limit=120)}): write this row again"
        return Fault(file, number, None, "malformed", message)


def csv_rows(stream: IO[bytes], file: str, delimiter: str) -> Iterator[Raw]:
    """The rows below the header. Cells are text, or JSON in columns that hold numbers or lists."""
    number = 0
    # The limit is the module's own and belongs to the whole process: it is raised, never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), min(MAX_ROW_BYTES, sys.maxsize)))
    # Bytes that are not UTF-8 become lone surrogates, so that they cost their own row and not the rest.
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    try:
        lines = csv.reader(text, delimiter=delimiter, strict=True)
        header = next(lines, [])
        _require_header(header, file, delimiter)
        for cells in lines:
            if cells:
                number += 1
                yield _csv_row(header, cells, file, number)
    except csv.Error as error:
        yield Fault(file, number + 1, None, "malformed", _quoting(error), rest_lost=True)
    except (OSError, EOFError, zlib.error) as error:
        yield broken_off(file, number + 1, error)
    finally:
        text.detach()  # the stream is closed by the one who opened it


def _quoting(error: csv.Error) -> str:
    """What is wrong with quotes, and what would be right."""
    if str(error) == "unexpected end of data":
        return f'the quote " that this row opens is never closed; {REST}: close it'
    rule = 'a cell that holds a quote stands in quotes, and the quote is written twice ("")'
    return f"the quotes are wrong here or shortly after ({error}); {REST}: {rule}"


def _require_header(header: Sequence[str], file: str, delimiter: str) -> None:
    """Refuses a first line that cannot be the names of columns."""
    if _not_utf8(header) is not None:
        raise DataError(f"{file}: the first line is not UTF-8 and names no columns: save the file as UTF-8")
    _require_columns(header, file)
    other = {",": "a comma", ";": "`;`", "\t": "a tab"}
    found = [mark for mark in other if mark in header[0]] if len(header) == 1 else []
    if found:
        ending = ".tsv" if found[0] == "\t" else ".csv"
        save = f"save it as {ending} with {other['	' if ending == '.tsv' else ',']} between cells"
        shown = one_line(header[0][:80])
        raise DataError(f"{file}: one column, `{shown}`: its cells are parted by {other[found[0]]}; {save}")


def _not_utf8(cells: Sequence[str]) -> int | None:
    """Index of the first cell with bytes that are not UTF-8."""
    for index, cell in enumerate(cells):
        if not cell.isascii():
            try:
                cell.encode("utf-8")
            except UnicodeEncodeError:
                return index
    return None


def _csv_row(header: list[str], cells: list[str], file: str, number: int) -> Raw:
    if len(cells) != len(header):
        message = (
            f"{len(cells)} cells under {len(header)} column names: quote cells that hold commas or line ends"
        )
        return Fault(file, number, None, "malformed", message, cells)
    wrong = _not_utf8(cells)
    if wrong is not None:
        message = f"`{one_line(header[wrong])}` holds bytes that are not UTF-8: save the file as UTF-8"
        return Fault(file, number, header[wrong], "malformed", message, cells)
    return number, {column: _cell(column, cell) for column, cell in zip(header, cells, strict=True)}


def _cell(column: str, cell: str) -> Any:
    """What a CSV cell says: text; a JSON value where the column calls for one; turns where it holds turns."""
    if column in _OPTIONAL and not cell.strip():
        return None
    if column in _VALUES:
        with contextlib.suppress(RowError):
            return json_value(cell.lower() if cell.lower() in ("true", "false") else cell)
    elif _TURNS.match(cell):
        with contextlib.suppress(RowError):
            return json_value(cell)
    return cell
