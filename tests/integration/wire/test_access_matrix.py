"""Who may call what (spec §6): every rpc by role by own and foreign id by api binding."""

import asyncio
import secrets
from collections.abc import Awaitable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from latchkey.v1 import (
    admin_service_pb2,
    api_pb2,
    error_reason_pb2,
    key_pb2,
    key_service_pb2,
    management_key_pb2,
    usage_pb2,
    usage_service_pb2,
    verification_pb2,
    verify_service_pb2,
    workspace_pb2,
)
from tests.support.matrix_calls import METHODS, OK, Answer, call
from tests.support.matrix_rows import MAY, OWNER, ROLES, ROOT_OWNER, ROWS
from tests.support.matrix_world import (
    Role,
    Target,
    make_api,
    make_target,
    own_workspace,
    report,
    set_enabled,
    timestamp,
    today,
    unknown_target,
)
from tests.support.service import Client, Service, rejection

MUTATIONS = {name for name, method in METHODS.items() if "request_id" in method.input_type.fields_by_name}
ROOT_ONLY = {"CreateWorkspace", "ListWorkspaces"}


async def in_parallel(calls: Mapping[str, Awaitable[Answer]]) -> dict[str, Answer]:
    """Await all the calls at once and return their answers by the same names."""
    answers = await asyncio.gather(*calls.values())
    return dict(zip(calls, answers, strict=True))


async def secret_of(owner: Client, role: str, api_ids: Sequence[str] = ()) -> str:
    """Make a management key and return its secret."""
    return (await owner.create_management_key(Role.Value(f"ROLE_{role}"), tuple(api_ids))).secret


async def targets_for_all(owner: Client) -> dict[str, Target]:
    """Make a target of its own for each method, so that none spoils another's."""
    made = await asyncio.gather(*(make_target(owner) for _ in ROWS))
    return dict(zip(ROWS, made, strict=True))


def outcomes(answers: Mapping[str, Answer]) -> dict[str, str]:
    """Return the outcomes by method."""
    return {name: answer.outcome for name, answer in answers.items()}


# Roles


def test_every_rpc_has_a_row_in_the_matrix() -> None:
    assert set(ROWS) == set(METHODS)


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_may_call_exactly_what_the_table_says(service: Service, owner: Client, role: str) -> None:
    targets = await targets_for_all(owner)
    secret, channel = await secret_of(owner, role), (await service.anonymous()).channel

    answers = await in_parallel(
        {name: call(channel, row.request(targets[name]), secret=secret) for name, row in ROWS.items()}
    )

    assert outcomes(answers) == {name: row.done_by(role) for name, row in ROWS.items()}
    for name, answer in answers.items():
        refusal = answer.refusal
        if refusal is not None and answer.outcome == "ROLE_TOO_LOW":
            needed = ROOT_OWNER if name in ROOT_ONLY and role == OWNER else ROWS[name].needed
            assert refusal.code is grpc.StatusCode.PERMISSION_DENIED
            assert dict(refusal.info.metadata) == {"role": role, "role_needed": needed}, name
        elif refusal is not None:
            assert refusal.code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("role", [role for role in ROLES if role not in MAY["VERIFIER"] | {OWNER}])
async def test_a_role_that_is_too_low_learns_nothing_about_ids(service: Service, owner: Client, role: str) -> None:
    own, unknown = await make_target(owner), unknown_target()
    secret, channel = await secret_of(owner, role), (await service.anonymous()).channel
    refused = [name for name, row in ROWS.items() if role not in MAY[row.needed]]

    for name in refused:
        to_own = await call(channel, ROWS[name].request(own), secret=secret)
        to_unknown = await call(channel, ROWS[name].request(unknown), secret=secret)
        assert to_own.told(own.identifiers) == to_unknown.told(unknown.identifiers), name


@pytest.mark.parametrize("role", [role for role in ROLES if role != OWNER])
async def test_in_the_root_workspace_only_owners_manage_workspaces(service: Service, root: Client, role: str) -> None:
    secret, channel = await secret_of(root, role), (await service.anonymous()).channel
    tenant = await own_workspace(await service.workspace())
    target = Target(
        **{name: "" for name in Target.__slots__ if name != "workspace_id"}, workspace_id=tenant.workspace_id
    )

    for name in ROOT_ONLY:
        answer = await call(channel, ROWS[name].request(target), secret=secret)
        assert answer.outcome == "ROLE_TOO_LOW", name
    seen = await call(channel, admin_service_pb2.GetWorkspaceRequest(workspace_id=tenant.workspace_id), secret=secret)
    assert seen.outcome == ("ROLE_TOO_LOW" if role == "VERIFIER" else "WORKSPACE_NOT_FOUND")


