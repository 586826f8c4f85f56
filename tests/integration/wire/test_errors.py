"""What every answer carries, failed or not, and what an outage looks like (spec §7)."""

import asyncio
import json
import re
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import grpc
import psutil
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from latchkey.v1 import admin_service_pb2 as admin_pb
from latchkey.v1 import (
    api_pb2,
    error_reason_pb2,
    key_pb2,
    management_key_pb2,
    ratelimit_pb2,
    workspace_pb2,
)
from latchkey.v1 import key_service_pb2 as keys_pb
from latchkey.v1 import usage_service_pb2 as usage_pb
from latchkey.v1 import verify_service_pb2 as verify_pb
from latchkey_server.domain.keys.commands import Keys
from latchkey_server.opening import utc_now
from latchkey_server.storage.database import open_database
from latchkey_server.storage.embedded.data_directory import temporary_data_dir
from latchkey_server.storage.embedded.server import EmbeddedServer, embedded_postgres
from latchkey_server.storage.schema.migrate import migrate
from latchkey_server.storage.usage.partitions import ensure_partitions
from tests.support.matrix_calls import METHODS, REQUEST_ID, Answer, call
from tests.support.matrix_rows import ROWS
from tests.support.matrix_world import (
    Role,
    Target,
    make_api,
    make_target,
    own_workspace,
    random_id,
    random_sha256,
    set_enabled,
    unknown_target,
    usage_event,
)
from tests.support.service import Client, Service, serving, settings_for

