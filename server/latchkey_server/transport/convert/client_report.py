"""Reports of client caches, from the wire to the domain."""

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
from latchkey_server.domain.validation import Violations, require_number
from latchkey_server.domain.verify.model import Code
from latchkey_server.transport.convert.well_known import read_enum, read_id, required_time


def read_report(request: pb.ReportVerificationsRequest) -> ClientReport:
    """Return what a report says; raises InvalidField for what can't be read."""
    if request.counts:
        require_number("counts", len(request.counts), COUNTS_MAX)
    if request.last_used:
        require_number("last_used", len(request.last_used), USES_MAX)
    found = Violations()
    report = ClientReport(
        client_id=request.client_id,
        sequence=request.sequence,
        counts=tuple(_count(found, f"counts[{index}]", count) for index, count in enumerate(request.counts)),
        uses=tuple(_use(found, f"last_used[{index}]", use) for index, use in enumerate(request.last_used)),
    )
    found.check()
    return report


def _count(found: Violations, field: str, count: pb.VerificationCount) -> OutcomeCount:
    return OutcomeCount(
        quarter_time=required_time(found, f"{field}.quarter_time", count, "quarter_time"),
        key_id=read_id(found, f"{field}.key_id", ids.KEY, count.key_id),
        workspace_id=_workspace(found, field, count.workspace_id),
        code=read_enum(found, f"{field}.code", Code, count.code),
        model=count.model,
        tag=count.tag,
        count=count.count,
    )


def _use(found: Violations, field: str, use: pb.KeyLastUsed) -> KeyUse:
    return KeyUse(
        key_id=read_id(found, f"{field}.key_id", ids.KEY, use.key_id),
        workspace_id=_workspace(found, field, use.workspace_id),
        used_time=required_time(found, f"{field}.last_used_time", use, "last_used_time"),
    )


def _workspace(found: Violations, field: str, named: str) -> UUID | None:
    return read_id(found, f"{field}.workspace_id", ids.WORKSPACE, named) if named else None
