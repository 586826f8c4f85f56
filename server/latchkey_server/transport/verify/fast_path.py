"""Verifications of which everything is at hand: answered at once, in as few steps as there can be.

A verdict depends on the record, the question, the caller and the time. The same callers ask the same of the same
secrets again and again, so that each record keeps its last answer: good for the same question by the same caller while
the record is confirmed, until the first instant that may alter it. Whatever is not as simple as that goes the long way,
through ``verify_servicer``, and is answered there by the same rules.

This is the one place where steps are counted. Between two calls gRPC's own work has emptied the processor's caches, so
that each function called and each object touched costs several times what it does in a loop: the functions here are
longer than elsewhere, and touch less.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from latchkey_server.domain.freshness import HARD_BOUND, NEVER, Instant, confirmed
from latchkey_server.domain.model import Caller
from latchkey_server.domain.outcomes.counts import Tally
from latchkey_server.domain.outcomes.notes import VerificationNotes, minute_of, place_of
from latchkey_server.domain.sha256 import sha256
from latchkey_server.domain.store import Clock
from latchkey_server.domain.verify.decide import decide
from latchkey_server.domain.verify.model import Code, Question, Record
from latchkey_server.domain.verify.ports import RecordSource
from latchkey_server.observability import Count, Metrics
from latchkey_server.transport.answer_size import ANSWER_MAX
from latchkey_server.transport.verify.reader import KEY_TAG, ONE_BYTE_LENGTH, remembered
from latchkey_server.transport.verify.writer import (
    RESULT_TAG,
    TAG_BYTES,
    decided_bytes,
    lasting_bytes,
    revision_bytes,
    varint,
)

_EVER: Final = datetime.min.replace(tzinfo=UTC)
_FOREVER: Final = datetime.max.replace(tzinfo=UTC)

TICK: Final = 0.001
"""Seconds for which a server's decisions share one look at the clock."""


def _head(size: int) -> bytes:
    """Return what stands before an answer of so many bytes."""
    return RESULT_TAG + varint(size)


_HEADS_MAX: Final = 2_048
_HEADS: Final = tuple(map(_head, range(_HEADS_MAX)))


class ReadyAnswer:
    """The last answer about a record: for whom and what it is good, from when until when, and its bytes that last."""

    __slots__ = ("body", "caller", "count", "question", "span", "tally", "valid")

    def __init__(
        self,
        question: Question,
        caller: Caller,
        span: tuple[datetime, datetime] | None,
        body: bytes,
        count: Count,
        tally: Tally | None,
        valid: bool,
    ) -> None:
        self.question = question
        self.caller = caller
        self.span = span
        """From when until when it is good; None for ever."""
        self.body = body
        self.count = count
        self.tally = tally
        """Where it is counted by outcome; None for a dry run."""
        self.valid = valid


