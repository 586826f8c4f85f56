"""The server around the services: order of the layers, TLS, metrics, reflection, health."""

import asyncio
import urllib.request
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
import trustme
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tenacity import AsyncRetrying, stop_after_delay, wait_fixed

from latchkey.v1 import key_service_pb2
from latchkey_server.app import (
    build_admission,
    build_authentication,
    build_layers,
    build_verify_storage,
    build_workspaces,
    running_server,
)
from latchkey_server.background import Readiness
from latchkey_server.domain.turns import Turns
from latchkey_server.observability import Metrics
from latchkey_server.opening import StartError, open_storage, utc_now
from latchkey_server.transport.admission import UnknownCredentials
from tests.support.service import Bearer, Client, Service, rejection, serving, settings_for


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def write(certificate: trustme.LeafCert, folder: Path, name: str) -> tuple[Path, Path]:
    chain, key = folder / f"{name}.pem", folder / f"{name}.key"
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    certificate.private_key_pem.write_to_path(key)
    return chain, key


def credentials_of(authority: trustme.CA, certificate: trustme.LeafCert) -> grpc.ChannelCredentials:
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    return grpc.ssl_channel_credentials(authority.cert_pem.bytes(), certificate.private_key_pem.bytes(), chain)


async def test_calls_pass_the_layers_in_the_documented_order(dsn: str) -> None:
    settings = settings_for(dsn)
    async with open_storage(settings) as storage:
        freshness = build_verify_storage(storage, settings, utc_now)
        authentication = build_authentication(freshness, Readiness(), utc_now, UnknownCredentials(1))
        layers = build_layers(freshness, settings, Metrics(), authentication, build_admission(settings), Turns())

    names = ["errors", "request id", "metrics", "log", "authentication", "deadline", "turns"]
    assert [layer.name for layer in layers] == names
    documented = (Path(__file__).parents[3] / "ARCHITECTURE.md").read_text(encoding="utf-8")
    places = [documented.index(f"**{name}**") for name in names]
    assert places == sorted(places)


