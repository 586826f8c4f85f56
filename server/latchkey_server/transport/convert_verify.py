"""Questions and verdicts between the wire and the domain."""

from collections.abc import Iterable, Sequence
from typing import Final

from latchkey.rules import secret_sha256
from latchkey.v1 import ratelimit_pb2, verification_pb2, verify_service_pb2
from latchkey_server.domain import errors, ids, questions
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.model import Revision
from latchkey_server.domain.validation import Violations
from latchkey_server.domain.verifier import Answer, Item
from latchkey_server.domain.verify import Code, Question, RateLimitCost, Record, Verdict
from latchkey_server.transport.convert_key import model_limits_message, spend_message
from latchkey_server.transport.status import status_of
from latchkey_server.transport.wire import (
    duration,
    optional_timestamp,
    read_duration,
    read_id,
    read_money,
    revision,
    struct,
    timestamp,
)

ANSWER_MAX: Final = 3_670_016
"""Bytes at which a batch's answer stops (3.5 MiB): clients receive 4 MiB by default."""

_TAG_BYTES = 6
_FULL = verification_pb2.VerifyResult(error=status_of(errors.AnswerTooLarge()))
_FULL_BYTES = _FULL.ByteSize() + _TAG_BYTES

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


def read_question(request: verify_service_pb2.VerifyRequest) -> Question:
    """Return the question that a request asks, validated and normalised; raises InvalidField."""
    found = Violations()
    if not request.key:
        found.add("key", "is required")
    question = Question(
        sha256=secret_sha256(request.key),
        api_id=read_id(found, "api_id", ids.API, request.api_id) if request.HasField("api_id") else None,
        required_scopes=tuple(tuple(group.any_of) for group in request.required_scopes),
        environments=tuple(request.environments),
        client_ip=request.client_ip if request.HasField("client_ip") else None,
        model=request.model if request.HasField("model") else None,
        cost=request.cost if request.HasField("cost") else 1,
        ratelimits=tuple(
            RateLimitCost(wanted.name, wanted.cost if wanted.HasField("cost") else 1) for wanted in request.ratelimits
        ),
        estimated_cost=read_money(found, "estimated_cost", request, "estimated_cost"),
        operation_id=request.operation_id,
        tags=tuple(request.tags),
        dry_run=request.dry_run,
        explain=request.explain,
        omit_metadata=request.omit_metadata,
        min_revision=_read_revision(request, found),
        max_staleness=read_duration(found, "max_staleness", request, "max_staleness"),
    )
    question = questions.normalized(question, found)
    found.check()
    return question


def read_items(requests: Iterable[verify_service_pb2.VerifyRequest]) -> list[Item]:
    """Return the questions of a batch; what was wrong with an item stands in its place."""
    return [_read_item(request) for request in requests]


def verification(question: Question, verdict: Verdict) -> verification_pb2.Verification:
    """Return a verdict as it travels."""
    message = verification_pb2.Verification(
        valid=verdict.code is Code.VALID,
        code=verification_pb2.VerifyCode.ValueType(verdict.code),
        message=MESSAGES[verdict.code],
        decided_time=timestamp(verdict.decided_time),
    )
    if verdict.record is not None:
        _add_record(message, question, verdict, verdict.record)
    return message


def fitting(items: Sequence[Item], answers: Sequence[Answer]) -> list[verification_pb2.VerifyResult]:
    """Return a result for each item as long as the answer has room for it and for saying that the rest has none."""
    results: list[verification_pb2.VerifyResult] = []
    size = 0
    for item, answer in zip(items, answers, strict=True):
        message = _result(item, answer)
        size += message.ByteSize() + _TAG_BYTES
        if size + (len(items) - len(results) - 1) * _FULL_BYTES > ANSWER_MAX:
            break
        results.append(message)
    return results + [_FULL] * (len(items) - len(results))


def _result(item: Item, answer: Answer) -> verification_pb2.VerifyResult:
    """Return one item's answer in a batch."""
    if isinstance(item, LatchkeyError):
        return verification_pb2.VerifyResult(error=status_of(item))
    if isinstance(answer, LatchkeyError):
        return verification_pb2.VerifyResult(error=status_of(answer))
    return verification_pb2.VerifyResult(verification=verification(item, answer))


def _add_record(message: verification_pb2.Verification, question: Question, verdict: Verdict, record: Record) -> None:
    message.key.CopyFrom(_verified_key(record, question.omit_metadata))
    message.ratelimits.extend(
        ratelimit_pb2.RateLimitState(name=limit.name, limit=limit.limit) for limit in record.ratelimits
    )
    if record.credits is not None:
        message.credits_remaining = record.credits.remaining
    if spend := spend_message(record.spend):
        message.spend.CopyFrom(spend)
    message.revision.CopyFrom(revision(Revision(record.key.workspace_id, record.revision)))
    message.cacheable_for.CopyFrom(duration(verdict.cacheable_for))
    message.degraded.extend(verification_pb2.Degradation.ValueType(degradation) for degradation in verdict.degraded)
    message.checks.extend(
        verification_pb2.Check(
            code=verification_pb2.VerifyCode.ValueType(check.code),
            verdict=verification_pb2.CheckVerdict.ValueType(check.verdict),
            input=check.input,
        )
        for check in verdict.checks
    )


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
        metadata=struct(fields.metadata) if fields.metadata and not omit_metadata else None,
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
    metadata = struct(identity.metadata) if identity.metadata and not omit_metadata else None
    return verification_pb2.VerifiedIdentity(external_id=identity.external_id, metadata=metadata)


def _read_revision(request: verify_service_pb2.VerifyRequest, found: Violations) -> Revision | None:
    if not request.HasField("min_revision"):
        return None
    wanted = request.min_revision
    workspace_id = read_id(found, "min_revision.workspace_id", ids.WORKSPACE, wanted.workspace_id)
    return Revision(workspace_id, wanted.number)


def _read_item(request: verify_service_pb2.VerifyRequest) -> Item:
    try:
        return read_question(request)
    except LatchkeyError as error:
        return error
