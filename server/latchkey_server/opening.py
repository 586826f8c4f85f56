"""What every command opens: the database, embedded or not, its pools, and the peppers."""

import base64
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

from latchkey_server.domain.secret import Peppers
from latchkey_server.domain.store import Clock
from latchkey_server.settings import Settings, read_peppers
from latchkey_server.storage.database import Database, open_database
from latchkey_server.storage.embedded.private_file import create_private_file
from latchkey_server.storage.embedded.server import EmbeddedServer, embedded_postgres
from latchkey_server.storage.peppers import pepper_trouble
from latchkey_server.storage.schema.migrate import migrate
from latchkey_server.storage.timelines import Timelines
from latchkey_server.storage.upkeep.maintenance import Retention
from latchkey_server.storage.usage.partitions import ensure_partitions

PEPPER_FILE = "peppers"
UPKEEP_POOL_SIZE, UPKEEP_SECONDS = 2, 3600.0
"""Connections for upkeep, migrations and rebuilding, and how long a statement of theirs may take."""

CONNECTIONS_MIN = 100
"""Connections that an embedded PostgreSQL accepts at least."""


class StartError(Exception):
    """One line for the operator: why the server can't start, or can't go on."""


utc_now: Final[Clock] = partial(datetime.now, UTC)
"""Return the time now."""


@dataclass(frozen=True, slots=True)
class Storage:
    """An open database with the peppers that its hashes are made with; ``dsn`` is never shown.

    Look-ups have connections of their own: however busy the others are, a verification finds one. So has upkeep, whose
    statements may take long.
    """

    database: Database
    lookups: Database
    upkeep: Database
    peppers: Peppers
    dsn: str
    embedded: EmbeddedServer | None


@asynccontextmanager
async def open_storage(settings: Settings) -> AsyncIterator[Storage]:
    """Open the database that the settings name, starting the embedded one if they name none."""
    async with AsyncExitStack() as stack:
        embedded = None
        if settings.database_url is None:
            options = {"max_connections": str(max(CONNECTIONS_MIN, _connections(settings)))}
            embedded = await stack.enter_async_context(embedded_postgres(settings.data_dir, settings=options))
            dsn = embedded.dsn()
        else:
            dsn = settings.database_url.get_secret_value()
        pool = partial(
            open_database,
            dsn,
            timeout=settings.database_timeout,
            statement_cache_size=settings.statement_cache_size,
            timelines=Timelines(),
        )
        database = await stack.enter_async_context(
            pool(pool_size=settings.pool_size, statement_timeout=settings.call_timeout)
        )
        lookups = await stack.enter_async_context(pool(pool_size=settings.lookup_pool_size))
        upkeep = await stack.enter_async_context(pool(pool_size=UPKEEP_POOL_SIZE, statement_timeout=UPKEEP_SECONDS))
        yield Storage(database, lookups, upkeep, load_peppers(settings), dsn, embedded)


def _connections(settings: Settings) -> int:
    """Return how many connections all processes of a server may open: pools, one that listens, and the parent's."""
    return (settings.workers + 1) * (settings.pool_size + settings.lookup_pool_size + UPKEEP_POOL_SIZE + 1)


def retention_of(settings: Settings) -> Retention:
    """Return how long usage and verification counts are retained."""

    def days(number: int | None) -> timedelta | None:
        return None if number is None else timedelta(days=number)

    return Retention(
        accepted=settings.usage_accepted,
        events=days(settings.usage_retention_days),
        identities=days(settings.usage_identity_days),
        counts=timedelta(days=settings.verification_retention_days),
    )


def load_peppers(settings: Settings) -> Peppers:
    """Return the peppers of the settings; by default one in a file of the data directory, made at the first start."""
    if settings.peppers is not None:
        current, keys = read_peppers(settings.peppers.get_secret_value())
        return Peppers(keys, current)
    path = settings.data_dir / PEPPER_FILE
    with suppress(FileExistsError):
        create_private_file(path, f"p1:{base64.b64encode(secrets.token_bytes(32)).decode()}\n")
    try:
        current, keys = read_peppers(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        raise StartError(f"{path} can't be read or is not id:base64,…; restore it from a backup") from None
    return Peppers(keys, current)


@asynccontextmanager
async def open_straight(storage: Storage, settings: Settings) -> AsyncIterator[Database]:
    """Open the database past a transaction pooler, if ``listen_dsn`` is set: migrations hold a session's lock."""
    dsn = settings.listen_dsn.get_secret_value() if settings.listen_dsn else storage.dsn
    async with open_database(
        dsn,
        pool_size=UPKEEP_POOL_SIZE,
        timeout=settings.database_timeout,
        statement_timeout=UPKEEP_SECONDS,
        statement_cache_size=settings.statement_cache_size,
        timelines=storage.database.timelines,
    ) as database:
        yield database


async def prepare_embedded(storage: Storage, settings: Settings, clock: Clock) -> None:
    """Bring an embedded database up to date."""
    await migrate(storage.upkeep)
    async with storage.upkeep.connection() as connection:
        await ensure_partitions(connection, clock(), settings.usage_accepted)
        await pepper_trouble(connection, storage.peppers, clock())