async def test_a_root_owner_creates_lists_disables_and_enables_workspaces(root: Client) -> None:
    made = await root.admin.CreateWorkspace(admin_service_pb2.CreateWorkspaceRequest())
    listed = await root.admin.ListWorkspaces(admin_service_pb2.ListWorkspacesRequest())
    wanted = workspace_pb2.Workspace(workspace_id=made.workspace.workspace_id, enabled=False)

    disabled = await root.admin.UpdateWorkspace(admin_service_pb2.UpdateWorkspaceRequest(workspace=wanted))
    wanted.enabled = True
    enabled = await root.admin.UpdateWorkspace(admin_service_pb2.UpdateWorkspaceRequest(workspace=wanted))

    assert made.owner_secret
    assert made.owner.role == management_key_pb2.ROLE_OWNER
    assert made.workspace.workspace_id in [workspace.workspace_id for workspace in listed.workspaces]
    assert (disabled.workspace.enabled, enabled.workspace.enabled) == (False, True)


async def test_only_a_root_owner_may_disable_a_workspace(service: Service, owner: Client) -> None:
    own = await own_workspace(owner)
    wanted = workspace_pb2.Workspace(workspace_id=own.workspace_id, enabled=False)

    refused = await rejection(owner.admin.UpdateWorkspace(admin_service_pb2.UpdateWorkspaceRequest(workspace=wanted)))

    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "ROLE_TOO_LOW")
    assert refused.info.metadata["role_needed"] == ROOT_OWNER


async def test_a_root_owner_may_not_change_the_name_or_settings_of_another_workspace(
    root: Client, owner: Client
) -> None:
    own = await own_workspace(owner)
    settings = workspace_pb2.WorkspaceSettings(default_prefix="taken")
    for wanted in (
        workspace_pb2.Workspace(workspace_id=own.workspace_id, name="taken over"),
        workspace_pb2.Workspace(workspace_id=own.workspace_id, settings=settings),
    ):
        request = admin_service_pb2.UpdateWorkspaceRequest(workspace=wanted)
        refused = await rejection(root.admin.UpdateWorkspace(request))
        assert refused.code is grpc.StatusCode.PERMISSION_DENIED
    assert await own_workspace(owner) == own


# Foreign ids


@pytest.mark.parametrize("role", ["VERIFIER", "VIEWER", "OWNER"])
async def test_a_foreign_id_answers_exactly_like_an_unknown_one(service: Service, owner: Client, role: str) -> None:
    foreign, unknown = await make_target(await service.workspace("other")), unknown_target()
    secret, channel = await secret_of(owner, role), (await service.anonymous()).channel
    rows = {name: row for name, row in ROWS.items() if name not in ("ListApis", "ListIdentities", "ListManagementKeys")}

    to_foreign = await in_parallel(
        {name: call(channel, row.request(foreign), secret=secret) for name, row in rows.items()}
    )
    to_unknown = await in_parallel(
        {name: call(channel, row.request(unknown), secret=secret) for name, row in rows.items()}
    )

    expected = {name: row.for_stranger if role in MAY[row.needed] else "ROLE_TOO_LOW" for name, row in rows.items()}
    assert outcomes(to_unknown) == expected
    assert outcomes(to_foreign) == expected
    told = {
        name: to_foreign[name].told(foreign.identifiers) == to_unknown[name].told(unknown.identifiers)
        for name in rows
        if name not in ("CreateApi", "ImportKeys")
    }
    assert [name for name, same in told.items() if not same] == []


async def test_a_root_owner_sees_nothing_inside_other_workspaces(service: Service, owner: Client) -> None:
    foreign, unknown = await make_target(owner), unknown_target()
    channel = (await service.anonymous()).channel
    visible = {"GetWorkspace", "UpdateWorkspace", "CreateWorkspace", "ListWorkspaces"}
    rows = {name: row for name, row in ROWS.items() if name not in visible}

    to_foreign = await in_parallel(
        {name: call(channel, row.request(foreign), secret=service.root_secret) for name, row in rows.items()}
    )

    assert outcomes(to_foreign) == {name: row.for_stranger for name, row in rows.items()}
    told = [answer.told(()) for name, answer in to_foreign.items() if answer.refusal is None and name != "ImportKeys"]
    said = str(told)
    assert [identifier for identifier in foreign.identifiers if identifier in said] == []
    lists = ("ListApis", "ListIdentities", "ListManagementKeys", "CreateApi", "ImportKeys")
    for name in rows.keys() - set(lists):
        to_unknown = await call(channel, rows[name].request(unknown), secret=service.root_secret)
        assert to_foreign[name].told(foreign.identifiers) == to_unknown.told(unknown.identifiers), name


