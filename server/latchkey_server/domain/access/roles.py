"""Who may call what (spec §6): roles, api bindings, and what one management key may do to another."""

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from latchkey_server.domain import errors
from latchkey_server.domain.model import Caller, ManagementKey, Role

_VERIFIERS: Final = frozenset({Role.VERIFIER, Role.DEVELOPER, Role.ADMIN, Role.OWNER})
_VIEWERS: Final = frozenset({Role.VIEWER, Role.DEVELOPER, Role.ADMIN, Role.OWNER})
_DEVELOPERS: Final = frozenset({Role.DEVELOPER, Role.ADMIN, Role.OWNER})
_ADMINS: Final = frozenset({Role.ADMIN, Role.OWNER})
_OWNERS: Final = frozenset({Role.OWNER})

ROLES: Final[Mapping[str, frozenset[Role]]] = {
    "Verify": _VERIFIERS,
    "BatchVerify": _VERIFIERS,
    "VerifyStream": _VERIFIERS,
    "WatchKeys": _VERIFIERS,
    "ReleaseReservation": _VERIFIERS,
    "ReportVerifications": _VERIFIERS,
    "ReportUsage": _VERIFIERS,
    "QueryUsage": _VIEWERS,
    "ListUsageEvents": _VIEWERS,
    "QueryVerifications": _VIEWERS,
    "GetKey": _VIEWERS,
    "ListKeys": _VIEWERS,
    "LookupKey": _VIEWERS,
    "ListEnvironments": _VIEWERS,
    "CreateKey": _DEVELOPERS,
    "UpdateKey": _DEVELOPERS,
    "RotateKey": _DEVELOPERS,
    "RevokeKey": _DEVELOPERS,
    "DeleteKey": _DEVELOPERS,
    "UndeleteKey": _DEVELOPERS,
    "ImportKeys": _DEVELOPERS,
    "AdjustCredits": _DEVELOPERS,
    "GetWorkspace": _VIEWERS,
    "GetApi": _VIEWERS,
    "ListApis": _VIEWERS,
    "GetIdentity": _VIEWERS,
    "ListIdentities": _VIEWERS,
    "UpdateIdentity": _DEVELOPERS,
    "DeleteIdentity": _DEVELOPERS,
    "GetManagementKey": _VIEWERS,
    "ListManagementKeys": _VIEWERS,
    "CreateApi": _ADMINS,
    "UpdateApi": _ADMINS,
    "DeleteApi": _ADMINS,
    "CreateManagementKey": _ADMINS,
    "UpdateManagementKey": _ADMINS,
    "RotateManagementKey": _ADMINS,
    "RevokeManagementKey": _ADMINS,
    "UpdateWorkspace": _ADMINS,
    "ListAuditEvents": _ADMINS,
    "CreateWorkspace": _OWNERS,
    "ListWorkspaces": _OWNERS,
}
"""The roles that may call each method; nobody may call a method that is not here."""

METHODS: Final[Mapping[Role, frozenset[str]]] = {
    role: frozenset(method for method, roles in ROLES.items() if role in roles) for role in Role
}
"""The methods that each role may call."""


def require_role(caller: Caller, method: str) -> None:
    """Raise RoleTooLow unless the caller's role allows ``method``."""
    allowed = ROLES.get(method, frozenset())
    if caller.role not in allowed:
        raise errors.RoleTooLow(caller.role.name, min(allowed).name if allowed else "no role")


def require_unbound(caller: Caller) -> None:
    """Raise ApiBinding for a caller that is bound to some apis."""
    if caller.api_ids:
        raise errors.ApiBinding()


def require_root_owner(caller: Caller) -> None:
    """Raise RoleTooLow unless the caller is an OWNER of the root workspace."""
    if not caller.root_owner:
        raise errors.RoleTooLow(caller.role.name, "OWNER of the root workspace")


def require_within(caller: Caller, role: Role, api_ids: frozenset[UUID], all_workspaces: bool = False) -> None:
    """Raise PermissionsExceeded unless a key with these permissions lies within the caller's own.

    Only ADMINs and OWNERs get here, so that roles compare by rank; an empty binding is the widest.
    """
    exceeds_binding = bool(caller.api_ids) and (not api_ids or not api_ids <= caller.api_ids)
    if role > caller.role or exceeds_binding or (all_workspaces and not caller.root_owner):
        raise errors.PermissionsExceeded(caller.role.name, role.name)


def caller_of(management_key: ManagementKey, root: bool) -> Caller:
    """Return the caller that a valid credential stands for."""
    return Caller(
        workspace_id=management_key.workspace_id,
        management_key_id=management_key.management_key_id,
        role=management_key.role,
        member=management_key.member,
        api_ids=management_key.api_ids,
        all_workspaces=management_key.all_workspaces,
        root=root,
    )
