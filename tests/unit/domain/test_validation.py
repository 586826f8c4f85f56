"""Field rules that several nouns share."""

import math
from datetime import timedelta
from typing import Any

import pytest

from latchkey_server.domain import validation
from latchkey_server.domain.errors import InvalidField, Violation
from latchkey_server.domain.model import Json
from latchkey_server.domain.validation import Violations
from tests.unit.builders import TICK, fields_of, make_ratelimit, problems_of


def paths(found: Violations) -> list[str]:
    return [field for field, _ in problems_of(found)]


def metadata_of(size: int) -> Json:
    """Return metadata of this many bytes as compact JSON."""
    return {"a": "x" * (size - len('{"a":""}'))}


def test_violations_are_gathered_under_their_path() -> None:
    found = Violations("key")

    found.add("name", "is wrong")
    with pytest.raises(InvalidField) as caught:
        found.check()

    assert caught.value.violations == (Violation("key.name", "is wrong"),)
    assert caught.value.message == "The request has invalid fields: key.name: is wrong."


def test_without_violations_nothing_is_raised() -> None:
    Violations("key").check()


def test_an_attempt_gives_what_was_converted_or_notes_why_not() -> None:
    found = Violations()

    assert found.attempt("a", lambda: int("7"), 0) == 7
    assert found.attempt("b", lambda: int("x"), 0) == 0
    assert paths(found) == ["b"]


def test_metadata_may_have_4_kib_as_compact_json() -> None:
    found = Violations()

    validation.check_metadata(found, "metadata", metadata_of(4_096))

    assert problems_of(found) == []


@pytest.mark.parametrize(
    "metadata", [metadata_of(4_097), {"a": "é" * 2_045}, {"é" * 2_046: 1}, {"a": [{"b": "x" * 4_090}]}]
)
def test_metadata_beyond_4_kib_of_utf8_is_refused(metadata: Json) -> None:
    found = Violations()

    validation.check_metadata(found, "metadata", metadata)

    assert problems_of(found) == [("metadata", "must be at most 4096 bytes as compact JSON")]


def nested(levels: int, *, lists: bool) -> Json:
    """Return metadata of so many levels, its own included."""
    value: Any = "deepest"
    for _ in range(levels - 1):
        value = [value] if lists else {"a": value}
    return {"a": value}


@pytest.mark.parametrize("lists", [False, True])
def test_metadata_is_at_most_16_levels_deep(lists: bool) -> None:
    found = Violations()

    validation.check_metadata(found, "metadata", nested(16, lists=lists))
    assert problems_of(found) == []
    validation.check_metadata(found, "metadata", nested(17, lists=lists))

    assert problems_of(found) == [("metadata", "must be at most 16 levels deep")]


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, "a\0b", [1, [math.nan]], {"b": {"c": "\0"}}, {"\0": 1}]
)
def test_metadata_that_cannot_be_stored_is_refused_at_any_depth(value: Any) -> None:
    found = Violations()

    validation.check_metadata(found, "metadata", {"a": value})

    assert problems_of(found) == [("metadata", "must hold finite numbers and no U+0000")]


def test_a_key_of_metadata_with_u0000_is_refused() -> None:
    found = Violations()

    validation.check_metadata(found, "metadata", {"a\0": 1})

    assert paths(found) == ["metadata"]


def test_metadata_keeps_every_json_value() -> None:
    metadata: Json = {"s": "\n\x01é", "n": -1.5, "t": True, "z": None, "l": [1, {"m": []}], "o": {}}
    found = Violations()

    assert validation.check_metadata(found, "metadata", metadata) == metadata
    assert problems_of(found) == []


@pytest.mark.parametrize("prefix", ["a", "sk", "sk_test", "sk-live", "9_9", "x" * 32])
def test_a_prefix_is_1_to_32_characters_alphanumeric_at_both_ends(prefix: str) -> None:
    found = Violations()

    assert validation.check_prefix(found, "prefix", prefix) == prefix
    assert problems_of(found) == []


@pytest.mark.parametrize("prefix", ["", "_sk", "sk_", "-sk", "sk-", "_", "s k", "sk.live", "é", "sk\n", "x" * 33])
def test_any_other_prefix_is_refused(prefix: str) -> None:
    found = Violations()

    validation.check_prefix(found, "prefix", prefix)

    assert paths(found) == ["prefix"]


@pytest.mark.parametrize("text", ["", "a", "!~", "x" * 64])
def test_a_token_is_printable_ascii_or_absent(text: str) -> None:
    found = Violations()

    validation.check_token(found, "operation_id", text)

    assert problems_of(found) == []


@pytest.mark.parametrize("text", [" ", "a b", "é", "\0", "a\n", "x" * 65])
def test_any_other_token_is_refused(text: str) -> None:
    found = Violations()

    validation.check_token(found, "operation_id", text)

    assert paths(found) == ["operation_id"]


def test_a_required_token_must_not_be_empty() -> None:
    found = Violations()

    validation.check_token(found, "source", "", required=True)

    assert paths(found) == ["source"]


def test_a_note_may_hold_line_breaks_and_tabs_but_no_other_control_characters() -> None:
    found = Violations()

    assert validation.check_note(found, "note", "a\tb\r\nc") == "a\tb\r\nc"
    assert problems_of(found) == []
    validation.check_note(found, "note", "a\0b")
    validation.check_note(found, "note", "x" * 1_001)
    assert paths(found) == ["note", "note"]


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "x" * 64},
        {"name": "A_b.c-9"},
        {"limit": 1},
        {"limit": 1_000_000_000},
        {"window": timedelta(seconds=1)},
        {"window": timedelta(days=31)},
    ],
)
def test_a_rate_limit_within_its_ranges_is_kept(changes: dict[str, Any]) -> None:
    found = Violations()
    limit = make_ratelimit(**changes)

    assert validation.check_ratelimits(found, "ratelimits", [limit]) == (limit,)
    assert problems_of(found) == []


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "x" * 65}, "name"),
        ({"name": "a b"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"name": "é"}, "name"),
        ({"limit": 0}, "limit"),
        ({"limit": -1}, "limit"),
        ({"limit": 1_000_000_001}, "limit"),
        ({"window": timedelta(0)}, "window"),
        ({"window": timedelta(seconds=1) - TICK}, "window"),
        ({"window": timedelta(seconds=1) + TICK}, "window"),
        ({"window": timedelta(days=31, seconds=1)}, "window"),
    ],
)
def test_a_rate_limit_outside_its_ranges_is_refused_by_name(changes: dict[str, Any], field: str) -> None:
    found = Violations("key")

    validation.check_ratelimits(found, "ratelimits", [make_ratelimit("first"), make_ratelimit(**changes)])

    assert paths(found) == [f"key.ratelimits[1].{field}"]


def test_at_most_20_rate_limits_of_different_names_are_taken() -> None:
    limits = [make_ratelimit(f"l{number}") for number in range(21)]
    found = Violations()

    validation.check_ratelimits(found, "ratelimits", limits[:20])
    assert problems_of(found) == []
    validation.check_ratelimits(found, "ratelimits", limits)
    assert problems_of(found) == [("ratelimits", "must have at most 20 entries")]


def test_names_of_rate_limits_are_case_sensitive() -> None:
    found = Violations()

    validation.check_ratelimits(found, "ratelimits", [make_ratelimit("a"), make_ratelimit("A")])

    assert problems_of(found) == []


def test_one_field_can_be_refused_at_once() -> None:
    with pytest.raises(InvalidField) as caught:
        raise InvalidField.one("page_size", "must not be negative")

    assert fields_of(caught) == ["page_size"]
