"""How long to wait before what failed is tried again."""

from latchkey_server.backoff import Backoff


def test_what_fails_again_and_again_waits_twice_as_long_each_time_up_to_a_bound() -> None:
    backoff = Backoff(0.1, 5.0)

    assert [backoff.pause() for _ in range(8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_what_held_for_a_while_is_tried_again_as_if_it_had_never_failed() -> None:
    backoff = Backoff(0.1, 5.0)
    for _ in range(5):
        backoff.pause()
    backoff.reset()

    assert [backoff.pause(), backoff.pause()] == [0.1, 0.2]
