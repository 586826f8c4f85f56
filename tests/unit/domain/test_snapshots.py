"""What audit records of a resource: its facts as JSON, without secrets (spec §6)."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from latchkey.rules import NANOS
from latchkey_server.domain import ids
from latchkey_server.domain.model import Api, CreditRefill, Credits, RefillInterval, SpendLimit, SpendReset
from latchkey_server.domain.snapshots import Resource, snapshot
from tests.unit.builders import (
    API_ID,
    IDENTITY_ID,
    KEY_ID,
    MANAGEMENT_KEY_ID,
    NOW,
    OTHER_API_ID,
    REVOCATION,
    SECRET_ID,
    WORKSPACE_ID,
    every_field,
    make_identity,
    make_key,
    make_management_key,
    make_ratelimit,
    make_secret,
    make_workspace,
)

FULL_KEY = make_key(
    replace(
        every_field(),
        spend_limit=SpendLimit(3 * NANOS, SpendReset.WEEKLY),
        credits=Credits(5, CreditRefill(RefillInterval.MONTHLY, 9, 31)),
    ),
    identity_id=IDENTITY_ID,
    revocation=REVOCATION,
    delete_time=NOW,
)
RESOURCES: list[Resource] = [
    FULL_KEY,
    make_key(),
    make_secret(end_time=NOW, ended=True),
    make_identity(make_ratelimit(), metadata={"tier": 1}),
    make_management_key(api_ids=frozenset({OTHER_API_ID, API_ID}), expire_time=NOW, revocation=REVOCATION),
    make_workspace(),
    Api(WORKSPACE_ID, API_ID, "default", True, NOW, NOW, 1),
]


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda resource: type(resource).__name__)
def test_a_snapshot_is_json_in_which_every_id_is_formatted(resource: Resource) -> None:
    facts = snapshot(resource)
    text = json.dumps(facts)

    assert json.loads(text) == facts
    for identifier in (WORKSPACE_ID, API_ID, OTHER_API_ID, KEY_ID, IDENTITY_ID, MANAGEMENT_KEY_ID, SECRET_ID):
        assert str(identifier) not in text
        assert identifier.hex not in text


def test_no_hash_and_no_pepper_is_ever_kept() -> None:
    secret = make_secret(hash=b"\xab" * 32, pepper_id="pepper-2026")

    assert snapshot(secret) == {
        "workspace_id": ids.format_id("ws", WORKSPACE_ID),
        "secret_id": ids.format_id("sec", SECRET_ID),
        "mask": "sk_abcd••••••••wxyz",
        "create_time": "2026-03-14T15:09:26.535000Z",
        "end_time": None,
        "ended": False,
    }


def test_a_keys_fields_stand_beside_its_other_facts() -> None:
    assert snapshot(FULL_KEY) == {
        "workspace_id": ids.format_id("ws", WORKSPACE_ID),
        "key_id": ids.format_id("key", KEY_ID),
        "api_id": ids.format_id("api", API_ID),
        "prefix": "sk",
        "identity_id": ids.format_id("idn", IDENTITY_ID),
        "revocation": {"reason": "COMPROMISED", "note": "leaked", "revoke_time": "2026-03-14T14:09:26.535000Z"},
        "create_time": "2026-03-13T15:09:26.535000Z",
        "update_time": "2026-03-13T15:09:26.535000Z",
        "delete_time": "2026-03-14T15:09:26.535000Z",
        "revision": 3,
        "name": "Checkout",
        "environment": "prod",
        "enabled": False,
        "expire_time": "2026-03-23T15:09:26.535000Z",
        "not_before_time": "2026-03-05T15:09:26.535000Z",
        "model_limits": {"enabled": True, "models": ["small", "large"]},
        "allow_ips": ["10.0.0.0/8", "2001:db8::1"],
        "scopes": ["docs.*", "docs.read"],
        "spend_limit": {"amount": 3_000_000_000, "reset_interval": "WEEKLY"},
        "credits": {"amount": 5, "refill": {"interval": "MONTHLY", "amount": 9, "day_of_month": 31}},
        "ratelimits": [
            {"name": "requests", "limit": 10, "window": "60s", "auto_apply": True, "on_unavailable": "DENY"}
        ],
        "guardrail_id": "g-1",
        "firewall_policy_id": "f-1",
        "external_id": "customer-1",
        "member": "ada",
        "metadata": {"environment": "live", "tier": 3},
    }


def test_a_management_keys_binding_is_kept_as_sorted_ids() -> None:
    facts = snapshot(make_management_key(api_ids=frozenset({OTHER_API_ID, API_ID})))

    assert facts["api_ids"] == [ids.format_id("api", API_ID), ids.format_id("api", OTHER_API_ID)]
    assert facts["role"] == "DEVELOPER"


@pytest.mark.parametrize(
    ("window", "text"),
    [
        (timedelta(seconds=1), "1s"),
        (timedelta(days=1), "86400s"),
        (timedelta(days=31), "2678400s"),
        (timedelta(seconds=1_234_567), "1234567s"),
        (timedelta(seconds=100_001), "100001s"),
    ],
)
def test_a_duration_is_kept_to_the_second(window: timedelta, text: str) -> None:
    facts = snapshot(make_identity(make_ratelimit(window=window)))

    assert [limit["window"] for limit in facts["ratelimits"]] == [text]


def test_a_fraction_of_a_second_is_kept() -> None:
    settings = replace(make_workspace().settings, max_cacheable_for=timedelta(milliseconds=2_500))

    assert snapshot(make_workspace(settings=settings))["settings"]["max_cacheable_for"] == "2.5s"
