"""What a verification is about: the question, what is known of the secret, and the verdict (spec §4)."""

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from latchkey_server.domain.freshness import HARD_BOUND, Confirmed, Freshness, History, Instant
from latchkey_server.domain.model import Change, CreditState, Identity, Key, RateLimit, Revision, SpendState

NO_TIME = timedelta(0)


class Code(enum.IntEnum):
    """The verdicts; the numbers are the proto's. After VALID they stand in the order of the checks."""

    VALID = 1
    NOT_FOUND = 2
    WORKSPACE_DISABLED = 3
    REVOKED = 4
    DISABLED = 5
    NOT_YET_VALID = 6
    EXPIRED = 7
    ENVIRONMENT_MISMATCH = 8
    IP_NOT_ALLOWED = 9
    MODEL_NOT_ALLOWED = 10
    INSUFFICIENT_SCOPE = 11
    RATE_LIMITED = 12
    SPEND_LIMIT_EXCEEDED = 13
    CREDITS_EXHAUSTED = 14


class CheckVerdict(enum.IntEnum):
    """What one check said; the numbers are the proto's."""

    PASSED = 1
    FAILED = 2
    NOT_ASKED = 3
    NOT_EVALUATED = 4
    NOT_ENFORCED = 5


class Degradation(enum.IntEnum):
    """A promise that an answer could not keep in full; the numbers are the proto's."""

    LIMIT_NOT_ENFORCED = 1
    STALE_RECORD = 2


@dataclass(frozen=True, slots=True)
class RateLimitCost:
    """A named limit that the caller wants applied."""

    name: str
    cost: int = 1


@dataclass(frozen=True, slots=True)
class Question:
    """What a caller asks about a secret, validated and normalised. What is None or empty is not checked."""

    api_id: UUID | None = None
    required_scopes: tuple[tuple[str, ...], ...] = ()
    environments: tuple[str, ...] = ()
    client_ip: str | None = None
    model: str | None = None
    cost: int = 1
    ratelimits: tuple[RateLimitCost, ...] = ()
    estimated_cost: int | None = None
    operation_id: str = ""
    tags: tuple[str, ...] = ()
    dry_run: bool = False
    explain: bool = False
    omit_metadata: bool = False
    min_revision: Revision | None = None
    max_staleness: timedelta | None = None
    freshness: Freshness | None = field(init=False, compare=False, repr=False)
    """What is demanded beyond the hard bound, or None."""
    particular: bool = field(init=False, compare=False, repr=False)
    """Whether its answer can't be reused, even if nothing has changed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "freshness", _freshness(self))
        once = (self.explain, self.freshness, self.operation_id, self.ratelimits, self.estimated_cost is not None)
        object.__setattr__(self, "particular", any(once))


@dataclass(slots=True)
class Record(Confirmed):
    """All that a verdict on one secret may depend on; key and workspace's ``revision`` were read in one snapshot.

    What does not depend on the question is computed once, when the record is made.
    """

    key: Key
    secret_id: UUID
    secret_end_time: datetime | None
    secret_ended: bool
    identity: Identity | None
    workspace_enabled: bool
    max_cacheable_for: timedelta
    credits: CreditState | None
    spend: SpendState | None
    revision: int
    read_at: Instant = field(compare=False)
    history: History = field(compare=False)
    metadata: str = "{}"
    """The key's metadata as JSON text, which takes a fraction of the memory; the key itself has none here."""
    identity_metadata: str = "{}"
    """The identity's, likewise."""
    ratelimits: tuple[RateLimit, ...] = field(init=False, compare=False)
    """The limits that apply: the key's own, then those of its identity that it does not override."""
    open_checks: int | None = field(default=None, compare=False, repr=False)
    """The bits of the checks that may refuse the key; set by the first decision."""
    used_minute: int = field(default=0, compare=False, repr=False)
    """The minute since 1970 in which its last use was noted."""
    answered: bool = field(default=False, compare=False, repr=False)
    """Whether transport has answered about this record before."""
    common: bytes | None = field(default=None, compare=False, repr=False)
    """The serialised part that all answers about this record share; set by transport once there was more than one."""
    common_bare: bytes | None = field(default=None, compare=False, repr=False)
    """The same without metadata."""
    ready: Any = field(default=None, compare=False, repr=False)
    """Transport's newest ready answer about this record."""
    more_ready: dict[Any, Any] | None = field(default=None, compare=False, repr=False)
    """A few further ones."""
    footprint: int = field(default=0, init=False, compare=False, repr=False)
    """The bytes that a cache has counted for it."""
    cached: bool = field(default=False, init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        self.ratelimits = _ratelimits(self.key, self.identity)

    @property
    def metered(self) -> bool:
        """Tell whether verifications of it spend a budget: then no cache may answer for it."""
        return self.credits is not None or self.spend is not None

    @property
    def limited(self) -> bool:
        """Tell whether a verification consumes anything."""
        return bool(self.ratelimits) or self.credits is not None or self.spend is not None


class CheckResult(NamedTuple):
    """One step of an explanation."""

    code: Code
    verdict: CheckVerdict
    input: str


class Verdict(NamedTuple):
    """The answer; ``record`` is None exactly when the code is NOT_FOUND. ``revision`` is what it has seen."""

    code: Code
    record: Record | None
    decided_time: datetime
    cacheable_for: timedelta = NO_TIME
    degraded: tuple[Degradation, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    revision: int = 0


@dataclass(frozen=True, slots=True)
class AppliedChange:
    """One change that this process has applied; ``api_id`` is the key's, if a key changed."""

    workspace_id: UUID
    revision: int
    change: Change
    api_id: UUID | None


def _freshness(question: Question) -> Freshness | None:
    if question.min_revision is None and question.max_staleness is None:
        return None
    narrowed = HARD_BOUND if question.max_staleness is None else question.max_staleness.total_seconds()
    return Freshness(min(narrowed, HARD_BOUND), question.min_revision)


def _ratelimits(key: Key, identity: Identity | None) -> tuple[RateLimit, ...]:
    own = key.fields.ratelimits
    if identity is None:
        return own
    names = {limit.name for limit in own}
    return own + tuple(limit for limit in identity.ratelimits if limit.name not in names)
