"""The rules of a key's fields (spec §3): what is normalised on write, and what is refused, by name."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from latchkey.rules import NANOS, parse_network
from latchkey_server.domain.model import Credits, KeyFields, ModelLimits, RefillInterval, SpendLimit
from latchkey_server.domain.validation import (
    EXTERNAL_ID_MAX,
    MEMBER_MAX,
    NAME_MAX,
    Violations,
    check_count,
    check_environment,
    check_metadata,
    check_range,
    check_ratelimits,
    check_text,
    scope_problem,
)

ENTRIES_MAX = 256
MODEL_MAX = 128
OPAQUE_MAX = 128
SPEND_MAX = 1_000_000_000 * NANOS
CREDITS_MAX = 1_000_000_000_000
TTL_MAX = timedelta(days=3_650)


def normalized(fields: KeyFields, found: Violations) -> KeyFields:
    """Return the fields as they are stored; what breaks a rule is noted in ``found``."""
    return replace(
        fields,
        name=check_text(found, "name", fields.name, NAME_MAX),
        environment=check_environment(found, "environment", fields.environment),
        model_limits=_model_limits(found, fields.model_limits),
        allow_ips=_allow_ips(found, fields.allow_ips),
        scopes=_scopes(found, fields.scopes),
        spend_limit=_spend_limit(found, fields.spend_limit),
        credits=_credits(found, fields.credits),
        ratelimits=check_ratelimits(found, "ratelimits", fields.ratelimits),
        guardrail_id=check_text(found, "guardrail_id", fields.guardrail_id, OPAQUE_MAX),
        firewall_policy_id=check_text(found, "firewall_policy_id", fields.firewall_policy_id, OPAQUE_MAX),
        external_id=check_text(found, "external_id", fields.external_id, EXTERNAL_ID_MAX),
        member=check_text(found, "member", fields.member, MEMBER_MAX),
        metadata=check_metadata(found, "metadata", fields.metadata),
    )


def expiry(found: Violations, expire_time: datetime | None, ttl: timedelta | None, now: datetime) -> datetime | None:
    """Return when a new key ends, from at most one of the two ways to say it."""
    if ttl is None:
        return expire_time
    if expire_time is not None:
        found.add("ttl", "must not be given together with key.expire_time")
    if not timedelta(0) < ttl <= TTL_MAX:
        found.add("ttl", f"must be positive and at most {TTL_MAX.days} days")
        return None
    return now + ttl


def _model_limits(found: Violations, limits: ModelLimits | None) -> ModelLimits | None:
    if limits is None:
        return None
    check_count(found, "model_limits.models", limits.models, ENTRIES_MAX)
    models = [model.strip() for model in limits.models[:ENTRIES_MAX]]
    for index, model in enumerate(models):
        check_text(found, f"model_limits.models[{index}]", model, MODEL_MAX)
        if not model:
            found.add(f"model_limits.models[{index}]", "must not be empty")
    return ModelLimits(limits.enabled, tuple(dict.fromkeys(models)))


def _allow_ips(found: Violations, entries: Sequence[str]) -> tuple[str, ...]:
    check_count(found, "allow_ips", entries, ENTRIES_MAX)
    return tuple(dict.fromkeys(_network(found, index, entry) for index, entry in enumerate(entries[:ENTRIES_MAX])))


def _network(found: Violations, index: int, entry: str) -> str:
    try:
        network = parse_network(entry)
    except ValueError:
        shown = entry if len(entry) <= 64 and entry.isprintable() else "the entry"
        found.add(f"allow_ips[{index}]", f"{shown!r} is not an IPv4 or IPv6 address or CIDR range")
        return entry
    return str(network.network_address) if network.num_addresses == 1 else str(network)


def _scopes(found: Violations, scopes: Sequence[str]) -> tuple[str, ...]:
    check_count(found, "scopes", scopes, ENTRIES_MAX)
    for index, scope in enumerate(scopes[:ENTRIES_MAX]):
        if problem := scope_problem(scope, wildcards=True):
            found.add(f"scopes[{index}]", problem)
    return tuple(sorted(set(scopes)))


def _spend_limit(found: Violations, limit: SpendLimit | None) -> SpendLimit | None:
    if limit is None:
        return None
    if not 0 <= limit.amount <= SPEND_MAX:
        found.add("spend_limit.amount", "must be 0 to 1,000,000,000 USD")
    return limit if limit.amount else None


def _credits(found: Violations, credits: Credits | None) -> Credits | None:
    if credits is None:
        return None
    check_range(found, "credits.amount", credits.amount, 0, CREDITS_MAX)
    if refill := credits.refill:
        check_range(found, "credits.refill.amount", refill.amount, 1, CREDITS_MAX)
        if refill.interval is RefillInterval.MONTHLY:
            check_range(found, "credits.refill.day_of_month", refill.day_of_month, 1, 31)
    return credits
