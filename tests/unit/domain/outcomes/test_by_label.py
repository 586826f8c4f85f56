"""What counts by key add to labels (spec §5)."""

from uuid import UUID

from latchkey_server.domain.outcomes.by_label import NO_API, LabelCount, by_label
from latchkey_server.domain.outcomes.counts import UNKNOWN, Outcome
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


PLAIN = Outcome(EARLY, Code.VALID, CALLER)


async def test_keys_of_one_label_and_api_are_summed_and_whatever_else_differs_is_kept_apart() -> None:
    tagged = PLAIN._replace(tag="a", tagged=True)
    outcomes = {
        PLAIN: {KEY_ID: 1, OTHER_KEY_ID: 2, THIRD_KEY_ID: 128},
        PLAIN._replace(quarter=LATE): {KEY_ID: 4},
        PLAIN._replace(code=Code.EXPIRED): {KEY_ID: 8},
        tagged: {OTHER_KEY_ID: 16, KEY_ID: 32},
        PLAIN._replace(other=True): {KEY_ID: 64},
    }

    found = await by_label(outcomes, KEYS)

    alike = (Code.VALID, CALLER, "", "", False, "", False)
    assert found == [
        LabelCount(EARLY, "", OTHER_API_ID, *alike, 128),
        LabelCount(EARLY, "prod", API_ID, *alike, 3),
        LabelCount(EARLY, "prod", API_ID, Code.VALID, CALLER, "", "", False, "", True, 64),
        LabelCount(EARLY, "prod", API_ID, Code.VALID, CALLER, "", "a", True, "", False, 48),
        LabelCount(EARLY, "prod", API_ID, Code.EXPIRED, CALLER, "", "", False, "", False, 8),
        LabelCount(LATE, "prod", API_ID, *alike, 4),
    ]


async def test_what_is_no_key_counts_for_no_api_and_under_no_label() -> None:
    outcomes = {PLAIN._replace(prefix="sk"): {UNKNOWN: 1}, PLAIN: {UUID(int=9): 2, UUID(int=10): 4}}

    found = await by_label(outcomes, KEYS)

    assert [(count.environment, count.api_id, count.prefix, count.verifications) for count in found] == [
        ("", NO_API, "", 6),
        ("", NO_API, "sk", 1),
    ]


async def test_the_order_is_the_same_however_outcomes_and_keys_come() -> None:
    key_ids = (KEY_ID, THIRD_KEY_ID, UNKNOWN)
    outcomes = {PLAIN._replace(model=model): dict.fromkeys(key_ids, 1) for model in ("b", "", "a")}
    reverse = {outcome: dict.fromkeys(key_ids[::-1], 1) for outcome in reversed(outcomes)}

    assert await by_label(outcomes, KEYS) == await by_label(reverse, KEYS)
