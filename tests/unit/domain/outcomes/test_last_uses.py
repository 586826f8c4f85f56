"""Uses of keys, remembered until they are flushed."""

from datetime import timedelta

import pytest

from latchkey_server.domain.outcomes import last_uses
from latchkey_server.domain.outcomes.last_uses import KeyUses
from tests.unit.builders import KEY_ID, NOW, OTHER_KEY_ID, OTHER_WORKSPACE_ID, WORKSPACE_ID

MINUTE = NOW.replace(second=0, microsecond=0)


def test_the_last_use_of_a_key_is_remembered_to_the_minute() -> None:
    uses = KeyUses()
    for at in (NOW, NOW + timedelta(minutes=2), NOW - timedelta(minutes=2)):
        uses.touch(WORKSPACE_ID, KEY_ID, at)

    assert uses.take() == {WORKSPACE_ID: {KEY_ID: MINUTE + timedelta(minutes=2)}}
    assert uses.take() == {}


def test_what_is_not_taken_yet_is_kept() -> None:
    uses = KeyUses()
    uses.touch(WORKSPACE_ID, KEY_ID, NOW)
    uses.touch(OTHER_WORKSPACE_ID, KEY_ID, NOW)

    assert uses.take(but=[OTHER_WORKSPACE_ID]) == {WORKSPACE_ID: {KEY_ID: MINUTE}}
    assert uses.take() == {OTHER_WORKSPACE_ID: {KEY_ID: MINUTE}}


def test_keys_that_there_is_no_room_for_are_told_as_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_uses, "KEYS_MAX", 1)
    uses = KeyUses()
    for key_id in (KEY_ID, OTHER_KEY_ID, KEY_ID):
        uses.touch(WORKSPACE_ID, key_id, NOW)

    assert uses.dropped == 1
    assert uses.take() == {WORKSPACE_ID: {KEY_ID: MINUTE}}
