"""The short way of a verification answers what the long way would, or nothing at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

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
from latchkey_server.transport.verify.fast_path import FastPath
from latchkey_server.transport.verify.reader import read_item
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
    """A source that has one record at hand, whatever is asked for."""

    record_kept: Record

    def cached(self, sha256: bytes, /) -> Record | None:
        return self.record_kept

    def cached_credential(self, sha256: bytes, /) -> Credential | None:
        raise NotImplementedError

    def fresh(self, sha256: bytes, at: float) -> Record | None:
        return self.record_kept

    async def records(self, sha256s: Sequence[bytes]) -> Mapping[bytes, Record | DatabaseUnavailable]:
        raise NotImplementedError

    async def record(self, sha256: bytes, freshness: Freshness) -> Record | None:
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
def test_the_short_way_answers_what_the_long_way_would(
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
    short = FastPath(OneRecord(record), notes, Metrics(), lambda: now[0])

    for caller in callers:
        for leap in (timedelta(0), *leaps):
            now[0] += leap
            answer = short.result(raw, caller, 0.0)
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


def test_a_question_that_was_read_before_is_answered_the_short_way() -> None:
    raw = request_of(make_question()).SerializeToString()
    read_item(raw)
    notes = VerificationNotes()
    short = FastPath(OneRecord(make_record()), notes, Metrics(), lambda: NOW)

    answers = [short.result(raw, CALLERS[0], 0.0) for _ in range(3)]

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
