"""The fast path of a verification answers what the slow path would, or nothing at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from latchkey.v1 import verification_pb2, verify_service_pb2
from latchkey_server.domain import ids
from latchkey_server.domain.access.credentials import Credential
from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.domain.freshness import Freshness
from latchkey_server.domain.model import KeyFields
from latchkey_server.domain.outcomes.notes import VerificationNotes
from latchkey_server.domain.verify.decide import decide
from latchkey_server.domain.verify.model import Question, Record
from latchkey_server.observability import Metrics
from latchkey_server.transport.verify.askings import ANSWER_BYTES, FIRST_ANSWER_BYTES, Askings
from latchkey_server.transport.verify.fast_path import READY_MAX, FastPath
from latchkey_server.transport.verify.reader import QuestionMemory, read_item
from latchkey_server.transport.verify.writer import answer_bytes, decided_bytes
from tests.property.domain.verify.test_decide import cases
from tests.unit.builders import (
    API_ID,
    NOW,
    OTHER_API_ID,
    OTHER_WORKSPACE_ID,
    TICK,
    make_caller,
    make_key,
    make_question,
    make_record,
)

SECRET = "sk_some_secret"
CALLERS = [
    make_caller(),
    make_caller(workspace_id=OTHER_WORKSPACE_ID),
    make_caller(workspace_id=OTHER_WORKSPACE_ID, all_workspaces=True),
    make_caller(api_ids=frozenset({API_ID})),
    make_caller(api_ids=frozenset({OTHER_API_ID})),
]

LEAPS = [-timedelta(days=1), -TICK, timedelta(0), TICK, timedelta(seconds=59, days=8)]


@dataclass
class OneRecord:
    """A source that has one cached record, whatever is asked for."""

    stored_record: Record
    grown: int = 0

    def cached(self, sha256: bytes, /) -> Record | None:
        return self.stored_record

    def cached_credential(self, sha256: bytes, /) -> Credential | None:
        raise NotImplementedError

    def fresh(self, sha256: bytes, at: float) -> Record | None:
        return self.stored_record

    def grew(self, record: Record, more: int) -> None:
        self.grown += more

    async def records(self, sha256s: Sequence[bytes]) -> Mapping[bytes, Record | DatabaseUnavailable]:
        raise NotImplementedError

    async def record(self, sha256: bytes, freshness: Freshness) -> Record | None:
        raise NotImplementedError

    def unknown_credential(self, sha256: bytes, at: float) -> bool:
        raise NotImplementedError

    def fresh_credential(self, sha256: bytes, at: float) -> Credential | None:
        raise NotImplementedError

    async def credential(self, sha256: bytes) -> Credential | None:
        raise NotImplementedError


def request_of(question: Question) -> verify_service_pb2.VerifyRequest:
    """Return the request that asks a question."""
    request = verify_service_pb2.VerifyRequest(
        key=SECRET,
        required_scopes=[verify_service_pb2.ScopeGroup(any_of=group) for group in question.required_scopes],
        environments=question.environments,
        client_ip=question.client_ip,
        model=question.model,
        dry_run=question.dry_run,
        explain=question.explain,
        omit_metadata=question.omit_metadata,
    )
    if question.api_id is not None:
        request.api_id = ids.format_id(ids.API, question.api_id)
    return request


def verification(raw: bytes) -> verification_pb2.Verification:
    return verify_service_pb2.VerifyResponse.FromString(raw).verification


EXPIRED_NOW = ({"EXPIRED"}, make_record(make_key(KeyFields(expire_time=NOW))), make_question())


@example(EXPIRED_NOW, [CALLERS[0]], [-TICK], False, False)
@given(
    cases(),
    st.lists(st.sampled_from(CALLERS), min_size=1, max_size=4),
    st.lists(
        st.sampled_from([-timedelta(days=1), -TICK, timedelta(0), TICK, timedelta(seconds=59, days=8)]), max_size=3
    ),
    st.booleans(),
    st.booleans(),
)
def test_the_fast_path_answers_what_the_slow_path_would(
    case: tuple[set[str], Record, Question],
    callers: list[Any],
    leaps: list[timedelta],
    omit_metadata: bool,
    dry_run: bool,
) -> None:
    _, record, plain = case
    request = request_of(plain)
    request.omit_metadata, request.dry_run = omit_metadata, dry_run
    raw = request.SerializeToString()
    item = read_item(raw)
    assert isinstance(item, tuple)
    notes, expected_notes, now = VerificationNotes(), VerificationNotes(), [NOW]
    fast = FastPath(OneRecord(record), notes, Metrics(), lambda: now[0])

    for caller in callers:
        for leap in (timedelta(0), *leaps):
            now[0] += leap
            answer = fast.result(raw, caller, 0.0)
            if answer is None:
                continue
            verdict = decide(record, item.question, caller, now[0])
            expected = answer_bytes(verdict, decided_bytes(now[0]), omit_metadata=omit_metadata)
            given_answer, wanted = verification(answer), verification(expected)
            decided = given_answer.decided_time.ToDatetime(NOW.tzinfo)
            assert timedelta(0) <= now[0] - decided < timedelta(milliseconds=1)
            given_answer.ClearField("decided_time")
            wanted.ClearField("decided_time")
            assert given_answer == wanted
            record.used_minute = 0
            expected_notes.note(caller, item.question, item.prefix, verdict)
            record.used_minute = 0
    assert notes.counter.take() == expected_notes.counter.take()
    assert notes.uses.take() == expected_notes.uses.take()


def test_a_question_that_was_read_before_is_answered_on_the_fast_path() -> None:
    raw = request_of(make_question()).SerializeToString()
    read_item(raw)
    notes = VerificationNotes()
    fast = FastPath(OneRecord(make_record()), notes, Metrics(), lambda: NOW)

    answers = [fast.result(raw, CALLERS[0], 0.0) for _ in range(3)]

    assert None not in answers
    assert [sum(counts.values()) for counts in notes.counter.take().values()] == [3]
    assert [len(uses) for uses in notes.uses.take().values()] == [1]


def test_two_questions_of_a_batch_about_one_key_are_counted_each_by_its_own_answer() -> None:
    fits, differs = Question(), Question(environments=("elsewhere",), dry_run=True)
    raws = [request_of(question).SerializeToString() for question in (fits, differs, fits, differs)]
    for raw in raws:
        read_item(raw)
    notes, metrics = VerificationNotes(), Metrics()

    results = FastPath(OneRecord(make_record()), notes, metrics, lambda: NOW).results(raws, CALLERS[0], 0.0)

    assert results is not None
    codes = [verification(result).code for result in results]
    assert codes[0] == codes[2] != codes[1] == codes[3]
    counted = {name: metrics.verdicts.count(name).value for name in ("VALID", "ENVIRONMENT_MISMATCH")}
    assert counted == {"VALID": 2, "ENVIRONMENT_MISMATCH": 2}
    [outcomes] = notes.counter.take().values()
    assert {place.code.name: number for (_, place), number in outcomes.items()} == {"VALID": 2}


LONG = "a" * 200
FIELDS: list[dict[str, Any]] = [
    {"environments": ["prodüct", "", "日本"]},
    {"cost": 128},
    {"cost": 1_000_000_000},
    {"required_scopes": [verify_service_pb2.ScopeGroup(any_of=[f"scope.{number}" for number in range(30)])]},
    {"model": LONG[:128], "tags": [LONG[:64]] * 5},
    {"tags": ["größe"]},
    {"omit_metadata": True, "dry_run": True},
]
"""What has bytes above 127 somewhere behind the secret: texts, numbers, lengths, numbers of fields."""


@pytest.mark.parametrize("secret", ["sk_secret", LONG[:127], LONG[:128], "b" * 3_000])
@pytest.mark.parametrize("fields", FIELDS)
def test_no_field_of_a_question_keeps_it_off_the_fast_path(secret: str, fields: dict[str, Any]) -> None:
    raw = verify_service_pb2.VerifyRequest(key=secret, **fields).SerializeToString()
    read_item(raw)

    assert FastPath(OneRecord(make_record()), VerificationNotes(), Metrics(), lambda: NOW).result(raw, CALLERS[0], 0.0)


@pytest.mark.parametrize("secret", ["", "schlüssel", "b" * 20_000])
def test_a_secret_that_is_none_or_not_plain_takes_the_slow_path(secret: str) -> None:
    raw = verify_service_pb2.VerifyRequest(key=secret).SerializeToString()
    read_item(raw)
    fast = FastPath(OneRecord(make_record()), VerificationNotes(), Metrics(), lambda: NOW)

    assert fast.result(raw, CALLERS[0], 0.0) is None


@given(st.binary(max_size=300))
@example(b"\x0a")
@example(b"\x0a\x85")
@example(b"\x0a\x85\x80\x80\x01")
@example(b"\x0a\x03ab")
def test_whatever_is_no_request_takes_the_slow_path(raw: bytes) -> None:
    fast = FastPath(OneRecord(make_record()), VerificationNotes(), Metrics(), lambda: NOW)

    answer = fast.result(raw, CALLERS[0], 0.0)

    assert answer is None or verify_service_pb2.VerifyRequest.FromString(raw).key


def test_callers_and_questions_that_take_turns_keep_their_answers() -> None:
    questions = [make_question(model=f"model-{number}") for number in range(5)]
    raws = [request_of(question).SerializeToString() for question in questions]
    for raw in raws:
        read_item(raw)
    source = OneRecord(make_record())
    fast = FastPath(source, VerificationNotes(), Metrics(), lambda: NOW)
    callers = [make_caller(management_key_id=UUID(int=number)) for number in range(3)]

    def ready() -> set[int]:
        return {id(source.stored_record.ready), *map(id, (source.stored_record.more_ready or {}).values())}

    def ask_all() -> None:
        for caller in callers:
            for raw in raws:
                assert fast.result(raw, caller, 0.0)

    ask_all()
    made = ready()
    ask_all()

    assert len(made) == 15
    assert ready() == made
    assert source.grown == first_bytes(source) + 14 * ANSWER_BYTES


def first_bytes(source: OneRecord) -> int:
    """Return what a record's first answer counts, with the part that all share."""
    return FIRST_ANSWER_BYTES + len(source.stored_record.common or b"") + 33


