"""No traceback, driver text or secret ever reaches a client, a log or a table (spec §3, §7)."""

import asyncio
import hashlib
import io
import logging
import os
import re
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg
import grpc
import pytest
import structlog
from google.protobuf.message import Message

from latchkey.v1 import admin_service_pb2 as admin_pb
from latchkey.v1 import key_pb2, management_key_pb2, verification_pb2
from latchkey.v1 import key_service_pb2 as keys_pb
from latchkey.v1 import verify_service_pb2 as verify_pb
from latchkey_server.domain.keys.commands import Keys
from latchkey_server.observability import configure_logging
from latchkey_server.storage.keys.keys import PostgresKeys
from latchkey_server.transport.grpc.verify_servicer import VerifyServicer
from tests.support.matrix_calls import Answer, call
from tests.support.matrix_rows import ROWS
from tests.support.matrix_world import Target, make_target, random_id, unknown_target
from tests.support.service import PEPPERS, Service, serving

SECRET_FIELDS = ("secret", "owner_secret")
MAY_SHOW = {"CreateKey", "RotateKey", "CreateManagementKey", "RotateManagementKey", "CreateWorkspace"}
INNARDS = re.compile(
    r"Traceback|File \"|asyncpg|psycopg|RuntimeError|SELECT |INSERT |UPDATE |invalid input syntax|22P02|sqlstate|"
    r"postgresql://|\.py\b",
    re.IGNORECASE,
)
"""What belongs to the server's inside, as answers would show it; a log may name a file and an error's kind."""
TEXTS = re.compile(r"Traceback|SELECT |INSERT |invalid input syntax|22P02|postgresql://|the cause", re.IGNORECASE)
"""The same for a log."""


@dataclass(slots=True)
class Session:
    """Everything that was said in a session, and every secret that was issued or presented in it."""

    channel: grpc.aio.Channel
    issued: set[str] = field(default_factory=set)
    presented: set[str] = field(default_factory=set)
    said: list[tuple[str, str]] = field(default_factory=list)

    async def call(self, request: Message, secret: str | None = None) -> Answer:
        """Call, keep what was said apart from secrets that this answer may show, and keep those."""
        answer = await call(self.channel, request, secret=secret)
        shown = answer.response
        if shown is not None and answer.method in MAY_SHOW:
            for name in SECRET_FIELDS:
                if issued := getattr(shown, name, ""):
                    self.issued.add(issued)
                    rest = type(shown)()
                    rest.CopyFrom(shown)
                    rest.ClearField(name)
                    shown = rest
        refusal = answer.refusal
        said = [str(shown), str(dict(answer.trailer))]
        if refusal is not None:
            said += [refusal.message, str(refusal.status), str(refusal.info), str(refusal.bad_request)]
        self.said.append((answer.method, "\n".join(said)))
        return answer

    @property
    def secrets(self) -> set[str]:
        """The random part of every secret: what a mask must not give away whole."""
        return {secret.rpartition("_")[2] for secret in self.issued | self.presented}

    @property
    def sha256s(self) -> set[str]:
        """The SHA-256 of every secret in hex: it opens as much as the secret where it is a cache's key."""
        return {hashlib.sha256(secret.encode()).hexdigest() for secret in self.issued | self.presented}


async def play(service: Service) -> Session:
    """Use all services, successfully and not, with secrets in the right fields and in wrong ones."""
    session = Session((await service.anonymous()).channel)
    root, owner = service.root_secret, await _workspace(session, service.root_secret)
    session.issued.add(root)
    api_key, rotated = await _keys(session, owner)
    await _management_keys(session, owner)
    await _imports(session, owner)
    target = await _every_method(session, service)
    for secret in (api_key, rotated, f"sk_{secrets.token_hex(19)}", target.secret):
        session.presented.add(secret)
        for request in _with_a_secret_in(secret):
            await session.call(request, owner)
            await session.call(request, secret)
            await session.call(request)
    return session


async def _workspace(session: Session, root: str) -> str:
    request = admin_pb.CreateWorkspaceRequest(request_id="workspace")
    made, again = await session.call(request, root), await session.call(request, root)
    assert isinstance(made.response, admin_pb.CreateWorkspaceResponse)
    assert isinstance(again.response, admin_pb.CreateWorkspaceResponse)
    assert (again.response.replayed, again.response.owner_secret) == (True, "")
    return made.response.owner_secret


