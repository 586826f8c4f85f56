"""Where reports on usage read from: parts of buckets, by key or by label, as SQL.

By label is enough where nothing is asked of single keys: a few rows a quarter of an hour, however many keys and events
there are. Reports correct for retagged keys: their usage is added under their current label and subtracted under the
attributed one, so that a report follows the label at once.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from latchkey_server.domain.reporting.day_parts import DayPart, day_parts
from latchkey_server.domain.usage.report import UsageDimension, UsageFilter, UsageQuery
from latchkey_server.storage.reporting.retagged import Retagged, moved_keys
from latchkey_server.storage.reporting.statement import Span
from latchkey_server.storage.sql import Conditions, asked_labels
from latchkey_server.storage.usage.columns import NAMES, SUMMED, TEXTS, each

_BOTH_LABELS = "environment, attributed_environment, api_id"

_OF_KEYS = frozenset({UsageDimension.KEY, UsageDimension.MEMBER, UsageDimension.IDENTITY})


def answered_by_label(query: UsageQuery) -> bool:
    """Tell whether the roll-up by label holds all that a report asks about."""
    wanted = query.wanted
    return not _OF_KEYS.intersection(query.group_by) and not (wanted.key_ids or wanted.members or wanted.external_ids)


def asks_about_labels(query: UsageQuery) -> bool:
    """Tell whether an answer depends on the keys' labels: if not, retagged keys need no correction."""
    return UsageDimension.ENVIRONMENT in query.group_by or bool(asked_labels(query.wanted))


def parts_by_label(query: UsageQuery, where: Conditions, moved: Sequence[Retagged]) -> str:
    """Return common table expressions, the last of which is ``part`` with bucket, environment, api_id and the rest.

    ``moved`` are the retagged keys.
    """
    span = Span(query.buckets, where)
    by_label = f"""
        SELECT {span.bucket("quarter")} AS bucket, environment, api_id, model, task, other, {NAMES}
        FROM usage_label_quarter WHERE workspace_id = $1 AND quarter >= {span.start} AND quarter < {span.end}
    """
    if not moved:
        return f"part AS ({by_label})"
    return f"""
        {_moved_part(query, span, where, moved)}, part AS (
            {by_label}
            UNION ALL
            SELECT bucket, environment, api_id, model, task, other, {NAMES} FROM moved_part
            UNION ALL
            SELECT bucket, attributed_environment, api_id, model, task, other, {each("-{}".format)} FROM moved_part
        )
    """


def _moved_part(query: UsageQuery, span: Span, where: Conditions, moved: Sequence[Retagged]) -> str:
    """Return common table expressions, the last of which is ``moved_part``: sums of moved keys by both their labels."""
    keys = _Keys(f"{_BOTH_LABELS}, model, task, other", _of_each_moved)
    whole, cut = _packed_days(query)
    queries, held = [_unpacked(span, keys)], ""
    if whole:
        queries.append(_whole_days(whole, where, keys))
    if cut:
        held = f"held AS MATERIALIZED ({_held(cut, where, keys)}),"
        queries.append(_differences(cut, where, keys))
    return f"""
        {moved_keys(where, moved)}, {held} moved_part AS MATERIALIZED (
            SELECT bucket, {keys.columns}, {SUMMED} FROM ({" UNION ALL ".join(queries)}) AS p
            GROUP BY bucket, {keys.columns}
        )
    """


def parts_by_key(query: UsageQuery, where: Conditions) -> str:
    """Return a common table expression ``part`` with bucket, key_id, member and the rest, and the key's own facts."""
    span = Span(query.buckets, where)
    key_ids = f"{where.bind(list(query.wanted.key_ids))}::uuid[]" if query.wanted.key_ids else None
    keys = _Keys(f"key_id, {TEXTS}", lambda table, within: _of_workspace(table, within, key_ids))
    whole, cut = _packed_days(query)
    queries = [_unpacked(span, keys)]
    if whole:
        queries.append(_whole_days(whole, where, keys))
    if cut:
        queries.append(_cut_days(cut, where, keys))
    return f"""
        part AS (
            SELECT p.*, k.environment, k.api_id, i.external_id
            FROM ({" UNION ALL ".join(queries)}) AS p
            JOIN key k ON k.workspace_id = $1 AND k.key_id = p.key_id
            LEFT JOIN identity i ON i.workspace_id = $1 AND i.identity_id = k.identity_id
        )
    """


def filter_parts(where: Conditions, wanted: UsageFilter, *, by_key: bool) -> str:
    """Return the filter of a report over ``part``; the overflow matches no free text."""
    filters = Conditions("true")
    filters.arguments = where.arguments
    labels = asked_labels(wanted)
    filters.add_if(bool(labels), "environment = ANY(?)", labels)
    filters.add_if(bool(wanted.api_ids), "api_id = ANY(?)", list(wanted.api_ids))
    filters.add_if(bool(wanted.models), "NOT other AND model = ANY(?)", list(wanted.models))
    filters.add_if(bool(wanted.tasks), "NOT other AND task = ANY(?)", list(wanted.tasks))
    if by_key:
        filters.add_if(bool(wanted.members), "NOT other AND member = ANY(?)", list(wanted.members))
        filters.add_if(bool(wanted.external_ids), "coalesce(external_id, '') = ANY(?)", list(wanted.external_ids))
    return filters.text


