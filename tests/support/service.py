"""A real server on a real database, and typed clients of it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
from google.rpc import error_details_pb2, status_pb2
from pydantic import SecretStr

from latchkey.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    key_pb2,
    key_service_pb2,
    key_service_pb2_grpc,
    management_key_pb2,
    usage_service_pb2_grpc,
    verification_pb2,
    verify_service_pb2,
    verify_service_pb2_grpc,
    workspace_pb2,
)
from latchkey_server.app import build_workspaces, running_server
from latchkey_server.domain.store import Clock
from latchkey_server.opening import utc_now
from latchkey_server.settings import Settings

Request = TypeVar("Request")
Response = TypeVar("Response")

PEPPERS = "test:dGVzdCBwZXBwZXIsIG5vdCBhIHNlY3JldA=="


class Bearer(grpc.aio.UnaryUnaryClientInterceptor):
    """Sends a credential with every call."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    async def intercept_unary_unary(
        self,
        continuation: Callable[
            [grpc.aio.ClientCallDetails, Request], Awaitable[grpc.aio.UnaryUnaryCall[Request, Response]]
        ],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Request,
    ) -> Response | grpc.aio.UnaryUnaryCall[Request, Response]:
        metadata = client_call_details.metadata or grpc.aio.Metadata()
        metadata.add("authorization", f"Bearer {self._secret}")
        details = grpc.aio.ClientCallDetails(
            client_call_details.method,
            client_call_details.timeout,
            metadata,
            client_call_details.credentials,
            client_call_details.wait_for_ready,
        )
        return await continuation(details, request)


class Client:
    """The stubs of one caller, with the calls that most tests begin with."""

    def __init__(self, channel: grpc.aio.Channel, secret: str = "") -> None:
        self.channel = channel
        self.secret = secret
        self.keys = key_service_pb2_grpc.KeyServiceStub(channel)
        self.verifier = verify_service_pb2_grpc.VerifyServiceStub(channel)
        self.usage = usage_service_pb2_grpc.UsageServiceStub(channel)
        self.admin = admin_service_pb2_grpc.AdminServiceStub(channel)

    async def create_key(self, key: key_pb2.Key | None = None) -> key_service_pb2.CreateKeyResponse:
        """Create a key."""
        return await self.keys.CreateKey(key_service_pb2.CreateKeyRequest(key=key))

    async def verify(
        self, secret: str, asked: verify_service_pb2.VerifyRequest | None = None
    ) -> verification_pb2.Verification:
        """Verify a secret; ``asked`` holds the further fields of the request."""
        request = verify_service_pb2.VerifyRequest(key=secret)
        if asked is not None:
            request.MergeFrom(asked)
        return (await self.verifier.Verify(request)).verification

    async def create_management_key(
        self, role: management_key_pb2.Role.ValueType, api_ids: tuple[str, ...] = ()
    ) -> admin_service_pb2.CreateManagementKeyResponse:
        """Create a management key."""
        wanted = management_key_pb2.ManagementKey(role=role, api_ids=api_ids)
        request = admin_service_pb2.CreateManagementKeyRequest(management_key=wanted)
        return await self.admin.CreateManagementKey(request)


@dataclass(slots=True)
class Service:
    """A running server and the secret of its root OWNER."""

    address: str
    root_secret: str
    dsn: str
    _stack: AsyncExitStack = field(repr=False)

    async def client(self, secret: str) -> Client:
        """Return a client that sends ``secret``; it is closed with the service."""
        channel = grpc.aio.insecure_channel(self.address, interceptors=[Bearer(secret)])
        return Client(await self._stack.enter_async_context(channel), secret)

    async def anonymous(self) -> Client:
        """Return a client that sends no credential."""
        return Client(await self._stack.enter_async_context(grpc.aio.insecure_channel(self.address)))

    async def workspace(self, name: str = "tenant") -> Client:
        """Make a workspace and return a client of its first OWNER."""
        root = await self.client(self.root_secret)
        request = admin_service_pb2.CreateWorkspaceRequest(workspace=workspace_pb2.Workspace(name=name))
        return await self.client((await root.admin.CreateWorkspace(request)).owner_secret)


def settings_for(dsn: str) -> Settings:
    """Return the settings of a server under test."""
    return Settings(
        listen="127.0.0.1:0",
        database_url=SecretStr(dsn),
        peppers=SecretStr(PEPPERS),
        stop_grace=1.0,
        pool_size=8,
    )


@asynccontextmanager
async def serving(dsn: str, clock: Clock = utc_now, settings: Settings | None = None) -> AsyncIterator[Service]:
    """Serve on a fresh, migrated database in this process until the context is left."""
    async with running_server(settings or settings_for(dsn), clock) as running, AsyncExitStack() as stack:
        secret = await build_workspaces(running.storage, clock).bootstrap()
        yield Service(running.address, secret or "", dsn, stack)


class Rejection:
    """The status of a failed call."""

    def __init__(self, error: grpc.aio.AioRpcError) -> None:
        self.code = error.code()
        self.message = error.details() or ""
        self.trailer = dict(error.trailing_metadata())
        self.status = status_pb2.Status()
        packed = self.trailer.get("grpc-status-details-bin", b"")
        self.status.ParseFromString(packed if isinstance(packed, bytes) else b"")
        self.info = error_details_pb2.ErrorInfo()
        self.bad_request = error_details_pb2.BadRequest()
        self.retry_info = error_details_pb2.RetryInfo()
        self.request_info = error_details_pb2.RequestInfo()
        for detail in self.status.details:
            for known in (self.info, self.bad_request, self.retry_info, self.request_info):
                if detail.Is(known.DESCRIPTOR):
                    detail.Unpack(known)

    @property
    def reason(self) -> str:
        """The ErrorReason without its prefix."""
        return self.info.reason.removeprefix("ERROR_REASON_")

    @property
    def fields(self) -> list[str]:
        """The fields that were violated."""
        return [violation.field for violation in self.bad_request.field_violations]


async def rejection(call: Awaitable[object]) -> Rejection:
    """Return the status of a call that must fail."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        return Rejection(error)
    raise AssertionError(f"the call succeeded: {answer}")
