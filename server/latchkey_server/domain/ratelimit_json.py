"""Rate limits as JSON: as keys and identities store them, and as answers are stored for replays."""

from collections.abc import Sequence
from datetime import timedelta

from latchkey_server.domain.model import Json, OnUnavailable, RateLimit


def ratelimits_json(limits: Sequence[RateLimit]) -> list[Json]:
    """Return rate limits as JSON; windows in whole seconds."""
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


def ratelimits_of(stored: Sequence[Json]) -> tuple[RateLimit, ...]:
    """Return the rate limits that JSON stands for."""
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
