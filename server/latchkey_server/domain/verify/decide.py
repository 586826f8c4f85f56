"""The verdict on one secret (spec §4): pure, and in the order in which the specification lists the checks.

``decide`` takes what is known of the key (a Record, or None), what the caller asks (a Question) and the time, and gives
a Verdict. It reads no clock, no database and no cache.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from latchkey.rules import begun, ip_allowed, missing_scopes, model_allowed, unexpired
from latchkey_server.domain import errors
from latchkey_server.domain.freshness import seen_revision
from latchkey_server.domain.model import Caller
from latchkey_server.domain.verify.model import (
    NO_TIME,
    CheckResult,
    CheckVerdict,
    Code,
    Degradation,
    Question,
    Record,
    Verdict,
)


def decide(record: Record | None, question: Question, caller: Caller, now: datetime, *, stale: bool = False) -> Verdict:
    """Return the verdict: the first check that fails gives the code, else VALID.

    ``stale`` says that the record is older than the hard bound, in an outage. Raises UnknownRateLimit when the question
    names a limit that neither the key nor its identity has.
    """
    if record is None or not visible(record, question, caller, now):
        return Verdict(Code.NOT_FOUND, None, now)
    if question.ratelimits:
        _require_known_ratelimits(record, question)
    return Verdict(
        first_failing(record, question, now),
        record,
        now,
        cacheable_for(record, now),
        _DEGRADED[record.limited, stale],
        _explain(record, question, now) if question.explain else (),
        seen_revision(record),
    )


def visible(record: Record, question: Question, caller: Caller, now: datetime) -> bool:
    """Tell whether this caller may learn of this key by this secret; otherwise it learns NOT_FOUND and no more."""
    key = record.key
    return (
        key.delete_time is None
        and not record.secret_ended
        and unexpired(record.secret_end_time, now)
        and (caller.all_workspaces or key.workspace_id == caller.workspace_id)
        and caller.covers_api(key.api_id)
        and (question.api_id is None or question.api_id == key.api_id)
    )


def first_failing(record: Record, question: Question, now: datetime) -> Code:
    """Return the code of the first check that refuses the key, or VALID."""
    if record.open_checks is None:
        record.open_checks = sum(1 << index for index, check in enumerate(CHECKS) if check.open_for(record))
    for index, check in enumerate(CHECKS):
        if record.open_checks >> index & 1 and check.asked(question) and not check.holds(record, question, now):
            return check.code
    return Code.VALID


_DEGRADED = {
    (False, False): (),
    (True, False): (Degradation.LIMIT_NOT_ENFORCED,),
    (False, True): (Degradation.STALE_RECORD,),
    (True, True): (Degradation.LIMIT_NOT_ENFORCED, Degradation.STALE_RECORD),
}


class Check(NamedTuple):
    """One check: which keys have its rule, which questions ask it, what it demands, and what it shows to people.

    ``settled`` says that the record alone passes it, so that it is not evaluated for each question.
    """

    code: Code
    rule: Callable[[Record], bool]
    asked: Callable[[Question], bool]
    holds: Callable[[Record, Question, datetime], bool]
    show: Callable[[Record, Question, datetime], str]
    settled: Callable[[Record], bool] = lambda _record: False

    def open_for(self, record: Record) -> bool:
        """Tell whether this check may refuse the key."""
        return self.rule(record) and not self.settled(record)

    def applies(self, record: Record, question: Question) -> bool:
        """Tell whether the key has such a rule and the caller sent what it is checked against."""
        return self.rule(record) and self.asked(question)


def _any_key(_record: Record) -> bool:
    return True


def _any_question(_question: Question) -> bool:
    return True


CHECKS = (
    Check(
        Code.WORKSPACE_DISABLED,
        rule=_any_key,
        asked=_any_question,
        holds=lambda record, _question, _now: record.workspace_enabled,
        settled=lambda record: record.workspace_enabled,
        show=lambda record, _question, _now: f"workspace enabled: {_yes(record.workspace_enabled)}",
    ),
    Check(
        Code.REVOKED,
        rule=_any_key,
        asked=_any_question,
        holds=lambda record, _question, _now: record.key.revocation is None,
        settled=lambda record: record.key.revocation is None,
        show=lambda record, _question, _now: f"revoked: {_yes(record.key.revocation is not None)}",
    ),
    Check(
        Code.DISABLED,
        rule=_any_key,
        asked=_any_question,
        holds=lambda record, _question, _now: record.key.fields.enabled,
        settled=lambda record: record.key.fields.enabled,
        show=lambda record, _question, _now: f"enabled: {_yes(record.key.fields.enabled)}",
    ),
    Check(
        Code.NOT_YET_VALID,
        rule=lambda record: record.key.fields.not_before_time is not None,
        asked=_any_question,
        holds=lambda record, _question, now: begun(record.key.fields.not_before_time, now),
        show=lambda record, _question, now: f"valid from {_time(record.key.fields.not_before_time)}, now {_time(now)}",
    ),
    Check(
        Code.EXPIRED,
        rule=lambda record: record.key.fields.expire_time is not None,
        asked=_any_question,
        holds=lambda record, _question, now: unexpired(record.key.fields.expire_time, now),
        show=lambda record, _question, now: f"valid until {_time(record.key.fields.expire_time)}, now {_time(now)}",
    ),
    Check(
        Code.ENVIRONMENT_MISMATCH,
        rule=_any_key,
        asked=lambda question: bool(question.environments),
        holds=lambda record, question, _now: record.key.fields.environment in question.environments,
        show=lambda record, question, _now: (
            f"environment {record.key.fields.environment!r}, asserted {_listed(question.environments)}"
        ),
    ),
    Check(
        Code.IP_NOT_ALLOWED,
        rule=lambda record: bool(record.key.fields.allow_ips),
        asked=_any_question,
        holds=lambda record, question, _now: ip_allowed(record.key.fields.allow_ips, question.client_ip),
        show=lambda record, question, _now: (
            f"client_ip {question.client_ip!r}, allowed {_listed(record.key.fields.allow_ips)}"
        ),
    ),
    Check(
        Code.MODEL_NOT_ALLOWED,
        rule=lambda record: record.key.fields.model_limits is not None and record.key.fields.model_limits.enabled,
        asked=lambda question: question.model is not None,
        holds=lambda record, question, _now: _allows_model(record, question.model),
        show=lambda record, question, _now: f"model {question.model!r}, allowed {_models(record)}",
    ),
    Check(
        Code.INSUFFICIENT_SCOPE,
        rule=_any_key,
        asked=lambda question: bool(question.required_scopes),
        holds=lambda record, question, _now: not missing_scopes(record.key.fields.scopes, question.required_scopes),
        show=lambda record, question, _now: (
            f"required {_required(question)}, granted {_listed(record.key.fields.scopes)}"
        ),
    ),
)
"""The checks that consume nothing, in the order that the specification fixes."""


class Budget(NamedTuple):
    """One check that consumes something: whether the key has such a rule, and what it is in words for people."""

    code: Code
    applies: Callable[[Record], bool]
    show: Callable[[Record], str]


BUDGETS = (
    Budget(
        Code.RATE_LIMITED,
        applies=lambda record: bool(record.ratelimits),
        show=lambda record: f"limits {_listed(tuple(limit.name for limit in record.ratelimits))}",
    ),
    Budget(
        Code.SPEND_LIMIT_EXCEEDED,
        applies=lambda record: record.spend is not None,
        show=lambda record: f"remaining {record.spend.remaining if record.spend else 'unlimited'} nano-dollars",
    ),
    Budget(
        Code.CREDITS_EXHAUSTED,
        applies=lambda record: record.credits is not None,
        show=lambda record: f"remaining {record.credits.remaining if record.credits else 'unlimited'} credits",
    ),
)
"""The checks that consume something, in the order that the specification fixes; their enforcement is still to come."""


def cacheable_for(record: Record, now: datetime) -> timedelta:
    """Return how long this answer may be reused without watching: until the first instant that may alter it."""
    if record.limited:
        return NO_TIME
    fields = record.key.fields
    times = (fields.expire_time, fields.not_before_time, record.secret_end_time)
    if times == _NO_TIMES:
        return record.max_cacheable_for
    ahead = [moment - now for moment in times if moment is not None and moment > now]
    return min([record.max_cacheable_for, *ahead])


_NO_TIMES = (None, None, None)


def _require_known_ratelimits(record: Record, question: Question) -> None:
    known = {limit.name for limit in record.ratelimits} if question.ratelimits else set()
    for wanted in question.ratelimits:
        if wanted.name not in known:
            raise errors.UnknownRateLimit(
                f"Neither the key nor its identity has a rate limit named {wanted.name!r}.", name=wanted.name
            )


def _explain(record: Record, question: Question, now: datetime) -> tuple[CheckResult, ...]:
    found = CheckResult(Code.NOT_FOUND, CheckVerdict.PASSED, "the secret belongs to a key that the caller may see")
    checked = [
        CheckResult(check.code, _check_verdict(check, record, question, now), check.show(record, question, now))
        for check in CHECKS
    ]
    refused = any(result.verdict is CheckVerdict.FAILED for result in checked)
    consuming = [
        CheckResult(budget.code, _budget_verdict(budget, record, refused), budget.show(record)) for budget in BUDGETS
    ]
    return (found, *checked, *consuming)


def _check_verdict(check: Check, record: Record, question: Question, now: datetime) -> CheckVerdict:
    if not check.applies(record, question):
        return CheckVerdict.NOT_ASKED
    return CheckVerdict.PASSED if check.holds(record, question, now) else CheckVerdict.FAILED


def _budget_verdict(budget: Budget, record: Record, refused: bool) -> CheckVerdict:
    if not budget.applies(record):
        return CheckVerdict.NOT_ASKED
    return CheckVerdict.NOT_EVALUATED if refused else CheckVerdict.NOT_ENFORCED


def _allows_model(record: Record, model: str | None) -> bool:
    limits = record.key.fields.model_limits
    return limits is None or model_allowed(limits.enabled, limits.models, model)


def _yes(fact: bool) -> str:
    return "yes" if fact else "no"


def _time(instant: datetime | None) -> str:
    return "(not set)" if instant is None else instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _listed(words: tuple[str, ...]) -> str:
    return "[" + ", ".join(map(repr, words)) + "]"


def _models(record: Record) -> str:
    limits = record.key.fields.model_limits
    return _listed(limits.models) if limits and limits.enabled else "any"


def _required(question: Question) -> str:
    return " and ".join(" or ".join(group) for group in question.required_scopes) or "none"
