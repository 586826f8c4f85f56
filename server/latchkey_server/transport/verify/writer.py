"""Answers of VerifyService, from verdicts to bytes.

Serialised protobuf fields can be joined: what all answers about a record share is serialised once and stored with the
record, and an answer adds a few short pieces around it.
"""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from google.protobuf.struct_pb2 import Struct

from latchkey.v1 import ratelimit_pb2, verification_pb2
from latchkey_server.domain import errors, ids
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.freshness import History
from latchkey_server.domain.model import Revision
from latchkey_server.domain.turns import turn
from latchkey_server.domain.verify.command import VerifyAnswer, VerifyItem
from latchkey_server.domain.verify.model import Code, Degradation, Record, Verdict
from latchkey_server.transport.answer_size import ANSWER_MAX
from latchkey_server.transport.convert.key import model_limits_message, spend_message
from latchkey_server.transport.convert.well_known import duration, optional_timestamp, revision, struct, timestamp_into
from latchkey_server.transport.status import status_of

TAG_BYTES: Final = 6
_NO_METADATA: Final = "{}"
_FULL: Final = verification_pb2.VerifyResult(error=status_of(errors.AnswerTooLarge())).SerializeToString()
FULL_BYTES: Final = len(_FULL) + TAG_BYTES
RESULT_TAG: Final = b"\x0a"
"""Field 1, in a VerifyResult and in a VerifyResponse alike."""

MESSAGES: Final = {
    Code.VALID: "The key is valid.",
    Code.NOT_FOUND: "No such key.",
    Code.WORKSPACE_DISABLED: "The key's workspace is disabled.",
    Code.REVOKED: "The key was revoked.",
    Code.DISABLED: "The key is disabled.",
    Code.NOT_YET_VALID: "The key is not valid yet.",
    Code.EXPIRED: "The key has expired.",
    Code.ENVIRONMENT_MISMATCH: "The key belongs to another environment than the ones accepted here.",
    Code.IP_NOT_ALLOWED: "The key may not be used from this address.",
    Code.MODEL_NOT_ALLOWED: "The key may not be used with this model.",
    Code.INSUFFICIENT_SCOPE: "The key does not have the required scope.",
    Code.RATE_LIMITED: "A rate limit of the key is used up.",
    Code.SPEND_LIMIT_EXCEEDED: "The key's spend limit is reached.",
    Code.CREDITS_EXHAUSTED: "The key's credits are used up.",
}


_HEADS: Final = {
    code: verification_pb2.Verification(
        valid=code is Code.VALID, code=verification_pb2.VerifyCode.ValueType(code), message=text
    ).SerializeToString()
    for code, text in MESSAGES.items()
}


_decided = verification_pb2.Verification()


def decided_bytes(decided_time: datetime) -> bytes:
    """Return the time of a decision as part of an answer; all decisions of a millisecond share it."""
    # Serialised a thousand times a second: a new message each time would cost more than filling in the same one.
    timestamp_into(_decided.decided_time, decided_time)
    return _decided.SerializeToString()


def answer_bytes(verdict: Verdict, decided: bytes, *, omit_metadata: bool) -> bytes:
    """Return a verdict as a VerifyResponse or, which is the same, a VerifyResult."""
    record = verdict.record
    if record is None:
        return delimited((_HEADS[verdict.code], decided))
    parts = [
        *lasting_parts(verdict, record, omit_metadata, store=record.answered),
        revision_bytes(record.history, verdict.revision)[1],
        decided,
    ]
    record.answered = True
    if verdict.degraded or verdict.checks or record.metered:
        parts.append(_particular(verdict, record))
    return delimited(parts)


def lasting_parts(verdict: Verdict, record: Record, omit_metadata: bool, *, store: bool) -> tuple[bytes, bytes, bytes]:
    """Return the parts of an answer that neither its moment nor the workspace's revision alters.

    What all answers about a record share is one of them; ``store`` leaves it with the record.
    """
    return _HEADS[verdict.code], _common(record, omit_metadata, store), _cacheable(verdict.cacheable_for)


async def fitting(items: Sequence[VerifyItem], answers: Sequence[VerifyAnswer], room: int = ANSWER_MAX) -> list[bytes]:
    """Return VerifyResults, in order, as many as fit into so many bytes if each of the rest becomes an AnswerTooLarge.

    Others have their turn meanwhile.
    """
    results: list[bytes] = []
    room, decided_time, decided = room - len(items) * FULL_BYTES, None, b""
    for item, answer in zip(items, answers, strict=True):
        await turn()
        if isinstance(answer, LatchkeyError):
            result = verification_pb2.VerifyResult(error=status_of(answer)).SerializeToString()
        else:
            if answer.decided_time is not decided_time:
                decided_time, decided = answer.decided_time, decided_bytes(answer.decided_time)
            omit_metadata = not isinstance(item, LatchkeyError) and item.question.omit_metadata
            result = answer_bytes(answer, decided, omit_metadata=omit_metadata)
        room -= len(result) + TAG_BYTES - FULL_BYTES
        if room < 0:
            break
        results.append(result)
    return results


