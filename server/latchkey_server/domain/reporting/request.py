"""What the reports have in common: what may be asked, of which apis, and from which row on (spec §5)."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from latchkey_server.domain import errors
from latchkey_server.domain.model import Caller
from latchkey_server.domain.reporting.buckets import check_range
from latchkey_server.domain.validation import Violations

TOP_MAX = 1_000


def check_report(start: datetime, end: datetime, group_by: Sequence[object], top: int) -> None:
    """Raise InvalidField for a range, groups or a top that no report can have."""
    check_range(start, end)
    found = Violations()
    if not 0 <= top <= TOP_MAX:
        found.add("top", f"must be 0 to {TOP_MAX:,}")
    if len(set(group_by)) != len(group_by):
        found.add("group_by", "must not name a dimension twice")
    found.check()


def offset_of(cursor: str | None) -> int:
    """Return how many rows of a report come before a page; raises PageTokenInvalid."""
    if cursor is None:
        return 0
    if not cursor.isdecimal() or len(cursor) > 12:
        raise errors.PageTokenInvalid
    return int(cursor)


def within_binding(caller: Caller, api_ids: tuple[UUID, ...]) -> tuple[UUID, ...] | None:
    """Return the apis to ask about, narrowed to the caller's binding; None when nothing can match."""
    if not caller.api_ids:
        return api_ids
    narrowed = caller.api_ids.intersection(api_ids) if api_ids else caller.api_ids
    return tuple(sorted(narrowed)) or None
