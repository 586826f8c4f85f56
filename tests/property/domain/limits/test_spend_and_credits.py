"""Windows and refills at any instant (spec §3)."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from latchkey_server.domain.limits.credits import credit_state, next_refill
from latchkey_server.domain.limits.spend import spend_window
from latchkey_server.domain.model import Balance, CreditRefill, Credits, RefillInterval, SpendReset

INSTANTS = st.builds(
    lambda passed: datetime(2000, 1, 1, tzinfo=UTC) + passed, st.timedeltas(timedelta(0), timedelta(days=36_500))
)
RESETS = st.sampled_from([reset for reset in SpendReset if reset is not SpendReset.NONE])
REFILLS = st.builds(CreditRefill, st.sampled_from(RefillInterval), st.integers(1, 100), st.integers(1, 31))
SECOND = timedelta(seconds=1)


@given(RESETS, INSTANTS)
def test_now_lies_in_its_window_and_the_next_window_begins_where_it_ends(reset: SpendReset, now: datetime) -> None:
    start, end = spend_window(reset, now)

    assert start is not None
    assert end is not None
    assert start <= now.date()
    assert now < end
    assert spend_window(reset, end - SECOND) == (start, end)
    assert spend_window(reset, end)[0] == end.date()


@given(REFILLS, INSTANTS)
def test_the_next_refill_is_a_midnight_after_now_on_its_clamped_day(refill: CreditRefill, now: datetime) -> None:
    due = next_refill(refill, now)

    days = [now.date() + timedelta(days=number) for number in range(1, 63)]
    if refill.interval is RefillInterval.MONTHLY:
        days = [
            day
            for day in days
            if day.day == refill.day_of_month
            or (day.day < refill.day_of_month and (day + timedelta(days=1)).month != day.month)
        ]

    assert due == datetime(days[0].year, days[0].month, days[0].day, tzinfo=UTC)


@given(REFILLS, st.integers(0, 200), INSTANTS, st.timedeltas(timedelta(0), timedelta(days=400)))
def test_missed_refills_act_once_however_many_were_missed(
    refill: CreditRefill, remaining: int, settled: datetime, passed: timedelta
) -> None:
    now = settled + passed
    state = credit_state(Credits(0, refill), Balance(remaining, settled), now)
    stepped, cursor = remaining, settled
    while (cursor := next_refill(refill, cursor)) <= now:
        stepped = max(stepped, refill.amount)

    assert state is not None
    assert state.remaining == stepped
    assert state.next_refill_time == cursor


@given(REFILLS, st.integers(0, 200), INSTANTS, st.timedeltas(timedelta(0), timedelta(days=90)))
def test_settling_a_balance_on_the_way_changes_nothing(
    refill: CreditRefill, remaining: int, settled: datetime, passed: timedelta
) -> None:
    credits = Credits(0, refill)
    now, halfway = settled + passed, settled + passed / 2

    middle = credit_state(credits, Balance(remaining, settled), halfway)

    assert middle is not None
    assert credit_state(credits, Balance(middle.remaining, halfway), now) == credit_state(
        credits, Balance(remaining, settled), now
    )
