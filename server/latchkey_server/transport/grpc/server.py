"""The gRPC server: services, reflection, health, and what limits a connection."""

import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, cast

import grpc
from grpc_channelz.v1 import channelz, channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from latchkey.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    key_service_pb2,
    key_service_pb2_grpc,
    usage_service_pb2,
    usage_service_pb2_grpc,
    verify_service_pb2,
)
from latchkey_server.transport.convert.client_report import read_verifications
from latchkey_server.transport.convert.key import read_import
from latchkey_server.transport.convert.usage import read_usage
from latchkey_server.transport.grpc.admin_servicer import AdminServicer
from latchkey_server.transport.grpc.health import Health
from latchkey_server.transport.grpc.key_servicer import KeyServicer
from latchkey_server.transport.grpc.reflection import Reflection
from latchkey_server.transport.grpc.stack import Stack
from latchkey_server.transport.grpc.usage_servicer import UsageServicer
from latchkey_server.transport.grpc.verify_servicer import VerifyServicer
from latchkey_server.transport.sized import MESSAGE_MAX, Read

CONNECTION_GRACE_SECONDS: Final = 300

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_MAX),
    ("grpc.max_send_message_length", MESSAGE_MAX),
    # Balancing is per connection: a connection ends now and then, so that new servers get their share. Streams that
    # began before have ended by themselves when the grace is over.
    ("grpc.max_connection_age_ms", 300_000),
    ("grpc.max_connection_age_grace_ms", CONNECTION_GRACE_SECONDS * 1_000),
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # No stricter than what clients are advised to send, else they are cut off with too_many_pings.
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


BATCH_READERS: Final[Mapping[str, Read]] = {
    "/latchkey.v1.KeyService/ImportKeys": read_import,
    "/latchkey.v1.UsageService/ReportUsage": read_usage,
    "/latchkey.v1.VerifyService/ReportVerifications": read_verifications,
}
"""What reads the requests that hold many entries, which are parsed one by one."""


def options(streams: int, port_shared: bool = False) -> list[tuple[str, int]]:
    """Return the options that limit connections; ``streams`` is how many calls one may have at a time."""
    # On by default in gRPC: two servers by mistake on one port would share the traffic, without an error.
    return [*_OPTIONS, ("grpc.max_concurrent_streams", streams), ("grpc.so_reuseport", int(port_shared))]


@dataclass(frozen=True, slots=True)
class Services:
    """What the server answers with."""

    keys: KeyServicer
    verify: VerifyServicer
    usage: UsageServicer
    admin: AdminServicer


@dataclass(frozen=True, slots=True)
class Tls:
    """Where the server's certificate is; with ``client_ca`` clients must show one that it signed."""

    certificate: Path
    private_key: Path
    client_ca: Path | None = None


def build_server(
    services: Services,
    stack: Stack,
    fast_methods: Sequence[grpc.GenericRpcHandler],
    health: Health,
    *,
    channelz_on: bool,
    streams: int,
    port_shared: bool = False,
) -> grpc.aio.Server:
    """Return a server with every service registered, not started; the workers of one parent share their port."""
    # To be added, a service needs no more of a server than the stack has.
    generic = cast(grpc.aio.Server, stack)
    key_service_pb2_grpc.add_KeyServiceServicer_to_server(services.keys, generic)
    stack.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("latchkey.v1.VerifyService", dict(services.verify.handlers())),)
    )
    usage_service_pb2_grpc.add_UsageServiceServicer_to_server(services.usage, generic)
    admin_service_pb2_grpc.add_AdminServiceServicer_to_server(services.admin, generic)
    health_pb2_grpc.add_HealthServicer_to_server(health.servicer, generic)
    names = [
        descriptor.services_by_name[service].full_name
        for descriptor, service in (
            (key_service_pb2.DESCRIPTOR, "KeyService"),
            (verify_service_pb2.DESCRIPTOR, "VerifyService"),
            (usage_service_pb2.DESCRIPTOR, "UsageService"),
            (admin_service_pb2.DESCRIPTOR, "AdminService"),
            (health_pb2.DESCRIPTOR, "Health"),
        )
    ]
    others = (health_pb2.DESCRIPTOR.name, channelz_pb2.DESCRIPTOR.name)
    stack.add_generic_rpc_handlers(Reflection(names, others).handlers())
    if channelz_on:
        channelz_pb2_grpc.add_ChannelzServicer_to_server(channelz.aio.ChannelzServicer(), generic)
    server = grpc.aio.server(options=options(streams, port_shared))
    # The first that has a handler for a call answers it.
    server.add_generic_rpc_handlers((*fast_methods, stack))
    return server


class TlsError(ValueError):
    """One line for the operator: which TLS file is not what it should be."""


def listen(server: grpc.aio.Server, address: str, tls: Tls | None) -> int:
    """Bind the server to ``address`` and return the port.

    Raises OSError for a TLS file that can't be read, TlsError for one that holds something else, and RuntimeError for
    an address that is taken or wrong.
    """
    if tls is None:
        return server.add_insecure_port(address)
    _check(tls)
    client_ca = tls.client_ca.read_bytes() if tls.client_ca else None
    credentials = grpc.ssl_server_credentials(
        [(tls.private_key.read_bytes(), tls.certificate.read_bytes())],
        root_certificates=client_ca,
        require_client_auth=client_ca is not None,
    )
    return server.add_secure_port(address, credentials)


def _check(tls: Tls) -> None:
    """Read the files as gRPC will, which reports a wrong one just as an address that is taken."""
    for path in (tls.certificate, tls.private_key, *([tls.client_ca] if tls.client_ca else [])):
        path.read_bytes()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certificate, tls.private_key, password="")
    except ssl.SSLError:
        raise TlsError(
            f"{tls.certificate} and {tls.private_key} are not a certificate and its unencrypted private key in PEM"
        ) from None
    try:
        if tls.client_ca:
            context.load_verify_locations(tls.client_ca)
    except ssl.SSLError:
        raise TlsError(f"{tls.client_ca} does not hold certificates in PEM") from None
