"""Verification counts by label: what counts by key add to the labels that their keys are attributed to (spec §5)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from latchkey_server.domain.outcomes.counts import Outcomes
from latchkey_server.domain.turns import turn
from latchkey_server.domain.usage.rollups import KeyFacts
from latchkey_server.domain.verify.model import Code

NO_API: Final = UUID(int=0)
"""Stands for the api of a secret that no key has; its label is then empty."""


class LabelCount(NamedTuple):
    """How many equal verifications a label had in a quarter of an hour; ``api_id`` may be NO_API."""

    quarter: datetime
    environment: str
    api_id: UUID
    code: Code
    management_key_id: UUID
    model: str
    tag: str
    tagged: bool
    prefix: str
    other: bool
    verifications: int


async def by_label(outcomes: Outcomes, keys: Mapping[UUID, KeyFacts]) -> list[LabelCount]:
    """Return the outcomes summed by label, sorted; a key that is not in ``keys`` counts as a secret that no key has.

    Others have their turn meanwhile.
    """
    labels = {key_id: (facts.attributed_environment, facts.api_id) for key_id, facts in keys.items()}
    unknown = ("", NO_API)
    found: list[LabelCount] = []
    for outcome, by_key in outcomes.items():
        await turn()
        sums: dict[tuple[str, UUID], int] = {}
        for key_id, count in by_key.items():
            label = labels.get(key_id, unknown)
            sums[label] = sums.get(label, 0) + count
        quarter, code, caller, model, tag, tagged, prefix, other = outcome
        found += [
            LabelCount(quarter, environment, api_id, code, caller, model, tag, tagged, prefix, other, count)
            for (environment, api_id), count in sums.items()
        ]
    return sorted(found)
