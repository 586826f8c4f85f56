"""Sums at the edge of what an answer holds (spec §5)."""

from datetime import timedelta

import asyncpg
import grpc
import pytest

from latchkey.v1 import usage_service_pb2
from latchkey_server.opening import utc_now
from tests.integration.usage.test_usage import NEW, REJECTED, event, nanos, report
from tests.support.matrix_world import today
from tests.support.service import Client, Service, rejection
from tests.support.upkeep import differences


def asking() -> usage_service_pb2.QueryUsageRequest:
    start, end = today()
    return usage_service_pb2.QueryUsageRequest(start_time=start, end_time=end)


async def make_large_events(owner: Client, service: Service, value: int, *columns: str) -> None:
    """Record three events and give them a number that no event may have any more."""
    key_id = (await owner.create_key()).key.key_id
    now = utc_now()
    moments = [now - timedelta(minutes=20 * number) for number in range(3)]
    await report(owner, [event(key_id, f"large-{at}", moment=moment) for at, moment in enumerate(moments)])
    connection = await asyncpg.connect(service.dsn)
    await connection.execute(f"UPDATE usage_event SET {', '.join(f'{column} = $1' for column in columns)}", value)
    await connection.close()
    assert await differences(service.dsn, write=True)


@pytest.mark.parametrize(
    ("column", "measure"),
    [
        ("requests", "requests"),
        ("input_tokens", "input_tokens"),
        ("output_tokens", "output_tokens"),
        ("cached_tokens", "cached_tokens"),
    ],
)
async def test_a_sum_beyond_int64_is_out_of_range_and_says_what_to_do(
    owner: Client, service: Service, column: str, measure: str
) -> None:
    await make_large_events(owner, service, 2**62, column)

    failed = await rejection(owner.usage.QueryUsage(asking()))

    assert (failed.code, failed.reason) == (grpc.StatusCode.OUT_OF_RANGE, "SUM_OUT_OF_RANGE")
    assert failed.info.metadata["measure"] == measure


async def test_total_tokens_beyond_int64_are_out_of_range_too(owner: Client, service: Service) -> None:
    await make_large_events(owner, service, 2**61, "input_tokens", "output_tokens")

    failed = await rejection(owner.usage.QueryUsage(asking()))

    assert failed.info.metadata["measure"] == "total_tokens"


async def test_a_sum_of_money_does_not_end_at_int64_nano_dollars(owner: Client, service: Service) -> None:
    await make_large_events(owner, service, 2**62, "cost_nanos")

    totals = (await owner.usage.QueryUsage(asking())).totals

    assert nanos(totals.spend) == 3 * 2**62


@pytest.mark.parametrize("name", ["requests", "input_tokens", "output_tokens"])
async def test_an_event_holds_at_most_a_thousand_million_of_a_count(owner: Client, name: str) -> None:
    key_id = (await owner.create_key()).key.key_id
    most, more = event(key_id, "most"), event(key_id, "more")
    setattr(most, name, 1_000_000_000)
    setattr(more, name, 1_000_000_001)

    assert await report(owner, [most, more]) == [NEW, REJECTED]
