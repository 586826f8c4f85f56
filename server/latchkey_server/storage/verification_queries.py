"""Reports on verifications: counts by bucket and group, under the labels that the keys carry now."""

from collections.abc import Sequence
from uuid import UUID

from latchkey_server.domain.usage_report import UsageKey
from latchkey_server.domain.verification_counts import UNKNOWN
from latchkey_server.domain.verification_report import (
    Dimension,
    GroupValue,
    VerificationFilter,
    VerificationQuestion,
    VerificationRow,
    VerificationSums,
)
from latchkey_server.storage.database import Connection, Row
from latchkey_server.storage.report_statement import Paging, paged, reading
from latchkey_server.storage.sql import Conditions
from latchkey_server.storage.usage_reports import keys_told

# The key of an unknown secret joins no key: its label and api are NULL.
_DIMENSIONS = {
    Dimension.CODE: "v.code",
    Dimension.ENVIRONMENT: "k.environment",
    Dimension.KEY: "k.key_id",
    Dimension.API: "k.api_id",
    Dimension.CALLING_SERVICE: "v.management_key_id",
    Dimension.MODEL: "v.model",
    Dimension.TAG: "v.tag",
    Dimension.PREFIX: "v.prefix",
}
_TEXTS = frozenset({Dimension.MODEL, Dimension.TAG, Dimension.PREFIX})
"""The dimensions that know an ``other``."""


async def report(connection: Connection, workspace_id: UUID, question: VerificationQuestion) -> VerificationSums:
    """Return one page of a report and the total of the whole, in the snapshot of the open transaction."""
    where = Conditions("v.workspace_id = $1", workspace_id)
    async with reading(connection):
        [total, *rows] = await connection.fetch(_statement(where, question), *where.arguments)
    shown = rows[: question.limit]
    keys = await keys_told(connection, workspace_id, _key_ids(question, shown))
    return VerificationSums(
        rows=[_row_of(row, question, keys) for row in shown],
        total=int(total["verifications"] or 0),
        as_of=total["as_of"],
        offset=question.offset,
        more=len(rows) > question.limit,
    )


def _statement(where: Conditions, question: VerificationQuestion) -> str:
    starts = where.bind([start for start, _ in question.buckets])
    where.add("v.quarter >= ?", question.buckets[0][0])
    where.add("v.quarter < ?", question.buckets[-1][1])
    where.raw("v.tagged" if question.by_tag else "NOT v.tagged")
    _filter(where, question.wanted)
    columns = [f"{_DIMENSIONS[dimension]} AS g{at}" for at, dimension in enumerate(question.group_by)]
    if _TEXTS.intersection(question.group_by):
        columns.append("v.other AS beyond")
    names = [column.rpartition(" ")[2] for column in columns]
    part = (
        f"part AS (SELECT width_bucket(v.quarter, {starts}::timestamptz[]) - 1 AS bucket, v.verifications"
        f"{''.join(f', {column}' for column in columns)} FROM verification_quarter v "
        f"LEFT JOIN key k ON k.workspace_id = v.workspace_id AND k.key_id = v.key_id WHERE {where.text})"
    )
    listed = ", ".join(["bucket", *names])
    grouped = f"SELECT {listed}, sum(verifications) AS verifications FROM part GROUP BY {listed}"
    paging = Paging(names, ["verifications"], "sum(verifications)", question.top, question.limit, question.offset)
    return paged(where, part, grouped, paging)


def _filter(where: Conditions, wanted: VerificationFilter) -> None:
    labels = [*wanted.labels, *([""] if wanted.unlabeled else [])]
    where.add_if(bool(labels), "k.environment = ANY(?)", labels)
    where.add_if(bool(wanted.codes), "v.code = ANY(?)", [int(code) for code in wanted.codes])
    where.add_if(bool(wanted.key_ids), "v.key_id = ANY(?)", list(wanted.key_ids))
    where.add_if(bool(wanted.api_ids), "k.api_id = ANY(?)", list(wanted.api_ids))
    where.add_if(bool(wanted.calling_service_ids), "v.management_key_id = ANY(?)", list(wanted.calling_service_ids))
    where.add_if(bool(wanted.models), "NOT v.other AND v.model = ANY(?)", list(wanted.models))
    where.add_if(bool(wanted.tags), "NOT v.other AND v.tag = ANY(?)", list(wanted.tags))
    where.add_if(wanted.unknown_secrets, "v.key_id = ?", UNKNOWN)


def _key_ids(question: VerificationQuestion, rows: Sequence[Row]) -> set[UUID]:
    if Dimension.KEY not in question.group_by:
        return set()
    column = f"g{question.group_by.index(Dimension.KEY)}"
    return {row[column] for row in rows if not row["rest"] and row[column] is not None}


def _row_of(row: Row, question: VerificationQuestion, keys: dict[UUID, UsageKey]) -> VerificationRow:
    group: dict[Dimension, GroupValue] = {}
    if not row["rest"]:
        for index, dimension in enumerate(question.group_by):
            value = row[f"g{index}"]
            group[dimension] = keys.get(value) if dimension is Dimension.KEY else value
    beyond = bool(_TEXTS.intersection(question.group_by)) and bool(row["beyond"])
    return VerificationRow(question.buckets[row["bucket"]], group, row["rest"], int(row["verifications"]), beyond)
