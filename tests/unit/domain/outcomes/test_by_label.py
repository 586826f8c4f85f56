"""What counts by key add to labels (spec §5)."""

from typing import Any
from uuid import UUID

from latchkey_server.domain.outcomes.by_label import NO_API, LabelCount, by_label
from latchkey_server.domain.outcomes.counts import UNKNOWN, CountRow
from latchkey_server.domain.usage.rollups import KeyFacts
from latchkey_server.domain.verify.model import Code
from tests.unit.builders import API_ID, KEY_ID, OTHER_API_ID, OTHER_KEY_ID, at

THIRD_KEY_ID, CALLER = UUID(int=3), UUID(int=4)
KEYS = {
    KEY_ID: KeyFacts(API_ID, "", "prod"),
    OTHER_KEY_ID: KeyFacts(API_ID, "", "prod"),
    THIRD_KEY_ID: KeyFacts(OTHER_API_ID, "", ""),
}
EARLY, LATE = at("2026-03-14T12:00:00"), at("2026-03-14T12:15:00")


def row(key_id: UUID, number: int, **changes: Any) -> CountRow:
    plain = CountRow(EARLY, key_id, Code.VALID, CALLER, "", "", False, "", False, number)
    return plain._replace(**changes)


def test_keys_of_one_label_and_api_are_summed_and_whatever_else_differs_is_kept_apart() -> None:
    rows = [
        row(KEY_ID, 1),
        row(OTHER_KEY_ID, 2),
        row(KEY_ID, 4, quarter=LATE),
        row(KEY_ID, 8, code=Code.EXPIRED),
        row(OTHER_KEY_ID, 16, tag="a", tagged=True),
        row(KEY_ID, 32, tag="a", tagged=True),
        row(KEY_ID, 64, other=True),
        row(THIRD_KEY_ID, 128),
    ]

    found = by_label(rows, KEYS)

    alike = (Code.VALID, CALLER, "", "", False, "", False)
    assert found == [
        LabelCount(EARLY, "", OTHER_API_ID, *alike, 128),
        LabelCount(EARLY, "prod", API_ID, *alike, 3),
        LabelCount(EARLY, "prod", API_ID, Code.VALID, CALLER, "", "", False, "", True, 64),
        LabelCount(EARLY, "prod", API_ID, Code.VALID, CALLER, "", "a", True, "", False, 48),
        LabelCount(EARLY, "prod", API_ID, Code.EXPIRED, CALLER, "", "", False, "", False, 8),
        LabelCount(LATE, "prod", API_ID, *alike, 4),
    ]


def test_what_is_no_key_counts_for_no_api_and_under_no_label() -> None:
    found = by_label([row(UNKNOWN, 1, prefix="sk"), row(UUID(int=9), 2), row(UUID(int=10), 4)], KEYS)

    assert [(count.environment, count.api_id, count.prefix, count.verifications) for count in found] == [
        ("", NO_API, "", 6),
        ("", NO_API, "sk", 1),
    ]


def test_the_order_is_the_same_however_rows_come() -> None:
    rows = [row(key_id, 1, model=model) for key_id in (KEY_ID, THIRD_KEY_ID, UNKNOWN) for model in ("b", "", "a")]

    assert by_label(rows, KEYS) == by_label(rows[::-1], KEYS)
