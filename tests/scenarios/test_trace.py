"""A real trace as usage: all new, then all duplicate, and equal to an independent sum (TRACE=path for another file)."""

import asyncio
import csv
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from google.type.money_pb2 import Money

from examples.trace import EXCERPT, Target, TraceRow, events, read_trace, report
from latchkey.v1 import key_pb2, usage_pb2, usage_service_pb2
from tests.support.process import environment
from tests.support.service import Client

TRACE = Path(os.environ.get("TRACE") or EXCERPT)
LABELS = ("prod", "staging", "dev")


def nanos(money: Money) -> int:
    return money.units * 1_000_000_000 + money.nanos


def independent_sum(path: Path) -> tuple[int, int, int, int]:
    """Return requests, input tokens, output tokens and nano-dollars, straight from the file."""
    with path.open(newline="") as file:
        next(file)
        rows = [(int(row[1]), int(row[2])) for row in csv.reader(file)]
    tokens_in, tokens_out = sum(row[0] for row in rows), sum(row[1] for row in rows)
    return len(rows), tokens_in, tokens_out, 150 * tokens_in + 600 * tokens_out


def told(measures: usage_pb2.UsageMeasures) -> tuple[int, int, int, int]:
    return measures.requests, measures.input_tokens, measures.output_tokens, nanos(measures.spend)


async def by(client: Client, ending_at: datetime, *group_by: str) -> usage_service_pb2.QueryUsageResponse:
    midnight = ending_at.replace(hour=0, minute=0, second=0, microsecond=0)
    request = usage_service_pb2.QueryUsageRequest(
        group_by=[usage_pb2.UsageDimension.Value(f"USAGE_DIMENSION_{name}") for name in group_by]
    )
    request.start_time.FromDatetime(midnight - timedelta(days=2))
    request.end_time.FromDatetime(midnight + timedelta(days=1))
    return await client.usage.QueryUsage(request)


async def targets(client: Client) -> list[Target]:
    made = [await client.create_key(key_pb2.Key(environment=label)) for label in LABELS]
    return [Target(answer.key.key_id, "assistant") for answer in made]


async def test_a_trace_sent_twice_is_new_then_duplicate_and_adds_up(owner: Client) -> None:
    rows, ending_at = read_trace(TRACE), datetime.now(UTC) - timedelta(hours=1)
    keys = await targets(owner)

    first = await report(owner.usage, events(rows, keys, ending_at))
    second = await report(owner.usage, events(rows, keys, ending_at))

    assert first == {usage_service_pb2.USAGE_OUTCOME_NEW: len(rows)}
    assert second == {usage_service_pb2.USAGE_OUTCOME_DUPLICATE: len(rows)}
    expected = independent_sum(TRACE)
    by_label, by_key = await by(owner, ending_at, "ENVIRONMENT"), await by(owner, ending_at, "KEY")
    for answer in (by_label, by_key):
        assert told(answer.totals) == expected
        assert tuple(map(sum, zip(*(told(row.measures) for row in answer.rows), strict=True))) == expected
    assert {row.group.environment for row in by_label.rows} == set(LABELS)


async def test_the_last_request_of_a_shifted_trace_happens_at_the_given_instant(owner: Client) -> None:
    rows: Sequence[TraceRow] = read_trace(EXCERPT)
    ending_at = datetime(2026, 11, 1, 12, 0, 0, 123_456, tzinfo=UTC)

    times = [event.occurred_time.ToDatetime(tzinfo=UTC) for event in events(rows, [Target("k", "m")], ending_at)]

    assert max(times) == ending_at
    assert times[-1] - times[0] == rows[-1].time - rows[0].time


@pytest.mark.parametrize("options", [(), ("--trace", str(EXCERPT), "--ending-at", "2026-01-01T00:00:00Z")])
async def test_the_demo_runs_to_its_end(options: tuple[str, ...]) -> None:
    """The second run's events lie outside the acceptance window: the demo says so and still ends well."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "examples.demo",
        *options,
        env=environment({"PYTHONPATH": str(Path(EXCERPT).parents[2])}),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()

    assert process.returncode == 0, out.decode()
    shown = out.decode()
    assert "LIMIT_NOT_ENFORCED" in shown
    assert "ENVIRONMENT_MISMATCH" in shown
    assert ("600 DUPLICATE" in shown) == (not options)
    assert ("600 REJECTED" in shown) == bool(options)
