"""What an outage of PostgreSQL looks like through asyncpg, and what is told of its cause.

Never a text of PostgreSQL's or the driver's: it may quote the address, and thereby a password, or what was sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ssl import SSLError
from types import MappingProxyType
from typing import Final

import asyncpg

from latchkey_server.domain.errors import DatabaseUnavailable

OUTAGES: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InsufficientResourcesError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.DuplicatePreparedStatementError,
    asyncpg.InvalidSQLStatementNameError,
)
"""What an unreachable, starting, stopping or failed-over PostgreSQL looks like, or one behind a pooler of sessions."""

DRIVERS: Final = (asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the driver itself raises: for a connection that is gone, and as well for a wrong call."""

NO_CONNECTION: Final = (*OUTAGES, *DRIVERS, asyncpg.PostgresError)
"""What keeps a connection from being made, where nobody has called anything wrongly yet."""

_URL: Final = "LATCHKEY_DATABASE_URL (or LATCHKEY_LISTEN_DSN)"
_POOLER: Final = "behind a transaction pooler set LATCHKEY_STATEMENT_CACHE_SIZE=0"
_HINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "08P01": _POOLER,
        "25006": f"this is a standby, or read-only: {_URL} has to lead to the primary",
        "26000": _POOLER,
        "28000": "PostgreSQL accepts this user from here not at all, or over TLS only: see its pg_hba.conf",
        "28P01": f"the user or the password of {_URL} is wrong",
        "3D000": f"there is no such database: see the name in {_URL}",
        "42501": f"the user of {_URL} lacks a right: to CONNECT, or to EXECUTE pg_control_system()",
        "42P05": _POOLER,
        "42704": f"PostgreSQL or a pooler does not know a setting in {_URL}",
        "53100": "PostgreSQL's disk is full",
        "53300": "PostgreSQL has no connection left: raise its max_connections, or lower LATCHKEY_POOL_SIZE",
        "55000": f"this is a standby: {_URL} has to lead to the primary",
        "57014": "a statement took too long and was ended",
        "57P03": "PostgreSQL is starting, stopping or recovering",
    }
)
_HINTS_OF_KINDS: Final[Mapping[type[BaseException], str]] = MappingProxyType(
    {
        TimeoutError: "no answer in time: a firewall, or an overloaded PostgreSQL (see LATCHKEY_DATABASE_TIMEOUT)",
        ConnectionRefusedError: f"nobody listens at the host and port of {_URL}",
        FileNotFoundError: f"there is no socket, or file, where {_URL} says",
        PermissionError: f"this user may not use the socket, or file, that {_URL} names",
        SSLError: f"TLS failed: see sslmode and the certificates in {_URL}",
        ConnectionError: "the connection was ended: see PostgreSQL's log",
        OSError: f"see the host in {_URL}, and the network",
    }
)
_OTHERWISE: Final = "see PostgreSQL's log"


@dataclass(frozen=True, slots=True)
class Cause:
    """Why the database is not reachable: the kind of error, its SQLSTATE if PostgreSQL said so, and what to look at."""

    kind: str
    sqlstate: str | None
    hint: str

    @property
    def shown(self) -> dict[str, str]:
        """What a log line shows."""
        return {"error": self.kind, **({"sqlstate": self.sqlstate} if self.sqlstate else {}), "hint": self.hint}

    def __str__(self) -> str:
        return f"{self.kind}{f', SQLSTATE {self.sqlstate}' if self.sqlstate else ''}: {self.hint}"


FORMER_PRIMARY: Final = Cause(
    "FormerPrimary",
    None,
    "this is a former primary, on an earlier timeline than this process has met: LATCHKEY_DATABASE_URL has to lead to "
    "its successor; restart the server if the database was set back on purpose",
)


class Unreachable(DatabaseUnavailable):
    """An outage, with its cause."""

    def __init__(self, cause: Cause) -> None:
        super().__init__()
        self.cause = cause


def cause_of(error: BaseException) -> Cause:
    """Return what may be told of an error."""
    if isinstance(error, Unreachable):
        return error.cause
    sqlstate = error.sqlstate if isinstance(error, asyncpg.PostgresError) else None
    kinds = (hint for kind, hint in _HINTS_OF_KINDS.items() if isinstance(error, kind))
    return Cause(type(error).__qualname__, sqlstate, _HINTS.get(sqlstate or "") or next(kinds, _OTHERWISE))
