"""The fast path past the layers: calls of which everything is cached, caller included, skip them.

Nothing is left out: a call gets its id, its caller is authenticated, it is counted and timed. Calls that can't be
answered so, or would be refused, take the slow path.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from typing import Any

import grpc

from latchkey.rules import secret_sha256
from latchkey_server.domain.access.credentials import Credential, bearer_text
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.freshness import HARD_BOUND, NEVER, Instant
from latchkey_server.domain.model import Caller
from latchkey_server.observability import Metrics
from latchkey_server.transport.authentication import Authentication
from latchkey_server.transport.grpc.stack import ServicerContext, Stack
from latchkey_server.transport.layers import call_ids
from latchkey_server.transport.sized import COUNTED_FROM
from latchkey_server.transport.status import REQUEST_ID_KEY
from latchkey_server.transport.verify.fast_path import AT_ONCE_MAX, FastPath
from latchkey_server.transport.verify.frames import read_batch, write_batch

_SERVICE = "/latchkey.v1.VerifyService/"
# Callers are few, and gRPC keeps their headers in its own tables for as long as their connections last.
_CALLERS_MAX = 256

FastAnswer = Callable[[bytes, Caller, Instant], bytes | None]
"""Gives a call's response without waiting, or None; never raises."""


class FastMethod(grpc.GenericRpcHandler):
    """Answers such calls of one method, by a handler for each caller, which is made when the caller first calls."""

    def __init__(
        self,
        name: str,
        answer: FastAnswer,
        authentication: Authentication,
        metrics: Metrics,
        instant: Callable[[], Instant],
        stack: Stack,
        tick: float,
    ) -> None:
        self.name = name
        self.method = _SERVICE + name
        self.answer = answer
        self.authentication = authentication
        self.timing = metrics.calls.timing(self.method, "OK")
        self.instant = instant
        self.stack = stack
        self.tick = tick
        self._callers: dict[str | None, tuple[bytes, Any]] = {}

    def service(self, handler_call_details: Any) -> Any:
        """Return the caller's handler, or None for another method and for an unknown caller."""
        if handler_call_details.method != self.method:
            return None
        authorization = asked_id = None
        for name, value in handler_call_details.invocation_metadata:
            if name == "authorization":
                authorization = authorization or value
            elif name == "x-request-id":
                asked_id = asked_id or value
        known = self._callers.get(authorization)
        if known is None:
            self._admit(authorization)
            return None
        return known[1] if asked_id is None else self._handler(known[0], asked_id)

    def _admit(self, authorization: str | None) -> None:
        """Make a handler for a cached credential, so that the next call need not hash it again."""
        with suppress(LatchkeyError):
            sha256 = secret_sha256(bearer_text(authorization))
            if self.authentication.knows(sha256, self.instant()):
                # They are so seldom too many that tracking which to evict at each call is not worth it.
                if len(self._callers) >= _CALLERS_MAX:
                    self._callers.clear()
                self._callers[authorization] = (sha256, self._handler(sha256, None))

    def _handler(self, sha256: bytes, asked_id: str | None) -> Any:
        return grpc.unary_unary_rpc_method_handler(_Handler(self, sha256, asked_id))


class _Handler:
    """Answers the calls of one caller.

    An awaitable object, not a function: gRPC checks at every call whether its handler is asynchronous, and of a
    function finds out by a slow inspection.
    """

    __slots__ = (
        "_add",
        "_answer",
        "_authentication",
        "_caller",
        "_credential",
        "_ids",
        "_instant",
        "_method",
        "_name",
        "_sha256",
        "_stack",
        "_tick",
        "_until",
    )

    def __init__(self, method: FastMethod, sha256: bytes, asked_id: str | None) -> None:
        self._name, self._method = method.name, method.method
        self._authentication, self._sha256 = method.authentication, sha256
        self._credential: Credential | None = None
        self._caller: Caller | None = None
        self._tick, self._until = method.tick, NEVER
        self._answer, self._instant = method.answer, method.instant
        self._ids = call_ids(asked_id)
        self._add = method.timing.add
        self._stack = method.stack

    def __await__(self) -> Generator[None, None, None]:
        raise TypeError("a handler is called; that it could be awaited is for gRPC to see, not to do")

    async def __call__(self, request: bytes, context: ServicerContext) -> Any:
        at = self._instant()
        credential = self._credential
        if (
            at < self._until
            and credential is not None
            and credential.cached
            and at - credential.history.confirmed_at <= HARD_BOUND
        ):
            caller = self._caller
        else:
            caller = self._authenticate(at)
        response = None if caller is None else self._answer(request, caller, at)
        if response is None:
            return await self._stack.answer(self._method, request, context)
        context.set_trailing_metadata(((REQUEST_ID_KEY, next(self._ids)),))
        self._add(self._instant() - at)
        return response

    def _authenticate(self, at: Instant) -> Caller | None:
        """Return the caller if the credential is cached: good for a tick, unless dropped or no longer confirmed."""
        credential = self._credential = self._authentication.good(self._sha256, self._name, at)
        self._caller = credential.caller if credential else None
        self._until = at + self._tick
        return self._caller


def fast_methods(
    fast_path: FastPath,
    authentication: Authentication,
    metrics: Metrics,
    instant: Callable[[], Instant],
    stack: Stack,
    tick: float = 0.0,
) -> Sequence[FastMethod]:
    """Return what answers before the layers of ``stack``; the most frequent method first.

    ``tick`` is for how many seconds the calls of one caller share one check of its credential.
    """

    def batch(raw: bytes, caller: Caller, at: Instant) -> bytes | None:
        if len(raw) > COUNTED_FROM:
            return None
        try:
            items = read_batch(raw).items
        except LatchkeyError:
            return None
        results = fast_path.results(items, caller, at) if 1 <= len(items) <= AT_ONCE_MAX else None
        return None if results is None else write_batch(results)

    answers = {"Verify": fast_path.result, "BatchVerify": batch}
    return [FastMethod(name, answer, authentication, metrics, instant, stack, tick) for name, answer in answers.items()]