ROOT = Path(__file__).parents[3]
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
_SAMPLE = re.compile(
    r"// ERROR_REASON_(?P<reason>\w+) \((?P<code>\w+)\)(?P<comment>(?:(?!ERROR_REASON_\w+ = ).)*)ERROR_REASON_\w+ = ",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Sample:
    """What error_reason.proto promises of one reason."""

    code: str
    metadata: frozenset[str]


def samples() -> dict[str, Sample]:
    """Return the samples of the proto's comments by reason."""
    text = (ROOT / "proto/latchkey/v1/error_reason.proto").read_text()
    found = {}
    for match in _SAMPLE.finditer(text):
        comment = re.sub(r"^ *// ?", "", match["comment"], flags=re.MULTILINE)
        sample = json.loads(comment[comment.index("{") : comment.rindex("}") + 1])
        assert sample["reason"] == f"ERROR_REASON_{match['reason']}"
        found[match["reason"]] = Sample(match["code"], frozenset(sample.get("metadata", {})))
    return found


SAMPLES = samples()
REASONS = {value.name for value in error_reason_pb2.ErrorReason.DESCRIPTOR.values}


def test_every_reason_has_a_sample_in_the_proto() -> None:
    named = {name.removeprefix("ERROR_REASON_") for name in REASONS}

    assert set(SAMPLES) == named - {"UNSPECIFIED"}


def faults_of(answer: Answer) -> list[str]:
    """Return what a failed answer lacks of what every failed answer carries."""
    refusal = answer.refusal
    if refusal is None:
        return ["it did not fail"]
    reason = refusal.info.reason
    sample = SAMPLES.get(refusal.reason)
    metadata = frozenset(refusal.info.metadata)
    checks = {
        "a reason of the enum": reason in REASONS,
        "the reason's code": sample is not None and sample.code == refusal.code.name,
        "the sample's metadata": sample is not None and metadata == sample.metadata,
        "the domain": refusal.info.domain == "latchkey",
        "the same code in the status": refusal.status.code == refusal.code.value[0],
        "the same message in the status": refusal.status.message == refusal.message != "",
        "a request id": bool(refusal.request_info.request_id),
        "the trailer": refusal.trailer.get(REQUEST_ID) == refusal.request_info.request_id,
        "a violation for a wrong field": (refusal.code is not grpc.StatusCode.INVALID_ARGUMENT)
        or bool(refusal.bad_request.field_violations),
        "when to retry": (refusal.retry_info.retry_delay.seconds > 0) == (refusal.code is UNAVAILABLE),
    }
    return [f"{answer.method} {refusal.reason}: {name}" for name, sound in checks.items() if not sound]


# Reasons


async def _provoked(service: Service, owner: Client) -> AsyncIterator[tuple[str, Message]]:
    """Yield every reason that an OWNER's own call can be given, with a request that is given it."""
    target, unknown = await make_target(owner), unknown_target()
    own = await own_workspace(owner)
    bare = (await owner.create_key()).key
    revoked = (await owner.create_key()).key.key_id
    await owner.keys.RevokeKey(keys_pb.RevokeKeyRequest(key_id=revoked, reason=key_pb2.REVOKE_REASON_OTHER))
    gone = (await owner.create_management_key(Role.ROLE_VIEWER)).management_key.management_key_id
    await owner.admin.RevokeManagementKey(
        admin_pb.RevokeManagementKeyRequest(management_key_id=gone, reason=key_pb2.REVOKE_REASON_OTHER)
    )
    yield "INVALID_FIELD", keys_pb.GetKeyRequest()
    yield "OK", keys_pb.CreateKeyRequest(request_id="once", key=key_pb2.Key(name="first"))
    yield "REQUEST_ID_REUSED", keys_pb.CreateKeyRequest(request_id="once", key=key_pb2.Key(name="second"))
    yield "PAGE_TOKEN_INVALID", keys_pb.ListKeysRequest(page_token="junk")
    yield "ROLE_TOO_LOW", admin_pb.ListWorkspacesRequest()
    for name, reason in (
        ("GetKey", "KEY_NOT_FOUND"),
        ("LookupKey", "KEY_NOT_FOUND"),
        ("GetApi", "API_NOT_FOUND"),
        ("CreateKey", "API_NOT_FOUND"),
        ("GetIdentity", "IDENTITY_NOT_FOUND"),
        ("GetManagementKey", "MANAGEMENT_KEY_NOT_FOUND"),
        ("GetWorkspace", "WORKSPACE_NOT_FOUND"),
        ("ReleaseReservation", "NOT_IMPLEMENTED"),
    ):
        yield reason, ROWS[name].request(unknown)
    yield "API_NOT_EMPTY", admin_pb.DeleteApiRequest(api_id=target.api_id)
    yield "DEFAULT_API", admin_pb.DeleteApiRequest(api_id=own.default_api_id)
    yield "IDENTITY_IN_USE", admin_pb.DeleteIdentityRequest(identity_id=target.identity_id)
    yield "KEY_REVOKED", keys_pb.RotateKeyRequest(key_id=revoked)
    yield "KEY_REVOKED", keys_pb.UpdateKeyRequest(key=key_pb2.Key(key_id=revoked, scopes=["docs.read"]))
    yield "KEY_NOT_DELETED", keys_pb.UndeleteKeyRequest(key_id=target.key_id)
    yield "MANAGEMENT_KEY_REVOKED", admin_pb.RotateManagementKeyRequest(management_key_id=gone)
    yield "CREDITS_NOT_SET", keys_pb.AdjustCreditsRequest(key_id=bare.key_id, add=1)
    yield "CREDITS_INSUFFICIENT", keys_pb.AdjustCreditsRequest(key_id=target.key_id, add=-11)
    limits = [ratelimit_pb2.RateLimitCost(name="heavy")]
    yield "UNKNOWN_RATE_LIMIT", verify_pb.VerifyRequest(key=target.secret, ratelimits=limits)
    yield "ETAG_MISMATCH", keys_pb.UpdateKeyRequest(key=key_pb2.Key(key_id=target.key_id, name="n"), etag="old")
    later = (await owner.create_key()).revision
    later.number += 1_000
    yield "REVISION_NOT_REACHED", verify_pb.VerifyRequest(key=target.secret, min_revision=later)


async def test_every_failed_answer_carries_its_reason_its_request_id_and_its_sample_s_metadata(
    service: Service, owner: Client
) -> None:
    secret, channel = (await owner.create_management_key(Role.ROLE_OWNER)).secret, (await service.anonymous()).channel
    given, wrong = [], []

    async for reason, request in _provoked(service, owner):
        answer = await call(channel, request, secret=secret)
        given.append((reason, answer.outcome))
        wrong += faults_of(answer) if answer.refusal else []

    assert [pair for pair in given if pair[0] != pair[1]] == []
    assert wrong == []


async def test_refusals_of_callers_carry_the_same(service: Service, root: Client, owner: Client) -> None:
    channel = (await service.anonymous()).channel
    own, at_root = await own_workspace(owner), await own_workspace(root)
    bound = (await owner.create_management_key(Role.ROLE_ADMIN, (await make_api(owner),))).secret
    admin = (await owner.create_management_key(Role.ROLE_ADMIN)).secret
    (last,) = (await root.admin.ListManagementKeys(admin_pb.ListManagementKeysRequest())).management_keys
    wanted = management_key_pb2.ManagementKey(role=management_key_pb2.ROLE_OWNER)
    disable = admin_pb.UpdateWorkspaceRequest(
        workspace=workspace_pb2.Workspace(workspace_id=at_root.workspace_id, enabled=False)
    )
    revoke = admin_pb.RevokeManagementKeyRequest(
        management_key_id=last.management_key_id, reason=key_pb2.REVOKE_REASON_OTHER
    )
    calls: list[tuple[str, Awaitable[Answer]]] = [
        ("CREDENTIAL_MISSING", call(channel, keys_pb.GetKeyRequest())),
        ("CREDENTIAL_INVALID", call(channel, keys_pb.GetKeyRequest(), secret="unknown")),
        ("API_BINDING", call(channel, admin_pb.CreateApiRequest(), secret=bound)),
        (
            "PERMISSIONS_EXCEEDED",
            call(channel, admin_pb.CreateManagementKeyRequest(management_key=wanted), secret=admin),
        ),
        ("ROOT_WORKSPACE", call(channel, disable, secret=service.root_secret)),
        ("LAST_OWNER", call(channel, revoke, secret=service.root_secret)),
    ]

    answers = [(reason, await calling) for reason, calling in calls]
    await set_enabled(service, own.workspace_id, False)
    answers.append(("WORKSPACE_DISABLED", await call(channel, admin_pb.CreateApiRequest(), secret=admin)))

    assert [answer.outcome for _, answer in answers] == [reason for reason, _ in answers]
    assert [fault for _, answer in answers for fault in faults_of(answer)] == []


async def test_a_key_deleted_too_long_ago_can_not_be_undeleted(dsn: str) -> None:
    ahead = [timedelta(0)]

    def clock() -> datetime:
        return utc_now() + ahead[0]

    async with serving(dsn, clock) as service:
        owner = await service.workspace()
        key_id = (await owner.create_key()).key.key_id
        await owner.keys.DeleteKey(keys_pb.DeleteKeyRequest(key_id=key_id))
        secret = (await owner.create_management_key(Role.ROLE_DEVELOPER)).secret
        ahead[0] = timedelta(days=30, seconds=1)

        request = keys_pb.UndeleteKeyRequest(key_id=key_id)
        answer = await call((await service.anonymous()).channel, request, secret=secret)

    assert answer.outcome == "UNDELETE_WINDOW_PASSED"
    assert faults_of(answer) == []


async def test_an_item_that_fails_alone_carries_its_reason_too(service: Service, owner: Client) -> None:
    target = await make_target(owner)
    sha256 = random_sha256()
    first = keys_pb.ImportKeysRequest(items=[keys_pb.ImportKeyItem(secret_sha256=sha256)])
    await owner.keys.ImportKeys(first)
    unknown_api = keys_pb.ImportKeyItem(key=key_pb2.Key(api_id=random_id("api")), secret_sha256=random_sha256())
    event = usage_event(target.key_id)
    await owner.usage.ReportUsage(usage_pb.ReportUsageRequest(events=[event]))
    event.input_tokens = 1
    limits = [ratelimit_pb2.RateLimitCost(name="heavy")]
    items = [verify_pb.VerifyRequest(), verify_pb.VerifyRequest(key=target.secret, ratelimits=limits)]

    first.items.append(unknown_api)
    imported = (await owner.keys.ImportKeys(first)).results
    verified = (await owner.verifier.BatchVerify(verify_pb.BatchVerifyRequest(items=items))).results
    reported = (await owner.usage.ReportUsage(usage_pb.ReportUsageRequest(events=[event]))).results

    statuses = [result.error for result in imported] + [result.error for result in verified]
    expected = ["SECRET_REJECTED", "API_NOT_FOUND", "INVALID_FIELD", "UNKNOWN_RATE_LIMIT"]
    assert [_reason(status) for status in statuses] == expected
    for status, reason in zip(statuses, expected, strict=True):
        info = _info(status)
        assert info.domain == "latchkey"
        assert set(info.metadata) == SAMPLES[reason].metadata, reason
    assert reported[0].reason == error_reason_pb2.ERROR_REASON_USAGE_CONFLICT


async def test_the_results_of_a_replayed_import_are_those_of_the_first(owner: Client) -> None:
    unknown_api = keys_pb.ImportKeyItem(key=key_pb2.Key(api_id=random_id("api")), secret_sha256=random_sha256())
    bad = keys_pb.ImportKeyItem(secret_sha256=b"short")
    sound = keys_pb.ImportKeyItem(secret_sha256=random_sha256())
    request = keys_pb.ImportKeysRequest(items=[unknown_api, bad, sound], request_id="once")

    first, again = await owner.keys.ImportKeys(request), await owner.keys.ImportKeys(request)

    assert again == first


# Request ids


async def test_every_ok_answer_carries_its_request_id(service: Service, owner: Client) -> None:
    secret, channel = (await owner.create_management_key(Role.ROLE_OWNER)).secret, (await service.anonymous()).channel
    for name, row in ROWS.items():
        answer = await call(channel, row.request(await make_target(owner)), secret=secret)
        if answer.refusal is None:
            assert answer.trailer.get(REQUEST_ID), name


@pytest.mark.parametrize("sound", ["a", "trace-4bf92f3577b34da6", "!~" * 32])
async def test_a_caller_s_sound_request_id_is_echoed(service: Service, owner: Client, sound: str) -> None:
    secret, channel = (await owner.create_management_key(Role.ROLE_OWNER)).secret, (await service.anonymous()).channel
    metadata = [("x-request-id", sound)]

    fine = await call(channel, admin_pb.ListApisRequest(), secret=secret, metadata=metadata)
    refused = await call(channel, keys_pb.GetKeyRequest(), secret=secret, metadata=metadata)
    stranger = await call(channel, keys_pb.GetKeyRequest(), metadata=metadata)

    assert [answer.trailer[REQUEST_ID] for answer in (fine, refused, stranger)] == [sound] * 3
    assert refused.refusal is not None
    assert refused.refusal.request_info.request_id == sound


@pytest.mark.parametrize("unsound", ["", "two words", "x" * 65])
async def test_a_caller_s_unsound_request_id_is_replaced(service: Service, owner: Client, unsound: str) -> None:
    secret, channel = (await owner.create_management_key(Role.ROLE_OWNER)).secret, (await service.anonymous()).channel
    metadata = [("x-request-id", unsound)]

    answers = [
        await call(channel, admin_pb.ListApisRequest(), secret=secret, metadata=metadata),
        await call(channel, keys_pb.GetKeyRequest(), secret=secret, metadata=metadata),
    ]

    given = [str(answer.trailer[REQUEST_ID]) for answer in answers]
    assert all(re.fullmatch(r"[!-~]{1,64}", request_id) for request_id in given)
    assert unsound not in given
    assert given[0] != given[1]


async def test_the_audit_event_of_a_call_holds_its_request_id(service: Service, owner: Client) -> None:
    secret, channel = (await owner.create_management_key(Role.ROLE_OWNER)).secret, (await service.anonymous()).channel
    request = admin_pb.CreateApiRequest(api=api_pb2.Api(name="made"))

    answer = await call(channel, request, secret=secret, metadata=[("x-request-id", "trace-1")])

    assert isinstance(answer.response, admin_pb.CreateApiResponse)
    wanted = admin_pb.ListAuditEventsRequest(target_id=answer.response.api.api_id)
    (event,) = (await owner.admin.ListAuditEvents(wanted)).audit_events
    assert event.call_id == answer.trailer[REQUEST_ID] == "trace-1"


# What is not built yet


def _not_built_yet() -> set[str]:
    """Return the methods that ARCHITECTURE.md lists as not built yet."""
    _, _, section = (ROOT / "ARCHITECTURE.md").read_text().partition("Not built yet")
    lines = section.split("\n#", 1)[0].splitlines()
    return {match[1] for line in lines if (match := re.match(r"[-*] `(\w+Service\.\w+)`", line))}


async def test_the_methods_not_built_yet_are_exactly_those_that_architecture_lists(
    service: Service, owner: Client
) -> None:
    secret, channel = (await owner.create_management_key(Role.ROLE_OWNER)).secret, (await service.anonymous()).channel
    target = unknown_target()
    missing = set()
    for name, method in METHODS.items():
        answer = await call(channel, ROWS[name].request(target), secret=secret)
        if answer.code is grpc.StatusCode.UNIMPLEMENTED:
            assert method.containing_service is not None
            missing.add(f"{method.containing_service.name}.{name}")
            assert faults_of(answer) == []

    assert _not_built_yet() == missing


# The server's own failures


async def test_a_fault_of_the_server_s_is_internal_and_says_nothing_of_its_cause(
    service: Service, owner: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_arguments: object) -> None:
        raise RuntimeError("the cause")

    monkeypatch.setattr(Keys, "get", fail)
    secret, channel = (await owner.create_management_key(Role.ROLE_OWNER)).secret, (await service.anonymous()).channel

    answer = await call(channel, keys_pb.GetKeyRequest(key_id=random_id("key")), secret=secret)

    assert (answer.code, answer.outcome) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert faults_of(answer) == []
    assert "cause" not in str(answer.trailer)


# Outages


@asynccontextmanager
async def _service_on(postgres: EmbeddedServer) -> AsyncIterator[Service]:
    settings = settings_for(postgres.dsn())
    async with open_database(postgres.dsn(), pool_size=1, timeout=30) as database:
        await migrate(database)
        async with database.connection() as connection:
            await ensure_partitions(connection, utc_now(), settings.usage_accepted)
    async with serving(postgres.dsn(), settings=settings) as running:
        yield running


@contextmanager
def _paused(postgres: EmbeddedServer) -> Iterator[None]:
    """Stop every process of a PostgreSQL of ours, and let them go on afterwards."""
    postmaster = psutil.Process(postgres.pid)
    processes = [postmaster, *postmaster.children(recursive=True)]
    for process in processes:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            process.send_signal(signal.SIGCONT)


def _requests(target: Target) -> dict[str, Message]:
    names = ("Verify", "BatchVerify", "GetKey", "ListKeys", "CreateKey", "ReportUsage", "QueryUsage", "ListApis")
    return {name: ROWS[name].request(target) for name in names}


async def _in_time(channel: grpc.aio.Channel, request: Message, secret: str) -> Answer:
    """Call with a deadline, again if a busy machine let the answer come too late: it comes 20 ms before it."""
    for _ in range(3):
        answer = await call(channel, request, secret=secret, timeout=2)
        if answer.code is not grpc.StatusCode.DEADLINE_EXCEEDED:
            break
    return answer


async def _until_well(attempt: Callable[[], Awaitable[Answer]]) -> Answer:
    """Repeat a call while the server says UNAVAILABLE, for as long as an outage may take to be forgotten."""
    until = time.monotonic() + 30
    while True:
        answer = await attempt()
        if answer.code is not UNAVAILABLE or time.monotonic() > until:
            return answer


async def test_with_a_hanging_database_every_call_is_unavailable_within_its_deadline() -> None:
    with temporary_data_dir() as folder:
        async with embedded_postgres(folder, settings=_FAST) as postgres, _service_on(postgres) as service:
            owner = await service.workspace()
            target = await make_target(owner)
            secret = (await owner.create_management_key(Role.ROLE_OWNER)).secret
            channel = (await service.anonymous()).channel
            with _paused(postgres):
                answers = await asyncio.gather(
                    *(_in_time(channel, request, secret) for request in _requests(target).values())
                )
            well = await _until_well(lambda: call(channel, ROWS["Verify"].request(target), secret=secret))

    assert {answer.method: answer.outcome for answer in answers} == dict.fromkeys(
        _requests(target), "DATABASE_UNAVAILABLE"
    )
    assert [fault for answer in answers for fault in faults_of(answer)] == []
    assert well.outcome == "OK"


async def test_with_a_hanging_database_a_call_without_a_deadline_is_unavailable_in_the_end() -> None:
    with temporary_data_dir() as folder:
        async with embedded_postgres(folder, settings=_FAST) as postgres, _service_on(postgres) as service:
            owner = await service.workspace()
            target = await make_target(owner)
            secret = (await owner.create_management_key(Role.ROLE_OWNER)).secret
            channel = (await service.anonymous()).channel
            with _paused(postgres):
                answer = await call(channel, ROWS["Verify"].request(target), secret=secret, timeout=60)

    assert answer.outcome == "DATABASE_UNAVAILABLE"
    assert faults_of(answer) == []


async def test_with_the_database_down_every_call_is_unavailable_until_it_is_back() -> None:
    with temporary_data_dir() as folder:
        async with embedded_postgres(folder, settings=_FAST) as postgres:
            dsn = postgres.dsn()
            async with open_database(dsn, pool_size=1, timeout=30) as database:
                await migrate(database)
                async with database.connection() as connection:
                    await ensure_partitions(connection, utc_now(), settings_for(dsn).usage_accepted)
        async with serving_while(folder, dsn) as (service, target, secret):
            channel = (await service.anonymous()).channel
            answers = await asyncio.gather(
                *(call(channel, request, secret=secret, timeout=5) for request in _requests(target).values())
            )
            async with embedded_postgres(folder, settings=_FAST) as again:
                assert again.dsn() == dsn
                well = await _until_well(lambda: call(channel, ROWS["Verify"].request(target), secret=secret))

    assert {answer.method: answer.outcome for answer in answers} == dict.fromkeys(
        _requests(target), "DATABASE_UNAVAILABLE"
    )
    assert [fault for answer in answers for fault in faults_of(answer)] == []
    assert well.outcome == "OK"


@asynccontextmanager
async def serving_while(folder: Path, dsn: str) -> AsyncIterator[tuple[Service, Target, str]]:
    """Start a service while its database runs, and yield it once that is stopped."""
    postgres = embedded_postgres(folder, settings=_FAST)
    await postgres.__aenter__()
    stopped = False
    try:
        async with serving(dsn) as service:
            owner = await service.workspace()
            target = await make_target(owner)
            secret = (await owner.create_management_key(Role.ROLE_OWNER)).secret
            await postgres.__aexit__(None, None, None)
            stopped = True
            yield service, target, secret
    finally:
        if not stopped:
            await postgres.__aexit__(None, None, None)


def _info(status: Status) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        detail.Unpack(info)
        if info.reason:
            return info
    return info


def _reason(status: Status) -> str:
    return _info(status).reason.removeprefix("ERROR_REASON_")