async def test_items_that_name_something_foreign_fail_like_those_that_name_something_unknown(
    service: Service, owner: Client
) -> None:
    foreign, unknown = await make_target(await service.workspace("other")), unknown_target()
    channel = (await service.anonymous()).channel
    secret = await secret_of(owner, "DEVELOPER")
    reasons = []
    for target in (foreign, unknown):
        imported = (await call(channel, ROWS["ImportKeys"].request(target), secret=secret)).response
        reported = (await call(channel, ROWS["ReportUsage"].request(target), secret=secret)).response
        assert isinstance(imported, key_service_pb2.ImportKeysResponse)
        assert isinstance(reported, usage_service_pb2.ReportUsageResponse)
        assert reported.results[0].outcome == usage_service_pb2.USAGE_OUTCOME_REJECTED
        assert reported.results[0].reason == error_reason_pb2.ERROR_REASON_KEY_NOT_FOUND
        assert imported.results[0].error.code == grpc.StatusCode.NOT_FOUND.value[0]
        reasons.append((imported.results[0].error.message, reported.results[0].message))
    assert reasons[0] == reasons[1]


async def test_a_foreign_identity_is_unknown_by_its_external_id_too(service: Service, owner: Client) -> None:
    foreign = await make_target(await service.workspace("other"))
    request = admin_service_pb2.GetIdentityRequest(external_id=foreign.external_id)

    refused = await rejection(owner.admin.GetIdentity(request))

    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "IDENTITY_NOT_FOUND")


async def test_lists_and_reports_hold_only_the_caller_s_workspace(service: Service, owner: Client) -> None:
    own, foreign = await make_target(owner), await make_target(await service.workspace("other"))
    channel, secret = (await service.anonymous()).channel, await secret_of(owner, "OWNER")
    start, end = today()
    requests: list[Message] = [
        key_service_pb2.ListKeysRequest(show_deleted=True),
        key_service_pb2.ListEnvironmentsRequest(),
        admin_service_pb2.ListApisRequest(),
        admin_service_pb2.ListIdentitiesRequest(),
        admin_service_pb2.ListManagementKeysRequest(show_revoked=True),
        admin_service_pb2.ListAuditEventsRequest(page_size=1000),
        usage_service_pb2.ListUsageEventsRequest(),
        usage_service_pb2.QueryUsageRequest(
            start_time=start, end_time=end, group_by=[usage_pb2.USAGE_DIMENSION_KEY, usage_pb2.USAGE_DIMENSION_API]
        ),
    ]

    answers = await asyncio.gather(*(call(channel, request, secret=secret) for request in requests))

    said = "".join(str(answer.response) for answer in answers)
    assert [answer.code for answer in answers] == [OK] * len(requests)
    assert own.key_id in said
    assert [identifier for identifier in foreign.identifiers if identifier in said] == []


async def test_verify_says_nothing_but_not_found_of_a_foreign_key(service: Service, owner: Client) -> None:
    own, foreign = await make_target(owner), await make_target(await service.workspace("other"))
    asked = verify_service_pb2.VerifyRequest(explain=True)

    verdicts = [
        await owner.verify(foreign.secret, asked),
        await owner.verify(unknown_target().secret, asked),
        await owner.verify(own.secret, verify_service_pb2.VerifyRequest(explain=True, api_id=foreign.api_id)),
        await owner.verify(own.secret, verify_service_pb2.VerifyRequest(explain=True, api_id=own.empty_api_id)),
    ]

    for verdict in verdicts:
        assert verdict.code == verification_pb2.VERIFY_CODE_NOT_FOUND
        verdict.ClearField("decided_time")
    assert verdicts == [verdicts[0]] * len(verdicts)
    assert {descriptor.name for descriptor, _ in verdicts[0].ListFields()} == {"code", "message"}


# Api bindings


@pytest.mark.parametrize("lowest", [True, False], ids=["the least role", "OWNER"])
async def test_a_bound_caller_reaches_its_own_apis_and_no_others(service: Service, owner: Client, lowest: bool) -> None:
    inside, outside, unknown = await targets_for_all(owner), await targets_for_all(owner), unknown_target()
    channel = (await service.anonymous()).channel
    bound_to = [api_id for target in inside.values() for api_id in (target.api_id, target.empty_api_id)]
    callers = {role: await secret_of(owner, role, bound_to) for role in ROLES}
    needed = {name: row.needed if lowest else OWNER for name, row in ROWS.items()}
    needed |= {name: OWNER for name, role in needed.items() if role not in MAY[ROWS[name].needed]}

    outer = await in_parallel(
        {name: call(channel, row.request(outside[name]), secret=callers[needed[name]]) for name, row in ROWS.items()}
    )
    unknowns = await in_parallel(
        {name: call(channel, row.request(unknown), secret=callers[needed[name]]) for name, row in ROWS.items()}
    )
    inner = await in_parallel(
        {name: call(channel, row.request(inside[name]), secret=callers[needed[name]]) for name, row in ROWS.items()}
    )

    assert outcomes(outer) == {name: row.for_outside for name, row in ROWS.items()}
    assert outcomes(inner) == {name: row.for_bound for name, row in ROWS.items()}
    told = {
        name: outer[name].told(outside[name].identifiers) == unknowns[name].told(unknown.identifiers)
        for name, row in ROWS.items()
        if row.for_outside == row.for_stranger and not name.startswith(("List", "Create", "Import", "Get"))
    }
    assert [name for name, same in told.items() if not same] == []


