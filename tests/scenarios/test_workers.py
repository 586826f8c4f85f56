"""`latchkey-server serve --workers 2` as real processes: one port, one end, and nobody ends another."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import grpc
import psutil
import pytest
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed

from latchkey.v1 import key_pb2, key_service_pb2, verification_pb2
from latchkey_server.app import DATABASE_ENDED, build_workspaces
from latchkey_server.opening import open_storage, utc_now
from latchkey_server.storage.embedded.data_directory import temporary_data_dir
from tests.support.process import DEADLINE, Serving, run, server_process, until_nobody_listens
from tests.support.service import PEPPERS, Bearer, Client, settings_for

VALID, REVOKED = verification_pb2.VERIFY_CODE_VALID, verification_pb2.VERIFY_CODE_REVOKED
COMPROMISED = key_pb2.REVOKE_REASON_COMPROMISED
# Otherwise channels to one address share their connection.
OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)
CONNECTIONS_MAX = 100


def soon() -> AsyncRetrying:
    return AsyncRetrying(stop=stop_after_delay(DEADLINE), wait=wait_fixed(0.02), reraise=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_data_dir() as path:
        yield path


def settings_of(dsn: str) -> dict[str, str]:
    return {"LATCHKEY_DATABASE_URL": dsn, "LATCHKEY_PEPPERS": PEPPERS, "LATCHKEY_WORKERS": "2"}


async def owner_of(dsn: str) -> str:
    async with open_storage(settings_for(dsn)) as storage:
        return await build_workspaces(storage, utc_now).bootstrap() or ""


def workers_of(serving: Serving) -> list[psutil.Process]:
    children = psutil.Process(serving.process.pid).children()
    return [child for child in children if child.cmdline()[-1:] == ["worker"]]


@asynccontextmanager
async def client_of_each(serving: Serving, secret: str) -> AsyncIterator[dict[int, Client]]:
    """Connect until every worker has a connection, and give each worker's client by its pid."""
    workers, found = workers_of(serving), dict[int, Client]()
    async with AsyncExitStack() as stack:
        for _ in range(CONNECTIONS_MAX):
            before = {worker.pid: connections(worker) for worker in workers}
            channel = grpc.aio.insecure_channel(serving.address, OWN_CONNECTION, interceptors=[Bearer(secret)])
            client = Client(await stack.enter_async_context(channel))
            await client.keys.ListKeys(key_service_pb2.ListKeysRequest())
            (reached,) = [worker.pid for worker in workers if connections(worker) - before[worker.pid]]
            found.setdefault(reached, client)
            if len(found) == len(workers):
                break
        yield found


def connections(worker: psutil.Process) -> set[int]:
    return {
        connection.raddr.port
        for connection in worker.net_connections("tcp")
        if connection.status == psutil.CONN_ESTABLISHED and connection.raddr
    }


async def test_two_workers_share_one_port_and_both_refuse_a_revoked_key(dsn: str) -> None:
    secret = await owner_of(dsn)
    async with server_process(**settings_of(dsn)) as serving, client_of_each(serving, secret) as clients:
        one, other = clients.values()
        made = await one.create_key()
        before = [(await client.verify(made.secret)).code for client in (one, other)]
        await one.keys.RevokeKey(key_service_pb2.RevokeKeyRequest(key_id=made.key.key_id, reason=COMPROMISED))
        at_once = (await one.verify(made.secret)).code
        async for attempt in soon():
            with attempt:
                assert (await other.verify(made.secret)).code == REVOKED
        command_lines = [word for worker in workers_of(serving) for word in worker.cmdline()]
        environments = [worker.environ() for worker in workers_of(serving)]

    assert before == [VALID, VALID]
    assert at_once == REVOKED
    assert not any("postgres" in word or PEPPERS in word for word in command_lines)
    assert not any(name.startswith("LATCHKEY_") for names in environments for name in names)


async def test_a_killed_worker_comes_back_and_the_calls_of_the_other_go_on(dsn: str) -> None:
    secret = await owner_of(dsn)
    async with server_process(**settings_of(dsn)) as serving, client_of_each(serving, secret) as clients:
        (victim, _), (survivor, client) = clients.items()
        made, codes, restarted = [await client.create_key()], list[int](), asyncio.Event()

        async def load() -> None:
            while not restarted.is_set():
                made.append(await client.create_key())
                codes.append((await client.verify(made[-1].secret)).code)

        loading = [asyncio.create_task(load()) for _ in range(4)]
        psutil.Process(victim).kill()
        revoked = made[0]
        await client.keys.RevokeKey(key_service_pb2.RevokeKeyRequest(key_id=revoked.key.key_id, reason=COMPROMISED))
        ended = await serving.until_logged("worker ended")
        back = await serving.until_logged("worker serves")
        restarted.set()
        await asyncio.gather(*loading)
        async with client_of_each(serving, secret) as again:
            told = {pid: (await each.verify(made[-1].secret)).code for pid, each in again.items()}
            refused = {(await each.verify(revoked.secret)).code for each in again.values()}
            listed = await again[survivor].keys.ListKeys(key_service_pb2.ListKeysRequest(page_size=1000))

    assert (ended["pid"], ended["how"], ended["worker"]) == (victim, "ended by SIGKILL", back["worker"])
    assert set(codes) == {VALID}
    assert told == {survivor: VALID, back["pid"]: VALID}
    assert refused == {REVOKED}
    assert {key.key_id for key in listed.keys} >= {answer.key.key_id for answer in made[-500:]}


