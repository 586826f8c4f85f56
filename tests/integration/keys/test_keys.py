"""KeyService: every rpc and field rule (spec §3)."""

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money

from latchkey.v1 import (
    admin_service_pb2,
    api_pb2,
    environment_pb2,
    key_pb2,
    key_service_pb2,
    management_key_pb2,
    ratelimit_pb2,
    verification_pb2,
    verify_service_pb2,
)
from latchkey_server.opening import utc_now
from tests.support.service import Client, Service, rejection, serving

MUTABLE = (
    "name",
    "environment",
    "enabled",
    "expire_time",
    "not_before_time",
    "model_limits",
    "allow_ips",
    "scopes",
    "spend_limit",
    "credits",
    "ratelimits",
    "guardrail_id",
    "firewall_policy_id",
    "external_id",
    "member",
    "metadata",
)
VALID = verification_pb2.VERIFY_CODE_VALID
NOT_FOUND = verification_pb2.VERIFY_CODE_NOT_FOUND


def at(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def soon(**ahead: float) -> Timestamp:
    return at(datetime.now(UTC) + timedelta(**ahead))


def usd(units: int, nanos: int = 0) -> Money:
    return Money(currency_code="USD", units=units, nanos=nanos)


def full_key() -> key_pb2.Key:
    """A key with every field set that a caller may set."""
    return key_pb2.Key(
        name="everything",
        environment="prod",
        prefix="sk_live",
        enabled=True,
        expire_time=at(datetime(2099, 1, 1, tzinfo=UTC)),
        not_before_time=at(datetime(2020, 1, 1, tzinfo=UTC)),
        model_limits=key_pb2.ModelLimits(enabled=True, models=["m1", "m2"]),
        allow_ips=["10.0.0.0/8", "2001:db8::1"],
        scopes=["docs.*", "mail.read"],
        spend_limit=key_pb2.SpendLimit(amount=usd(10, 5), reset_interval=key_pb2.SPEND_RESET_WEEKLY),
        credits=key_pb2.Credits(
            amount=7,
            refill=key_pb2.CreditRefill(interval=key_pb2.REFILL_INTERVAL_MONTHLY, amount=9, day_of_month=31),
        ),
        ratelimits=[
            ratelimit_pb2.RateLimit(
                name="burst",
                limit=5,
                window=Duration(seconds=60),
                auto_apply=True,
                on_unavailable=ratelimit_pb2.ON_UNAVAILABLE_ALLOW,
            )
        ],
        guardrail_id="guard",
        firewall_policy_id="fw",
        external_id="acme",
        member="ann",
    )


async def update(client: Client, key: key_pb2.Key, *paths: str, etag: str = "") -> key_service_pb2.UpdateKeyResponse:
    mask = FieldMask(paths=paths) if paths else None
    return await client.keys.UpdateKey(key_service_pb2.UpdateKeyRequest(key=key, update_mask=mask, etag=etag))


async def get(client: Client, key_id: str) -> key_pb2.Key:
    return (await client.keys.GetKey(key_service_pb2.GetKeyRequest(key_id=key_id))).key


async def revoke(client: Client, key_id: str) -> key_pb2.Key:
    reason = key_pb2.REVOKE_REASON_COMPROMISED
    request = key_service_pb2.RevokeKeyRequest(key_id=key_id, reason=reason, note="leaked")
    return (await client.keys.RevokeKey(request)).key


async def test_every_field_is_stored_and_returned(owner: Client) -> None:
    sent = full_key()
    sent.metadata.update({"team": "x", "nested": {"list": [1, None, True, 2.5]}})

    made = (await owner.create_key(sent)).key
    read = await get(owner, made.key_id)

    for name in ("prefix", *MUTABLE):
        assert getattr(sent, name) == getattr(read, name), name
    assert made == read
    assert read.status == key_pb2.KEY_STATUS_ACTIVE
    assert read.credit_balance.remaining == 7
    assert read.spend.remaining == usd(10, 5)


async def test_a_key_without_fields_gets_the_defaults(owner: Client) -> None:
    made = await owner.create_key()

    assert made.key.enabled
    assert made.key.prefix == "sk"
    assert made.secret.startswith("sk_")
    assert made.key.environment == ""
    assert not made.key.HasField("credit_balance")
    workspace = (await owner.admin.GetWorkspace(admin_service_pb2.GetWorkspaceRequest())).workspace
    assert made.key.api_id == workspace.default_api_id


async def test_the_secret_is_in_the_create_answer_only_and_others_see_a_mask(owner: Client) -> None:
    made = await owner.create_key(key_pb2.Key(prefix="sk_test"))

    listed = await owner.keys.ListKeys(key_service_pb2.ListKeysRequest())

    assert made.secret not in str(listed)
    random = made.secret.removeprefix("sk_test_")
    assert [secret.mask for secret in listed.keys[0].secrets] == [f"sk_test_{random[:4]}••••••••{random[-4:]}"]


async def test_an_update_without_a_field_keeps_it_and_with_an_empty_one_clears_it(owner: Client) -> None:
    key_id = (await owner.create_key(full_key())).key.key_id

    renamed = (await update(owner, key_pb2.Key(key_id=key_id, name="new"))).key
    assert (renamed.name, renamed.environment, list(renamed.scopes)) == ("new", "prod", ["docs.*", "mail.read"])

    cleared = (await update(owner, key_pb2.Key(key_id=key_id, environment=""))).key
    assert (cleared.name, cleared.environment) == ("new", "")

    by_mask = (await update(owner, key_pb2.Key(key_id=key_id), "scopes", "expire_time", "metadata", "member")).key
    assert (list(by_mask.scopes), by_mask.HasField("expire_time"), by_mask.member) == ([], False, "")
    assert by_mask.allow_ips == ["10.0.0.0/8", "2001:db8::1"]


async def test_a_mask_may_name_a_field_inside_a_message(owner: Client) -> None:
    key_id = (await owner.create_key(full_key())).key.key_id
    sent = key_pb2.Key(key_id=key_id, model_limits=key_pb2.ModelLimits(enabled=False))

    changed = (await update(owner, sent, "model_limits.enabled")).key

    assert changed.model_limits == key_pb2.ModelLimits(enabled=False, models=["m1", "m2"])


async def test_a_star_mask_replaces_everything_that_can_be_changed(owner: Client) -> None:
    key_id = (await owner.create_key(full_key())).key.key_id

    changed = (await update(owner, key_pb2.Key(key_id=key_id, name="bare"), "*")).key

    bare = key_pb2.Key(name="bare")
    for name in ("name", "environment", "scopes", "allow_ips", "credits", "spend_limit", "external_id", "member"):
        assert getattr(bare, name) == getattr(changed, name), name
    assert changed.prefix == "sk_live"
    assert changed.enabled


async def test_an_old_etag_is_aborted_and_changes_nothing(owner: Client) -> None:
    made = (await owner.create_key(key_pb2.Key(name="a"))).key
    await update(owner, key_pb2.Key(key_id=made.key_id, name="b"), etag=made.etag)

    failed = await rejection(update(owner, key_pb2.Key(key_id=made.key_id, name="c"), etag=made.etag))

    assert (failed.code, failed.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")
    assert (await get(owner, made.key_id)).name == "b"


async def test_the_label_survives_rename_disable_and_rotation(owner: Client) -> None:
    key_id = (await owner.create_key(key_pb2.Key(environment="prod"))).key.key_id
    await update(owner, key_pb2.Key(key_id=key_id, name="other"))
    await update(owner, key_pb2.Key(key_id=key_id, enabled=False))
    rotated = await owner.keys.RotateKey(key_service_pb2.RotateKeyRequest(key_id=key_id))

    assert rotated.key.environment == "prod"
    assert rotated.key.status == key_pb2.KEY_STATUS_DISABLED


async def test_extending_the_expiry_revives_a_key(owner: Client) -> None:
    made = await owner.create_key(key_pb2.Key(expire_time=soon(days=-1)))
    assert made.key.status == key_pb2.KEY_STATUS_EXPIRED

    await update(owner, key_pb2.Key(key_id=made.key.key_id, expire_time=soon(days=1)))

    assert (await owner.verify(made.secret)).code == VALID


async def test_a_ttl_sets_the_expiry(owner: Client) -> None:
    request = key_service_pb2.CreateKeyRequest(ttl=Duration(seconds=3600))

    made = (await owner.keys.CreateKey(request)).key

    assert made.expire_time.ToDatetime() == made.create_time.ToDatetime() + timedelta(hours=1)


async def test_rotation_with_grace_accepts_both_secrets_until_it_ends(owner: Client) -> None:
    made = await owner.create_key()
    request = key_service_pb2.RotateKeyRequest(key_id=made.key.key_id, grace=Duration(seconds=3600))

    rotated = await owner.keys.RotateKey(request)

    old, new = await owner.verify(made.secret), await owner.verify(rotated.secret)
    assert (old.code, new.code) == (VALID, VALID)
    assert old.key.HasField("secret_end_time")
    assert not new.key.HasField("secret_end_time")
    assert rotated.key.key_id == made.key.key_id


async def test_rotation_without_grace_ends_the_old_secret_as_a_fact(owner: Client) -> None:
    made = await owner.create_key()

    rotated = await owner.keys.RotateKey(key_service_pb2.RotateKeyRequest(key_id=made.key.key_id))

    assert (await owner.verify(made.secret)).code == NOT_FOUND
    assert (await owner.verify(rotated.secret)).code == VALID


async def test_a_rotation_never_lengthens_an_older_secret_nor_outlives_the_key(owner: Client) -> None:
    made = await owner.create_key(key_pb2.Key(expire_time=soon(hours=1)))
    for grace in (600, 3_000_000):
        request = key_service_pb2.RotateKeyRequest(key_id=made.key.key_id, grace=Duration(seconds=grace))
        rotated = await owner.keys.RotateKey(request)

    newest, middle, oldest = rotated.key.secrets
    assert not newest.HasField("end_time")
    assert middle.end_time == made.key.expire_time
    assert oldest.end_time.ToDatetime() < made.key.create_time.ToDatetime() + timedelta(seconds=700)


async def test_rotation_never_revives_an_expired_key(owner: Client) -> None:
    made = await owner.create_key(key_pb2.Key(expire_time=soon(days=-1)))

    rotated = await owner.keys.RotateKey(key_service_pb2.RotateKeyRequest(key_id=made.key.key_id))

    assert (await owner.verify(rotated.secret)).code == verification_pb2.VERIFY_CODE_EXPIRED


async def test_revocation_is_final(owner: Client) -> None:
    made = await owner.create_key(key_pb2.Key(environment="prod"))
    revoked = await revoke(owner, made.key.key_id)
    assert (revoked.status, revoked.revocation.note) == (key_pb2.KEY_STATUS_REVOKED, "leaked")

    enabling = await rejection(update(owner, key_pb2.Key(key_id=made.key.key_id, enabled=False)))
    rotating = await rejection(owner.keys.RotateKey(key_service_pb2.RotateKeyRequest(key_id=made.key.key_id)))
    again = await revoke(owner, made.key.key_id)

    assert {enabling.reason, rotating.reason} == {"KEY_REVOKED"}
    assert again.revocation == revoked.revocation


async def test_a_revoked_key_can_still_be_retagged(owner: Client) -> None:
    made = await owner.create_key(key_pb2.Key(environment="prod"))
    await revoke(owner, made.key.key_id)

    retagged = await update(owner, key_pb2.Key(key_id=made.key.key_id, environment="old"))

    assert retagged.key.environment == "old"


async def test_a_deleted_key_is_shown_by_get_and_by_lists_that_ask_and_is_not_found_otherwise(owner: Client) -> None:
    made = await owner.create_key()
    key_id = made.key.key_id
    await owner.keys.DeleteKey(key_service_pb2.DeleteKeyRequest(key_id=key_id))

    assert (await get(owner, key_id)).status == key_pb2.KEY_STATUS_DELETED
    assert (await owner.verify(made.secret)).code == NOT_FOUND
    assert (await rejection(update(owner, key_pb2.Key(key_id=key_id, name="x")))).reason == "KEY_NOT_FOUND"
    hidden = await owner.keys.ListKeys(key_service_pb2.ListKeysRequest())
    shown = await owner.keys.ListKeys(key_service_pb2.ListKeysRequest(show_deleted=True))
    assert ([key.key_id for key in hidden.keys], [key.key_id for key in shown.keys]) == ([], [key_id])


async def test_undelete_brings_the_key_back_as_it_was(owner: Client) -> None:
    made = await owner.create_key(full_key())
    await owner.keys.DeleteKey(key_service_pb2.DeleteKeyRequest(key_id=made.key.key_id))

    restored = (await owner.keys.UndeleteKey(key_service_pb2.UndeleteKeyRequest(key_id=made.key.key_id))).key

    assert restored.status == key_pb2.KEY_STATUS_ACTIVE
    assert restored.scopes == made.key.scopes
    again = await rejection(owner.keys.UndeleteKey(key_service_pb2.UndeleteKeyRequest(key_id=made.key.key_id)))
    assert again.reason == "KEY_NOT_DELETED"


async def test_lookup_finds_the_key_of_a_secret_whatever_its_status(owner: Client) -> None:
    made = await owner.create_key()
    await revoke(owner, made.key.key_id)

    found = await owner.keys.LookupKey(key_service_pb2.LookupKeyRequest(secret=made.secret))

    assert found.key.key_id == made.key.key_id
    assert found.secret_id == made.key.secrets[0].secret_id


async def test_imported_secrets_verify_and_each_item_succeeds_or_is_rejected_alone(owner: Client) -> None:
    existing = await owner.create_key()
    digests = [hashlib.sha256(text.encode()).digest() for text in ("theirs-1", "theirs-2", existing.secret)]
    items = [
        key_service_pb2.ImportKeyItem(
            key=key_pb2.Key(environment="prod"), secret_sha256=digests[0], mask_hint="thei…s-1"
        ),
        key_service_pb2.ImportKeyItem(key=key_pb2.Key(allow_ips=["nonsense"]), secret_sha256=digests[1]),
        key_service_pb2.ImportKeyItem(secret_sha256=digests[2]),
        key_service_pb2.ImportKeyItem(secret_sha256=digests[0]),
        key_service_pb2.ImportKeyItem(secret_sha256=b"short"),
    ]

    answer = await owner.keys.ImportKeys(key_service_pb2.ImportKeysRequest(items=items))

    codes = [result.error.code for result in answer.results]
    assert codes == [0, 3, 9, 9, 3]
    imported = await owner.verify("theirs-1")
    assert (imported.code, imported.key.environment) == (VALID, "prod")
    assert imported.key.key_id == answer.results[0].key_id
    assert answer.results[2].error.message == answer.results[3].error.message
    assert (await get(owner, answer.results[0].key_id)).secrets[0].mask == "thei…s-1"
    assert imported.revision == answer.revision


async def test_a_hash_that_exists_in_another_workspace_is_rejected_for_the_same_neutral_reason(
    service: Service, owner: Client
) -> None:
    other = await service.workspace()
    made = await other.create_key()
    digest = hashlib.sha256(made.secret.encode()).digest()
    item = key_service_pb2.ImportKeyItem(secret_sha256=digest)

    answer = await owner.keys.ImportKeys(key_service_pb2.ImportKeysRequest(items=[item]))

    assert answer.results[0].error.message == "This secret can't be imported."
    assert made.key.key_id not in str(answer)


async def test_a_replayed_create_returns_the_key_without_its_secret(owner: Client) -> None:
    request = key_service_pb2.CreateKeyRequest(key=key_pb2.Key(name="once"), request_id="r-1")
    first = await owner.keys.CreateKey(request)

    second = await owner.keys.CreateKey(request)

    assert (second.replayed, second.secret, second.key, second.revision) == (True, "", first.key, first.revision)
    other = key_service_pb2.CreateKeyRequest(key=key_pb2.Key(name="twice"), request_id="r-1")
    failed = await rejection(owner.keys.CreateKey(other))
    assert (failed.code, failed.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


async def test_a_request_id_is_scoped_to_caller_and_method(owner: Client, service: Service) -> None:
    developer = await owner.create_management_key(management_key_pb2.ROLE_DEVELOPER)
    other = await service.client(developer.secret)
    request = key_service_pb2.CreateKeyRequest(request_id="same")

    made = await asyncio.gather(owner.keys.CreateKey(request), other.keys.CreateKey(request))

    assert made[0].key.key_id != made[1].key.key_id
    assert not any(answer.replayed for answer in made)


async def test_concurrent_calls_with_one_request_id_make_one_key(owner: Client) -> None:
    request = key_service_pb2.CreateKeyRequest(request_id="raced")

    made = await asyncio.gather(*(owner.keys.CreateKey(request) for _ in range(8)))

    assert len({answer.key.key_id for answer in made}) == 1
    assert sorted(bool(answer.secret) for answer in made) == [False] * 7 + [True]


async def test_revisions_are_contiguous_under_concurrent_mutations(owner: Client) -> None:
    before = (await owner.create_key()).revision.number

    made = await asyncio.gather(*(owner.create_key() for _ in range(20)))

    assert sorted(answer.revision.number for answer in made) == list(range(before + 1, before + 21))


async def test_credits_are_set_added_and_never_below_zero(owner: Client) -> None:
    key_id = (await owner.create_key(key_pb2.Key(credits=key_pb2.Credits(amount=5)))).key.key_id

    async def adjust(request: key_service_pb2.AdjustCreditsRequest) -> int:
        request.key_id = key_id
        return (await owner.keys.AdjustCredits(request)).balance.remaining

    ask = key_service_pb2.AdjustCreditsRequest
    assert await adjust(ask(add=3)) == 8
    assert await adjust(ask(add=-8)) == 0
    failed = await rejection(adjust(ask(add=-1)))
    assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CREDITS_INSUFFICIENT")
    assert (await get(owner, key_id)).status == key_pb2.KEY_STATUS_EXHAUSTED
    assert await adjust(ask(set=100)) == 100


async def test_an_update_never_touches_the_balance(owner: Client) -> None:
    key_id = (await owner.create_key(key_pb2.Key(credits=key_pb2.Credits(amount=5)))).key.key_id
    await owner.keys.AdjustCredits(key_service_pb2.AdjustCreditsRequest(key_id=key_id, set=2))

    changed = await update(owner, key_pb2.Key(key_id=key_id, credits=key_pb2.Credits(amount=50)))

    assert (changed.key.credits.amount, changed.key.credit_balance.remaining) == (50, 2)


async def test_a_key_without_credits_has_none_to_adjust(owner: Client) -> None:
    key_id = (await owner.create_key()).key.key_id

    failed = await rejection(owner.keys.AdjustCredits(key_service_pb2.AdjustCreditsRequest(key_id=key_id, add=1)))

    assert failed.reason == "CREDITS_NOT_SET"


async def test_pages_are_newest_first_and_survive_inserts(owner: Client) -> None:
    made = [(await owner.create_key()).key.key_id for _ in range(5)]
    first = await owner.keys.ListKeys(key_service_pb2.ListKeysRequest(page_size=2))
    await owner.create_key()

    rest: list[str] = []
    token = first.next_page_token
    while token:
        page = await owner.keys.ListKeys(key_service_pb2.ListKeysRequest(page_size=2, page_token=token))
        rest += [key.key_id for key in page.keys]
        token = page.next_page_token

    assert [key.key_id for key in first.keys] + rest == sorted(made, reverse=True)


async def test_lists_filter_by_every_filter(owner: Client) -> None:
    api = (await owner.admin.CreateApi(admin_service_pb2.CreateApiRequest(api=api_pb2.Api(name="b")))).api
    keys = {
        "plain": key_pb2.Key(),
        "prod": key_pb2.Key(environment="prod", prefix="sk_live", member="ann"),
        "literal": key_pb2.Key(environment="unlabeled"),
        "acme": key_pb2.Key(external_id="acme", api_id=api.api_id),
        "old": key_pb2.Key(expire_time=soon(days=-1)),
        "future": key_pb2.Key(not_before_time=soon(days=1)),
        "off": key_pb2.Key(enabled=False),
        "empty": key_pb2.Key(credits=key_pb2.Credits(amount=0)),
    }
    names = {(await owner.create_key(key)).key.key_id: name for name, key in keys.items()}

    async def listed(request: key_service_pb2.ListKeysRequest) -> set[str]:
        return {names[key.key_id] for key in (await owner.keys.ListKeys(request)).keys}

    labels = environment_pb2.EnvironmentFilter
    ask = key_service_pb2.ListKeysRequest
    assert await listed(ask(environments=labels(labels=[" prod "]))) == {"prod"}
    assert await listed(ask(environments=labels(labels=["unlabeled"]))) == {"literal"}
    assert await listed(ask(environments=labels(unlabeled=True))) == set(keys) - {"prod", "literal"}
    assert await listed(ask(environments=labels(labels=["prod", "unlabeled"]))) == {"prod", "literal"}
    assert await listed(ask(external_id="acme")) == {"acme"}
    assert await listed(ask(api_id=api.api_id)) == {"acme"}
    assert await listed(ask(member="ann")) == {"prod"}
    assert await listed(ask(prefix="sk_live")) == {"prod"}
    assert await listed(ask(expire_before_time=soon(days=0))) == {"old"}
    assert await listed(ask(unused_since_time=soon(days=-1))) == set(keys)
    by_status = {
        key_pb2.KEY_STATUS_EXPIRED: {"old"},
        key_pb2.KEY_STATUS_NOT_YET_VALID: {"future"},
        key_pb2.KEY_STATUS_DISABLED: {"off"},
        key_pb2.KEY_STATUS_EXHAUSTED: {"empty"},
        key_pb2.KEY_STATUS_ACTIVE: {"plain", "prod", "literal", "acme"},
    }
    for status, expected in by_status.items():
        assert await listed(ask(statuses=[status])) == expected, key_pb2.KeyStatus.Name(status)
    assert await listed(ask(statuses=[*by_status])) == set(keys)


async def test_a_status_filter_finds_the_few_among_the_many(owner: Client) -> None:
    budget = key_pb2.Key(credits=key_pb2.Credits(amount=1))
    spent = (await owner.create_key(key_pb2.Key(credits=key_pb2.Credits(amount=0)))).key.key_id
    await asyncio.gather(*(owner.create_key(budget) for _ in range(30)))

    found: list[str] = []
    request = key_service_pb2.ListKeysRequest(page_size=2, statuses=[key_pb2.KEY_STATUS_EXHAUSTED])
    while True:
        page = await owner.keys.ListKeys(request)
        found += [key.key_id for key in page.keys]
        if not page.next_page_token:
            break
        request.page_token = page.next_page_token

    assert found == [spent]


async def test_environments_are_listed_with_their_key_counts(owner: Client) -> None:
    for label in ("prod", "prod", "Prod", "", "unlabeled"):
        await owner.create_key(key_pb2.Key(environment=label))
    gone = (await owner.create_key(key_pb2.Key(environment="gone"))).key.key_id
    await owner.keys.DeleteKey(key_service_pb2.DeleteKeyRequest(key_id=gone))

    answer = await owner.keys.ListEnvironments(key_service_pb2.ListEnvironmentsRequest())

    counts = [(item.environment, item.unlabeled, item.key_count) for item in answer.environments]
    assert counts == [("", True, 1), ("Prod", False, 1), ("prod", False, 2), ("unlabeled", False, 1)]
    assert not answer.next_page_token


async def test_environments_are_told_once_each_whatever_changes_between_their_pages(owner: Client) -> None:
    for label in ("", "a", "b", "b", "c", "d", "d", "d"):
        await owner.create_key(key_pb2.Key(environment=label))
    request = key_service_pb2.ListEnvironmentsRequest(page_size=2)

    pages = [await owner.keys.ListEnvironments(request)]
    while pages[-1].next_page_token:
        for label in ("", "a", "c", "c", "c"):
            await owner.create_key(key_pb2.Key(environment=label))
        request.page_token = pages[-1].next_page_token
        pages.append(await owner.keys.ListEnvironments(request))

    assert [[item.environment for item in page.environments] for page in pages] == [["", "a"], ["b", "c"], ["d"]]


async def test_no_environment_is_left_out_and_a_page_holds_a_thousand_at_most(owner: Client) -> None:
    labels = [f"{number:🔑>32}" for number in range(1_002)]
    for begin in (0, 501):
        items = [
            key_service_pb2.ImportKeyItem(
                key=key_pb2.Key(environment=label), secret_sha256=hashlib.sha256(label.encode()).digest()
            )
            for label in labels[begin : begin + 501]
        ]
        await owner.keys.ImportKeys(key_service_pb2.ImportKeysRequest(items=items))
    request = key_service_pb2.ListEnvironmentsRequest(page_size=5_000)

    first = await owner.keys.ListEnvironments(request)
    request.page_token = first.next_page_token
    rest = await owner.keys.ListEnvironments(request)

    assert [len(page.environments) for page in (first, rest)] == [1_000, 2]
    told = [item.environment for page in (first, rest) for item in page.environments]
    assert sorted(told) == sorted(labels)
    assert not rest.next_page_token


async def test_a_token_of_environments_is_bound_to_its_api(owner: Client) -> None:
    for label in ("a", "b"):
        made = await owner.create_key(key_pb2.Key(environment=label))
    first = await owner.keys.ListEnvironments(key_service_pb2.ListEnvironmentsRequest(page_size=1))

    refused = await rejection(
        owner.keys.ListEnvironments(
            key_service_pb2.ListEnvironmentsRequest(page_token=first.next_page_token, api_id=made.key.api_id)
        )
    )

    assert (refused.reason, refused.fields) == ("PAGE_TOKEN_INVALID", ["page_token"])


async def test_the_member_is_the_callers_unless_given(owner: Client, service: Service) -> None:
    wanted = management_key_pb2.ManagementKey(role=management_key_pb2.ROLE_DEVELOPER, member="billing team")
    made = await owner.admin.CreateManagementKey(admin_service_pb2.CreateManagementKeyRequest(management_key=wanted))
    caller = await service.client(made.secret)

    members = [(await caller.create_key(key)).key.member for key in (key_pb2.Key(), key_pb2.Key(member=""))]

    assert members == ["billing team", ""]


async def test_an_identity_is_created_with_the_key_and_shared_by_the_next(owner: Client) -> None:
    first = (await owner.create_key(key_pb2.Key(external_id="acme"))).key
    second = (await owner.create_key(key_pb2.Key(external_id="acme"))).key

    assert first.identity_id == second.identity_id
    found = await owner.admin.GetIdentity(admin_service_pb2.GetIdentityRequest(external_id="acme"))
    assert found.identity.identity_id == first.identity_id


@pytest.mark.parametrize("label", ["a\u0301" * 40, "  x  ", "é" * 33, "日本" * 20, "a" * 31 + " b"])
async def test_a_label_is_never_an_error_for_its_length(owner: Client, label: str) -> None:
    made = (await owner.create_key(key_pb2.Key(environment=label))).key

    assert len(made.environment) <= 32
    again = (await update(owner, key_pb2.Key(key_id=made.key_id, environment=made.environment))).key
    assert again.environment == made.environment


async def test_last_used_time_is_kept_to_a_minute_and_flushed_by_a_stop(dsn: str) -> None:
    async with serving(dsn) as first:
        made = await (await first.client(first.root_secret)).create_key()
        await (await first.client(first.root_secret)).verify(made.secret)
    async with serving(dsn) as second:
        key = await get(await second.client(first.root_secret), made.key.key_id)

    assert key.HasField("last_used_time")
    assert (key.last_used_time.seconds % 60, key.last_used_time.nanos) == (0, 0)


async def test_a_dry_run_is_not_a_use(dsn: str) -> None:
    async with serving(dsn) as first:
        made = await (await first.client(first.root_secret)).create_key()
        dry = verify_service_pb2.VerifyRequest(dry_run=True)
        await (await first.client(first.root_secret)).verify(made.secret, dry)
    async with serving(dsn) as second:
        key = await get(await second.client(first.root_secret), made.key.key_id)

    assert not key.HasField("last_used_time")


async def test_changing_a_refill_neither_brings_one_forward_nor_takes_one_back(dsn: str) -> None:
    daily = key_pb2.REFILL_INTERVAL_DAILY
    refill = key_pb2.Credits(amount=5, refill=key_pb2.CreditRefill(interval=daily, amount=100))
    async with serving(dsn, lambda: utc_now() - timedelta(days=3)) as past:
        client = await past.client(past.root_secret)
        without = (await client.create_key(key_pb2.Key(credits=key_pb2.Credits(amount=5)))).key.key_id
        refilled = (await client.create_key(key_pb2.Key(credits=refill))).key.key_id
    async with serving(dsn) as present:
        client = await present.client(past.root_secret)
        added = await update(client, key_pb2.Key(key_id=without, credits=refill))
        removed = await update(client, key_pb2.Key(key_id=refilled), "credits.refill")

    assert added.key.credit_balance.remaining == 5
    assert removed.key.credit_balance.remaining == 100
