"""Reports on verifications: counts by bucket and group, under the labels that the keys carry now."""

from uuid import UUID

from latchkey_server.domain.outcomes.report import (
    VerificationDimension,
    VerificationQuery,
    VerificationReport,
    VerificationRow,
)
from latchkey_server.storage.database import Connection
from latchkey_server.storage.outcomes.parts import (
    answered_by_label,
    asks_about_labels,
    filter_part,
    part_by_key,
    part_by_label,
)
from latchkey_server.storage.reporting.keys import reported_keys
from latchkey_server.storage.reporting.retagged import retagged_keys
from latchkey_server.storage.reporting.statement import Grouping, Paging, paged, reading
from latchkey_server.storage.sql import Conditions

_GROUPING = Grouping(
    columns={
        VerificationDimension.CODE: "code",
        VerificationDimension.ENVIRONMENT: "environment",
        VerificationDimension.KEY: "key_id",
        VerificationDimension.API: "api_id",
        VerificationDimension.CALLING_SERVICE: "management_key_id",
        VerificationDimension.MODEL: "model",
        VerificationDimension.TAG: "tag",
        VerificationDimension.PREFIX: "prefix",
    },
    texts=frozenset({VerificationDimension.MODEL, VerificationDimension.TAG, VerificationDimension.PREFIX}),
    key=VerificationDimension.KEY,
)


async def report(connection: Connection, workspace_id: UUID, query: VerificationQuery) -> VerificationReport:
    """Return one page of a report and the total of the whole, in the snapshot of the open transaction."""
    where = Conditions("true", workspace_id)
    async with reading(connection):
        part = await _part(connection, where, workspace_id, query)
        [total, *rows] = await connection.fetch(_statement(where, part, query), *where.arguments)
    shown = rows[: query.limit]
    keys = await reported_keys(connection, workspace_id, _GROUPING.key_ids(query.group_by, shown))
    return VerificationReport(
        rows=[
            VerificationRow(
                bucket=query.buckets[row["bucket"]],
                group=_GROUPING.group(query.group_by, row, keys),
                other=row["rest"],
                overflow=_GROUPING.overflow(query.group_by, row),
                count=int(row["verifications"]),
            )
            for row in shown
        ],
        total=int(total["verifications"] or 0),
        as_of=total["as_of"],
        offset=query.offset,
        more=len(rows) > query.limit,
    )


async def _part(connection: Connection, where: Conditions, workspace_id: UUID, query: VerificationQuery) -> str:
    if not answered_by_label(query):
        return part_by_key(query, where)
    moved = await retagged_keys(connection, workspace_id) if asks_about_labels(query) else []
    return part_by_label(query, where, moved)


def _statement(where: Conditions, part: str, query: VerificationQuery) -> str:
    columns = _GROUPING.select(query.group_by)
    names = [column.rpartition(" ")[2] for column in columns]
    grouped = (
        f"SELECT {', '.join(['bucket', *columns])}, sum(verifications) AS verifications FROM part "
        f"WHERE {filter_part(where, query.wanted)} "
        f"GROUP BY {', '.join(['bucket', *names])} HAVING sum(verifications) <> 0"
    )
    paging = Paging(names, ["verifications"], "sum(verifications)", query.top, query.limit, query.offset)
    return paged(where, part, grouped, paging)
