"""A record of a file becomes a usage event: mapped, priced, shifted, and checked as far as a message demands it."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from google.protobuf.json_format import Parse, ParseError
from google.protobuf.struct_pb2 import Struct

from latchkey.cli.lines import Fields, LineError
from latchkey.cli.money import checked_money, parse_usd
from latchkey.v1 import usage_pb2

FIELDS = tuple(each.name for each in usage_pb2.UsageEvent.DESCRIPTOR.fields)
"""What a file's columns may be called, or be mapped to."""

REQUIRED = ("key_id", "occurred_time")
PRICED = ("input_tokens", "output_tokens", "cached_tokens")
_TEXTS = {"source", "event_id", "key_id", "member", "model", "task", "operation_id"}
_NUMBERS = {"requests", "input_tokens", "output_tokens", "cached_tokens"}
_HINTS = {
    "key_id": "no column is key_id; map one (--column key_id=NAME) or give the key (--key KEY_ID)",
    "occurred_time": "no column is occurred_time; map one (--column occurred_time=NAME)",
}
_SOURCE_MAX = 64
_CUT = 60
_MILLION = 1_000_000
_INT64 = 2**63
_WHOLE = re.compile(r"-?[0-9]{1,19}")
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d+))?([Zz]|[+-]\d\d:\d\d)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file is read: its columns, the values of fields it lacks, prices in nano-dollars a million, the shift."""

    columns: Mapping[str, str]
    constants: Mapping[str, str]
    zone: ZoneInfo
    prices: Mapping[str, int] = field(default_factory=dict)
    shift: timedelta = timedelta()


def event_of(fields: Fields, event_id: str, reading: Reading) -> usage_pb2.UsageEvent:
    """Return the event of a record, with ``event_id`` if it has none of its own; raises LineError."""
    values = {name: value for name in FIELDS if (value := value_of(fields, name, reading)) is not None}
    values.setdefault("event_id", event_id)
    for name in REQUIRED:
        if name not in values:
            raise LineError(f"{name} is missing")
    event = usage_pb2.UsageEvent(type=_type(values.get("type", "CONSUME")))
    for name in _TEXTS & values.keys():
        setattr(event, name, _text(name, values[name]))
    for name in _NUMBERS & values.keys():
        setattr(event, name, _number(name, values[name]))
    event.occurred_time.FromDatetime(_shifted(occurred(fields, reading), reading.shift))
    _add_cost(event, values.get("cost"), reading.prices)
    if "metadata" in values:
        event.metadata.CopyFrom(_metadata(values["metadata"]))
    return event


def value_of(fields: Fields, name: str, reading: Reading) -> object:
    """Return a field of a record: from its column, else as given for all; None if it has neither."""
    found = fields.get(reading.columns.get(name, name))
    return reading.constants.get(name) if found is None else found


def occurred(fields: Fields, reading: Reading) -> datetime:
    """Return when a record says that it happened, to the microsecond; raises LineError."""
    text = str(value_of(fields, "occurred_time", reading))
    found = _TIME.fullmatch(text.strip())
    try:
        if not found:
            raise ValueError
        day, clock, fraction, offset = found.groups(default="")
        at = datetime.fromisoformat(f"{day}T{clock}.{fraction[:6]:0<6}{offset.upper()}")
        return (at if at.tzinfo else at.replace(tzinfo=reading.zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise LineError(f"occurred_time: {_cut(text)} is no instant such as 2026-11-22T12:00:00Z") from None


def _shifted(at: datetime, shift: timedelta) -> datetime:
    try:
        return at + shift
    except OverflowError:
        raise LineError("occurred_time: out of range when shifted") from None


def _type(value: object) -> usage_pb2.UsageType.ValueType:
    name = "USAGE_TYPE_" + str(value).strip().upper().removeprefix("USAGE_TYPE_")
    if name not in usage_pb2.UsageType.keys()[1:]:
        known = ", ".join(each.removeprefix("USAGE_TYPE_") for each in usage_pb2.UsageType.keys()[1:])
        raise LineError(f"type: {_cut(value)} is none of {known}")
    return usage_pb2.UsageType.Value(name)


def _text(name: str, value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | Decimal):
        raise LineError(f"{name}: {_cut(value)} is no text")
    text = str(value)
    if any("\ud800" <= each <= "\udfff" for each in text):
        raise LineError(f"{name}: {_cut(value)} holds half a character")
    return text


def _number(name: str, value: object) -> int:
    number = int(str(value)) if _WHOLE.fullmatch(str(value)) else None
    if number is None or not -_INT64 <= number < _INT64:
        raise LineError(f"{name}: {_cut(value)} is no whole number")
    return number


def _add_cost(event: usage_pb2.UsageEvent, value: object, prices: Mapping[str, int]) -> None:
    try:
        if value is not None:
            event.cost.CopyFrom(checked_money(parse_usd(str(value))))
        elif prices and event.type == usage_pb2.USAGE_TYPE_CONSUME:
            nanos = priced(event.input_tokens, event.output_tokens, event.cached_tokens, prices)
            event.cost.CopyFrom(checked_money(nanos))
    except ValueError as error:
        raise LineError(f"cost: {error}") from None


def priced(input_tokens: int, output_tokens: int, cached_tokens: int, prices: Mapping[str, int]) -> int:
    """Return what tokens cost, to the nearest nano-dollar; cached ones cost as input unless they have a price."""
    input_price = prices.get("input_tokens", 0)
    cached_price = prices.get("cached_tokens", input_price)
    total = (input_tokens - cached_tokens) * input_price + cached_tokens * cached_price
    total += output_tokens * prices.get("output_tokens", 0)
    return (total + _MILLION // 2) // _MILLION


def _metadata(value: object) -> Struct:
    try:
        return Parse(value if isinstance(value, str) else json.dumps(value, default=float), Struct())
    except (ParseError, ValueError, RecursionError):
        raise LineError(f"metadata: {_cut(value)} is no JSON object") from None


def _cut(value: object) -> str:
    text = str(value)
    return repr(text if len(text) <= _CUT else text[:_CUT] + "…")


def source_of(file_name: str) -> str:
    """Return the source of a file's events: its name in printable ASCII, never longer than a source may be."""
    name = "".join(each if each.isascii() and each.isprintable() else "_" for each in file_name)
    return f"import:{name}"[:_SOURCE_MAX].rstrip()


def lacking(columns: Iterable[str], reading: Reading) -> list[str]:
    """Return what is wrong with a file's columns, in words."""
    present = set(columns)
    missing = [f"there is no column {column!r}" for column in reading.columns.values() if column not in present]
    found = [name for name in FIELDS if reading.columns.get(name, name) in present or name in reading.constants]
    return missing + [_HINTS[name] for name in REQUIRED if name not in found and name not in reading.columns]


def ignored(columns: Iterable[str], reading: Reading) -> list[str]:
    """Return the columns that are read as no field."""
    read = {reading.columns.get(name, name) for name in FIELDS}
    return [column for column in columns if column not in read]
