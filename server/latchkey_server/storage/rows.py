"""Rows become nouns, and nouns rows: the conversions that several repositories share."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from latchkey_server.domain.model import OnUnavailable, RateLimit, Revocation, RevokeReason
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
