"""Where reports on verifications read from: counts by key or by label, as SQL.

By label is enough where nothing is asked of single keys: a few rows a quarter of an hour, however many keys there are.
Reports correct for retagged keys: their counts are added under their current label and subtracted under the attributed
one, so that a report follows the label at once.
"""

from collections.abc import Sequence

from latchkey_server.domain.outcomes.by_label import NO_API
from latchkey_server.domain.outcomes.counts import UNKNOWN
from latchkey_server.domain.outcomes.report import (
    VerificationDimension,
    VerificationFilter,
    VerificationQuery,
    asks_by_tag,
)
from latchkey_server.storage.reporting.retagged import Retagged, moved_keys
from latchkey_server.storage.reporting.statement import Span
from latchkey_server.storage.sql import Conditions, asked_labels

_COLUMNS = ("code", "management_key_id", "model", "tag", "prefix", "other")
_NAMES = ", ".join(_COLUMNS)
_COUNTED = ", ".join(f"v.{name}" for name in _COLUMNS)
_KEY = "key k ON k.workspace_id = v.workspace_id AND k.key_id = v.key_id"


def answered_by_label(query: VerificationQuery) -> bool:
    """Tell whether the counts by label hold all that a query asks about."""
    wanted = query.wanted
    # Only its key id distinguishes an unknown secret from a key that does not exist.
    return VerificationDimension.KEY not in query.group_by and not (wanted.key_ids or wanted.unknown_secrets)


def asks_about_labels(query: VerificationQuery) -> bool:
    """Tell whether an answer depends on the keys' labels: if not, retagged keys need no correction."""
    return VerificationDimension.ENVIRONMENT in query.group_by or bool(asked_labels(query.wanted))


def part_by_key(query: VerificationQuery, where: Conditions) -> str:
    """Return a common table expression ``part`` with bucket, key_id, environment, api_id and the counts.

    An unknown secret joins no key: its key_id, its label and its api are NULL.
    """
    span = _Span(query, where)
    of_keys = Conditions(span.within)
    of_keys.arguments = where.arguments
    of_keys.add_if(bool(query.wanted.key_ids), "v.key_id = ANY(?)", list(query.wanted.key_ids))
    of_keys.add_if(query.wanted.unknown_secrets, "v.key_id = ?", UNKNOWN)
    return (
        f"part AS (SELECT {span.bucket('v.quarter')} AS bucket, k.key_id, k.environment, k.api_id, {_COUNTED}, "
        "v.verifications "
        f"FROM verification_key_quarter v LEFT JOIN {_KEY} WHERE {of_keys.text})"
    )


def part_by_label(query: VerificationQuery, where: Conditions, moved: Sequence[Retagged]) -> str:
    """Return common table expressions, the last of which is ``part`` as by key, without key_id.

    ``moved`` are the retagged keys.
    """
    span = _Span(query, where)
    no_api = f"{where.bind(NO_API)}::uuid"
    by_label = (
        f"SELECT {span.bucket('v.quarter')} AS bucket, "
        f"CASE WHEN v.api_id <> {no_api} THEN v.environment END AS environment, "
        f"nullif(v.api_id, {no_api}) AS api_id, {_COUNTED}, v.verifications "
        f"FROM verification_label_quarter v WHERE {span.within}"
    )
    if not moved:
        return f"part AS ({by_label})"
    grouped = f"bucket, environment, attributed_environment, api_id, {_NAMES}"
    return f"""
        {moved_keys(where, moved)}, moved_part AS MATERIALIZED (
            SELECT {grouped}, sum(verifications)::bigint AS verifications
            FROM moved CROSS JOIN LATERAL (
                SELECT {span.bucket("v.quarter")} AS bucket, {_COUNTED}, v.verifications FROM verification_key_quarter v
                WHERE {span.within} AND v.key_id = moved.key_id OFFSET 0
            ) AS counted GROUP BY {grouped}
        ), part AS (
            {by_label}
            UNION ALL
            SELECT bucket, environment, api_id, {_NAMES}, verifications FROM moved_part
            UNION ALL
            SELECT bucket, attributed_environment, api_id, {_NAMES}, -verifications FROM moved_part
        )
    """


def filter_part(where: Conditions, wanted: VerificationFilter) -> str:
    """Return the filter of a report over ``part``; the overflow matches no free text."""
    filters = Conditions("true")
    filters.arguments = where.arguments
    labels = asked_labels(wanted)
    filters.add_if(bool(labels), "environment = ANY(?)", labels)
    filters.add_if(bool(wanted.codes), "code = ANY(?)", [int(code) for code in wanted.codes])
    filters.add_if(bool(wanted.api_ids), "api_id = ANY(?)", list(wanted.api_ids))
    filters.add_if(bool(wanted.calling_service_ids), "management_key_id = ANY(?)", list(wanted.calling_service_ids))
    filters.add_if(bool(wanted.models), "NOT other AND model = ANY(?)", list(wanted.models))
    filters.add_if(bool(wanted.tags), "NOT other AND tag = ANY(?)", list(wanted.tags))
    return filters.text


class _Span(Span):
    """Which rows of a table ``v`` a report is about."""

    def __init__(self, query: VerificationQuery, where: Conditions) -> None:
        super().__init__(query.buckets, where)
        self.within = (
            f"v.workspace_id = $1 AND v.quarter >= {self.start} AND v.quarter < {self.end} "
            f"AND {'v.tagged' if asks_by_tag(query) else 'NOT v.tagged'}"
        )
