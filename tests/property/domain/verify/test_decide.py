"""The verdict for any combination of what may refuse a key, against the specification's order read literally."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from latchkey_server.domain.model import KeyFields, ModelLimits
from latchkey_server.domain.verify.decide import decide
from latchkey_server.domain.verify.model import CheckVerdict, Code, Question, RateLimitCost, Record
from tests.unit.builders import (
    NOW,
    OTHER_API_ID,
    OTHER_WORKSPACE_ID,
    REVOCATION,
    TICK,
    make_caller,
    make_key,
    make_question,
    make_ratelimit,
    make_record,
    some_credits,
    some_spend,
)

ORDER = [
    "NOT_FOUND",
    "WORKSPACE_DISABLED",
    "REVOKED",
    "DISABLED",
    "NOT_YET_VALID",
    "EXPIRED",
    "ENVIRONMENT_MISMATCH",
    "IP_NOT_ALLOWED",
    "MODEL_NOT_ALLOWED",
    "INSUFFICIENT_SCOPE",
]
HIDDEN: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"secret_ended": True}, {}),
    ({"secret_end_time": NOW}, {}),
    ({}, {"delete_time": NOW - TICK}),
    ({}, {"workspace_id": OTHER_WORKSPACE_ID}),
    ({}, {"api_id": OTHER_API_ID}),
]
FAILURES = st.sets(st.sampled_from(ORDER))
LABELS = st.sampled_from(["", "prod", "Prod", "test", "live", "unlabeled"])


@st.composite
def cases(draw: st.DrawFn, failures: st.SearchStrategy[set[str]] = FAILURES) -> tuple[set[str], Record, Question]:
    """Draw what fails, and a record and question that fail exactly that, each passing check drawn from its ways."""
    failed = draw(failures)
    record: dict[str, Any] = {"workspace_enabled": "WORKSPACE_DISABLED" not in failed}
    key: dict[str, Any] = {"revocation": REVOCATION if "REVOKED" in failed else None}
    fields: dict[str, Any] = {"enabled": "DISABLED" not in failed, "environment": draw(LABELS)}
    question: dict[str, Any] = {}
    passed = draw(st.booleans())

    begins = [NOW + TICK, NOW + timedelta(days=9)] if "NOT_YET_VALID" in failed else [None, NOW, NOW - TICK]
    fields["not_before_time"] = draw(st.sampled_from(begins))
    ends = [NOW, NOW - TICK] if "EXPIRED" in failed else [None, NOW + TICK]
    fields["expire_time"] = draw(st.sampled_from(ends))
    if "ENVIRONMENT_MISMATCH" in failed:
        question["environments"] = (fields["environment"] + "x",)
    elif passed:
        question["environments"] = ("other", fields["environment"])
    if "IP_NOT_ALLOWED" in failed:
        fields["allow_ips"] = ("10.0.0.0/8", "2001:db8::/32")
        question["client_ip"] = draw(st.sampled_from([None, "junk", "8.8.8.8", "::1", "::ffff:8.8.8.8"]))
    elif passed:
        fields["allow_ips"] = ("10.0.0.0/8",)
        question["client_ip"] = draw(st.sampled_from(["10.0.0.1", "::ffff:10.9.9.9"]))
    if "MODEL_NOT_ALLOWED" in failed:
        fields["model_limits"] = ModelLimits(True, draw(st.sampled_from([(), ("small",)])))
        question["model"] = "large"
    elif passed:
        fields["model_limits"] = draw(st.sampled_from([ModelLimits(False, ()), ModelLimits(True, ("large",))]))
        question["model"] = "large"
    if "INSUFFICIENT_SCOPE" in failed:
        fields["scopes"] = draw(st.sampled_from([(), ("docs.*",)]))
        question["required_scopes"] = (("docs.read",), ("users.edit",))
    elif passed:
        fields["scopes"] = ("docs.*",)
        question["required_scopes"] = (("users.edit", "docs.read"),)
    if "NOT_FOUND" in failed:
        hidden_record, hidden_key = draw(st.sampled_from(HIDDEN))
        record |= hidden_record
        key |= hidden_key
        if hidden_key.get("api_id"):
            question["api_id"] = make_key().api_id
    if draw(st.booleans()):
        record |= {"credits": some_credits(0), "spend": some_spend(100)}
    return failed, make_record(make_key(KeyFields(**fields), **key), **record), make_question(**question)


@given(cases())
def test_the_first_failing_check_in_the_specifications_order_decides(case: tuple[set[str], Record, Question]) -> None:
    failed, record, question = case
    expected = next((code for code in ORDER if code in failed), "VALID")

    verdict = decide(record, question, make_caller(), NOW)

    assert verdict.code.name == expected
    assert verdict.record == (None if expected == "NOT_FOUND" else record)


@given(cases())
def test_an_explanation_fails_exactly_the_checks_that_fail(case: tuple[set[str], Record, Question]) -> None:
    failed, record, question = case

    verdict = decide(record, replace(question, explain=True), make_caller(), NOW)

    if "NOT_FOUND" in failed:
        assert verdict.checks == ()
    else:
        assert [check.code.name for check in verdict.checks] == [code.name for code in Code if code is not Code.VALID]
        assert {check.code.name for check in verdict.checks if check.verdict is CheckVerdict.FAILED} == failed


@given(cases(FAILURES.map(lambda failed: failed - {"ENVIRONMENT_MISMATCH"})), LABELS, LABELS)
def test_the_label_never_changes_the_outcome(
    case: tuple[set[str], Record, Question], one_label: str, other_label: str
) -> None:
    _, record, question = case
    asked = replace(question, environments=())

    def relabelled(label: str) -> Record:
        return replace(record, key=replace(record.key, fields=replace(record.key.fields, environment=label)))

    one = decide(relabelled(one_label), asked, make_caller(), NOW)
    other = decide(relabelled(other_label), asked, make_caller(), NOW)

    assert (other.code, other.cacheable_for, other.degraded) == (one.code, one.cacheable_for, one.degraded)
    assert (other.record is None) is (one.record is None)


@given(cases(), st.booleans(), st.booleans(), st.booleans())
def test_explaining_omitting_and_trying_never_change_the_outcome(
    case: tuple[set[str], Record, Question], explain: bool, omit_metadata: bool, dry_run: bool
) -> None:
    _, record, question = case
    asked = replace(question, explain=explain, omit_metadata=omit_metadata, dry_run=dry_run)

    plain = decide(record, question, make_caller(), NOW)

    assert decide(record, asked, make_caller(), NOW)._replace(checks=()) == plain


@given(cases(), st.integers(0, 5), st.booleans())
def test_an_answer_is_never_cached_beyond_an_instant_that_alters_it(
    case: tuple[set[str], Record, Question], seconds: int, limited: bool
) -> None:
    _, record, question = case
    end = NOW + timedelta(seconds=seconds) if seconds else None
    fields = replace(record.key.fields, ratelimits=(make_ratelimit(),) if limited else ())
    timed = replace(record, key=replace(record.key, fields=fields), secret_end_time=record.secret_end_time or end)

    before = decide(timed, question, make_caller(), NOW)
    later = decide(timed, question, make_caller(), NOW + max(before.cacheable_for - TICK, timedelta(0)))

    assert later.code is before.code
    assert timedelta(0) <= before.cacheable_for <= record.max_cacheable_for
    if limited or record.credits:
        assert before.cacheable_for == timedelta(0)


@given(cases())
def test_a_hidden_key_looks_exactly_like_an_unknown_one(case: tuple[set[str], Record, Question]) -> None:
    failed, record, question = case
    asked = replace(question, explain=True, ratelimits=(RateLimitCost("unknown"),))

    if "NOT_FOUND" in failed:
        unknown = decide(None, asked, make_caller(), NOW)
        assert decide(record, asked, make_caller(), NOW) == unknown
