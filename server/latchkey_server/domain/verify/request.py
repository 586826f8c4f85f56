"""The rules of a Verify request: what is normalised, and what is the caller's own fault."""

from dataclasses import replace

from latchkey_server.domain.validation import (
    UNITS_MAX,
    Violations,
    check_count,
    check_environment,
    check_range,
    check_text,
    check_token,
    scope_problem,
)
from latchkey_server.domain.verify.model import NO_TIME, Question

GROUPS_MAX = 32
RATELIMITS_MAX = 20
TAGS_MAX = 5
TAG_MAX = 64


def normalized(question: Question, found: Violations) -> Question:
    """Return the question with its labels normalised; what breaks a rule is noted in ``found``."""
    check_count(found, "required_scopes", question.required_scopes, GROUPS_MAX)
    for index, group in enumerate(question.required_scopes[:GROUPS_MAX]):
        _check_group(found, f"required_scopes[{index}].any_of", group)
    check_count(found, "environments", question.environments, GROUPS_MAX)
    check_range(found, "cost", question.cost, 0, UNITS_MAX)
    check_count(found, "ratelimits", question.ratelimits, RATELIMITS_MAX)
    for index, wanted in enumerate(question.ratelimits[:RATELIMITS_MAX]):
        check_range(found, f"ratelimits[{index}].cost", wanted.cost, 0, UNITS_MAX)
        if any(other.name == wanted.name for other in question.ratelimits[:index]):
            found.add(f"ratelimits[{index}].name", "must not be named twice")
    check_token(found, "operation_id", question.operation_id)
    if question.estimated_cost is not None:
        if question.estimated_cost < 0:
            found.add("estimated_cost", "must not be negative")
        if not question.operation_id:
            found.add("operation_id", "is required with estimated_cost")
    check_count(found, "tags", question.tags, TAGS_MAX)
    for index, tag in enumerate(question.tags[:TAGS_MAX]):
        check_text(found, f"tags[{index}]", tag, TAG_MAX)
    if question.max_staleness is not None and question.max_staleness < NO_TIME:
        found.add("max_staleness", "must not be negative")
    if not question.environments:
        return question
    labels = (
        check_environment(found, f"environments[{index}]", text)
        for index, text in enumerate(question.environments[:GROUPS_MAX])
    )
    return replace(question, environments=tuple(labels))


def _check_group(found: Violations, field: str, group: tuple[str, ...]) -> None:
    if not 1 <= len(group) <= GROUPS_MAX:
        found.add(field, f"must have 1 to {GROUPS_MAX} entries")
    for scope in group[:GROUPS_MAX]:
        if problem := scope_problem(scope, wildcards=False):
            found.add(field, problem)
