"""What the reports have in common: what may be asked, of which apis, and what storage is asked for (spec §5)."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Protocol, TypeVar
from uuid import UUID

from latchkey_server.domain import errors
from latchkey_server.domain.model import Caller
from latchkey_server.domain.reporting.buckets import Bucket, Width, buckets, check_range, time_zone
from latchkey_server.domain.validation import Violations

TOP_MAX = 1_000
VALUES_MAX = 100
"""Values that one list of a filter may hold."""

DEFAULT_ROWS, MAX_ROWS = 1_000, 10_000


class LabelFilter(Protocol):
    """The part of a filter that asks for labels."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels, none of them empty."""
        ...

    @property
    def unlabeled(self) -> bool:
        """Whether keys without a label are asked for."""
        ...


Dimension = TypeVar("Dimension", bound=enum.IntEnum)
Filter = TypeVar("Filter", bound=LabelFilter)
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class ReportRequest(Generic[Dimension, Filter]):
    """A report as it is asked for."""

    start: datetime
    end: datetime
    wanted: Filter
    width: Width = Width.NONE
    zone: str = ""
    group_by: tuple[Dimension, ...] = ()
    top: int = 0


@dataclass(frozen=True, slots=True)
class ReportQuery(Generic[Dimension, Filter]):
    """A report as storage is asked for it: rows ``offset`` to ``offset`` + ``limit`` of its buckets and groups."""

    buckets: Sequence[Bucket]
    group_by: tuple[Dimension, ...]
    wanted: Filter
    top: int
    offset: int
    limit: int


@dataclass(frozen=True, slots=True)
class ReportRow(Generic[Dimension, Value]):
    """One group in one bucket; ``group`` is empty on the row that sums all groups outside ``top``."""

    bucket: Bucket
    group: dict[Dimension, Value]
    other: bool
    overflow: bool
    """Whether the group is the overflow: everything beyond the tracked combinations, summed together."""


@dataclass(frozen=True, slots=True)
class ReportKey:
    """A key as reports show it."""

    key_id: UUID
    name: str
    deleted: bool
    revoked: bool


def query_of(
    request: ReportRequest[Dimension, Filter], size: int, cursor: str | None
) -> ReportQuery[Dimension, Filter]:
    """Return what storage is asked for; raises InvalidField and PageTokenInvalid."""
    check_range(request.start, request.end)
    found = Violations()
    if not 0 <= request.top <= TOP_MAX:
        found.add("top", f"must be 0 to {TOP_MAX:,}")
    if len(set(request.group_by)) != len(request.group_by):
        found.add("group_by", "must not name a dimension twice")
    found.check()
    return ReportQuery(
        buckets=buckets(request.start, request.end, request.width, time_zone(request.zone)),
        group_by=request.group_by,
        wanted=request.wanted,
        top=request.top if request.group_by else 0,
        offset=_offset(cursor),
        limit=size,
    )


def within_binding(caller: Caller, api_ids: tuple[UUID, ...]) -> tuple[UUID, ...] | None:
    """Return the apis to ask about, narrowed to the caller's binding; None when nothing can match."""
    if not caller.api_ids:
        return api_ids
    narrowed = caller.api_ids.intersection(api_ids) if api_ids else caller.api_ids
    return tuple(sorted(narrowed)) or None


def _offset(cursor: str | None) -> int:
    """Return how many rows of a report come before a page; raises PageTokenInvalid."""
    if cursor is None:
        return 0
    if not cursor.isdecimal() or len(cursor) > 12:
        raise errors.PageTokenInvalid
    return int(cursor)
