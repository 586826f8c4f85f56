"""What is stored of an answer is the answer (spec §3: a replay answers what the first call answered)."""

import json
from datetime import UTC, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from latchkey_server.domain import replays
from latchkey_server.domain.model import Api, CreditState, Identity, OnUnavailable, RateLimit
from latchkey_server.domain.ratelimit_json import ratelimits_json, ratelimits_of

INSTANTS = st.datetimes(timezones=st.just(UTC))
TEXTS = st.text(max_size=12)
RATE_LIMITS = st.builds(
    RateLimit,
    name=TEXTS,
    limit=st.integers(1, 10**9),
    window=st.integers(1, 31 * 86_400).map(lambda seconds: timedelta(seconds=seconds)),
    auto_apply=st.booleans(),
    on_unavailable=st.sampled_from(OnUnavailable),
)
METADATA = st.dictionaries(TEXTS, st.none() | st.booleans() | st.integers() | TEXTS | st.lists(TEXTS), max_size=3)
APIS = st.builds(
    Api,
    workspace_id=st.uuids(),
    api_id=st.uuids(),
    name=TEXTS,
    is_default=st.booleans(),
    create_time=INSTANTS,
    update_time=INSTANTS,
    revision=st.integers(1),
)
IDENTITIES = st.builds(
    Identity,
    workspace_id=st.uuids(),
    identity_id=st.uuids(),
    external_id=TEXTS,
    metadata=METADATA,
    ratelimits=st.lists(RATE_LIMITS, max_size=3).map(tuple),
    create_time=INSTANTS,
    update_time=INSTANTS,
    revision=st.integers(1),
)


def _stored(value: Any) -> Any:
    """Return JSON as it comes back from where it was stored."""
    return json.loads(json.dumps(value))


@settings(max_examples=25)
@given(APIS)
def test_an_api_is_told_again_as_it_was(api: Api) -> None:
    assert replays.api_of(_stored(replays.api_json(api))) == api


@settings(max_examples=25)
@given(IDENTITIES)
def test_an_identity_is_told_again_as_it_was(identity: Identity) -> None:
    assert replays.identity_of(_stored(replays.identity_json(identity))) == identity


@settings(max_examples=25)
@given(st.builds(CreditState, st.integers(0, 10**12), st.none() | INSTANTS))
def test_a_balance_is_told_again_as_it_was(credits: CreditState) -> None:
    assert replays.credits_of(_stored(replays.credits_json(credits))) == credits


@settings(max_examples=25)
@given(st.lists(RATE_LIMITS, max_size=20).map(tuple))
def test_rate_limits_are_told_again_as_they_were_in_their_order(limits: tuple[RateLimit, ...]) -> None:
    assert ratelimits_of(_stored(ratelimits_json(limits))) == limits