async def _keys(session: Session, owner: str) -> tuple[str, str]:
    create = keys_pb.CreateKeyRequest(request_id="create", key=key_pb2.Key(name="leaky", environment="prod"))
    made, again = (await session.call(create, owner)).response, (await session.call(create, owner)).response
    assert isinstance(made, keys_pb.CreateKeyResponse)
    assert isinstance(again, keys_pb.CreateKeyResponse)
    rotate = keys_pb.RotateKeyRequest(request_id="rotate", key_id=made.key.key_id)
    new, new_again = (await session.call(rotate, owner)).response, (await session.call(rotate, owner)).response
    assert isinstance(new, keys_pb.RotateKeyResponse)
    assert isinstance(new_again, keys_pb.RotateKeyResponse)
    assert [(reply.replayed, reply.secret) for reply in (again, new_again)] == [(True, "")] * 2
    for secret in (made.secret, new.secret):
        await session.call(verify_pb.VerifyRequest(key=secret, explain=True), owner)
        await session.call(keys_pb.LookupKeyRequest(secret=secret), owner)
    return made.secret, new.secret


async def _management_keys(session: Session, owner: str) -> None:
    wanted = management_key_pb2.ManagementKey(role=management_key_pb2.ROLE_ADMIN)
    create = admin_pb.CreateManagementKeyRequest(request_id="create", management_key=wanted)
    made, again = (await session.call(create, owner)).response, (await session.call(create, owner)).response
    assert isinstance(made, admin_pb.CreateManagementKeyResponse)
    assert isinstance(again, admin_pb.CreateManagementKeyResponse)
    management_key_id = made.management_key.management_key_id
    rotate = admin_pb.RotateManagementKeyRequest(request_id="rotate", management_key_id=management_key_id)
    new, new_again = (await session.call(rotate, owner)).response, (await session.call(rotate, owner)).response
    assert isinstance(new, admin_pb.RotateManagementKeyResponse)
    assert isinstance(new_again, admin_pb.RotateManagementKeyResponse)
    assert [(reply.replayed, reply.secret) for reply in (again, new_again)] == [(True, "")] * 2
    await session.call(admin_pb.ListManagementKeysRequest(), made.secret)
    await session.call(admin_pb.ListAuditEventsRequest(page_size=1000), new.secret)


async def _imports(session: Session, owner: str) -> None:
    secret = f"other_{secrets.token_hex(19)}"
    session.presented.add(secret)
    sha256 = hashlib.sha256(secret.encode()).digest()
    item = keys_pb.ImportKeyItem(secret_sha256=sha256, key=key_pb2.Key(name="imported"))
    for _ in range(2):
        await session.call(keys_pb.ImportKeysRequest(items=[item], request_id="import"), owner)
        await session.call(keys_pb.ImportKeysRequest(items=[item]), owner)
    answer = await session.call(verify_pb.VerifyRequest(key=secret), owner)
    assert isinstance(answer.response, verify_pb.VerifyResponse)
    assert answer.response.verification.code == verification_pb2.VERIFY_CODE_VALID


async def _every_method(session: Session, service: Service) -> Target:
    """Call every method so that it succeeds, so that it fails, and without a credential that is known."""
    owner = await service.workspace()
    target, unknown = await make_target(owner), unknown_target()
    secret = (await owner.create_management_key(management_key_pb2.ROLE_OWNER)).secret
    wrong = f"lkm_{secrets.token_hex(19)}"
    session.issued |= {secret, target.secret}
    session.presented.add(wrong)
    for row in ROWS.values():
        await session.call(row.request(unknown), secret)
        await session.call(row.request(unknown), wrong)
        await session.call(row.request(target), secret)
    return target


def _with_a_secret_in(secret: str) -> list[Message]:
    """Return requests that hold a secret where none belongs, as callers send them by mistake."""
    return [
        keys_pb.GetKeyRequest(key_id=secret),
        keys_pb.ListKeysRequest(page_token=secret),
        keys_pb.ListKeysRequest(api_id=secret),
        keys_pb.LookupKeyRequest(secret=secret),
        verify_pb.VerifyRequest(key=secret, api_id=secret),
        verify_pb.VerifyRequest(key=secret, explain=True),
        verify_pb.BatchVerifyRequest(items=[verify_pb.VerifyRequest(key=secret)]),
        admin_pb.GetManagementKeyRequest(management_key_id=secret),
        admin_pb.ListAuditEventsRequest(actor_id=secret),
    ]


