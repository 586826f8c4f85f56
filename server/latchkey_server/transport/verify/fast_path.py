"""The fast path: verifications of which everything is cached, answered without a wait, in as few steps as possible.

A verdict depends on the record, the question, the caller and the time. The same callers ask the same about the same
secrets again and again, so that each record has a few ready answers: each is good for one question by one caller while
the record is confirmed, until the first instant that may alter it. Everything else takes the slow path, through
``verify_servicer``, which decides by the same rules.

Only this module and its handlers save steps. Between two calls gRPC's own work has emptied the processor's caches, so
that each function called and each object touched costs several times what it does in a loop: the functions here are
longer than elsewhere, and touch less.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from latchkey_server.domain.freshness import HARD_BOUND, NEVER, Instant, confirmed
from latchkey_server.domain.model import Caller
from latchkey_server.domain.outcomes.counts import Tally
from latchkey_server.domain.outcomes.notes import VerificationNotes, count_key_of, minute_of
from latchkey_server.domain.sha256 import sha256
from latchkey_server.domain.store import Clock
from latchkey_server.domain.verify.decide import decide
from latchkey_server.domain.verify.model import Code, Record
from latchkey_server.domain.verify.ports import RecordSource
from latchkey_server.observability import Count, Metrics
from latchkey_server.transport.answer_size import ANSWER_MAX
from latchkey_server.transport.verify.askings import ANSWER_BYTES, FIRST_ANSWER_BYTES, Asking, Askings
from latchkey_server.transport.verify.reader import KEY_TAG, ONE_BYTE, remembered, secret_span
from latchkey_server.transport.verify.writer import (
    RESULT_TAG,
    TAG_BYTES,
    decided_bytes,
    lasting_parts,
    revision_bytes,
    varint,
)

READY_MAX: Final = 16
"""Ready answers that are stored with a record; one more evicts all but the newest."""

RAW_MAX: Final = 24 * 1024
"""Bytes of a question, secret included, that is looked at here: to hash what is larger would take its time."""

AT_ONCE_MAX: Final = 128
"""Questions that are answered one after another without a look at the loop: in less than a millisecond."""

_SPAN_BYTES, _BYTES_BYTES = 150, 33
"""What two times and what a serialised part take, beside its bytes."""

_EVER: Final = datetime.min.replace(tzinfo=UTC)
_FOREVER: Final = datetime.max.replace(tzinfo=UTC)

TICK: Final = 0.001
"""Seconds for which a server's decisions share one reading of the clock."""


def _head(size: int) -> bytes:
    """Return the tag and the length before an answer of ``size`` bytes."""
    return RESULT_TAG + varint(size)


_HEADS_MAX: Final = 2_048
_HEADS: Final = tuple(map(_head, range(_HEADS_MAX)))


class ReadyAnswer:
    """A ready answer about a record: its asking, from when until when it is good, and its lasting parts."""

    __slots__ = ("asking", "cacheable", "common", "count", "head", "size", "span", "tally", "valid")

    def __init__(
        self,
        asking: Asking,
        span: tuple[datetime, datetime] | None,
        parts: tuple[bytes, bytes, bytes],
        count: Count,
        tally: Tally | None,
        valid: bool,
    ) -> None:
        self.asking = asking
        self.span = span
        """From when until when it is good; None for ever."""
        self.head, self.common, self.cacheable = parts
        self.size = sum(map(len, parts))
        self.count = count
        self.tally = tally
        """Where it is counted by outcome; None for a dry run."""
        self.valid = valid


