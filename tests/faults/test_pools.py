"""Busy connections make nobody else wait: neither a tenant's mutations nor a stalled server."""

import asyncio

import asyncpg
import grpc
from google.protobuf.duration_pb2 import Duration
from tests.support.postgres import locked, own_postgres, stalled, until_somebody_waits
from tests.support.service import rejection, serving, settings_for

from latchkey.v1 import key_service_pb2, usage_service_pb2, verify_service_pb2

UNCACHED = verify_service_pb2.VerifyRequest(max_staleness=Duration())


async def test_a_tenant_whose_mutations_queue_keeps_no_other_tenant_waiting(dsn: str) -> None:
    async with serving(dsn) as service:
        busy, other = await service.workspace("busy"), await service.workspace("other")
        made = await other.create_key()
        connection = await asyncpg.connect(dsn)
        row = await connection.fetchval("SELECT workspace_id FROM workspace WHERE name = 'busy'")
        await connection.close()
        async with locked(dsn, f"SELECT FROM workspace_revision WHERE workspace_id = '{row}' FOR UPDATE"):
            queued = [asyncio.create_task(busy.create_key()) for _ in range(settings_for(dsn).pool_size * 3)]
            verified = await other.verify(made.secret, UNCACHED)
            created = await other.create_key()
        done = await asyncio.gather(*queued)

    assert verified.valid
    assert created.secret
    assert len({answer.key.key_id for answer in done}) == len(queued)


async def test_verifications_have_connections_of_their_own(dsn: str) -> None:
    async with serving(dsn) as service:
        client = await service.workspace()
        made = await client.create_key()
        async with locked(dsn, "LOCK TABLE usage_event IN ACCESS EXCLUSIVE MODE"):
            listing = [
                client.usage.ListUsageEvents(usage_service_pb2.ListUsageEventsRequest())
                for _ in range(settings_for(dsn).pool_size * 2)
            ]
            verified = await client.verify(made.secret, UNCACHED)
        for listed in listing:
            await listed

    assert verified.valid


async def test_what_is_slow_is_not_called_an_outage(dsn: str) -> None:
    async with serving(dsn) as service:
        client = await service.workspace()
        async with locked(dsn, "LOCK TABLE usage_event IN ACCESS EXCLUSIVE MODE"):
            request = usage_service_pb2.ListUsageEventsRequest()
            slow = await rejection(client.usage.ListUsageEvents(request, timeout=2))

    assert (slow.code, slow.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE")


async def test_a_database_that_stalls_inside_a_transaction_is_told_before_the_client_gives_up() -> None:
    async with own_postgres() as (postgres, _), serving(postgres.dsn()) as service:
        client = await service.client(service.root_secret)
        await client.create_key()
        async with locked(postgres.dsn(), "LOCK TABLE key IN ACCESS EXCLUSIVE MODE"):
            under_way = asyncio.create_task(
                rejection(client.keys.CreateKey(key_service_pb2.CreateKeyRequest(), timeout=4))
            )
            await until_somebody_waits(postgres.dsn())
            with stalled(postgres):
                failed = await under_way

    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
