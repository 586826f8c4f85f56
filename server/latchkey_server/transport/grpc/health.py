"""Health by service name, as load balancers and grpcurl ask for it."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVICES: Final = (
    "",
    "latchkey.v1.KeyService",
    "latchkey.v1.VerifyService",
    "latchkey.v1.UsageService",
    "latchkey.v1.AdminService",
)

STALE_SERVICES: Final = frozenset({"", "latchkey.v1.VerifyService"})
"""Services that go on for a while when the database is not reachable."""

ServicerContext = grpc.aio.ServicerContext[Any, Any]
Response = health_pb2.HealthCheckResponse


class Health:
    """The state that the health service answers with; NOT_SERVING until it is set."""

    def __init__(self) -> None:
        self.servicer = HealthServicer()

    async def set(self, serving: Mapping[str, bool]) -> None:
        """Set whether each of the named services is serving."""
        self.servicer.set(serving)

    async def set_all(self, serving: bool) -> None:
        """Set the same for every service."""
        await self.set(dict.fromkeys(SERVICES, serving))

    def leave(self) -> None:
        """Set everything NOT_SERVING for good."""
        self.servicer.set(dict.fromkeys(SERVICES, False))
        self.servicer.settle()

    async def stop(self) -> None:
        """Set everything NOT_SERVING for good, and end every watch, so that no stop has to wait for one."""
        self.leave()
        self.servicer.end()


class HealthServicer(health_pb2_grpc.HealthServicer):
    """Answers grpc.health.v1 and ends its watches at a stop; gRPC's own also forgets watchers when another leaves."""

    def __init__(self) -> None:
        self._serving: dict[str, bool] = {}
        self._settled = self._ended = False
        self._changed = asyncio.Event()

    def set(self, serving: Mapping[str, bool]) -> None:
        """Answer this from now on, unless the state is settled."""
        if not self._settled:
            self._serving |= serving
            self._wake()

    def settle(self) -> None:
        """Let the state be the last."""
        self._settled = True

    def end(self) -> None:
        """Send every watcher the last state, and end its watch."""
        self._ended = True
        self._wake()

    async def Check(self, request: health_pb2.HealthCheckRequest, context: ServicerContext) -> Response:
        if request.service not in self._serving:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return Response(status=self._status(request.service))

    async def Watch(self, request: health_pb2.HealthCheckRequest, context: ServicerContext) -> AsyncIterator[Response]:
        sent = None
        while True:
            changed, status, ended = self._changed, self._status(request.service), self._ended
            if status != sent:
                yield Response(status=status)
            if ended:
                return
            sent = status
            await changed.wait()

    def _status(self, service: str) -> int:
        if service not in self._serving:
            return Response.SERVICE_UNKNOWN
        return Response.SERVING if self._serving[service] else Response.NOT_SERVING

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
