"""Times, durations, money and JSON on the wire: what is written is read again, what is malformed is named (spec §7)."""

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money
from hypothesis import example, given
from hypothesis import strategies as st

from latchkey.money import money_of
from latchkey.v1 import key_pb2, key_service_pb2
from latchkey_server.domain.validation import Violations
from latchkey_server.transport.convert import well_known as wire
from tests.unit.builders import problems_of

INT64 = st.integers(-(2**63), 2**63 - 1)
INT32 = st.integers(-(2**31), 2**31 - 1)
NANOS = 1_000_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = datetime(2, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)
INSTANTS = st.timedeltas(FIRST - EPOCH, LAST - EPOCH).map(EPOCH.__add__)
LENGTHS = st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=12,
)


def _key(**fields: Any) -> key_pb2.Key:
    return key_pb2.Key(**fields)


@given(INSTANTS)
def test_an_instant_that_is_written_is_read_again(instant: datetime) -> None:
    found = Violations()
    message = _key(expire_time=wire.timestamp(instant))

    assert wire.read_time(found, "at", message, "expire_time") == instant
    assert problems_of(found) == []


@given(INSTANTS, st.integers(0, 999))
def test_an_instant_is_truncated_to_its_microsecond(instant: datetime, further: int) -> None:
    found = Violations()
    message = _key(expire_time=wire.timestamp(instant))
    message.expire_time.nanos += further

    assert wire.read_time(found, "at", message, "expire_time") == instant


@given(INT64, INT32)
@example(-62_104_060_801, 0)
@example(-62_104_060_800, 0)
@example(253_370_764_800, 0)
@example(0, NANOS)
@example(0, -1)
def test_any_timestamp_is_a_time_of_the_years_2_to_9998_or_refused_by_its_field(seconds: int, nanos: int) -> None:
    found = Violations()

    read = wire.read_time(found, "at", _key(expire_time=Timestamp(seconds=seconds, nanos=nanos)), "expire_time")

    sound = 0 <= nanos < NANOS and -62_104_060_800 <= seconds < 253_370_764_800
    assert (read is not None) is sound
    assert problems_of(found) == ([] if sound else [("at", "must be a time from year 2 to 9998")])


@given(LENGTHS)
def test_a_duration_that_is_written_is_read_again(length: timedelta) -> None:
    found = Violations()
    sent = Duration()
    sent.FromTimedelta(length)

    assert wire.read_duration(found, "for", key_service_pb2.RotateKeyRequest(grace=sent), "grace") == length
    assert problems_of(found) == []
    if length >= timedelta(0):
        assert wire.duration(length) == sent


@given(INT64, INT32)
@example(1, -1)
@example(-1, 1)
@example(0, NANOS)
@example(86_400 * 10**9, 0)
def test_a_duration_of_two_signs_or_of_a_second_in_nanos_is_refused_by_its_field(seconds: int, nanos: int) -> None:
    found = Violations()
    message = key_service_pb2.RotateKeyRequest(grace=Duration(seconds=seconds, nanos=nanos))

    read = wire.read_duration(found, "for", message, "grace")

    one_sign = seconds == 0 or nanos == 0 or (seconds > 0) == (nanos > 0)
    sound = one_sign and abs(nanos) < NANOS and abs(seconds) < 86_400 * 999_999_999
    if sound:
        assert read is not None
        assert abs(read - timedelta(seconds=seconds)) < timedelta(seconds=1, microseconds=1)
        assert problems_of(found) == []
    elif read is None:
        assert problems_of(found) == [("for", "must be a duration with seconds and nanos of one sign")]
    if not one_sign or abs(nanos) >= NANOS:
        assert read is None


@given(st.integers(-(10**18), 10**18))
@example(-1)
@example(-NANOS)
@example(NANOS - 1)
def test_money_that_is_written_is_read_again_to_the_nano_dollar(nanos: int) -> None:
    found = Violations()

    assert wire.read_money(found, "amount", key_pb2.SpendLimit(amount=money_of(nanos)), "amount") == nanos
    assert problems_of(found) == []


@given(INT64, INT32, st.sampled_from(["USD", "usd", "", "EUR"]))
@example(1, -1, "USD")
@example(-1, 1, "USD")
@example(0, NANOS, "USD")
@example(0, -NANOS, "USD")
def test_money_is_dollars_with_units_and_nanos_of_one_sign_or_refused_by_its_field(
    units: int, nanos: int, currency: str
) -> None:
    found = Violations()
    message = key_pb2.SpendLimit(amount=Money(currency_code=currency, units=units, nanos=nanos))

    read = wire.read_money(found, "amount", message, "amount")

    one_sign = units == 0 or nanos == 0 or (units > 0) == (nanos > 0)
    if currency != "USD":
        assert (read, problems_of(found)) == (None, [("amount.currency_code", "must be USD")])
    elif one_sign and abs(nanos) < NANOS:
        assert (read, problems_of(found)) == (units * NANOS + nanos, [])
    else:
        problem = "must have units and nanos of one sign, nanos below 1,000,000,000"
        assert (read, problems_of(found)) == (None, [("amount", problem)])


@given(st.dictionaries(TEXTS, JSON, max_size=4))
def test_json_that_is_written_is_read_again(value: dict[str, Any]) -> None:
    found = Violations()

    assert wire.read_struct(found, "metadata", wire.struct(value)) == value
    assert problems_of(found) == []


def test_absent_is_told_from_the_epoch_from_no_time_and_from_no_money() -> None:
    found = Violations()
    absent, rotate = _key(), key_service_pb2.RotateKeyRequest()
    zero = _key(expire_time=Timestamp())

    assert wire.read_time(found, "at", absent, "expire_time") is None
    assert wire.read_time(found, "at", zero, "expire_time") == EPOCH
    assert wire.read_duration(found, "for", rotate, "grace") is None
    assert wire.read_duration(found, "for", key_service_pb2.RotateKeyRequest(grace=Duration()), "grace") == timedelta(0)
    assert wire.read_money(found, "amount", key_pb2.SpendLimit(), "amount") is None
    assert wire.read_money(found, "amount", key_pb2.SpendLimit(amount=Money(currency_code="USD")), "amount") == 0
    assert problems_of(found) == []


def test_a_number_that_json_has_not_is_refused() -> None:
    for value in (float("nan"), float("inf"), float("-inf")):
        message = Struct()
        message["number"] = value
        found = Violations()
        assert wire.read_struct(found, "metadata", message) == {}
        assert problems_of(found) == [("metadata", "must hold finite numbers and complete values")]
