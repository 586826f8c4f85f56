"""Health by service name, as load balancers and grpcurl ask for it."""

from collections.abc import Mapping
from typing import Final

from grpc_health.v1 import health_pb2
from grpc_health.v1.health import aio as health_aio

SERVICES: Final = (
    "",
    "latchkey.v1.KeyService",
    "latchkey.v1.VerifyService",
    "latchkey.v1.UsageService",
    "latchkey.v1.AdminService",
)

STALE_SERVICES: Final = frozenset({"", "latchkey.v1.VerifyService"})
"""What goes on for a while when the database is not reachable."""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """The state that the health service answers with; NOT_SERVING until told otherwise."""

    def __init__(self) -> None:
        self.servicer = health_aio.HealthServicer()
        self._told: dict[str, bool] = {}

    async def set(self, serving: Mapping[str, bool]) -> None:
        """Say of each named service whether it is serving."""
        for service, is_serving in serving.items():
            if self._told.get(service) is not is_serving:
                self._told[service] = is_serving
                await self.servicer.set(service, _SERVING if is_serving else _NOT_SERVING)

    async def set_all(self, serving: bool) -> None:
        """Say the same of every service."""
        await self.set(dict.fromkeys(SERVICES, serving))

    async def stop(self) -> None:
        """Say NOT_SERVING of everything, for good."""
        await self.servicer.enter_graceful_shutdown()
