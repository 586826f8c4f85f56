"""Settings: LATCHKEY_* in the environment, validated at the start, secrets masked wherever they are shown."""

import base64
import binascii
import os
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

PREFIX = "LATCHKEY_"
PEPPER_BYTES_MIN = 16
PORT_MAX = 65_535


class SettingsError(Exception):
    """One line for the operator: which setting is wrong, and what it takes."""


class Settings(BaseSettings):
    """What can be set; every field is LATCHKEY_ and its name in capitals."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    listen: Annotated[
        str,
        Field(pattern=r"^\S+:\d{1,5}$", description="address and port to serve on; port 0 takes a free one"),
    ] = "127.0.0.1:50051"
    workers: Annotated[int, Field(ge=1, le=128, description="processes that serve on the one port")] = 1
    database_url: Annotated[
        SecretStr | None, Field(description="a PostgreSQL 15 or newer; the embedded one when not given")
    ] = None
    data_dir: Annotated[Path, Field(description="where the embedded PostgreSQL and its pepper live")] = Path(
        ".latchkey"
    )
    peppers: Annotated[
        SecretStr | None,
        Field(description="id:base64,id:base64,… of at least 16 bytes each; the first makes new hashes"),
    ] = None
    listen_dsn: Annotated[
        SecretStr | None,
        Field(description="the same database without the transaction pooler of the URL, for LISTEN and migrations"),
    ] = None
    pool_size: Annotated[int, Field(ge=1, le=1000, description="database connections for everything but look-ups")] = 20
    lookup_pool_size: Annotated[
        int, Field(ge=2, le=100, description="database connections that only look secrets and changes up")
    ] = 6
    cache_keys: Annotated[int, Field(ge=1, le=100_000_000, description="secrets kept in memory, a worker")] = 100_000
    cache_bytes: Annotated[
        int, Field(ge=1_000_000, description="bytes that they may take, a worker; about 2 KiB a secret")
    ] = 256 * 1024 * 1024
    stale_if_error: Annotated[
        float, Field(ge=0, le=86_400, description="seconds for which known keys are answered in an outage")
    ] = 60.0
    statement_cache_size: Annotated[int, Field(ge=0, description="0 behind pgbouncer in transaction mode")] = 1024
    database_timeout: Annotated[float, Field(gt=0, le=60, description="seconds for a connection or a look-up")] = 5.0
    call_timeout: Annotated[float, Field(gt=0, le=300, description="seconds for a call without a deadline")] = 30.0
    connection_streams: Annotated[
        int, Field(ge=1, le=10_000, description="calls and streams of one connection at a time")
    ] = 128
    stream_seconds: Annotated[
        float, Field(gt=0, le=240, description="seconds after which the server ends a stream, everything answered")
    ] = 240.0
    unknown_credentials: Annotated[
        float, Field(ge=1, description="credentials that nobody has, a second of one address, that are looked up")
    ] = 100.0
    caller_calls: Annotated[
        int, Field(ge=1, description="calls of one caller at a time that are not answered from memory, a worker")
    ] = 1_000
    caller_request_bytes: Annotated[
        int, Field(ge=4_194_304, description="bytes of the requests of these calls, a worker")
    ] = 64 * 1024 * 1024
    caller_streams: Annotated[int, Field(ge=1, description="streams of one caller at a time, a worker")] = 64
    caller_frame_bytes: Annotated[
        int, Field(ge=1_000_000, description="bytes of one caller's frames that are not answered yet, a worker")
    ] = 16 * 1024 * 1024
    frame_bytes: Annotated[int, Field(ge=1_000_000, description="the same of all callers together, a worker")] = (
        128 * 1024 * 1024
    )
    stop_delay: Annotated[
        float, Field(ge=0, le=300, description="seconds for which a server that says NOT_SERVING at SIGTERM serves on")
    ] = 2.0
    stop_grace: Annotated[
        float, Field(ge=0, le=300, description="seconds for open calls at a stop, after the delay")
    ] = 10.0
    usage_accepted_days: Annotated[
        int, Field(ge=1, le=366, description="how many days back a usage event may have happened")
    ] = 35
    usage_retention_days: Annotated[
        int | None,
        Field(ge=2, le=36_600, description="days for which usage events are kept; reports stay; for ever if not given"),
    ] = None
    usage_identity_days: Annotated[
        int | None,
        Field(ge=3, le=36_600, description="days for which an event's id is recognised; for ever if not given"),
    ] = None
    flush_interval: Annotated[
        float, Field(gt=0, le=60, description="seconds between writes of verification counts and last_used_time")
    ] = 1.0
    verification_retention_days: Annotated[
        int, Field(ge=1, le=36_600, description="days for which verification counts are kept")
    ] = 90
    tls_certificate: Annotated[Path | None, Field(description="PEM chain; with it the server speaks TLS")] = None
    tls_private_key: Annotated[Path | None, Field(description="PEM key of that certificate")] = None
    tls_client_ca: Annotated[Path | None, Field(description="PEM; clients must show a certificate of it")] = None
    metrics_listen: Annotated[
        str | None,
        Field(
            pattern=r"^\S+:\d{1,5}$",
            description="where Prometheus may read, worker k (from 0) at the port + k; off when not given",
        ),
    ] = None
    channelz: Annotated[bool, Field(description="serve channelz, open to everyone who can connect")] = False
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "text"] = "text"

    @field_validator("peppers")
    @classmethod
    def _readable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            read_peppers(value.get_secret_value())
        return value

    @field_validator("listen", "metrics_listen")
    @classmethod
    def _a_port(cls, value: str | None) -> str | None:
        if value is not None and port_of(value) > PORT_MAX:
            raise ValueError(f"the port must be at most {PORT_MAX}")
        return value

    @field_validator("database_url", "listen_dsn")
    @classmethod
    def _a_postgresql(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            url = urlsplit(value.get_secret_value())
            if url.scheme not in ("postgres", "postgresql") or (url.query and "=" not in url.query):
                raise ValueError("must be postgres://user@host:port/database, with ?name=value options if any")
        return value

    @model_validator(mode="after")
    def _whole(self) -> "Settings":
        if (self.tls_certificate is None) != (self.tls_private_key is None):
            raise ValueError("LATCHKEY_TLS_CERTIFICATE and LATCHKEY_TLS_PRIVATE_KEY go together")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("LATCHKEY_TLS_CLIENT_CA needs LATCHKEY_TLS_CERTIFICATE")
        if self.metrics_listen and port_of(self.metrics_listen) + self.workers - 1 > PORT_MAX:
            raise ValueError(f"LATCHKEY_METRICS_LISTEN leaves no port up to {PORT_MAX} for each of LATCHKEY_WORKERS")
        self._check_retention()
        if self.database_url is not None and self.peppers is None:
            raise ValueError(
                "LATCHKEY_PEPPERS is required with LATCHKEY_DATABASE_URL; "
                'make one with: echo "p1:$(openssl rand -base64 32)"'
            )
        return self

    def _check_retention(self) -> None:
        retained, accepted, known = self.usage_retention_days, self.usage_accepted_days, self.usage_identity_days
        if retained is not None and retained <= accepted:
            raise ValueError("LATCHKEY_USAGE_RETENTION_DAYS must be more than LATCHKEY_USAGE_ACCEPTED_DAYS")
        if known is not None and (retained is None or known < retained + accepted):
            raise ValueError(
                "LATCHKEY_USAGE_IDENTITY_DAYS must be at least LATCHKEY_USAGE_RETENTION_DAYS, which it needs, "
                "and LATCHKEY_USAGE_ACCEPTED_DAYS together"
            )

    @property
    def usage_accepted(self) -> timedelta:
        """How far back a usage event may have happened."""
        return timedelta(days=self.usage_accepted_days)


def load_settings(
    environment: Mapping[str, str] | None = None, given: Mapping[str, object] = MappingProxyType({})
) -> Settings:
    """Return the settings: those given by name, else the environment's; raises SettingsError for a wrong one."""
    names = os.environ if environment is None else environment
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    unknown = sorted(name for name in names if name.startswith(PREFIX) and name not in known)
    if unknown:
        raise SettingsError(f"unknown setting {unknown[0]}; `latchkey-server config` lists the known ones")
    try:
        # A mapping that is no dict would be validated as it is, without the environment.
        return Settings.model_validate(dict(given))
    except ValidationError as error:
        raise SettingsError(_first_line(error)) from None


