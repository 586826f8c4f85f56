"""The commands of `latchkey-server`, as real processes."""

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed

from latchkey.v1 import key_pb2, verification_pb2
from latchkey_server.storage.embedded.data_directory import temporary_data_dir
from latchkey_server.storage.embedded.server import EmbeddedServer
from tests.support.process import run, server_process
from tests.support.service import PEPPERS, Bearer, Client, rejection


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_data_dir() as path:
        yield path


async def health_of(address: str, service: str) -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        return int((await check(health_pb2.HealthCheckRequest(service=service))).status)


async def until_health(address: str, status: int) -> None:
    async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.05), reraise=True):
        with attempt:
            assert await health_of(address, "latchkey.v1.VerifyService") == status


async def empty_database(postgres: EmbeddedServer, name: str) -> str:
    connection = await asyncpg.connect(postgres.dsn())
    await connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return postgres.dsn(name)


async def test_config_prints_every_setting_with_secrets_masked() -> None:
    shown = await run("config", LATCHKEY_PEPPERS=PEPPERS, LATCHKEY_POOL_SIZE="7")

    assert shown.status == 0
    assert "LATCHKEY_POOL_SIZE=7" in shown.out
    assert "LATCHKEY_PEPPERS=********" in shown.out
    assert PEPPERS not in shown.out


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("LATCHKEY_POOLSIZE", "7", "unknown setting LATCHKEY_POOLSIZE"),
        ("LATCHKEY_POOL_SIZE", "many", "LATCHKEY_POOL_SIZE: "),
        ("LATCHKEY_LISTEN", "here", "LATCHKEY_LISTEN: "),
        ("LATCHKEY_METRICS_LISTEN", "127.0.0.1:65536", "LATCHKEY_METRICS_LISTEN: the port must be at most 65535"),
        ("LATCHKEY_PEPPERS", "p1:short", "LATCHKEY_PEPPERS: "),
        ("LATCHKEY_DATABASE_URL", "postgres://u:hidden@h/d", "LATCHKEY_PEPPERS is required"),
        ("LATCHKEY_DATABASE_URL", "http://u:hidden@h/d", "LATCHKEY_DATABASE_URL: must be postgres://"),
        ("LATCHKEY_DATABASE_URL", "postgres://u:hidden@h/d?foo", "LATCHKEY_DATABASE_URL: must be postgres://"),
    ],
)
async def test_a_wrong_setting_stops_the_start_with_one_clear_line(name: str, value: str, told: str) -> None:
    ended = await run("serve", **{name: value})

    assert ended.status == 1
    assert len(ended.err.splitlines()) == 1
    assert told in ended.err
    assert "hidden" not in ended.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_the_server_gracefully_with_status_0(folder: Path, number: signal.Signals) -> None:
    async with server_process(LATCHKEY_DATA_DIR=str(folder)) as serving:
        status = await serving.stop(number)

    assert status == 0


async def test_the_first_owner_is_shown_once_and_a_restart_has_all_data(folder: Path) -> None:
    async with server_process(LATCHKEY_DATA_DIR=str(folder)) as first:
        secret = first.secret or ""
        async with grpc.aio.insecure_channel(first.address, interceptors=[Bearer(secret)]) as channel:
            made = await Client(channel).create_key(key_pb2.Key(environment="prod"))
        await first.stop()
    async with (
        server_process(LATCHKEY_DATA_DIR=str(folder)) as second,
        grpc.aio.insecure_channel(second.address, interceptors=[Bearer(secret)]) as channel,
    ):
        answer = await Client(channel).verify(made.secret)

    assert secret
    assert second.secret is None
    assert (answer.code, answer.key.environment) == (verification_pb2.VERIFY_CODE_VALID, "prod")


async def test_kill_9_leaves_no_postgres_process_and_loses_nothing(folder: Path) -> None:
    async with server_process(LATCHKEY_DATA_DIR=str(folder)) as first:
        secret = first.secret or ""
        descendants = psutil.Process(first.process.pid).children(recursive=True)
        async with grpc.aio.insecure_channel(first.address, interceptors=[Bearer(secret)]) as channel:
            made = await Client(channel).create_key()
        await first.stop(signal.SIGKILL)
    gone, alive = await asyncio.to_thread(psutil.wait_procs, descendants, 30)
    async with (
        server_process(LATCHKEY_DATA_DIR=str(folder)) as second,
        grpc.aio.insecure_channel(second.address, interceptors=[Bearer(secret)]) as channel,
    ):
        answer = await Client(channel).verify(made.secret)

    assert len(gone) > 3
    assert alive == []
    assert answer.valid


async def test_two_servers_on_one_address_or_data_directory_get_a_clear_line(folder: Path) -> None:
    async with server_process(LATCHKEY_DATA_DIR=str(folder / "a")) as first:
        port = await run("serve", LATCHKEY_DATA_DIR=str(folder / "b"), LATCHKEY_LISTEN=first.address)
        data = await run("serve", LATCHKEY_DATA_DIR=str(folder / "a"), LATCHKEY_LISTEN="127.0.0.1:0")

    assert (port.status, data.status) == (1, 1)
    assert f"can't listen on {first.address}" in port.err.splitlines()[-1]
    assert len(data.err.splitlines()) == 1
    assert str(first.process.pid) in data.err


