"""What a process notes of each verification: its outcome, and the use of a key that was VALID; dry runs excepted."""

from dataclasses import dataclass, field
from datetime import datetime

from latchkey_server.domain.model import Caller
from latchkey_server.domain.outcomes.counts import UNKNOWN, CountKey, VerificationCounter, counted_model
from latchkey_server.domain.outcomes.last_uses import KeyUses
from latchkey_server.domain.verify.model import Code, Question, Record, Verdict


@dataclass(frozen=True, slots=True)
class VerificationNotes:
    """Takes notes until they are flushed; never fails and never waits."""

    counter: VerificationCounter = field(default_factory=VerificationCounter)
    uses: KeyUses = field(default_factory=KeyUses)

    def note(self, caller: Caller, question: Question, prefix: str, verdict: Verdict) -> None:
        """Note a verdict; ``prefix`` is what the secret began with."""
        if question.dry_run:
            return
        self.counter.count(count_key_of(caller, question, prefix, verdict), verdict.decided_time)
        if verdict.record is not None and verdict.code is Code.VALID:
            self.use(verdict.record, verdict.decided_time, minute_of(verdict.decided_time))

    def use(self, record: Record, now: datetime, minute: int) -> None:
        """Note the use of a key, to the minute; a second one in the same minute costs nothing."""
        if record.used_minute != minute:
            record.used_minute = minute
            self.uses.touch(record.key.workspace_id, record.key.key_id, now)


def minute_of(now: datetime) -> int:
    """Return the minute since 1970."""
    return int(now.timestamp()) // 60


def count_key_of(caller: Caller, question: Question, prefix: str, verdict: Verdict) -> CountKey:
    """Return what a verification is counted by; an unknown secret counts in the caller's workspace."""
    record = verdict.record
    workspace_id = caller.workspace_id if record is None else record.key.workspace_id
    return CountKey(
        workspace_id=workspace_id,
        key_id=UNKNOWN if record is None else record.key.key_id,
        code=verdict.code,
        # Root's own keys, which serve all workspaces, are not shown inside one.
        management_key_id=caller.management_key_id if caller.workspace_id == workspace_id else UNKNOWN,
        model=counted_model(question.model),
        tags=question.tags,
        prefix=prefix if record is None else "",
    )
