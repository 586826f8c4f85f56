"""The composition root: every object is built here, on one stack that is unwound in reverse.

Start: PostgreSQL, its schema, the peppers, the pool, the domain, the server; health turns SERVING last. Stop: health
off, new calls answered for a while, open calls drained, what is pending flushed, the pool closed, PostgreSQL stopped.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import wraps
from typing import Any
from uuid import UUID

import structlog
from prometheus_client import start_http_server

from latchkey_server.background import HealthCheck, LoopLag, Readiness, Upkeep, background
from latchkey_server.domain.access.management_keys import ManagementKeys
from latchkey_server.domain.freshness import instant
from latchkey_server.domain.keys.commands import Keys
from latchkey_server.domain.keys.importing import KeyImport
from latchkey_server.domain.model import Change, Revision
from latchkey_server.domain.mutations import Mutations
from latchkey_server.domain.outcomes.client_reports import ClientReports
from latchkey_server.domain.outcomes.notes import VerificationNotes
from latchkey_server.domain.outcomes.query import VerificationQueries
from latchkey_server.domain.outcomes.recorder import VerificationFlush, VerificationRecorder
from latchkey_server.domain.reporting.concurrency import ReportConcurrency
from latchkey_server.domain.store import ChangeListener, Clock
from latchkey_server.domain.tenants.apis import Apis
from latchkey_server.domain.tenants.audit_log import AuditLog
from latchkey_server.domain.tenants.identities import Identities
from latchkey_server.domain.tenants.workspaces import Workspaces
from latchkey_server.domain.turns import Share, Turns, share_turns
from latchkey_server.domain.usage.query import UsageQueries
from latchkey_server.domain.usage.recorder import UsageRecorder
from latchkey_server.domain.verify.command import Verifier
from latchkey_server.domain.verify.watching import Watchers
from latchkey_server.gauges import show_backlog, show_cache, show_shares
from latchkey_server.memory import give_memory_back
from latchkey_server.observability import Metrics
from latchkey_server.opening import StartError, Storage, open_storage, prepare_embedded, retention_of, utc_now
from latchkey_server.settings import Settings, host_of, port_of
from latchkey_server.storage.embedded.server import EmbeddedServer
from latchkey_server.storage.store import PostgresStore
from latchkey_server.storage.verify.availability import Availability
from latchkey_server.storage.verify.cache import KeyCache
from latchkey_server.storage.verify.cached_records import CachedRecords
from latchkey_server.storage.verify.change_feed import ChangeFeed
from latchkey_server.storage.verify.notifications import Notifications
from latchkey_server.storage.verify.records import DatabaseRecords
from latchkey_server.transport.admission import Admission, Limits, UnknownCredentials
from latchkey_server.transport.authentication import Authentication
from latchkey_server.transport.grpc.admin_servicer import AdminServicer, Nouns
from latchkey_server.transport.grpc.fast_handlers import fast_methods
from latchkey_server.transport.grpc.health import Health
from latchkey_server.transport.grpc.key_servicer import KeyServicer
from latchkey_server.transport.grpc.server import BATCH_READERS, Services, Tls, TlsError, build_server, listen
from latchkey_server.transport.grpc.stack import Stack
from latchkey_server.transport.grpc.usage_servicer import UsageServicer
from latchkey_server.transport.grpc.verify_servicer import Verifications, VerifyServicer
from latchkey_server.transport.layers import (
    Authenticate,
    Deadline,
    Errors,
    Layer,
    RequestId,
    TakeTurns,
    log_calls,
    measure,
)
from latchkey_server.transport.verify.fast_path import TICK, FastPath

log = structlog.get_logger("latchkey")


NOBODY = UUID(int=0)
"""Whose share the process's own work is done under."""

LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
DATABASE_ENDED = "the embedded PostgreSQL ended by itself; see postgres.log in the data directory"


