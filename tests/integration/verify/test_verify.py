"""VerifyService.Verify and BatchVerify against a real database (spec §4)."""

import asyncio

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.type.money_pb2 import Money

from latchkey.v1 import (
    admin_service_pb2,
    identity_pb2,
    key_pb2,
    key_service_pb2,
    ratelimit_pb2,
    revision_pb2,
    verification_pb2,
    verify_service_pb2,
)
from tests.integration.keys.test_keys import full_key, revoke, update
from tests.support.service import Client, Service, rejection

Ask = verify_service_pb2.VerifyRequest
VALID = verification_pb2.VERIFY_CODE_VALID
NOT_FOUND = verification_pb2.VERIFY_CODE_NOT_FOUND
LIMIT_NOT_ENFORCED = verification_pb2.DEGRADATION_LIMIT_NOT_ENFORCED


def code(name: str) -> verification_pb2.VerifyCode.ValueType:
    return verification_pb2.VerifyCode.Value(f"VERIFY_CODE_{name}")


async def test_the_answer_holds_the_full_record_whatever_the_code(owner: Client) -> None:
    sent = full_key()
    sent.metadata.update({"plan": "gold"})
    made = await owner.create_key(sent)
    identity = identity_pb2.Identity(external_id="acme")
    identity.metadata.update({"tier": 3})
    await owner.admin.UpdateIdentity(admin_service_pb2.UpdateIdentityRequest(identity=identity))
    await revoke(owner, made.key.key_id)

    answer = await owner.verify(made.secret)

    key = answer.key
    assert (answer.valid, answer.code) == (False, code("REVOKED"))
    assert (key.workspace_id, key.key_id, key.api_id) == (made.key.workspace_id, made.key.key_id, made.key.api_id)
    assert (key.name, key.environment, key.prefix, key.member) == ("everything", "prod", "sk_live", "ann")
    assert (key.identity.external_id, key.identity.metadata["tier"]) == ("acme", 3)
    assert key.metadata["plan"] == "gold"
    assert (key.scopes, key.allow_ips, key.model_limits) == (sent.scopes, sent.allow_ips, sent.model_limits)
    assert (key.expire_time, key.not_before_time) == (sent.expire_time, sent.not_before_time)
    assert (key.guardrail_id, key.firewall_policy_id, key.enabled) == ("guard", "fw", True)
    assert key.HasField("revoke_time")
    assert answer.credits_remaining == 7
    assert answer.spend.limit == Money(currency_code="USD", units=10, nanos=5)
    assert [(state.name, state.limit) for state in answer.ratelimits] == [("burst", 5)]


async def test_not_found_says_nothing_more(owner: Client) -> None:
    answer = await owner.verify("sk_nobody", Ask(explain=True))

    expected = verification_pb2.Verification(code=NOT_FOUND, message="No such key.", decided_time=answer.decided_time)
    assert expected == answer


async def test_metadata_is_left_out_when_asked(owner: Client) -> None:
    sent = key_pb2.Key(external_id="acme")
    sent.metadata.update({"a": 1})
    made = await owner.create_key(sent)

    answer = await owner.verify(made.secret, Ask(omit_metadata=True))

    assert answer.key.identity.external_id == "acme"
    assert not answer.key.HasField("metadata")