class FastPath:
    """Answers what can be answered at once."""

    def __init__(
        self,
        source: RecordSource,
        notes: VerificationNotes,
        metrics: Metrics,
        clock: Clock,
        tick: float = 0.0,
    ) -> None:
        """``tick`` is for how many seconds decisions share one look at the clock, and say its time."""
        self._kept = source.cached
        self._notes = notes
        self._begin_tally = notes.counter.begin
        self._verdicts = metrics.verdicts
        self._clock = clock
        self._tick = tick
        self._tick_end = NEVER
        self._now = _EVER
        self._decided = b""
        self._minute = 0

    def result(self, raw: bytes, caller: Caller, at: Instant) -> bytes | None:
        """Return the VerifyResponse to a VerifyRequest, or None if it has to go the long way."""
        if at >= self._tick_end:
            self._begin_tick(at)
        found = self._find(raw, caller, at)
        if found is None:
            return None
        record, ready, result = found
        if len(result) > ANSWER_MAX:
            return None
        self._note(record, ready)
        return result

    def results(self, raws: Sequence[bytes], caller: Caller, at: Instant) -> list[bytes] | None:
        """Return the VerifyResults of a batch, or None if any of it has to go the long way; nothing is noted then."""
        if at >= self._tick_end:
            self._begin_tick(at)
        room = ANSWER_MAX
        answers: list[tuple[Record, ReadyAnswer, bytes]] = []
        for raw in raws:
            found = self._find(raw, caller, at)
            if found is None:
                return None
            room -= len(found[2]) + TAG_BYTES
            answers.append(found)
        if room < 0:
            return None
        # A second question about the same record makes its answer anew: what was given is what is noted.
        for record, ready, _ in answers:
            self._note(record, ready)
        return [result for _, _, result in answers]

    def _find(self, raw: bytes, caller: Caller, at: Instant) -> tuple[Record, ReadyAnswer, bytes] | None:
        """Return the record that a request asks for, what is ready of its answer, and the VerifyResponse, or None."""
        if len(raw) < 3 or raw[0] != KEY_TAG or raw[1] >= ONE_BYTE_LENGTH or not raw.isascii():
            return None
        end = raw[1] + 2
        question = remembered(raw[end:])
        if question is None or not 2 < end <= len(raw):
            return None
        record = self._kept(sha256(raw[2:end]).digest())
        if record is None:
            return None
        history = record.history
        if not (at - history.confirmed_at <= HARD_BOUND or confirmed(record, at)):
            return None
        ready: ReadyAnswer | None = record.ready
        if (
            ready is None
            or ready.question is not question
            or ready.caller is not caller
            or (ready.span is not None and not ready.span[0] <= self._now < ready.span[1])
        ):
            ready = record.ready = self._make_ready(record, question, caller, self._now)
            if ready is None:
                return None
        revision, decided, body = history.wire, self._decided, ready.body
        if revision is None or revision[0] != history.revision or record.revision > revision[0]:
            revision = _revision(record)
        size = len(body) + len(revision[1]) + len(decided)
        head = _HEADS[size] if size < _HEADS_MAX else _head(size)
        return record, ready, b"".join((head, body, revision[1], decided))

    def _note(self, record: Record, ready: ReadyAnswer) -> None:
        """Count a verification, and note it unless it was a dry run."""
        ready.count.value += 1
        tally = ready.tally
        if tally is None:
            return
        if not tally.value:
            self._begin_tally(tally)
        tally.value += 1
        if record.used_minute != self._minute and ready.valid:
            self._notes.use(record, self._now, self._minute)

    def _begin_tick(self, at: Instant) -> None:
        """Look at the clock, and serialise the time of all decisions of a tick."""
        self._tick_end = at + self._tick
        self._now = now = self._clock()
        self._decided = decided_bytes(now)
        self._minute = minute_of(now)
        self._notes.counter.look(now)

    def _make_ready(self, record: Record, question: Question, caller: Caller, now: datetime) -> ReadyAnswer | None:
        """Return an answer that is good for longer than this moment, or None if there is none."""
        span = _unaltered(record, now)
        if record.limited or question.particular or (span is not None and span[1] <= now):
            return None
        verdict = decide(record, question, caller, now)
        if verdict.record is None:
            return None
        tally = None if question.dry_run else Tally(place_of(caller, question, "", verdict))
        # The second shape of a question: what all of them have in common is now worth keeping.
        body = lasting_bytes(verdict, record, question.omit_metadata, keep=record.ready is not None)
        count = self._verdicts.count(verdict.code.name)
        return ReadyAnswer(question, caller, span, body, count, tally, verdict.code is Code.VALID)


def _revision(record: Record) -> tuple[int, bytes]:
    return revision_bytes(record.history, max(record.history.revision, record.revision))


def _unaltered(record: Record, now: datetime) -> tuple[datetime, datetime] | None:
    """Return from when until when the same question has the same answer, ``cacheable_for`` included; None: for ever."""
    fields = record.key.fields
    times = [time for time in (fields.expire_time, fields.not_before_time, record.secret_end_time) if time is not None]
    if not times:
        return None
    ahead = [time for time in times if time > now]
    # A clock may be set back, behind a time that has come.
    since = max((time for time in times if time <= now), default=_EVER)
    return since, min(ahead) - record.max_cacheable_for if ahead else _FOREVER
