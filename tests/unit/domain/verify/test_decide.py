"""The verdict on one secret: which check decides, what is shown, and what is not disclosed (spec §4)."""

from dataclasses import replace
from datetime import datetime, timedelta
from itertools import combinations
from typing import Any

import pytest

from latchkey_server.domain.errors import UnknownRateLimit
from latchkey_server.domain.model import KeyFields, ModelLimits
from latchkey_server.domain.verify.decide import cacheable_for, decide
from latchkey_server.domain.verify.model import (
    CheckResult,
    CheckVerdict,
    Code,
    Degradation,
    Question,
    RateLimitCost,
    Record,
    Verdict,
)
from tests.unit.builders import (
    API_ID,
    NOW,
    OTHER_API_ID,
    OTHER_WORKSPACE_ID,
    REVOCATION,
    TICK,
    make_caller,
    make_identity,
    make_key,
    make_question,
    make_ratelimit,
    make_record,
    some_credits,
    some_spend,
)

MINUTE = timedelta(minutes=1)

FAILURES: dict[Code, tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    Code.NOT_FOUND: ({"secret_ended": True}, {}, {}, {}),
    Code.WORKSPACE_DISABLED: ({"workspace_enabled": False}, {}, {}, {}),
    Code.REVOKED: ({}, {"revocation": REVOCATION}, {}, {}),
    Code.DISABLED: ({}, {}, {"enabled": False}, {}),
    Code.NOT_YET_VALID: ({}, {}, {"not_before_time": NOW + TICK}, {}),
    Code.EXPIRED: ({}, {}, {"expire_time": NOW}, {}),
    Code.ENVIRONMENT_MISMATCH: ({}, {}, {"environment": "test"}, {"environments": ("live",)}),
    Code.IP_NOT_ALLOWED: ({}, {}, {"allow_ips": ("10.0.0.0/8",)}, {"client_ip": "8.8.8.8"}),
    Code.MODEL_NOT_ALLOWED: ({}, {}, {"model_limits": ModelLimits(True, ("small",))}, {"model": "large"}),
    Code.INSUFFICIENT_SCOPE: ({}, {}, {"scopes": ("docs.read",)}, {"required_scopes": (("docs.write",),)}),
}
"""What makes each check fail, in the specification's order: facts of the record, the key, its fields, the question."""


def failing(*codes: Code) -> tuple[Record, Question]:
    """Return a record and a question that fail exactly these checks."""
    record: dict[str, Any] = {}
    key: dict[str, Any] = {}
    fields: dict[str, Any] = {}
    question: dict[str, Any] = {}
    for code in codes:
        for target, changes in zip((record, key, fields, question), FAILURES[code], strict=True):
            target.update(changes)
    return make_record(make_key(KeyFields(**fields), **key), **record), make_question(**question)


def verdict(
    record: Record | None = None, question: Question | None = None, now: datetime = NOW, **caller: Any
) -> Verdict:
    """Return the verdict on a record that nothing refuses, unless told otherwise."""
    return decide(record or make_record(), question or make_question(), make_caller(**caller), now)


def code_of(fields: KeyFields, now: datetime = NOW, **question: Any) -> Code:
    """Return the code for a key with these fields."""
    return verdict(make_record(make_key(fields)), make_question(**question), now).code


def test_a_key_that_nothing_refuses_is_valid() -> None:
    record = make_record()

    assert verdict(record) == Verdict(Code.VALID, record, NOW, timedelta(seconds=60), revision=7)


@pytest.mark.parametrize("code", list(FAILURES))
def test_each_check_alone_gives_its_code(code: Code) -> None:
    assert verdict(*failing(code)).code is code


@pytest.mark.parametrize(("earlier", "later"), list(combinations(FAILURES, 2)))
def test_of_two_failing_checks_the_earlier_one_decides(earlier: Code, later: Code) -> None:
    assert verdict(*failing(earlier, later)).code is earlier


def test_the_checks_are_in_the_order_of_the_codes() -> None:
    explained = verdict(question=make_question(explain=True)).checks

    assert [check.code for check in explained] == list(Code)[1:]


