"""Reports on usage: sums over the events by bucket and group, under the labels that the keys carry now.

The label is joined from the key's row, so that retagging moves a key's whole history at once.
"""

from collections.abc import Sequence
from uuid import UUID

from latchkey_server.domain.usage import UsageType
from latchkey_server.domain.usage_report import (
    Dimension,
    GroupValue,
    Measure,
    Measures,
    UsageFilter,
    UsageKey,
    UsageQuestion,
    UsageReport,
    UsageRow,
)
from latchkey_server.storage.database import Connection, Row
from latchkey_server.storage.sql import Conditions

KEYS = """
    JOIN key k ON k.workspace_id = e.workspace_id AND k.key_id = e.key_id
    LEFT JOIN identity i ON i.workspace_id = k.workspace_id AND i.identity_id = k.identity_id
"""

_DIMENSIONS = {
    Dimension.ENVIRONMENT: "k.environment",
    Dimension.KEY: "k.key_id",
    Dimension.MODEL: "e.model",
    Dimension.MEMBER: "e.member",
    Dimension.TASK: "e.task",
    Dimension.IDENTITY: "coalesce(i.external_id, '')",
    Dimension.API: "k.api_id",
}

_CONSUMED = f"e.type = {int(UsageType.CONSUME)}"
_SUMMED = (
    f"coalesce(sum(e.cost_nanos) FILTER (WHERE {_CONSUMED}), 0) AS spend, "
    f"coalesce(sum(e.cost_nanos) FILTER (WHERE NOT {_CONSUMED}), 0) AS adjustments, "
    "coalesce(sum(e.requests), 0) AS requests, coalesce(sum(e.input_tokens), 0) AS input_tokens, "
    "coalesce(sum(e.output_tokens), 0) AS output_tokens, coalesce(sum(e.cached_tokens), 0) AS cached_tokens"
)
_MEASURES = ("spend", "adjustments", "requests", "input_tokens", "output_tokens", "cached_tokens")
_RESUMMED = ", ".join(f"sum({name}) AS {name}" for name in _MEASURES)

_ORDER = {
    Measure.SPEND: "sum(spend)",
    Measure.ADJUSTMENTS: "sum(adjustments)",
    Measure.NET_SPEND: "sum(spend + adjustments)",
    Measure.REQUESTS: "sum(requests)",
    Measure.INPUT_TOKENS: "sum(input_tokens)",
    Measure.OUTPUT_TOKENS: "sum(output_tokens)",
    Measure.CACHED_TOKENS: "sum(cached_tokens)",
    Measure.TOTAL_TOKENS: "sum(input_tokens + output_tokens)",
}


def filter_usage(where: Conditions, wanted: UsageFilter) -> None:
    """Add a filter on usage to a statement over usage_event ``e`` joined with KEYS."""
    labels = [*wanted.labels, *([""] if wanted.unlabeled else [])]
    where.add_if(bool(labels), "k.environment = ANY(?)", labels)
    where.add_if(bool(wanted.key_ids), "e.key_id = ANY(?)", list(wanted.key_ids))
    where.add_if(bool(wanted.models), "e.model = ANY(?)", list(wanted.models))
    where.add_if(bool(wanted.members), "e.member = ANY(?)", list(wanted.members))
    where.add_if(bool(wanted.tasks), "e.task = ANY(?)", list(wanted.tasks))
    where.add_if(bool(wanted.external_ids), "coalesce(i.external_id, '') = ANY(?)", list(wanted.external_ids))
    where.add_if(bool(wanted.api_ids), "k.api_id = ANY(?)", list(wanted.api_ids))


