"""Who learns of what, and what waits for a watcher (spec §4)."""

from uuid import UUID

import pytest

from latchkey_server.domain.model import Change, ChangeKind
from latchkey_server.domain.verify.model import AppliedChange
from latchkey_server.domain.verify.watching import Reset, Watchers, visible
from tests.unit.builders import (
    API_ID,
    KEY_ID,
    MANAGEMENT_KEY_ID,
    OTHER_API_ID,
    OTHER_WORKSPACE_ID,
    WORKSPACE_ID,
    make_caller,
)

BOUND = make_caller(api_ids=frozenset({API_ID}))


def applied(
    kind: ChangeKind = ChangeKind.KEY_CHANGED,
    target_id: UUID = KEY_ID,
    workspace_id: UUID = WORKSPACE_ID,
    api_id: UUID | None = None,
) -> AppliedChange:
    return AppliedChange(workspace_id, 7, Change(kind, target_id), api_id)


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (applied(api_id=API_ID), True),
        (applied(api_id=OTHER_API_ID), False),
        (applied(), True),
        (applied(ChangeKind.API_CHANGED, API_ID), True),
        (applied(ChangeKind.API_CHANGED, OTHER_API_ID), False),
        (applied(ChangeKind.WORKSPACE_CHANGED, WORKSPACE_ID), True),
        (applied(ChangeKind.MANAGEMENT_KEY_CHANGED, MANAGEMENT_KEY_ID), False),
        (applied(workspace_id=OTHER_WORKSPACE_ID), False),
    ],
)
def test_a_bound_watcher_learns_of_its_apis_and_of_no_management_key(change: AppliedChange, seen: bool) -> None:
    assert visible(BOUND, change) is seen


async def test_a_change_of_a_management_key_only_has_watchers_look_at_their_credential() -> None:
    watchers = Watchers()
    with watchers.watching(make_caller()) as watch:
        watchers.publish([applied(ChangeKind.MANAGEMENT_KEY_CHANGED, MANAGEMENT_KEY_ID)])

        assert await watch.events(60) == []


async def test_a_workspace_that_starts_anew_is_told_to_its_own_watchers_and_those_of_all() -> None:
    watchers = Watchers()
    with (
        watchers.watching(make_caller()) as own,
        watchers.watching(make_caller(workspace_id=OTHER_WORKSPACE_ID)) as other,
        watchers.watching(make_caller(workspace_id=OTHER_WORKSPACE_ID, all_workspaces=True)) as every,
    ):
        watchers.reset(WORKSPACE_ID, 9)

        assert [await watch.events(0) for watch in (own, other, every)] == [[Reset(9)], [], [Reset(9)]]
