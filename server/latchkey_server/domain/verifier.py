"""VerifyService's commands: load what is known of the secrets, decide on each, remember that they were used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latchkey_server.domain import errors
from latchkey_server.domain.access import Caller
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.ports import Clock, LastUsed, RecordSource
from latchkey_server.domain.verify import Code, Question, Record, Verdict, decide

ITEMS_MAX = 1_000

Item = Question | LatchkeyError
"""A question, or what was wrong with it before it became one."""

Answer = Verdict | LatchkeyError


@dataclass(frozen=True, slots=True)
class Verifier:
    """Answers questions about secrets from a source of records."""

    source: RecordSource
    last_used: LastUsed
    clock: Clock

    async def verify(self, caller: Caller, question: Question) -> Verdict:
        """Return the verdict on one secret.

        Raises UnknownRateLimit, RevisionNotReached and DatabaseUnavailable.
        """
        records = await self.source.records([question.sha256])
        return self._answer(caller, question, records.get(question.sha256))

    async def verify_all(self, caller: Caller, items: Sequence[Item]) -> list[Answer]:
        """Return an answer for each item, in order; an item fails alone.

        Raises InvalidField for their number, and DatabaseUnavailable.
        """
        if not 1 <= len(items) <= ITEMS_MAX:
            raise errors.InvalidField.one("items", f"must have 1 to {ITEMS_MAX} entries")
        wanted = list({item.sha256 for item in items if isinstance(item, Question)})
        records = await self.source.records(wanted) if wanted else {}
        return [self._answer_item(caller, item, records) for item in items]

    def _answer_item(self, caller: Caller, item: Item, records: Mapping[bytes, Record]) -> Answer:
        if isinstance(item, LatchkeyError):
            return item
        try:
            return self._answer(caller, item, records.get(item.sha256))
        except LatchkeyError as error:
            return error

    def _answer(self, caller: Caller, question: Question, record: Record | None) -> Verdict:
        verdict = decide(record, question, caller, self.clock())
        if verdict.record is not None:
            _require_revision(question, verdict.record)
            if verdict.code is Code.VALID and not question.dry_run:
                key = verdict.record.key
                self.last_used.touch(key.workspace_id, key.key_id, verdict.decided_time)
        return verdict


def _require_revision(question: Question, record: Record) -> None:
    wanted = question.min_revision
    if wanted is None or wanted.workspace_id != record.key.workspace_id:
        return
    if record.revision < wanted.number:
        raise errors.RevisionNotReached(
            "This server has not seen the revision asked for; retry.", revision=str(record.revision)
        )
