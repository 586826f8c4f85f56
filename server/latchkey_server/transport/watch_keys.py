"""WatchKeys on the wire: changes in order, nonces echoed behind them, and the credential looked at all the while."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import grpc

from latchkey.v1 import verify_service_pb2 as pb
from latchkey_server.domain import errors, ids
from latchkey_server.domain.freshness import Instant
from latchkey_server.domain.ids import format_id
from latchkey_server.domain.model import ChangeKind, Revision
from latchkey_server.domain.watching import Applied, Echo, Event, Followed, Reset, Watch, Watchers, visible
from latchkey_server.transport.call import caller, recheck
from latchkey_server.transport.stack import Context
from latchkey_server.transport.wire import duration, revision

NONCE_MAX: Final = 64
RECHECK_SECONDS: Final = 0.5
"""How often the credential is looked at, changes or not."""

_AGE_MAX: Final = 3_600.0
_KINDS: Final = {
    ChangeKind.KEY_CHANGED: (pb.WATCH_CHANGE_KIND_KEY_CHANGED, ids.KEY),
    ChangeKind.SECRET_ADDED: (pb.WATCH_CHANGE_KIND_SECRET_ADDED, ids.KEY),
    ChangeKind.IDENTITY_CHANGED: (pb.WATCH_CHANGE_KIND_IDENTITY_CHANGED, ids.IDENTITY),
    ChangeKind.API_CHANGED: (pb.WATCH_CHANGE_KIND_API_CHANGED, ids.API),
    ChangeKind.WORKSPACE_CHANGED: (pb.WATCH_CHANGE_KIND_WORKSPACE_CHANGED, ids.WORKSPACE),
}


class KeyWatch:
    """One client's watch."""

    def __init__(self, context: Context, followed: Followed, instant: Callable[[], Instant]) -> None:
        self._context = context
        self._followed = followed
        self._instant = instant
        self._seen = 0
        self._stopping = False
        self._watch: Watch | None = None

    def stop(self) -> None:
        """End the watch with ServerStopping."""
        self._stopping = True
        if self._watch is not None:
            self._watch.wake()

    async def serve(self, watchers: Watchers) -> None:
        """Send what happens until the client leaves.

        Raises CredentialInvalid and RoleTooLow once the credential no longer allows it, DatabaseUnavailable, and
        ServerStopping.
        """
        first = await self._context.read()
        if first is grpc.aio.EOF:
            return
        with watchers.watching(caller()) as watch:
            self._watch = watch
            await self._followed.caught_up()
            await self._begin(watch, first.resume_cursor)
            self._echo(watch, first)
            reader = asyncio.create_task(self._read(watch))
            reader.add_done_callback(lambda _task: watch.wake())
            try:
                while not reader.done():
                    await self._send(await watch.events(RECHECK_SECONDS))
                    if self._stopping:
                        raise errors.ServerStopping
                    await recheck()
                    watch.caller = caller()
                await self._send(await watch.events(0))
                reader.result()
            finally:
                reader.cancel()

    async def _read(self, watch: Watch) -> None:
        while (request := await self._context.read()) is not grpc.aio.EOF:
            self._echo(watch, request)

    def _echo(self, watch: Watch, request: pb.WatchKeysRequest) -> None:
        if len(request.nonce) > NONCE_MAX:
            raise errors.InvalidField.one("nonce", f"must have at most {NONCE_MAX} bytes")
        watched = None if watch.caller.all_workspaces else watch.caller.workspace_id
        watch.put(Echo(request.nonce, self._followed.confirmed_at(watched)))

    async def _begin(self, watch: Watch, cursor: str) -> None:
        """Continue behind a cursor, or begin here; what can't be continued begins with a RESET."""
        workspace_id = watch.caller.workspace_id
        self._seen = until = self._followed.revision(workspace_id)
        watch.forget()
        if not cursor:
            return
        after = self._position(cursor) if not watch.caller.all_workspaces else None
        missed = None if after is None else await self._followed.since(workspace_id, after, until)
        if missed is None:
            await self._send([Reset()])
        else:
            await self._send([applied for applied in missed if visible(watch.caller, applied)])

    async def _send(self, events: Sequence[Event]) -> None:
        for event in events:
            await self._context.write(self._message(event))

    def _message(self, event: Event) -> pb.WatchKeysResponse:
        match event:
            case Applied():
                self._seen = max(self._seen, event.revision)
                return pb.WatchKeysResponse(change=_change(event), cursor=self._cursor())
            case Echo():
                age = min(max(0.0, self._instant() - event.confirmed_at), _AGE_MAX)
                echo = pb.WatchEcho(nonce=event.nonce, confirmed_age=duration(timedelta(seconds=age)))
                return pb.WatchKeysResponse(echo=echo, cursor=self._cursor())
            case Reset():
                reset = pb.WatchChange(kind=pb.WATCH_CHANGE_KIND_RESET)
                return pb.WatchKeysResponse(change=reset, cursor=self._cursor())

    def _cursor(self) -> str:
        return f"{self._followed.epoch}.{format_id(ids.WORKSPACE, caller().workspace_id)}.{self._seen}"

    def _position(self, cursor: str) -> int | None:
        """Return the revision that a cursor stands behind, or None if it is not one of this history."""
        head, _, number = cursor.rpartition(".")
        mine, _, _ = self._cursor().rpartition(".")
        return int(number) if head == mine and number.isascii() and number.isdigit() and len(number) < 19 else None


def _change(applied: Applied) -> pb.WatchChange:
    kind, prefix = _KINDS[applied.change.kind]
    seen = Revision(applied.workspace_id, applied.revision)
    return pb.WatchChange(kind=kind, target_id=format_id(prefix, applied.change.target_id), revision=revision(seen))
