"""Where reports on usage read from: parts of buckets, by key or by label, as SQL.

By label is enough where nothing is asked of single keys: a few rows a quarter of an hour, however many keys and events
there are. Keys whose label has changed since their usage was folded are moved on the way: what they used is added under
their label of now and subtracted where it is folded, so that a report follows the label at once.
"""

from collections.abc import Sequence

from latchkey_server.domain.day_parts import DayPart, day_parts
from latchkey_server.domain.usage_report import Dimension, UsageFilter, UsageQuestion
from latchkey_server.storage.sql import Conditions
from latchkey_server.storage.usage_columns import NAMES, SUMMED, TEXTS, each

_OF_KEYS = frozenset({Dimension.KEY, Dimension.MEMBER, Dimension.IDENTITY})


def answered_by_label(question: UsageQuestion) -> bool:
    """Tell whether the roll-up by label knows all that a question asks about."""
    wanted = question.wanted
    return not _OF_KEYS.intersection(question.group_by) and not (
        wanted.key_ids or wanted.members or wanted.external_ids
    )


def parts_by_label(question: UsageQuestion, where: Conditions) -> str:
    """Return common table expressions, the last of which is ``part`` with bucket, environment, api_id and the rest."""
    span = _Span(question, where)
    only_moved = "ARRAY(SELECT key_id FROM moved)"
    return f"""
        moved AS MATERIALIZED (
            SELECT key_id, environment, folded_environment, api_id FROM key
            WHERE workspace_id = $1 AND environment <> folded_environment
        ), moved_part AS MATERIALIZED (
            SELECT bucket, environment, folded_environment, api_id, model, task, other, {SUMMED}
            FROM ({_of_keys(question, span, where, only_moved)}) AS p JOIN moved USING (key_id)
            GROUP BY bucket, environment, folded_environment, api_id, model, task, other
        ), part AS (
            SELECT {span.bucket("quarter")} AS bucket, environment, api_id, model, task, other, {NAMES}
            FROM usage_label_quarter
            WHERE workspace_id = $1 AND quarter >= {span.start} AND quarter < {span.end}
            UNION ALL
            SELECT bucket, environment, api_id, model, task, other, {NAMES} FROM moved_part
            UNION ALL
            SELECT bucket, folded_environment, api_id, model, task, other, {each("-{}".format)} FROM moved_part
        )
    """


def parts_by_key(question: UsageQuestion, where: Conditions) -> str:
    """Return a common table expression ``part`` with bucket, key_id, member and the rest, and the key's own facts."""
    span = _Span(question, where)
    key_ids = f"{where.bind(list(question.wanted.key_ids))}::uuid[]" if question.wanted.key_ids else None
    return f"""
        part AS (
            SELECT p.*, k.environment, k.api_id, i.external_id
            FROM ({_of_keys(question, span, where, key_ids)}) AS p
            JOIN key k ON k.workspace_id = $1 AND k.key_id = p.key_id
            LEFT JOIN identity i ON i.workspace_id = $1 AND i.identity_id = k.identity_id
        )
    """


def filter_parts(where: Conditions, wanted: UsageFilter, *, by_key: bool) -> str:
    """Return the filter of a report over ``part``; what is beyond the combinations kept apart matches no free text."""
    filters = Conditions("true")
    filters.arguments = where.arguments
    labels = [*wanted.labels, *([""] if wanted.unlabeled else [])]
    filters.add_if(bool(labels), "environment = ANY(?)", labels)
    filters.add_if(bool(wanted.api_ids), "api_id = ANY(?)", list(wanted.api_ids))
    filters.add_if(bool(wanted.models), "NOT other AND model = ANY(?)", list(wanted.models))
    filters.add_if(bool(wanted.tasks), "NOT other AND task = ANY(?)", list(wanted.tasks))
    if by_key:
        filters.add_if(bool(wanted.members), "NOT other AND member = ANY(?)", list(wanted.members))
        filters.add_if(bool(wanted.external_ids), "coalesce(external_id, '') = ANY(?)", list(wanted.external_ids))
    return filters.text


