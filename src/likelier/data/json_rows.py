"""Rows of JSON Lines and of JSON arrays, streamed, so that memory holds one row and not the file.

A line that is not JSON is one fault and reading goes on at the next line. In an array there is no telling
where the next row begins, so a fault there is the last thing read, and says so.
"""

from __future__ import annotations

import codecs
import json
import zlib
from collections.abc import Iterator
from typing import IO, Any

from likelier.data.faults import Fault, RowError, excerpt

MAX_ROW_BYTES = 64 * 1024 * 1024
"""A row longer than this is a fault: a file without line ends must not fill the memory."""

_CHUNK = 1 << 20
READ_ERRORS = (OSError, EOFError, zlib.error)
REST = "the rest of the file cannot be read"

Raw = tuple[int, Any] | Fault


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, refusing a key given twice: which of the two was meant?"""
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RowError(
            twice[:80], "duplicate key", f"the key {excerpt(twice)} is given twice: keep one of them"
        )
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_unique)


def json_value(text: str) -> Any:
    """The JSON value that `text` is; a `RowError` says what is wrong with it."""
    try:
        return _DECODER.decode(text)
    except json.JSONDecodeError as error:
        near = excerpt(text[max(0, error.pos - 10) : error.pos + 20])
        message = (
            f"not valid JSON at character {error.pos + 1} ({error.msg}, near {near}): repair or delete it"
        )
        raise RowError(None, "malformed", message) from None
    except ValueError:
        raise RowError(None, "malformed", "a number has too many digits: shorten it") from None
    except RecursionError:
        raise RowError(None, "malformed", "lists or objects are nested too deeply: flatten the row") from None


def line_rows(stream: IO[bytes], file: str) -> Iterator[Raw]:
    """The rows of JSON Lines. A row's number is its line's; blank lines count and are passed over."""
    number = 0
    try:
        while line := stream.readline(MAX_ROW_BYTES):
            number += 1
            if len(line) == MAX_ROW_BYTES and not line.endswith(b"\n"):
                yield Fault(
                    file, number, None, "too long", _too_long(), line[:1000].decode("utf-8", "replace")
                )
                _skip_line(stream)
            elif line.strip():
                yield _row_of_line(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line, file, number)
    except READ_ERRORS as error:
        yield broken_off(file, number + 1, error)


def broken_off(file: str, row: int, error: BaseException) -> Fault:
    """The fault of a file that ends or breaks while it is read (a truncated or damaged gzip, say)."""
    reason = excerpt(" ".join(str(error).split()), limit=160)
    message = f"the file breaks off or is damaged here ({reason}); {REST}: fetch or write it again"
    return Fault(file, row, None, "malformed", message, rest_lost=True)


def _too_long() -> str:
    return f"longer than {MAX_ROW_BYTES >> 20} MiB: is this JSON Lines, one object a line?"


def _skip_line(stream: IO[bytes]) -> None:
    while (part := stream.readline(_CHUNK)) and not part.endswith(b"\n"):
        pass


def _row_of_line(line: bytes, file: str, number: int) -> Raw:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        shown = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
        message = f"byte {error.start + 1} is not UTF-8: save the file as UTF-8"
        return Fault(file, number, None, "malformed", message, shown)
    try:
        return number, json_value(text)
    except RowError as error:
        return Fault(file, number, error.field, error.kind, error.message, text.rstrip("\r\n"))


def json_rows(stream: IO[bytes], file: str) -> Iterator[Raw]:
    """The rows of a `.json` file: the members of an array, or objects one after another (JSON Lines)."""
    try:
        start = _first_bytes(stream)
        if start.startswith(b"{") and _is_json_lines(stream, start):
            yield from line_rows(stream, file)
        else:
            yield from _Members(stream, file).rows()
    except READ_ERRORS as error:
        yield broken_off(file, 1, error)


def _first_bytes(stream: IO[bytes]) -> bytes:
    """The first thousand bytes after white space and a byte order mark; the stream stays at its start."""
    start = stream.read(1024).removeprefix(codecs.BOM_UTF8).lstrip()
    stream.seek(0)
    return start


def _is_json_lines(stream: IO[bytes], start: bytes) -> bool:
    """Whether objects stand on lines of their own, so that a broken one costs its line and not the file."""
    line = stream.readline(MAX_ROW_BYTES)
    while line and not line.removeprefix(codecs.BOM_UTF8).strip():
        line = stream.readline(MAX_ROW_BYTES)
    more = stream.readline(_CHUNK).strip()
    stream.seek(0)
    return line.rstrip().endswith(b"}") or more.startswith(b"{")


class _Members:
    """Takes the members of a JSON array, or JSON values that follow one another, from a growing buffer."""

    def __init__(self, stream: IO[bytes], file: str) -> None:
        self.stream = stream
        self.file = file
        self.text = ""
        self.start = 0
        self.number = 0
        self.ended = False
        # Bytes that are not UTF-8 become lone surrogates, so that they cost their own row and not the rest.
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode

    def rows(self) -> Iterator[Raw]:
        """One row or fault after another; a fault is the last."""
        try:
            in_array = self._peek() == "["
            self.start += in_array
            while self._more(in_array):
                self.number += 1
                yield self._member()
        except RowError as error:
            yield self._fault(error, rest_lost=True)
        except READ_ERRORS as error:
            yield broken_off(self.file, self.number + 1, error)

    def _fault(self, error: RowError, *, rest_lost: bool = False) -> Fault:
        raw = self.text[self.start : self.start + 1000]
        number = max(self.number, 1)
        return Fault(self.file, number, error.field, error.kind, error.message, raw, rest_lost)

    def _fill(self) -> None:
        """Doubles what is buffered, so that a long row is parsed a few times and not once a chunk."""
        data = self.stream.read(max(_CHUNK, len(self.text) - self.start))
        self.ended = not data
        self.text = self.text[self.start :] + self._decode(data, final=self.ended)
        self.start = 0

    def _peek(self) -> str:
        """The next character that is no white space, or `""` at the end of the file."""
        while True:
            while self.start < len(self.text):
                if not self.text[self.start].isspace():
                    return self.text[self.start]
                self.start += 1
            if self.ended:
                return ""
            self._fill()

    def _more(self, in_array: bool) -> bool:
        """Whether a value comes next; passes over the comma before it."""
        character = self._peek()
        if not in_array:
            return character != ""
        if character == "]":
            self.start += 1
            if self._peek():
                self._refuse("there is text after the array's closing `]`")
            return False
        if character == "" or (self.number and character != ","):
            self._refuse("the array breaks off" if character == "" else "a comma is missing before this row")
        self.start += character == ","
        if self.number and self._peek() == "]":
            self._refuse("a comma stands before the array's closing `]`")
        return True

    def _refuse(self, what: str) -> None:
        self.number += 1
        raise RowError(None, "malformed", f"{what}; {REST}: repair the file")

    def _member(self) -> Raw:
        """The next row; where only a key is doubled its end is known, and reading goes on behind it."""
        self._peek()
        try:
            return self.number, self._value()
        except RowError as error:
            if error.kind != "duplicate key":
                raise
            fault = self._fault(error)
            _, self.start = json.JSONDecoder().raw_decode(self.text, self.start)
            return fault

    def _value(self) -> Any:
        while True:
            try:
                value, self.start = _DECODER.raw_decode(self.text, self.start)
                return value
            except json.JSONDecodeError as error:
                if self.ended or not self._may_be_cut(error):
                    raise self._malformed(error.msg) from None
                if len(self.text) - self.start > MAX_ROW_BYTES:
                    raise RowError(
                        None, "too long", f"longer than {MAX_ROW_BYTES >> 20} MiB; {REST}"
                    ) from None
                self._fill()
            except ValueError:
                raise self._malformed("a number has too many digits") from None
            except RecursionError:
                raise self._malformed("lists or objects are nested too deeply") from None

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        """Whether the row may only be cut by the buffer's end: the fault is there or in an open string."""
        return error.pos > len(self.text) - 16 or error.msg.startswith("Unterminated string")

    def _malformed(self, what: str) -> RowError:
        return RowError(None, "malformed", f"not valid JSON ({what}); {REST}: repair it")
