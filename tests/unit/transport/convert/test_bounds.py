"""What is refused by its size is refused before it is converted."""

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from latchkey_server.domain import validation
from latchkey_server.domain.validation import METADATA_MAX, NAME_MAX, NOTE_MAX, Violations
from latchkey_server.transport.convert.well_known import read_struct
from tests.unit.builders import problems_of

LONG = "\u00a0" * 1_000_000
"""Neither printable nor a control character: each has to be looked up by itself."""


def struct_of(items: int) -> Struct:
    struct = Struct()
    struct.update({f"key {number}": {"nested": [1, 2, 3]} for number in range(items)})
    return struct


def test_metadata_that_can_not_be_small_enough_is_not_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    large, found = struct_of(20_000), Violations()
    monkeypatch.setattr(json_format, "MessageToDict", None)

    assert read_struct(found, "metadata", large, METADATA_MAX) == {}
    assert problems_of(found) == [("metadata", f"must be at most {METADATA_MAX} bytes as compact JSON")]


@pytest.mark.parametrize("most", [512, METADATA_MAX])
@pytest.mark.parametrize("item", ["0.0", "[]", "{}", "true", "null", '"a"', '""', '{"":0.0}', "[[]]"])
def test_whatever_fits_as_json_is_converted(item: str, most: int) -> None:
    """The densest JSON that there is: as messages it is several times as large."""
    items = ",".join([item] * ((most - 7) // (len(item) + 1)))
    struct, found = Struct(), Violations()
    json_format.Parse(f'{{"a":[{items}]}}', struct)

    read = read_struct(found, "metadata", struct, most)
    validation.check_metadata(found, "metadata", read, most)

    assert len(read["a"]) == (most - 7) // (len(item) + 1)
    assert problems_of(found) == []


@pytest.mark.parametrize(
    ("check", "most"),
    [
        (lambda found: validation.check_text(found, "name", LONG, NAME_MAX), NAME_MAX),
        (lambda found: validation.check_note(found, "name", LONG), NOTE_MAX),
    ],
)
def test_a_text_that_is_too_long_is_not_looked_at(monkeypatch: pytest.MonkeyPatch, check: object, most: int) -> None:
    monkeypatch.setattr(validation, "has_control_characters", None)
    found = Violations()

    assert callable(check)
    check(found)

    assert problems_of(found) == [("name", f"must be at most {most} code points")]