async def test_tls_protects_the_channel_and_can_demand_a_client_certificate(
    dsn: str, tmp_path: Path, authority: trustme.CA
) -> None:
    chain, key = write(authority.issue_cert("127.0.0.1"), tmp_path, "server")
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    tls = {"tls_certificate": chain, "tls_private_key": key, "tls_client_ca": ca}
    settings = settings_for(dsn).model_copy(update=tls)
    theirs = credentials_of(authority, authority.issue_cert("client@example.org"))
    strangers = credentials_of(authority, trustme.CA().issue_cert("stranger@example.org"))

    async with serving(dsn, settings=settings) as service:

        async def create(credentials: grpc.ChannelCredentials) -> key_service_pb2.CreateKeyResponse:
            async with grpc.aio.secure_channel(
                service.address, credentials, interceptors=[Bearer(service.root_secret)]
            ) as channel:
                return await Client(channel).create_key()

        made = await create(theirs)
        stranger = await rejection(create(strangers))
        plain = await rejection((await service.client(service.root_secret)).create_key())

    assert made.secret
    assert (stranger.code, plain.code) == (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
async def test_metrics_count_calls_by_method_and_status_refused_ones_too(dsn: str, host: str) -> None:
    settings = settings_for(dsn).model_copy(update={"listen": f"{host}:0", "metrics_listen": f"{host}:0"})

    async with running_server(settings) as running:
        async with grpc.aio.insecure_channel(running.address) as channel:
            await rejection(Client(channel).create_key())
        text = await asyncio.to_thread(read, f"http://{host}:{running.metrics_port}/metrics")

    assert running.address.startswith(f"{host}:")
    assert 'latchkey_calls_total{code="UNAUTHENTICATED",method="/latchkey.v1.KeyService/CreateKey"} 1.0' in text


async def test_metrics_tell_what_the_cache_saved(dsn: str) -> None:
    settings = settings_for(dsn).model_copy(update={"metrics_listen": "127.0.0.1:0"})

    async with running_server(settings) as running:
        owner = await build_workspaces(running.storage, utc_now).bootstrap() or ""
        async with grpc.aio.insecure_channel(running.address, interceptors=[Bearer(owner)]) as channel:
            client = Client(channel)
            secret = (await client.create_key()).secret
            for _ in range(4):
                await client.verify(secret)
        text = await asyncio.to_thread(read, f"http://127.0.0.1:{running.metrics_port}/metrics")

    lines = [line for line in text.splitlines() if not line.startswith("#") and "{" not in line]
    counted = {name: float(value) for name, value in map(str.split, lines)}
    misses = counted["latchkey_cache_misses_total"]
    # Where the machine paused for longer than the hard bound, a look-up is made again.
    assert misses == 1 + counted["latchkey_cache_expirations_total"]
    assert counted["latchkey_cache_hits_total"] == 4 - misses
    assert {"latchkey_cache_evictions_total", "latchkey_cache_invalidations_total"} <= counted.keys()


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
@pytest.mark.parametrize(
    "path",
    ["/latchkey.v1.VerifyService/Nothing", "/latchkey.v2.KeyService/CreateKey", "/latchkey.v1.VerifyService/verify"],
)
async def test_a_method_that_there_is_not_is_answered_like_any_refusal(service: Service, path: str, kind: str) -> None:
    channel = (await service.anonymous()).channel
    asks: Any = getattr(channel, kind)(path)
    asked = iter([b"asked"]) if kind.startswith("stream") else b"asked"
    answering = asks(asked, metadata=[("x-request-id", "trace-1")])

    refused = await rejection(answering if kind.endswith("unary") else anext(aiter(answering)))

    assert (refused.code, refused.reason) == (grpc.StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED")
    assert dict(refused.info.metadata) == {"method": path}
    assert refused.trailer["latchkey-request-id"] == refused.request_info.request_id == "trace-1"


async def test_methods_that_there_are_not_are_counted_together(dsn: str) -> None:
    """However many names there may be, they take no room in the metrics."""
    settings = settings_for(dsn).model_copy(update={"metrics_listen": "127.0.0.1:0"})
    async with running_server(settings) as running:
        async with grpc.aio.insecure_channel(running.address) as channel:
            for number in range(3):
                asks: Any = channel.unary_unary(f"/a.Service/Method{number}")
                await rejection(asks(b""))
        text = await asyncio.to_thread(read, f"http://127.0.0.1:{running.metrics_port}/metrics")

    assert 'latchkey_calls_total{code="UNIMPLEMENTED",method="unknown"} 3.0' in text
    assert "Method0" not in text


async def test_reflection_alone_tells_what_the_server_offers(service: Service) -> None:
    def reflected() -> tuple[list[str], list[str]]:
        with grpc.insecure_channel(service.address) as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            file = database.FindFileContainingSymbol("latchkey.v1.KeyService")
            return list(database.get_services()), [method.name for method in file.service[0].method]

    services, methods = await asyncio.to_thread(reflected)

    ours = {f"latchkey.v1.{name}Service" for name in ("Key", "Verify", "Usage", "Admin")}
    assert ours < set(services)
    assert "RotateKey" in methods


@pytest.mark.parametrize("method", ["latchkey.v1.KeyService.RevokeKey", "grpc.health.v1.Health.Watch"])
async def test_reflection_finds_a_method_by_its_name(service: Service, method: str) -> None:
    def reflected() -> list[str]:
        with grpc.insecure_channel(service.address) as channel:
            file = ProtoReflectionDescriptorDatabase(channel).FindFileContainingSymbol(method)
            return [f"{file.package}.{one.name}.{inner.name}" for one in file.service for inner in one.method]

    assert method in await asyncio.to_thread(reflected)


@pytest.mark.parametrize("symbol", ["latchkey.v1.KeyService.Nothing", "nothing.at.all", "nothing", ""])
async def test_reflection_does_not_find_what_there_is_not(service: Service, symbol: str) -> None:
    def reflected() -> None:
        with grpc.insecure_channel(service.address) as channel:
            ProtoReflectionDescriptorDatabase(channel).FindFileContainingSymbol(symbol)

    with pytest.raises(KeyError):
        await asyncio.to_thread(reflected)


@pytest.mark.parametrize("wrong", ["tls_certificate", "tls_private_key", "tls_client_ca"])
@pytest.mark.parametrize("content", ["junk", "", "another's"])
async def test_a_wrong_tls_file_ends_the_start_by_its_name(
    dsn: str, tmp_path: Path, authority: trustme.CA, wrong: str, content: str
) -> None:
    chain, key = write(authority.issue_cert("localhost"), tmp_path, "server")
    _, other = write(authority.issue_cert("localhost"), tmp_path, "other")
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    tls = {"tls_certificate": chain, "tls_private_key": key, "tls_client_ca": ca}
    tls[wrong].write_bytes(other.read_bytes() if content == "another's" else content.encode())

    with pytest.raises(StartError) as caught:
        async with running_server(settings_for(dsn).model_copy(update=tls)):
            pass

    assert str(tls[wrong]) in str(caught.value)
    assert "PEM" in str(caught.value)
    assert "LATCHKEY_LISTEN" not in str(caught.value)


async def test_a_tls_file_that_is_missing_ends_the_start_by_its_name(dsn: str, tmp_path: Path) -> None:
    tls = {"tls_certificate": tmp_path / "none.pem", "tls_private_key": tmp_path / "none.key"}

    with pytest.raises(StartError, match=r"can't be read: .*none\.pem"):
        async with running_server(settings_for(dsn).model_copy(update=tls)):
            pass


async def test_a_stop_does_not_wait_for_those_who_watch_health(dsn: str) -> None:
    settings = settings_for(dsn).model_copy(update={"stop_grace": 300.0})
    async with asyncio.timeout(60), AsyncExitStack() as stack:
        service = await stack.enter_async_context(serving(dsn, settings=settings))
        async with grpc.aio.insecure_channel(service.address) as channel:
            watchers = [health_changes(channel) for _ in range(2)]
            before = [await anext(watcher) for watcher in watchers]
            await stack.aclose()
            after = [[status async for status in watcher] for watcher in watchers]

    assert before == [health_pb2.HealthCheckResponse.SERVING] * 2
    assert after == [[health_pb2.HealthCheckResponse.NOT_SERVING]] * 2


async def test_every_watcher_of_health_is_told_whoever_else_came_and_went(service: Service) -> None:
    async with grpc.aio.insecure_channel(service.address) as channel:
        staying, going = health_changes(channel), health_changes(channel)
        begun = [await anext(staying), await anext(going)]
        await going.aclose()
        connection = await asyncpg.connect(service.dsn)
        await connection.execute(
            "INSERT INTO schema_migration (number, name, breaking) VALUES (9999, 'from the future', true)"
        )
        await connection.close()

        async with asyncio.timeout(30):
            told = await anext(staying)

    assert begun == [health_pb2.HealthCheckResponse.SERVING] * 2
    assert told == health_pb2.HealthCheckResponse.NOT_SERVING


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


async def health_changes(channel: grpc.aio.Channel) -> AsyncGenerator[int, None]:
    watch = channel.unary_stream(
        "/grpc.health.v1.Health/Watch",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    call = watch(health_pb2.HealthCheckRequest(service="latchkey.v1.KeyService"))
    try:
        async for change in call:
            yield int(change.status)
    finally:
        call.cancel()


async def until_a_statement_waits(connection: "asyncpg.Connection[asyncpg.Record]") -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async for attempt in AsyncRetrying(stop=stop_after_delay(30), wait=wait_fixed(0.01)):
        with attempt:
            assert await connection.fetchval(waiting)


async def test_a_stop_turns_health_off_and_lets_open_calls_finish(dsn: str) -> None:
    settings = settings_for(dsn).model_copy(update={"stop_grace": 20.0})
    starting = serving(dsn, settings=settings)
    service = await starting.__aenter__()
    blocker = await asyncpg.connect(dsn)
    async with grpc.aio.insecure_channel(service.address, interceptors=[Bearer(service.root_secret)]) as channel:
        changes = health_changes(channel)
        before = await anext(changes)
        async with blocker.transaction():
            await blocker.execute("LOCK TABLE workspace_revision IN ACCESS EXCLUSIVE MODE")
            open_call = asyncio.create_task(Client(channel).create_key())
            await until_a_statement_waits(blocker)
            stopping = asyncio.create_task(starting.__aexit__(None, None, None))
            during = await anext(changes)
            still_open = not open_call.done()
        made = await open_call
        await changes.aclose()
        await stopping
    await blocker.close()

    assert (before, during) == (health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING)
    assert still_open
    assert made.secret
