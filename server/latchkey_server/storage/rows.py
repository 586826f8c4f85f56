"""What the rows of keys and of management keys have in common."""

from latchkey_server.domain.model import Revocation, RevokeReason
from latchkey_server.storage.database import Row


def revocation_of(row: Row) -> Revocation | None:
    """Return the revocation in a row, or None."""
    if row["revoke_time"] is None:
        return None
    return Revocation(RevokeReason(row["revoke_reason"]), row["revoke_note"], row["revoke_time"])
