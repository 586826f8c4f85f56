"""Keys between the wire and the domain."""

from collections.abc import Sequence
from typing import Any, Final, Literal
from uuid import UUID

from latchkey.money import money_of
from latchkey.v1 import environment_pb2, key_pb2, key_service_pb2
from latchkey_server.domain import ids
from latchkey_server.domain.errors import LatchkeyError
from latchkey_server.domain.keys.fields import ENTRIES_MAX
from latchkey_server.domain.keys.importing import ITEMS_MAX, ImportItem
from latchkey_server.domain.keys.maker import KeyDraft
from latchkey_server.domain.keys.ports import KeyFilter
from latchkey_server.domain.model import (
    CreditRefill,
    Credits,
    CreditState,
    EnvironmentCount,
    KeyFields,
    KeyStatus,
    KeyView,
    ModelLimits,
    RefillInterval,
    SpendLimit,
    SpendReset,
    SpendState,
    etag_of,
)
from latchkey_server.domain.turns import in_slices
from latchkey_server.domain.validation import Violations, check_storable, counted
from latchkey_server.transport import sized
from latchkey_server.transport.convert.ratelimit import ratelimit_messages, read_ratelimits
from latchkey_server.transport.convert.report import read_labels
from latchkey_server.transport.convert.secret import revocation_message, secret_messages
from latchkey_server.transport.convert.well_known import (
    optional_timestamp,
    read_enum,
    read_id,
    read_money,
    read_struct,
    read_time,
    struct,
    timestamp,
)
from latchkey_server.transport.sized import batch_reader

MUTABLE: Final = (
    "name",
    "environment",
    "enabled",
    "expire_time",
    "not_before_time",
    "model_limits",
    "model_limits.enabled",
    "model_limits.models",
    "allow_ips",
    "scopes",
    "spend_limit",
    "spend_limit.amount",
    "spend_limit.reset_interval",
    "credits",
    "credits.amount",
    "credits.refill",
    "ratelimits",
    "guardrail_id",
    "firewall_policy_id",
    "external_id",
    "member",
    "metadata",
)
"""The paths that UpdateKey's mask may name."""


def read_key_fields(message: key_pb2.Key, found: Violations) -> KeyFields:
    """Return the editable fields of a key message; what can't be read is noted."""
    return KeyFields(
        name=message.name,
        environment=message.environment,
        enabled=message.enabled if message.HasField("enabled") else True,
        expire_time=read_time(found, "expire_time", message, "expire_time"),
        not_before_time=read_time(found, "not_before_time", message, "not_before_time"),
        model_limits=_read_model_limits(message, found),
        allow_ips=tuple(counted(found, "allow_ips", message.allow_ips, ENTRIES_MAX)),
        scopes=tuple(counted(found, "scopes", message.scopes, ENTRIES_MAX)),
        spend_limit=_read_spend_limit(message, found),
        credits=_read_credits(message, found),
        ratelimits=read_ratelimits(message.ratelimits, found),
        guardrail_id=message.guardrail_id,
        firewall_policy_id=message.firewall_policy_id,
        external_id=message.external_id,
        member=message.member,
        metadata=read_struct(found, "metadata", message.metadata),
    )


def read_draft(message: key_pb2.Key) -> KeyDraft:
    """Return the key that a message asks for; what can't be read is noted in it."""
    found = Violations("key")
    fields = read_key_fields(message, found)
    api_id = read_id(found, "api_id", ids.API, message.api_id) if message.api_id else None
    member = message.member if message.HasField("member") else None
    return KeyDraft(fields=fields, member=member, api_id=api_id, prefix=message.prefix, found=tuple(found.found))


read_import: Final = batch_reader(key_service_pb2.ImportKeysRequest.DESCRIPTOR, ITEMS_MAX)
"""Reads an ImportKeysRequest whose items stay bytes."""


async def canonical_import(request: Any) -> Any:
    """Return an ImportKeysRequest as its content is compared by: a client may write the same maps in another order.

    Others have their turn meanwhile. Without a request_id nothing is compared.
    """
    if request.request_id:
        items = await in_slices(_canonical_item, request.items)
        del request.items[:]
        request.items.extend(items)
    return request


def _canonical_item(raw: bytes) -> bytes:
    try:
        item: key_service_pb2.ImportKeyItem = sized.read(key_service_pb2.ImportKeyItem.FromString, raw)
    except LatchkeyError:
        return raw
    return item.SerializeToString(deterministic=True)


def read_import_item(raw: bytes) -> ImportItem | LatchkeyError:
    """Return the key to import that a serialised message holds, or what is wrong with it."""
    try:
        item: key_service_pb2.ImportKeyItem = sized.read(key_service_pb2.ImportKeyItem.FromString, raw)
    except LatchkeyError as error:
        return error
    return ImportItem(read_draft(item.key), item.secret_sha256, item.mask_hint)


def fields_message(fields: KeyFields) -> key_pb2.Key:
    """Return a key message that holds the editable fields only."""
    return key_pb2.Key(
        name=fields.name or None,
        environment=fields.environment,
        enabled=fields.enabled,
        expire_time=optional_timestamp(fields.expire_time),
        not_before_time=optional_timestamp(fields.not_before_time),
        model_limits=model_limits_message(fields.model_limits),
        allow_ips=fields.allow_ips,
        scopes=fields.scopes,
        spend_limit=_spend_limit_message(fields.spend_limit),
        credits=_credits_message(fields.credits),
        ratelimits=ratelimit_messages(fields.ratelimits),
        guardrail_id=fields.guardrail_id or None,
        firewall_policy_id=fields.firewall_policy_id or None,
        external_id=fields.external_id or None,
        member=fields.member or None,
        metadata=struct(fields.metadata) if fields.metadata else None,
    )