@dataclass(slots=True)
class Running:
    """A running server: where it listens, and the first owner's secret if this start made it."""

    address: str
    port: int
    metrics_port: int | None
    owner_secret: str | None
    readiness: Readiness
    health: Health
    storage: Storage
    stopped: asyncio.Event
    hurried: asyncio.Event = field(default_factory=asyncio.Event)
    asked_to_stop: bool = False

    def stop(self, *, at_once: bool) -> None:
        """Ask for a graceful stop: one without a delay, if this is said or asked for the second time."""
        if at_once or self.asked_to_stop:
            self.hurried.set()
        self.asked_to_stop = True
        self.stopped.set()

    async def leave(self, seconds: float) -> None:
        """Say NOT_SERVING and serve on for so long, unless there is a hurry."""
        self.health.leave()
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.hurried.wait()


@dataclass(frozen=True, slots=True)
class VerifyStorage:
    """What keeps verifications fresh: the cache, the change feed, and the source of records."""

    cache: KeyCache
    watchers: Watchers
    availability: Availability
    feed: ChangeFeed
    records: CachedRecords

    def committed(self, revision: Revision, changes: Sequence[Change]) -> None:
        """Apply this process's own changes before their caller is answered."""
        self.cache.committed(revision, changes)
        self.feed.hint(revision.workspace_id)


def build_verify_storage(storage: Storage, settings: Settings, clock: Clock) -> VerifyStorage:
    """Return the cache of a process with all that fills it and keeps it fresh."""
    cache, watchers, availability = KeyCache(settings.cache_keys, settings.cache_bytes), Watchers(), Availability()
    return VerifyStorage(
        cache=cache,
        watchers=watchers,
        availability=availability,
        feed=ChangeFeed(storage.lookups, cache, watchers, availability, instant),
        records=CachedRecords(
            DatabaseRecords(storage.lookups, storage.peppers, clock, instant, cache.history),
            cache,
            availability,
            timedelta(seconds=settings.stale_if_error),
            instant,
        ),
    )


def build_workspaces(storage: Storage, clock: Clock, listener: ChangeListener | None = None) -> Workspaces:
    """Return the domain's Workspaces over a database."""
    store = PostgresStore(storage.database)
    return Workspaces(store, Mutations(store, clock, listener or Unheard()), storage.peppers, clock)


class Unheard:
    """Listens for a process that caches nothing."""

    def committed(self, revision: Revision, changes: Sequence[Change]) -> None:
        """Have nothing to drop."""


def build_flush(storage: Storage, settings: Settings, notes: VerificationNotes, clock: Clock) -> VerificationFlush:
    """Return what flushes a process's notes, under a client id that no other process has."""
    recorder = VerificationRecorder(PostgresStore(storage.database), clock)
    client_id = f"server-{secrets.token_hex(16)}"
    return VerificationFlush(recorder, notes.counter, notes.uses, client_id, settings.flush_interval)


@asynccontextmanager
async def running_server(
    settings: Settings, clock: Clock = utc_now, worker: int | None = None
) -> AsyncIterator[Running]:
    """Run a server until the context is left; it then stops gracefully.

    ``worker`` is its number, from 0, if it is one of several on one port.
    """
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(open_storage(settings))
        if storage.embedded:
            await prepare_embedded(storage, settings, clock)
        metrics, health, readiness = Metrics(), Health(), Readiness()
        notes = VerificationNotes()
        flush = build_flush(storage, settings, notes, clock)
        stack.push_async_callback(flush.drain)
        recorder = UsageRecorder(PostgresStore(storage.database), clock, settings.usage_accepted)
        stack.push_async_callback(recorder.groups.drain)
        verify_storage = build_verify_storage(storage, settings, clock)
        show_cache(metrics, verify_storage.cache, verify_storage.records, verify_storage.availability)
        show_backlog(metrics, recorder, notes)
        turns = Turns()
        server, services = await _build(
            storage, verify_storage, settings, metrics, notes, recorder, readiness, health, turns, clock, worker
        )
        port = _listen(server, settings)
        await server.start()
        # Unwound after the server: until the last call is answered, changes are followed.
        beside = await stack.enter_async_context(AsyncExitStack())
        address = with_port(settings.listen, port)
        log.info("listening", address=address)
        stack.push_async_callback(server.stop, settings.stop_grace)
        stack.callback(services.verify.stop_streams)
        metrics_port = _serve_metrics(settings, metrics, worker or 0, stack)
        await _begin(beside, storage, verify_storage, settings, health, readiness, clock)
        if not worker:
            # Once a server: the first worker's task when there are several.
            await background(beside, Upkeep(storage.upkeep, retention_of(settings), readiness, clock).run)
        await background(beside, in_turns(turns, flush.run))
        await _look_after_the_process(beside, metrics)
        stack.push_async_callback(health.stop)
        stopped = asyncio.Event()
        if storage.embedded:
            await background(stack, lambda: until_closed(storage.embedded, stopped))
        # Last of all: a start that fails after it would have shown the first owner's secret to nobody.
        owner_secret = await build_workspaces(storage, clock).bootstrap() if storage.embedded else None
        yield Running(address, port, metrics_port, owner_secret, readiness, health, storage, stopped)


