"""The records of a CSV or JSON Lines file, one at a time and each with its line: never the whole file in memory."""

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import BinaryIO, NoReturn

LINE_MAX = 256 * 1024
"""Bytes of a line: many times the largest event, and a bound for what is read at once."""

Fields = Mapping[str, object]


class LineError(ValueError):
    """What is wrong with one record, in words."""


class HeaderError(ValueError):
    """What is wrong with the whole file, in words."""


@dataclass(frozen=True, slots=True)
class Record:
    """A record: where it begins, what its content hashes to, and its fields or what is wrong with it."""

    line: int
    digest: str
    fields: Fields | LineError


class BoundedLines:
    """The lines of a file as text; one that is too long is skipped and raised, and the next ones still come."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._file.readline(LINE_MAX + 1)
        if not raw:
            raise StopIteration
        self.number += 1
        if len(raw) > LINE_MAX:
            while raw and not raw.endswith(b"\n"):
                raw = self._file.readline(LINE_MAX)
            raise LineError(f"the line is longer than {LINE_MAX:,} bytes")
        if self.number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        return _text(raw)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise LineError("the line is not UTF-8") from None


def csv_header(file: BinaryIO) -> list[str]:
    """Return the names of a CSV file's columns; raises HeaderError."""
    try:
        names = [name.strip() for name in next(csv.reader(BoundedLines(file), strict=True), [])]
    except (csv.Error, LineError) as error:
        raise HeaderError(f"the first line is no CSV header: {error}") from None
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise HeaderError(f"the header names {', '.join(map(repr, twice))} twice")
    return names


def csv_records(file: BinaryIO) -> Iterator[Record]:
    """Yield the records of a CSV file behind its header; a record's content is its values, however they are quoted."""
    lines = BoundedLines(file)
    reader = csv.reader(lines, strict=True)
    header = [name.strip() for name in next(reader, [])]
    while True:
        line = lines.number + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except (csv.Error, LineError) as error:
            until = f" (what stands until line {lines.number} is lost with it)" if lines.number > line else ""
            yield Record(line, "", LineError(f"{error}{until}"))
            continue
        if values:
            yield Record(line, _digest(json.dumps(values)), _zipped(header, values))


def _zipped(header: list[str], values: list[str]) -> Fields | LineError:
    if len(values) != len(header):
        return LineError(f"{len(values)} values for {len(header)} columns")
    return {name: value for name, value in zip(header, values, strict=True) if value}


def json_records(file: BinaryIO) -> Iterator[Record]:
    """Yield the records of a JSON Lines file, numbers exactly as they are written; blank lines are none."""
    lines = BoundedLines(file)
    while True:
        try:
            text = next(lines).strip()
        except StopIteration:
            return
        except LineError as error:
            yield Record(lines.number, "", error)
            continue
        if text:
            yield Record(lines.number, _digest(text), _parsed(text))


def _parsed(text: str) -> Fields | LineError:
    try:
        found = json.loads(text, parse_float=Decimal, parse_int=Decimal, parse_constant=_refuse)
    except json.JSONDecodeError as error:
        return LineError(f"the line is no JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError) as error:
        return LineError(f"the line is no JSON: {error}")
    if not isinstance(found, dict):
        return LineError("the line is no JSON object")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