@pytest.mark.parametrize(
    ("record", "question", "caller"),
    [
        (None, {}, {}),
        (make_record(make_key(delete_time=NOW - TICK)), {}, {}),
        (make_record(make_key(workspace_id=OTHER_WORKSPACE_ID)), {}, {}),
        (make_record(), {"api_id": OTHER_API_ID}, {}),
        (make_record(), {}, {"api_ids": frozenset({OTHER_API_ID})}),
        (make_record(), {}, {"api_ids": frozenset({OTHER_API_ID}), "all_workspaces": True}),
        (make_record(secret_ended=True), {}, {}),
        (make_record(secret_ended=True, secret_end_time=NOW + MINUTE), {}, {}),
        (make_record(secret_end_time=NOW), {}, {}),
        (make_record(secret_end_time=NOW - MINUTE), {}, {}),
    ],
    ids=[
        *("unknown", "deleted", "foreign", "other api", "binding", "gateway's binding"),
        *("ended", "ended early", "ends now", "expired"),
    ],
)
def test_a_key_that_the_caller_may_not_see_is_not_found_and_nothing_more(
    record: Record | None, question: dict[str, Any], caller: dict[str, Any]
) -> None:
    asked = make_question(explain=True, ratelimits=(RateLimitCost("unknown"),), **question)

    assert decide(record, asked, make_caller(**caller), NOW) == Verdict(Code.NOT_FOUND, None, NOW)


def test_a_secret_is_accepted_until_its_end() -> None:
    assert verdict(make_record(secret_end_time=NOW + TICK)).code is Code.VALID


def test_the_keys_own_api_may_be_named() -> None:
    assert verdict(question=make_question(api_id=API_ID)).code is Code.VALID
    assert verdict(api_ids=frozenset({API_ID, OTHER_API_ID})).code is Code.VALID


def test_only_a_caller_of_all_workspaces_resolves_keys_of_any_workspace() -> None:
    foreign = make_record(make_key(workspace_id=OTHER_WORKSPACE_ID))

    assert verdict(foreign).code is Code.NOT_FOUND
    assert verdict(foreign, root=True).code is Code.NOT_FOUND
    assert verdict(foreign, all_workspaces=True).record == foreign


@pytest.mark.parametrize("code", list(FAILURES)[1:])
def test_a_refused_key_that_the_caller_may_see_comes_with_its_record(code: Code) -> None:
    record, question = failing(code)

    assert verdict(record, question).record == record


def test_a_key_is_valid_from_its_not_before_time_until_before_its_expire_time() -> None:
    fields = KeyFields(not_before_time=NOW, expire_time=NOW + MINUTE)

    assert code_of(fields, NOW - TICK) is Code.NOT_YET_VALID
    assert code_of(fields, NOW) is Code.VALID
    assert code_of(fields, NOW + MINUTE - TICK) is Code.VALID
    assert code_of(fields, NOW + MINUTE) is Code.EXPIRED


@pytest.mark.parametrize(
    ("environment", "asserted", "code"),
    [
        ("live", (), Code.VALID),
        ("live", ("live",), Code.VALID),
        ("live", ("test", "live"), Code.VALID),
        ("live", ("Live",), Code.ENVIRONMENT_MISMATCH),
        ("live", ("",), Code.ENVIRONMENT_MISMATCH),
        ("", ("",), Code.VALID),
        ("", ("live",), Code.ENVIRONMENT_MISMATCH),
        ("unlabeled", ("",), Code.ENVIRONMENT_MISMATCH),
        ("", ("unlabeled",), Code.ENVIRONMENT_MISMATCH),
    ],
)
def test_a_caller_may_assert_environments_with_empty_for_unlabeled(
    environment: str, asserted: tuple[str, ...], code: Code
) -> None:
    assert code_of(KeyFields(environment=environment), environments=asserted) is code


@pytest.mark.parametrize("client_ip", [None, "", "junk", "8.8.8.8", "10.0.0.1, 8.8.8.8"])
def test_with_allow_ips_a_client_without_a_valid_allowed_address_is_refused(client_ip: str | None) -> None:
    assert code_of(KeyFields(allow_ips=("10.0.0.0/8",)), client_ip=client_ip) is Code.IP_NOT_ALLOWED


@pytest.mark.parametrize("client_ip", [None, "junk", "8.8.8.8"])
def test_without_allow_ips_any_client_may_use_the_key(client_ip: str | None) -> None:
    assert code_of(KeyFields(), client_ip=client_ip) is Code.VALID