def filled(results: list[bytes], count: int) -> list[bytes]:
    """Return as many results as there were items: AnswerTooLarge for those that did not fit."""
    return results + [_FULL] * (count - len(results))


def _common(record: Record, omit_metadata: bool, store: bool) -> bytes:
    """Return what all answers about a record share, with or without metadata."""
    bare = omit_metadata and (record.metadata, record.identity_metadata) != (_NO_METADATA, _NO_METADATA)
    stored = record.common_bare if bare else record.common
    if stored is not None:
        return stored
    shown = verification_pb2.Verification(key=_verified_key(record, bare), ratelimits=_ratelimits(record))
    common = shown.SerializeToString()
    if store and bare:
        record.common_bare = common
    elif store:
        record.common = common
    return common


def revision_bytes(history: History, number: int) -> tuple[int, bytes]:
    """Return a workspace's revision and its bytes; it changes seldom, and all records of the workspace share it."""
    if history.serialized is None or history.serialized[0] != number:
        message = verification_pb2.Verification(revision=revision(Revision(history.workspace_id, number)))
        history.serialized = (number, message.SerializeToString())
    return history.serialized


@lru_cache(maxsize=1_024)
def _cacheable(cacheable_for: timedelta) -> bytes:
    return verification_pb2.Verification(cacheable_for=duration(cacheable_for)).SerializeToString()


def _particular(verdict: Verdict, record: Record) -> bytes:
    """Return what belongs to one answer alone."""
    message = verification_pb2.Verification(spend=spend_message(record.spend), degraded=_degraded(verdict.degraded))
    if record.credits is not None:
        message.credits_remaining = record.credits.remaining
    message.checks.extend(
        verification_pb2.Check(
            code=verification_pb2.VerifyCode.ValueType(check.code),
            verdict=verification_pb2.CheckVerdict.ValueType(check.verdict),
            input=check.input,
        )
        for check in verdict.checks
    )
    return message.SerializeToString()


def _degraded(degraded: Sequence[Degradation]) -> list[verification_pb2.Degradation.ValueType]:
    return [verification_pb2.Degradation.ValueType(degradation) for degradation in degraded]


def delimited(parts: Sequence[bytes]) -> bytes:
    """Return a submessage made of joined parts, with its tag and length in front."""
    return b"".join((RESULT_TAG, varint(sum(map(len, parts))), *parts))


@lru_cache(maxsize=16_384)
def varint(number: int) -> bytes:
    """Return a number as a protobuf varint."""
    if number < 0x80:
        return bytes((number,))
    return bytes((number & 0x7F | 0x80,)) + varint(number >> 7)


def _ratelimits(record: Record) -> list[ratelimit_pb2.RateLimitState]:
    return [ratelimit_pb2.RateLimitState(name=limit.name, limit=limit.limit) for limit in record.ratelimits]


def _verified_key(record: Record, omit_metadata: bool) -> verification_pb2.VerifiedKey:
    key = record.key
    fields = key.fields
    return verification_pb2.VerifiedKey(
        workspace_id=ids.format_id(ids.WORKSPACE, key.workspace_id),
        key_id=ids.format_id(ids.KEY, key.key_id),
        api_id=ids.format_id(ids.API, key.api_id),
        name=fields.name,
        environment=fields.environment,
        prefix=key.prefix,
        identity=_identity(record, omit_metadata),
        member=fields.member,
        scopes=fields.scopes,
        metadata=None if omit_metadata else _struct(record.metadata),
        model_limits=model_limits_message(fields.model_limits),
        allow_ips=fields.allow_ips,
        enabled=fields.enabled,
        not_before_time=optional_timestamp(fields.not_before_time),
        expire_time=optional_timestamp(fields.expire_time),
        guardrail_id=fields.guardrail_id,
        firewall_policy_id=fields.firewall_policy_id,
        secret_end_time=optional_timestamp(record.secret_end_time),
        revoke_time=optional_timestamp(key.revocation.revoke_time if key.revocation else None),
    )


def _identity(record: Record, omit_metadata: bool) -> verification_pb2.VerifiedIdentity | None:
    identity = record.identity
    if identity is None:
        return None
    metadata = None if omit_metadata else _struct(record.identity_metadata)
    return verification_pb2.VerifiedIdentity(external_id=identity.external_id, metadata=metadata)


def _struct(text: str) -> Struct | None:
    return None if text == _NO_METADATA else struct(json.loads(text))
