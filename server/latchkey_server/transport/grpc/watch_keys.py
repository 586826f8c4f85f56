"""WatchKeys on the wire: changes in order, nonces echoed behind them, and the credential rechecked all the while."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

import grpc

from latchkey.v1 import verify_service_pb2 as pb
from latchkey_server.domain import errors, ids
from latchkey_server.domain.freshness import Instant
from latchkey_server.domain.ids import format_id
from latchkey_server.domain.model import Caller, ChangeKind, Revision
from latchkey_server.domain.verify.model import AppliedChange
from latchkey_server.domain.verify.ports import Feed
from latchkey_server.domain.verify.watching import Echo, Event, Reset, Watch, Watchers, visible
from latchkey_server.transport.call import Context, caller, recheck, write
from latchkey_server.transport.convert.well_known import duration, revision

NONCE_MAX: Final = 64
RECHECK_SECONDS: Final = 0.5
"""How often the credential is rechecked, changes or not."""

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

    def __init__(self, context: Context, followed: Feed, instant: Callable[[], Instant], seconds: float) -> None:
        """``seconds`` is how long the watch lasts."""
        self._end = instant() + seconds
        self._context = context
        self._followed = followed
        self._instant = instant
        self._seen = 0
        self._stopping = False
        self._task = asyncio.current_task()

    def stop(self) -> None:
        """End the watch with ServerStopping, whatever it waits for."""
        self._stopping = True
        if self._task is not None:
            self._task.cancel()

    async def serve(self, watchers: Watchers) -> None:
        """Send what happens until the client leaves or the watch has lasted its time.

        Raises CredentialInvalid and RoleTooLow once the credential no longer allows it, InvalidField,
        DatabaseUnavailable, and ServerStopping.
        """
        try:
            first = await self._next()
            if first is not None:
                with watchers.watching(caller()) as watch:
                    await self._serve(watch, first)
        except asyncio.CancelledError:
            if self._stopping:
                raise errors.ServerStopping from None
            raise

    async def _serve(self, watch: Watch, first: pb.WatchKeysRequest) -> None:
        await self._followed.caught_up()
        await self._begin(watch, first.resume_cursor)
        self._echo(watch, first)
        reader = asyncio.create_task(self._read(watch))
        reader.add_done_callback(lambda _task: watch.wake())
        try:
            while not reader.done() and self._instant() < self._end:
                await self._send(await watch.events(RECHECK_SECONDS))
                await recheck()
                self._follow_binding(watch)
            await self._send(await watch.events(0))
            if reader.done():
                reader.result()
        finally:
            reader.cancel()

    async def _next(self) -> pb.WatchKeysRequest | None:
        """Return what the client sends next, or None at its end; raises InvalidField for what can't be read."""
        request = await self._context.read()
        if request is grpc.aio.EOF:
            return None
        if not isinstance(request, pb.WatchKeysRequest):
            raise errors.InvalidField.one("request", "is not a message of this method")
        return request

    async def _read(self, watch: Watch) -> None:
        while (request := await self._next()) is not None:
            self._echo(watch, request)

    def _echo(self, watch: Watch, request: pb.WatchKeysRequest) -> None:
        if len(request.nonce) > NONCE_MAX:
            raise errors.InvalidField.one("nonce", f"must have at most {NONCE_MAX} bytes")
        watched = None if watch.caller.all_workspaces else watch.caller.workspace_id
        watch.put(Echo(request.nonce, self._followed.confirmed_at(watched)))

    def _follow_binding(self, watch: Watch) -> None:
        """Begin anew when the credential was bound to other apis: the client lacks what was filtered until now."""
        if _binding(caller()) != _binding(watch.caller):
            watch.caller = caller()
            watch.reset()

    async def _begin(self, watch: Watch, cursor: str) -> None:
        """Continue behind a cursor, or begin here; what can't be continued begins with a RESET."""
        workspace_id = watch.caller.workspace_id
        until = self._followed.revision(workspace_id)
        watch.begin(until)
        after = self._position(cursor) if cursor and not watch.caller.all_workspaces else None
        missed = None if after is None else await self._followed.since(workspace_id, after, until)
        if after is not None and missed is not None:
            self._seen = after
            await self._send([applied for applied in missed if visible(watch.caller, applied)])
        elif cursor:
            await self._send([Reset(until)])
        self._seen = until

    async def _send(self, events: Sequence[Event]) -> None:
        for event in events:
            await write(self._context, self._message(event))

    def _message(self, event: Event) -> pb.WatchKeysResponse:
        match event:
            case AppliedChange():
                self._seen = event.revision
                return pb.WatchKeysResponse(change=_change(event), cursor=self._cursor())
            case Echo():
                age = min(max(0.0, self._instant() - event.confirmed_at), _AGE_MAX)
                echo = pb.WatchEcho(nonce=event.nonce, confirmed_age=duration(timedelta(seconds=age)))
                return pb.WatchKeysResponse(echo=echo, cursor=self._cursor())
            case Reset():
                self._seen = event.revision
                reset = pb.WatchChange(kind=pb.WATCH_CHANGE_KIND_RESET)
                return pb.WatchKeysResponse(change=reset, cursor=self._cursor())

    def _cursor(self) -> str:
        return f"{self._followed.epoch}.{_binding(caller())}.{self._seen}"

    def _position(self, cursor: str) -> int | None:
        """Return the revision that a cursor stands for, or None if it is not one of this history and binding."""
        head, _, number = cursor.rpartition(".")
        mine, _, _ = self._cursor().rpartition(".")
        return int(number) if head == mine and number.isascii() and number.isdigit() and len(number) < 19 else None


def _binding(watcher: Caller) -> str:
    """Return a short text for what a watcher may see."""
    apis = hashlib.sha256(b"".join(sorted(api_id.bytes for api_id in watcher.api_ids))).hexdigest()[:16]
    everything = "all" if watcher.all_workspaces else apis
    return f"{format_id(ids.WORKSPACE, watcher.workspace_id)}.{everything}"


def _change(applied: AppliedChange) -> pb.WatchChange:
    kind, prefix = _KINDS[applied.change.kind]
    seen = Revision(applied.workspace_id, applied.revision)
    return pb.WatchChange(kind=kind, target_id=format_id(prefix, applied.change.target_id), revision=revision(seen))
