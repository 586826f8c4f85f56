"""Reports on usage: sums by bucket and group, under the labels that the keys carry now."""

from collections.abc import Sequence
from uuid import UUID

from latchkey_server.domain.usage.report import Measure, Measures, UsageDimension, UsageQuery, UsageReport, UsageRow
from latchkey_server.storage.database import Connection, Row
from latchkey_server.storage.reporting.keys import reported_keys
from latchkey_server.storage.reporting.retagged import Retagged, retagged_keys
from latchkey_server.storage.reporting.statement import Grouping, Paging, paged, reading
from latchkey_server.storage.sql import Conditions
from latchkey_server.storage.usage.columns import SUMMED, SUMS
from latchkey_server.storage.usage.parts import (
    answered_by_label,
    asks_about_labels,
    filter_parts,
    parts_by_key,
    parts_by_label,
)

_GROUPING = Grouping(
    columns={
        UsageDimension.ENVIRONMENT: "environment",
        UsageDimension.KEY: "key_id",
        UsageDimension.MODEL: "model",
        UsageDimension.MEMBER: "member",
        UsageDimension.TASK: "task",
        UsageDimension.IDENTITY: "coalesce(external_id, '')",
        UsageDimension.API: "api_id",
    },
    texts=frozenset({UsageDimension.MODEL, UsageDimension.MEMBER, UsageDimension.TASK}),
    key=UsageDimension.KEY,
)

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


async def report(connection: Connection, workspace_id: UUID, query: UsageQuery, order_by: Measure) -> UsageReport:
    """Return one page of a report and the totals of the whole, in the snapshot of the open transaction."""
    where = Conditions("true", workspace_id)
    async with reading(connection):
        labels_matter = answered_by_label(query) and asks_about_labels(query)
        moved = await retagged_keys(connection, workspace_id) if labels_matter else []
        [totals, *rows] = await connection.fetch(_statement(where, query, order_by, moved), *where.arguments)
    shown = rows[: query.limit]
    keys = await reported_keys(connection, workspace_id, _GROUPING.key_ids(query.group_by, shown))
    return UsageReport(
        rows=[
            UsageRow(
                bucket=query.buckets[row["bucket"]],
                group=_GROUPING.group(query.group_by, row, keys),
                other=row["rest"],
                overflow=_GROUPING.overflow(query.group_by, row),
                measures=_measures_of(row),
            )
            for row in shown
        ],
        totals=_measures_of(totals),
        as_of=totals["as_of"],
        offset=query.offset,
        more=len(rows) > query.limit,
    )


def _statement(where: Conditions, query: UsageQuery, order_by: Measure, moved: Sequence[Retagged]) -> str:
    by_key = not answered_by_label(query)
    parts = parts_by_key(query, where) if by_key else parts_by_label(query, where, moved)
    columns = _GROUPING.select(query.group_by)
    names = [column.rpartition(" ")[2] for column in columns]
    grouped = (
        f"SELECT {', '.join(['bucket', *columns])}, {SUMMED} FROM part "
        f"WHERE {filter_parts(where, query.wanted, by_key=by_key)} "
        f"GROUP BY {', '.join(['bucket', *names])} HAVING sum(events) <> 0"
    )
    paging = Paging(names, SUMS, _ORDER[order_by], query.top, query.limit, query.offset)
    return paged(where, parts, grouped, paging)


def _measures_of(row: Row) -> Measures:
    return Measures(
        spend=int(row["spend_nanos"] or 0),
        adjustments=int(row["adjustment_nanos"] or 0),
        requests=int(row["requests"] or 0),
        input_tokens=int(row["input_tokens"] or 0),
        output_tokens=int(row["output_tokens"] or 0),
        cached_tokens=int(row["cached_tokens"] or 0),
    )
