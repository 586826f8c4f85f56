"""Verifying several secrets at once, and what is noted of it (spec §4)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from latchkey_server.domain.access.credentials import Credential
from latchkey_server.domain.errors import DatabaseUnavailable, InvalidField, RevisionNotReached, UnknownRateLimit
from latchkey_server.domain.freshness import HARD_BOUND, Freshness
from latchkey_server.domain.model import KeyFields, Revision
from latchkey_server.domain.outcomes.counts import UNKNOWN
from latchkey_server.domain.outcomes.notes import VerificationNotes
from latchkey_server.domain.verify.command import Verifier, VerifyItem, require_count
from latchkey_server.domain.verify.model import Code, Degradation, RateLimitCost, Record, Verdict
from tests.unit.builders import (
    KEY_ID,
    NOW,
    OTHER_WORKSPACE_ID,
    REVOCATION,
    WORKSPACE_ID,
    fields_of,
    make_asked,
    make_caller,
    make_history,
    make_key,
    make_record,
)

KNOWN, DISABLED, MISSING, LOST = b"k" * 32, b"d" * 32, b"u" * 32, b"l" * 32
AT = 1_000.0


@dataclass
class FakeSource:
    """Records that are cached, those that have to be asked for, and what was."""

    fast_path: dict[bytes, Record] = field(default_factory=lambda: {KNOWN: make_record()})
    elsewhere: dict[bytes, Record] = field(
        default_factory=lambda: {DISABLED: make_record(make_key(KeyFields(enabled=False)))}
    )
    lost: set[bytes] = field(default_factory=set)
    asked: list[list[bytes]] = field(default_factory=list)
    demanded: list[Freshness] = field(default_factory=list)
    meanwhile: dict[bytes, Record] = field(default_factory=dict)
    """What comes to hand while somebody waits."""

    def cached(self, sha256: bytes, /) -> Record | None:
        raise NotImplementedError

    def cached_credential(self, sha256: bytes, /) -> Credential | None:
        raise NotImplementedError

    def fresh(self, sha256: bytes, at: float) -> Record | None:
        return self.fast_path.get(sha256)

    def grew(self, record: Record, more: int) -> None:
        raise NotImplementedError

    async def records(self, sha256s: Sequence[bytes]) -> Mapping[bytes, Record | DatabaseUnavailable]:
        self.asked.append(list(sha256s))
        self.fast_path |= self.meanwhile
        found: dict[bytes, Record | DatabaseUnavailable] = {**self.fast_path, **self.elsewhere}
        found |= {sha256: DatabaseUnavailable() for sha256 in self.lost}
        return {sha256: found[sha256] for sha256 in sha256s if sha256 in found}

    async def record(self, sha256: bytes, freshness: Freshness) -> Record | None:
        self.demanded.append(freshness)
        wanted = freshness.min_revision
        if wanted is not None and wanted.number > 7:
            raise RevisionNotReached("Not yet.")
        return self.fast_path.get(sha256)

    def unknown_credential(self, sha256: bytes, at: float) -> bool:
        raise NotImplementedError

    def fresh_credential(self, sha256: bytes, at: float) -> Credential | None:
        return None

    async def credential(self, sha256: bytes) -> Credential | None:
        return None


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def notes() -> VerificationNotes:
    return VerificationNotes()


@pytest.fixture
def verifier(source: FakeSource, notes: VerificationNotes) -> Verifier:
    return Verifier(source, notes, lambda: NOW, lambda: AT)


async def test_a_known_secret_gets_its_verdict_and_an_unknown_one_is_not_found(verifier: Verifier) -> None:
    known = await verifier.verify(make_caller(), make_asked(KNOWN))
    unknown = await verifier.verify(make_caller(), make_asked(MISSING))

    assert known.code is Code.VALID
    assert unknown == Verdict(Code.NOT_FOUND, None, NOW)


async def test_only_a_valid_verdict_is_noted_as_use_and_a_dry_run_is_not_noted(
    verifier: Verifier, notes: VerificationNotes
) -> None:
    caller = make_caller()
    items: list[VerifyItem] = [make_asked(DISABLED), make_asked(MISSING), make_asked(KNOWN, dry_run=True)]
    verifier.note(caller, items, await verifier.verify_all(caller, items))
    [outcomes] = notes.counter.take().values()
    assert notes.uses.take() == {}
    assert {(place.key_id, place.code): number for (_, place), number in outcomes.items()} == {
        (KEY_ID, Code.DISABLED): 1,
        (UNKNOWN, Code.NOT_FOUND): 1,
    }

    items = [make_asked(KNOWN)] * 3
    verifier.note(caller, items, await verifier.verify_all(caller, items))
    assert notes.uses.take() == {WORKSPACE_ID: {KEY_ID: NOW.replace(second=0, microsecond=0)}}
    [outcomes] = notes.counter.take().values()
    assert list(outcomes.values()) == [3]


async def test_a_batch_is_answered_in_order_and_each_item_fails_alone(verifier: Verifier, source: FakeSource) -> None:
    source.lost.add(LOST)
    broken = InvalidField.one("key", "is required")
    items: list[VerifyItem] = [
        make_asked(DISABLED),
        broken,
        make_asked(KNOWN, ratelimits=(RateLimitCost("unknown"),)),
        make_asked(MISSING),
        make_asked(LOST),
        make_asked(KNOWN),
    ]

    answers = await verifier.verify_all(make_caller(), items)

    assert [answer.code if isinstance(answer, Verdict) else type(answer) for answer in answers] == [
        Code.DISABLED,
        InvalidField,
        UnknownRateLimit,
        Code.NOT_FOUND,
        DatabaseUnavailable,
        Code.VALID,
    ]


async def test_a_batch_asks_once_for_each_secret_that_is_not_cached(verifier: Verifier, source: FakeSource) -> None:
    await verifier.verify_all(make_caller(), [make_asked(sha256) for sha256 in (KNOWN, MISSING, DISABLED, MISSING)])

    assert [sorted(asked) for asked in source.asked] == [sorted([MISSING, DISABLED])]


async def test_a_batch_without_a_single_question_asks_for_nothing(verifier: Verifier, source: FakeSource) -> None:
    broken = InvalidField.one("key", "is required")

    assert await verifier.verify_all(make_caller(), [broken]) == [broken]
    assert source.asked == []


@pytest.mark.parametrize(("count", "right"), [(0, False), (1, True), (1_000, True), (1_001, False)])
def test_a_batch_has_1_to_1000_items(count: int, right: bool) -> None:
    if right:
        require_count(count)
    else:
        with pytest.raises(InvalidField) as caught:
            require_count(count)
        assert fields_of(caught) == ["items"]


@pytest.mark.parametrize(("number", "reached"), [(6, True), (7, True), (8, False)])
async def test_no_answer_comes_from_before_the_revision_asked_for(
    verifier: Verifier, number: int, reached: bool
) -> None:
    asked = make_asked(KNOWN, min_revision=Revision(WORKSPACE_ID, number))

    if reached:
        assert (await verifier.verify(make_caller(), asked)).code is Code.VALID
    else:
        with pytest.raises(RevisionNotReached):
            await verifier.verify(make_caller(), asked)


async def test_a_revision_of_a_workspace_that_the_caller_cannot_see_binds_nothing(
    verifier: Verifier, source: FakeSource
) -> None:
    asked = make_asked(KNOWN, min_revision=Revision(OTHER_WORKSPACE_ID, 1_000))

    assert (await verifier.verify(make_caller(), asked)).code is Code.VALID
    assert source.demanded == [Freshness()]


@pytest.mark.parametrize(("seconds", "bound"), [(0, 0.0), (1.5, 1.5), (30, HARD_BOUND)])
async def test_max_staleness_narrows_the_bound_and_never_widens_it(
    verifier: Verifier, source: FakeSource, seconds: float, bound: float
) -> None:
    await verifier.verify(make_caller(), make_asked(KNOWN, max_staleness=timedelta(seconds=seconds)))

    assert source.demanded == [Freshness(bound)]


@pytest.mark.parametrize(("confirmed_at", "stale"), [(AT - HARD_BOUND, False), (AT - HARD_BOUND - 0.001, True)])
async def test_an_answer_from_what_was_not_confirmed_within_the_hard_bound_says_so(
    verifier: Verifier, source: FakeSource, confirmed_at: float, stale: bool
) -> None:
    source.elsewhere[DISABLED] = make_record(history=make_history(confirmed_at=confirmed_at))

    verdict = await verifier.verify(make_caller(), make_asked(DISABLED))

    assert verdict.degraded == ((Degradation.STALE_RECORD,) if stale else ())


async def test_what_was_cached_is_decided_after_the_wait_for_the_rest(verifier: Verifier, source: FakeSource) -> None:
    revoked = make_record(make_key(revocation=REVOCATION))
    source.meanwhile = {KNOWN: revoked}
    answers = await verifier.verify_all(make_caller(), [make_asked(KNOWN), make_asked(MISSING)])

    assert [answer.code for answer in answers if isinstance(answer, Verdict)] == [Code.REVOKED, Code.NOT_FOUND]
