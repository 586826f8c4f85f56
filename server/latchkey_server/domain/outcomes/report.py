"""Reports on verifications: what storage is asked for and what it answers (spec §5)."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from latchkey_server.domain.reporting.request import ReportKey, ReportQuery, ReportRequest, ReportRow
from latchkey_server.domain.verify.model import Code


class VerificationDimension(enum.IntEnum):
    """What verifications can be grouped by; the numbers are the proto's."""

    CODE = 1
    ENVIRONMENT = 2
    KEY = 3
    API = 4
    CALLING_SERVICE = 5
    MODEL = 6
    TAG = 7
    PREFIX = 8


VerificationGroupValue = int | str | UUID | ReportKey | None
"""None is the label, the key and the api of a secret that no key has."""


@dataclass(frozen=True, slots=True)
class VerificationFilter:
    """What is summed; an empty tuple does not filter. Labels are normalised; keys carry them now."""

    codes: tuple[Code, ...] = ()
    labels: tuple[str, ...] = ()
    unlabeled: bool = False
    key_ids: tuple[UUID, ...] = ()
    api_ids: tuple[UUID, ...] = ()
    calling_service_ids: tuple[UUID, ...] = ()
    models: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    unknown_secrets: bool = False


@dataclass(frozen=True, slots=True)
class VerificationRequest(ReportRequest[VerificationDimension, VerificationFilter]):
    """A report on verifications as it is asked for."""


VerificationQuery = ReportQuery[VerificationDimension, VerificationFilter]
"""A report on verifications as storage is asked for it."""


def asks_by_tag(query: VerificationQuery) -> bool:
    """Tell whether tags are asked about: then a verification counts once in each of its tags."""
    return VerificationDimension.TAG in query.group_by or bool(query.wanted.tags)


@dataclass(frozen=True, slots=True)
class VerificationRow(ReportRow[VerificationDimension, VerificationGroupValue]):
    """How many verifications a group had in a bucket."""

    count: int


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """The rows from ``offset`` on and the total of the whole selection in one snapshot, taken at ``as_of``."""

    rows: Sequence[VerificationRow] = ()
    total: int = 0
    as_of: datetime | None = None
    offset: int = 0
    more: bool = False