async def _build(
    storage: Storage,
    verify_storage: VerifyStorage,
    settings: Settings,
    metrics: Metrics,
    notes: VerificationNotes,
    recorder: UsageRecorder,
    readiness: Readiness,
    health: Health,
    turns: Turns,
    clock: Clock,
    worker: int | None,
) -> tuple[Any, Services]:
    """Return the gRPC server, not started and not healthy, and its services."""
    unknown = UnknownCredentials(settings.unknown_credentials)
    authentication = build_authentication(verify_storage, readiness, clock, unknown)
    admission = build_admission(settings)
    show_shares(metrics, admission, turns, unknown)
    layers = Stack(build_layers(verify_storage, settings, metrics, authentication, admission, turns), BATCH_READERS)
    # A test's own clock may leap: it is read for each decision.
    tick = TICK if clock is utc_now else 0.0
    fast_path = FastPath(verify_storage.records, notes, metrics, clock, tick)
    services = build_services(storage, verify_storage, settings, metrics, notes, fast_path, recorder, admission, clock)
    methods = fast_methods(fast_path, authentication, metrics, instant, layers, tick)
    await health.set_all(serving=False)
    server = build_server(
        services,
        layers,
        methods,
        health,
        channelz_on=settings.channelz,
        streams=settings.connection_streams,
        port_shared=worker is not None,
    )
    return server, services


async def _look_after_the_process(stack: AsyncExitStack, metrics: Metrics) -> None:
    """Measure how late the loop comes round, and give free memory back."""
    lag = metrics.histogram("latchkey_loop_lag_seconds", "How late the event loop came round.", LAG_BUCKETS)
    await background(stack, LoopLag(lag).run)
    await background(stack, give_memory_back)


def in_turns(turns: Turns, run: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], Coroutine[Any, Any, None]]:
    """Return something to run whose work takes turns with that of calls, as one more workspace's."""

    @wraps(run)
    async def taking_turns() -> None:
        share_turns(turns, Share(NOBODY, NOBODY))
        await run()

    return taking_turns


async def _begin(
    stack: AsyncExitStack,
    storage: Storage,
    verify_storage: VerifyStorage,
    settings: Settings,
    health: Health,
    readiness: Readiness,
    clock: Clock,
) -> None:
    """Check the database once, and go on checking beside the server."""
    availability, stale_if_error = verify_storage.availability, timedelta(seconds=settings.stale_if_error)
    await verify_storage.feed.look()
    health_check = HealthCheck(
        storage.lookups, storage.peppers, availability, stale_if_error, health, readiness, clock, instant
    )
    await health_check.look()
    listen_dsn = settings.listen_dsn.get_secret_value() if settings.listen_dsn else storage.dsn
    await background(stack, verify_storage.feed.run)
    notifications = Notifications(listen_dsn, storage.lookups, verify_storage.feed, verify_storage.cache)
    await background(stack, notifications.run)
    await background(stack, health_check.run)


