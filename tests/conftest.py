"""One PostgreSQL a test process, one fresh database a test, copied from a migrated template."""

import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from latchkey_server.opening import utc_now
from latchkey_server.storage.database import open_database
from latchkey_server.storage.embedded.data_directory import temporary_data_dir
from latchkey_server.storage.embedded.server import EmbeddedServer, embedded_postgres
from latchkey_server.storage.schema.migrate import migrate
from latchkey_server.storage.usage.partitions import ensure_partitions
from tests.support.service import Client, Service, serving, settings_for

TEMPLATE = "latchkey_template"
# What a crash of the machine would lose is nothing that a test keeps.
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let CI demand that every test runs."""
    parser.addoption("--no-skips", action="store_true", help="fail when a test was skipped")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run that demanded every test and skipped one; the process that reports them knows."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--no-skips") and reporter is not None and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def data_dir() -> Iterator[Path]:
    """A folder that PostgreSQL's user can reach, whoever runs the tests."""
    with temporary_data_dir() as folder:
        yield folder


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def postgres(data_dir: Path) -> AsyncIterator[EmbeddedServer]:
    """A PostgreSQL for this test process, with a migrated template."""
    async with embedded_postgres(data_dir, settings=_FAST) as server:
        connection = await asyncpg.connect(server.dsn())
        await connection.execute(f"CREATE DATABASE {TEMPLATE}")
        await connection.close()
        dsn = server.dsn(TEMPLATE)
        async with open_database(dsn, pool_size=1, timeout=30) as database:
            await migrate(database)
            async with database.connection() as upkeep:
                await ensure_partitions(upkeep, utc_now(), settings_for(dsn).usage_accepted)
        yield server


@pytest_asyncio.fixture
async def dsn(postgres: EmbeddedServer) -> AsyncIterator[str]:
    """A fresh, migrated database of this test's own."""
    name = f"test_{secrets.token_hex(6)}"
    connection = await asyncpg.connect(postgres.dsn())
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY file_copy")
    yield postgres.dsn(name)
    await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await connection.close()


@pytest_asyncio.fixture
async def service(dsn: str) -> AsyncIterator[Service]:
    """A server on that database."""
    async with serving(dsn) as running:
        yield running


@pytest_asyncio.fixture
async def root(service: Service) -> Client:
    """A client of the root OWNER."""
    return await service.client(service.root_secret)


@pytest_asyncio.fixture
async def owner(service: Service) -> Client:
    """A client of the first OWNER of an ordinary workspace."""
    return await service.workspace()
