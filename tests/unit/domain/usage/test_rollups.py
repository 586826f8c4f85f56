"""What events add to the roll-ups, and how free text is bounded (spec §5)."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from uuid import UUID

import pytest

from latchkey_server.domain.reporting.buckets import quarter_of
from latchkey_server.domain.usage.combinations import (
    ALONE_FROM,
    COMBINATIONS_MAX,
    CombinationMemory,
    KeyDay,
    admitted,
    bounded,
    undecided,
)
from latchkey_server.domain.usage.event import StoredEvent, UsageType
from latchkey_server.domain.usage.rollups import (
    OTHER,
    KeyFacts,
    KeyQuarter,
    LabelQuarter,
    RollUps,
    UsageCombination,
    roll_up,
    sum_up,
)
from tests.unit.builders import API_ID, KEY_ID, OTHER_API_ID, OTHER_KEY_ID, WORKSPACE_ID, at, make_event, stored

KEYS = {KEY_ID: KeyFacts(API_ID, "", "prod"), OTHER_KEY_ID: KeyFacts(OTHER_API_ID, "", "dev")}
DAY = date(2026, 3, 14)
PLACE = (KEY_ID, DAY)


def consumed(moment: str, **changes: object) -> StoredEvent:
    return stored(make_event(occurred_time=at(moment), **changes), "ann")


def rolled_up(*events: StoredEvent) -> RollUps:
    return roll_up(sum_up(events), KEYS, {})


def texts(number: int) -> UsageCombination:
    return UsageCombination("", "", str(number))


def test_a_quarter_of_an_hour_is_summed_by_key_and_by_label() -> None:
    quarter = at("2026-03-14T12:15:00")
    found = rolled_up(
        consumed("2026-03-14T12:15:00", cost=10, input_tokens=5, output_tokens=3, cached_tokens=2),
        consumed("2026-03-14T12:29:59.999999", cost=1, requests=4, input_tokens=1),
        consumed("2026-03-14T12:20:00", type=UsageType.REFUND, cost=-7),
        consumed("2026-03-14T12:20:00", type=UsageType.ADJUSTMENT, cost=2),
        consumed("2026-03-14T12:20:00", type=UsageType.BLOCKED),
        consumed("2026-03-14T12:20:00", key_id=OTHER_KEY_ID, cost=100),
    )

    sums, others = (5, 11, -5, 5, 6, 3, 2), (1, 100, 0, 1, 0, 0, 0)
    assert found.by_key == [
        KeyQuarter(KEY_ID, quarter, "ann", "", "", False, *sums),
        KeyQuarter(OTHER_KEY_ID, quarter, "ann", "", "", False, *others),
    ]
    assert found.by_label == [
        LabelQuarter(quarter, "dev", OTHER_API_ID, "", "", False, *others),
        LabelQuarter(quarter, "prod", API_ID, "", "", False, *sums),
    ]


def test_the_label_is_the_one_under_which_the_key_is_attributed() -> None:
    assert [row.attributed_environment for row in rolled_up(consumed("2026-03-14")).by_label] == ["prod"]


@pytest.mark.parametrize("offset", [timedelta(0), timedelta(hours=5, minutes=30), timedelta(hours=-3, minutes=-30)])
def test_a_quarter_is_that_of_utc(offset: timedelta) -> None:
    instant = datetime(2026, 3, 14, 18, 37, 12, 5, tzinfo=UTC).astimezone(timezone(offset))

    assert quarter_of(instant) == datetime(2026, 3, 14, 18, 30, tzinfo=UTC)


def test_what_is_not_kept_apart_is_summed_as_other() -> None:
    events = [consumed("2026-03-14", task=task, cost=cost) for task, cost in (("a", 1), ("b", 2), ("c", 4))]

    found = roll_up(sum_up(events), KEYS, {PLACE: {UsageCombination("ann", "", "a")}})

    assert [(row.member, row.task, row.other, row.spend) for row in found.by_key] == [
        ("", "", True, 6),
        ("ann", "a", False, 1),
    ]
    assert [(row.task, row.other, row.spend) for row in found.by_label] == [("", True, 6), ("a", False, 1)]
    assert OTHER.other


def test_combinations_are_admitted_first_come_first_served() -> None:
    assert admitted({texts(1)}, [texts(2), texts(1), texts(3)], most=2) == {texts(1), texts(2)}
    assert admitted({texts(1), texts(2)}, [texts(3)], most=2) == {texts(1), texts(2)}


def test_only_what_is_not_known_has_to_be_decided() -> None:
    wanted = {PLACE: dict.fromkeys([texts(1)]), (OTHER_KEY_ID, DAY): dict.fromkeys([texts(2)])}

    assert undecided(wanted, {PLACE: {texts(1)}, (OTHER_KEY_ID, DAY): set()}) == [(OTHER_KEY_ID, DAY)]


def test_what_is_beyond_a_full_bound_is_decided() -> None:
    full = {texts(number) for number in range(COMBINATIONS_MAX)}

    assert undecided({PLACE: dict.fromkeys([texts(-1)])}, {PLACE: full}) == []


async def test_new_combinations_of_a_key_with_many_are_admitted_by_one_transaction_at_a_time() -> None:
    """What others have admitted meanwhile is looked up again once their transactions have ended."""
    known = {texts(number) for number in range(ALONE_FROM)}
    others = {texts(number) for number in range(COMBINATIONS_MAX - 1)}
    locked: list[UUID] = []

    async def look_up(_workspace_id: UUID, places: Sequence[KeyDay]) -> dict[KeyDay, set[UsageCombination]]:
        return {place: set(others if locked else known) for place in places}

    async def lock(_workspace_id: UUID, key_ids: Sequence[UUID]) -> None:
        locked.extend(key_ids)

    memory: CombinationMemory[UsageCombination] = CombinationMemory()
    wanted = {PLACE: dict.fromkeys([texts(-1), texts(-2)])}
    kept = await memory.admit(WORKSPACE_ID, wanted, look_up, lock)

    assert locked == [KEY_ID]
    assert kept == {PLACE: others | {texts(-1)}}
    assert bounded(wanted, kept) == kept


async def test_a_key_with_few_combinations_is_not_locked() -> None:
    async def look_up(_workspace_id: UUID, places: Sequence[KeyDay]) -> dict[KeyDay, set[UsageCombination]]:
        return {place: set() for place in places}

    async def lock(_workspace_id: UUID, _key_ids: Sequence[UUID]) -> None:
        raise AssertionError

    memory: CombinationMemory[UsageCombination] = CombinationMemory()
    wanted = {PLACE: dict.fromkeys([texts(1)])}
    kept = await memory.admit(WORKSPACE_ID, wanted, look_up, lock)

    assert kept == {PLACE: {texts(1)}}
    assert bounded(wanted, kept) == {}


def test_what_is_remembered_is_bounded() -> None:
    memory: CombinationMemory[UsageCombination] = CombinationMemory(most=3)
    memory.remember(WORKSPACE_ID, {PLACE: {texts(1), texts(2)}})
    assert memory.of(WORKSPACE_ID, [PLACE]) == {PLACE: {texts(1), texts(2)}}

    memory.remember(WORKSPACE_ID, {PLACE: {texts(1), texts(2), texts(3)}})
    assert memory.of(WORKSPACE_ID, [PLACE]) == {PLACE: {texts(1), texts(2), texts(3)}}
    memory.remember(WORKSPACE_ID, {(OTHER_KEY_ID, DAY): {texts(4)}})

    assert memory.of(WORKSPACE_ID, [PLACE, (OTHER_KEY_ID, DAY)]) == {PLACE: set(), (OTHER_KEY_ID, DAY): set()}
