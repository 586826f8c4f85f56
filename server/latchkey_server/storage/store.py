"""The Store: runs the domain's work in transactions on a pooled connection."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.storage.apis import ApiRepository
from latchkey_server.storage.audit import AuditRepository
from latchkey_server.storage.database import CONFLICTS, Connection, Database
from latchkey_server.storage.identities import IdentityRepository
from latchkey_server.storage.keys import KeyRepository
from latchkey_server.storage.management_keys import ManagementKeyRepository
from latchkey_server.storage.requests import RequestRepository
from latchkey_server.storage.secrets import SecretRepository
from latchkey_server.storage.usage import UsageRepository
from latchkey_server.storage.verification_reports import VerificationReportRepository
from latchkey_server.storage.workspaces import WorkspaceRepository

T = TypeVar("T")

ATTEMPTS = 10


class PostgresTransaction:
    """Every repository on one connection inside one transaction."""

    def __init__(self, connection: Connection) -> None:
        self.workspaces = WorkspaceRepository(connection)
        self.apis = ApiRepository(connection)
        self.identities = IdentityRepository(connection)
        self.keys = KeyRepository(connection)
        self.secrets = SecretRepository(connection)
        self.management_keys = ManagementKeyRepository(connection)
        self.audit = AuditRepository(connection)
        self.requests = RequestRepository(connection)
        self.usage = UsageRepository(connection)
        self.verifications = VerificationReportRepository(connection)


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
        raise DatabaseUnavailable

    async def read(self, work: Callable[[PostgresTransaction], Awaitable[T]]) -> T:
        """Run ``work`` in one snapshot that can't write; raises DatabaseUnavailable."""
        async with self._database.transaction(snapshot=True) as connection:
            return await work(PostgresTransaction(connection))