async def test_a_key_outside_the_binding_is_looked_up_exactly_like_an_unknown_one(
    service: Service, owner: Client
) -> None:
    inside, outside, unknown = await make_target(owner), await make_target(owner), unknown_target()
    bound = await service.client(await secret_of(owner, "VIEWER", [inside.api_id]))

    refused = [
        await rejection(bound.keys.LookupKey(key_service_pb2.LookupKeyRequest(secret=secret)))
        for secret in (outside.secret, unknown.secret)
    ]

    assert refused[0].reason == "KEY_NOT_FOUND"
    assert refused[0].info == refused[1].info
    assert refused[0].message == refused[1].message


async def test_a_bound_caller_s_lists_and_reports_hold_only_its_apis(service: Service, owner: Client) -> None:
    inside, outside = await make_target(owner), await make_target(owner)
    bound = await service.client(await secret_of(owner, "VIEWER", [inside.api_id]))
    start, end = today()
    group_by = [usage_pb2.USAGE_DIMENSION_KEY]
    query = usage_service_pb2.QueryUsageRequest(start_time=start, end_time=end, group_by=group_by)

    keys = (await bound.keys.ListKeys(key_service_pb2.ListKeysRequest(show_deleted=True))).keys
    apis = (await bound.admin.ListApis(admin_service_pb2.ListApisRequest())).apis
    counts = (await bound.keys.ListEnvironments(key_service_pb2.ListEnvironmentsRequest())).environments
    used = await bound.usage.QueryUsage(query)
    events = (await bound.usage.ListUsageEvents(usage_service_pb2.ListUsageEventsRequest())).events

    assert {key.key_id for key in keys} == {inside.key_id, inside.deleted_key_id}
    assert [api.api_id for api in apis] == [inside.api_id]
    assert [count.key_count for count in counts] == [1]
    assert [row.group.key.key_id for row in used.rows] == [inside.key_id]
    assert used.totals.requests == 1
    assert [record.event.key_id for record in events] == [inside.key_id]
    assert outside.key_id not in str(events)


async def test_verify_and_report_know_only_the_keys_of_the_caller_s_apis(service: Service, owner: Client) -> None:
    inside, outside = await make_target(owner), await make_target(owner)
    bound = await service.client(await secret_of(owner, "VERIFIER", [inside.api_id]))

    verdicts = [(await bound.verify(target.secret)).code for target in (inside, outside)]
    reported = [(await report(bound, target.key_id)).outcome for target in (inside, outside)]

    assert verdicts == [verification_pb2.VERIFY_CODE_VALID, verification_pb2.VERIFY_CODE_NOT_FOUND]
    assert reported == [usage_service_pb2.USAGE_OUTCOME_NEW, usage_service_pb2.USAGE_OUTCOME_REJECTED]


async def test_a_bound_caller_must_name_one_of_its_apis_when_the_default_is_not_among_them(
    service: Service, owner: Client
) -> None:
    bound = await service.client(await secret_of(owner, "DEVELOPER", [await make_api(owner)]))

    refused = await rejection(bound.create_key())

    assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "API_BINDING")


async def test_a_binding_never_widens_when_its_apis_are_deleted(service: Service, owner: Client) -> None:
    other = await make_target(owner)
    api_id = await make_api(owner)
    bound = await service.client(await secret_of(owner, "ADMIN", [api_id]))

    await bound.admin.DeleteApi(admin_service_pb2.DeleteApiRequest(api_id=api_id))

    assert (await bound.keys.ListKeys(key_service_pb2.ListKeysRequest())).keys == []
    assert (await bound.verify(other.secret)).code == verification_pb2.VERIFY_CODE_NOT_FOUND
    refused = await rejection(bound.keys.GetKey(key_service_pb2.GetKeyRequest(key_id=other.key_id)))
    assert refused.reason == "KEY_NOT_FOUND"


# What one management key may do to another


