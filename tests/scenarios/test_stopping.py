"""How a server process stops: what it says first, what it still answers, and what hurries it."""

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2

from latchkey.v1 import key_service_pb2, verify_service_pb2
from latchkey_server.app import build_workspaces
from latchkey_server.opening import open_storage, utc_now
from tests.support.postgres import locked, until_somebody_waits
from tests.support.process import DEADLINE, Serving, server_process, until_nobody_listens
from tests.support.service import PEPPERS, Bearer, Client, settings_for

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
LONG = "300"
"""Longer than any test waits."""

KEYS = 1_000
TELLS_WHAT_IS_LEFT = """
import atexit, gc
from latchkey_server.__main__ import main
atexit.register(lambda: print(len(gc.get_objects())))
main()
"""
"""The server, which prints at its very end how many objects the garbage collector would still look at."""

UNDER_NOHUP = """
import signal
from latchkey_server.__main__ import main
signal.signal(signal.SIGHUP, signal.SIG_IGN)
main()
"""
"""The server with SIGHUP ignored, as nohup starts it."""


async def root_secret_of(dsn: str) -> str:
    async with open_storage(settings_for(dsn)) as storage:
        return await build_workspaces(storage, utc_now).bootstrap() or ""


@asynccontextmanager
async def served(dsn: str, **settings: str) -> AsyncIterator[tuple[Serving, Client]]:
    """Run a server with a client of its root OWNER."""
    secret = await root_secret_of(dsn)
    common = {"LATCHKEY_DATABASE_URL": dsn, "LATCHKEY_PEPPERS": PEPPERS}
    async with (
        server_process(**common, **settings) as serving,
        grpc.aio.insecure_channel(serving.address, interceptors=[Bearer(secret)]) as channel,
    ):
        yield serving, Client(channel, secret)


async def until_not_serving(channel: grpc.aio.Channel) -> None:
    """Watch health as a client does, until it is told to call another server."""
    watch = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    async with asyncio.timeout(DEADLINE):
        async for answer in watch(health_pb2.HealthCheckRequest(service="latchkey.v1.VerifyService")):
            if answer.status == NOT_SERVING:
                return
    raise AssertionError("health was not told")


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_server_that_will_stop_says_so_and_serves_on_until_its_delay_is_over(dsn: str, workers: str) -> None:
    async with served(dsn, LATCHKEY_STOP_DELAY=LONG, LATCHKEY_WORKERS=workers) as (serving, client):
        before = await client.create_key()
        serving.process.terminate()
        await until_not_serving(client.channel)
        async with grpc.aio.insecure_channel(
            serving.address, [("grpc.use_local_subchannel_pool", 1)], interceptors=[Bearer(client.secret)]
        ) as late:
            after = await Client(late).verify(before.secret)
        status = await serving.stop()

    assert after.valid
    assert status == 0


async def test_however_much_is_cached_a_stop_leaves_nothing_for_the_garbage_collector_to_walk(dsn: str) -> None:
    secret = await root_secret_of(dsn)
    settings = {"LATCHKEY_DATABASE_URL": dsn, "LATCHKEY_PEPPERS": PEPPERS}
    async with (
        server_process(program=TELLS_WHAT_IS_LEFT, **settings) as serving,
        grpc.aio.insecure_channel(serving.address, interceptors=[Bearer(secret)]) as channel,
    ):
        client = Client(channel, secret)
        secrets = [f"cached_{number}" for number in range(KEYS)]
        items = [
            key_service_pb2.ImportKeyItem(secret_sha256=hashlib.sha256(secret.encode()).digest()) for secret in secrets
        ]
        await client.keys.ImportKeys(key_service_pb2.ImportKeysRequest(items=items))
        for start in range(0, KEYS, 100):
            asked = [verify_service_pb2.VerifyRequest(key=secret) for secret in secrets[start : start + 100]]
            await client.verifier.BatchVerify(verify_service_pb2.BatchVerifyRequest(items=asked))
        status = await serving.stop()
        out, _ = await serving.process.communicate()

    assert status == 0
    assert int(out) < KEYS


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_ctrl_c_waits_for_no_delay(dsn: str, workers: str) -> None:
    async with served(dsn, LATCHKEY_STOP_DELAY=LONG, LATCHKEY_WORKERS=workers) as (serving, _):
        status = await serving.stop(signal.SIGINT)

    assert status == 0


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_terminal_that_is_closed_lets_open_calls_finish(dsn: str, workers: str) -> None:
    async with served(dsn, LATCHKEY_WORKERS=workers) as (serving, client):
        async with locked(dsn, "SELECT 1 FROM workspace_revision FOR UPDATE"):
            call = asyncio.create_task(client.create_key())
            await until_somebody_waits(dsn)
            serving.process.send_signal(signal.SIGHUP)
            await until_nobody_listens(serving.address)
            open_still = not call.done()
        made = await call
        async with asyncio.timeout(DEADLINE):
            status = await serving.process.wait()

    assert open_still
    assert made.secret
    assert status == 0


async def test_a_server_that_was_started_to_outlive_its_terminal_does(dsn: str) -> None:
    secret = await root_secret_of(dsn)
    settings = {"LATCHKEY_DATABASE_URL": dsn, "LATCHKEY_PEPPERS": PEPPERS, "LATCHKEY_STOP_DELAY": LONG}
    async with (
        server_process(program=UNDER_NOHUP, **settings) as serving,
        grpc.aio.insecure_channel(serving.address, interceptors=[Bearer(secret)]) as channel,
    ):
        serving.process.send_signal(signal.SIGHUP)
        # Had that one counted, this would be the second, which ends the delay.
        serving.process.terminate()
        await until_not_serving(channel)
        made = await Client(channel, secret).create_key()
        status = await serving.stop()

    assert made.secret
    assert status == 0