def key_message(view: KeyView) -> key_pb2.Key:
    """Return a key as KeyService returns it."""
    key = view.key
    message = fields_message(key.fields)
    message.MergeFrom(
        key_pb2.Key(
            key_id=ids.format_id(ids.KEY, key.key_id),
            workspace_id=ids.format_id(ids.WORKSPACE, key.workspace_id),
            api_id=ids.format_id(ids.API, key.api_id),
            prefix=key.prefix,
            identity_id=ids.format_id(ids.IDENTITY, key.identity_id) if key.identity_id else "",
            status=key_pb2.KeyStatus.ValueType(view.status),
            revocation=revocation_message(key.revocation),
            secrets=secret_messages(view.secrets),
            credit_balance=credit_message(view.credits),
            spend=spend_message(view.spend),
            last_used_time=optional_timestamp(view.last_used_time),
            etag=etag_of(key.revision),
            create_time=timestamp(key.create_time),
            update_time=timestamp(key.update_time),
            delete_time=optional_timestamp(key.delete_time),
        )
    )
    return message


def model_limits_message(limits: ModelLimits | None) -> key_pb2.ModelLimits | None:
    """Return model limits as messages."""
    return None if limits is None else key_pb2.ModelLimits(enabled=limits.enabled, models=limits.models)


def credit_message(credits: CreditState | None) -> key_pb2.CreditBalance | None:
    """Return a credit balance as a message."""
    if credits is None:
        return None
    return key_pb2.CreditBalance(
        remaining=credits.remaining, next_refill_time=optional_timestamp(credits.next_refill_time)
    )


def environment_count_message(count: EnvironmentCount) -> environment_pb2.EnvironmentCount:
    """Return how many keys carry a label as a message."""
    return environment_pb2.EnvironmentCount(
        environment=count.environment, unlabeled=not count.environment, key_count=count.key_count
    )


def spend_message(spend: SpendState | None) -> key_pb2.SpendState | None:
    """Return the state of a spend cap as a message."""
    if spend is None:
        return None
    return key_pb2.SpendState(
        limit=money_of(spend.limit),
        spent=money_of(spend.spent),
        reserved=money_of(spend.reserved),
        remaining=money_of(spend.remaining),
        window_end=optional_timestamp(spend.window_end),
    )


def read_key_filter(request: key_service_pb2.ListKeysRequest) -> KeyFilter:
    """Return which keys a list asks for; raises InvalidField."""
    found = Violations()
    api_ids: Sequence[UUID] = [read_id(found, "api_id", ids.API, request.api_id)] if request.api_id else []
    asked = counted(found, "statuses", request.statuses, len(KeyStatus))
    statuses = frozenset(read_enum(found, f"statuses[{index}]", KeyStatus, value) for index, value in enumerate(asked))
    wanted = KeyFilter(
        api_ids=frozenset(api_ids),
        labels=read_labels(request.environments, found, "environments"),
        unlabeled=request.environments.unlabeled,
        external_id=_asked(found, request, "external_id"),
        member=_asked(found, request, "member"),
        statuses=statuses,
        prefix=_asked(found, request, "prefix"),
        expire_before=read_time(found, "expire_before_time", request, "expire_before_time"),
        unused_since=read_time(found, "unused_since_time", request, "unused_since_time"),
        show_deleted=request.show_deleted,
    )
    found.check()
    return wanted


def _asked(
    found: Violations, request: key_service_pb2.ListKeysRequest, name: Literal["external_id", "member", "prefix"]
) -> str | None:
    return check_storable(found, name, getattr(request, name)) if request.HasField(name) else None


def _read_model_limits(message: key_pb2.Key, found: Violations) -> ModelLimits | None:
    if not message.HasField("model_limits"):
        return None
    models = counted(found, "model_limits.models", message.model_limits.models, ENTRIES_MAX)
    return ModelLimits(message.model_limits.enabled, tuple(models))


def _read_spend_limit(message: key_pb2.Key, found: Violations) -> SpendLimit | None:
    if not message.HasField("spend_limit"):
        return None
    cap = message.spend_limit
    amount = read_money(found, "spend_limit.amount", cap, "amount") or 0
    interval = read_enum(found, "spend_limit.reset_interval", SpendReset, cap.reset_interval, SpendReset.NONE)
    return SpendLimit(amount, interval)


def _spend_limit_message(limit: SpendLimit | None) -> key_pb2.SpendLimit | None:
    if limit is None:
        return None
    interval = key_pb2.SpendReset.ValueType(limit.reset_interval)
    return key_pb2.SpendLimit(amount=money_of(limit.amount), reset_interval=interval)


def _read_credits(message: key_pb2.Key, found: Violations) -> Credits | None:
    if not message.HasField("credits"):
        return None
    if not message.credits.HasField("refill"):
        return Credits(message.credits.amount, None)
    refill = message.credits.refill
    interval = read_enum(found, "credits.refill.interval", RefillInterval, refill.interval)
    if refill.HasField("day_of_month") and interval is RefillInterval.DAILY:
        found.add("credits.refill.day_of_month", "must not be given with a DAILY refill")
    day = refill.day_of_month if refill.HasField("day_of_month") else 1
    return Credits(message.credits.amount, CreditRefill(interval, refill.amount, day))


def _credits_message(credits: Credits | None) -> key_pb2.Credits | None:
    if credits is None:
        return None
    refill = credits.refill
    if refill is None:
        return key_pb2.Credits(amount=credits.amount)
    return key_pb2.Credits(
        amount=credits.amount,
        refill=key_pb2.CreditRefill(
            interval=key_pb2.RefillInterval.ValueType(refill.interval),
            amount=refill.amount,
            day_of_month=refill.day_of_month if refill.interval is RefillInterval.MONTHLY else None,
        ),
    )