def _management_calls(management_key_id: str, role: str, api_ids: Sequence[str]) -> dict[str, Message]:
    """Return a call of each kind that touches a management key of this role and binding, the final one last."""
    wanted = management_key_pb2.ManagementKey(role=Role.Value(f"ROLE_{role}"), api_ids=api_ids)
    edited = management_key_pb2.ManagementKey(management_key_id=management_key_id, name="edited")
    return {
        "create": admin_service_pb2.CreateManagementKeyRequest(management_key=wanted),
        "edit": admin_service_pb2.UpdateManagementKeyRequest(management_key=edited),
        "rotate": admin_service_pb2.RotateManagementKeyRequest(management_key_id=management_key_id),
        "revoke": admin_service_pb2.RevokeManagementKeyRequest(
            management_key_id=management_key_id, reason=key_pb2.REVOKE_REASON_OTHER
        ),
    }


@pytest.mark.parametrize("caller", ROLES)
async def test_a_management_key_may_touch_another_only_within_its_own_permissions(
    service: Service, owner: Client, caller: str
) -> None:
    secret, channel = await secret_of(owner, caller), (await service.anonymous()).channel
    for role in ROLES:
        other = await owner.create_management_key(Role.Value(f"ROLE_{role}"))
        expected = "ROLE_TOO_LOW" if caller not in MAY["ADMIN"] else OK.name
        if expected == OK.name and caller not in MAY[role] and role != caller:
            expected = "PERMISSIONS_EXCEEDED"
        for doing, request in _management_calls(other.management_key.management_key_id, role, ()).items():
            answer = await call(channel, request, secret=secret)
            assert answer.outcome == expected, f"{caller} {doing} {role}"
            if answer.refusal:
                assert answer.code is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("caller", ["ADMIN", "OWNER"])
async def test_a_management_key_may_be_promoted_only_up_to_the_caller_s_own_role(
    service: Service, owner: Client, caller: str
) -> None:
    client = await service.client(await secret_of(owner, caller))
    for role in ROLES:
        made = (await owner.create_management_key(Role.ROLE_VIEWER)).management_key
        wanted = management_key_pb2.ManagementKey(
            management_key_id=made.management_key_id, role=Role.Value(f"ROLE_{role}")
        )
        updating = client.admin.UpdateManagementKey(admin_service_pb2.UpdateManagementKeyRequest(management_key=wanted))
        if caller in MAY[role]:
            assert (await updating).management_key.role == wanted.role
        else:
            assert (await rejection(updating)).reason == "PERMISSIONS_EXCEEDED"


async def test_a_bound_management_key_may_touch_only_those_bound_within_its_own_apis(
    service: Service, owner: Client
) -> None:
    first, second, third = [await make_api(owner) for _ in range(3)]
    secret, channel = await secret_of(owner, "ADMIN", [first, second]), (await service.anonymous()).channel
    expected: list[tuple[tuple[str, ...], str]] = [
        ((first,), "OK"),
        ((first, second), "OK"),
        ((), "PERMISSIONS_EXCEEDED"),
        ((third,), "PERMISSIONS_EXCEEDED"),
        ((first, third), "PERMISSIONS_EXCEEDED"),
    ]
    for api_ids, outcome in expected:
        other = await owner.create_management_key(Role.ROLE_VERIFIER, api_ids)
        for doing, request in _management_calls(other.management_key.management_key_id, "VERIFIER", api_ids).items():
            assert (await call(channel, request, secret=secret)).outcome == outcome, f"{doing} {api_ids}"


async def test_a_bound_management_key_may_not_widen_the_binding_of_another(service: Service, owner: Client) -> None:
    own, other = await make_api(owner), await make_api(owner)
    bound = await service.client(await secret_of(owner, "ADMIN", [own]))
    made = (await bound.create_management_key(Role.ROLE_VIEWER, (own,))).management_key
    for api_ids in ([], [other], [own, other]):
        wanted = management_key_pb2.ManagementKey(management_key_id=made.management_key_id, api_ids=api_ids)
        mask = FieldMask(paths=["api_ids"])
        request = admin_service_pb2.UpdateManagementKeyRequest(management_key=wanted, update_mask=mask)
        assert (await rejection(bound.admin.UpdateManagementKey(request))).reason == "PERMISSIONS_EXCEEDED"


async def test_a_management_key_may_not_widen_itself(service: Service, owner: Client) -> None:
    made = await owner.create_management_key(Role.ROLE_ADMIN, (await make_api(owner),))
    admin = await service.client(made.secret)
    management_key_id = made.management_key.management_key_id
    for path, wanted in {
        "role": management_key_pb2.ManagementKey(role=management_key_pb2.ROLE_OWNER),
        "api_ids": management_key_pb2.ManagementKey(),
    }.items():
        wanted.management_key_id = management_key_id
        mask = FieldMask(paths=[path])
        request = admin_service_pb2.UpdateManagementKeyRequest(management_key=wanted, update_mask=mask)
        assert (await rejection(admin.admin.UpdateManagementKey(request))).reason == "PERMISSIONS_EXCEEDED"


# all_workspaces


