"""The floor: Verify answered with an empty message on our gRPC stack, nothing else. It ends with its standard input."""

import asyncio
import sys
from typing import Any

import grpc
import uvloop

from latchkey.v1 import verify_service_pb2 as pb
from latchkey_server.transport.grpc import server as transport


async def verify(request: pb.VerifyRequest, context: grpc.aio.ServicerContext[Any, Any]) -> pb.VerifyResponse:
    """Answer without looking at anything."""
    return pb.VerifyResponse()


async def serve(address: str) -> None:
    """Serve on ``address`` until standard input ends."""
    server = grpc.aio.server(options=transport.options(streams=128))
    handlers = {
        "Verify": grpc.unary_unary_rpc_method_handler(
            verify, pb.VerifyRequest.FromString, pb.VerifyResponse.SerializeToString
        )
    }
    # As our server registers its services, which is the cheapest way there is.
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("latchkey.v1.VerifyService", handlers)])
    server.add_insecure_port(address)
    await server.start()
    await asyncio.to_thread(sys.stdin.read)
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
