"""What audit records of a resource: its facts as JSON, without secrets."""

import dataclasses
import enum
from collections.abc import Mapping
from datetime import datetime, timedelta
from uuid import UUID

from latchkey_server.domain import ids
from latchkey_server.domain.model import Api, Identity, Json, Key, ManagementKey, Secret, Workspace

_PREFIXES = {
    "workspace_id": ids.WORKSPACE,
    "api_id": ids.API,
    "api_ids": ids.API,
    "default_api_id": ids.API,
    "key_id": ids.KEY,
    "identity_id": ids.IDENTITY,
    "management_key_id": ids.MANAGEMENT_KEY,
    "secret_id": ids.SECRET,
}
_SECRET_FIELDS = {"hash", "pepper_id", "holder", "holder_id"}

Resource = Workspace | Api | Identity | Key | ManagementKey | Secret


def snapshot(resource: Resource) -> Json:
    """Return the facts of a resource as JSON; hashes and peppers are left out."""
    facts: Json = {
        field.name: _plain(field.name, getattr(resource, field.name))
        for field in dataclasses.fields(resource)
        if field.name not in _SECRET_FIELDS
    }
    nested = facts.pop("fields", {})
    return {**facts, **nested}


def _plain(name: str, value: object) -> object:
    if isinstance(value, UUID):
        return ids.format_id(_PREFIXES[name], value)
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return f"{value.total_seconds():.6f}".rstrip("0").rstrip(".") + "s"
    if isinstance(value, frozenset):
        return sorted(str(_plain(name, item)) for item in value)
    if isinstance(value, tuple):
        return [_plain(name, item) for item in value]
    if isinstance(value, Mapping):
        return dict(value)
    if dataclasses.is_dataclass(value):
        return {field.name: _plain(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)}
    return value
