"""The statement of a report: the totals of a selection, then one page of its rows, in one snapshot."""

import enum
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Generic, NamedTuple, TypeVar
from uuid import UUID

import asyncpg

from latchkey_server.domain.errors import DeadlineExceeded
from latchkey_server.domain.reporting.buckets import Bucket
from latchkey_server.domain.reporting.request import ReportKey
from latchkey_server.storage.database import Connection, Row
from latchkey_server.storage.sql import PLANNED_FOR_VALUES, Conditions

Dimension = TypeVar("Dimension", bound=enum.IntEnum)

_SETTINGS = f"SET LOCAL work_mem = '64MB'; SET LOCAL jit = off; {PLANNED_FOR_VALUES}"


@asynccontextmanager
async def reading(connection: Connection) -> AsyncIterator[None]:
    """Have statements of the open transaction planned for their values, sorted in memory, and not compiled.

    Raises DeadlineExceeded.

    A month of ten thousand keys by key is sorted and hashed in tens of megabytes, which would else spill to disk.
    Compiling a report takes longer than it saves.
    """
    await connection.execute(_SETTINGS)
    try:
        yield
    except asyncpg.QueryCanceledError:
        raise DeadlineExceeded("The report took too long; ask for a shorter range or with a narrower filter.") from None


class Paging(NamedTuple):
    """How the groups of a report become rows: ``sums`` and ``names`` are columns of ``grouped``, ``order`` a sum."""

    names: Sequence[str]
    sums: Sequence[str]
    order: str
    top: int
    limit: int
    offset: int


def paged(where: Conditions, parts: str, grouped: str, paging: Paging) -> str:
    """Return a statement for the totals, first, and the rows of a page, with one more row if more follow.

    ``grouped`` is a query of (bucket, names, sums) over the common table expressions in ``parts``. Groups are ranked
    over the whole range; those outside ``top`` become one, ``rest``. Rows come by bucket, ``rest`` and ``order``.
    """
    names, sums = paging.names, paging.sums
    summed = [f"sum({name}) AS {name}" for name in sums]
    position = _listed("bucket", "rest", f"{paging.order} DESC", *names)
    return (
        f"WITH {parts}, grouped AS MATERIALIZED ({grouped}), {_within_top(where, paging)}, page AS ("
        f"SELECT {_listed('bucket', 'rest', *names, *summed)}, row_number() OVER (ORDER BY {position}) AS position "
        f"FROM shown GROUP BY {_listed('bucket', 'rest', *names)} ORDER BY position "
        f"LIMIT {where.bind(paging.limit + 1)} OFFSET {where.bind(paging.offset)}"
        f") SELECT 0 AS position, now() AS as_of, totals.*, NULL AS bucket, false AS rest"
        f"{''.join(f', NULL AS {name}' for name in names)} FROM (SELECT {_listed(*summed)} FROM grouped) AS totals "
        f"UNION ALL SELECT position, NULL, {_listed(*sums, 'bucket', 'rest', *names)} FROM page ORDER BY position"
    )


def _within_top(where: Conditions, paging: Paging) -> str:
    if not paging.top:
        return f"shown AS (SELECT {_listed('bucket', 'false AS rest', *paging.names, *paging.sums)} FROM grouped)"
    groups = f"PARTITION BY {_listed(*paging.names)}"
    shown = [f"CASE WHEN NOT rest THEN {name} END AS {name}" for name in paging.names]
    # Windows rather than a join of groups with themselves: a group may be NULL, which no join matches.
    return (
        f"summed AS (SELECT *, {paging.order} OVER ({groups}) AS total FROM grouped), "
        f"ranked AS (SELECT *, dense_rank() OVER (ORDER BY {_listed('total DESC', *paging.names)}) > "
        f"{where.bind(paging.top)} AS rest FROM summed), "
        f"shown AS (SELECT {_listed('bucket', 'rest', *shown, *paging.sums)} FROM ranked)"
    )


def _listed(*columns: str) -> str:
    return ", ".join(columns)


class Span:
    """The range of a report and its buckets, bound to a statement once; ``start`` and ``end`` are placeholders."""

    def __init__(self, buckets: Sequence[Bucket], where: Conditions) -> None:
        self._starts = where.bind([start for start, _ in buckets])
        self.start = f"{where.bind(buckets[0][0])}::timestamptz"
        self.end = f"{where.bind(buckets[-1][1])}::timestamptz"

    def bucket(self, instant: str) -> str:
        """Return the number of the bucket that an instant lies in."""
        return f"width_bucket({instant}, {self._starts}::timestamptz[]) - 1"


class Grouping(Generic[Dimension]):
    """How a noun's dimensions become columns, and rows become groups again.

    ``columns`` says what each dimension reads, ``texts`` which of them are free text, with an ``other`` for the
    overflow.
    """

    def __init__(self, columns: Mapping[Dimension, str], texts: frozenset[Dimension], key: Dimension) -> None:
        self._columns = columns
        self._texts = texts
        self._key = key

    def select(self, group_by: Sequence[Dimension]) -> list[str]:
        """Return the columns to select and to group by, each with its name last."""
        selected = [f"{self._columns[dimension]} AS g{index}" for index, dimension in enumerate(group_by)]
        return [*selected, "other AS overflow"] if self._texts.intersection(group_by) else selected

    def key_ids(self, group_by: Sequence[Dimension], rows: Sequence[Row]) -> set[UUID]:
        """Return the keys that rows are grouped by; unknown secrets have none."""
        if self._key not in group_by:
            return set()
        column = f"g{group_by.index(self._key)}"
        return {row[column] for row in rows if not row["rest"] and row[column] is not None}

    def group(self, group_by: Sequence[Dimension], row: Row, keys: Mapping[UUID, ReportKey]) -> dict[Dimension, Any]:
        """Return the group that a row sums, empty for ``rest``; keys as reports show them."""
        if row["rest"]:
            return {}
        values = {dimension: row[f"g{index}"] for index, dimension in enumerate(group_by)}
        return {dimension: keys.get(value) if dimension is self._key else value for dimension, value in values.items()}

    def overflow(self, group_by: Sequence[Dimension], row: Row) -> bool:
        """Tell whether a row sums the overflow."""
        return bool(self._texts.intersection(group_by)) and bool(row["overflow"])
