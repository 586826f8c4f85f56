"""Reports on verifications: counts by bucket and group, under the labels that the keys carry now."""

from collections.abc import Sequence
from uuid import UUID

from latchkey_server.domain.outcomes.report import (
    VerificationDimension,
    VerificationGroupValue,
    VerificationQuestion,
    VerificationReport,
    VerificationRow,
)
from latchkey_server.domain.usage.report import UsageKey
from latchkey_server.storage.database import Connection, Row
from latchkey_server.storage.outcomes.parts import (
    answered_by_label,
    asks_about_labels,
    filter_part,
    part_by_key,
    part_by_label,
)
from latchkey_server.storage.reporting.keys import reported_keys
from latchkey_server.storage.reporting.retagged import retagged_keys
from latchkey_server.storage.reporting.statement import Paging, paged, reading
from latchkey_server.storage.sql import Conditions

_DIMENSIONS = {
    VerificationDimension.CODE: "code",
    VerificationDimension.ENVIRONMENT: "environment",
    VerificationDimension.KEY: "key_id",
    VerificationDimension.API: "api_id",
    VerificationDimension.CALLING_SERVICE: "management_key_id",
    VerificationDimension.MODEL: "model",
    VerificationDimension.TAG: "tag",
    VerificationDimension.PREFIX: "prefix",
}
_TEXTS = frozenset({VerificationDimension.MODEL, VerificationDimension.TAG, VerificationDimension.PREFIX})
"""The dimensions that know an ``other``."""


async def report(connection: Connection, workspace_id: UUID, question: VerificationQuestion) -> VerificationReport:
    """Return one page of a report and the total of the whole, in the snapshot of the open transaction."""
    where = Conditions("true", workspace_id)
    async with reading(connection):
        part = await _part(connection, where, workspace_id, question)
        [total, *rows] = await connection.fetch(_statement(where, part, question), *where.arguments)
    shown = rows[: question.limit]
    keys = await reported_keys(connection, workspace_id, _key_ids(question, shown))
    return VerificationReport(
        rows=[_row_of(row, question, keys) for row in shown],
        total=int(total["verifications"] or 0),
        as_of=total["as_of"],
        offset=question.offset,
        more=len(rows) > question.limit,
    )


async def _part(connection: Connection, where: Conditions, workspace_id: UUID, question: VerificationQuestion) -> str:
    if not answered_by_label(question):
        return part_by_key(question, where)
    moved = await retagged_keys(connection, workspace_id) if asks_about_labels(question) else []
    return part_by_label(question, where, moved)


def _statement(where: Conditions, part: str, question: VerificationQuestion) -> str:
    columns = [f"{_DIMENSIONS[dimension]} AS g{at}" for at, dimension in enumerate(question.group_by)]
    if _TEXTS.intersection(question.group_by):
        columns.append("other AS beyond")
    names = [column.rpartition(" ")[2] for column in columns]
    grouped = (
        f"SELECT {', '.join(['bucket', *columns])}, sum(verifications) AS verifications FROM part "
        f"WHERE {filter_part(where, question.wanted)} "
        f"GROUP BY {', '.join(['bucket', *names])} HAVING sum(verifications) <> 0"
    )
    paging = Paging(names, ["verifications"], "sum(verifications)", question.top, question.limit, question.offset)
    return paged(where, part, grouped, paging)


def _key_ids(question: VerificationQuestion, rows: Sequence[Row]) -> set[UUID]:
    if VerificationDimension.KEY not in question.group_by:
        return set()
    column = f"g{question.group_by.index(VerificationDimension.KEY)}"
    return {row[column] for row in rows if not row["rest"] and row[column] is not None}


def _row_of(row: Row, question: VerificationQuestion, keys: dict[UUID, UsageKey]) -> VerificationRow:
    group: dict[VerificationDimension, VerificationGroupValue] = {}
    if not row["rest"]:
        for index, dimension in enumerate(question.group_by):
            value = row[f"g{index}"]
            group[dimension] = keys.get(value) if dimension is VerificationDimension.KEY else value
    beyond = bool(_TEXTS.intersection(question.group_by)) and bool(row["beyond"])
    return VerificationRow(question.buckets[row["bucket"]], group, row["rest"], int(row["verifications"]), beyond)
