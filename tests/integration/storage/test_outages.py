"""Why the database can't be reached is told: by kind, SQLSTATE and a hint, never by a text that may hold a secret."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest

from latchkey_server.storage.database import Connection, Database, open_database
from latchkey_server.storage.embedded.data_directory import DataDirectory
from latchkey_server.storage.embedded.server import EmbeddedServer
from latchkey_server.storage.outages import Cause, Unreachable
from tests.support.postgres import until_answered

WRONG = "a-wrong-password"
UNSUPPORTED = b"SFATAL\0C08P01\0Munsupported startup parameter: statement_timeout of a-wrong-password\0\0"


async def cause_of_no_connection(dsn: str, timeout: float = 30.0) -> Cause:
    """Return what is told of a database that can't be connected to."""
    async with open_database(dsn, pool_size=1, timeout=timeout) as database:
        with pytest.raises(Unreachable) as raised:
            async with database.connection():
                pass
    return raised.value.cause


@asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[str]:
    """Listen as a PostgreSQL that says this to whoever begins, or nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(8)
            writer.write(answer)
            await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"postgresql://latchkey:{WRONG}@127.0.0.1:{server.sockets[0].getsockname()[1]}/latchkey?sslmode=disable"


async def test_a_wrong_password_is_told_as_one(postgres: EmbeddedServer, data_dir: Path) -> None:
    connection = await asyncpg.connect(postgres.dsn())
    await connection.execute("DROP ROLE IF EXISTS guarded; CREATE ROLE guarded LOGIN PASSWORD 'right'")
    rules = DataDirectory(data_dir).cluster / "pg_hba.conf"
    rules.write_text(f"local all guarded scram-sha-256\n{rules.read_text()}")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.close()
    await until_answered(postgres.dsn(), "SELECT EXISTS (SELECT FROM pg_hba_file_rules WHERE user_name = '{guarded}')")

    cause = await cause_of_no_connection(postgres.dsn().replace("postgres@", f"guarded:{WRONG}@"))

    assert (cause.kind, cause.sqlstate) == ("InvalidPasswordError", "28P01")
    assert "password" in cause.hint
    assert WRONG not in str(cause)


async def test_an_unknown_database_is_told_as_one(postgres: EmbeddedServer) -> None:
    cause = await cause_of_no_connection(postgres.dsn("nowhere"))

    assert (cause.kind, cause.sqlstate) == ("InvalidCatalogNameError", "3D000")
    assert "LATCHKEY_DATABASE_URL" in cause.hint


async def test_a_port_that_nobody_listens_on_is_told_as_one() -> None:
    cause = await cause_of_no_connection(f"postgresql://postgres:{WRONG}@127.0.0.1:1/nowhere")

    assert (cause.kind, cause.sqlstate) == ("ConnectionRefusedError", None)
    assert "host and port" in cause.hint
    assert WRONG not in str(cause)


async def test_a_right_that_was_revoked_is_told_too(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("DROP ROLE IF EXISTS bereft; CREATE ROLE bereft LOGIN")
    await connection.execute("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM public")
    await connection.close()

    cause = await cause_of_no_connection(dsn.replace("postgres@", "bereft@"))

    assert (cause.kind, cause.sqlstate) == ("InsufficientPrivilegeError", "42501")
    assert "pg_control_system()" in cause.hint


async def test_a_role_that_may_not_connect_is_told_so(dsn: str) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("DROP ROLE IF EXISTS unwelcome; CREATE ROLE unwelcome LOGIN")
    await connection.execute(
        f"REVOKE CONNECT ON DATABASE {await connection.fetchval('SELECT current_database()')} FROM public"
    )
    await connection.close()

    cause = await cause_of_no_connection(dsn.replace("postgres@", "unwelcome@"))

    assert (cause.kind, cause.sqlstate) == ("InsufficientPrivilegeError", "42501")
    assert "CONNECT" in cause.hint


async def test_a_server_that_says_nothing_is_told_as_one() -> None:
    async with answering(b"") as dsn:
        cause = await cause_of_no_connection(dsn, timeout=0.1)

    assert (cause.kind, cause.sqlstate) == ("TimeoutError", None)
    assert "LATCHKEY_DATABASE_TIMEOUT" in cause.hint


async def test_a_pooler_that_takes_no_settings_is_told_with_the_setting_for_it() -> None:
    async with answering(b"E" + (len(UNSUPPORTED) + 4).to_bytes(4, "big") + UNSUPPORTED) as dsn:
        cause = await cause_of_no_connection(dsn)

    assert (cause.kind, cause.sqlstate) == ("ProtocolViolationError", "08P01")
    assert "LATCHKEY_STATEMENT_CACHE_SIZE=0" in cause.hint
    assert WRONG not in str(cause)


async def test_a_prepared_statement_that_another_session_lacks_is_told_as_a_pooler_too(dsn: str) -> None:
    async with open_database(dsn, pool_size=1, timeout=30) as database:
        with pytest.raises(Unreachable) as raised:
            await forget_statements(database)
        assert await answers(database)

    assert raised.value.cause.sqlstate == "26000"
    assert "LATCHKEY_STATEMENT_CACHE_SIZE=0" in raised.value.cause.hint


async def forget_statements(database: Database) -> None:
    """Use a connection whose statements another one has, as a transaction pooler would make it."""
    async with database.connection() as connection:
        await connection.fetchval("SELECT 1")
        await connection.execute("DEALLOCATE ALL")
        await connection.fetchval("SELECT 1")


async def answers(database: Database) -> bool:
    async with database.connection() as connection:
        return bool(await connection.fetchval("SELECT true"))


async def test_a_wrong_call_is_an_unexpected_error_and_no_outage(dsn: str) -> None:
    async with open_database(dsn, pool_size=1, timeout=30) as database:
        with pytest.raises(asyncpg.InterfaceError):
            async with database.connection() as connection:
                await connection.fetchval("SELECT $1::int + $2::int", 1)
        with pytest.raises(asyncpg.InterfaceError):
            async with database.transaction() as connection:
                await connection.fetchval("SELECT $1::int + $2::int", 1)
        assert await answers(database)


async def test_a_connection_that_is_closed_under_its_user_is_an_outage(dsn: str) -> None:
    async with open_database(dsn, pool_size=1, timeout=30) as database:
        for lend in (database.connection, database.transaction):
            with pytest.raises(Unreachable):
                await lose(lend())
        assert await answers(database)


async def lose(lent: AbstractAsyncContextManager[Connection]) -> None:
    """Go on with a connection that is gone."""
    async with lent as connection:
        connection.terminate()
        await connection.fetchval("SELECT 1")


async def test_a_pool_that_is_closed_is_an_outage(dsn: str) -> None:
    async with open_database(dsn, pool_size=1, timeout=30) as database:
        assert await answers(database)
    with pytest.raises(Unreachable):
        await answers(database)
