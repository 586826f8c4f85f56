"""A call of which everything is at hand, caller included, need not pass the layers one by one.

Nothing is left out: it gets its id, its caller is authenticated, it is counted and timed. What can't be answered so,
or would be refused, goes the long way.
"""

import time
from collections.abc import Callable, Mapping

from latchkey_server.domain.access import Caller
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.verifier import ITEMS_MAX
from latchkey_server.observability import Metrics
from latchkey_server.transport.at_hand import AtHand
from latchkey_server.transport.interceptors import Authentication, new_call_id
from latchkey_server.transport.raw_frames import read_batch, write_batch
from latchkey_server.transport.stack import Context, current_metadata
from latchkey_server.transport.status import REQUEST_ID_KEY

_SERVICE = "/latchkey.v1.VerifyService/"

Answer = Callable[[bytes, Caller], bytes | None]


class Shortcut:
    """Answers such calls of one method."""

    def __init__(self, name: str, answer: Answer, authentication: Authentication, metrics: Metrics) -> None:
        self._name = name
        self._answer = answer
        self._authentication = authentication
        self._observe = metrics.calls(_SERVICE + name)

    def __call__(self, request: bytes, context: Context) -> bytes | None:
        begun = time.perf_counter()
        authorization = asked_id = None
        for name, value in current_metadata.get():
            if name == "authorization":
                authorization = authorization or value
            elif name == "x-request-id":
                asked_id = asked_id or value
        caller = self._authentication.at_once(self._name, authorization)
        if caller is None:
            return None
        response = self._answer(request, caller)
        if response is not None:
            context.set_trailing_metadata(((REQUEST_ID_KEY, new_call_id(asked_id)),))
            self._observe("OK", time.perf_counter() - begun)
        return response


def shortcuts(at_hand: AtHand, authentication: Authentication, metrics: Metrics) -> Mapping[str, Shortcut]:
    """Return the shortcuts by method."""

    def batch(raw: bytes, caller: Caller) -> bytes | None:
        try:
            items = read_batch(raw).items
        except LatchkeyError:
            return None
        results = at_hand.results(items, caller) if 1 <= len(items) <= ITEMS_MAX else None
        return None if results is None else write_batch(results)

    answers = {"Verify": at_hand.result, "BatchVerify": batch}
    return {_SERVICE + name: Shortcut(name, answer, authentication, metrics) for name, answer in answers.items()}
