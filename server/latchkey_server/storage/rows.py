"""Rows become nouns, and nouns rows: the conversions that several repositories share."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from sys import intern
from typing import Any

from latchkey_server.domain.model import (
    CreditRefill,
    Credits,
    Identity,
    Json,
    Key,
    KeyFields,
    ModelLimits,
    OnUnavailable,
    RateLimit,
    RefillInterval,
    Revocation,
    RevokeReason,
    SpendLimit,
    SpendReset,
)
from latchkey_server.storage.database import Row


def ratelimits_json(limits: Sequence[RateLimit]) -> list[dict[str, Any]]:
    """Return rate limits as they are stored; windows in whole seconds."""
    return [
        {
            "name": limit.name,
            "limit": limit.limit,
            "window": int(limit.window.total_seconds()),
            "auto_apply": limit.auto_apply,
            "on_unavailable": int(limit.on_unavailable),
        }
        for limit in limits
    ]


def ratelimits_of(stored: Sequence[dict[str, Any]]) -> tuple[RateLimit, ...]:
    """Return stored rate limits."""
    return tuple(
        RateLimit(
            name=item["name"],
            limit=item["limit"],
            window=timedelta(seconds=item["window"]),
            auto_apply=item["auto_apply"],
            on_unavailable=OnUnavailable(item["on_unavailable"]),
        )
        for item in stored
    )


def revocation_of(row: Row) -> Revocation | None:
    """Return the revocation in a row, or None."""
    if row["revoke_time"] is None:
        return None
    return Revocation(RevokeReason(row["revoke_reason"]), row["revoke_note"], row["revoke_time"])


def identity_of(row: Row) -> Identity:
    """Return the identity in a row."""
    return Identity(
        workspace_id=row["workspace_id"],
        identity_id=row["identity_id"],
        external_id=row["external_id"],
        metadata=row["metadata"],
        ratelimits=ratelimits_of(row["ratelimits"]),
        create_time=row["create_time"],
        update_time=row["update_time"],
        revision=row["revision"],
    )


KEY_COLUMNS = (
    "workspace_id, key_id, api_id, identity_id, prefix, name, environment, folded_environment, enabled, expire_time, "
    "not_before_time, models_enabled, models, allow_ips, scopes, spend_limit_nanos, spend_reset, credits_amount, "
    "refill_interval, refill_amount, refill_day, ratelimits, guardrail_id, firewall_policy_id, member, metadata, "
    "revoke_reason, revoke_note, revoke_time, create_time, update_time, delete_time, revision"
)
"""The columns of ``key_values``, in its order."""


def key_values(key: Key) -> tuple[object, ...]:
    """Return a key as the values of KEY_COLUMNS. A new key's usage is folded under the label that it begins with."""
    fields = key.fields
    return (
        key.workspace_id,
        key.key_id,
        key.api_id,
        key.identity_id,
        key.prefix,
        fields.name,
        fields.environment,
        fields.environment,
        fields.enabled,
        fields.expire_time,
        fields.not_before_time,
        *_model_limit_values(fields.model_limits),
        list(fields.allow_ips),
        list(fields.scopes),
        *_spend_limit_values(fields.spend_limit),
        *_credit_values(fields.credits),
        ratelimits_json(fields.ratelimits),
        fields.guardrail_id,
        fields.firewall_policy_id,
        fields.member,
        fields.metadata,
        *_revocation_values(key.revocation),
        key.create_time,
        key.update_time,
        key.delete_time,
        key.revision,
    )


def key_of(row: Row, *, with_metadata: bool = True) -> Key:
    """Return the key in a row that also has its identity's ``external_id``, or NULL.

    Words that many keys share are kept once: a hundred thousand keys may be in memory.
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


def _model_limit_values(limits: ModelLimits | None) -> tuple[bool | None, list[str] | None]:
    return (limits.enabled, list(limits.models)) if limits else (None, None)


def _spend_limit_values(limit: SpendLimit | None) -> tuple[int | None, int | None]:
    return (limit.amount, int(limit.reset)) if limit else (None, None)


def _credit_values(credits: Credits | None) -> tuple[int | None, ...]:
    refill = credits.refill if credits else None
    amount = credits.amount if credits else None
    return (amount, int(refill.interval), refill.amount, refill.day_of_month) if refill else (amount, None, None, None)


def _revocation_values(revocation: Revocation | None) -> tuple[int | None, str, datetime | None]:
    return (int(revocation.reason), revocation.note, revocation.revoke_time) if revocation else (None, "", None)


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
