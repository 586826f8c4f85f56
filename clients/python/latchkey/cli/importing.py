"""Events of a file into ReportUsage: in batches, several in flight, tried again while the server is away."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import grpc
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_delay, wait_random_exponential

from latchkey.cli.events import Reading, event_of
from latchkey.cli.lines import LineError, Record
from latchkey.cli.occurrences import Occurrences
from latchkey.v1 import error_reason_pb2, usage_pb2, usage_service_pb2, usage_service_pb2_grpc

EVENTS_MAX = 1_000
BYTES_MAX = 1024 * 1024
"""Bytes of a batch, well below the 4 MiB that a server accepts."""

IN_FLIGHT = 4
TIMEOUT = 30.0
PROBLEMS_SHOWN = 10
_PASSES = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_OUTCOMES = ("NEW", "DUPLICATE", "CONFLICT", "REJECTED")


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that was not recorded, and why."""

    line: int
    outcome: str
    why: str


@dataclass(slots=True)
class Tally:
    """What became of the lines so far: how many had each outcome, and the first that were not recorded."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    def count(self, outcome: str, line: int, why: str = "") -> None:
        """Count a line; only the problems with the smallest line numbers are retained."""
        self.counts[outcome] += 1
        if why:
            self.problems.append(Problem(line, outcome, why))
            self.problems.sort(key=lambda problem: problem.line)
            del self.problems[PROBLEMS_SHOWN:]

    @property
    def unrecorded(self) -> int:
        """How many lines are not recorded as the file has them."""
        return self.counts["CONFLICT"] + self.counts["REJECTED"]

    def lines(self) -> Iterator[str]:
        """Yield the summary's lines."""
        counts = ", ".join(f"{self.counts[outcome]:,} {outcome.lower()}" for outcome in _OUTCOMES)
        yield f"{self.counts.total():,} lines: {counts}"
        for problem in self.problems:
            yield f"  line {problem.line}: {problem.outcome.lower()}: {problem.why}"
        if (more := self.unrecorded - len(self.problems)) > 0:
            yield f"  … and {more:,} more"
        if self.counts["CONFLICT"]:
            yield "A conflict has the name of a recorded event and other content; other events take another --source."


@dataclass(slots=True)
class Batch:
    """Events to be sent together, each with its line; ``seen`` lines, until ``position``, were read for them."""

    lines: list[int] = field(default_factory=list)
    events: list[usage_pb2.UsageEvent] = field(default_factory=list)
    size: int = 0
    seen: int = 0
    position: int = 0

    def add(self, line: int, event: usage_pb2.UsageEvent) -> None:
        """Add an event."""
        self.lines.append(line)
        self.events.append(event)
        self.size += event.ByteSize()


def batches(records: Iterable[Record], reading: Reading, tally: Tally, position: Callable[[], int]) -> Iterator[Batch]:
    """Yield a file's events in batches; bad lines are counted, a thousand of them yield an empty batch."""
    occurrences, batch = Occurrences(), Batch()
    try:
        for record in records:
            try:
                event = _event(record, reading, occurrences)
            except LineError as error:
                tally.count("REJECTED", record.line, str(error))
            else:
                if batch.size + event.ByteSize() > BYTES_MAX:
                    yield batch
                    batch = Batch()
                batch.add(record.line, event)
            batch.seen, batch.position = batch.seen + 1, position()
            if batch.seen == EVENTS_MAX:
                yield batch
                batch = Batch()
    finally:
        occurrences.close()
    if batch.seen:
        yield batch


def _event(record: Record, reading: Reading, occurrences: Occurrences) -> usage_pb2.UsageEvent:
    # Counted before any check: mending a line must not rename the equal ones behind it.
    event_id = f"{record.digest}-{occurrences.next(record.digest)}" if record.digest else ""
    if isinstance(record.fields, LineError):
        raise record.fields
    return event_of(record.fields, event_id, reading)


class Notices:
    """Tells the user once that the server is away, however many batches wait for it, and again after it was back."""

    def __init__(self, tell: Callable[[str], None], patience: float) -> None:
        self._tell = tell
        self._patience = patience
        self._away = False

    def away(self, state: RetryCallState) -> None:
        """Note that a batch waits."""
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, grpc.aio.AioRpcError) and not self._away:
            self._away = True
            self._tell(f"The server does not answer ({error.code().name}); trying again for {self._patience:g} s.")

    def back(self) -> None:
        """Note that a batch was answered."""
        self._away = False


@dataclass(frozen=True, slots=True)
class Importer:
    """Sends batches; ``patience`` is for how many seconds one is tried again while the server is away."""

    usage: usage_service_pb2_grpc.UsageServiceStub
    token: str
    patience: float
    notices: Notices
    progress: Callable[[Batch], None]
    tally: Tally

    async def send(self, sent: Iterable[Batch]) -> None:
        """Send every batch, a few at a time; raises grpc.aio.AioRpcError when one can't be sent."""
        gate = asyncio.Semaphore(IN_FLIGHT)
        try:
            async with asyncio.TaskGroup() as group:
                for batch in sent:
                    await gate.acquire()
                    group.create_task(self._send(batch, gate))
                    # Reading a file never yields to the event loop; what is in flight must not wait for it.
                    await asyncio.sleep(0)
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _send(self, batch: Batch, gate: asyncio.Semaphore) -> None:
        if batch.events:
            answer = await self._report(usage_service_pb2.ReportUsageRequest(events=batch.events))
            self.notices.back()
            for line, result in zip(batch.lines, answer.results, strict=True):
                outcome = usage_service_pb2.UsageOutcome.Name(result.outcome).removeprefix("USAGE_OUTCOME_")
                self.tally.count(outcome, line, _why(result))
        self.progress(batch)
        gate.release()

    async def _report(self, request: usage_service_pb2.ReportUsageRequest) -> usage_service_pb2.ReportUsageResponse:
        trying = AsyncRetrying(
            retry=retry_if_exception(_is_passing),
            wait=wait_random_exponential(multiplier=0.2, max=3),
            stop=stop_after_delay(self.patience),
            before_sleep=self.notices.away,
            reraise=True,
        )
        return await trying(self._report_once, request)

    async def _report_once(
        self, request: usage_service_pb2.ReportUsageRequest
    ) -> usage_service_pb2.ReportUsageResponse:
        metadata = (("authorization", f"Bearer {self.token}"),)
        return await self.usage.ReportUsage(request, timeout=TIMEOUT, metadata=metadata)


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, grpc.aio.AioRpcError) and error.code() in _PASSES


def _why(result: usage_service_pb2.UsageEventResult) -> str:
    if not result.reason:
        return ""
    reason = error_reason_pb2.ErrorReason.Name(result.reason).removeprefix("ERROR_REASON_")
    return f"{reason}: {result.message}"
