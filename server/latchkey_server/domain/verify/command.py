"""VerifyService's commands: find what is known of the secrets, decide on each, note what was answered."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple

from latchkey_server.domain import errors
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.freshness import HARD_BOUND, Freshness, Instant, age
from latchkey_server.domain.model import Caller
from latchkey_server.domain.store import Clock
from latchkey_server.domain.turns import in_slices
from latchkey_server.domain.verify.decide import decide
from latchkey_server.domain.verify.model import Question, Record, Verdict
from latchkey_server.domain.verify.ports import Notes, RecordSource

ITEMS_MAX = 1_000


class Asked(NamedTuple):
    """A question about one secret."""

    sha256: bytes
    question: Question
    prefix: str = ""
    """What the secret begins with, as far as that may be shown."""


VerifyItem = Asked | LatchkeyError
"""What is asked, or what was wrong with it before it became a question."""

VerifyAnswer = Verdict | LatchkeyError

_Known = Record | LatchkeyError | None


@dataclass(frozen=True, slots=True)
class Verifier:
    """Answers questions about secrets from a source of records."""

    source: RecordSource
    notes: Notes
    clock: Clock
    instant: Callable[[], Instant]

    async def verify(self, caller: Caller, asked: Asked) -> Verdict:
        """Return the verdict on one secret.

        Raises UnknownRateLimit, RevisionNotReached and DatabaseUnavailable.
        """
        [answer] = await self.verify_all(caller, [asked])
        if isinstance(answer, LatchkeyError):
            raise answer
        return answer

    async def verify_all(self, caller: Caller, items: Sequence[VerifyItem]) -> list[VerifyAnswer]:
        """Return an answer for each item, in order; an item fails alone. Nothing is noted before ``note``."""
        looked_up: dict[int, VerifyAnswer] = {}
        while True:
            answers = await in_slices(partial(self._known_answer, caller, looked_up), enumerate(items))
            waiting = [i for i, answer in enumerate(answers) if answer is None]
            if not waiting:
                return [answer for answer in answers if answer is not None]
            # What is cached now is decided after the wait, by what is cached then.
            asked = [item for i in waiting if isinstance(item := items[i], Asked)]
            known = await self._look_up(caller, asked)
            looked_up |= zip(waiting, await self._decide_all(caller, asked, known), strict=True)

    def _known_answer(
        self, caller: Caller, looked_up: Mapping[int, VerifyAnswer], numbered: tuple[int, VerifyItem]
    ) -> VerifyAnswer | None:
        number, item = numbered
        return looked_up.get(number) or self._from_cache(caller, item)

    def _from_cache(self, caller: Caller, item: VerifyItem) -> VerifyAnswer | None:
        """Return the answer if all that it takes is cached, else None; never waits."""
        if not isinstance(item, Asked):
            return item
        if item.question.freshness is not None:
            return None
        record = self.source.fresh(item.sha256, self.instant())
        return _decided(record, item.question, caller, self.clock(), stale=False) if record is not None else None

    def note(self, caller: Caller, items: Sequence[VerifyItem], answers: Sequence[VerifyAnswer]) -> None:
        """Note the verdicts that were given."""
        for item, answer in zip(items, answers, strict=True):
            if isinstance(answer, Verdict) and isinstance(item, Asked):
                self.notes.note(caller, item.question, item.prefix, answer)

    async def _look_up(self, caller: Caller, asked: Sequence[Asked]) -> list[_Known]:
        usual = list({item.sha256 for item in asked if item.question.freshness is None})
        found = await self.source.records(usual) if usual else {}
        demanding = [
            self._demanded(item.sha256, _binding(caller, item.question.freshness))
            for item in asked
            if item.question.freshness is not None
        ]
        demanded = iter(await asyncio.gather(*demanding))
        return [found.get(item.sha256) if item.question.freshness is None else next(demanded) for item in asked]

    async def _demanded(self, sha256: bytes, freshness: Freshness) -> _Known:
        try:
            return await self.source.record(sha256, freshness)
        except LatchkeyError as error:
            return error

    async def _decide_all(self, caller: Caller, asked: Sequence[Asked], known: Sequence[_Known]) -> list[VerifyAnswer]:
        def decided(pair: tuple[Asked, _Known]) -> VerifyAnswer:
            item, found = pair
            if isinstance(found, LatchkeyError):
                return found
            stale = found is not None and age(found, self.instant()) > HARD_BOUND
            return _decided(found, item.question, caller, self.clock(), stale=stale)

        return await in_slices(decided, list(zip(asked, known, strict=True)))


def require_count(items: int) -> None:
    """Raise InvalidField unless there are as many items as one request may have."""
    if not 1 <= items <= ITEMS_MAX:
        raise errors.InvalidField.one("items", f"must have 1 to {ITEMS_MAX} entries")


def _decided(record: Record | None, question: Question, caller: Caller, now: datetime, *, stale: bool) -> VerifyAnswer:
    try:
        return decide(record, question, caller, now, stale=stale)
    except LatchkeyError as error:
        return error


def _binding(caller: Caller, freshness: Freshness) -> Freshness:
    """Return what is demanded, without a revision of a workspace whose keys the caller can't see."""
    wanted = freshness.min_revision
    if wanted is None or caller.all_workspaces or wanted.workspace_id == caller.workspace_id:
        return freshness
    return Freshness(freshness.max_age)
