"""Availability: whether this process reaches the database, as its last polls found."""

from collections.abc import Callable

from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.domain.freshness import Instant


class Availability:
    """What the change feed found: when the database last answered, and whether it is lost."""

    def __init__(self) -> None:
        self.reached_at: Instant | None = None
        """When the last answered poll was begun; None before the first."""
        self.lost = False
        self._on_lost: list[Callable[[], None]] = []

    def on_lost(self, call: Callable[[], None]) -> None:
        """Call this whenever the database is lost, so that nobody goes on waiting for it."""
        self._on_lost.append(call)

    def answered(self, begun_at: Instant) -> None:
        """Note that a poll begun at an instant was answered."""
        self.reached_at, self.lost = begun_at, False

    def failed(self) -> None:
        """Note that polls are not answered any more."""
        if not self.lost:
            self.lost = True
            for call in self._on_lost:
                call()

    def require(self) -> None:
        """Raise DatabaseUnavailable at once while the database is known to be lost."""
        if self.lost:
            raise DatabaseUnavailable
