"""Reports on verifications: what storage is asked for and what it answers (spec §5)."""

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from latchkey_server.domain.reporting.buckets import Bucket
from latchkey_server.domain.usage.report import UsageKey
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


VerificationGroupValue = int | str | UUID | UsageKey | None
"""None is the label, the key and the api of a secret that no key has."""


@dataclass(frozen=True, slots=True)
class VerificationFilter:
    """What is summed; an empty tuple asks for nothing. Labels are those that keys carry now."""

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
class VerificationQuestion:
    """A report as storage is asked for it: rows ``offset`` to ``offset`` + ``limit`` of its buckets and groups."""

    buckets: Sequence[Bucket]
    group_by: tuple[VerificationDimension, ...]
    wanted: VerificationFilter
    top: int
    offset: int
    limit: int

    @property
    def by_tag(self) -> bool:
        """Tell whether tags are asked about: then a verification counts once in each of its tags."""
        return VerificationDimension.TAG in self.group_by or bool(self.wanted.tags)


@dataclass(frozen=True, slots=True)
class VerificationRow:
    """One group in one bucket; ``group`` is empty on the row that sums all groups outside ``top``."""

    bucket: Bucket
    group: dict[VerificationDimension, VerificationGroupValue]
    other: bool
    count: int
    beyond: bool = False
    """Whether model, tag and prefix are those beyond the combinations that are kept apart."""


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """The rows from ``offset`` on and the total of the whole selection in one snapshot, taken at ``as_of``."""

    rows: Sequence[VerificationRow] = ()
    total: int = 0
    as_of: datetime | None = None
    offset: int = 0
    more: bool = False
