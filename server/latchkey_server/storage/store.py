"""The Store: runs the domain's work in transactions on a pooled connection."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.storage.database import CONFLICTS, Connection, Database
from latchkey_server.storage.keys.keys import PostgresKeys
from latchkey_server.storage.keys.secrets import PostgresSecrets
from latchkey_server.storage.outcomes.repository import PostgresVerifications
from latchkey_server.storage.requests import PostgresRequests
from latchkey_server.storage.tenants.apis import PostgresApis
from latchkey_server.storage.tenants.audit import PostgresAudit
from latchkey_server.storage.tenants.identities import PostgresIdentities
from latchkey_server.storage.tenants.management_keys import PostgresManagementKeys
from latchkey_server.storage.tenants.workspaces import PostgresWorkspaces
from latchkey_server.storage.usage.repository import PostgresUsage

T = TypeVar("T")

ATTEMPTS = 10


class PostgresTransaction:
    """Every repository on one connection inside one transaction."""

    def __init__(self, connection: Connection) -> None:
        self.workspaces = PostgresWorkspaces(connection)
        self.apis = PostgresApis(connection)
        self.identities = PostgresIdentities(connection)
        self.keys = PostgresKeys(connection)
        self.secrets = PostgresSecrets(connection)
        self.management_keys = PostgresManagementKeys(connection)
        self.audit = PostgresAudit(connection)
        self.requests = PostgresRequests(connection)
        self.usage = PostgresUsage(connection)
        self.verifications = PostgresVerifications(connection)


class PostgresStore:
    """Runs work in transactions; what conflicts is run again from the start."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, work: Callable[[PostgresTransaction], Awaitable[T]]) -> T:
        """Run ``work`` in one read-committed transaction; raises DatabaseUnavailable."""
        for _ in range(ATTEMPTS):
            try:
                async with self._database.transaction() as connection:
                    return await work(PostgresTransaction(connection))
            except CONFLICTS:
                continue
            except asyncpg.CheckViolationError as error:
                # A row was on its way to the default partition while its own was attached; a table's check has a name.
                if error.constraint_name is not None:
                    raise
        raise DatabaseUnavailable

    async def read(self, work: Callable[[PostgresTransaction], Awaitable[T]]) -> T:
        """Run ``work`` in one snapshot that can't write; raises DatabaseUnavailable."""
        async with self._database.transaction(snapshot=True) as connection:
            return await work(PostgresTransaction(connection))
