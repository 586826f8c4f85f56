"""Whether the database can be reached from this process, as the last looks at it found."""

from collections.abc import Callable

from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.domain.freshness import Instant


class Availability:
    """What the change feed found: since when the database answers, or since when it does not."""

    def __init__(self) -> None:
        self.reached_at: Instant | None = None
        """When the last answered look was begun; None before the first."""
        self.lost = False
        self._on_lost: list[Callable[[], None]] = []

    def on_lost(self, call: Callable[[], None]) -> None:
        """Call this whenever the database is lost, so that nobody goes on waiting for it."""
        self._on_lost.append(call)

    def answered(self, begun_at: Instant) -> None:
        """Note that a look begun at an instant was answered."""
        self.reached_at, self.lost = begun_at, False

    def failed(self) -> None:
        """Note that looks are not answered any more."""
        if not self.lost:
            self.lost = True
            for call in self._on_lost:
                call()

    def require(self) -> None:
        """Raise DatabaseUnavailable at once while the database is known to be lost."""
        if self.lost:
            raise DatabaseUnavailable
