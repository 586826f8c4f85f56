"""Job leases: a job runs on one server at a time, and not before some time has passed since it was done.

The database's clock decides. When a holder dies, another server takes over once the lease has ended.
"""

import secrets
from datetime import timedelta

from latchkey_server.storage.database import Database

LENGTH = timedelta(minutes=1)


class JobLease:
    """One holder's claim to a name."""

    def __init__(self, database: Database, name: str, length: timedelta = LENGTH) -> None:
        self._database = database
        self._name = name
        self._length = length
        self._holder = secrets.token_hex(8)

    async def take(self, every: timedelta = timedelta(0)) -> bool:
        """Take or renew the lease; False while another one holds it, or if the job was done less than ``every`` ago."""
        async with self._database.connection() as connection:
            taken = await connection.fetchval(
                "INSERT INTO job_lease AS l (name, holder, end_time) VALUES ($1, $2, now() + $3) "
                "ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, end_time = excluded.end_time "
                "WHERE l.holder = excluded.holder "
                "OR (l.end_time < now() AND (l.done_time IS NULL OR l.done_time <= now() - $4::interval)) "
                "RETURNING true",
                self._name,
                self._holder,
                self._length,
                every,
            )
        return bool(taken)

    async def give_back(self, *, done: bool) -> None:
        """End the lease at once; ``done`` records that the job was done."""
        async with self._database.connection() as connection:
            await connection.execute(
                "UPDATE job_lease SET holder = '', end_time = '-infinity', "
                "done_time = CASE WHEN $3 THEN now() ELSE done_time END WHERE name = $1 AND holder = $2",
                self._name,
                self._holder,
                done,
            )
