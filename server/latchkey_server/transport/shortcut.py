"""A Verify of which everything is at hand, caller included, need not pass the layers one by one.

Nothing is left out: it gets its id, its caller is authenticated, it is counted and timed. What can't be answered so,
or would be refused, goes the long way.
"""

import time

from latchkey_server.observability import Metrics
from latchkey_server.transport.at_hand import AtHand
from latchkey_server.transport.interceptors import Authentication, Context, metadata_of, new_call_id
from latchkey_server.transport.status import REQUEST_ID_KEY

VERIFY = "/latchkey.v1.VerifyService/Verify"


class VerifyShortcut:
    """Answers such calls of Verify."""

    def __init__(self, at_hand: AtHand, authentication: Authentication, metrics: Metrics) -> None:
        self._at_hand = at_hand
        self._authentication = authentication
        self._observe = metrics.calls(VERIFY)

    def __call__(self, request: bytes, context: Context) -> bytes | None:
        begun = time.perf_counter()
        caller = self._authentication.at_once("Verify", metadata_of("authorization"))
        response = self._at_hand.result(request, caller) if caller is not None else None
        if response is not None:
            context.set_trailing_metadata(((REQUEST_ID_KEY, new_call_id(metadata_of("x-request-id"))),))
            self._observe("OK", time.perf_counter() - begun)
        return response
