"""When keys were last used: to the minute, in memory until it is flushed; no verification waits for it."""

from collections.abc import Container, Mapping
from datetime import datetime
from uuid import UUID

KEYS_MAX = 100_000
"""Keys remembered between two flushes; further ones are dropped rather than held without bound."""


class KeyUses:
    """Remembers uses between two flushes."""

    def __init__(self) -> None:
        self._pending: dict[tuple[UUID, UUID], datetime] = {}
        self.dropped = 0

    def touch(self, workspace_id: UUID, key_id: UUID, used_time: datetime) -> None:
        """Remember a use, to the minute; never fails and never waits."""
        key = (workspace_id, key_id)
        if key in self._pending or len(self._pending) < KEYS_MAX:
            minute = used_time.replace(second=0, microsecond=0)
            self._pending[key] = max(minute, self._pending.get(key, minute))
        else:
            self.dropped += 1

    def take(self, but: Container[UUID] = ()) -> dict[UUID, Mapping[UUID, datetime]]:
        """Return and remove the uses, by workspace and key, except of the workspaces in ``but``."""
        taken: dict[UUID, dict[UUID, datetime]] = {}
        left: dict[tuple[UUID, UUID], datetime] = {}
        for (workspace_id, key_id), used_time in self._pending.items():
            if workspace_id in but:
                left[workspace_id, key_id] = used_time
            else:
                taken.setdefault(workspace_id, {})[key_id] = used_time
        self._pending = left
        return dict(taken)
