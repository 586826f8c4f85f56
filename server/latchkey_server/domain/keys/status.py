"""The status of a key: what its facts and budgets amount to at one instant (spec §3)."""

from datetime import datetime

from latchkey.rules import begun, unexpired
from latchkey_server.domain.model import CreditState, Key, KeyStatus, SpendState


def key_status(key: Key, credits: CreditState | None, spend: SpendState | None, now: datetime) -> KeyStatus:
    """Return what the key's facts and budgets amount to at one instant; the first that applies."""
    fields = key.fields
    if key.delete_time is not None:
        return KeyStatus.DELETED
    if key.revocation is not None:
        return KeyStatus.REVOKED
    if not fields.enabled:
        return KeyStatus.DISABLED
    if not begun(fields.not_before_time, now):
        return KeyStatus.NOT_YET_VALID
    if not unexpired(fields.expire_time, now):
        return KeyStatus.EXPIRED
    if (credits and credits.remaining <= 0) or (spend and spend.remaining <= 0):
        return KeyStatus.EXHAUSTED
    return KeyStatus.ACTIVE
