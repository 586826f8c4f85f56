"""`latchkey usage import` through a server's death and a user's Ctrl-C: nothing lost, nothing counted twice."""

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import psutil
import pytest
from tenacity import AsyncRetrying, retry_if_result, stop_after_delay, wait_fixed

from latchkey.v1 import key_pb2, usage_pb2, usage_service_pb2
from latchkey_server.storage.embedded.data_directory import temporary_data_dir
from tests.support.cli import ended, latchkey, started
from tests.support.process import DEADLINE, Serving, server_process
from tests.support.service import Bearer, Client

LINES = 20_000
NOW = datetime.now(UTC)


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_data_dir() as path:
        yield path


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def write_file(file: Path, key_id: str) -> int:
    """Write a file whose lines repeat each other in part, and return the nano-dollars that they add up to."""
    nanos = [1_000_000 + at % 1_000 for at in range(LINES)]
    with file.open("w") as out:
        out.write("key_id,occurred_time,cost\n")
        for each in nanos:
            out.write(f"{key_id},{NOW.isoformat()},0.{each:09}\n")
    return sum(nanos)


async def totals(client: Client) -> usage_pb2.UsageMeasures:
    midnight = NOW.replace(hour=0, minute=0, second=0, microsecond=0)
    request = usage_service_pb2.QueryUsageRequest()
    request.start_time.FromDatetime(midnight)
    request.end_time.FromDatetime(midnight + timedelta(days=1))
    return (await client.usage.QueryUsage(request)).totals


async def until_some_are_recorded(client: Client) -> None:
    async def requests() -> int:
        return (await totals(client)).requests

    retrying = AsyncRetrying(
        retry=retry_if_result(lambda count: count == 0), stop=stop_after_delay(DEADLINE), wait=wait_fixed(0.01)
    )
    assert await retrying(requests) < LINES


async def client_of(stack: AsyncExitStack, server: Serving, secret: str) -> Client:
    channel = grpc.aio.insecure_channel(server.address, interceptors=[Bearer(secret)])
    return Client(await stack.enter_async_context(channel), secret)


async def kill(server: Serving) -> None:
    """Kill a server and wait until its PostgreSQL has gone with it."""
    descendants = psutil.Process(server.process.pid).children(recursive=True)
    await server.stop(signal.SIGKILL)
    _, alive = await asyncio.to_thread(psutil.wait_procs, descendants, DEADLINE)
    assert alive == []


async def test_a_server_that_is_killed_in_the_middle_of_an_import_only_delays_it(folder: Path, tmp_path: Path) -> None:
    file, address = tmp_path / "usage.csv", free_address()
    settings = {"LATCHKEY_DATA_DIR": str(folder), "LATCHKEY_LISTEN": address}
    async with AsyncExitStack() as stack:
        async with server_process(**settings) as server:
            secret = server.secret or ""
            client = await client_of(stack, server, secret)
            expected = write_file(file, (await client.create_key(key_pb2.Key(environment="staging"))).key.key_id)
            importing = await started(address, secret, "usage", "import", str(file))
            await until_some_are_recorded(client)
            assert importing.returncode is None
            await kill(server)
        async with server_process(**settings) as server:
            first = await ended(importing)
            after_first = await totals(client)
            second = await latchkey(address, secret, "usage", "import", str(file))
            after_second = await totals(client)

    assert first.status == 0
    assert "The server does not answer (UNAVAILABLE); trying again for 60 s.\n" in first.err
    assert first.out.startswith("20,000 lines: ")
    assert first.out.endswith(" 0 conflict, 0 rejected\n")
    assert (second.status, second.out) == (0, "20,000 lines: 0 new, 20,000 duplicate, 0 conflict, 0 rejected\n")
    for measures in (after_first, after_second):
        assert measures.requests == LINES
        assert measures.spend.units * 1_000_000_000 + measures.spend.nanos == expected


async def test_an_import_ended_by_ctrl_c_says_how_to_go_on_and_counts_once_in_the_end(
    folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "usage.csv"
    async with server_process(LATCHKEY_DATA_DIR=str(folder)) as server, AsyncExitStack() as stack:
        secret = server.secret or ""
        client = await client_of(stack, server, secret)
        expected = write_file(file, (await client.create_key(key_pb2.Key(environment="staging"))).key.key_id)
        importing = await started(server.address, secret, "usage", "import", str(file))
        await until_some_are_recorded(client)
        importing.send_signal(signal.SIGINT)
        interrupted = await ended(importing)
        resumed = await latchkey(server.address, secret, "usage", "import", str(file))
        measures = await totals(client)

    assert interrupted.status == 130
    assert interrupted.err.endswith(
        "Interrupted. Run the same command again to go on: what was recorded is a duplicate then, and counts once.\n"
    )
    assert resumed.status == 0
    assert measures.requests == LINES
    assert measures.spend.units * 1_000_000_000 + measures.spend.nanos == expected


async def test_an_import_gives_up_on_a_server_that_stays_away_and_says_how_to_go_on(tmp_path: Path) -> None:
    file = tmp_path / "usage.csv"
    write_file(file, "key_00000000000000000000000000")

    answer = await latchkey(free_address(), "lkm_x", "usage", "import", str(file), "--patience", "0.2")

    assert answer.status == 1
    assert answer.out == "0 lines: 0 new, 0 duplicate, 0 conflict, 0 rejected\n"
    assert "Error: UNAVAILABLE: no Latchkey answers at " in answer.err
    assert answer.err.endswith("what was recorded is a duplicate then, and counts once.\n")
