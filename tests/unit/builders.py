"""Nouns for tests: valid unless a test says otherwise, at one fixed instant."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from latchkey_server.domain.errors import InvalidField
from latchkey_server.domain.freshness import History
from latchkey_server.domain.model import (
    Caller,
    Credits,
    CreditState,
    Holder,
    Identity,
    Key,
    KeyFields,
    ManagementKey,
    ModelLimits,
    OnUnavailable,
    RateLimit,
    Revocation,
    RevokeReason,
    Role,
    Secret,
    SpendState,
    Workspace,
    WorkspaceSettings,
)
from latchkey_server.domain.usage import event as usage
from latchkey_server.domain.usage.event import StoredEvent, UsageEvent, UsageType
from latchkey_server.domain.validation import Violations
from latchkey_server.domain.verify.command import Asked
from latchkey_server.domain.verify.model import Question, Record

NOW = datetime(2026, 3, 14, 15, 9, 26, 535_000, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def uuid_of(number: int) -> UUID:
    """Return a UUIDv7 that differs by its number."""
    return UUID(int=(0x019C_0000_0000_7000_8000 << 48) | number)


WORKSPACE_ID, OTHER_WORKSPACE_ID = uuid_of(1), uuid_of(2)
API_ID, OTHER_API_ID = uuid_of(11), uuid_of(12)
KEY_ID, OTHER_KEY_ID = uuid_of(21), uuid_of(22)
IDENTITY_ID = uuid_of(31)
MANAGEMENT_KEY_ID = uuid_of(41)
SECRET_ID = uuid_of(51)
REVOCATION = Revocation(RevokeReason.COMPROMISED, "leaked", NOW - timedelta(hours=1))


def at(text: str) -> datetime:
    """Return the UTC instant that ISO text names."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def make_key(fields: KeyFields | None = None, **changes: Any) -> Key:
    """Return a key that nothing refuses."""
    facts: dict[str, Any] = {
        "workspace_id": WORKSPACE_ID,
        "key_id": KEY_ID,
        "api_id": API_ID,
        "prefix": "sk",
        "fields": fields or KeyFields(),
        "identity_id": None,
        "revocation": None,
        "create_time": NOW - timedelta(days=1),
        "update_time": NOW - timedelta(days=1),
        "delete_time": None,
        "revision": 3,
    }
    return Key(**{**facts, **changes})


def make_record(key: Key | None = None, **changes: Any) -> Record:
    """Return a record of a key that nothing refuses, by a secret that lasts."""
    facts: dict[str, Any] = {
        "key": key or make_key(),
        "secret_id": SECRET_ID,
        "secret_end_time": None,
        "secret_ended": False,
        "identity": None,
        "workspace_enabled": True,
        "max_cacheable_for": timedelta(seconds=60),
        "credits": None,
        "spend": None,
        "revision": 7,
        "read_at": 0.0,
        "history": make_history(),
    }
    return Record(**{**facts, **changes})


def make_history(**changes: Any) -> History:
    """Return the history of the key's workspace, followed to the record's revision."""
    return History(**{"workspace_id": WORKSPACE_ID, "revision": 7, "confirmed_at": 0.0, **changes})


def make_asked(sha256: bytes, **changes: Any) -> Asked:
    """Return a question about one secret that asks nothing beyond it."""
    return Asked(sha256, make_question(**changes))


def make_question(**changes: Any) -> Question:
    """Return a question that asks nothing beyond the secret."""
    return Question(**changes)


def make_caller(**changes: Any) -> Caller:
    """Return a VERIFIER of the key's workspace."""
    facts: dict[str, Any] = {
        "workspace_id": WORKSPACE_ID,
        "management_key_id": MANAGEMENT_KEY_ID,
        "role": Role.VERIFIER,
    }
    return Caller(**{**facts, **changes})


def make_identity(*limits: RateLimit, **changes: Any) -> Identity:
    """Return an identity with these rate limits."""
    facts: dict[str, Any] = {
        "workspace_id": WORKSPACE_ID,
        "identity_id": IDENTITY_ID,
        "external_id": "customer-1",
        "metadata": {},
        "ratelimits": limits,
        "create_time": NOW,
        "update_time": NOW,
        "revision": 2,
    }
    return Identity(**{**facts, **changes})