async def report(connection: Connection, workspace_id: UUID, question: UsageQuestion) -> UsageReport:
    """Return one page of a report and the totals of the whole, in the snapshot of the open transaction."""
    where = _where(workspace_id, question)
    totals = await connection.fetchrow(
        f"SELECT now() AS as_of, {_SUMMED} FROM usage_event e {KEYS} WHERE {where.text}", *where.arguments
    )
    rows = await connection.fetch(_statement(where, question), *where.arguments)
    shown = rows[: question.limit]
    keys = await _keys(connection, workspace_id, question, shown)
    return UsageReport(
        rows=[_row_of(row, question, keys) for row in shown],
        totals=_measures_of(totals) if totals else Measures(),
        as_of=totals["as_of"] if totals else None,
        offset=question.offset,
        more=len(rows) > question.limit,
    )


def _where(workspace_id: UUID, question: UsageQuestion) -> Conditions:
    where = Conditions("e.workspace_id = $1", workspace_id)
    where.add("e.occurred_time >= ?", question.buckets[0][0])
    where.add("e.occurred_time < ?", question.buckets[-1][1])
    filter_usage(where, question.wanted)
    return where


def _statement(where: Conditions, question: UsageQuestion) -> str:
    """Return the statement for the rows: group, rank the groups over the whole range, fold the rest, order, page."""
    groups = [f"g{index}" for index in range(len(question.group_by))]
    columns = "".join(f", {_DIMENSIONS[dim]} AS g{index}" for index, dim in enumerate(question.group_by))
    names = "".join(f", {group}" for group in groups)
    clause = where.text
    starts = where.bind([start for start, _ in question.buckets])
    grouped = (
        f"SELECT width_bucket(e.occurred_time, {starts}::timestamptz[]) - 1 AS bucket{columns}, {_SUMMED} "
        f"FROM usage_event e {KEYS} WHERE {clause} GROUP BY bucket{names}"
    )
    if not question.top:
        folded = f"SELECT bucket, false AS other{names}, {', '.join(_MEASURES)} FROM grouped"
        ranked = ""
    else:
        listed = ", ".join(groups)
        top = where.bind(question.top)
        ranked = (
            f", ranked AS (SELECT {listed}, row_number() OVER "
            f"(ORDER BY {_ORDER[question.order_by]} DESC, {listed}) > {top} AS other "
            f"FROM grouped GROUP BY {listed})"
        )
        shown = "".join(f", CASE WHEN NOT other THEN {group} END AS {group}" for group in groups)
        folded = f"SELECT bucket, other{shown}, {', '.join(_MEASURES)} FROM grouped JOIN ranked USING ({listed})"
    return (
        f"WITH grouped AS ({grouped}){ranked}, folded AS ({folded}) "
        f"SELECT bucket, other{names}, {_RESUMMED} FROM folded GROUP BY bucket, other{names} "
        f"ORDER BY bucket, other, {_ORDER[question.order_by]} DESC{names} "
        f"LIMIT {where.bind(question.limit + 1)} OFFSET {where.bind(question.offset)}"
    )


async def _keys(
    connection: Connection, workspace_id: UUID, question: UsageQuestion, rows: Sequence[Row]
) -> dict[UUID, UsageKey]:
    if Dimension.KEY not in question.group_by:
        return {}
    column = f"g{question.group_by.index(Dimension.KEY)}"
    found = await connection.fetch(
        "SELECT key_id, name, delete_time IS NOT NULL AS deleted, revoke_time IS NOT NULL AS revoked "
        "FROM key WHERE workspace_id = $1 AND key_id = ANY($2)",
        workspace_id,
        list({row[column] for row in rows if not row["other"]}),
    )
    return {row["key_id"]: UsageKey(**row) for row in found}


def _row_of(row: Row, question: UsageQuestion, keys: dict[UUID, UsageKey]) -> UsageRow:
    group: dict[Dimension, GroupValue] = {}
    if not row["other"]:
        for index, dimension in enumerate(question.group_by):
            value = row[f"g{index}"]
            group[dimension] = keys[value] if dimension is Dimension.KEY else value
    return UsageRow(question.buckets[row["bucket"]], group, row["other"], _measures_of(row))


def _measures_of(row: Row) -> Measures:
    return Measures(**{name: int(row[name]) for name in _MEASURES})