class FastPath:
    """Answers verifications that need no waiting."""

    def __init__(
        self,
        source: RecordSource,
        notes: VerificationNotes,
        metrics: Metrics,
        clock: Clock,
        tick: float = 0.0,
    ) -> None:
        """``tick`` is for how many seconds decisions share one reading of the clock as their time."""
        self._source = source
        self._cached = source.cached
        self._askings = Askings()
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
        """Return the VerifyResponse to a VerifyRequest, or None if it has to take the slow path."""
        if at >= self._tick_end:
            self._begin_tick(at)
        found = self._find(raw, caller, self._askings.of(caller), at)
        if found is None:
            return None
        record, ready, result = found
        if len(result) > ANSWER_MAX:
            return None
        self._note(record, ready)
        return result

    def results(self, raws: Sequence[bytes], caller: Caller, at: Instant) -> list[bytes] | None:
        """Return the VerifyResults of a batch, or None if any has to take the slow path; nothing is noted then."""
        found = self.find_all(raws, caller, at)
        if found is None:
            return None
        self.note_all(found)
        return [result for _, _, result in found]

    def find_all(
        self, raws: Sequence[bytes], caller: Caller, at: Instant, room: int = ANSWER_MAX
    ) -> list[tuple[Record, ReadyAnswer, bytes]] | None:
        """Return what ``note_all`` takes of each item, its VerifyResult last, or None if any takes the slow path.

        ``room`` is for how many bytes of results there is room.
        """
        if at >= self._tick_end:
            self._begin_tick(at)
        askings = self._askings.of(caller)
        answers: list[tuple[Record, ReadyAnswer, bytes]] = []
        for raw in raws:
            found = self._find(raw, caller, askings, at)
            if found is None:
                return None
            room -= len(found[2]) + TAG_BYTES
            answers.append(found)
        if room < 0:
            return None
        return answers

    def note_all(self, found: Sequence[tuple[Record, ReadyAnswer, bytes]]) -> None:
        """Note verifications that were given, though a later one may have replaced a record's ready answer."""
        for record, ready, _ in found:
            self._note(record, ready)

    def _find(
        self, raw: bytes, caller: Caller, askings: dict[bytes, Asking], at: Instant
    ) -> tuple[Record, ReadyAnswer, bytes] | None:
        """Return the record that a request asks about, its ready answer, and the VerifyResponse, or None."""
        if len(raw) > RAW_MAX:
            return None
        if len(raw) > 2 and raw[0] == KEY_TAG and raw[1] < ONE_BYTE:
            # Nearly all are of this form: `secret_span` would find the same.
            start, end = 2, raw[1] + 2
        else:
            start, end = secret_span(raw)
        secret, rest = raw[start:end], raw[end:]
        asking = askings.get(rest) or self._askings.begin(caller, rest)
        if asking is None or not secret or not secret.isascii() or end > len(raw):
            return None
        record = self._cached(sha256(secret).digest())
        if record is None:
            return None
        history = record.history
        if not (at - history.confirmed_at <= HARD_BOUND or confirmed(record, at)):
            return None
        ready: ReadyAnswer | None = record.ready
        if ready is None or ready.asking is not asking:
            more = record.more_ready
            ready = more.get(asking.key) if more else None
        if ready is None or (ready.span is not None and not ready.span[0] <= self._now < ready.span[1]):
            ready = self._make_ready(record, asking, self._now)
            if ready is None:
                return None
        revision, decided = history.serialized, self._decided
        if revision is None or revision[0] != history.revision or record.revision > revision[0]:
            revision = _revision(record)
        size = ready.size + len(revision[1]) + len(decided)
        head = _HEADS[size] if size < _HEADS_MAX else _head(size)
        return record, ready, b"".join((head, ready.head, ready.common, ready.cacheable, revision[1], decided))

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
        """Read the clock, and serialise the time of all decisions of a tick."""
        self._tick_end = at + self._tick
        self._now = now = self._clock()
        self._decided = decided_bytes(now)
        self._minute = minute_of(now)
        self._notes.counter.look(now)

    def _make_ready(self, record: Record, asking: Asking, now: datetime) -> ReadyAnswer | None:
        """Return a ready answer that is good beyond this moment, and store it; None if there is none."""
        span, question, caller = _unaltered(record, now), remembered.get(asking.rest), asking.caller
        if question is None or question.particular or record.limited or (span is not None and span[1] <= now):
            return None
        verdict = decide(record, question, caller, now)
        if verdict.record is None:
            return None
        tally = None if question.dry_run else Tally(count_key_of(caller, question, "", verdict))
        counted = 0 if record.ready is None else _shared_bytes(record)
        parts = lasting_parts(verdict, record, question.omit_metadata, store=True)
        count = self._verdicts.count(verdict.code.name)
        ready = ReadyAnswer(asking, span, parts, count, tally, verdict.code is Code.VALID)
        self._store(record, ready)
        if grown := _shared_bytes(record) - counted:
            self._source.grew(record, grown)
        return ready

    def _store(self, record: Record, ready: ReadyAnswer) -> None:
        """Store an answer with its record: the newest in a field of its own, for most get one question only."""
        first: ReadyAnswer | None = record.ready
        asking = ready.asking
        if first is None or first.asking.key == asking.key:
            record.ready = ready
            if first is None:
                # Further ones have to be found, by a table.
                table = ANSWER_BYTES - FIRST_ANSWER_BYTES
                self._source.grew(record, asking.answer_bytes - table + (_SPAN_BYTES if ready.span else 0))
            return
        more = record.more_ready
        if more is None:
            more = record.more_ready = {}
        if asking.key in more:
            more[asking.key] = ready
            return
        if len(more) >= READY_MAX - 1:
            self._source.grew(record, -sum(evicted.asking.answer_bytes for evicted in more.values()))
            more.clear()
        more[first.asking.key], record.ready = first, ready
        self._source.grew(record, asking.answer_bytes)


def _shared_bytes(record: Record) -> int:
    """Return what the parts take that all answers about a record share."""
    return sum(len(part) + _BYTES_BYTES for part in (record.common, record.common_bare) if part is not None)


def _revision(record: Record) -> tuple[int, bytes]:
    return revision_bytes(record.history, max(record.history.revision, record.revision))


def _unaltered(record: Record, now: datetime) -> tuple[datetime, datetime] | None:
    """Return from when until when a question has the same answer, ``cacheable_for`` included; None for ever."""
    fields = record.key.fields
    times = [time for time in (fields.expire_time, fields.not_before_time, record.secret_end_time) if time is not None]
    if not times:
        return None
    ahead = [time for time in times if time > now]
    # A clock may be set back to before a time that has passed.
    since = max((time for time in times if time <= now), default=_EVER)
    return since, min(ahead) - record.max_cacheable_for if ahead else _FOREVER
