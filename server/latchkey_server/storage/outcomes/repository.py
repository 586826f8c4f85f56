"""Reports of verifications: which were recorded, the uses of keys in them, and their counts by outcome."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Any, TypeVar
from uuid import UUID

from latchkey_server.domain.outcomes.by_label import LabelCount
from latchkey_server.domain.outcomes.counts import Outcome, Outcomes, VerificationCombination
from latchkey_server.domain.outcomes.report import VerificationQuery, VerificationReport
from latchkey_server.domain.turns import turn
from latchkey_server.domain.usage.combinations import KeyDay
from latchkey_server.storage.database import Connection
from latchkey_server.storage.outcomes.reports import report

T = TypeVar("T")

_Row = tuple[UUID, Outcome, int]

PORTION = 500
"""Rows written by one statement: they are encoded in one go."""

_OUTCOME = {
    "quarter": "timestamptz",
    "code": "smallint",
    "management_key_id": "uuid",
    "model": "text",
    "tag": "text",
    "tagged": "boolean",
    "prefix": "text",
    "other": "boolean",
}
_LABEL = {"quarter": "timestamptz", "environment": "text", "api_id": "uuid", **_OUTCOME, "verifications": "bigint"}
_ADD = "DO UPDATE SET verifications = v.verifications + excluded.verifications"


def _arrays(columns: Mapping[str, str], first: int) -> str:
    return ", ".join(f"${number}::{type_}[]" for number, type_ in enumerate(columns.values(), first))


# Outcomes are few and rows are many: a row says its outcome by number.
_COUNT = f"""
    INSERT INTO verification_key_quarter AS v (workspace_id, key_id, {", ".join(_OUTCOME)}, verifications)
    SELECT $1, r.key_id, {", ".join(f"o.{name}" for name in _OUTCOME)}, r.verifications
    FROM unnest($2::uuid[], $3::int[], $4::bigint[]) WITH ORDINALITY AS r(key_id, outcome, verifications, number)
    JOIN unnest({_arrays(_OUTCOME, 5)}) WITH ORDINALITY AS o({", ".join(_OUTCOME)}, number) ON o.number = r.outcome
    ORDER BY r.number
    ON CONFLICT (workspace_id, key_id, {", ".join(_OUTCOME)}) {_ADD}
"""
_COUNT_BY_LABEL = f"""
    INSERT INTO verification_label_quarter AS v (workspace_id, {", ".join(_LABEL)})
    SELECT $1, * FROM unnest({_arrays(_LABEL, 2)})
    ON CONFLICT (workspace_id, {", ".join(name for name in _LABEL if name != "verifications")}) {_ADD}
"""
# Key and day one by one: a plain join may read all rows of the workspace.
_COMBINATIONS = """
    SELECT p.key_id, p.day, c.*
    FROM unnest($2::uuid[], $3::date[]) AS p(key_id, day) CROSS JOIN LATERAL (
        SELECT DISTINCT management_key_id, model, tag, prefix FROM verification_key_quarter
        WHERE workspace_id = $1 AND key_id = p.key_id AND NOT other
            AND quarter >= p.day::timestamp AT TIME ZONE 'UTC'
            AND quarter < (p.day + 1)::timestamp AT TIME ZONE 'UTC'
    ) AS c
"""


class PostgresVerifications:
    """Reports of one transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def advance(self, workspace_id: UUID, client_id: str, sequence: int, now: datetime) -> bool:
        advanced = await self._connection.fetchval(
            "INSERT INTO verification_report AS r (workspace_id, client_id, sequence, report_time) "
            "VALUES ($1, $2, $3, $4) ON CONFLICT (workspace_id, client_id) DO UPDATE "
            "SET sequence = excluded.sequence, report_time = excluded.report_time "
            "WHERE r.sequence < excluded.sequence RETURNING true",
            workspace_id,
            client_id,
            sequence,
            now,
        )
        return bool(advanced)

    async def used(self, workspace_id: UUID, api_ids: frozenset[UUID], used: Mapping[UUID, datetime]) -> None:
        ordered = sorted(used.items())
        # In portions, and in the order of their keys, so that two servers can't wait for each other in a circle.
        for begin in range(0, len(ordered), PORTION):
            portion = ordered[begin : begin + PORTION]
            await self._connection.execute(
                "INSERT INTO key_last_used AS u (workspace_id, key_id, last_used_time) "
                "SELECT $1, k.key_id, t.used FROM unnest($2::uuid[], $3::timestamptz[]) AS t(key_id, used) "
                "JOIN key k ON k.workspace_id = $1 AND k.key_id = t.key_id "
                "WHERE cardinality($4::uuid[]) = 0 OR k.api_id = ANY($4) ORDER BY k.key_id "
                "ON CONFLICT (workspace_id, key_id) DO UPDATE SET last_used_time = excluded.last_used_time "
                "WHERE u.last_used_time < excluded.last_used_time",
                workspace_id,
                [key_id for key_id, _ in portion],
                [moment for _, moment in portion],
                list(api_ids),
            )

    async def combinations(
        self, workspace_id: UUID, key_days: Sequence[KeyDay]
    ) -> Mapping[KeyDay, set[VerificationCombination]]:
        rows = await self._connection.fetch(
            _COMBINATIONS, workspace_id, [key_id for key_id, _ in key_days], [day for _, day in key_days]
        )
        found: dict[KeyDay, set[VerificationCombination]] = {key_day: set() for key_day in key_days}
        for row in rows:
            key_id, day, *combination = row
            found[key_id, day].add(VerificationCombination(*combination))
        return found

    async def count(self, workspace_id: UUID, outcomes: Outcomes) -> None:
        # In one order over all portions, so that two servers can't wait for each other in a circle.
        rows: list[_Row] = []
        for outcome in sorted(outcomes):
            await turn()
            by_key = outcomes[outcome]
            rows += [(key_id, outcome, by_key[key_id]) for key_id in sorted(by_key, key=attrgetter("int"))]
        for portion in _portions(rows):
            await turn()
            numbers = {outcome: number for number, outcome in enumerate(dict.fromkeys(row[1] for row in portion), 1)}
            numbered = [(key_id, numbers[outcome], count) for key_id, outcome, count in portion]
            await self._connection.execute(_COUNT, workspace_id, *_columns(numbered), *_columns(list(numbers)))

    async def count_by_label(self, workspace_id: UUID, rows: Sequence[LabelCount]) -> None:
        for portion in _portions(rows):
            await turn()
            await self._connection.execute(_COUNT_BY_LABEL, workspace_id, *_columns(portion))

    async def report(self, workspace_id: UUID, query: VerificationQuery) -> VerificationReport:
        return await report(self._connection, workspace_id, query)


def _columns(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _portions(rows: Sequence[T]) -> Iterator[Sequence[T]]:
    for begin in range(0, len(rows), PORTION):
        yield rows[begin : begin + PORTION]
