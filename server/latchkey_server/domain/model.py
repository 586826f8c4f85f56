"""The nouns: immutable facts, as they are stored. What is derived from them is computed where it is needed."""

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

Json = dict[str, Any]
"""A JSON object."""


class Role(enum.IntEnum):
    """What a management key may do; the numbers are the proto's and the database's."""

    VERIFIER = 1
    VIEWER = 2
    DEVELOPER = 3
    ADMIN = 4
    OWNER = 5


class ChangeKind(enum.IntEnum):
    """What changed, for caches; the numbers are the database's."""

    KEY_CHANGED = 1
    SECRET_ADDED = 2
    IDENTITY_CHANGED = 3
    API_CHANGED = 4
    WORKSPACE_CHANGED = 5
    MANAGEMENT_KEY_CHANGED = 6


class SpendReset(enum.IntEnum):
    """How often a spend cap begins anew; the numbers are the proto's and the database's."""

    NONE = 1
    DAILY = 2
    WEEKLY = 3
    MONTHLY = 4


class RefillInterval(enum.IntEnum):
    """How often credits are refilled; the numbers are the proto's and the database's."""

    DAILY = 1
    MONTHLY = 2


class OnUnavailable(enum.IntEnum):
    """What a rate limit decides while it can't be counted; the numbers are the proto's."""

    DENY = 1
    ALLOW = 2


class RevokeReason(enum.IntEnum):
    """Why something was revoked; the numbers are the proto's and the database's."""

    COMPROMISED = 1
    SUPERSEDED = 2
    NO_LONGER_USED = 3
    POLICY_VIOLATION = 4
    MEMBER_LEFT = 5
    OTHER = 6


class KeyStatus(enum.IntEnum):
    """What a key's facts amount to at one instant; the numbers are the proto's."""

    ACTIVE = 1
    DISABLED = 2
    NOT_YET_VALID = 3
    EXPIRED = 4
    EXHAUSTED = 5
    REVOKED = 6
    DELETED = 7


@dataclass(frozen=True, slots=True)
class WorkspaceSettings:
    """What a workspace's ADMINs may choose."""

    default_prefix: str = ""
    max_cacheable_for: timedelta = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Workspace:
    """A tenant; ``revision`` is that of its own last change."""

    workspace_id: UUID
    name: str
    enabled: bool
    root: bool
    default_api_id: UUID
    settings: WorkspaceSettings
    create_time: datetime
    update_time: datetime
    revision: int


@dataclass(frozen=True, slots=True)
class Api:
    """A named set of keys."""

    workspace_id: UUID
    api_id: UUID
    name: str
    is_default: bool
    create_time: datetime
    update_time: datetime
    revision: int


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most ``limit`` units in any window of this length."""

    name: str
    limit: int
    window: timedelta
    auto_apply: bool
    on_unavailable: OnUnavailable


@dataclass(frozen=True, slots=True)
class Identity:
    """The end customer that keys belong to."""

    workspace_id: UUID
    identity_id: UUID
    external_id: str
    metadata: Json
    ratelimits: tuple[RateLimit, ...]
    create_time: datetime
    update_time: datetime
    revision: int


@dataclass(frozen=True, slots=True)
class Revocation:
    """Why and when something was revoked."""

    reason: RevokeReason
    note: str
    revoke_time: datetime


@dataclass(frozen=True, slots=True)
class ManagementKey:
    """A credential for Latchkey's own RPCs; no ``api_ids`` means all."""

    workspace_id: UUID
    management_key_id: UUID
    name: str
    role: Role
    member: str
    api_ids: frozenset[UUID]
    all_workspaces: bool
    expire_time: datetime | None
    revocation: Revocation | None
    create_time: datetime
    update_time: datetime
    revision: int


@dataclass(frozen=True, slots=True)
class Caller:
    """The management key that a call was authenticated with; no ``api_ids`` means all apis."""

    workspace_id: UUID
    management_key_id: UUID
    role: Role
    member: str = ""
    api_ids: frozenset[UUID] = frozenset()
    all_workspaces: bool = False
    root: bool = False

    def covers_api(self, api_id: UUID) -> bool:
        """Tell whether the binding allows this api."""
        return not self.api_ids or api_id in self.api_ids

    @property
    def root_owner(self) -> bool:
        """Tell whether this is an OWNER of the root workspace, not bound to apis."""
        return self.root and self.role is Role.OWNER and not self.api_ids


