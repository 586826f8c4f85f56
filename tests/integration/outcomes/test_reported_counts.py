"""Counts that client caches report: by quarter of an hour, and no older than events may be (spec §4)."""

from datetime import datetime, timedelta

from latchkey.v1 import verification_pb2
from latchkey_server.opening import utc_now
from tests.integration.outcomes.test_client_reports import Report
from tests.integration.outcomes.test_counts import counted
from tests.support.service import Client, rejection


def quarter(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)


def reported(key_id: str, *quarters: datetime) -> Report:
    request = Report(client_id="cache-1", sequence=1)
    for moment in quarters:
        count = request.counts.add(key_id=key_id, code=verification_pb2.VERIFY_CODE_VALID, count=1)
        count.quarter_time.FromDatetime(moment)
    return request


async def test_a_count_that_is_not_on_a_quarter_is_told_by_its_place(owner: Client) -> None:
    key_id = (await owner.create_key()).key.key_id
    now = quarter(utc_now())
    request = reported(key_id, now, now + timedelta(seconds=1))

    failed = await rejection(owner.verifier.ReportVerifications(request))

    assert failed.fields == ["counts[1].quarter_time"]


async def test_counts_older_than_events_may_be_are_passed_over(owner: Client) -> None:
    key_id = (await owner.create_key()).key.key_id
    now = quarter(utc_now())

    await owner.verifier.ReportVerifications(reported(key_id, now - timedelta(days=36), now))

    assert (await counted(owner, 1)).total == 1
