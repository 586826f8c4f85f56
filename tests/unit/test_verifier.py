"""Verifying several secrets at once, and what is remembered of it (spec §4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import pytest

from latchkey_server.domain.credentials import Credential
from latchkey_server.domain.errors import InvalidField, RevisionNotReached, UnknownRateLimit
from latchkey_server.domain.model import KeyFields, Revision
from latchkey_server.domain.verifier import Item, Verifier
from latchkey_server.domain.verify import Code, RateLimitCost, Record, Verdict
from tests.unit.builders import (
    KEY_ID,
    NOW,
    OTHER_WORKSPACE_ID,
    WORKSPACE_ID,
    fields_of,
    make_caller,
    make_key,
    make_question,
    make_record,
)

KNOWN, DISABLED, UNKNOWN = b"k" * 32, b"d" * 32, b"u" * 32


@dataclass
class FakeSource:
    """Records in memory, and what was asked for."""

    kept: dict[bytes, Record] = field(
        default_factory=lambda: {
            KNOWN: make_record(),
            DISABLED: make_record(make_key(KeyFields(enabled=False))),
        }
    )
    asked: list[list[bytes]] = field(default_factory=list)

    async def records(self, sha256s: Sequence[bytes]) -> Mapping[bytes, Record]:
        self.asked.append(list(sha256s))
        return {sha256: self.kept[sha256] for sha256 in sha256s if sha256 in self.kept}

    async def credential(self, sha256: bytes) -> Credential | None:
        return None


@dataclass
class FakeLastUsed:
    """What was touched."""

    touched: list[tuple[UUID, UUID, datetime]] = field(default_factory=list)

    def touch(self, workspace_id: UUID, key_id: UUID, used_time: datetime) -> None:
        self.touched.append((workspace_id, key_id, used_time))


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def last_used() -> FakeLastUsed:
    return FakeLastUsed()


@pytest.fixture
def verifier(source: FakeSource, last_used: FakeLastUsed) -> Verifier:
    return Verifier(source, last_used, lambda: NOW)


async def test_a_known_secret_gets_its_verdict_and_an_unknown_one_is_not_found(verifier: Verifier) -> None:
    known = await verifier.verify(make_caller(), make_question(sha256=KNOWN))
    unknown = await verifier.verify(make_caller(), make_question(sha256=UNKNOWN))

    assert known.code is Code.VALID
    assert unknown == Verdict(Code.NOT_FOUND, None, NOW)


async def test_only_a_valid_verdict_is_remembered_as_use(verifier: Verifier, last_used: FakeLastUsed) -> None:
    for sha256 in (DISABLED, UNKNOWN):
        await verifier.verify(make_caller(), make_question(sha256=sha256))
    await verifier.verify(make_caller(), make_question(sha256=KNOWN, dry_run=True))
    assert last_used.touched == []

    await verifier.verify(make_caller(), make_question(sha256=KNOWN))
    assert last_used.touched == [(WORKSPACE_ID, KEY_ID, NOW)]


async def test_a_batch_is_answered_in_order_and_each_item_fails_alone(verifier: Verifier) -> None:
    broken = InvalidField.one("key", "is required")
    items: list[Item] = [
        make_question(sha256=DISABLED),
        broken,
        make_question(sha256=KNOWN, ratelimits=(RateLimitCost("unknown"),)),
        make_question(sha256=UNKNOWN),
        make_question(sha256=KNOWN),
    ]

    answers = await verifier.verify_all(make_caller(), items)

    assert [answer.code if isinstance(answer, Verdict) else type(answer) for answer in answers] == [
        Code.DISABLED,
        InvalidField,
        UnknownRateLimit,
        Code.NOT_FOUND,
        Code.VALID,
    ]


async def test_a_batch_reads_each_secret_once(verifier: Verifier, source: FakeSource) -> None:
    await verifier.verify_all(make_caller(), [make_question(sha256=sha256) for sha256 in (KNOWN, UNKNOWN, KNOWN)])

    assert [sorted(asked) for asked in source.asked] == [[KNOWN, UNKNOWN]]


async def test_a_batch_without_a_single_question_reads_nothing(verifier: Verifier, source: FakeSource) -> None:
    broken = InvalidField.one("key", "is required")

    assert await verifier.verify_all(make_caller(), [broken]) == [broken]
    assert source.asked == []


@pytest.mark.parametrize("count", [0, 1_001])
async def test_a_batch_has_1_to_1000_items(verifier: Verifier, count: int) -> None:
    with pytest.raises(InvalidField) as caught:
        await verifier.verify_all(make_caller(), [make_question(sha256=KNOWN)] * count)

    assert fields_of(caught) == ["items"]
    assert len(await verifier.verify_all(make_caller(), [make_question(sha256=KNOWN)] * 1_000)) == 1_000


@pytest.mark.parametrize(("number", "reached"), [(6, True), (7, True), (8, False)])
async def test_no_answer_comes_from_before_the_revision_asked_for(
    verifier: Verifier, last_used: FakeLastUsed, number: int, reached: bool
) -> None:
    asked = make_question(sha256=KNOWN, min_revision=Revision(WORKSPACE_ID, number))

    if reached:
        assert (await verifier.verify(make_caller(), asked)).code is Code.VALID
    else:
        with pytest.raises(RevisionNotReached):
            await verifier.verify(make_caller(), asked)
    assert bool(last_used.touched) is reached


async def test_a_revision_of_another_workspace_binds_nothing(verifier: Verifier) -> None:
    asked = make_question(sha256=KNOWN, min_revision=Revision(OTHER_WORKSPACE_ID, 1_000))

    assert (await verifier.verify(make_caller(), asked)).code is Code.VALID
