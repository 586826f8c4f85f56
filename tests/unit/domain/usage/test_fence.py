"""Waiting for a fence: it is tried again until it falls, and given up in the end."""

import pytest

from latchkey_server.domain.errors import DatabaseUnavailable
from latchkey_server.domain.usage import fence
from latchkey_server.domain.usage.fence import unfenced
from latchkey_server.domain.usage.ports import UsageFenced


class Fenced:
    """Work that a fence keeps out so many times."""

    def __init__(self, times: int) -> None:
        self.left = times

    async def __call__(self) -> str:
        self.left -= 1
        if self.left >= 0:
            raise UsageFenced
        return "done"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fence, "PAUSE", 0.0)
    monkeypatch.setattr(fence, "ATTEMPTS", 3)


async def test_work_is_tried_again_until_the_fence_has_fallen() -> None:
    assert await unfenced(Fenced(2)) == "done"


async def test_a_fence_that_does_not_fall_is_an_outage() -> None:
    with pytest.raises(DatabaseUnavailable):
        await unfenced(Fenced(3))
