"""The instant at which windows and refills begin: 00:00 UTC."""

from datetime import UTC, date, datetime, time


def midnight(day: date) -> datetime:
    """Return the instant at which a UTC day begins."""
    return datetime.combine(day, time(), tzinfo=UTC)