def build_services(
    storage: Storage,
    verify_storage: VerifyStorage,
    settings: Settings,
    metrics: Metrics,
    notes: VerificationNotes,
    fast_path: FastPath,
    recorder: UsageRecorder,
    admission: Admission,
    clock: Clock,
) -> Services:
    """Return the servicers over their domain over a database."""
    store, peppers, concurrency = PostgresStore(storage.database), storage.peppers, ReportConcurrency()
    mutations = Mutations(store, clock, verify_storage)
    nouns = Nouns(
        workspaces=Workspaces(store, mutations, peppers, clock),
        apis=Apis(store, mutations),
        identities=Identities(store, mutations),
        management_keys=ManagementKeys(store, mutations, peppers, clock),
        audit=AuditLog(store),
    )
    return Services(
        keys=KeyServicer(Keys(store, mutations, peppers, clock), KeyImport(mutations, peppers)),
        verify=VerifyServicer(
            Verifications(Verifier(verify_storage.records, notes, clock, instant), fast_path, metrics, instant),
            ClientReports(store, VerificationRecorder(store, clock), clock, settings.usage_accepted),
            verify_storage.watchers,
            verify_storage.feed,
            instant,
            admission.frames,
            settings.stream_seconds,
        ),
        usage=UsageServicer(
            recorder, UsageQueries(store, concurrency, clock), VerificationQueries(store, concurrency, clock), clock
        ),
        admin=AdminServicer(nouns),
    )


def build_authentication(
    verify_storage: VerifyStorage, readiness: Readiness, clock: Clock, unknown: UnknownCredentials
) -> Authentication:
    """Return what authenticates callers."""
    return Authentication(verify_storage.records, clock, readiness, unknown)


def build_admission(settings: Settings) -> Admission:
    """Return what bounds how much each caller may have under way."""
    return Admission(
        Limits(
            calls=settings.caller_calls,
            request_bytes=settings.caller_request_bytes,
            streams=settings.caller_streams,
            frame_bytes=settings.caller_frame_bytes,
            frame_bytes_of_all=settings.frame_bytes,
        )
    )


def build_layers(
    verify_storage: VerifyStorage,
    settings: Settings,
    metrics: Metrics,
    authentication: Authentication,
    admission: Admission,
    turns: Turns,
) -> list[Layer]:
    """Return what every call passes through, outermost first."""
    return [
        Errors(),
        RequestId(),
        measure(metrics),
        log_calls(),
        Authenticate(authentication, instant, settings.call_timeout),
        Deadline(settings.call_timeout, lambda: verify_storage.availability.lost),
        TakeTurns(admission, turns),
    ]


def _listen(server: Any, settings: Settings) -> int:
    tls = None
    if settings.tls_certificate and settings.tls_private_key:
        tls = Tls(settings.tls_certificate, settings.tls_private_key, settings.tls_client_ca)
    try:
        return listen(server, settings.listen, tls)
    except RuntimeError:
        raise address_taken(settings) from None
    except OSError as error:
        raise StartError(f"a TLS file can't be read: {error.filename}") from None
    except TlsError as error:
        raise StartError(str(error)) from None


def address_taken(settings: Settings) -> StartError:
    """Return the line for an address that can't be listened on."""
    return StartError(
        f"can't listen on {settings.listen}: is another server there? LATCHKEY_LISTEN chooses another address"
    )


def with_port(address: str, port: int) -> str:
    """Return an address with another port."""
    return f"{address.rpartition(':')[0]}:{port}"


def metrics_address(listen: str, worker: int) -> str:
    """Return where a worker shows its metrics: each at a port of its own, for metrics are counted by process."""
    port = port_of(listen)
    return with_port(listen, port + worker if port else 0)


def _serve_metrics(settings: Settings, metrics: Metrics, worker: int, stack: AsyncExitStack) -> int | None:
    if settings.metrics_listen is None:
        return None
    address = metrics_address(settings.metrics_listen, worker)
    try:
        http_server, thread = start_http_server(port_of(address), host_of(address), registry=metrics.registry)
    except OSError:
        raise StartError(f"can't serve metrics on {address}: the address is taken or wrong") from None
    log.info("showing metrics", address=with_port(address, http_server.server_port))
    stack.callback(thread.join)
    stack.callback(http_server.server_close)
    stack.callback(http_server.shutdown)
    return int(http_server.server_port)


async def until_closed(embedded: EmbeddedServer | None, stopped: asyncio.Event) -> None:
    """Wait until the embedded PostgreSQL has ended by itself, and then stop."""
    if embedded is not None:
        await embedded.wait_closed()
        log.error("the embedded PostgreSQL ended by itself; see its log in the data directory")
        stopped.set()
