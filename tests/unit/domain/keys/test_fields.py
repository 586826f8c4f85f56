"""The rules of a key's fields: what is normalised on write, and what is refused, by its path (spec §3)."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from latchkey.rules import NANOS
from latchkey_server.domain.keys import fields as key_fields
from latchkey_server.domain.model import (
    CreditRefill,
    Credits,
    KeyFields,
    ModelLimits,
    RefillInterval,
    SpendLimit,
    SpendReset,
)
from latchkey_server.domain.validation import Violations, scope_problem
from tests.unit.builders import NOW, TICK, every_field, make_ratelimit, problems_of


def stored(**fields: Any) -> KeyFields:
    """Return the fields as they are stored, which breaks no rule."""
    found = Violations("key")
    normalized = key_fields.normalized(KeyFields(**fields), found)
    assert problems_of(found) == []
    return normalized


def refused(**fields: Any) -> list[str]:
    """Return the paths that are refused."""
    found = Violations("key")
    key_fields.normalized(KeyFields(**fields), found)
    return [field for field, _ in problems_of(found)]


def test_absent_fields_stay_absent() -> None:
    assert stored() == KeyFields()


def test_fields_in_their_stored_form_stay_as_they_are() -> None:
    found = Violations("key")

    assert key_fields.normalized(every_field(), found) == every_field()
    assert problems_of(found) == []


@pytest.mark.parametrize(
    ("field", "most"),
    [("name", 128), ("guardrail_id", 128), ("firewall_policy_id", 128), ("external_id", 255), ("member", 128)],
)
def test_text_is_kept_as_it_is_up_to_its_length_in_code_points(field: str, most: int) -> None:
    longest = "\U0001f680" * most

    assert getattr(stored(**{field: longest}), field) == longest
    assert refused(**{field: longest + "x"}) == [f"key.{field}"]


@pytest.mark.parametrize("field", ["name", "guardrail_id", "firewall_policy_id", "external_id", "member"])
@pytest.mark.parametrize("character", ["\0", "\n", "\x1b", "\x7f", "\x9f"])
def test_text_with_control_characters_is_refused(field: str, character: str) -> None:
    assert refused(**{field: f"a{character}b"}) == [f"key.{field}"]


def test_an_environment_is_stored_normalised_and_never_refused_for_its_length() -> None:
    assert stored(environment=" cafe\u0301 ").environment == "caf\u00e9"
    assert stored(environment="a" * 5_000).environment == "a" * 32
    assert stored(environment="\u3000").environment == ""


def test_an_environment_with_a_control_character_is_refused() -> None:
    assert refused(environment="pr\0od") == ["key.environment"]


def test_an_expire_time_may_be_in_the_past() -> None:
    assert stored(expire_time=NOW - timedelta(days=400)).expire_time == NOW - timedelta(days=400)


def test_models_are_trimmed_and_kept_once_in_their_order() -> None:
    limits = ModelLimits(True, (" large ", "small", "large", "Large"))

    assert stored(model_limits=limits).model_limits == ModelLimits(True, ("large", "small", "Large"))


@pytest.mark.parametrize("enabled", [True, False])
def test_a_list_of_models_may_be_empty_or_disabled(enabled: bool) -> None:
    assert stored(model_limits=ModelLimits(enabled, ())).model_limits == ModelLimits(enabled, ())
    assert stored(model_limits=ModelLimits(enabled, ("a",))).model_limits == ModelLimits(enabled, ("a",))


@pytest.mark.parametrize("model", ["", "  ", "\u3000", "m" * 129, "a\0b"])
def test_a_model_that_is_empty_too_long_or_unprintable_is_refused_by_its_place(model: str) -> None:
    assert refused(model_limits=ModelLimits(False, ("small", model))) == ["key.model_limits.models[1]"]


def test_at_most_256_models_are_taken() -> None:
    models = tuple(f"m{number}" for number in range(257))

    assert stored(model_limits=ModelLimits(True, models[:256])).model_limits == ModelLimits(True, models[:256])
    assert refused(model_limits=ModelLimits(True, models)) == ["key.model_limits.models"]


def test_addresses_are_stored_once_without_host_bits_and_without_the_mapped_form() -> None:
    entries = (" 10.1.2.3/8", "10.0.0.0/8", "192.0.2.1", "192.0.2.1/32", "::ffff:192.0.2.1", "2001:DB8::1/128")

    assert stored(allow_ips=entries).allow_ips == ("10.0.0.0/8", "192.0.2.1", "2001:db8::1")


@pytest.mark.parametrize("entry", ["", "junk", "10.0.0.0/40", "fe80::1%eth0", "300.1.1.1"])
def test_a_bad_address_is_refused_by_its_place_and_its_name(entry: str) -> None:
    found = Violations("key")

    key_fields.normalized(KeyFields(allow_ips=("10.0.0.1", entry)), found)

    assert problems_of(found) == [("key.allow_ips[1]", f"{entry!r} is not an IPv4 or IPv6 address or CIDR range")]


@pytest.mark.parametrize("entry", ["x" * 65, "10.0.0.1\0"])
def test_an_address_that_is_too_long_or_unprintable_is_not_repeated(entry: str) -> None:
    found = Violations("key")

    key_fields.normalized(KeyFields(allow_ips=(entry,)), found)

    assert problems_of(found) == [("key.allow_ips[0]", "'the entry' is not an IPv4 or IPv6 address or CIDR range")]


def test_at_most_256_addresses_are_taken() -> None:
    entries = tuple(f"10.0.{number // 256}.{number % 256}" for number in range(257))

    assert stored(allow_ips=entries[:256]).allow_ips == entries[:256]
    assert refused(allow_ips=entries) == ["key.allow_ips"]


def test_scopes_are_kept_sorted_and_once() -> None:
    assert stored(scopes=("docs.read", "a.b", "docs.*", "a.b")).scopes == ("a.b", "docs.*", "docs.read")


@pytest.mark.parametrize("scope", ["docs", "docs.read", "*", "*.read", "docs.*.own", "a:b/c@d+e~f-g_h.9", "s" * 128])
def test_a_scope_is_segments_joined_by_dots_with_wildcards(scope: str) -> None:
    assert stored(scopes=(scope,)).scopes == (scope,)


@pytest.mark.parametrize(
    "scope", ["", ".", "docs.", ".read", "docs..read", "docs.r*", "**", "do cs", "dócs", "docs\n", "s" * 129]
)
def test_a_scope_of_another_form_is_refused_by_its_place(scope: str) -> None:
    assert refused(scopes=("docs.read", scope)) == ["key.scopes[1]"]


def test_at_most_256_scopes_are_taken() -> None:
    scopes = tuple(sorted(f"s{number}" for number in range(257)))

    assert stored(scopes=scopes[:256]).scopes == scopes[:256]
    assert refused(scopes=scopes) == ["key.scopes"]


@pytest.mark.parametrize("scope", ["*", "docs.*"])
def test_a_required_scope_has_no_wildcards(scope: str) -> None:
    assert scope_problem(scope, wildcards=False) == "must be a concrete scope without *"


def test_a_spend_limit_of_0_is_no_limit() -> None:
    assert stored(spend_limit=SpendLimit(0, SpendReset.DAILY)).spend_limit is None


@pytest.mark.parametrize("amount", [1, 1_000_000_000 * NANOS])
def test_a_spend_limit_is_kept_to_the_nano_dollar(amount: int) -> None:
    limit = SpendLimit(amount, SpendReset.WEEKLY)

    assert stored(spend_limit=limit).spend_limit == limit


@pytest.mark.parametrize("amount", [-1, 1_000_000_000 * NANOS + 1])
def test_a_spend_limit_outside_its_range_is_refused(amount: int) -> None:
    assert refused(spend_limit=SpendLimit(amount, SpendReset.NONE)) == ["key.spend_limit.amount"]


@pytest.mark.parametrize("amount", [0, 1, 10**12])
def test_credits_are_a_whole_number_from_0(amount: int) -> None:
    assert stored(credits=Credits(amount, None)).credits == Credits(amount, None)


@pytest.mark.parametrize("amount", [-1, 10**12 + 1])
def test_credits_outside_their_range_are_refused(amount: int) -> None:
    assert refused(credits=Credits(amount, None)) == ["key.credits.amount"]


@pytest.mark.parametrize("amount", [0, -1, 10**12 + 1])
def test_a_refill_outside_its_range_is_refused(amount: int) -> None:
    refill = CreditRefill(RefillInterval.DAILY, amount, 1)

    assert refused(credits=Credits(1, refill)) == ["key.credits.refill.amount"]


@pytest.mark.parametrize("day", [0, -1, 32])
def test_a_monthly_refill_on_no_day_of_a_month_is_refused(day: int) -> None:
    refill = CreditRefill(RefillInterval.MONTHLY, 1, day)

    assert refused(credits=Credits(1, refill)) == ["key.credits.refill.day_of_month"]


@pytest.mark.parametrize("day", [1, 31])
def test_a_monthly_refill_is_on_a_day_from_1_to_31(day: int) -> None:
    wanted = Credits(1, CreditRefill(RefillInterval.MONTHLY, 10**12, day))

    assert stored(credits=wanted).credits == wanted


def test_rate_limits_are_refused_by_their_place() -> None:
    assert refused(ratelimits=(make_ratelimit(), make_ratelimit())) == ["key.ratelimits[1].name"]


def test_metadata_is_refused_beyond_4_kib() -> None:
    assert refused(metadata={"a": "x" * 4_096}) == ["key.metadata"]


def test_all_violations_are_named_at_once() -> None:
    paths = refused(
        name="n" * 129,
        environment="a\0b",
        model_limits=ModelLimits(True, ("",)),
        allow_ips=("junk", "10.0.0.1", "junk2"),
        scopes=("a..b",),
        spend_limit=SpendLimit(-1, SpendReset.NONE),
        credits=Credits(-1, CreditRefill(RefillInterval.MONTHLY, 0, 0)),
        ratelimits=(make_ratelimit(limit=0),),
        metadata={"a": "\0"},
    )

    assert paths == [
        "key.name",
        "key.environment",
        "key.model_limits.models[0]",
        "key.allow_ips[0]",
        "key.allow_ips[2]",
        "key.scopes[0]",
        "key.spend_limit.amount",
        "key.credits.amount",
        "key.credits.refill.amount",
        "key.credits.refill.day_of_month",
        "key.ratelimits[0].limit",
        "key.metadata",
    ]


def test_a_ttl_becomes_an_expire_time() -> None:
    found = Violations()

    assert key_fields.expiry(found, None, timedelta(hours=1), NOW) == NOW + timedelta(hours=1)
    assert key_fields.expiry(found, NOW, None, NOW) == NOW
    assert key_fields.expiry(found, None, None, NOW) is None
    assert problems_of(found) == []


def test_a_ttl_together_with_an_expire_time_is_refused() -> None:
    found = Violations()

    key_fields.expiry(found, NOW, timedelta(hours=1), NOW)

    assert problems_of(found) == [("ttl", "must not be given together with key.expire_time")]


@pytest.mark.parametrize("ttl", [timedelta(0), -TICK, timedelta(days=3_650) + TICK, timedelta.max])
def test_a_ttl_that_is_not_positive_or_beyond_ten_years_is_refused(ttl: timedelta) -> None:
    found = Violations()

    assert key_fields.expiry(found, None, ttl, NOW) is None
    assert problems_of(found) == [("ttl", "must be positive and at most 3650 days")]


def test_a_renamed_key_keeps_everything_else() -> None:
    found = Violations("key")

    renamed = key_fields.normalized(replace(every_field(), name="New"), found)

    assert renamed == replace(every_field(), name="New")
