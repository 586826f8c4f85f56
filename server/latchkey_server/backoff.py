"""Back-off: how long to wait before what failed is tried again."""


class Backoff:
    """Gives pauses in seconds, each twice as long as the one before, from ``least`` to ``most``."""

    def __init__(self, least: float, most: float) -> None:
        self._least = least
        self._most = most
        self._next = least

    def pause(self) -> float:
        """Return for how long to wait now."""
        pause = self._next
        self._next = min(2 * pause, self._most)
        return pause

    def reset(self) -> None:
        """Begin anew, after a success."""
        self._next = self._least
