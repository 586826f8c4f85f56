"""Reports of client caches, from the wire to the domain."""

from collections.abc import Sequence
from functools import partial
from typing import Final, Protocol
from uuid import UUID

from latchkey.v1 import verify_service_pb2 as pb
from latchkey_server.domain import ids
from latchkey_server.domain.outcomes.client_reports import (
    COUNTS_MAX,
    USES_MAX,
    ClientReport,
    KeyUse,
    OutcomeCount,
)
from latchkey_server.domain.turns import in_slices
from latchkey_server.domain.validation import Violations, require_number
from latchkey_server.domain.verify.model import Code
from latchkey_server.transport import sized
from latchkey_server.transport.convert.well_known import read_enum, read_id, required_time
from latchkey_server.transport.sized import batch_reader

ENTRY_MAX: Final = 4 * 1024
"""Bytes that a serialised entry of a report may have: several times one whose every field is full."""


class RawReport(Protocol):
    """A ReportVerificationsRequest: ``counts`` are VerificationCounts, ``last_used`` KeyLastUseds."""

    client_id: str
    sequence: int
    counts: Sequence[bytes]
    last_used: Sequence[bytes]


read_verifications: Final = batch_reader(pb.ReportVerificationsRequest.DESCRIPTOR, COUNTS_MAX + USES_MAX)
"""Reads a ReportVerificationsRequest whose entries stay bytes."""


async def read_report(request: RawReport) -> ClientReport:
    """Return what a report says; others have their turn meanwhile. Raises InvalidField for what can't be read."""
    if request.counts:
        require_number("counts", len(request.counts), COUNTS_MAX)
    if request.last_used:
        require_number("last_used", len(request.last_used), USES_MAX)
    found = Violations()
    report = ClientReport(
        client_id=request.client_id,
        sequence=request.sequence,
        counts=tuple(await in_slices(partial(_count, found), enumerate(request.counts))),
        uses=tuple(await in_slices(partial(_use, found), enumerate(request.last_used))),
    )
    found.check()
    return report


def _count(found: Violations, entry: tuple[int, bytes]) -> OutcomeCount:
    field = f"counts[{entry[0]}]"
    count: pb.VerificationCount = sized.read(pb.VerificationCount.FromString, entry[1], ENTRY_MAX)
    return OutcomeCount(
        quarter_time=required_time(found, f"{field}.quarter_time", count, "quarter_time"),
        key_id=read_id(found, f"{field}.key_id", ids.KEY, count.key_id),
        workspace_id=_workspace(found, field, count.workspace_id),
        code=read_enum(found, f"{field}.code", Code, count.code),
        model=count.model,
        tag=count.tag,
        count=count.count,
    )


def _use(found: Violations, entry: tuple[int, bytes]) -> KeyUse:
    field = f"last_used[{entry[0]}]"
    use: pb.KeyLastUsed = sized.read(pb.KeyLastUsed.FromString, entry[1], ENTRY_MAX)
    return KeyUse(
        key_id=read_id(found, f"{field}.key_id", ids.KEY, use.key_id),
        workspace_id=_workspace(found, field, use.workspace_id),
        used_time=required_time(found, f"{field}.last_used_time", use, "last_used_time"),
    )


def _workspace(found: Violations, field: str, named: str) -> UUID | None:
    return read_id(found, f"{field}.workspace_id", ids.WORKSPACE, named) if named else None