def revealed(settings: Settings) -> dict[str, object]:
    """Return every setting as it was given, secrets too: for another process of this server, and no other eyes."""
    return {
        name: value.get_secret_value() if isinstance(value, SecretStr) else value
        for name, value in settings
        if value is not None
    }


def port_of(address: str) -> int:
    """Return the port of address:port."""
    return int(address.rpartition(":")[2])


def host_of(address: str) -> str:
    """Return the host of address:port, an IPv6 address without its brackets."""
    return address.rpartition(":")[0].removeprefix("[").removesuffix("]")


def read_peppers(text: str) -> tuple[str, dict[str, bytes]]:
    """Return the current pepper's id and all peppers by id; raises ValueError."""
    peppers: dict[str, bytes] = {}
    for entry in text.split(","):
        pepper_id, colon, encoded = entry.strip().partition(":")
        try:
            key = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if not colon or not pepper_id or len(key) < PEPPER_BYTES_MIN:
            raise ValueError(f"must be id:base64,… with at least {PEPPER_BYTES_MIN} bytes each")
        peppers[pepper_id] = key
    return next(iter(peppers)), peppers


def write_peppers(current: str, peppers: Mapping[str, bytes]) -> str:
    """Return peppers as ``read_peppers`` reads them."""
    ordered = {current: peppers[current], **peppers}
    return ",".join(f"{pepper_id}:{base64.b64encode(key).decode()}" for pepper_id, key in ordered.items())


def describe(settings: Settings) -> list[tuple[str, str, str]]:
    """Return every setting as (name, value with secrets masked, description)."""
    return [
        (PREFIX + name.upper(), _shown(getattr(settings, name)), field.description or "")
        for name, field in Settings.model_fields.items()
    ]


def _shown(value: object) -> str:
    if value is None:
        return ""
    return "********" if isinstance(value, SecretStr) else str(value)


def _first_line(error: ValidationError) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    message = str(first["msg"]).removeprefix("Value error, ")
    name = PREFIX + str(first["loc"][0]).upper() if first["loc"] else ""
    return f"{name}: {message}" if name else message