async def test_a_server_before_its_schema_says_so_and_serves_once_it_is_migrated(postgres: EmbeddedServer) -> None:
    settings = {"LATCHKEY_DATABASE_URL": await empty_database(postgres, "behind"), "LATCHKEY_PEPPERS": PEPPERS}
    async with server_process("not serving", **settings) as early:
        reason = early.log[-1]["reason"]
        assert await health_of(early.address, "") == health_pb2.HealthCheckResponse.NOT_SERVING
        async with grpc.aio.insecure_channel(early.address, interceptors=[Bearer("lkm_x")]) as channel:
            failed = await rejection(Client(channel).create_key())
        migrated = await run("migrate", **settings)
        await until_health(early.address, health_pb2.HealthCheckResponse.SERVING)

    assert "schema is behind" in reason
    assert "latchkey-server migrate" in reason
    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "SERVER_NOT_READY")
    assert migrated.status == 0


async def test_bootstrap_prints_the_first_owner_of_a_real_database_once(postgres: EmbeddedServer) -> None:
    settings = {"LATCHKEY_DATABASE_URL": await empty_database(postgres, "real"), "LATCHKEY_PEPPERS": PEPPERS}
    early = await run("bootstrap", **settings)
    await run("migrate", **settings)
    first, second = await run("bootstrap", **settings), await run("bootstrap", **settings)

    assert (early.status, first.status, second.status) == (1, 0, 1)
    assert "latchkey-server migrate" in early.err
    assert first.out.startswith("lkm_")
    assert "already" in second.err
    async with (
        server_process(**settings) as serving,
        grpc.aio.insecure_channel(serving.address, interceptors=[Bearer(first.out.strip())]) as channel,
    ):
        made = await Client(channel).create_key()
    assert made.secret


async def test_a_server_that_lacks_a_pepper_in_use_says_which(postgres: EmbeddedServer) -> None:
    settings = {"LATCHKEY_DATABASE_URL": await empty_database(postgres, "peppered"), "LATCHKEY_PEPPERS": PEPPERS}
    await run("migrate", **settings)
    await run("bootstrap", **settings)
    other = "fresh:" + "bm90IHRoZSBzYW1lIHBlcHBlciBhdCBhbGw="

    async with server_process("not serving", **{**settings, "LATCHKEY_PEPPERS": other}) as lacking:
        reason = lacking.log[-1]["reason"]
        status = await health_of(lacking.address, "")

    async with server_process(**settings) as knowing:
        assert await health_of(knowing.address, "") == health_pb2.HealthCheckResponse.SERVING

    assert "'test'" in reason
    assert status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_a_first_start_that_fails_does_not_use_up_the_first_owners_secret(folder: Path) -> None:
    async with server_process(LATCHKEY_DATA_DIR=str(folder / "a")) as other:
        failed = await run("serve", LATCHKEY_DATA_DIR=str(folder / "b"), LATCHKEY_LISTEN=other.address)
    async with server_process(LATCHKEY_DATA_DIR=str(folder / "b")) as second:
        secret = second.secret

    assert failed.status == 1
    assert secret is not None


async def test_a_server_whose_embedded_database_died_ends_with_an_error(folder: Path) -> None:
    async with server_process(LATCHKEY_DATA_DIR=str(folder)) as serving:
        postmaster = int((folder / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        psutil.Process(postmaster).send_signal(signal.SIGQUIT)
        async with asyncio.timeout(60):
            status = await serving.process.wait()

    assert status == 1


async def test_a_database_that_does_not_exist_is_told_and_waited_for(postgres: EmbeddedServer) -> None:
    settings = {"LATCHKEY_DATABASE_URL": postgres.dsn("no_such_database"), "LATCHKEY_PEPPERS": PEPPERS}

    async with server_process("not serving", **settings) as waiting:
        reason = waiting.log[-1]["reason"]

        causes = [line for line in waiting.log if line["event"] == "the database is not reachable"]
        if not causes:
            causes.append(await waiting.until_logged("the database is not reachable"))

    assert "not reachable" in reason
    assert (causes[0]["sqlstate"], "LATCHKEY_DATABASE_URL" in causes[0]["hint"]) == ("3D000", True)


async def test_a_command_without_its_database_says_why_and_never_the_password() -> None:
    url = "postgresql://latchkey:a-password@127.0.0.1:1/latchkey"
    failed = await run("migrate", LATCHKEY_DATABASE_URL=url, LATCHKEY_PEPPERS=PEPPERS)

    assert failed.status == 1
    assert "ConnectionRefusedError: nobody listens at the host and port of LATCHKEY_DATABASE_URL" in failed.err
    assert "a-password" not in failed.err
