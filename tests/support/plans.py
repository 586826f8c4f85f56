"""What PostgreSQL does for a statement: plans with the rows that were really read."""

import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

Plan = Mapping[str, Any]
REPEATED = 6
"""From so many executions on, a prepared statement may be run by a generic plan."""


@dataclass
class Explained:
    """Stands for a connection, and for a database of one: explains what it is asked and answers it as well.

    Each statement is explained as it is run at first, with a plan for its values, and as PostgreSQL runs it once it
    has been prepared and run a few times.
    """

    connection: "asyncpg.Connection[asyncpg.Record]"
    plans: list[Plan] = field(default_factory=list)

    async def fetch(self, statement: str, *arguments: object) -> Sequence[asyncpg.Record]:
        """Explain a statement and return its rows."""
        await self._explain(statement, arguments)
        return await self.connection.fetch(statement, *arguments)

    async def cursor(self, statement: str, *arguments: object, prefetch: int) -> AsyncIterator[asyncpg.Record]:
        """Explain a statement and yield its rows, however few are read at a time."""
        for row in await self.fetch(statement, *arguments):
            yield row

    async def fetchval(self, statement: str, *arguments: object) -> Any:
        """Explain a statement and return its first value."""
        await self._explain(statement, arguments)
        return await self.connection.fetchval(statement, *arguments)

    async def execute(self, statement: str, *arguments: object) -> str:
        """Execute settings and locks, whose plans are of no interest."""
        return await self.connection.execute(statement, *arguments)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["Explained"]:
        """Lend itself; the transaction is the test's."""
        yield self

    async def _explain(self, statement: str, arguments: Sequence[object]) -> None:
        prepared = await self.connection.prepare(statement)
        literals = [
            await self.connection.fetchval(f"SELECT quote_nullable($1::{type_.name}::text)", argument)
            for type_, argument in zip(prepared.get_parameters(), arguments, strict=True)
        ]
        call = f"explained({', '.join(literals)})" if literals else "explained"
        await self.connection.execute(f"PREPARE explained AS {statement}")
        for number in range(1, REPEATED + 1):
            # Undone, so that each run finds what the first did.
            async with undone(self.connection):
                text = await self.connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE {call}")
            if number in (1, REPEATED):
                self.plans.append(json.loads(text)[0]["Plan"])
        await self.connection.execute("DEALLOCATE explained")


@asynccontextmanager
async def undone(connection: "asyncpg.Connection[asyncpg.Record]") -> AsyncIterator[None]:
    """Roll back whatever is done until the context is left."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    finally:
        await transaction.rollback()


def nodes(plan: Plan) -> Iterator[Plan]:
    """Yield every node of a plan."""
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def rows_seen(plan: Plan) -> Counter[str]:
    """Return how many rows of each table were read, whether they were of use or not."""
    seen: Counter[str] = Counter()
    for node in nodes(plan):
        if "Relation Name" in node and "Scan" in node["Node Type"]:
            rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            rows += node.get("Rows Removed by Index Recheck", 0)
            seen[node["Relation Name"]] += round(rows * node["Actual Loops"])
    return seen


def read_whole(plan: Plan) -> set[str]:
    """Return the tables that were read from their beginning to their end."""
    return {
        node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan" and node["Actual Loops"] > 0
    }


def indexes_used(plan: Plan) -> set[str]:
    """Return the indexes that were used."""
    return {node["Index Name"] for node in nodes(plan) if "Index Name" in node and node["Actual Loops"] > 0}
