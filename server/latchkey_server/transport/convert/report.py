"""What requests for reports have in common, and the filters of lists too."""

import enum
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Generic, Protocol, TypedDict, TypeVar

from latchkey.v1 import environment_pb2
from latchkey_server.domain.reporting.buckets import Width
from latchkey_server.domain.reporting.request import VALUES_MAX
from latchkey_server.domain.validation import Violations, check_environment, check_storable, counted
from latchkey_server.transport.convert.well_known import read_enum, required_time

Dimension = TypeVar("Dimension", bound=enum.IntEnum)

LABELS_MAX = 100


def read_labels(filter_: environment_pb2.EnvironmentFilter, found: Violations, field: str) -> tuple[str, ...]:
    """Return the labels of a filter, normalised; what is wrong is noted."""
    asked = counted(found, f"{field}.labels", filter_.labels, LABELS_MAX)
    return tuple(check_environment(found, f"{field}.labels[{index}]", label) for index, label in enumerate(asked))


def read_texts(found: Violations, field: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Return texts to compare with stored ones; what is wrong is noted."""
    asked = counted(found, field, texts, VALUES_MAX)
    return tuple(check_storable(found, f"{field}[{index}]", text) for index, text in enumerate(asked))


class ReportMessage(Protocol):
    """A request for a report, whatever it is about; ``group_by`` holds numbers of an enum."""

    @property
    def bucket_width(self) -> int: ...
    @property
    def time_zone(self) -> str: ...
    @property
    def group_by(self) -> Sequence[int]: ...
    @property
    def top(self) -> int: ...
    def HasField(self, field_name: Any) -> bool: ...


class ReportFields(TypedDict, Generic[Dimension]):
    """What every report is asked."""

    start: datetime
    end: datetime
    width: Width
    zone: str
    group_by: tuple[Dimension, ...]
    top: int


def read_report(found: Violations, request: ReportMessage, dimension: type[Dimension]) -> ReportFields[Dimension]:
    """Return what every report is asked; what is wrong is noted."""
    grouped = counted(found, "group_by", request.group_by, len(dimension))
    return {
        "start": required_time(found, "start_time", request, "start_time"),
        "end": required_time(found, "end_time", request, "end_time"),
        "width": read_enum(found, "bucket_width", Width, request.bucket_width, Width.NONE),
        "zone": request.time_zone,
        "group_by": tuple(
            read_enum(found, f"group_by[{index}]", dimension, value) for index, value in enumerate(grouped)
        ),
        "top": request.top,
    }
