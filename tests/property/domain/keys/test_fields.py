"""A key's fields, for any content: storing twice is storing once, and nothing but violations is ever reported."""

import ipaddress
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from latchkey.rules import ip_allowed, parse_network
from latchkey_server.domain.keys import fields as key_fields
from latchkey_server.domain.model import (
    CreditRefill,
    Credits,
    KeyFields,
    ModelLimits,
    OnUnavailable,
    RateLimit,
    RefillInterval,
    SpendLimit,
    SpendReset,
)
from latchkey_server.domain.validation import Violations

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.integers(-2, 10**13)
ADDRESSES = st.ip_addresses().map(str)
ENTRIES = ADDRESSES | st.builds("{}/{}".format, ADDRESSES, st.integers(0, 40)) | TEXT
SCOPES = st.sampled_from(["docs.read", "docs.*", "*", "a..b", ""]) | TEXT
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.builds(
    KeyFields,
    name=TEXT,
    environment=TEXT | st.sampled_from([" prod ", "e\u0301" * 40]),
    model_limits=st.none() | st.builds(ModelLimits, st.booleans(), st.lists(TEXT, max_size=4).map(tuple)),
    allow_ips=st.lists(ENTRIES, max_size=4).map(tuple),
    scopes=st.lists(SCOPES, max_size=4).map(tuple),
    spend_limit=st.none() | st.builds(SpendLimit, NUMBERS, st.sampled_from(SpendReset)),
    credits=st.none()
    | st.builds(
        Credits,
        NUMBERS,
        st.none() | st.builds(CreditRefill, st.sampled_from(RefillInterval), NUMBERS, st.integers(-1, 33)),
    ),
    ratelimits=st.lists(
        st.builds(
            RateLimit,
            st.sampled_from(["a", "b", ""]) | TEXT,
            NUMBERS,
            st.timedeltas(timedelta(seconds=-1), timedelta(days=40)),
            st.booleans(),
            st.sampled_from(OnUnavailable),
        ),
        max_size=3,
    ).map(tuple),
    member=TEXT,
    external_id=TEXT,
    metadata=st.dictionaries(TEXT, JSON, max_size=3),
)


@given(FIELDS)
def test_storing_fields_twice_is_storing_them_once(fields: KeyFields) -> None:
    found, again = Violations("key"), Violations("key")
    stored = key_fields.normalized(fields, found)

    if not found.found:
        assert key_fields.normalized(stored, again) == stored
        assert again.found == []


@given(FIELDS)
def test_every_violation_is_named_by_a_path_of_the_key(fields: KeyFields) -> None:
    found = Violations("key")
    key_fields.normalized(fields, found)

    for violation in found.found:
        head, _, tail = violation.field.partition(".")
        assert head == "key"
        assert tail.split(".")[0].split("[")[0] in KeyFields.__slots__
        assert violation.problem


@given(st.lists(st.builds("{}/{}".format, ADDRESSES, st.integers(0, 32)), max_size=4), ADDRESSES)
def test_storing_addresses_changes_nobody_whom_they_allow(entries: list[str], client: str) -> None:
    stored = key_fields.normalized(KeyFields(allow_ips=tuple(entries)), Violations()).allow_ips

    assert ip_allowed(stored, client) is ip_allowed(entries, client)
    assert [str(ipaddress.ip_network(entry)) for entry in stored] == [str(parse_network(entry)) for entry in stored]
