"""Resources of a workspace that calls can be aimed at."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from latchkey.v1 import (
    admin_service_pb2,
    api_pb2,
    identity_pb2,
    key_pb2,
    key_service_pb2,
    management_key_pb2,
    usage_pb2,
    usage_service_pb2,
    workspace_pb2,
)
from tests.support.service import Client, Service

Role = management_key_pb2.Role

_BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"


@dataclass(frozen=True, slots=True)
class Target:
    """What one call is aimed at."""

    key_id: str
    secret: str
    deleted_key_id: str
    api_id: str
    empty_api_id: str
    identity_id: str
    unused_identity_id: str
    external_id: str
    management_key_id: str
    workspace_id: str

    @property
    def identifiers(self) -> tuple[str, ...]:
        """Every id in it, and the texts that name things."""
        return (
            self.key_id,
            self.secret,
            self.deleted_key_id,
            self.api_id,
            self.empty_api_id,
            self.identity_id,
            self.unused_identity_id,
            self.external_id,
            self.management_key_id,
            self.workspace_id,
        )


def random_id(prefix: str) -> str:
    """Return a well-formed id that nothing has."""
    return f"{prefix}_0{''.join(secrets.choice(_BASE32) for _ in range(25))}"


def unknown_target() -> Target:
    """Return a target of which nothing exists."""
    return Target(
        key_id=random_id("key"),
        secret=f"sk_{secrets.token_hex(19)}",
        deleted_key_id=random_id("key"),
        api_id=random_id("api"),
        empty_api_id=random_id("api"),
        identity_id=random_id("idn"),
        unused_identity_id=random_id("idn"),
        external_id=f"unknown-{secrets.token_hex(4)}",
        management_key_id=random_id("mk"),
        workspace_id=random_id("ws"),
    )


async def make_api(owner: Client) -> str:
    """Make an api and return its id."""
    request = admin_service_pb2.CreateApiRequest(api=api_pb2.Api(name="made"))
    return (await owner.admin.CreateApi(request)).api.api_id


async def make_identity(owner: Client, external_id: str) -> str:
    """Make an identity and return its id."""
    wanted = identity_pb2.Identity(external_id=external_id)
    request = admin_service_pb2.UpdateIdentityRequest(identity=wanted, allow_missing=True)
    return (await owner.admin.UpdateIdentity(request)).identity.identity_id


async def make_target(owner: Client, api_id: str | None = None) -> Target:
    """Make one of everything, the key and the management key in and bound to an api, a new one unless given."""
    bound_to = api_id or await make_api(owner)
    external_id = f"customer-{secrets.token_hex(4)}"
    wanted = key_pb2.Key(api_id=bound_to, external_id=external_id, credits=key_pb2.Credits(amount=10))
    made = await owner.create_key(wanted)
    deleted = await owner.create_key(key_pb2.Key(api_id=bound_to))
    await owner.keys.DeleteKey(key_service_pb2.DeleteKeyRequest(key_id=deleted.key.key_id))
    await report(owner, made.key.key_id)
    management_key = await owner.create_management_key(Role.ROLE_VIEWER, (bound_to,))
    return Target(
        key_id=made.key.key_id,
        secret=made.secret,
        deleted_key_id=deleted.key.key_id,
        api_id=bound_to,
        empty_api_id=await make_api(owner),
        identity_id=made.key.identity_id,
        unused_identity_id=await make_identity(owner, f"unused-{secrets.token_hex(4)}"),
        external_id=external_id,
        management_key_id=management_key.management_key.management_key_id,
        workspace_id=made.key.workspace_id,
    )


def usage_event(key_id: str) -> usage_pb2.UsageEvent:
    """Return a usage event of a key, of this moment and with an identity of its own."""
    return usage_pb2.UsageEvent(
        source="matrix",
        event_id=secrets.token_hex(8),
        key_id=key_id,
        type=usage_pb2.USAGE_TYPE_CONSUME,
        model="small",
        occurred_time=timestamp(datetime.now(UTC)),
    )


async def report(client: Client, key_id: str) -> usage_service_pb2.UsageEventResult:
    """Report one usage event and return what became of it."""
    request = usage_service_pb2.ReportUsageRequest(events=[usage_event(key_id)])
    return (await client.usage.ReportUsage(request)).results[0]


def timestamp(instant: datetime) -> Timestamp:
    """Return an instant as a Timestamp."""
    return Timestamp(seconds=int(instant.timestamp()))


def today() -> tuple[Timestamp, Timestamp]:
    """Return a range of whole days around now."""
    midnight = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return timestamp(midnight - timedelta(days=1)), timestamp(midnight + timedelta(days=2))


def random_sha256() -> bytes:
    """Return the SHA-256 of a secret that nobody has."""
    return hashlib.sha256(secrets.token_bytes(16)).digest()


async def set_enabled(service: Service, workspace_id: str, enabled: bool) -> None:
    """Switch a workspace on or off as the root OWNER."""
    root = await service.client(service.root_secret)
    wanted = workspace_pb2.Workspace(workspace_id=workspace_id, enabled=enabled)
    request = admin_service_pb2.UpdateWorkspaceRequest(workspace=wanted, update_mask=FieldMask(paths=["enabled"]))
    await root.admin.UpdateWorkspace(request)


async def own_workspace(client: Client) -> workspace_pb2.Workspace:
    """Return a caller's workspace."""
    return (await client.admin.GetWorkspace(admin_service_pb2.GetWorkspaceRequest())).workspace