class _Span:
    """The range of a question and its buckets, bound to a statement once."""

    def __init__(self, question: UsageQuestion, where: Conditions) -> None:
        buckets = question.buckets
        self._starts = where.bind([start for start, _ in buckets])
        self.start = f"{where.bind(buckets[0][0])}::timestamptz"
        self.end = f"{where.bind(buckets[-1][1])}::timestamptz"

    def bucket(self, instant: str) -> str:
        """Return the number of the bucket that an instant lies in."""
        return f"width_bucket({instant}, {self._starts}::timestamptz[]) - 1"


def _of_keys(question: UsageQuestion, span: _Span, where: Conditions, key_ids: str | None) -> str:
    """Return a query of (bucket, key_id, member, model, task, other, sums) of all keys or of some.

    Three parts: packed days that lie whole in a bucket, packed days that a bucket's edge cuts, and what is not packed.
    """
    parts = day_parts(question.buckets)
    whole, cut = [part for part in parts if part.whole], [part for part in parts if not part.whole]
    queries = [_unpacked(span, key_ids)]
    if whole:
        queries.append(_whole_days(whole, where, key_ids))
    if cut:
        queries.append(_cut_days(cut, where, key_ids))
    return " UNION ALL ".join(queries)


def _unpacked(span: _Span, key_ids: str | None) -> str:
    return (
        f"SELECT {span.bucket('q.quarter')} AS bucket, q.key_id, {TEXTS}, {NAMES} FROM usage_key_quarter q "
        f"WHERE q.workspace_id = $1 AND q.quarter >= {span.start} AND q.quarter < {span.end}{_among('q', key_ids)}"
    )


def _whole_days(parts: Sequence[DayPart], where: Conditions, key_ids: str | None) -> str:
    days = where.bind([part.day for part in parts])
    buckets = where.bind([part.bucket for part in parts])
    return (
        f"SELECT s.bucket, d.key_id, {TEXTS}, {NAMES} "
        f"FROM unnest({days}::date[], {buckets}::integer[]) AS s(day, bucket) "
        f"JOIN usage_key_day d ON d.day = s.day WHERE d.workspace_id = $1 AND {_between('d', parts, where)}"
        f"{_among('d', key_ids)}"
    )


def _cut_days(parts: Sequence[DayPart], where: Conditions, key_ids: str | None) -> str:
    """Return what lies between two quarters of a day: its running sum at the one less that at the other."""
    columns = [[part.day for part in parts], *([part[at] for part in parts] for at in (1, 2, 3))]
    days, starts, ends, buckets = (where.bind(column) for column in columns)
    held = each(lambda name: f"r.{name}[i.upto] - coalesce(r.{name}[i.before], 0) AS {name}")
    return (
        f"SELECT s.bucket, r.key_id, {TEXTS}, {held} "
        f"FROM unnest({days}::date[], {starts}::smallint[], {ends}::smallint[], {buckets}::integer[]) "
        "AS s(day, first, last, bucket) JOIN usage_key_day_running r ON r.day = s.day "
        "CROSS JOIN LATERAL (SELECT width_bucket((s.first - 1)::smallint, r.quarters) AS before, "
        "width_bucket((s.last - 1)::smallint, r.quarters) AS upto) AS i "
        f"WHERE r.workspace_id = $1 AND {_between('r', parts, where)} AND i.upto > i.before{_among('r', key_ids)}"
    )


def _between(table: str, parts: Sequence[DayPart], where: Conditions) -> str:
    return f"{table}.day BETWEEN {where.bind(parts[0].day)} AND {where.bind(parts[-1].day)}"


def _among(table: str, key_ids: str | None) -> str:
    return "" if key_ids is None else f" AND {table}.key_id = ANY({key_ids})"
