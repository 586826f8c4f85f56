"""What the servers know: a workspace, a VERIFIER, and keys imported by the SHA-256 of their secrets."""

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import grpc

from latchkey.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    key_pb2,
    key_service_pb2,
    key_service_pb2_grpc,
    management_key_pb2,
    workspace_pb2,
)
from latchkey.v1 import verify_service_pb2 as pb
from tests.bench.servers import BenchError

IMPORT_MAX = 1_000
VERIFIERS = 3
SCOPES_A_KEY = 10
SCOPES = tuple(f"{noun}.{verb}" for noun in ("docs", "chat", "files", "models", "batches") for verb in range(20))

Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Keys:
    """Imported keys, the secret and the id of each; none was verified yet unless a case did so."""

    secrets: Sequence[str]
    key_ids: Sequence[str]

    def requests(self) -> list[bytes]:
        """Return a serialised VerifyRequest for each."""
        return [pb.VerifyRequest(key=secret).SerializeToString() for secret in self.secrets]

    def part(self, start: int, stop: int) -> "Keys":
        """Return the keys from ``start`` up to ``stop``."""
        return Keys(self.secrets[start:stop], self.key_ids[start:stop])


@dataclass(frozen=True, slots=True)
class Seed:
    """The credentials of a workspace: its first OWNER's and some VERIFIERs'."""

    owner: Metadata
    verifiers: tuple[Metadata, ...]

    @property
    def verifier(self) -> Metadata:
        """The first VERIFIER's."""
        return self.verifiers[0]


async def seed(address: str, root_secret: str) -> Seed:
    """Make a workspace and VERIFIERs in it."""
    async with grpc.aio.insecure_channel(address) as channel:
        admin = admin_service_pb2_grpc.AdminServiceStub(channel)
        workspace = workspace_pb2.Workspace(name="bench")
        created = await admin.CreateWorkspace(
            admin_service_pb2.CreateWorkspaceRequest(workspace=workspace), metadata=_bearer(root_secret)
        )
        owner = _bearer(created.owner_secret)
        wanted = management_key_pb2.ManagementKey(role=management_key_pb2.ROLE_VERIFIER)
        request = admin_service_pb2.CreateManagementKeyRequest(management_key=wanted)
        made = [await admin.CreateManagementKey(request, metadata=owner) for _ in range(VERIFIERS)]
        return Seed(owner, tuple(_bearer(verifier.secret) for verifier in made))


async def import_keys(address: str, owner: Metadata, count: int, name: str, labels: Sequence[str] = ("prod",)) -> Keys:
    """Import ``count`` keys, each with 10 of 100 scopes and a small metadata; ``name`` sets their secrets apart.

    They carry the labels in turn.
    """
    secrets = [f"{name}_{number:032d}" for number in range(count)]
    key_ids: list[str] = []
    async with grpc.aio.insecure_channel(address) as channel:
        keys = key_service_pb2_grpc.KeyServiceStub(channel)
        for start in range(0, count, IMPORT_MAX):
            part = secrets[start : start + IMPORT_MAX]
            items = [_item(at, secret, labels[at % len(labels)]) for at, secret in enumerate(part, start)]
            request = key_service_pb2.ImportKeysRequest(items=items)
            answer = await keys.ImportKeys(request, metadata=owner, timeout=60)
            key_ids += [result.key_id for result in answer.results]
            await asyncio.sleep(0)
    if not all(key_ids):
        raise BenchError("a key was not imported")
    return Keys(secrets, key_ids)


def _item(number: int, secret: str, label: str) -> key_service_pb2.ImportKeyItem:
    key = key_pb2.Key(name=f"bench {number}", environment=label)
    key.scopes.extend(SCOPES[(number * 7 + at * 11) % len(SCOPES)] for at in range(SCOPES_A_KEY))
    key.metadata.update({"customer": f"customer-{number}", "plan": "pro", "seats": number % 50})
    return key_service_pb2.ImportKeyItem(key=key, secret_sha256=hashlib.sha256(secret.encode()).digest())


def _bearer(secret: str) -> Metadata:
    return (("authorization", f"Bearer {secret}"),)
