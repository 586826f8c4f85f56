"""Verification counts by label: what counts by key add to the labels that their keys are attributed to (spec §5)."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from latchkey_server.domain.outcomes.counts import CountRow
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


def by_label(rows: Iterable[CountRow], keys: Mapping[UUID, KeyFacts]) -> list[LabelCount]:
    """Return the rows summed by label, sorted; a key that is not in ``keys`` counts as a secret that no key has."""
    # By the numbers of the ids: hashing and comparing ids themselves takes many times as long.
    labels = {key_id: (facts.attributed_environment, facts.api_id.int) for key_id, facts in keys.items()}
    unknown = ("", NO_API.int)
    sums: dict[tuple[datetime, str, int, Code, int, str, str, bool, str, bool], int] = {}
    for quarter, key_id, code, caller, model, tag, tagged, prefix, other, verifications in rows:
        environment, api = labels.get(key_id, unknown)
        group = (quarter, environment, api, code, caller.int, model, tag, tagged, prefix, other)
        sums[group] = sums.get(group, 0) + verifications
    return [
        LabelCount(quarter, label, UUID(int=api), code, UUID(int=caller), model, tag, tagged, prefix, other, number)
        for (quarter, label, api, code, caller, model, tag, tagged, prefix, other), number in sorted(sums.items())
    ]