class _Keys(NamedTuple):
    """What is read of keys' usage, and how: ``rows`` gives a table's rows under a condition, as a source ``r``."""

    columns: str
    rows: Callable[[str, str], str]


def _of_workspace(table: str, within: str, key_ids: str | None) -> str:
    among = "" if key_ids is None else f" AND key_id = ANY({key_ids})"
    return f"(SELECT * FROM {table} WHERE workspace_id = $1 AND {within}{among}) AS r"


def _of_each_moved(table: str, within: str) -> str:
    """Return the rows of moved keys with both their labels, key by key: a plain join may read all keys' rows."""
    return (
        f"moved CROSS JOIN LATERAL (SELECT * FROM {table} WHERE workspace_id = $1 AND key_id = moved.key_id "
        f"AND {within} OFFSET 0) AS r"
    )


def _packed_days(query: UsageQuery) -> tuple[list[DayPart], list[DayPart]]:
    """Return the days that lie whole in a bucket, and the parts of those that a bucket's edge cuts."""
    parts = day_parts(query.buckets)
    return [part for part in parts if part.whole], [part for part in parts if not part.whole]


def _unpacked(span: Span, keys: _Keys) -> str:
    rows = keys.rows("usage_key_quarter", f"quarter >= {span.start} AND quarter < {span.end}")
    return f"SELECT {span.bucket('quarter')} AS bucket, {keys.columns}, {NAMES} FROM {rows}"


def _whole_days(parts: Sequence[DayPart], where: Conditions, keys: _Keys) -> str:
    days = where.bind([part.day for part in parts])
    buckets = where.bind([part.bucket for part in parts])
    return (
        f"SELECT s.bucket, {keys.columns}, {NAMES} FROM {keys.rows('usage_key_day', _between(parts, where))} "
        f"JOIN unnest({days}::date[], {buckets}::integer[]) AS s(day, bucket) USING (day)"
    )


def _cut_days(parts: Sequence[DayPart], where: Conditions, keys: _Keys) -> str:
    """Return the sums between two quarters of a day: the running sum at the later one less that at the earlier."""
    columns = [[part.day for part in parts], *([part[field] for part in parts] for field in (1, 2, 3))]
    days, starts, ends, buckets = (where.bind(column) for column in columns)
    held = each(lambda name: f"{name}[i.upto] - coalesce({name}[i.before], 0) AS {name}")
    return (
        f"SELECT s.bucket, {keys.columns}, {held} "
        f"FROM {keys.rows('usage_key_day_running', _between(parts, where))} "
        f"JOIN unnest({days}::date[], {starts}::smallint[], {ends}::smallint[], {buckets}::integer[]) "
        "AS s(day, first, last, bucket) USING (day) "
        "CROSS JOIN LATERAL (SELECT width_bucket((s.first - 1)::smallint, quarters) AS before, "
        "width_bucket((s.last - 1)::smallint, quarters) AS upto) AS i WHERE i.upto > i.before"
    )


def _held(parts: Sequence[DayPart], where: Conditions, keys: _Keys) -> str:
    """Return the running sums of many keys, summed, at each quarter that cuts or ends a day; each row is read once.

    Numbers are taken out of the arrays before they are summed, so that a sort does not carry the arrays.
    """
    edges = sorted({(part.day, edge) for part in parts for edge in (part.start, part.end) if edge})
    days, quarters = (where.bind(column) for column in map(list, zip(*edges, strict=True)))
    return (
        f"SELECT day, edge, {keys.columns}, {SUMMED} FROM ("
        f"SELECT day, edge, {keys.columns}, {each(lambda name: f'{name}[i.upto] AS {name}')} "
        f"FROM {keys.rows('usage_key_day_running', _between(parts, where))} "
        f"JOIN unnest({days}::date[], {quarters}::smallint[]) AS e(day, edge) USING (day) "
        "CROSS JOIN LATERAL (SELECT width_bucket((edge - 1)::smallint, quarters) AS upto) AS i "
        f"WHERE i.upto > 0 OFFSET 0) AS at_edge GROUP BY day, edge, {keys.columns}"
    )


def _differences(parts: Sequence[DayPart], where: Conditions, keys: _Keys) -> str:
    """Return the sums of each part of a day: those ``held`` at its end less those at its start."""
    ends = [(part.day, part.end, part.bucket, 1) for part in parts]
    starts = [(part.day, part.start, part.bucket, -1) for part in parts if part.start]
    days, quarters, buckets, signs = (where.bind(column) for column in map(list, zip(*ends, *starts, strict=True)))
    return (
        f"SELECT s.bucket, {keys.columns}, {each('s.sign * {}'.format)} "
        f"FROM held JOIN unnest({days}::date[], {quarters}::smallint[], {buckets}::integer[], {signs}::integer[]) "
        "AS s(day, edge, bucket, sign) USING (day, edge)"
    )


def _between(parts: Sequence[DayPart], where: Conditions) -> str:
    return f"day BETWEEN {where.bind(parts[0].day)} AND {where.bind(parts[-1].day)}"