@pytest.mark.parametrize(
    ("key", "asked", "expected"),
    [
        (key_pb2.Key(environment="dev"), Ask(environments=["prod"]), "ENVIRONMENT_MISMATCH"),
        (key_pb2.Key(environment="dev"), Ask(environments=["prod", " dev "]), "VALID"),
        (key_pb2.Key(), Ask(environments=[""]), "VALID"),
        (key_pb2.Key(environment="Prod"), Ask(environments=["prod"]), "ENVIRONMENT_MISMATCH"),
        (key_pb2.Key(allow_ips=["10.1.2.3/8"]), Ask(), "IP_NOT_ALLOWED"),
        (key_pb2.Key(allow_ips=["10.1.2.3/8"]), Ask(client_ip="not an address"), "IP_NOT_ALLOWED"),
        (key_pb2.Key(allow_ips=["10.1.2.3/8"]), Ask(client_ip="10.200.0.1"), "VALID"),
        (key_pb2.Key(allow_ips=["10.1.2.3/8"]), Ask(client_ip="::ffff:10.200.0.1"), "VALID"),
        (
            key_pb2.Key(model_limits=key_pb2.ModelLimits(enabled=True)),
            Ask(model="any"),
            "MODEL_NOT_ALLOWED",
        ),
        (key_pb2.Key(model_limits=key_pb2.ModelLimits(enabled=True)), Ask(), "VALID"),
        (key_pb2.Key(model_limits=key_pb2.ModelLimits(models=["a"])), Ask(model="b"), "VALID"),
        (
            key_pb2.Key(scopes=["docs.*"]),
            Ask(required_scopes=[verify_service_pb2.ScopeGroup(any_of=["mail.read", "docs.read"])]),
            "VALID",
        ),
        (
            key_pb2.Key(scopes=["docs.*"]),
            Ask(required_scopes=[verify_service_pb2.ScopeGroup(any_of=["docs.read.all"])]),
            "INSUFFICIENT_SCOPE",
        ),
        (key_pb2.Key(enabled=False), Ask(environments=["prod"]), "DISABLED"),
    ],
)
async def test_each_check_gives_its_code(owner: Client, key: key_pb2.Key, asked: Ask, expected: str) -> None:
    made = await owner.create_key(key)

    answer = await owner.verify(made.secret, asked)

    assert verification_pb2.VerifyCode.Name(answer.code) == f"VERIFY_CODE_{expected}"


async def test_the_client_ip_is_never_read_from_metadata(owner: Client) -> None:
    made = await owner.create_key(key_pb2.Key(allow_ips=["10.0.0.0/8"]))

    answer = await owner.verifier.Verify(Ask(key=made.secret), metadata=(("x-forwarded-for", "10.0.0.1"),))

    assert answer.verification.code == code("IP_NOT_ALLOWED")


async def test_explain_lists_every_check_in_the_documented_order(owner: Client) -> None:
    made = await owner.create_key(key_pb2.Key(enabled=False, credits=key_pb2.Credits(amount=1)))

    answer = await owner.verify(made.secret, Ask(explain=True, environments=["prod"]))

    assert [check.code for check in answer.checks] == list(range(2, 15))
    verdicts = {check.code: check.verdict for check in answer.checks}
    assert verdicts[code("DISABLED")] == verification_pb2.CHECK_VERDICT_FAILED
    assert verdicts[code("ENVIRONMENT_MISMATCH")] == verification_pb2.CHECK_VERDICT_FAILED
    assert verdicts[code("MODEL_NOT_ALLOWED")] == verification_pb2.CHECK_VERDICT_NOT_ASKED
    assert verdicts[code("CREDITS_EXHAUSTED")] == verification_pb2.CHECK_VERDICT_NOT_EVALUATED
    assert made.secret not in str(answer)


@pytest.mark.parametrize(
    "key",
    [
        key_pb2.Key(credits=key_pb2.Credits(amount=1)),
        key_pb2.Key(spend_limit=key_pb2.SpendLimit(amount=Money(currency_code="USD", units=1))),
        key_pb2.Key(ratelimits=[ratelimit_pb2.RateLimit(name="a", limit=1, window=Duration(seconds=1))]),
    ],
)
async def test_what_is_not_enforced_yet_is_said_and_never_cacheable(owner: Client, key: key_pb2.Key) -> None:
    made = await owner.create_key(key)

    answer = await owner.verify(made.secret)

    assert (answer.code, list(answer.degraded)) == (VALID, [LIMIT_NOT_ENFORCED])
    assert answer.cacheable_for == Duration()


async def test_an_answer_is_cacheable_until_the_first_instant_that_may_alter_it(owner: Client) -> None:
    plain = await owner.create_key()
    ending = await owner.keys.CreateKey(key_service_pb2.CreateKeyRequest(ttl=Duration(seconds=30)))

    unlimited, limited = await owner.verify(plain.secret), await owner.verify(ending.secret)

    assert unlimited.cacheable_for == Duration(seconds=60)
    assert not unlimited.degraded
    assert 0 < limited.cacheable_for.seconds < 30


async def test_an_identity_limit_is_shared_by_its_keys_and_overridden_by_name(owner: Client) -> None:
    def limit(name: str, units: int) -> ratelimit_pb2.RateLimit:
        return ratelimit_pb2.RateLimit(name=name, limit=units, window=Duration(seconds=1))

    made = await owner.create_key(key_pb2.Key(external_id="acme", ratelimits=[limit("a", 1)]))
    identity = identity_pb2.Identity(external_id="acme", ratelimits=[limit("a", 100), limit("b", 2)])
    await owner.admin.UpdateIdentity(admin_service_pb2.UpdateIdentityRequest(identity=identity))

    answer = await owner.verify(made.secret)

    assert [(state.name, state.limit) for state in answer.ratelimits] == [("a", 1), ("b", 2)]


