"""The key's row: one table of its columns, and back to a Key."""

from collections.abc import Callable
from sys import intern
from typing import NamedTuple

from latchkey_server.domain.model import (
    CreditRefill,
    Credits,
    Json,
    Key,
    KeyFields,
    ModelLimits,
    RefillInterval,
    SpendLimit,
    SpendReset,
)
from latchkey_server.domain.ratelimit_json import ratelimits_json, ratelimits_of
from latchkey_server.storage.database import Row
from latchkey_server.storage.rows import revocation_of


class Column(NamedTuple):
    """A column of ``key`` and what a key puts there."""

    name: str
    value: Callable[[Key], object]
    fixed: bool = False
    """Whether it is written when the key is made, and by no update of the key."""


KEY_COLUMNS = (
    Column("workspace_id", lambda key: key.workspace_id, fixed=True),
    Column("key_id", lambda key: key.key_id, fixed=True),
    Column("api_id", lambda key: key.api_id, fixed=True),
    Column("identity_id", lambda key: key.identity_id),
    Column("prefix", lambda key: key.prefix, fixed=True),
    Column("name", lambda key: key.fields.name),
    Column("environment", lambda key: key.fields.environment),
    # A new key's usage is summed under the label that it begins with; from then on this column is upkeep's.
    Column("attributed_environment", lambda key: key.fields.environment, fixed=True),
    Column("enabled", lambda key: key.fields.enabled),
    Column("expire_time", lambda key: key.fields.expire_time),
    Column("not_before_time", lambda key: key.fields.not_before_time),
    Column("models_enabled", lambda key: _models_enabled(key.fields.model_limits)),
    Column("models", lambda key: _models(key.fields.model_limits)),
    Column("allow_ips", lambda key: list(key.fields.allow_ips)),
    Column("scopes", lambda key: list(key.fields.scopes)),
    Column("spend_limit_nanos", lambda key: _spend_amount(key.fields.spend_limit)),
    Column("spend_reset", lambda key: _spend_reset(key.fields.spend_limit)),
    Column("credits_amount", lambda key: key.fields.credits.amount if key.fields.credits else None),
    Column("refill_interval", lambda key: _refill(key, lambda refill: int(refill.interval))),
    Column("refill_amount", lambda key: _refill(key, lambda refill: refill.amount)),
    Column("refill_day", lambda key: _refill(key, lambda refill: refill.day_of_month)),
    Column("ratelimits", lambda key: ratelimits_json(key.fields.ratelimits)),
    Column("guardrail_id", lambda key: key.fields.guardrail_id),
    Column("firewall_policy_id", lambda key: key.fields.firewall_policy_id),
    Column("member", lambda key: key.fields.member),
    Column("metadata", lambda key: key.fields.metadata),
    Column("revoke_reason", lambda key: int(key.revocation.reason) if key.revocation else None),
    Column("revoke_note", lambda key: key.revocation.note if key.revocation else ""),
    Column("revoke_time", lambda key: key.revocation.revoke_time if key.revocation else None),
    Column("create_time", lambda key: key.create_time, fixed=True),
    Column("update_time", lambda key: key.update_time),
    Column("delete_time", lambda key: key.delete_time),
    Column("revision", lambda key: key.revision),
)
"""Every column of the table; inserts, updates and reads are all written from this one list."""


def key_of(row: Row, *, with_metadata: bool = True) -> Key:
    """Return the key in a row that also has its identity's ``external_id``, or NULL.

    Texts that many keys share are interned: a hundred thousand keys may be in memory.
    """
    return Key(
        workspace_id=row["workspace_id"],
        key_id=row["key_id"],
        api_id=row["api_id"],
        prefix=intern(row["prefix"]),
        fields=_key_fields(row, row["metadata"] if with_metadata else {}),
        identity_id=row["identity_id"],
        revocation=revocation_of(row),
        create_time=row["create_time"],
        update_time=row["update_time"],
        delete_time=row["delete_time"],
        revision=row["revision"],
    )


def _key_fields(row: Row, metadata: Json) -> KeyFields:
    return KeyFields(
        name=row["name"],
        environment=intern(row["environment"]),
        enabled=row["enabled"],
        expire_time=row["expire_time"],
        not_before_time=row["not_before_time"],
        model_limits=_model_limits(row),
        allow_ips=tuple(row["allow_ips"]),
        scopes=tuple(map(intern, row["scopes"])),
        spend_limit=_spend_limit(row),
        credits=_credits(row),
        ratelimits=ratelimits_of(row["ratelimits"]),
        guardrail_id=row["guardrail_id"],
        firewall_policy_id=row["firewall_policy_id"],
        external_id=row["external_id"] or "",
        member=intern(row["member"]),
        metadata=metadata,
    )


def _models_enabled(limits: ModelLimits | None) -> bool | None:
    return limits.enabled if limits else None


def _models(limits: ModelLimits | None) -> list[str] | None:
    return list(limits.models) if limits else None


def _spend_amount(limit: SpendLimit | None) -> int | None:
    return limit.amount if limit else None


def _spend_reset(limit: SpendLimit | None) -> int | None:
    return int(limit.reset_interval) if limit else None


def _refill(key: Key, value: Callable[[CreditRefill], int]) -> int | None:
    credits = key.fields.credits
    return value(credits.refill) if credits and credits.refill else None


def _model_limits(row: Row) -> ModelLimits | None:
    if row["models_enabled"] is None:
        return None
    return ModelLimits(row["models_enabled"], tuple(row["models"]))


def _spend_limit(row: Row) -> SpendLimit | None:
    if row["spend_limit_nanos"] is None:
        return None
    return SpendLimit(row["spend_limit_nanos"], SpendReset(row["spend_reset"]))


def _credits(row: Row) -> Credits | None:
    if row["credits_amount"] is None:
        return None
    if row["refill_interval"] is None:
        return Credits(row["credits_amount"], None)
    interval = RefillInterval(row["refill_interval"])
    return Credits(row["credits_amount"], CreditRefill(interval, row["refill_amount"], row["refill_day"]))
