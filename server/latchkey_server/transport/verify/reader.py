"""Requests of VerifyService, from bytes to questions.

Callers ask the same about many secrets. Serialisers write fields in the order of their numbers, so that the secret
comes first and the rest of the bytes is the same from call to call: it is parsed and checked once, then remembered.
"""

from itertools import islice
from typing import Final

from latchkey.rules import secret_sha256
from latchkey.v1 import verify_service_pb2 as pb
from latchkey_server.domain import ids
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.model import Revision
from latchkey_server.domain.outcomes.counts import shown_prefix
from latchkey_server.domain.validation import Violations, counted
from latchkey_server.domain.verify import request as questions
from latchkey_server.domain.verify.command import Asked, VerifyItem
from latchkey_server.domain.verify.model import Question, RateLimitCost
from latchkey_server.domain.verify.request import GROUPS_MAX, RATELIMITS_MAX, TAGS_MAX
from latchkey_server.transport import sized
from latchkey_server.transport.convert.well_known import read_duration, read_id, read_money

KEY_TAG: Final = 0x0A
ONE_BYTE: Final = 0x80
"""A varint below this is one byte, which holds the value itself."""

REST_MAX: Final = 4_096
"""Bytes behind a secret: what asks more is read anew each time."""


class QuestionMemory:
    """Questions by the bytes that ask them, bounded in number and in bytes; at a bound the older half is forgotten.

    A question takes up to twelve times the memory of its bytes.
    """

    def __init__(self, most: int = 4_096, bytes_most: int = 1024 * 1024) -> None:
        self._most = most
        self._bytes_most = bytes_most
        self._bytes = 0
        self._questions: dict[bytes, Question] = {}
        self.get = self._questions.get
        """Return the question in the bytes behind a secret, or None if it is not remembered."""

    def put(self, rest: bytes, question: Question) -> None:
        """Remember the question in the bytes behind a secret."""
        while len(self._questions) >= self._most or (self._questions and self._bytes + len(rest) > self._bytes_most):
            self._forget_older_half()
        self._bytes += len(rest) if rest not in self._questions else 0
        self._questions[rest] = question

    def _forget_older_half(self) -> None:
        for rest in list(islice(self._questions, (len(self._questions) + 1) // 2)):
            del self._questions[rest]
            self._bytes -= len(rest)


remembered: Final = QuestionMemory()


def secret_span(raw: bytes) -> tuple[int, int]:
    """Return the start and end of the secret that a serialised VerifyRequest begins with; (0, 0) if with none.

    The bytes behind it are the question. Only an ASCII secret is found: its bytes are those of its text.
    """
    if len(raw) < 3 or raw[0] != KEY_TAG:
        return 0, 0
    length, start = raw[1], 2
    if length >= ONE_BYTE:
        if raw[2] >= ONE_BYTE:
            return 0, 0
        length, start = length - ONE_BYTE + (raw[2] << 7), 3
    end = start + length
    return (start, end) if length and end <= len(raw) and raw[start:end].isascii() else (0, 0)


def read_item(raw: bytes) -> VerifyItem:
    """Return what a serialised VerifyRequest asks, or what is wrong with it."""
    try:
        return _read(raw)
    except LatchkeyError as error:
        return error


def _read(raw: bytes) -> Asked:
    request: pb.VerifyRequest = sized.read(pb.VerifyRequest.FromString, raw)
    found = Violations()
    if not request.key:
        found.add("key", "is required")
    question = _question(request, found)
    found.check()
    _remember(raw, question)
    return Asked(secret_sha256(request.key), question, shown_prefix(request.key))


def _remember(raw: bytes, question: Question) -> None:
    """Remember the bytes behind the secret, if that comes first and the rest is likely to come again."""
    start, end = secret_span(raw)
    rest = raw[end:]
    if not start or len(rest) > REST_MAX or question.operation_id:
        return
    # Of two keys in a message the second one counts.
    if not pb.VerifyRequest.FromString(rest).key:
        remembered.put(rest, question)


def _question(request: pb.VerifyRequest, found: Violations) -> Question:
    """Return what a request asks besides its secret, validated and normalised; what breaks a rule is noted."""
    question = Question(
        api_id=read_id(found, "api_id", ids.API, request.api_id) if request.HasField("api_id") else None,
        required_scopes=tuple(
            tuple(group.any_of[: GROUPS_MAX + 1])
            for group in counted(found, "required_scopes", request.required_scopes, GROUPS_MAX)
        ),
        environments=tuple(counted(found, "environments", request.environments, GROUPS_MAX)),
        client_ip=request.client_ip if request.HasField("client_ip") else None,
        model=request.model if request.HasField("model") else None,
        cost=request.cost if request.HasField("cost") else 1,
        ratelimits=tuple(
            RateLimitCost(wanted.name, wanted.cost if wanted.HasField("cost") else 1)
            for wanted in counted(found, "ratelimits", request.ratelimits, RATELIMITS_MAX)
        ),
        estimated_cost=read_money(found, "estimated_cost", request, "estimated_cost"),
        operation_id=request.operation_id,
        tags=tuple(counted(found, "tags", request.tags, TAGS_MAX)),
        dry_run=request.dry_run,
        explain=request.explain,
        omit_metadata=request.omit_metadata,
        min_revision=_read_revision(request, found),
        max_staleness=read_duration(found, "max_staleness", request, "max_staleness"),
    )
    return questions.normalized(question, found)


def _read_revision(request: pb.VerifyRequest, found: Violations) -> Revision | None:
    if not request.HasField("min_revision"):
        return None
    wanted = request.min_revision
    workspace_id = read_id(found, "min_revision.workspace_id", ids.WORKSPACE, wanted.workspace_id)
    return Revision(workspace_id, wanted.number)
