"""Which outcomes of which keys are known to be tracked: nearly all of a flush were in one before."""

from datetime import date
from uuid import UUID

from latchkey_server.domain.outcomes.counts import Outcome, Outcomes, VerificationCombination, combination_of
from latchkey_server.domain.turns import turn
from latchkey_server.domain.usage.combinations import REMEMBERED_MAX

_Kind = tuple[UUID, date, VerificationCombination]


class TrackedOutcomes:
    """Remembers combinations with the keys that they are tracked for, up to a bound; they stay tracked."""

    def __init__(self, most: int = REMEMBERED_MAX) -> None:
        self._most = most
        self._number = 0
        self._keys: dict[_Kind, set[UUID]] = {}

    async def unknown(self, workspace_id: UUID, outcomes: Outcomes) -> dict[Outcome, set[UUID]]:
        """Return the outcomes with those keys for which they are not known to be tracked."""
        found = {}
        for outcome, by_key in outcomes.items():
            await turn()
            if not outcome.other:
                keys = by_key.keys() - self._keys.get(_kind(workspace_id, outcome), set())
                if keys:
                    found[outcome] = keys
        return found

    def remember(self, workspace_id: UUID, outcomes: Outcomes) -> None:
        """Remember what was committed; what is ``other`` is not tracked."""
        for outcome, by_key in outcomes.items():
            if not outcome.other:
                keys = self._keys.setdefault(_kind(workspace_id, outcome), set())
                self._number -= len(keys)
                keys.update(by_key)
                self._number += len(keys)
        if self._number > self._most:
            self._keys.clear()
            self._number = 0


def _kind(workspace_id: UUID, outcome: Outcome) -> _Kind:
    return workspace_id, outcome.quarter.date(), combination_of(outcome)