async def _for_all_workspaces(client: Client, role: str = "VERIFIER") -> admin_service_pb2.CreateManagementKeyResponse:
    wanted = management_key_pb2.ManagementKey(role=Role.Value(f"ROLE_{role}"), all_workspaces=True)
    return await client.admin.CreateManagementKey(admin_service_pb2.CreateManagementKeyRequest(management_key=wanted))


async def test_only_a_root_owner_may_mint_an_all_workspaces_verifier(
    service: Service, root: Client, owner: Client
) -> None:
    root_admin = await service.client(await secret_of(root, "ADMIN"))
    bound_root = await service.client(await secret_of(root, "OWNER", [await make_api(root)]))

    assert (await _for_all_workspaces(root)).management_key.all_workspaces
    for client in (owner, root_admin, bound_root):
        refused = await rejection(_for_all_workspaces(client))
        assert (refused.code, refused.reason) == (grpc.StatusCode.PERMISSION_DENIED, "PERMISSIONS_EXCEEDED")


@pytest.mark.parametrize("role", [role for role in ROLES if role != "VERIFIER"])
async def test_all_workspaces_is_only_for_the_role_verifier(root: Client, role: str) -> None:
    refused = await rejection(_for_all_workspaces(root, role))

    assert refused.code is grpc.StatusCode.INVALID_ARGUMENT
    assert refused.fields == ["management_key.all_workspaces"]


async def test_an_all_workspaces_verifier_can_never_become_more_than_a_verifier(root: Client) -> None:
    made = (await _for_all_workspaces(root)).management_key
    for role in ROLES[1:]:
        wanted = management_key_pb2.ManagementKey(
            management_key_id=made.management_key_id, role=Role.Value(f"ROLE_{role}")
        )
        request = admin_service_pb2.UpdateManagementKeyRequest(management_key=wanted)
        refused = await rejection(root.admin.UpdateManagementKey(request))
        assert refused.code is grpc.StatusCode.INVALID_ARGUMENT


async def test_only_an_all_workspaces_verifier_resolves_keys_of_any_workspace(
    service: Service, root: Client, owner: Client
) -> None:
    targets = [await make_target(owner), await make_target(await service.workspace("other"))]
    everywhere = await service.client((await _for_all_workspaces(root)).secret)
    at_root = await service.client(await secret_of(root, "VERIFIER"))

    for target in targets:
        verdict = await everywhere.verify(target.secret)
        assert verdict.code == verification_pb2.VERIFY_CODE_VALID
        assert verdict.key.workspace_id == target.workspace_id
        for client in (root, at_root):
            assert (await client.verify(target.secret)).code == verification_pb2.VERIFY_CODE_NOT_FOUND


async def test_an_all_workspaces_verifier_reports_usage_in_its_own_workspace_only(
    service: Service, root: Client, owner: Client
) -> None:
    target = await make_target(owner)
    everywhere = await service.client((await _for_all_workspaces(root)).secret)

    result = await report(everywhere, target.key_id)

    assert result.outcome == usage_service_pb2.USAGE_OUTCOME_REJECTED
    assert result.reason == error_reason_pb2.ERROR_REASON_KEY_NOT_FOUND


# Disabled workspaces


async def test_in_a_disabled_workspace_reads_work_and_every_mutation_is_a_failed_precondition(
    service: Service, owner: Client
) -> None:
    targets = await targets_for_all(owner)
    secret, channel = await secret_of(owner, "OWNER"), (await service.anonymous()).channel
    await set_enabled(service, targets["GetKey"].workspace_id, False)

    answers = await in_parallel(
        {name: call(channel, row.request(targets[name]), secret=secret) for name, row in ROWS.items()}
    )

    assert outcomes(answers) == {
        name: "WORKSPACE_DISABLED" if name in MUTATIONS - ROOT_ONLY else row.done for name, row in ROWS.items()
    }
    for name in MUTATIONS - ROOT_ONLY:
        assert answers[name].code is grpc.StatusCode.FAILED_PRECONDITION


async def test_in_a_disabled_workspace_verify_answers_workspace_disabled_until_it_is_enabled(
    service: Service, root: Client, owner: Client
) -> None:
    target = await make_target(owner)
    everywhere = await service.client((await _for_all_workspaces(root)).secret)
    await set_enabled(service, target.workspace_id, False)

    for client in (owner, everywhere):
        assert (await client.verify(target.secret)).code == verification_pb2.VERIFY_CODE_WORKSPACE_DISABLED
    await set_enabled(service, target.workspace_id, True)

    assert (await owner.verify(target.secret)).code == verification_pb2.VERIFY_CODE_VALID
    assert (await owner.create_key()).secret