async def test_an_unknown_rate_limit_is_a_failed_precondition_that_names_it(owner: Client) -> None:
    made = await owner.create_key()

    failed = await rejection(owner.verify(made.secret, Ask(ratelimits=[ratelimit_pb2.RateLimitCost(name="heavy")])))

    assert (failed.code, failed.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "UNKNOWN_RATE_LIMIT")
    assert failed.info.metadata["name"] == "heavy"


async def test_min_revision_of_a_mutation_is_honoured_and_one_from_the_future_is_unavailable(owner: Client) -> None:
    made = await owner.create_key()
    changed = await update(owner, key_pb2.Key(key_id=made.key.key_id, enabled=False))

    answer = await owner.verify(made.secret, Ask(min_revision=changed.revision))
    ahead = revision_pb2.Revision(workspace_id=changed.revision.workspace_id, number=changed.revision.number + 1)
    failed = await rejection(owner.verify(made.secret, Ask(min_revision=ahead)))

    assert answer.code == code("DISABLED")
    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "REVISION_NOT_REACHED")


async def test_a_batch_answers_in_order_and_an_item_fails_alone(owner: Client) -> None:
    good, off = await owner.create_key(), await owner.create_key(key_pb2.Key(enabled=False))
    items = [
        Ask(key=good.secret),
        Ask(),
        Ask(key="sk_nobody"),
        Ask(key=off.secret),
        Ask(key=good.secret, ratelimits=[ratelimit_pb2.RateLimitCost(name="none")]),
    ]

    answer = await owner.verifier.BatchVerify(verify_service_pb2.BatchVerifyRequest(items=items))

    told = [result.verification.code or -result.error.code for result in answer.results]
    invalid, precondition = grpc.StatusCode.INVALID_ARGUMENT.value[0], grpc.StatusCode.FAILED_PRECONDITION.value[0]
    assert told == [VALID, -invalid, NOT_FOUND, code("DISABLED"), -precondition]


async def test_a_batch_stops_short_of_what_a_client_can_receive(owner: Client) -> None:
    large = key_pb2.Key()
    large.metadata.update({"text": "x" * 4000})
    made = await owner.create_key(large)
    request = verify_service_pb2.BatchVerifyRequest(items=[Ask(key=made.secret)] * 1000)

    answer = await owner.verifier.BatchVerify(request)

    decided = [result.HasField("verification") for result in answer.results]
    assert len(decided) == 1000
    assert decided == sorted(decided, reverse=True)
    assert 700 < sum(decided) < 1000
    assert answer.ByteSize() <= 3_670_016
    refused = answer.results[-1].error
    assert refused.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


async def test_verification_writes_no_usage_and_consumes_nothing(owner: Client) -> None:
    made = await owner.create_key(key_pb2.Key(credits=key_pb2.Credits(amount=3)))

    answers = await asyncio.gather(*(owner.verify(made.secret) for _ in range(5)))

    assert {answer.credits_remaining for answer in answers} == {3}


async def test_a_verdict_is_the_same_for_any_two_labels(owner: Client) -> None:
    made = await owner.create_key(key_pb2.Key(environment="prod"))
    before = await owner.verify(made.secret)
    await update(owner, key_pb2.Key(key_id=made.key.key_id, environment="dev"))

    after = await owner.verify(made.secret)

    assert (before.code, before.key.environment) == (VALID, "prod")
    assert (after.code, after.key.environment) == (VALID, "dev")


@pytest.mark.parametrize("explain", [False, True])
async def test_of_two_credentials_the_first_one_counts_whichever_way_the_call_takes(
    owner: Client, service: Service, explain: bool
) -> None:
    stranger = await service.workspace("stranger")
    secret = (await owner.create_key()).secret
    anonymous = await service.anonymous()
    request = Ask(key=secret, explain=explain)
    codes = []
    for first, second in ((owner, stranger), (stranger, owner)):
        both = tuple(("authorization", f"Bearer {client.secret}") for client in (first, second))
        for _ in range(3):
            answer = await anonymous.verifier.Verify(request, metadata=both)
        codes.append(answer.verification.code)

    assert codes == [verification_pb2.VERIFY_CODE_VALID, verification_pb2.VERIFY_CODE_NOT_FOUND]
