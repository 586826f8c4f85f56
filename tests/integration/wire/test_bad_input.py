"""Every wrong request gets INVALID_ARGUMENT with a violation per field (spec §7); the rules stand in the protos."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import code_pb2, error_details_pb2
from google.type.money_pb2 import Money

from latchkey.v1 import admin_service_pb2 as admin_pb
from latchkey.v1 import (
    api_pb2,
    environment_pb2,
    error_reason_pb2,
    identity_pb2,
    key_pb2,
    management_key_pb2,
    ratelimit_pb2,
    revision_pb2,
    usage_pb2,
    verification_pb2,
    workspace_pb2,
)
from latchkey.v1 import key_service_pb2 as keys_pb
from latchkey.v1 import usage_service_pb2 as usage_pb
from latchkey.v1 import verify_service_pb2 as verify_pb
from tests.support.matrix_calls import METHODS, call
from tests.support.matrix_rows import ROWS
from tests.support.matrix_world import Role, random_id, random_sha256, timestamp, unknown_target, usage_event
from tests.support.service import Client, Service, rejection

Key = key_pb2.Key
Dimension = usage_pb2.UsageDimension
EnvironmentFilter = environment_pb2.EnvironmentFilter

TOO_LONG_NAME = "n" * 129
UNKNOWN_ENUM = 99
FAR = Duration(seconds=315_576_000_000)
NO_DURATION = Duration(seconds=1, nanos=-1)
NO_TIME = Timestamp(seconds=253_402_300_800)
BEFORE_TIME = Timestamp(seconds=-62_135_596_801)
ODD_NANOS = Timestamp(seconds=1, nanos=1_000_000_000)
HOUR = Duration(seconds=3600)
MIDNIGHT = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
START, END = timestamp(MIDNIGHT - timedelta(days=1)), timestamp(MIDNIGHT)


def usd(units: int = 0, nanos: int = 0, currency: str = "USD") -> Money:
    return Money(currency_code=currency, units=units, nanos=nanos)


def limit(
    name: str = "fast", most: int = 10, window: Duration | None = None, unavailable: int = 0
) -> ratelimit_pb2.RateLimit:
    length = Duration(seconds=60) if window is None else window
    return ratelimit_pb2.RateLimit(
        name=name, limit=most, window=length, on_unavailable=ratelimit_pb2.OnUnavailable.ValueType(unavailable)
    )


def rated(*limits: ratelimit_pb2.RateLimit) -> key_pb2.Key:
    return Key(ratelimits=limits)


def refilled(interval: int, amount: int = 5, day: int | None = None, budget: int = 5) -> key_pb2.Key:
    refill = key_pb2.CreditRefill(interval=key_pb2.RefillInterval.ValueType(interval), amount=amount, day_of_month=day)
    return Key(credits=key_pb2.Credits(amount=budget, refill=refill))


def capped(amount: Money, reset: int = 0) -> key_pb2.Key:
    return Key(spend_limit=key_pb2.SpendLimit(amount=amount, reset_interval=key_pb2.SpendReset.ValueType(reset)))


def modelled(*models: str) -> key_pb2.Key:
    return Key(model_limits=key_pb2.ModelLimits(enabled=True, models=models))


def held(value: Value) -> Struct:
    return Struct(fields={"a": value})


TOO_BIG = held(Value(string_value="x" * 4_089))
INFINITE = held(Value(number_value=float("inf")))
NOT_A_NUMBER = held(Value(list_value=ListValue(values=[Value(number_value=float("nan"))])))
WITH_NUL = held(Value(string_value="a\0b"))
NUL_NAME = Struct(fields={"a\0": Value(bool_value=True)})

BAD_KEY: list[tuple[str, key_pb2.Key]] = [
    ("key.api_id", Key(api_id="nonsense")),
    ("key.api_id", Key(api_id=random_id("key"))),
    ("key.api_id", Key(api_id=random_id("api")[:-1])),
    ("key.api_id", Key(api_id=random_id("api").upper())),
    ("key.api_id", Key(api_id="api_" + "8" * 26)),
    ("key.api_id", Key(api_id="api_" + "l" * 26)),
    ("key.name", Key(name=TOO_LONG_NAME)),
    ("key.name", Key(name="line\nbreak")),
    ("key.environment", Key(environment="pr\0od")),
    ("key.environment", Key(environment="pr\x1bod")),
    ("key.prefix", Key(prefix="-sk")),
    ("key.prefix", Key(prefix="sk_")),
    ("key.prefix", Key(prefix="s k")),
    ("key.prefix", Key(prefix="ключ")),
    ("key.prefix", Key(prefix="s" * 33)),
    ("key.expire_time", Key(expire_time=NO_TIME)),
    ("key.expire_time", Key(expire_time=BEFORE_TIME)),
    ("key.expire_time", Key(expire_time=ODD_NANOS)),
    ("key.not_before_time", Key(not_before_time=NO_TIME)),
    ("key.model_limits.models[1]", modelled("gpt", "")),
    ("key.model_limits.models[0]", modelled(" \t ")),
    ("key.model_limits.models[0]", modelled("m" * 129)),
    ("key.model_limits.models[0]", modelled("a\0b")),
    ("key.model_limits.models", modelled(*(f"m{index}" for index in range(257)))),
    ("key.allow_ips[1]", Key(allow_ips=["10.0.0.0/8", "10.0.0.0/33"])),
    ("key.allow_ips[0]", Key(allow_ips=["example.org"])),
    ("key.allow_ips[0]", Key(allow_ips=[""])),
    ("key.allow_ips[0]", Key(allow_ips=["fe80::/129"])),
    ("key.allow_ips", Key(allow_ips=[f"10.0.{index // 256}.{index % 256}" for index in range(257)])),
    ("key.scopes[0]", Key(scopes=["docs read"])),
    ("key.scopes[1]", Key(scopes=["docs.read", "docs..read"])),
    ("key.scopes[0]", Key(scopes=[""])),
    ("key.scopes[0]", Key(scopes=["s" * 129])),
    ("key.scopes[0]", Key(scopes=["docs.re*d"])),
    ("key.scopes", Key(scopes=[f"s{index}" for index in range(257)])),
    ("key.spend_limit.amount", capped(usd(-1))),
    ("key.spend_limit.amount", capped(usd(1_000_000_000, 1))),
    ("key.spend_limit.amount", capped(usd(1, -1))),
    ("key.spend_limit.amount", capped(usd(0, 1_000_000_000))),
    ("key.spend_limit.amount", capped(usd(2**63 - 1))),
    ("key.spend_limit.amount.currency_code", capped(usd(1, currency="EUR"))),
    ("key.spend_limit.amount.currency_code", capped(usd(1, currency=""))),
    ("key.spend_limit.reset_interval", capped(usd(1), UNKNOWN_ENUM)),
    ("key.credits.amount", Key(credits=key_pb2.Credits(amount=-1))),
    ("key.credits.amount", Key(credits=key_pb2.Credits(amount=10**12 + 1))),
    ("key.credits.refill.interval", refilled(0)),
    ("key.credits.refill.interval", refilled(UNKNOWN_ENUM)),
    ("key.credits.refill.amount", refilled(1, amount=0)),
    ("key.credits.refill.amount", refilled(1, amount=10**12 + 1)),
    ("key.credits.refill.day_of_month", refilled(1, day=1)),
    ("key.credits.refill.day_of_month", refilled(2, day=0)),
    ("key.credits.refill.day_of_month", refilled(2, day=32)),
    ("key.ratelimits[0].name", rated(limit(name=""))),
    ("key.ratelimits[0].name", rated(limit(name="a b"))),
    ("key.ratelimits[0].name", rated(limit(name="n" * 65))),
    ("key.ratelimits[1].name", rated(limit(), limit())),
    ("key.ratelimits[0].limit", rated(limit(most=0))),
    ("key.ratelimits[0].limit", rated(limit(most=1_000_000_001))),
    ("key.ratelimits[0].window", rated(limit(window=Duration()))),
    ("key.ratelimits[0].window", rated(limit(window=Duration(seconds=31 * 86_400 + 1)))),
    ("key.ratelimits[0].window", rated(limit(window=Duration(seconds=1, nanos=500_000_000)))),
    ("key.ratelimits[0].window", rated(limit(window=Duration(seconds=1, nanos=1)))),
    ("key.ratelimits[0].window", rated(limit(window=Duration(seconds=-60)))),
    ("key.ratelimits[0].window", rated(limit(window=Duration(seconds=2**63 - 1)))),
    ("key.ratelimits[0].on_unavailable", rated(limit(unavailable=UNKNOWN_ENUM))),
    ("key.ratelimits", rated(*(limit(name=f"n{index}") for index in range(21)))),
    ("key.guardrail_id", Key(guardrail_id="g" * 129)),
    ("key.guardrail_id", Key(guardrail_id="\x7f")),
    ("key.firewall_policy_id", Key(firewall_policy_id="f" * 129)),
    ("key.firewall_policy_id", Key(firewall_policy_id="\n")),
    ("key.external_id", Key(external_id="e" * 256)),
    ("key.external_id", Key(external_id="e\0")),
    ("key.member", Key(member="m" * 129)),
    ("key.member", Key(member="m\t")),
    ("key.metadata", Key(metadata=TOO_BIG)),
    ("key.metadata", Key(metadata=INFINITE)),
    ("key.metadata", Key(metadata=NOT_A_NUMBER)),
    ("key.metadata", Key(metadata=WITH_NUL)),
    ("key.metadata", Key(metadata=NUL_NAME)),
]
"""Keys that break one rule, with the field that is at fault, in whatever request they are sent."""


def revoke(**fields: object) -> Message:
    request = keys_pb.RevokeKeyRequest(key_id=random_id("key"), reason=key_pb2.REVOKE_REASON_OTHER)
    return _with(request, fields)


def _with(request: Message, fields: Mapping[str, object]) -> Message:
    for name, value in fields.items():
        if isinstance(value, Message):
            getattr(request, name).CopyFrom(value)
        else:
            setattr(request, name, value)
    return request


def verify(**fields: object) -> Message:
    return _with(verify_pb.VerifyRequest(key="sk_unknown"), fields)


def grouped(*scopes: str) -> verify_pb.VerifyRequest:
    return verify_pb.VerifyRequest(key="sk_unknown", required_scopes=[verify_pb.ScopeGroup(any_of=scopes)])


def query(**fields: object) -> Message:
    return _with(usage_pb.QueryUsageRequest(start_time=START, end_time=END), fields)


def filtered(field: str, values: Sequence[str]) -> list[Message]:
    wanted = usage_pb2.UsageFilter()
    getattr(wanted, field).extend(values)
    return [query(filter=wanted), usage_pb.ListUsageEventsRequest(filter=wanted)]


def update_key(**fields: object) -> Message:
    mask = fields.pop("mask", None)
    request = keys_pb.UpdateKeyRequest(key=Key(key_id=random_id("key")))
    if isinstance(mask, str):
        request.update_mask.CopyFrom(FieldMask(paths=[mask]))
    return _with(request, fields)


def workspace(**settings: object) -> Message:
    made = admin_pb.UpdateWorkspaceRequest(workspace=workspace_pb2.Workspace())
    _with(made.workspace.settings, settings)
    return made


def identity(**fields: object) -> Message:
    made = admin_pb.UpdateIdentityRequest(identity=identity_pb2.Identity(external_id="customer"), allow_missing=True)
    _with(made.identity, fields)
    return made


def management_key(role: int = 1, **fields: object) -> Message:
    wanted = management_key_pb2.ManagementKey(role=Role.ValueType(role))
    _with(wanted, fields)
    return admin_pb.CreateManagementKeyRequest(management_key=wanted)


def masked(request: Message, path: str) -> Message:
    return _with(request, {"update_mask": FieldMask(paths=[path])})


def update_api(path: str) -> Message:
    return masked(admin_pb.UpdateApiRequest(api=api_pb2.Api(api_id=random_id("api"), name="new")), path)


def labelled(label: str) -> list[Message]:
    wanted = usage_pb2.UsageFilter(environments=EnvironmentFilter(labels=[label]))
    return [query(filter=wanted), usage_pb.ListUsageEventsRequest(filter=wanted)]


def limited_identity(*limits: ratelimit_pb2.RateLimit) -> Message:
    made = identity_pb2.Identity(external_id="customer", ratelimits=limits)
    return admin_pb.UpdateIdentityRequest(identity=made, allow_missing=True)


def bound_to_many() -> Message:
    api_ids = [random_id("api") for _ in range(101)]
    wanted = management_key_pb2.ManagementKey(role=management_key_pb2.ROLE_VIEWER, api_ids=api_ids)
    return admin_pb.CreateManagementKeyRequest(management_key=wanted)


def update_management_key(path: str) -> Message:
    wanted = management_key_pb2.ManagementKey(management_key_id=random_id("mk"))
    return masked(admin_pb.UpdateManagementKeyRequest(management_key=wanted), path)


BAD_IDS: list[tuple[str, Callable[[str], Message], str]] = [
    ("key_id", lambda text: keys_pb.GetKeyRequest(key_id=text), "key"),
    ("key.key_id", lambda text: keys_pb.UpdateKeyRequest(key=Key(key_id=text, name="n")), "key"),
    ("key_id", lambda text: keys_pb.RotateKeyRequest(key_id=text), "key"),
    ("key_id", lambda text: keys_pb.RevokeKeyRequest(key_id=text, reason=key_pb2.REVOKE_REASON_OTHER), "key"),
    ("key_id", lambda text: keys_pb.DeleteKeyRequest(key_id=text), "key"),
    ("key_id", lambda text: keys_pb.UndeleteKeyRequest(key_id=text), "key"),
    ("key_id", lambda text: keys_pb.AdjustCreditsRequest(key_id=text, add=1), "key"),
    ("api_id", lambda text: admin_pb.GetApiRequest(api_id=text), "api"),
    ("api.api_id", lambda text: admin_pb.UpdateApiRequest(api=api_pb2.Api(api_id=text, name="n")), "api"),
    ("api_id", lambda text: admin_pb.DeleteApiRequest(api_id=text), "api"),
    ("identity_id", lambda text: admin_pb.DeleteIdentityRequest(identity_id=text), "idn"),
    ("management_key_id", lambda text: admin_pb.GetManagementKeyRequest(management_key_id=text), "mk"),
    (
        "management_key.management_key_id",
        lambda text: admin_pb.UpdateManagementKeyRequest(
            management_key=management_key_pb2.ManagementKey(management_key_id=text, name="n")
        ),
        "mk",
    ),
    ("management_key_id", lambda text: admin_pb.RotateManagementKeyRequest(management_key_id=text), "mk"),
    (
        "management_key_id",
        lambda text: admin_pb.RevokeManagementKeyRequest(management_key_id=text, reason=key_pb2.REVOKE_REASON_OTHER),
        "mk",
    ),
]
"""Required ids: empty is as wrong as malformed."""

OPTIONAL_IDS: list[tuple[str, Callable[[str], Message], str]] = [
    ("api_id", lambda text: keys_pb.ListKeysRequest(api_id=text), "api"),
    ("api_id", lambda text: keys_pb.ListEnvironmentsRequest(api_id=text), "api"),
    ("api_id", lambda text: verify(api_id=text), "api"),
    ("workspace_id", lambda text: admin_pb.GetWorkspaceRequest(workspace_id=text), "ws"),
    (
        "workspace.workspace_id",
        lambda text: admin_pb.UpdateWorkspaceRequest(workspace=workspace_pb2.Workspace(workspace_id=text)),
        "ws",
    ),
    ("identity_id", lambda text: admin_pb.GetIdentityRequest(identity_id=text), "idn"),
    (
        "identity.identity_id",
        lambda text: admin_pb.UpdateIdentityRequest(identity=identity_pb2.Identity(identity_id=text)),
        "idn",
    ),
    ("actor_id", lambda text: admin_pb.ListAuditEventsRequest(actor_id=text), "mk"),
    (
        "management_key.api_ids[0]",
        lambda text: admin_pb.CreateManagementKeyRequest(
            management_key=management_key_pb2.ManagementKey(role=management_key_pb2.ROLE_VIEWER, api_ids=[text])
        ),
        "api",
    ),
    (
        "filter.key_ids[1]",
        lambda text: query(filter=usage_pb2.UsageFilter(key_ids=[random_id("key"), text])),
        "key",
    ),
    ("filter.api_ids[0]", lambda text: query(filter=usage_pb2.UsageFilter(api_ids=[text])), "api"),
    (
        "filter.key_ids[0]",
        lambda text: usage_pb.ListUsageEventsRequest(filter=usage_pb2.UsageFilter(key_ids=[text])),
        "key",
    ),
    (
        "min_revision.workspace_id",
        lambda text: verify(min_revision=revision_pb2.Revision(workspace_id=text, number=1)),
        "ws",
    ),
]

BAD: list[tuple[str, Message]] = [
    # KeyService
    ("ttl", keys_pb.CreateKeyRequest(ttl=Duration(seconds=-1))),
    ("ttl", keys_pb.CreateKeyRequest(ttl=Duration())),
    ("ttl", keys_pb.CreateKeyRequest(ttl=Duration(seconds=3_650 * 86_400 + 1))),
    ("ttl", keys_pb.CreateKeyRequest(ttl=NO_DURATION)),
    ("ttl", keys_pb.CreateKeyRequest(ttl=Duration(seconds=2**63 - 1))),
    ("ttl", keys_pb.CreateKeyRequest(ttl=HOUR, key=Key(expire_time=END))),
    ("page_size", keys_pb.ListKeysRequest(page_size=-1)),
    ("page_token", keys_pb.ListKeysRequest(page_token="junk")),
    ("page_token", keys_pb.ListKeysRequest(page_token="ключ")),
    ("page_token", keys_pb.ListKeysRequest(page_token="A" * 64)),
    ("environments.labels[1]", keys_pb.ListKeysRequest(environments=EnvironmentFilter(labels=["prod", "a\0"]))),
    ("environments.labels", keys_pb.ListKeysRequest(environments=EnvironmentFilter(labels=["prod"] * 101))),
    ("external_id", keys_pb.ListKeysRequest(external_id="e\0")),
    ("member", keys_pb.ListKeysRequest(member="m\0")),
    ("prefix", keys_pb.ListKeysRequest(prefix="p\0")),
    ("statuses[0]", keys_pb.ListKeysRequest(statuses=[key_pb2.KEY_STATUS_UNSPECIFIED])),
    ("statuses[1]", keys_pb.ListKeysRequest(statuses=[key_pb2.KEY_STATUS_ACTIVE, key_pb2.KeyStatus.ValueType(99)])),
    ("expire_before_time", keys_pb.ListKeysRequest(expire_before_time=NO_TIME)),
    ("unused_since_time", keys_pb.ListKeysRequest(unused_since_time=BEFORE_TIME)),
    ("update_mask", update_key(mask="nonsense")),
    ("update_mask", update_key(mask="key_id")),
    ("update_mask", update_key(mask="api_id")),
    ("update_mask", update_key(mask="prefix")),
    ("update_mask", update_key(mask="status")),
    ("update_mask", update_key(mask="etag")),
    ("update_mask", update_key(mask="credit_balance")),
    ("update_mask", update_key(mask="spend_limit.amount.units")),
    ("update_mask", update_key(mask="Name")),
    ("grace", keys_pb.RotateKeyRequest(key_id=random_id("key"), grace=Duration(seconds=-1))),
    ("grace", keys_pb.RotateKeyRequest(key_id=random_id("key"), grace=Duration(seconds=365 * 86_400 + 1))),
    ("grace", keys_pb.RotateKeyRequest(key_id=random_id("key"), grace=NO_DURATION)),
    ("grace", keys_pb.RotateKeyRequest(key_id=random_id("key"), grace=FAR)),
    ("reason", revoke(reason=0)),
    ("reason", revoke(reason=UNKNOWN_ENUM)),
    ("note", revoke(note="n" * 1_001)),
    ("note", revoke(note="n\0")),
    ("secret", keys_pb.LookupKeyRequest()),
    ("items", keys_pb.ImportKeysRequest()),
    ("items", keys_pb.ImportKeysRequest(items=[keys_pb.ImportKeyItem()] * 1_001)),
    ("adjustment", keys_pb.AdjustCreditsRequest(key_id=random_id("key"))),
    # VerifyService
    ("key", verify_pb.VerifyRequest()),
    ("required_scopes[0].any_of", grouped()),
    ("required_scopes[0].any_of", grouped("docs.*")),
    ("required_scopes[0].any_of", grouped("docs read")),
    ("required_scopes[0].any_of", grouped(*(f"s{index}" for index in range(33)))),
    (
        "required_scopes",
        verify_pb.VerifyRequest(key="sk_unknown", required_scopes=[verify_pb.ScopeGroup(any_of=["s"])] * 33),
    ),
    ("environments[1]", verify_pb.VerifyRequest(key="sk_unknown", environments=["prod", "a\0"])),
    ("environments", verify_pb.VerifyRequest(key="sk_unknown", environments=["prod"] * 33)),
    ("cost", verify(cost=-1)),
    ("cost", verify(cost=1_000_000_001)),
    (
        "ratelimits[0].cost",
        verify_pb.VerifyRequest(key="sk_unknown", ratelimits=[ratelimit_pb2.RateLimitCost(name="fast", cost=-1)]),
    ),
    (
        "ratelimits",
        verify_pb.VerifyRequest(key="sk_unknown", ratelimits=[ratelimit_pb2.RateLimitCost(name="fast")] * 21),
    ),
    ("estimated_cost", verify(estimated_cost=usd(-1), operation_id="operation")),
    ("estimated_cost", verify(estimated_cost=usd(1, -1), operation_id="operation")),
    ("estimated_cost.currency_code", verify(estimated_cost=usd(1, currency="usd"), operation_id="operation")),
    ("operation_id", verify(estimated_cost=usd(1))),
    ("operation_id", verify(operation_id="o" * 65)),
    ("operation_id", verify(operation_id="two words")),
    ("tags", verify_pb.VerifyRequest(key="sk_unknown", tags=list("abcdef"))),
    ("tags[0]", verify_pb.VerifyRequest(key="sk_unknown", tags=["t" * 65])),
    ("tags[0]", verify_pb.VerifyRequest(key="sk_unknown", tags=["\0"])),
    ("max_staleness", verify(max_staleness=Duration(seconds=-1))),
    ("max_staleness", verify(max_staleness=NO_DURATION)),
    ("items", verify_pb.BatchVerifyRequest()),
    ("items", verify_pb.BatchVerifyRequest(items=[verify_pb.VerifyRequest(key="sk")] * 1_001)),
    # UsageService
    ("events", usage_pb.ReportUsageRequest()),
    ("events", usage_pb.ReportUsageRequest(events=[usage_pb2.UsageEvent()] * 1_001)),
    ("start_time", usage_pb.QueryUsageRequest(end_time=END)),
    ("end_time", usage_pb.QueryUsageRequest(start_time=START)),
    ("start_time", query(start_time=Timestamp(seconds=START.seconds + 60))),
    ("end_time", query(end_time=Timestamp(seconds=END.seconds, nanos=1_000))),
    ("end_time", query(end_time=START)),
    ("end_time", query(start_time=END, end_time=START)),
    ("end_time", query(end_time=NO_TIME)),
    ("start_time", query(start_time=BEFORE_TIME)),
    ("end_time", query(start_time=Timestamp(seconds=START.seconds - 6 * 366 * 86_400))),
    ("bucket_width", query(bucket_width=UNKNOWN_ENUM)),
    (
        "bucket_width",
        query(start_time=Timestamp(seconds=START.seconds - 150 * 86_400), bucket_width=usage_pb2.BUCKET_WIDTH_15M),
    ),
    ("time_zone", query(time_zone="Mars/Olympus")),
    ("time_zone", query(time_zone="../../etc/passwd")),
    ("time_zone", query(time_zone="a\0b")),
    (
        "group_by[0]",
        usage_pb.QueryUsageRequest(start_time=START, end_time=END, group_by=[Dimension.USAGE_DIMENSION_UNSPECIFIED]),
    ),
    (
        "group_by",
        usage_pb.QueryUsageRequest(start_time=START, end_time=END, group_by=[Dimension.USAGE_DIMENSION_KEY] * 2),
    ),
    ("order_by", query(order_by=UNKNOWN_ENUM)),
    ("top", query(top=-1)),
    ("top", query(top=1_001)),
    ("page_size", query(page_size=-1)),
    ("page_token", query(page_token="junk")),
    *(
        (f"filter.{field}", request)
        for field in ("models", "members", "tasks", "external_ids")
        for request in filtered(field, ["x"] * 101)
    ),
    *(
        (f"filter.{field}[1]", request)
        for field in ("models", "members", "tasks", "external_ids")
        for request in filtered(field, ["x", "a\0b"])
    ),
    *(("filter.environments.labels[0]", request) for request in labelled("a\0b")),
    ("page_size", usage_pb.ListUsageEventsRequest(page_size=-1)),
    ("page_token", usage_pb.ListUsageEventsRequest(page_token="junk")),
    ("end_time", usage_pb.ListUsageEventsRequest(start_time=END, end_time=START)),
    ("start_time", usage_pb.ListUsageEventsRequest(start_time=NO_TIME)),
    ("event_types[0]", usage_pb.ListUsageEventsRequest(event_types=[usage_pb2.UsageType.ValueType(UNKNOWN_ENUM)])),
    # AdminService
    ("workspace.name", admin_pb.UpdateWorkspaceRequest(workspace=workspace_pb2.Workspace(name=TOO_LONG_NAME))),
    ("workspace.name", admin_pb.UpdateWorkspaceRequest(workspace=workspace_pb2.Workspace(name="n\0"))),
    ("workspace.settings.default_prefix", workspace(default_prefix="-sk")),
    ("workspace.settings.max_cacheable_for", workspace(max_cacheable_for=Duration(seconds=3_601))),
    ("workspace.settings.max_cacheable_for", workspace(max_cacheable_for=Duration(seconds=-1))),
    ("workspace.settings.max_cacheable_for", workspace(max_cacheable_for=NO_DURATION)),
    ("update_mask", masked(admin_pb.UpdateWorkspaceRequest(), "root")),
    ("update_mask", masked(admin_pb.UpdateWorkspaceRequest(), "workspace_id")),
    ("update_mask", masked(admin_pb.UpdateWorkspaceRequest(), "settings.nonsense")),
    ("api.name", admin_pb.CreateApiRequest(api=api_pb2.Api(name=TOO_LONG_NAME))),
    ("api.name", admin_pb.CreateApiRequest(api=api_pb2.Api(name="n\0"))),
    ("api.name", admin_pb.UpdateApiRequest(api=api_pb2.Api(api_id=random_id("api"), name=TOO_LONG_NAME))),
    ("update_mask", update_api("default")),
    ("update_mask", update_api("nonsense")),
    ("external_id", admin_pb.GetIdentityRequest()),
    ("external_id", admin_pb.GetIdentityRequest(external_id="e\0")),
    ("identity.external_id", admin_pb.UpdateIdentityRequest(allow_missing=True)),
    ("identity.external_id", identity(external_id="e" * 256)),
    ("identity.external_id", identity(external_id="e\0")),
    ("identity.metadata", identity(metadata=TOO_BIG)),
    ("identity.metadata", identity(metadata=INFINITE)),
    ("identity.metadata", identity(metadata=WITH_NUL)),
    ("identity.ratelimits[0].limit", limited_identity(limit(most=0))),
    ("identity.ratelimits[0].window", limited_identity(limit(window=FAR))),
    ("identity.ratelimits[1].name", limited_identity(limit(), limit())),
    ("update_mask", masked(identity(), "external_id")),
    ("update_mask", masked(identity(), "nonsense")),
    ("management_key.role", admin_pb.CreateManagementKeyRequest()),
    ("management_key.role", management_key(0)),
    ("management_key.role", management_key(UNKNOWN_ENUM)),
    ("management_key.name", management_key(name=TOO_LONG_NAME)),
    ("management_key.name", management_key(name="n\0")),
    ("management_key.member", management_key(member="m" * 129)),
    ("management_key.member", management_key(member="m\n")),
    ("management_key.expire_time", management_key(expire_time=NO_TIME)),
    ("management_key.api_ids", bound_to_many()),
    ("update_mask", update_management_key("all_workspaces")),
    ("update_mask", update_management_key("revocation")),
    ("update_mask", update_management_key("nonsense")),
    (
        "grace",
        admin_pb.RotateManagementKeyRequest(management_key_id=random_id("mk"), grace=Duration(seconds=-1)),
    ),
    ("grace", admin_pb.RotateManagementKeyRequest(management_key_id=random_id("mk"), grace=FAR)),
    ("reason", admin_pb.RevokeManagementKeyRequest(management_key_id=random_id("mk"))),
    (
        "note",
        admin_pb.RevokeManagementKeyRequest(
            management_key_id=random_id("mk"), reason=key_pb2.REVOKE_REASON_OTHER, note="n" * 1_001
        ),
    ),
    ("start_time", admin_pb.ListAuditEventsRequest(start_time=NO_TIME)),
    ("end_time", admin_pb.ListAuditEventsRequest(end_time=BEFORE_TIME)),
    ("target_id", admin_pb.ListAuditEventsRequest(target_id="t\0")),
    ("action", admin_pb.ListAuditEventsRequest(action="a\0")),
    *(
        (field, _with(list_request(), {field: value}))
        for list_request in (
            keys_pb.ListEnvironmentsRequest,
            admin_pb.ListApisRequest,
            admin_pb.ListIdentitiesRequest,
            admin_pb.ListManagementKeysRequest,
            admin_pb.ListAuditEventsRequest,
        )
        for field, value in (("page_size", -1), ("page_token", "junk"))
    ),
]
"""Requests that break one rule, with the field that is at fault."""

BAD_EVENTS: list[tuple[str, Mapping[str, object]]] = [
    ("source", {"source": ""}),
    ("source", {"source": "s" * 65}),
    ("source", {"source": "two words"}),
    ("event_id", {"event_id": ""}),
    ("event_id", {"event_id": "e" * 129}),
    ("event_id", {"event_id": "\0"}),
    ("event_id", {"event_id": "ключ"}),
    ("key_id", {"key_id": ""}),
    ("key_id", {"key_id": "nonsense"}),
    ("type", {"type": 0}),
    ("type", {"type": UNKNOWN_ENUM}),
    ("member", {"member": "m" * 129}),
    ("member", {"member": "\0"}),
    ("model", {"model": "m" * 129}),
    ("model", {"model": "\0"}),
    ("task", {"task": "t" * 129}),
    ("task", {"task": "\0"}),
    ("requests", {"requests": -1}),
    ("requests", {"requests": 1_000_000_001}),
    ("input_tokens", {"input_tokens": -1}),
    ("input_tokens", {"input_tokens": 10**12 + 1}),
    ("output_tokens", {"output_tokens": -1}),
    ("cached_tokens", {"cached_tokens": 2, "input_tokens": 1}),
    ("cost", {"cost": usd(-1)}),
    ("cost", {"cost": usd(1_000_001)}),
    ("cost", {"cost": usd(1, -1)}),
    ("cost", {"cost": usd(0, 1_000_000_000)}),
    ("cost.currency_code", {"cost": usd(1, currency="GBP")}),
    ("cost", {"type": usage_pb2.USAGE_TYPE_REFUND, "cost": usd(1)}),
    ("cost", {"type": usage_pb2.USAGE_TYPE_BLOCKED, "cost": usd(1)}),
    ("requests", {"type": usage_pb2.USAGE_TYPE_REFUND, "requests": 1}),
    ("requests", {"type": usage_pb2.USAGE_TYPE_ERROR, "input_tokens": 1}),
    ("occurred_time", {"occurred_time": NO_TIME}),
    ("occurred_time", {"occurred_time": ODD_NANOS}),
    ("operation_id", {"operation_id": "o" * 65}),
    ("metadata", {"metadata": held(Value(string_value="x" * 512))}),
    ("metadata", {"metadata": NOT_A_NUMBER}),
    ("metadata", {"metadata": WITH_NUL}),
]
"""What is changed in a sound usage event, with the field that is then at fault."""


async def faults(service: Service, secret: str, table: Sequence[tuple[str, Message]]) -> list[str]:
    """Send every request and say of each that was not refused for its field alone what came instead."""
    channel = (await service.anonymous()).channel
    wrong = []
    for index, (field, request) in enumerate(table):
        answer = await call(channel, request, secret=secret)
        refusal = answer.refusal
        fields = refusal.fields if refusal else []
        told = refusal is not None and all(violation.description for violation in refusal.bad_request.field_violations)
        if answer.code is not grpc.StatusCode.INVALID_ARGUMENT or set(fields) != {field} or not told:
            shown = str(request).replace("\n", " ")[:120]
            wrong.append(f"{index} {field}: {answer.method} {answer.code.name} {answer.outcome} {fields} {shown}")
    return wrong


async def owner_secret(owner: Client) -> str:
    """Return the secret of an OWNER of the workspace."""
    return (await owner.create_management_key(Role.ROLE_OWNER)).secret


async def test_a_key_that_breaks_a_rule_is_refused_by_create_with_the_field_s_name(
    service: Service, owner: Client
) -> None:
    table = [(field, keys_pb.CreateKeyRequest(key=key)) for field, key in BAD_KEY]

    assert await faults(service, await owner_secret(owner), table) == []


async def test_a_key_that_breaks_a_rule_is_refused_by_update_with_the_field_s_name(
    service: Service, owner: Client
) -> None:
    made = await owner.create_key()
    table: list[tuple[str, Message]] = []
    for field, key in BAD_KEY:
        if not field.startswith(("key.api_id", "key.prefix")):
            wanted = Key(key_id=made.key.key_id)
            wanted.MergeFrom(key)
            table.append((field, keys_pb.UpdateKeyRequest(key=wanted)))

    assert await faults(service, await owner_secret(owner), table) == []
    assert (await owner.keys.GetKey(keys_pb.GetKeyRequest(key_id=made.key.key_id))).key == made.key


async def test_a_key_that_breaks_a_rule_fails_alone_in_an_import(service: Service, owner: Client) -> None:
    items = [keys_pb.ImportKeyItem(key=key, secret_sha256=random_sha256()) for _, key in BAD_KEY]
    sound = keys_pb.ImportKeyItem(secret_sha256=random_sha256())

    results = (await owner.keys.ImportKeys(keys_pb.ImportKeysRequest(items=[*items, sound]))).results

    assert results[-1].key_id.startswith("key_")
    found = [(result.error.code, {*_violated(result.error.details)}) for result in results[:-1]]
    assert found == [(code_pb2.INVALID_ARGUMENT, {field}) for field, _ in BAD_KEY]


async def test_an_import_s_hash_and_mask_hint_are_checked_item_by_item(owner: Client) -> None:
    secret = "another-system-s-secret"
    sha256 = hashlib.sha256(secret.encode()).digest()
    items = [
        keys_pb.ImportKeyItem(),
        keys_pb.ImportKeyItem(secret_sha256=sha256[:31]),
        keys_pb.ImportKeyItem(secret_sha256=sha256 + b"x"),
        keys_pb.ImportKeyItem(secret_sha256=sha256, mask_hint="h" * 33),
        keys_pb.ImportKeyItem(secret_sha256=sha256, mask_hint="\0"),
        keys_pb.ImportKeyItem(secret_sha256=sha256, mask_hint=secret),
    ]

    results = (await owner.keys.ImportKeys(keys_pb.ImportKeysRequest(items=items))).results

    assert [_violated(result.error.details) for result in results] == [["secret_sha256"]] * 3 + [["mask_hint"]] * 3
    assert secret not in str(results)


async def test_a_missing_or_malformed_id_is_refused_with_the_field_s_name(service: Service, owner: Client) -> None:
    table: list[tuple[str, Message]] = []
    for field, request, prefix in [*BAD_IDS, *OPTIONAL_IDS]:
        sound = random_id(prefix)
        malformed = ["nonsense", sound[:-1], sound + "0", sound.upper(), f"{prefix}_8{sound[-25:]}", f"{sound[:-1]}u"]
        malformed += ["\0", random_id("sec")]
        table += [(field, request(text)) for text in malformed]
    table += [(field, request("")) for field, request, _ in BAD_IDS]

    assert await faults(service, await owner_secret(owner), table) == []


async def test_a_request_that_breaks_a_rule_is_refused_with_the_field_s_name(service: Service, owner: Client) -> None:
    assert await faults(service, await owner_secret(owner), BAD) == []


async def test_the_root_s_own_methods_check_their_fields_too(service: Service) -> None:
    table: list[tuple[str, Message]] = [
        ("page_size", admin_pb.ListWorkspacesRequest(page_size=-1)),
        ("page_token", admin_pb.ListWorkspacesRequest(page_token="junk")),
        ("workspace.name", admin_pb.CreateWorkspaceRequest(workspace=workspace_pb2.Workspace(name=TOO_LONG_NAME))),
        (
            "workspace.settings.default_prefix",
            admin_pb.CreateWorkspaceRequest(
                workspace=workspace_pb2.Workspace(settings=workspace_pb2.WorkspaceSettings(default_prefix="_"))
            ),
        ),
    ]

    assert await faults(service, service.root_secret, table) == []


async def test_a_malformed_request_id_is_refused_by_every_mutation(service: Service, owner: Client) -> None:
    target = unknown_target()
    for secret, wanted in ((await owner_secret(owner), False), (service.root_secret, True)):
        table: list[tuple[str, Message]] = []
        for name, row in ROWS.items():
            is_root_s = name == "CreateWorkspace"
            if "request_id" in METHODS[name].input_type.fields_by_name and is_root_s is wanted:
                for request_id in ("r" * 65, "two words", "\0", "ключ"):
                    table.append(("request_id", _with(row.request(target), {"request_id": request_id})))
        assert table
        assert await faults(service, secret, table) == []


async def test_a_request_id_with_other_content_is_refused(owner: Client) -> None:
    await owner.keys.CreateKey(keys_pb.CreateKeyRequest(request_id="once", key=Key(name="first")))

    other = keys_pb.CreateKeyRequest(request_id="once", key=Key(name="second"))
    refused = await rejection(owner.keys.CreateKey(other))

    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
    assert refused.fields == ["request_id"]
    assert dict(refused.info.metadata) == {"method": "CreateKey"}


async def test_a_request_id_is_scoped_by_caller_and_method(service: Service, owner: Client) -> None:
    other = await service.client(await owner_secret(owner))
    first = await owner.keys.CreateKey(keys_pb.CreateKeyRequest(request_id="once"))

    second = await other.keys.CreateKey(keys_pb.CreateKeyRequest(request_id="once"))
    api = await owner.admin.CreateApi(admin_pb.CreateApiRequest(request_id="once"))

    assert len({first.key.key_id, second.key.key_id}) == 2
    assert api.api.api_id


async def test_a_page_token_of_another_filter_is_refused(owner: Client) -> None:
    for name in ("a", "b", "c"):
        await owner.create_key(Key(name=name, environment="prod"))
        await owner.admin.CreateApi(admin_pb.CreateApiRequest(api=api_pb2.Api(name=name)))
    wanted = EnvironmentFilter(labels=["prod"])
    keys = await owner.keys.ListKeys(keys_pb.ListKeysRequest(page_size=1, environments=wanted))
    apis = await owner.admin.ListApis(admin_pb.ListApisRequest(page_size=1))
    assert keys.next_page_token
    assert apis.next_page_token

    for token, request in (
        (keys.next_page_token, keys_pb.ListKeysRequest()),
        (keys.next_page_token, keys_pb.ListKeysRequest(environments=EnvironmentFilter(labels=["dev"]))),
        (apis.next_page_token, keys_pb.ListKeysRequest(environments=wanted)),
        (keys.next_page_token[:-2], keys_pb.ListKeysRequest(environments=wanted)),
    ):
        request.page_token = token
        refused = await rejection(owner.keys.ListKeys(request))
        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PAGE_TOKEN_INVALID")
        assert refused.fields == ["page_token"]


async def test_all_violations_of_a_request_are_reported_at_once(owner: Client) -> None:
    wanted = Key(name=TOO_LONG_NAME, member="m\0", allow_ips=["nonsense", "10.0.0.1", "also"], scopes=["a b"])

    refused = await rejection(owner.keys.CreateKey(keys_pb.CreateKeyRequest(key=wanted, ttl=Duration(seconds=-1))))

    expected = {"key.name", "key.member", "key.allow_ips[0]", "key.allow_ips[2]", "key.scopes[0]", "ttl"}
    assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert set(refused.fields) == expected
    assert len(refused.fields) == len(expected)


async def test_what_can_not_be_read_is_reported_together_with_what_breaks_a_rule(owner: Client) -> None:
    wanted = Key(name=TOO_LONG_NAME, api_id="nonsense", spend_limit=capped(usd(1, currency="EUR")).spend_limit)

    refused = await rejection(owner.keys.CreateKey(keys_pb.CreateKeyRequest(key=wanted)))

    assert set(refused.fields) == {"key.name", "key.api_id", "key.spend_limit.amount.currency_code"}


async def test_a_bad_address_is_refused_by_name(owner: Client) -> None:
    refused = await rejection(owner.create_key(Key(allow_ips=["10.0.0.0/8", "10.0.0.0/33"])))

    (violation,) = refused.bad_request.field_violations
    assert violation.field == "key.allow_ips[1]"
    assert "10.0.0.0/33" in violation.description


async def test_every_wrong_path_of_a_mask_is_reported(owner: Client) -> None:
    request = keys_pb.UpdateKeyRequest(
        key=Key(key_id=random_id("key")), update_mask=FieldMask(paths=["name", "nonsense", "api_id"])
    )

    refused = await rejection(owner.keys.UpdateKey(request))

    assert refused.fields == ["update_mask", "update_mask"]
    descriptions = [violation.description for violation in refused.bad_request.field_violations]
    assert ["nonsense" in descriptions[0], "api_id" in descriptions[1]] == [True, True]


async def test_setting_a_balance_out_of_range_is_refused_whatever_the_balance_is(
    service: Service, owner: Client
) -> None:
    made = await owner.create_key(Key(credits=key_pb2.Credits(amount=5)))
    table = [("set", keys_pb.AdjustCreditsRequest(key_id=made.key.key_id, set=amount)) for amount in (-1, 10**12 + 1)]

    assert await faults(service, await owner_secret(owner), table) == []


async def test_adding_below_zero_or_above_the_maximum_is_a_failed_precondition(owner: Client) -> None:
    made = await owner.create_key(Key(credits=key_pb2.Credits(amount=5)))
    for amount in (-6, 10**12, -(2**63), 2**63 - 1):
        request = keys_pb.AdjustCreditsRequest(key_id=made.key.key_id, add=amount)
        refused = await rejection(owner.keys.AdjustCredits(request))
        assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "CREDITS_INSUFFICIENT")
        assert refused.info.metadata["remaining"] == "5"


async def test_a_usage_event_that_breaks_a_rule_is_rejected_alone_by_the_field_s_name(owner: Client) -> None:
    key_id = (await owner.create_key()).key.key_id
    events = []
    for _, changes in BAD_EVENTS:
        event = usage_event(key_id)
        _with(event, changes)
        events.append(event)
    events.append(usage_event(key_id))

    results = (await owner.usage.ReportUsage(usage_pb.ReportUsageRequest(events=events))).results

    assert results[-1].outcome == usage_pb.USAGE_OUTCOME_NEW
    wrong = [
        (field, result.outcome, result.message)
        for (field, _), result in zip(BAD_EVENTS, results, strict=False)
        if result.reason != error_reason_pb2.ERROR_REASON_INVALID_FIELD
        or result.outcome != usage_pb.USAGE_OUTCOME_REJECTED
        or f"{field}:" not in result.message
    ]
    assert wrong == []
    listed = (await owner.usage.ListUsageEvents(usage_pb.ListUsageEventsRequest())).events
    assert [record.event.event_id for record in listed] == [events[-1].event_id]


async def test_an_event_outside_the_accepted_window_is_rejected_alone(owner: Client) -> None:
    key_id = (await owner.create_key()).key.key_id
    events = [usage_event(key_id) for _ in range(3)]
    events[0].occurred_time.CopyFrom(timestamp(datetime.now(UTC) - timedelta(days=36)))
    events[1].occurred_time.CopyFrom(timestamp(datetime.now(UTC) + timedelta(minutes=6)))

    results = (await owner.usage.ReportUsage(usage_pb.ReportUsageRequest(events=events))).results

    rejected, new = usage_pb.USAGE_OUTCOME_REJECTED, usage_pb.USAGE_OUTCOME_NEW
    assert [result.outcome for result in results] == [rejected, rejected, new]
    assert results[0].reason == error_reason_pb2.ERROR_REASON_OCCURRED_TIME_OUT_OF_RANGE


async def test_a_bad_item_of_a_batch_fails_alone(owner: Client) -> None:
    made = await owner.create_key()
    items = [
        verify_pb.VerifyRequest(),
        verify_pb.VerifyRequest(key=made.secret, api_id="nonsense"),
        verify_pb.VerifyRequest(key=made.secret, ratelimits=[ratelimit_pb2.RateLimitCost(name="unknown")]),
        verify_pb.VerifyRequest(key=made.secret),
    ]

    results = (await owner.verifier.BatchVerify(verify_pb.BatchVerifyRequest(items=items))).results

    codes = [result.error.code for result in results]
    assert codes == [code_pb2.INVALID_ARGUMENT, code_pb2.INVALID_ARGUMENT, code_pb2.FAILED_PRECONDITION, code_pb2.OK]
    assert [_violated(result.error.details) for result in results[:2]] == [["key"], ["api_id"]]
    assert results[3].verification.code == verification_pb2.VERIFY_CODE_VALID


async def test_batches_of_one_and_of_a_thousand_are_accepted(owner: Client) -> None:
    made = await owner.create_key()
    for count in (1, 1_000):
        items = [verify_pb.VerifyRequest(key=made.secret, omit_metadata=True)] * count
        events = [usage_event(made.key.key_id) for _ in range(count)]

        results = (await owner.verifier.BatchVerify(verify_pb.BatchVerifyRequest(items=items))).results
        reported = (await owner.usage.ReportUsage(usage_pb.ReportUsageRequest(events=events))).results

        assert len(results) == len(reported) == count
        assert {result.outcome for result in reported} == {usage_pb.USAGE_OUTCOME_NEW}


async def test_an_unknown_rate_limit_is_a_failed_precondition_that_names_it(owner: Client) -> None:
    made = await owner.create_key()
    asked = verify_pb.VerifyRequest(ratelimits=[ratelimit_pb2.RateLimitCost(name="heavy")])

    refused = await rejection(owner.verify(made.secret, asked))

    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "UNKNOWN_RATE_LIMIT")
    assert dict(refused.info.metadata) == {"name": "heavy"}


async def test_a_message_over_4_mib_is_resource_exhausted(service: Service, owner: Client) -> None:
    channel = (await service.anonymous()).channel
    request = keys_pb.CreateKeyRequest(key=Key(name="n" * (4 * 1024 * 1024)))

    answer = await call(channel, request, secret=await owner_secret(owner))

    assert answer.code is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("method", ["/latchkey.v1.KeyService/CreateKey", "/latchkey.v1.VerifyService/Verify"])
async def test_bytes_that_are_no_message_are_an_invalid_argument(service: Service, owner: Client, method: str) -> None:
    channel = (await service.anonymous()).channel
    send = channel.unary_unary(method, request_serializer=bytes, response_deserializer=bytes)

    for junk in (b"\xff", b"\x0a\x7f", b"\x0a\x02\xff\xfe"):
        refused = await rejection(send(junk, metadata=(("authorization", f"Bearer {await owner_secret(owner)}"),)))
        assert (refused.code, refused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")


async def test_times_at_the_edges_of_the_calendar_never_fail_the_server(service: Service, owner: Client) -> None:
    channel, secret = (await service.anonymous()).channel, await owner_secret(owner)
    first, last = Timestamp(seconds=-62_135_596_800), Timestamp(seconds=253_402_300_799)
    begin, end = Timestamp(seconds=first.seconds + 900), Timestamp(seconds=253_402_299_900)
    day = 86_400
    requests: list[Message] = [
        usage_pb.ListUsageEventsRequest(end_time=first),
        usage_pb.ListUsageEventsRequest(end_time=last),
        usage_pb.ListUsageEventsRequest(start_time=first, end_time=last),
        keys_pb.ListKeysRequest(expire_before_time=first, unused_since_time=last),
        keys_pb.CreateKeyRequest(key=Key(expire_time=first, not_before_time=last)),
        keys_pb.CreateKeyRequest(key=Key(expire_time=last, not_before_time=first)),
        admin_pb.ListAuditEventsRequest(start_time=first, end_time=last),
        management_key(expire_time=last),
        usage_pb.ReportUsageRequest(events=[usage_pb2.UsageEvent(occurred_time=first)]),
    ]
    requests += [
        query(start_time=start, end_time=until, bucket_width=width, time_zone=zone)
        for start, until in (
            (first, begin),
            (Timestamp(seconds=end.seconds - day), end),
            (Timestamp(seconds=end.seconds - 900), end),
        )
        for width in usage_pb2.BucketWidth.values()
        for zone in ("UTC", "America/New_York", "Asia/Kolkata", "Pacific/Kiritimati")
    ]

    answers = [(request, await call(channel, request, secret=secret)) for request in requests]

    fine = (grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT)
    assert [(str(request), answer.outcome) for request, answer in answers if answer.code not in fine] == []


def _violated(details: Sequence[Any]) -> list[str]:
    """Return the fields that an item's status names."""
    fields = []
    for detail in details:
        violations = error_details_pb2.BadRequest()
        if detail.Unpack(violations):
            fields += [violation.field for violation in violations.field_violations]
    return fields