@pytest.mark.parametrize(
    ("limits", "model", "code"),
    [
        (None, "small", Code.VALID),
        (ModelLimits(False, ()), "small", Code.VALID),
        (ModelLimits(True, ("small",)), "small", Code.VALID),
        (ModelLimits(True, ("small",)), "SMALL", Code.MODEL_NOT_ALLOWED),
        (ModelLimits(True, ()), "small", Code.MODEL_NOT_ALLOWED),
        (ModelLimits(True, ()), "", Code.MODEL_NOT_ALLOWED),
        (ModelLimits(True, ()), None, Code.VALID),
    ],
)
def test_a_model_is_checked_when_it_is_sent_and_the_list_is_enabled(
    limits: ModelLimits | None, model: str | None, code: Code
) -> None:
    assert code_of(KeyFields(model_limits=limits), model=model) is code


@pytest.mark.parametrize(
    ("required", "code"),
    [
        ((), Code.VALID),
        ((("docs.read",),), Code.VALID),
        ((("docs.write", "docs.read"), ("users.edit",)), Code.VALID),
        ((("docs.write",), ("users.edit",)), Code.INSUFFICIENT_SCOPE),
        ((("users.edit.own",),), Code.INSUFFICIENT_SCOPE),
    ],
)
def test_required_scopes_are_an_and_of_any_of_groups(required: tuple[tuple[str, ...], ...], code: Code) -> None:
    assert code_of(KeyFields(scopes=("docs.read", "users.*")), required_scopes=required) is code


def test_explain_lists_every_check_in_order_with_its_verdict() -> None:
    record, question = failing(Code.DISABLED, Code.INSUFFICIENT_SCOPE)
    limited = replace(record, credits=some_credits())

    explained = verdict(limited, replace(question, explain=True)).checks

    assert [(check.code, check.verdict) for check in explained] == [
        (Code.NOT_FOUND, CheckVerdict.PASSED),
        (Code.WORKSPACE_DISABLED, CheckVerdict.PASSED),
        (Code.REVOKED, CheckVerdict.PASSED),
        (Code.DISABLED, CheckVerdict.FAILED),
        (Code.NOT_YET_VALID, CheckVerdict.NOT_ASKED),
        (Code.EXPIRED, CheckVerdict.NOT_ASKED),
        (Code.ENVIRONMENT_MISMATCH, CheckVerdict.NOT_ASKED),
        (Code.IP_NOT_ALLOWED, CheckVerdict.NOT_ASKED),
        (Code.MODEL_NOT_ALLOWED, CheckVerdict.NOT_ASKED),
        (Code.INSUFFICIENT_SCOPE, CheckVerdict.FAILED),
        (Code.RATE_LIMITED, CheckVerdict.NOT_ASKED),
        (Code.SPEND_LIMIT_EXCEEDED, CheckVerdict.NOT_ASKED),
        (Code.CREDITS_EXHAUSTED, CheckVerdict.NOT_EVALUATED),
    ]


def test_explain_says_that_limits_of_a_valid_key_are_not_enforced() -> None:
    record = make_record(
        make_key(KeyFields(ratelimits=(make_ratelimit(),))), credits=some_credits(), spend=some_spend(spent=40)
    )

    explained = verdict(record, make_question(explain=True)).checks

    assert explained[-3:] == (
        CheckResult(Code.RATE_LIMITED, CheckVerdict.NOT_ENFORCED, "limits ['requests']"),
        CheckResult(Code.SPEND_LIMIT_EXCEEDED, CheckVerdict.NOT_ENFORCED, "remaining 60 nano-dollars"),
        CheckResult(Code.CREDITS_EXHAUSTED, CheckVerdict.NOT_ENFORCED, "remaining 5 credits"),
    )


def test_explain_shows_what_each_check_looked_at() -> None:
    fields = KeyFields(
        environment="live",
        not_before_time=NOW,
        expire_time=NOW + MINUTE,
        allow_ips=("10.0.0.0/8",),
        model_limits=ModelLimits(True, ("small",)),
        scopes=("docs.*",),
    )
    asked = make_question(
        explain=True,
        environments=("live", ""),
        client_ip="10.0.0.1",
        model="small",
        required_scopes=(("docs.read", "docs.write"), ("docs.list",)),
    )

    explained = verdict(make_record(make_key(fields)), asked).checks

    assert {check.verdict for check in explained[:10]} == {CheckVerdict.PASSED}
    assert [check.input for check in explained] == [
        "the secret belongs to a key that the caller may see",
        "workspace enabled: yes",
        "revoked: no",
        "enabled: yes",
        "valid from 2026-03-14T15:09:26.535Z, now 2026-03-14T15:09:26.535Z",
        "valid until 2026-03-14T15:10:26.535Z, now 2026-03-14T15:09:26.535Z",
        "environment 'live', asserted ['live', '']",
        "client_ip '10.0.0.1', allowed ['10.0.0.0/8']",
        "model 'small', allowed ['small']",
        "required docs.read or docs.write and docs.list, granted ['docs.*']",
        "limits []",
        "remaining unlimited nano-dollars",
        "remaining unlimited credits",
    ]