async def test_the_root_workspace_can_not_be_disabled(root: Client) -> None:
    own = await own_workspace(root)
    wanted = workspace_pb2.Workspace(workspace_id=own.workspace_id, enabled=False)

    refused = await rejection(root.admin.UpdateWorkspace(admin_service_pb2.UpdateWorkspaceRequest(workspace=wanted)))

    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ROOT_WORKSPACE")


# Credentials


@pytest.mark.parametrize(
    ("authorization", "reason"),
    [
        (None, "CREDENTIAL_MISSING"),
        ("", "CREDENTIAL_MISSING"),
        ("Bearer", "CREDENTIAL_MISSING"),
        ("Bearer ", "CREDENTIAL_MISSING"),
        ("Basic dXNlcjpwYXNz", "CREDENTIAL_MISSING"),
        ("lkm_0123456789", "CREDENTIAL_MISSING"),
        ("Bearer garbage", "CREDENTIAL_INVALID"),
        ("Bearer lkm_" + "A" * 38, "CREDENTIAL_INVALID"),
        ("Bearer " + "x" * 4000, "CREDENTIAL_INVALID"),
    ],
)
async def test_every_rpc_without_a_sound_credential_is_unauthenticated(
    service: Service, authorization: str | None, reason: str
) -> None:
    target, channel = unknown_target(), (await service.anonymous()).channel
    metadata = [] if authorization is None else [("authorization", authorization)]

    answers = await in_parallel(
        {name: call(channel, row.request(target), metadata=metadata) for name, row in ROWS.items()}
    )

    assert outcomes(answers) == dict.fromkeys(ROWS, reason)
    assert {answer.code for answer in answers.values()} == {grpc.StatusCode.UNAUTHENTICATED}


async def test_an_api_key_s_secret_is_no_credential_for_any_rpc(service: Service, owner: Client) -> None:
    target, channel = await make_target(owner), (await service.anonymous()).channel

    answers = await in_parallel(
        {name: call(channel, row.request(target), secret=target.secret) for name, row in ROWS.items()}
    )

    assert outcomes(answers) == dict.fromkeys(ROWS, "CREDENTIAL_INVALID")


async def test_a_management_key_s_secret_is_not_found_by_verify_lookup_and_key_service(owner: Client) -> None:
    made = await owner.create_management_key(Role.ROLE_VERIFIER)

    verdict = await owner.verify(made.secret)
    looked_up = await rejection(owner.keys.LookupKey(key_service_pb2.LookupKeyRequest(secret=made.secret)))
    as_key = made.management_key.management_key_id.replace("mk_", "key_")
    got = await rejection(owner.keys.GetKey(key_service_pb2.GetKeyRequest(key_id=as_key)))

    assert verdict.code == verification_pb2.VERIFY_CODE_NOT_FOUND
    assert (looked_up.code, looked_up.reason) == (grpc.StatusCode.NOT_FOUND, "KEY_NOT_FOUND")
    assert (got.code, got.reason) == (grpc.StatusCode.NOT_FOUND, "KEY_NOT_FOUND")


async def test_a_management_key_s_id_is_not_found_by_key_service(owner: Client) -> None:
    made = await owner.create_management_key(Role.ROLE_VERIFIER)
    request = key_service_pb2.GetKeyRequest(key_id=made.management_key.management_key_id)

    refused = await rejection(owner.keys.GetKey(request))

    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "KEY_NOT_FOUND")


async def _whoami(client: Client) -> str:
    """Return OK, or why a caller may not read its own workspace."""
    try:
        await own_workspace(client)
    except grpc.aio.AioRpcError:
        return (await rejection(own_workspace(client))).reason
    return OK.name


async def test_a_revoked_management_key_loses_access_at_once(service: Service, owner: Client) -> None:
    made = await owner.create_management_key(Role.ROLE_OWNER)
    client = await service.client(made.secret)
    assert await _whoami(client) == "OK"

    await owner.admin.RevokeManagementKey(
        admin_service_pb2.RevokeManagementKeyRequest(
            management_key_id=made.management_key.management_key_id, reason=key_pb2.REVOKE_REASON_MEMBER_LEFT
        )
    )

    assert await _whoami(client) == "CREDENTIAL_INVALID"


async def test_a_rotated_away_secret_loses_access_at_once_without_grace(service: Service, owner: Client) -> None:
    made = await owner.create_management_key(Role.ROLE_OWNER)
    management_key_id = made.management_key.management_key_id
    request = admin_service_pb2.RotateManagementKeyRequest(management_key_id=management_key_id)

    rotated = await owner.admin.RotateManagementKey(request)

    assert await _whoami(await service.client(made.secret)) == "CREDENTIAL_INVALID"
    assert await _whoami(await service.client(rotated.secret)) == "OK"