def leaks_in_answers(session: Session) -> list[str]:
    """Return the methods whose answers told a secret or something of the server's inside."""
    hidden = session.secrets | session.sha256s
    return [
        method
        for method, said in session.said
        if INNARDS.search(said) or any(secret in said for secret in hidden) or PEPPERS in said
    ]


def leaks_in_log(session: Session, log: str) -> list[str]:
    """Return what a log should not hold."""
    hidden = session.secrets | session.sha256s | {PEPPERS, PEPPERS.partition(":")[2]}
    return [found for found in hidden if found in log] + TEXTS.findall(log)


async def dump(dsn: str) -> dict[str, str]:
    """Return the text of every row of every table, by table."""
    connection = await asyncpg.connect(dsn)
    try:
        tables = await connection.fetch(
            "SELECT quote_ident(schemaname) || '.' || quote_ident(tablename) AS name FROM pg_tables "
            "WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
        )
        return {
            table["name"]: "\n".join(
                row["text"] for row in await connection.fetch(f"SELECT t::text AS text FROM {table['name']} t")
            )
            for table in tables
        }
    finally:
        await connection.close()


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """Log as the server does, to what stands for standard error, and leave logging as it was."""
    handlers, level, written = logging.root.handlers[:], logging.root.level, io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    configure_logging("DEBUG", json_lines=True)
    yield written
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    structlog.reset_defaults()


async def test_no_secret_or_innards_in_answers_log_or_tables(dsn: str, log: io.StringIO) -> None:
    async with serving(dsn) as service:
        session = await play(service)

    written = log.getvalue()
    assert len(session.issued) > 8
    assert '"method": "KeyService/CreateKey"' in written
    assert leaks_in_answers(session) == []
    assert leaks_in_log(session, written) == []
    rows = await dump(dsn)
    assert {"public.audit_event", "public.answered_request", "public.secret_hash"} <= rows.keys()
    assert rows["public.audit_event"]
    for table, text in rows.items():
        assert [secret for secret in session.secrets | session.sha256s if secret in text] == [], table


async def test_a_secret_is_in_the_create_and_rotate_answers_and_nowhere_else(service: Service) -> None:
    session = await play(service)

    shown = {method for method, said in session.said if any(secret in said for secret in session.secrets)}

    assert shown == set()
    for name in ("GetKey", "ListKeys", "UpdateKey", "GetManagementKey", "ListManagementKeys", "ListAuditEvents"):
        assert name in {method for method, _ in session.said}


async def test_an_audit_event_tells_before_and_after_without_secrets(service: Service) -> None:
    session = await play(service)
    owner = await _workspace_of(service)

    told = str((await owner.admin.ListAuditEvents(admin_pb.ListAuditEventsRequest(page_size=1000))).audit_events)

    assert "workspace.create" in told
    assert [secret for secret in session.secrets | session.sha256s if secret in told] == []


async def _workspace_of(service: Service) -> Any:
    return await service.client(service.root_secret)


