"""ReportVerifications: what client caches decided is recorded once by client and sequence (spec §4)."""

from datetime import datetime, timedelta

import grpc
import pytest

from latchkey.v1 import key_service_pb2, management_key_pb2, verification_pb2, verify_service_pb2
from latchkey_server.opening import utc_now
from tests.support.service import Client, Service, rejection

Report = verify_service_pb2.ReportVerificationsRequest


def report(key_id: str, used: datetime, sequence: int = 1, workspace_id: str = "") -> Report:
    """Return a report of one use of a key."""
    request = Report(client_id="cache-1", sequence=sequence)
    count = request.counts.add(key_id=key_id, code=verification_pb2.VERIFY_CODE_VALID, count=3)
    count.quarter_time.FromDatetime(used.replace(minute=0, second=0, microsecond=0))
    use = request.last_used.add(key_id=key_id, workspace_id=workspace_id)
    use.last_used_time.FromDatetime(used)
    return request


async def last_used(client: Client, key_id: str) -> datetime:
    key = (await client.keys.GetKey(key_service_pb2.GetKeyRequest(key_id=key_id))).key
    return key.last_used_time.ToDatetime()


def minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0, tzinfo=None)


async def test_a_report_makes_a_key_look_used_and_its_repetition_changes_nothing(owner: Client) -> None:
    key_id = (await owner.create_key()).key.key_id
    used = utc_now() - timedelta(hours=1)

    first = await owner.verifier.ReportVerifications(report(key_id, used))
    again = await owner.verifier.ReportVerifications(report(key_id, used + timedelta(minutes=5)))
    told = await last_used(owner, key_id)
    following = await owner.verifier.ReportVerifications(report(key_id, used + timedelta(minutes=5), sequence=2))

    assert [first.duplicate, again.duplicate, following.duplicate] == [False, True, False]
    assert told == minute(used)
    assert await last_used(owner, key_id) == minute(used + timedelta(minutes=5))


async def test_an_older_use_never_replaces_a_later_one_and_none_lies_ahead(owner: Client) -> None:
    key_id = (await owner.create_key()).key.key_id
    now = utc_now()

    await owner.verifier.ReportVerifications(report(key_id, now + timedelta(days=1), sequence=1))
    ahead = await last_used(owner, key_id)
    await owner.verifier.ReportVerifications(report(key_id, now - timedelta(days=1), sequence=2))

    assert minute(now) <= ahead <= minute(utc_now())
    assert await last_used(owner, key_id) == ahead


async def test_keys_of_another_workspace_are_passed_over(owner: Client, service: Service) -> None:
    stranger = await service.workspace("stranger")
    key = (await stranger.create_key()).key

    for workspace_id in ("", key.workspace_id):
        sequence = 2 if workspace_id else 1
        await owner.verifier.ReportVerifications(report(key.key_id, utc_now(), sequence, workspace_id))

    listed = (await stranger.keys.GetKey(key_service_pb2.GetKeyRequest(key_id=key.key_id))).key
    assert not listed.HasField("last_used_time")


async def test_a_verifier_may_report(owner: Client, service: Service) -> None:
    made = await owner.create_management_key(management_key_pb2.ROLE_VERIFIER)
    verifier = await service.client(made.secret)
    key_id = (await owner.create_key()).key.key_id

    assert not (await verifier.verifier.ReportVerifications(report(key_id, utc_now()))).duplicate


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"client_id": ""}, "client_id"),
        ({"client_id": "é"}, "client_id"),
        ({"sequence": 0}, "sequence"),
    ],
)
async def test_a_report_without_a_client_or_a_sequence_is_refused(
    owner: Client, change: dict[str, str | int], field: str
) -> None:
    request = Report(client_id="cache-1", sequence=1)
    for name, value in change.items():
        setattr(request, name, value)

    failed = await rejection(owner.verifier.ReportVerifications(request))

    assert (failed.code, failed.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [field])


async def test_what_is_wrong_in_a_count_is_told_by_its_place(owner: Client) -> None:
    request = Report(client_id="cache-1", sequence=1)
    request.counts.add(key_id="junk", count=1)
    request.last_used.add(key_id="junk")

    failed = await rejection(owner.verifier.ReportVerifications(request))

    assert set(failed.fields) == {
        "counts[0].quarter_time",
        "counts[0].key_id",
        "counts[0].code",
        "last_used[0].key_id",
        "last_used[0].last_used_time",
    }