def test_both_forms_of_an_answer_count_once_each_however_often_they_are_made() -> None:
    source = OneRecord(make_record(make_key(KeyFields(scopes=("x" * 10_000,))), metadata='{"a": 1}'))
    fast = FastPath(source, VerificationNotes(), Metrics(), lambda: NOW)
    for number in range(READY_MAX):
        for omit_metadata in (False, True):
            raw = request_of(make_question(model=f"m{number}", omit_metadata=omit_metadata)).SerializeToString()
            read_item(raw)
            assert fast.result(raw, CALLERS[0], 0.0)

    assert 20_000 < source.grown < 20_000 + 2 * READY_MAX * ANSWER_BYTES


def test_more_questions_than_a_record_keeps_answers_to_take_no_more_room() -> None:
    source = OneRecord(make_record())
    fast = FastPath(source, VerificationNotes(), Metrics(), lambda: NOW)
    most = 0
    for number in range(5 * READY_MAX):
        raw = request_of(make_question(model=f"another-{number}")).SerializeToString()
        read_item(raw)
        assert fast.result(raw, CALLERS[0], 0.0)
        more = source.stored_record.more_ready or {}
        most = max(most, len(more) + 1)
        assert source.grown == first_bytes(source) + len(more) * ANSWER_BYTES

    assert most == READY_MAX


