"""Reports on usage: what storage is asked for and what it answers (spec §5)."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from latchkey_server.domain import errors
from latchkey_server.domain.reporting.request import ReportKey, ReportQuery, ReportRequest, ReportRow
from latchkey_server.domain.usage.event import UsageEvent, UsageType

SUM_MAX = 2**63 - 1


class UsageDimension(enum.IntEnum):
    """What usage can be grouped by; the numbers are the proto's."""

    ENVIRONMENT = 1
    KEY = 2
    MODEL = 3
    MEMBER = 4
    TASK = 5
    IDENTITY = 6
    API = 7


class Measure(enum.IntEnum):
    """The numbers that usage is reported in; the numbers are the proto's."""

    SPEND = 1
    ADJUSTMENTS = 2
    NET_SPEND = 3
    REQUESTS = 4
    INPUT_TOKENS = 5
    OUTPUT_TOKENS = 6
    CACHED_TOKENS = 7
    TOTAL_TOKENS = 8


@dataclass(frozen=True, slots=True)
class UsageFilter:
    """What is summed or listed; an empty tuple does not filter. Labels are normalised; keys carry them now."""

    labels: tuple[str, ...] = ()
    unlabeled: bool = False
    key_ids: tuple[UUID, ...] = ()
    models: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    external_ids: tuple[str, ...] = ()
    api_ids: tuple[UUID, ...] = ()


@dataclass(frozen=True, slots=True)
class Measures:
    """The sums of a group in a bucket; money in nano-dollars."""

    spend: int = 0
    adjustments: int = 0
    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    def require_in_range(self) -> None:
        """Raise SumOutOfRange for a count beyond int64; money is sent as whole dollars, in which any sum fits."""
        counts = {
            "requests": self.requests,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "cached_tokens": self.cached_tokens,
            "total_tokens": self.input_tokens + self.output_tokens,
        }
        for measure, count in counts.items():
            if count > SUM_MAX:
                raise errors.SumOutOfRange(measure)


UsageGroupValue = str | UUID | ReportKey


@dataclass(frozen=True, slots=True)
class UsageRequest(ReportRequest[UsageDimension, UsageFilter]):
    """A report on usage as it is asked for."""

    order_by: Measure = Measure.SPEND


UsageQuery = ReportQuery[UsageDimension, UsageFilter]
"""A report on usage as storage is asked for it."""


@dataclass(frozen=True, slots=True)
class UsageRow(ReportRow[UsageDimension, UsageGroupValue]):
    """What a group used in a bucket."""

    measures: Measures


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The rows from ``offset`` on and the totals of the whole selection in one snapshot, taken at ``as_of``."""

    rows: Sequence[UsageRow] = ()
    totals: Measures = Measures()
    as_of: datetime | None = None
    offset: int = 0
    more: bool = False
    """Whether rows follow behind these."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Which events a page holds: those before the cursor (occurred_time, id hash) in [start, end)."""

    start: datetime
    end: datetime
    wanted: UsageFilter = UsageFilter()
    types: tuple[UsageType, ...] = ()
    limit: int = 50
    before: tuple[datetime, bytes] | None = None


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """An event as it is stored, its defaults filled in."""

    event: UsageEvent
    record_time: datetime
    cursor: str
