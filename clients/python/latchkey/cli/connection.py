"""Where the server is and how to speak to it: TLS, unless it is on this machine or plaintext is asked for."""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click
import grpc

from latchkey.cli.failures import Failure

DEFAULT_ADDRESS = "127.0.0.1:50051"
_OPTIONS = (
    # A server that restarts is found again soon; gRPC itself would wait up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)

_ADDRESS = re.compile(r"unix(-abstract)?:\S+|[^\s/]+:[0-9]{1,5}")

Command = TypeVar("Command", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class Connection:
    """A server and the credential for it; without ``tls`` both are sent in plaintext."""

    address: str
    token: str
    tls: grpc.ChannelCredentials | None

    def channel(self) -> grpc.aio.Channel:
        """Return a channel; nothing is sent before the first call."""
        # No proxy for this machine.
        options = [*_OPTIONS, ("grpc.enable_http_proxy", int(not is_loopback(self.address)))]
        if self.tls is None:
            return grpc.aio.insecure_channel(self.address, options=options)
        return grpc.aio.secure_channel(self.address, self.tls, options=options)


@dataclass(frozen=True, slots=True)
class Reach:
    """The options of a connection as they were given."""

    address: str
    token_file: Path | None = None
    ca: Path | None = None
    certificate: Path | None = None
    private_key: Path | None = None
    tls: bool | None = None


def connection_options(command: Command) -> Command:
    """Give a command the options of a ``Reach``."""
    path = click.Path(exists=True, dir_okay=False, path_type=Path)
    for option in (
        click.option("--tls/--plaintext", default=None, help="TLS or not; TLS, except on this machine without --ca."),
        click.option("--private-key", type=path, metavar="FILE", help="PEM key of that certificate."),
        click.option("--certificate", type=path, metavar="FILE", help="PEM chain to show a server that demands one."),
        click.option("--ca", type=path, envvar="LK_CA", metavar="FILE", help="PEM roots to trust, with TLS (LK_CA)."),
        click.option(
            "--token-file", type=path, metavar="FILE", help="Holds a management key's secret; else LK_TOKEN does."
        ),
        click.option(
            "--address",
            envvar="LK_ADDRESS",
            default=DEFAULT_ADDRESS,
            show_default=True,
            metavar="HOST:PORT",
            help="Where the server is (LK_ADDRESS).",
        ),
    ):
        command = option(command)
    return command


def connect(reach: Reach, environment: str) -> Connection:
    """Return the connection that the options describe; ``environment`` is what LK_TOKEN holds."""
    if not _ADDRESS.fullmatch(reach.address):
        raise click.UsageError(f"--address: {reach.address!r} is no host:port")
    if (reach.certificate is None) != (reach.private_key is None):
        raise click.UsageError("--certificate and --private-key go together")
    for_tls = reach.ca is not None or reach.certificate is not None
    if for_tls and reach.tls is False:
        raise click.UsageError("--ca and --certificate are for TLS; leave them or --plaintext out")
    secure = reach.tls if reach.tls is not None else for_tls or not is_loopback(reach.address)
    return Connection(reach.address, _token(reach.token_file, environment), _credentials(reach) if secure else None)


def _credentials(reach: Reach) -> grpc.ChannelCredentials:
    roots, key, chain = (_read(file) if file else None for file in (reach.ca, reach.private_key, reach.certificate))
    return grpc.ssl_channel_credentials(roots, key, chain)


def is_loopback(address: str) -> bool:
    """Tell whether an address can only be this machine."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _token(file: Path | None, environment: str) -> str:
    token = (_read(file).decode(errors="replace") if file else environment).strip()
    if not token:
        raise Failure("no credential: put a management key's secret into LK_TOKEN or name a --token-file that holds it")
    if not (token.isascii() and token.isprintable() and " " not in token):
        raise Failure("the credential is not one word of ASCII: LK_TOKEN or the --token-file holds something else")
    return token


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Failure(f"{file}: {error.strerror or error}") from None