def test_an_answer_to_a_large_question_counts_as_much_more_as_the_question_is_long() -> None:
    source = OneRecord(make_record())
    fast = FastPath(source, VerificationNotes(), Metrics(), lambda: NOW)
    questions = [make_question(model=f"another-{number}" * 10, tags=("t" * 60,) * 5) for number in range(READY_MAX)]
    raws = [request_of(question).SerializeToString() for question in questions]
    for raw in raws:
        read_item(raw)
        assert fast.result(raw, CALLERS[0], 0.0)

    assert source.grown > (READY_MAX - 1) * ANSWER_BYTES + sum(map(len, raws))


def test_a_question_that_comes_again_after_many_others_has_one_answer_stored() -> None:
    source = OneRecord(make_record())
    fast = FastPath(source, VerificationNotes(), Metrics(), lambda: NOW)
    first = request_of(make_question(model="first")).SerializeToString()
    read_item(first)
    for round_ in range(3):
        assert fast.result(first, CALLERS[0], 0.0)
        for number in range(9_000):
            fast.result(request_of(make_question(model=f"{round_}-{number}")).SerializeToString(), CALLERS[0], 0.0)

    assert source.stored_record.more_ready is None
    assert source.grown == first_bytes(source)


def test_askings_are_remembered_within_a_number_and_a_size() -> None:
    askings = Askings(most=10, bytes_most=100)
    first = askings.begin(CALLERS[0], b"1")
    assert askings.begin(CALLERS[1], b"x" * 98)
    assert askings.of(CALLERS[0]) == {b"1": first}

    again = askings.begin(CALLERS[1], b"22")

    assert (askings.of(CALLERS[0]), askings.of(CALLERS[1])) == ({}, {b"22": again})
    assert askings.begin(CALLERS[0], b"x" * 5_000) is None
    for number in range(20):
        askings.begin(CALLERS[0], b"%d" % number)
        assert len(askings.of(CALLERS[0])) <= 10


def test_questions_are_remembered_within_a_number_and_a_size() -> None:
    memory = QuestionMemory(most=3, bytes_most=100)
    for number in range(10):
        memory.put(b"%d" % number, make_question())
        assert memory.get(b"%d" % number)
    assert [number for number in range(10) if memory.get(b"%d" % number)] == [8, 9]
    memory.put(b"x" * 99, make_question())

    assert [number for number in range(10) if memory.get(b"%d" % number)] == [9]
    memory.put(b"yy", make_question())
    assert memory.get(b"x" * 99) is None
