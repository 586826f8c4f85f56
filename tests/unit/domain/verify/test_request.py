"""The rules of a Verify request: what is normalised, and what is the caller's own fault (spec §4)."""

from datetime import timedelta
from typing import Any

import pytest

from latchkey_server.domain.validation import Violations
from latchkey_server.domain.verify import request as questions
from latchkey_server.domain.verify.model import Question, RateLimitCost
from tests.unit.builders import TICK, make_question, problems_of


def accepted(**changes: Any) -> Question:
    """Return the question as it is decided on, which breaks no rule."""
    found = Violations()
    normalized = questions.normalized(make_question(**changes), found)
    assert problems_of(found) == []
    return normalized


def refused(**changes: Any) -> list[str]:
    """Return the paths that are refused."""
    found = Violations()
    questions.normalized(make_question(**changes), found)
    return [field for field, _ in problems_of(found)]


def test_a_question_about_nothing_but_the_secret_stays_as_it_is() -> None:
    assert accepted() == make_question()


def test_asserted_labels_are_normalised_like_labels() -> None:
    written = (" prod ", "cafe\u0301", "", "\u3000", "a" * 40)

    assert accepted(environments=written).environments == ("prod", "caf\u00e9", "", "", "a" * 32)


@pytest.mark.parametrize(
    "changes",
    [
        {"cost": 0},
        {"cost": 1_000_000_000},
        {"required_scopes": (("docs.read", "docs"),) * 32},
        {"required_scopes": (tuple(f"s{number}" for number in range(32)),)},
        {"environments": ("prod",) * 32},
        {"ratelimits": tuple(RateLimitCost(f"requests-{number}", 0) for number in range(20))},
        {"ratelimits": (RateLimitCost("requests", 1_000_000_000),)},
        {"operation_id": "o" * 64},
        {"estimated_cost": 0, "operation_id": "o"},
        {"tags": ("t" * 64,) * 5},
        {"max_staleness": timedelta(0)},
        {"client_ip": "junk"},
        {"model": ""},
    ],
)
def test_a_question_within_its_ranges_stays_as_it_is(changes: dict[str, Any]) -> None:
    assert accepted(**changes) == make_question(**changes)


@pytest.mark.parametrize(
    ("changes", "paths"),
    [
        ({"cost": -1}, ["cost"]),
        ({"cost": 1_000_000_001}, ["cost"]),
        ({"required_scopes": (("docs.read",),) * 33}, ["required_scopes"]),
        ({"required_scopes": (("docs.read",), ())}, ["required_scopes[1].any_of"]),
        ({"required_scopes": (tuple(f"s{number}" for number in range(33)),)}, ["required_scopes[0].any_of"]),
        ({"required_scopes": (("docs.*",),)}, ["required_scopes[0].any_of"]),
        ({"required_scopes": (("docs..read",),)}, ["required_scopes[0].any_of"]),
        ({"environments": ("prod",) * 33}, ["environments"]),
        ({"environments": ("prod", "a\0b")}, ["environments[1]"]),
        ({"ratelimits": tuple(RateLimitCost(f"requests-{number}") for number in range(21))}, ["ratelimits"]),
        ({"ratelimits": (RateLimitCost("a"), RateLimitCost("b", -1))}, ["ratelimits[1].cost"]),
        ({"ratelimits": (RateLimitCost("a"), RateLimitCost("b"), RateLimitCost("a", 2))}, ["ratelimits[2].name"]),
        ({"ratelimits": (RateLimitCost("a", 1_000_000_001),)}, ["ratelimits[0].cost"]),
        ({"operation_id": "o" * 65}, ["operation_id"]),
        ({"operation_id": "o o"}, ["operation_id"]),
        ({"estimated_cost": 1}, ["operation_id"]),
        ({"estimated_cost": -1, "operation_id": "o"}, ["estimated_cost"]),
        ({"tags": ("t",) * 6}, ["tags"]),
        ({"tags": ("t", "t" * 65)}, ["tags[1]"]),
        ({"tags": ("t\0",)}, ["tags[0]"]),
        ({"max_staleness": -TICK}, ["max_staleness"]),
        ({"cost": -1, "tags": ("\0",), "environments": ("\0",)}, ["cost", "tags[0]", "environments[0]"]),
    ],
)
def test_a_question_outside_its_ranges_is_refused_by_path(changes: dict[str, Any], paths: list[str]) -> None:
    assert refused(**changes) == paths
