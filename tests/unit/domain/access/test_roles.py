"""Who may call what: roles, api bindings, and what one management key may do to another (spec §6)."""

import pytest

from latchkey.v1 import admin_service_pb2, key_service_pb2, usage_service_pb2, verify_service_pb2
from latchkey_server.domain.access import roles as access
from latchkey_server.domain.errors import ApiBinding, PermissionsExceeded, RoleTooLow
from latchkey_server.domain.model import Caller, Role
from tests.unit.builders import (
    API_ID,
    MANAGEMENT_KEY_ID,
    OTHER_API_ID,
    OTHER_WORKSPACE_ID,
    WORKSPACE_ID,
    make_caller,
    make_management_key,
    uuid_of,
)

VERIFYING = [
    "Verify",
    "BatchVerify",
    "VerifyStream",
    "WatchKeys",
    "ReleaseReservation",
    "ReportVerifications",
    "ReportUsage",
]
READING = [
    "GetKey",
    "ListKeys",
    "LookupKey",
    "ListEnvironments",
    "QueryUsage",
    "ListUsageEvents",
    "QueryVerifications",
    "GetWorkspace",
    "GetApi",
    "ListApis",
    "GetIdentity",
    "ListIdentities",
    "GetManagementKey",
    "ListManagementKeys",
]
KEEPING_KEYS = [
    "CreateKey",
    "UpdateKey",
    "RotateKey",
    "RevokeKey",
    "DeleteKey",
    "UndeleteKey",
    "ImportKeys",
    "AdjustCredits",
    "UpdateIdentity",
    "DeleteIdentity",
]
ADMINISTERING = [
    "CreateApi",
    "UpdateApi",
    "DeleteApi",
    "CreateManagementKey",
    "UpdateManagementKey",
    "RotateManagementKey",
    "RevokeManagementKey",
    "UpdateWorkspace",
    "ListAuditEvents",
]
OWNING = [
    "CreateWorkspace",
    "ListWorkspaces",
]

MAY = {
    Role.VERIFIER: {*VERIFYING},
    Role.VIEWER: {*READING},
    Role.DEVELOPER: {*VERIFYING, *READING, *KEEPING_KEYS},
    Role.ADMIN: {*VERIFYING, *READING, *KEEPING_KEYS, *ADMINISTERING},
    Role.OWNER: {*VERIFYING, *READING, *KEEPING_KEYS, *ADMINISTERING, *OWNING},
}
"""What the specification says that each role may do."""

METHODS = sorted(MAY[Role.OWNER])
SERVICES = (
    verify_service_pb2.DESCRIPTOR.services_by_name["VerifyService"],
    key_service_pb2.DESCRIPTOR.services_by_name["KeyService"],
    usage_service_pb2.DESCRIPTOR.services_by_name["UsageService"],
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
)


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("method", METHODS)
def test_each_role_may_do_what_the_specification_says_and_nothing_else(role: Role, method: str) -> None:
    caller = make_caller(role=role)

    if method in MAY[role]:
        access.require_role(caller, method)
    else:
        with pytest.raises(RoleTooLow):
            access.require_role(caller, method)


def test_every_method_of_every_service_has_its_roles() -> None:
    methods = sorted(method.name for service in SERVICES for method in service.methods)

    assert sorted(access.ROLES) == methods
    assert methods == METHODS


def test_a_method_that_is_not_listed_can_be_called_by_nobody() -> None:
    for role in Role:
        with pytest.raises(RoleTooLow):
            access.require_role(make_caller(role=role), "DropEverything")


@pytest.mark.parametrize(
    ("role", "method", "needed"),
    [
        (Role.VIEWER, "Verify", "VERIFIER"),
        (Role.VERIFIER, "GetKey", "VIEWER"),
        (Role.VERIFIER, "CreateKey", "DEVELOPER"),
        (Role.DEVELOPER, "CreateApi", "ADMIN"),
        (Role.ADMIN, "CreateWorkspace", "OWNER"),
    ],
)
def test_a_refusal_says_which_role_is_needed(role: Role, method: str, needed: str) -> None:
    with pytest.raises(RoleTooLow) as caught:
        access.require_role(make_caller(role=role), method)

    assert caught.value.details == {"role": role.name, "role_needed": needed}