async def test_with_a_grace_the_old_secret_of_a_management_key_lasts_until_it_is_rotated_away(
    service: Service, owner: Client
) -> None:
    made = await owner.create_management_key(Role.ROLE_OWNER)
    request = admin_service_pb2.RotateManagementKeyRequest(
        management_key_id=made.management_key.management_key_id, grace=Duration(seconds=3600)
    )
    old = await service.client(made.secret)

    await owner.admin.RotateManagementKey(request)
    during = await _whoami(old)
    request.ClearField("grace")
    await owner.admin.RotateManagementKey(request)

    assert (during, await _whoami(old)) == ("OK", "CREDENTIAL_INVALID")


async def test_an_expired_management_key_loses_access_at_once(service: Service, owner: Client) -> None:
    made = await owner.create_management_key(Role.ROLE_OWNER)
    client = await service.client(made.secret)
    past = timestamp(datetime.now(UTC) - timedelta(seconds=1))
    wanted = management_key_pb2.ManagementKey(management_key_id=made.management_key.management_key_id, expire_time=past)

    await owner.admin.UpdateManagementKey(admin_service_pb2.UpdateManagementKeyRequest(management_key=wanted))

    assert await _whoami(client) == "CREDENTIAL_INVALID"


async def test_a_demoted_or_newly_bound_management_key_loses_access_at_once(service: Service, owner: Client) -> None:
    target, api_id = await make_target(owner), await make_api(owner)
    made = await owner.create_management_key(Role.ROLE_OWNER)
    client = await service.client(made.secret)
    wanted = management_key_pb2.ManagementKey(
        management_key_id=made.management_key.management_key_id,
        role=management_key_pb2.ROLE_VIEWER,
        api_ids=[api_id],
    )
    assert (await client.create_key()).secret

    await owner.admin.UpdateManagementKey(admin_service_pb2.UpdateManagementKeyRequest(management_key=wanted))

    assert (await rejection(client.create_key())).reason == "ROLE_TOO_LOW"
    refused = await rejection(client.keys.GetKey(key_service_pb2.GetKeyRequest(key_id=target.key_id)))
    assert refused.reason == "KEY_NOT_FOUND"


async def test_the_last_owner_can_be_neither_demoted_bound_ended_nor_revoked(owner: Client) -> None:
    keys = (await owner.admin.ListManagementKeys(admin_service_pb2.ListManagementKeysRequest())).management_keys
    (last,) = keys
    soon = timestamp(datetime.now(UTC) + timedelta(days=1))
    for wanted in (
        management_key_pb2.ManagementKey(role=management_key_pb2.ROLE_ADMIN),
        management_key_pb2.ManagementKey(api_ids=[await make_api(owner)]),
        management_key_pb2.ManagementKey(expire_time=soon),
    ):
        wanted.management_key_id = last.management_key_id
        request = admin_service_pb2.UpdateManagementKeyRequest(management_key=wanted)
        assert (await rejection(owner.admin.UpdateManagementKey(request))).reason == "LAST_OWNER"
    revoke = admin_service_pb2.RevokeManagementKeyRequest(
        management_key_id=last.management_key_id, reason=key_pb2.REVOKE_REASON_OTHER
    )
    assert (await rejection(owner.admin.RevokeManagementKey(revoke))).reason == "LAST_OWNER"


async def test_health_and_reflection_need_no_credential(service: Service) -> None:
    channel = (await service.anonymous()).channel
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    reflect = channel.stream_stream(
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )

    health = await check(health_pb2.HealthCheckRequest())
    listed = [answer async for answer in reflect(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))]

    assert health.status == health_pb2.HealthCheckResponse.SERVING
    names = {found.name for answer in listed for found in answer.list_services_response.service}
    assert {"latchkey.v1.KeyService", "latchkey.v1.AdminService"} <= names


async def test_the_scheme_is_read_without_regard_to_case(service: Service, owner: Client) -> None:
    secret, channel = await secret_of(owner, "VIEWER"), (await service.anonymous()).channel
    metadata = [("authorization", f"bearer {secret}")]

    answer = await call(channel, admin_service_pb2.ListApisRequest(), metadata=metadata)

    assert answer.outcome == "OK"


async def test_a_workspace_s_apis_keep_their_names_after_a_foreign_update(service: Service, owner: Client) -> None:
    other = await service.workspace("other")
    api = (await owner.admin.CreateApi(admin_service_pb2.CreateApiRequest(api=api_pb2.Api(name="mine")))).api
    wanted = api_pb2.Api(api_id=api.api_id, name=f"theirs-{secrets.token_hex(2)}")

    refused = await rejection(other.admin.UpdateApi(admin_service_pb2.UpdateApiRequest(api=wanted)))

    assert refused.reason == "API_NOT_FOUND"
    assert (await owner.admin.GetApi(admin_service_pb2.GetApiRequest(api_id=api.api_id))).api == api