class Holder(enum.IntEnum):
    """What a secret belongs to; the numbers are the database's."""

    KEY = 1
    MANAGEMENT_KEY = 2


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret of a key or management key: its hash and what may be shown of it, never the secret.

    ``ended`` is the fact that it was ended at once; otherwise it lasts until ``end_time``, or as long as its holder.
    """

    workspace_id: UUID
    holder_id: UUID
    secret_id: UUID
    holder: Holder
    hash: bytes
    pepper_id: str
    mask: str
    create_time: datetime
    end_time: datetime | None
    ended: bool


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """Which models a key may be used with; a disabled list is stored and ignored."""

    enabled: bool
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SpendLimit:
    """A spend cap in nano-dollars, never 0: no cap is no SpendLimit."""

    amount: int
    reset_interval: SpendReset


@dataclass(frozen=True, slots=True)
class CreditRefill:
    """Raises a balance to at least ``amount`` at 00:00 UTC."""

    interval: RefillInterval
    amount: int
    day_of_month: int


@dataclass(frozen=True, slots=True)
class Credits:
    """A whole-number budget spent by verifications."""

    amount: int
    refill: CreditRefill | None


@dataclass(frozen=True, slots=True)
class Balance:
    """A credit balance as stored: refills due after ``settled_time`` are not in ``remaining`` yet."""

    remaining: int
    settled_time: datetime


@dataclass(frozen=True, slots=True)
class KeyFields:
    """What Create and Update set. Empty text and None are the cleared states."""

    name: str = ""
    environment: str = ""
    enabled: bool = True
    expire_time: datetime | None = None
    not_before_time: datetime | None = None
    model_limits: ModelLimits | None = None
    allow_ips: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    spend_limit: SpendLimit | None = None
    credits: Credits | None = None
    ratelimits: tuple[RateLimit, ...] = ()
    guardrail_id: str = ""
    firewall_policy_id: str = ""
    external_id: str = ""
    member: str = ""
    metadata: Json = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Key:
    """An API key."""

    workspace_id: UUID
    key_id: UUID
    api_id: UUID
    prefix: str
    fields: KeyFields
    identity_id: UUID | None
    revocation: Revocation | None
    create_time: datetime
    update_time: datetime
    delete_time: datetime | None
    revision: int


@dataclass(frozen=True, slots=True)
class SpendState:
    """How far a spend cap is used, in nano-dollars."""

    limit: int
    spent: int
    reserved: int
    window_end: datetime | None

    @property
    def remaining(self) -> int:
        """What may still be spent, never below zero."""
        return max(0, self.limit - self.spent - self.reserved)


@dataclass(frozen=True, slots=True)
class CreditState:
    """What remains of the credits at one instant."""

    remaining: int
    next_refill_time: datetime | None


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key with everything that is derived from it or stored beside it, as KeyService returns it."""

    key: Key
    secrets: tuple[Secret, ...]
    status: KeyStatus
    credits: CreditState | None
    spend: SpendState | None
    last_used_time: datetime | None


@dataclass(frozen=True, slots=True)
class Change:
    """One change that can alter an answer of Verify."""

    kind: ChangeKind
    target_id: UUID


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One mutation, with the target's facts before and after, without secrets."""

    workspace_id: UUID
    audit_event_id: UUID
    actor_id: UUID | None
    actor_member: str
    action: str
    target_id: str
    before: Json | None
    after: Json | None
    call_id: str
    peer: str
    event_time: datetime


@dataclass(frozen=True, slots=True)
class Revision:
    """How much of a workspace's history an answer has seen."""

    workspace_id: UUID
    number: int


def etag_of(revision: int) -> str:
    """Return the opaque etag of a resource whose last change made ``revision``."""
    return f"r{revision}"


@dataclass(frozen=True, slots=True)
class EnvironmentCount:
    """How many keys carry a label; the empty label counts the unlabeled ones."""

    environment: str
    key_count: int
