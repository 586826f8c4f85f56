"""Verifications of which everything is at hand: answered at once, in as few steps as there can be.

A verdict depends on the record, the question, the caller and the time. The same callers ask the same of the same
secrets again and again, so that each record keeps its last answer: good for the same question by the same caller while
the record is confirmed, until the first instant that may alter it. Whatever is not as simple as that goes the long way,
through ``verify_servicer``, and is answered there by the same rules.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

from latchkey_server.domain.access import Caller
from latchkey_server.domain.freshness import Instant, seen_revision
from latchkey_server.domain.ports import Clock, LastUsed, RecordSource
from latchkey_server.domain.verify import Code, Question, Record, decide
from latchkey_server.observability import Metrics
from latchkey_server.transport.answers import ANSWER_MAX
from latchkey_server.transport.read_verify import known_question
from latchkey_server.transport.write_verify import (
    TAG_BYTES,
    decided_bytes,
    delimited,
    lasting_pieces,
    revision_bytes,
)

_MINUTE: Final = 60
_FOREVER: Final = datetime.max.replace(tzinfo=UTC)


class Ready(NamedTuple):
    """The last answer about a record: for whom and what it is good, until when, and its pieces."""

    question: Question
    caller: Caller
    until: datetime
    code: Code
    pieces: tuple[bytes, ...]


class Moment(NamedTuple):
    """What all items of one request have in common."""

    caller: Caller
    now: datetime
    at: Instant
    decided: bytes
    minute: int


@dataclass(frozen=True, slots=True)
class AtHand:
    """Answers what can be answered at once."""

    source: RecordSource
    last_used: LastUsed
    metrics: Metrics
    clock: Clock
    instant: Callable[[], Instant]

    def result(self, raw: bytes, caller: Caller) -> bytes | None:
        """Return the VerifyResponse to a VerifyRequest, or None if it has to go the long way."""
        moment = self._moment(caller)
        found = self._find(raw, moment)
        if found is None:
            return None
        record, ready = found
        self._use(record, ready, moment)
        self.metrics.verified(ready.code, 1)
        return _result(record, ready, moment)

    def results(self, raws: Sequence[bytes], caller: Caller) -> list[bytes] | None:
        """Return the VerifyResults of a batch, or None if any of it has to go the long way; nothing is noted then."""
        moment = self._moment(caller)
        found: list[tuple[Record, Ready]] = []
        for raw in raws:
            item = self._find(raw, moment)
            if item is None:
                return None
            found.append(item)
        results = [_result(record, ready, moment) for record, ready in found]
        if sum(map(len, results)) + TAG_BYTES * len(results) > ANSWER_MAX:
            return None
        self._note(found, moment)
        return results

    def _moment(self, caller: Caller) -> Moment:
        now = self.clock()
        return Moment(caller, now, self.instant(), decided_bytes(now), int(now.timestamp()) // _MINUTE)

    def _find(self, raw: bytes, moment: Moment) -> tuple[Record, Ready] | None:
        known = known_question(raw)
        if known is None:
            return None
        question, end = known
        record = self.source.fresh(hashlib.sha256(raw[2:end]).digest(), moment.at)
        if record is None:
            return None
        ready = record.ready
        if not isinstance(ready, Ready) or not _good(ready, question, moment):
            ready = record.ready = _ready(record, question, moment)
        return (record, ready) if ready is not None else None

    def _note(self, found: Sequence[tuple[Record, Ready]], moment: Moment) -> None:
        counts: dict[Code, int] = {}
        for record, ready in found:
            counts[ready.code] = counts.get(ready.code, 0) + 1
            self._use(record, ready, moment)
        for code, count in counts.items():
            self.metrics.verified(code, count)

    def _use(self, record: Record, ready: Ready, moment: Moment) -> None:
        if record.used_minute != moment.minute and ready.code is Code.VALID and not ready.question.dry_run:
            record.used_minute = moment.minute
            self.last_used.touch(record.key.workspace_id, record.key.key_id, moment.now)


def _good(ready: Ready, question: Question, moment: Moment) -> bool:
    return ready.question is question and ready.caller is moment.caller and moment.now < ready.until


def _ready(record: Record, question: Question, moment: Moment) -> Ready | None:
    """Return an answer that is good for longer than this moment, or None if there is none."""
    until = _unaltered_until(record, moment.now)
    if record.limited or question.particular or until <= moment.now:
        return None
    verdict = decide(record, question, moment.caller, moment.now)
    if verdict.record is None:
        return None
    pieces = lasting_pieces(verdict, record, question.omit_metadata)
    return Ready(question, moment.caller, until, verdict.code, pieces)


def _unaltered_until(record: Record, now: datetime) -> datetime:
    """Return until when the same question has the same answer, its ``cacheable_for`` included."""
    fields = record.key.fields
    times = (fields.expire_time, fields.not_before_time, record.secret_end_time)
    ahead = [moment for moment in times if moment is not None and moment > now]
    return min(ahead) - record.max_cacheable_for if ahead else _FOREVER


def _result(record: Record, ready: Ready, moment: Moment) -> bytes:
    return delimited((*ready.pieces, revision_bytes(record.history, seen_revision(record)), moment.decided))