def make_ratelimit(name: str = "requests", **changes: Any) -> RateLimit:
    """Return a rate limit of 10 a minute."""
    facts: dict[str, Any] = {
        "limit": 10,
        "window": timedelta(minutes=1),
        "auto_apply": True,
        "on_unavailable": OnUnavailable.DENY,
    }
    return RateLimit(name=name, **{**facts, **changes})


def make_secret(**changes: Any) -> Secret:
    """Return a key's secret."""
    facts: dict[str, Any] = {
        "workspace_id": WORKSPACE_ID,
        "holder_id": KEY_ID,
        "secret_id": SECRET_ID,
        "holder": Holder.KEY,
        "hash": b"\x01" * 32,
        "pepper_id": "pepper-2026",
        "mask": "sk_abcd••••••••wxyz",
        "create_time": NOW,
        "end_time": None,
        "ended": False,
    }
    return Secret(**{**facts, **changes})


def make_management_key(**changes: Any) -> ManagementKey:
    """Return a DEVELOPER's management key."""
    facts: dict[str, Any] = {
        "workspace_id": WORKSPACE_ID,
        "management_key_id": MANAGEMENT_KEY_ID,
        "name": "deploy",
        "role": Role.DEVELOPER,
        "member": "ada",
        "api_ids": frozenset(),
        "all_workspaces": False,
        "expire_time": None,
        "revocation": None,
        "create_time": NOW,
        "update_time": NOW,
        "revision": 5,
    }
    return ManagementKey(**{**facts, **changes})


def make_workspace(**changes: Any) -> Workspace:
    """Return a tenant."""
    facts: dict[str, Any] = {
        "workspace_id": WORKSPACE_ID,
        "name": "acme",
        "enabled": True,
        "root": False,
        "default_api_id": API_ID,
        "settings": WorkspaceSettings(),
        "create_time": NOW,
        "update_time": NOW,
        "revision": 1,
    }
    return Workspace(**{**facts, **changes})


def make_event(**changes: Any) -> UsageEvent:
    """Return a CONSUME event that is accepted."""
    facts: dict[str, Any] = {
        "source": "gateway",
        "event_id": "evt-1",
        "key_id": KEY_ID,
        "type": UsageType.CONSUME,
        "occurred_time": NOW,
    }
    return UsageEvent(**{**facts, **changes})


def every_field() -> KeyFields:
    """Return fields that are all set, already in the form in which they are stored."""
    return KeyFields(
        name="Checkout",
        environment="prod",
        enabled=False,
        expire_time=NOW + timedelta(days=9),
        not_before_time=NOW - timedelta(days=9),
        model_limits=ModelLimits(True, ("small", "large")),
        allow_ips=("10.0.0.0/8", "2001:db8::1"),
        scopes=("docs.*", "docs.read"),
        credits=Credits(100, None),
        ratelimits=(make_ratelimit(),),
        guardrail_id="g-1",
        firewall_policy_id="f-1",
        external_id="customer-1",
        member="ada",
        metadata={"environment": "live", "tier": 3},
    )


def some_credits(remaining: int = 5) -> CreditState:
    """Return credits of which some remain."""
    return CreditState(remaining, None)


def some_spend(spent: int = 0) -> SpendState:
    """Return a cap of 100 nano-dollars for the key's life."""
    return SpendState(limit=100, spent=spent, reserved=0, window_end=None)


def problems_of(found: Violations) -> list[tuple[str, str]]:
    """Return the violations as (path, problem)."""
    return [(violation.field, violation.problem) for violation in found.found]


def fields_of(error: pytest.ExceptionInfo[InvalidField]) -> list[str]:
    """Return the paths that an InvalidField names."""
    return [violation.field for violation in error.value.violations]


def stored(event: UsageEvent, member: str = "") -> StoredEvent:
    """Return an event as it is recorded."""
    requests = usage.default_requests(event)
    return StoredEvent(event, usage.id_hash(event.source, event.event_id), usage.content_hash(event), member, requests)
