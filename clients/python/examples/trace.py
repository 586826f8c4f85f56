"""A real trace of LLM requests as usage events: read, shifted in time, priced, and reported in batches."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from latchkey.v1 import usage_pb2, usage_service_pb2, usage_service_pb2_grpc

EXCERPT = Path(__file__).parent / "data" / "azure-llm-inference-2023-conv-excerpt.csv"
SOURCE = "azure-llm-inference-2023-conv"

INPUT_NANOS, OUTPUT_NANOS = 150, 600
"""The price of a token in nano-dollars: 0.15 and 0.60 USD per million."""

BATCH = 1_000
_NANOS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class TraceRow:
    """One request of the trace; ``index`` is its place in the file, from 0."""

    index: int
    time: datetime
    input_tokens: int
    output_tokens: int

    @property
    def cost_nanos(self) -> int:
        """What it cost, in nano-dollars."""
        return self.input_tokens * INPUT_NANOS + self.output_tokens * OUTPUT_NANOS


@dataclass(frozen=True, slots=True)
class Target:
    """A key that takes part of the trace, and the model that its requests used."""

    key_id: str
    model: str


def read_trace(path: Path) -> list[TraceRow]:
    """Return the rows of a trace file; times are UTC, truncated to microseconds."""
    with path.open(newline="", encoding="ascii") as file:
        return [
            TraceRow(index, _time(row["TIMESTAMP"]), int(row["ContextTokens"]), int(row["GeneratedTokens"]))
            for index, row in enumerate(csv.DictReader(file))
        ]


def events(rows: Sequence[TraceRow], targets: Sequence[Target], ending_at: datetime) -> Iterator[usage_pb2.UsageEvent]:
    """Yield the rows as usage events over the targets, shifted so that the last one happened at ``ending_at``.

    An event's identity is its place in the file: the same trace with the same ``ending_at`` is a duplicate.
    """
    shift = ending_at - max(row.time for row in rows)
    for row in rows:
        yield _event(row, targets[share(row.index, len(targets))], shift)


def share(index: int, targets: int) -> int:
    """Return which target takes a row: of ten rows seven go to the first, two to the second, one to the last."""
    return min(0 if index % 10 < 7 else 1 if index % 10 < 9 else 2, targets - 1)


async def report(
    usage: usage_service_pb2_grpc.UsageServiceStub, sent: Iterable[usage_pb2.UsageEvent]
) -> dict[usage_service_pb2.UsageOutcome.ValueType, int]:
    """Report events in batches and return how many had each outcome."""
    outcomes: dict[usage_service_pb2.UsageOutcome.ValueType, int] = {}
    waiting = iter(sent)
    while batch := list(islice(waiting, BATCH)):
        answer = await usage.ReportUsage(usage_service_pb2.ReportUsageRequest(events=batch))
        for result in answer.results:
            outcomes[result.outcome] = outcomes.get(result.outcome, 0) + 1
    return outcomes


def _event(row: TraceRow, target: Target, shift: timedelta) -> usage_pb2.UsageEvent:
    occurred_time = Timestamp()
    occurred_time.FromDatetime(row.time + shift)
    units, nanos = divmod(row.cost_nanos, _NANOS)
    return usage_pb2.UsageEvent(
        source=SOURCE,
        event_id=str(row.index),
        key_id=target.key_id,
        type=usage_pb2.USAGE_TYPE_CONSUME,
        model=target.model,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cost=Money(currency_code="USD", units=units, nanos=nanos),
        occurred_time=occurred_time,
    )


def _time(text: str) -> datetime:
    whole, _, fraction = text.partition(".")
    moment = datetime.strptime(whole, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    return moment + timedelta(microseconds=int(fraction.ljust(6, "0")[:6] or 0))
