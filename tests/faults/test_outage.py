"""An outage of the database: reported as such, never as an unknown key, and over when it is over (spec §4, §7)."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg
import grpc
import pytest
from grpc_health.v1 import health_pb2
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_fixed
from tests.support.postgres import own_postgres, stalled
from tests.support.service import Rejection, Service, rejection, serving, settings_for

from latchkey.v1 import admin_service_pb2, key_pb2, key_service_pb2, usage_pb2, usage_service_pb2, verification_pb2
from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.opening import utc_now
from latchkey_server.storage.database import Database, open_database
from latchkey_server.storage.embedded.data_directory import temporary_data_dir
from latchkey_server.storage.embedded.server import embedded_postgres
from latchkey_server.storage.schema.migrate import migrate

T = TypeVar("T")


async def eventually(call: Callable[[], Awaitable[T]]) -> T:
    """Return what a call answers once it does."""
    async for attempt in AsyncRetrying(
        stop=stop_after_delay(30), wait=wait_fixed(0.05), retry=retry_if_exception_type(grpc.aio.AioRpcError)
    ):
        with attempt:
            return await call()
    raise AssertionError


def reported(key_id: str, event_id: str) -> usage_service_pb2.ReportUsageRequest:
    event = usage_pb2.UsageEvent(source="outage", event_id=event_id, key_id=key_id, type=usage_pb2.USAGE_TYPE_CONSUME)
    event.occurred_time.FromDatetime(utc_now())
    return usage_service_pb2.ReportUsageRequest(events=[event])


async def test_a_restarted_database_is_told_as_an_outage_and_served_again_without_a_restart() -> None:
    with temporary_data_dir() as folder:
        async with embedded_postgres(folder) as first:
            dsn = first.dsn()
            async with open_database(dsn, pool_size=1, timeout=30) as database:
                await migrate(database)
            starting = serving(dsn)
            service = await starting.__aenter__()
            client = await service.client(service.root_secret)
            made = await client.create_key(key_pb2.Key(environment="prod"))
        try:
            outages = [
                await rejection(client.verify(made.secret)),
                await rejection(client.verify("sk_unknown")),
                await rejection(client.create_key()),
                await rejection(client.usage.ReportUsage(reported(made.key.key_id, "1"))),
            ]
            async with embedded_postgres(folder):
                answer = await eventually(lambda: client.verify(made.secret))
                recorded = await client.usage.ReportUsage(reported(made.key.key_id, "1"))
        finally:
            await starting.__aexit__(None, None, None)

    assert {(outage.code, outage.reason) for outage in outages} == {
        (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
    }
    assert (answer.code, answer.key.environment) == (verification_pb2.VERIFY_CODE_VALID, "prod")
    assert recorded.results[0].outcome == usage_service_pb2.USAGE_OUTCOME_NEW


async def test_connections_that_the_database_ends_cost_no_more_than_a_retry(dsn: str) -> None:
    async with serving(dsn) as service:
        client = await service.client(service.root_secret)
        secret = (await client.create_key()).secret
        connection = await asyncpg.connect(dsn)
        for _ in range(5):
            await asyncio.gather(*(client.verify(secret) for _ in range(10)))
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            answer = await eventually(lambda: client.verify(secret))
            assert answer.valid
        await connection.close()


async def test_a_connection_that_the_driver_gave_back_by_itself_is_an_outage_like_any_other(dsn: str) -> None:
    killer = await asyncpg.connect(dsn)
    async with open_database(dsn, pool_size=1, timeout=30) as database:
        with pytest.raises(DatabaseUnavailable):
            await lose_a_connection(database, killer)
        async with database.connection() as connection:
            assert await connection.fetchval("SELECT 1") == 1
    await killer.close()


async def lose_a_connection(database: Database, killer: "asyncpg.Connection[asyncpg.Record]") -> None:
    """Use a connection until the driver has noticed that the database ended it, and then fail as its caller would."""
    gone = asyncio.Event()
    async with database.connection() as connection:
        connection.add_termination_listener(lambda _connection: gone.set())
        pid = await connection.fetchval("SELECT pg_backend_pid()")
        await killer.execute("SELECT pg_terminate_backend($1)", pid)
        async with asyncio.timeout(30):
            await gone.wait()
        raise ConnectionResetError


async def test_cancelled_and_timed_out_calls_leak_no_connection(dsn: str) -> None:
    """Each call cut short costs its connection; the pool makes another one, never more than it may."""
    async with serving(dsn) as service:
        client = await service.client(service.root_secret)
        blocker = await asyncpg.connect(dsn)
        transaction = blocker.transaction()
        await transaction.start()
        await blocker.execute("LOCK TABLE workspace_revision IN ACCESS EXCLUSIVE MODE")
        cut = await asyncio.gather(
            *(rejection(client.keys.CreateKey(key_service_pb2.CreateKeyRequest(), timeout=0.5)) for _ in range(40))
        )
        await transaction.rollback()
        made = await asyncio.gather(*(client.create_key() for _ in range(40)))
        open_connections = await blocker.fetchval(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'latchkey'"
        )
        await blocker.close()

    told: set[grpc.StatusCode] = {refusal.code for refusal in cut if isinstance(refusal, Rejection)}
    assert told <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert len({hashlib.sha256(answer.secret.encode()).digest() for answer in made}) == 40
    assert open_connections <= 8


async def test_what_needs_the_database_is_refused_at_once_while_it_is_known_to_be_lost() -> None:
    async with own_postgres() as (postgres, _):
        # Longer than this test waits: only what does not ask for a connection is answered in time.
        settings = settings_for(postgres.dsn()).model_copy(update={"database_timeout": 60.0})
        async with serving(postgres.dsn(), settings=settings) as service:
            client = await service.client(service.root_secret)
            key_id = (await client.create_key()).key.key_id
            with stalled(postgres):
                await until_lost(service)
                async with asyncio.timeout(30):
                    outages = [
                        await rejection(client.keys.ListKeys(key_service_pb2.ListKeysRequest())),
                        await rejection(client.create_key()),
                        await rejection(client.usage.ReportUsage(reported(key_id, "1"))),
                        await rejection(client.admin.ListApis(admin_service_pb2.ListApisRequest())),
                    ]
            listed = await eventually(lambda: client.keys.ListKeys(key_service_pb2.ListKeysRequest()))

    assert {(outage.code, outage.reason) for outage in outages} == {
        (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE")
    }
    assert [key.key_id for key in listed.keys] == [key_id]


async def until_lost(service: Service) -> None:
    """Wait until health tells that a server has lost its database."""
    async with grpc.aio.insecure_channel(service.address) as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        async with asyncio.timeout(30):
            async for answer in watch(health_pb2.HealthCheckRequest(service="latchkey.v1.KeyService")):
                if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                    return
    raise AssertionError
