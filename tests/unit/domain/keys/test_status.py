"""The status that a key's facts and budgets amount to (spec §3)."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from latchkey_server.domain.keys.status import key_status
from latchkey_server.domain.model import (
    CreditState,
    KeyFields,
    KeyStatus,
    SpendState,
)
from tests.unit.builders import NOW, REVOCATION, TICK, make_key, some_credits, some_spend

STATUSES: list[tuple[KeyStatus, dict[str, Any], dict[str, Any]]] = [
    (KeyStatus.DELETED, {"delete_time": NOW}, {}),
    (KeyStatus.REVOKED, {"revocation": REVOCATION}, {}),
    (KeyStatus.DISABLED, {}, {"enabled": False}),
    (KeyStatus.NOT_YET_VALID, {}, {"not_before_time": NOW + TICK}),
    (KeyStatus.EXPIRED, {}, {"expire_time": NOW}),
]
"""Every status that a fact of the key makes, in the order in which the first applies."""


@pytest.mark.parametrize("first", range(len(STATUSES)))
@pytest.mark.parametrize("second", range(len(STATUSES)))
def test_of_two_statuses_the_earlier_one_applies(first: int, second: int) -> None:
    facts = {**STATUSES[first][1], **STATUSES[second][1]}
    fields = {**STATUSES[first][2], **STATUSES[second][2]}
    key = make_key(KeyFields(**fields), **facts)

    assert key_status(key, some_credits(0), some_spend(100), NOW) is STATUSES[min(first, second)][0]


def test_a_key_that_nothing_refuses_is_active() -> None:
    assert key_status(make_key(), None, None, NOW) is KeyStatus.ACTIVE
    assert key_status(make_key(), some_credits(1), some_spend(99), NOW) is KeyStatus.ACTIVE


@pytest.mark.parametrize(
    ("credits", "spend"),
    [
        (some_credits(0), None),
        (None, some_spend(100)),
        (some_credits(0), some_spend(0)),
        (some_credits(1), some_spend(101)),
        (None, replace(some_spend(60), reserved=40)),
    ],
)
def test_a_key_is_exhausted_when_either_budget_is_used_up(
    credits: CreditState | None, spend: SpendState | None
) -> None:
    assert key_status(make_key(), credits, spend, NOW) is KeyStatus.EXHAUSTED


def test_a_key_is_begun_at_its_not_before_time_and_expired_at_its_expire_time() -> None:
    begun = make_key(KeyFields(not_before_time=NOW, expire_time=NOW + TICK))

    assert key_status(begun, None, None, NOW) is KeyStatus.ACTIVE
    assert key_status(begun, None, None, NOW - TICK) is KeyStatus.NOT_YET_VALID
    assert key_status(begun, None, None, NOW + TICK) is KeyStatus.EXPIRED


def test_extending_the_expiry_revives_the_key() -> None:
    expired = make_key(KeyFields(expire_time=NOW - timedelta(days=1)))
    extended = replace(expired, fields=replace(expired.fields, expire_time=NOW + timedelta(days=1)))

    assert key_status(expired, None, None, NOW) is KeyStatus.EXPIRED
    assert key_status(extended, None, None, NOW) is KeyStatus.ACTIVE