def test_nothing_is_explained_unless_asked() -> None:
    assert verdict().checks == ()


@pytest.mark.parametrize(
    ("fields", "secret_end_time", "seconds"),
    [
        (KeyFields(), None, 60),
        (KeyFields(expire_time=NOW + timedelta(seconds=9)), None, 9),
        (KeyFields(expire_time=NOW + timedelta(seconds=90)), None, 60),
        (KeyFields(not_before_time=NOW + timedelta(seconds=8)), None, 8),
        (KeyFields(), NOW + timedelta(seconds=7), 7),
        (
            KeyFields(expire_time=NOW + timedelta(seconds=9), not_before_time=NOW + timedelta(seconds=8)),
            NOW + timedelta(seconds=7),
            7,
        ),
        (KeyFields(expire_time=NOW), None, 60),
        (KeyFields(expire_time=NOW - MINUTE), None, 60),
        (KeyFields(not_before_time=NOW - MINUTE), None, 60),
    ],
)
def test_an_answer_may_be_cached_until_the_first_instant_that_may_alter_it(
    fields: KeyFields, secret_end_time: datetime | None, seconds: int
) -> None:
    record = make_record(make_key(fields), secret_end_time=secret_end_time)

    assert cacheable_for(record, NOW) == timedelta(seconds=seconds)
    assert verdict(record).cacheable_for == timedelta(seconds=seconds)


def test_the_workspace_bounds_how_long_an_answer_may_be_cached() -> None:
    assert verdict(make_record(max_cacheable_for=timedelta(0))).cacheable_for == timedelta(0)
    assert verdict(make_record(max_cacheable_for=timedelta(hours=1))).cacheable_for == timedelta(hours=1)


LIMITED = {
    "credits": make_record(credits=some_credits(0)),
    "spend": make_record(spend=some_spend()),
    "ratelimits": make_record(make_key(KeyFields(ratelimits=(make_ratelimit(),)))),
    "identity ratelimits": make_record(identity=make_identity(make_ratelimit())),
}


@pytest.mark.parametrize("limited", list(LIMITED.values()), ids=list(LIMITED))
def test_a_key_with_limits_credits_or_a_cap_is_never_cached_and_says_that_they_are_not_enforced(
    limited: Record,
) -> None:
    answer = verdict(limited)

    assert (answer.code, answer.cacheable_for) == (Code.VALID, timedelta(0))
    assert answer.degraded == (Degradation.LIMIT_NOT_ENFORCED,)


def test_a_key_without_limits_is_not_degraded() -> None:
    assert verdict().degraded == ()
    assert verdict(make_record(identity=make_identity())).degraded == ()


@pytest.mark.parametrize("code", [None, *list(FAILURES)[1:]])
def test_a_rate_limit_that_the_key_does_not_have_is_the_callers_fault_whatever_the_verdict(code: Code | None) -> None:
    record, question = failing(*([code] if code else []))
    asked = replace(question, ratelimits=(RateLimitCost("known"), RateLimitCost("unknown", 0)))
    own = replace(record.key.fields, ratelimits=(make_ratelimit("known"),))
    limited = replace(record, key=replace(record.key, fields=own))

    with pytest.raises(UnknownRateLimit) as caught:
        verdict(limited, asked)

    assert caught.value.details == {"name": "unknown"}
    assert "'unknown'" in caught.value.message


def test_a_named_rate_limit_may_be_the_keys_or_its_identitys() -> None:
    record = make_record(
        make_key(KeyFields(ratelimits=(make_ratelimit("own"),))), identity=make_identity(make_ratelimit("shared"))
    )

    asked = make_question(ratelimits=(RateLimitCost("own"), RateLimitCost("shared")))

    assert verdict(record, asked).code is Code.VALID


def test_a_keys_rate_limit_takes_precedence_over_its_identitys_of_the_same_name() -> None:
    own = make_ratelimit("requests", limit=5)
    shared = make_ratelimit("requests", limit=100), make_ratelimit("tokens", limit=7)
    record = make_record(make_key(KeyFields(ratelimits=(own,))), identity=make_identity(*shared))

    assert record.ratelimits == (own, shared[1])
    assert replace(record, key=make_key()).ratelimits == shared
    assert replace(record, identity=None).ratelimits == (own,)
