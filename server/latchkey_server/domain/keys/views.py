"""Keys as KeyService returns them: the facts, and what is derived from them or stored beside them."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

from latchkey_server.domain.keys.ports import Transaction
from latchkey_server.domain.keys.status import key_status
from latchkey_server.domain.limits.credits import credit_state
from latchkey_server.domain.limits.spend import spend_state, spend_window
from latchkey_server.domain.model import Key, KeyView
from latchkey_server.domain.turns import turn

SECRET_MEMORY = timedelta(days=30)
"""How long an ended secret is still described."""


async def view_key(tx: Transaction, key: Key, now: datetime) -> KeyView:
    """Return one key as it is now."""
    return (await view_keys(tx, key.workspace_id, [key], now))[0]


async def view_keys(tx: Transaction, workspace_id: UUID, keys: Sequence[Key], now: datetime) -> list[KeyView]:
    """Return keys of one workspace as they are now, in order."""
    key_ids = [key.key_id for key in keys]
    secrets = await tx.secrets.of(workspace_id, key_ids)
    last_used = await tx.keys.last_used(workspace_id, key_ids)
    balances = await tx.keys.balances(workspace_id, [key.key_id for key in keys if key.fields.credits])
    spent = await tx.keys.net_spend(
        workspace_id,
        {
            key.key_id: spend_window(key.fields.spend_limit.reset_interval, now)[0]
            for key in keys
            if key.fields.spend_limit
        },
    )
    views = []
    for key in keys:
        await turn()
        credits = credit_state(key.fields.credits, balances.get(key.key_id), now)
        spend = spend_state(key.fields.spend_limit, spent.get(key.key_id, 0), now)
        shown = (
            secret
            for secret in secrets.get(key.key_id, ())
            if secret.end_time is None or now - secret.end_time < SECRET_MEMORY
        )
        status = key_status(key, credits, spend, now)
        views.append(KeyView(key, tuple(shown), status, credits, spend, last_used.get(key.key_id)))
    return views
