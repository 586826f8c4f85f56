"""Identifiers order things by their creation (spec §3: newest first by id)."""

import threading
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from latchkey_server.domain import ids

MILLISECOND = 1_000_000
MOMENTS = st.integers(0, 2**47)


@given(st.lists(MOMENTS, min_size=1, max_size=200))
def test_later_ids_are_larger_however_the_clock_moves(moments: list[int]) -> None:
    clock = iter(moments)
    maker = ids.IdMaker(lambda: next(clock) * MILLISECOND)

    made = [maker.make() for _ in moments]

    assert made == sorted(set(made))
    assert {(one.version, one.variant) for one in made} == {(7, "specified in RFC 4122")}


@given(MOMENTS, st.integers(1, 10_000))
def test_ids_of_one_millisecond_are_ordered_and_stay_close_to_it(moment: int, count: int) -> None:
    maker = ids.IdMaker(lambda: moment * MILLISECOND)

    made = [maker.make() for _ in range(count)]

    assert made == sorted(set(made))
    assert (made[0].int >> 80, (made[-1].int >> 80) - moment <= 1 + count // 4_096) == (moment, True)


def test_ids_made_by_several_threads_at_once_are_all_different_and_ordered_in_each() -> None:
    made: list[list[UUID]] = [[] for _ in range(4)]

    def make(part: list[UUID]) -> None:
        part.extend(ids.new_id() for _ in range(2_000))

    threads = [threading.Thread(target=make, args=(part,)) for part in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len({one for part in made for one in part}) == 8_000
    assert all(part == sorted(part) for part in made)
