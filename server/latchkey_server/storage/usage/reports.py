"""Reports on usage: sums by bucket and group, under the labels that the keys carry now."""

from collections.abc import Sequence
from uuid import UUID

from latchkey_server.domain.usage.report import (
    Measure,
    Measures,
    UsageDimension,
    UsageGroupValue,
    UsageKey,
    UsageQuestion,
    UsageReport,
    UsageRow,
)
from latchkey_server.storage.database import Connection, Row
from latchkey_server.storage.reporting.keys import reported_keys
from latchkey_server.storage.reporting.retagged import Retagged, retagged_keys
from latchkey_server.storage.reporting.statement import Paging, paged, reading
from latchkey_server.storage.sql import Conditions
from latchkey_server.storage.usage.columns import SUMMED, SUMS
from latchkey_server.storage.usage.parts import (
    answered_by_label,
    asks_about_labels,
    filter_parts,
    parts_by_key,
    parts_by_label,
)

_DIMENSIONS = {
    UsageDimension.ENVIRONMENT: "environment",
    UsageDimension.KEY: "key_id",
    UsageDimension.MODEL: "model",
    UsageDimension.MEMBER: "member",
    UsageDimension.TASK: "task",
    UsageDimension.IDENTITY: "coalesce(external_id, '')",
    UsageDimension.API: "api_id",
}
_TEXTS = frozenset({UsageDimension.MODEL, UsageDimension.MEMBER, UsageDimension.TASK})
"""The dimensions that know an ``other``."""

_ORDER = {
    Measure.SPEND: "sum(spend_nanos)",
    Measure.ADJUSTMENTS: "sum(adjustment_nanos)",
    Measure.NET_SPEND: "sum(spend_nanos + adjustment_nanos)",
    Measure.REQUESTS: "sum(requests)",
    Measure.INPUT_TOKENS: "sum(input_tokens)",
    Measure.OUTPUT_TOKENS: "sum(output_tokens)",
    Measure.CACHED_TOKENS: "sum(cached_tokens)",
    Measure.TOTAL_TOKENS: "sum(input_tokens + output_tokens)",
}


async def report(connection: Connection, workspace_id: UUID, question: UsageQuestion) -> UsageReport:
    """Return one page of a report and the totals of the whole, in the snapshot of the open transaction."""
    where = Conditions("true", workspace_id)
    async with reading(connection):
        labels_matter = answered_by_label(question) and asks_about_labels(question)
        moved = await retagged_keys(connection, workspace_id) if labels_matter else []
        [totals, *rows] = await connection.fetch(_statement(where, question, moved), *where.arguments)
    shown = rows[: question.limit]
    keys = await reported_keys(connection, workspace_id, _key_ids(question, shown))
    return UsageReport(
        rows=[_row_of(row, question, keys) for row in shown],
        totals=_measures_of(totals),
        as_of=totals["as_of"],
        offset=question.offset,
        more=len(rows) > question.limit,
    )


def _statement(where: Conditions, question: UsageQuestion, moved: Sequence[Retagged]) -> str:
    by_key = not answered_by_label(question)
    parts = parts_by_key(question, where) if by_key else parts_by_label(question, where, moved)
    columns = [f"{_DIMENSIONS[dimension]} AS g{at}" for at, dimension in enumerate(question.group_by)]
    if _TEXTS.intersection(question.group_by):
        columns.append("other AS beyond")
    names = [column.rpartition(" ")[2] for column in columns]
    grouped = (
        f"SELECT {', '.join(['bucket', *columns])}, {SUMMED} FROM part "
        f"WHERE {filter_parts(where, question.wanted, by_key=by_key)} "
        f"GROUP BY {', '.join(['bucket', *names])} HAVING sum(events) <> 0"
    )
    order = _ORDER[question.order_by]
    return paged(where, parts, grouped, Paging(names, SUMS, order, question.top, question.limit, question.offset))


def _key_ids(question: UsageQuestion, rows: Sequence[Row]) -> set[UUID]:
    if UsageDimension.KEY not in question.group_by:
        return set()
    column = f"g{question.group_by.index(UsageDimension.KEY)}"
    return {row[column] for row in rows if not row["rest"]}


def _row_of(row: Row, question: UsageQuestion, keys: dict[UUID, UsageKey]) -> UsageRow:
    group: dict[UsageDimension, UsageGroupValue] = {}
    if not row["rest"]:
        for index, dimension in enumerate(question.group_by):
            value = row[f"g{index}"]
            group[dimension] = keys[value] if dimension is UsageDimension.KEY else value
    beyond = bool(_TEXTS.intersection(question.group_by)) and bool(row["beyond"])
    return UsageRow(question.buckets[row["bucket"]], group, row["rest"], _measures_of(row), beyond)


def _measures_of(row: Row) -> Measures:
    return Measures(
        spend=int(row["spend_nanos"] or 0),
        adjustments=int(row["adjustment_nanos"] or 0),
        requests=int(row["requests"] or 0),
        input_tokens=int(row["input_tokens"] or 0),
        output_tokens=int(row["output_tokens"] or 0),
        cached_tokens=int(row["cached_tokens"] or 0),
    )
