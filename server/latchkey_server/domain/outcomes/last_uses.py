"""When keys were last used: remembered in memory to a minute, until it is flushed; never in a verification's way."""

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
        at = (workspace_id, key_id)
        if at in self._pending or len(self._pending) < KEYS_MAX:
            minute = used_time.replace(second=0, microsecond=0)
            self._pending[at] = max(minute, self._pending.get(at, minute))
        else:
            self.dropped += 1

    def take(self, but: Container[UUID] = ()) -> dict[UUID, Mapping[UUID, datetime]]:
        """Return the uses since the last time, by workspace and key, of all workspaces ``but`` some."""
        taken: dict[UUID, dict[UUID, datetime]] = {}
        kept: dict[tuple[UUID, UUID], datetime] = {}
        for (workspace_id, key_id), used_time in self._pending.items():
            if workspace_id in but:
                kept[workspace_id, key_id] = used_time
            else:
                taken.setdefault(workspace_id, {})[key_id] = used_time
        self._pending = kept
        return dict(taken)