def test_a_caller_covers_the_apis_of_its_binding_or_all() -> None:
    assert make_caller().covers_api(API_ID)
    assert make_caller(api_ids=frozenset({API_ID})).covers_api(API_ID)
    assert not make_caller(api_ids=frozenset({OTHER_API_ID})).covers_api(API_ID)


def test_what_concerns_the_whole_workspace_is_not_for_bound_callers() -> None:
    access.require_unbound(make_caller())
    with pytest.raises(ApiBinding):
        access.require_unbound(make_caller(api_ids=frozenset({API_ID})))


@pytest.mark.parametrize(
    ("root", "role", "bound", "allowed"),
    [(True, Role.OWNER, False, True), (True, Role.OWNER, True, False)]
    + [(True, role, False, False) for role in Role if role is not Role.OWNER]
    + [(False, role, False, False) for role in Role],
)
def test_only_an_unbound_owner_of_the_root_workspace_is_a_root_owner(
    root: bool, role: Role, bound: bool, allowed: bool
) -> None:
    caller = make_caller(root=root, role=role, api_ids=frozenset({API_ID} if bound else ()))

    assert caller.root_owner is allowed
    if allowed:
        access.require_root_owner(caller)
    else:
        with pytest.raises(RoleTooLow):
            access.require_root_owner(caller)


A, B, C = uuid_of(101), uuid_of(102), uuid_of(103)
BINDINGS = [frozenset(apis) for apis in ((), (A,), (B,), (A, B), (A, B, C))]


@pytest.mark.parametrize("role", [Role.ADMIN, Role.OWNER])
@pytest.mark.parametrize("target", list(Role))
@pytest.mark.parametrize("own", range(len(BINDINGS)))
def test_a_management_key_reaches_only_those_within_its_role_and_binding(role: Role, target: Role, own: int) -> None:
    everything = {A, B, C, uuid_of(104)}
    caller = make_caller(role=role, api_ids=BINDINGS[own])

    for api_ids in BINDINGS:
        within = (target is not Role.OWNER or role is Role.OWNER) and (api_ids or everything) <= (
            caller.api_ids or everything
        )
        if within:
            access.require_within(caller, target, api_ids)
        else:
            with pytest.raises(PermissionsExceeded):
                access.require_within(caller, target, api_ids)


@pytest.mark.parametrize("root", [True, False])
@pytest.mark.parametrize("role", [Role.ADMIN, Role.OWNER])
@pytest.mark.parametrize("bound", [True, False])
def test_only_a_root_owner_reaches_a_verifier_of_all_workspaces(root: bool, role: Role, bound: bool) -> None:
    api_ids = frozenset({A} if bound else ())
    caller = make_caller(root=root, role=role, api_ids=api_ids)

    if root and role is Role.OWNER and not bound:
        access.require_within(caller, Role.VERIFIER, api_ids, all_workspaces=True)
    else:
        with pytest.raises(PermissionsExceeded):
            access.require_within(caller, Role.VERIFIER, api_ids, all_workspaces=True)


def test_a_caller_has_everything_that_its_management_key_has() -> None:
    management_key = make_management_key(
        role=Role.VERIFIER, member="ada", api_ids=frozenset({API_ID}), all_workspaces=True
    )

    assert access.caller_of(management_key, root=True) == Caller(
        workspace_id=WORKSPACE_ID,
        management_key_id=MANAGEMENT_KEY_ID,
        role=Role.VERIFIER,
        member="ada",
        api_ids=frozenset({API_ID}),
        all_workspaces=True,
        root=True,
    )
    assert access.caller_of(management_key, root=True).workspace_id != OTHER_WORKSPACE_ID
