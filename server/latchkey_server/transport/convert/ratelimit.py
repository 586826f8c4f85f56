"""Rate limits between the wire and the domain."""

from collections.abc import Iterable, Sequence
from datetime import timedelta

from latchkey.v1 import ratelimit_pb2
from latchkey_server.domain.model import OnUnavailable, RateLimit
from latchkey_server.domain.validation import RATELIMITS_MAX, Violations, counted
from latchkey_server.transport.convert.well_known import duration, read_duration, read_enum

_NO_TIME, _SOME_TIME = timedelta(0), timedelta(seconds=1)


def read_ratelimits(messages: Sequence[ratelimit_pb2.RateLimit], found: Violations) -> tuple[RateLimit, ...]:
    """Return rate limits; what can't be read is noted."""
    return tuple(
        RateLimit(
            name=message.name,
            limit=message.limit,
            window=_read_window(found, f"ratelimits[{index}].window", message),
            auto_apply=message.auto_apply,
            on_unavailable=read_enum(
                found, f"ratelimits[{index}].on_unavailable", OnUnavailable, message.on_unavailable, OnUnavailable.DENY
            ),
        )
        for index, message in enumerate(counted(found, "ratelimits", messages, RATELIMITS_MAX))
    )


def ratelimit_messages(limits: Iterable[RateLimit]) -> list[ratelimit_pb2.RateLimit]:
    """Return rate limits as messages."""
    return [
        ratelimit_pb2.RateLimit(
            name=limit.name,
            limit=limit.limit,
            window=duration(limit.window),
            auto_apply=limit.auto_apply,
            on_unavailable=ratelimit_pb2.OnUnavailable.ValueType(limit.on_unavailable),
        )
        for limit in limits
    ]


def _read_window(found: Violations, field: str, message: ratelimit_pb2.RateLimit) -> timedelta:
    window = read_duration(found, field, message, "window")
    if window is None and message.HasField("window"):
        # Noted already: this value breaks no further rule.
        return _SOME_TIME
    # Any fraction of a second breaks the rule; one below a microsecond would get lost before it is checked.
    return _NO_TIME if window is None or message.window.nanos else window