async def test_an_unexpected_error_tells_nobody_its_text(
    dsn: str, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = f"sk_{secrets.token_hex(19)}"

    async def fail(*_arguments: object) -> None:
        raise RuntimeError(f"the cause is {hidden}")

    async def stream(_servicer: object, _requests: object, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        await context.write(verify_pb.VerifyStreamResponse().SerializeToString())
        raise RuntimeError(f"the cause is {hidden}")

    monkeypatch.setattr(Keys, "get", fail)
    monkeypatch.setattr(VerifyServicer, "verify_stream", stream)
    async with serving(dsn) as service:
        session = Session((await service.anonymous()).channel, presented={hidden})
        unary = await session.call(keys_pb.GetKeyRequest(key_id=random_id("key")), service.root_secret)
        await session.call(ROWS["VerifyStream"].request(unknown_target()), service.root_secret)
        streamed = await _second_of_a_stream(service)

    assert (unary.code, unary.outcome) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert (streamed.code(), hidden in str(streamed.details())) == (grpc.StatusCode.INTERNAL, False)
    assert leaks_in_answers(session) == []
    written = log.getvalue()
    assert "unexpected error" in written
    assert leaks_in_log(session, written) == []


async def _second_of_a_stream(service: Service) -> grpc.aio.AioRpcError:
    """Return the error behind the first answer of a stream."""
    stub = (await service.anonymous()).verifier
    asked = iter([verify_pb.VerifyStreamRequest()])
    answers = stub.VerifyStream(asked, metadata=(("authorization", f"Bearer {service.root_secret}"),))
    try:
        async for _ in answers:
            pass
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the stream succeeded")


async def test_a_driver_s_error_tells_nobody_its_text(
    dsn: str, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = f"sk_{secrets.token_hex(19)}"

    async def fail(repository: PostgresKeys, *_arguments: object) -> None:
        await repository._connection.execute(f"SELECT '{hidden}'::int")

    monkeypatch.setattr(PostgresKeys, "get", fail)
    monkeypatch.setattr(PostgresKeys, "page", fail)
    async with serving(dsn) as service:
        session = Session((await service.anonymous()).channel, presented={hidden})
        answers = [
            await session.call(request, service.root_secret)
            for request in (
                keys_pb.GetKeyRequest(key_id=random_id("key")),
                keys_pb.ListKeysRequest(),
                keys_pb.DeleteKeyRequest(key_id=random_id("key")),
            )
        ]

    assert [answer.outcome for answer in answers] == ["INTERNAL"] * 3
    assert leaks_in_answers(session) == []
    written = log.getvalue()
    assert "unexpected error" in written
    assert leaks_in_log(session, written) == []


@pytest.mark.parametrize("junk", [b"\xff", b"\x0a\x02\xff\xfe"])
async def test_a_message_that_can_not_be_read_tells_nobody_why(service: Service, log: io.StringIO, junk: bytes) -> None:
    channel = (await service.anonymous()).channel
    send = channel.unary_unary("/latchkey.v1.KeyService/GetKey", request_serializer=bytes, response_deserializer=bytes)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await send(junk, metadata=(("authorization", f"Bearer {service.root_secret}"),))

    said = f"{refused.value.details()} {refused.value.trailing_metadata()}"
    assert "DecodeError" not in said
    assert not INNARDS.search(said)
    assert "Traceback" not in log.getvalue()


class Output:
    """What a server's process writes, read as it comes, so that it never waits for us."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self.lines: list[str] = []
        self._changed = asyncio.Condition()
        self._reading = asyncio.create_task(self._read(stream))

    async def _read(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            async with self._changed:
                self.lines.append(line.decode())
                self._changed.notify_all()

    async def find(self, pattern: str) -> re.Match[str]:
        """Return the first line that has ``pattern``, waiting for it."""
        async with asyncio.timeout(30), self._changed:
            while not (found := [match for line in self.lines if (match := re.search(pattern, line))]):
                await self._changed.wait()
            return found[0]

    async def whole(self) -> str:
        """Return everything, once the process has ended."""
        await self._reading
        return "".join(self.lines)


@asynccontextmanager
async def _serve_process(dsn: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, Output]]:
    """Serve on a database by the command line, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LATCHKEY_")}
    environment |= {
        "LATCHKEY_LISTEN": "127.0.0.1:0",
        "LATCHKEY_DATABASE_URL": dsn,
        "LATCHKEY_PEPPERS": PEPPERS,
        "LATCHKEY_LOG_LEVEL": "DEBUG",
        "LATCHKEY_STOP_GRACE": "1",
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "latchkey_server", "serve"),
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        yield process, Output(process.stdout)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()


async def test_a_server_started_by_the_command_line_logs_and_prints_no_secret(service: Service) -> None:
    async with _serve_process(service.dsn) as (process, output), AsyncExitStack() as stack:
        address = (await output.find(r"\baddress=(\S+)"))[1]
        await output.find(r"\bserving\b")
        session = await play(Service(address, service.root_secret, service.dsn, stack))
        process.send_signal(signal.SIGTERM)
        status = await asyncio.wait_for(process.wait(), 30)
        written = await output.whole()

    assert status == 0
    assert "KeyService/CreateKey" in written
    assert leaks_in_answers(session) == []
    assert leaks_in_log(session, written) == []