async def until_statements_wait(connection: "asyncpg.Connection[asyncpg.Record]", number: int) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async for attempt in soon():
        with attempt:
            assert await connection.fetchval(waiting) == number


async def test_signals_drain_every_worker_and_end_with_status_0(dsn: str) -> None:
    secret = await owner_of(dsn)
    blocker = await asyncpg.connect(dsn)
    async with server_process(**settings_of(dsn)) as serving, client_of_each(serving, secret) as clients:
        async with blocker.transaction():
            # Readers pass, so that only what the open calls do waits.
            await blocker.execute("SELECT 1 FROM workspace_revision FOR UPDATE")
            open_calls = [asyncio.create_task(client.create_key()) for client in clients.values()]
            await until_statements_wait(blocker, len(open_calls))
            serving.process.terminate()
            await until_nobody_listens(serving.address)
            serving.process.terminate()
            serving.process.send_signal(signal.SIGINT)
            still_open = not any(call.done() for call in open_calls)
        made = await asyncio.gather(*open_calls)
        async with asyncio.timeout(DEADLINE):
            status = await serving.process.wait()
    await blocker.close()

    assert still_open
    assert all(answer.secret for answer in made)
    assert status == 0


async def test_kill_9_of_the_parent_leaves_no_worker_and_no_postgres(folder: Path) -> None:
    async with server_process(LATCHKEY_DATA_DIR=str(folder), LATCHKEY_WORKERS="2") as serving:
        workers, descendants = workers_of(serving), psutil.Process(serving.process.pid).children(recursive=True)
        async with client_of_each(serving, serving.secret or "") as clients:
            made = [await client.create_key() for client in clients.values()]
        await serving.stop(signal.SIGKILL)
        _, alive = await asyncio.to_thread(psutil.wait_procs, descendants, 30)

    assert (len(workers), len(made)) == (2, 2)
    assert alive == []


async def test_workers_whose_embedded_database_died_end_with_an_error(folder: Path) -> None:
    async with server_process(LATCHKEY_DATA_DIR=str(folder), LATCHKEY_WORKERS="2") as serving:
        descendants = psutil.Process(serving.process.pid).children(recursive=True)
        postmaster = int((folder / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        psutil.Process(postmaster).send_signal(signal.SIGQUIT)
        async with asyncio.timeout(DEADLINE):
            _, err = await serving.process.communicate()
        _, alive = await asyncio.to_thread(psutil.wait_procs, descendants, 30)

    assert serving.process.returncode == 1
    assert json.loads(err.decode().splitlines()[-1])["reason"] == DATABASE_ENDED
    assert alive == []


async def test_a_port_that_is_taken_is_told_in_one_line(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        ended = await run("serve", "--workers", "2", LATCHKEY_DATA_DIR=str(folder), LATCHKEY_LISTEN=address)

    assert ended.status == 1
    assert ended.err.splitlines() == [
        f"latchkey-server: can't listen on {address}: is another server there? LATCHKEY_LISTEN chooses another address"
    ]


async def test_workers_that_cannot_start_end_the_start_with_one_line(dsn: str, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pem"
    wrong.write_text("no certificate")
    tls = {"LATCHKEY_TLS_CERTIFICATE": str(wrong), "LATCHKEY_TLS_PRIVATE_KEY": str(wrong)}
    ended = await run("serve", LATCHKEY_LISTEN="127.0.0.1:0", **settings_of(dsn), **tls)

    assert ended.status == 1
    assert len(ended.err.splitlines()) == 1
    assert str(wrong) in ended.err


@pytest.mark.parametrize("number", ["0", "many"])
async def test_a_number_of_workers_that_is_none_is_refused_in_one_line(number: str) -> None:
    ended = await run("serve", "--workers", number, LATCHKEY_WORKERS="2")

    assert ended.status == 1
    assert len(ended.err.splitlines()) == 1
    assert "LATCHKEY_WORKERS: " in ended.err


async def test_one_worker_is_one_process(dsn: str) -> None:
    async with server_process(**{**settings_of(dsn), "LATCHKEY_WORKERS": "1"}) as serving:
        children = psutil.Process(serving.process.pid).children(recursive=True)

    assert children == []
    assert all("worker" not in entry for entry in serving.log)
