"""What is known to be tracked is not looked up again."""

from datetime import timedelta
from uuid import UUID

from latchkey_server.domain.outcomes.counts import Outcome
from latchkey_server.domain.outcomes.tracked import TrackedOutcomes
from latchkey_server.domain.verify.model import Code
from tests.unit.builders import KEY_ID, MANAGEMENT_KEY_ID, NOW, OTHER_KEY_ID, OTHER_WORKSPACE_ID, WORKSPACE_ID

LARGE = Outcome(NOW, Code.VALID, MANAGEMENT_KEY_ID, "large")
OTHER = LARGE._replace(model="", other=True)


async def test_only_keys_that_are_not_known_yet_are_asked_about() -> None:
    tracked = TrackedOutcomes()
    tracked.remember(WORKSPACE_ID, {LARGE: {KEY_ID: 1}})

    found = await tracked.unknown(
        WORKSPACE_ID, {LARGE: {KEY_ID: 3, OTHER_KEY_ID: 4}, LARGE._replace(tag="a"): {KEY_ID: 1}}
    )

    assert found == {LARGE: {OTHER_KEY_ID}, LARGE._replace(tag="a"): {KEY_ID}}


async def test_a_combination_is_known_whatever_came_of_it_but_by_workspace_and_day() -> None:
    tracked = TrackedOutcomes()
    tracked.remember(WORKSPACE_ID, {LARGE: {KEY_ID: 1}})
    expired, tomorrow = LARGE._replace(code=Code.EXPIRED), LARGE._replace(quarter=NOW + timedelta(days=1))

    assert await tracked.unknown(WORKSPACE_ID, {expired: {KEY_ID: 1}}) == {}
    assert await tracked.unknown(WORKSPACE_ID, {tomorrow: {KEY_ID: 1}}) == {tomorrow: {KEY_ID}}
    assert await tracked.unknown(OTHER_WORKSPACE_ID, {LARGE: {KEY_ID: 1}}) == {LARGE: {KEY_ID}}


async def test_what_is_other_is_neither_asked_about_nor_remembered() -> None:
    tracked = TrackedOutcomes()
    tracked.remember(WORKSPACE_ID, {OTHER: {KEY_ID: 1}})

    assert await tracked.unknown(WORKSPACE_ID, {OTHER: {KEY_ID: 1}}) == {}
    assert await tracked.unknown(WORKSPACE_ID, {OTHER._replace(other=False): {KEY_ID: 1}}) != {}


async def test_beyond_its_bound_everything_is_forgotten() -> None:
    tracked = TrackedOutcomes(most=2)
    tracked.remember(WORKSPACE_ID, {LARGE: {KEY_ID: 1, OTHER_KEY_ID: 1}})
    tracked.remember(WORKSPACE_ID, {LARGE: {KEY_ID: 1}})
    known = await tracked.unknown(WORKSPACE_ID, {LARGE: {KEY_ID: 1}})
    tracked.remember(WORKSPACE_ID, {LARGE: {UUID(int=9): 1}})

    assert known == {}
    assert await tracked.unknown(WORKSPACE_ID, {LARGE: {KEY_ID: 1}}) == {LARGE: {KEY_ID}}
