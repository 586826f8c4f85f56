"""`latchkey usage` against a real server: its numbers, its names, its errors."""

import csv
import io
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import trustme

from examples.trace import EXCERPT
from latchkey.cli.query import PAGE_SIZE
from latchkey.v1 import key_pb2, key_service_pb2, usage_pb2, usage_service_pb2
from tests.integration.usage.test_usage import event
from tests.integration.wire.test_server import write
from tests.scenarios.test_trace import independent_sum
from tests.support.cli import latchkey
from tests.support.process import Ended
from tests.support.service import Client, Service, serving, settings_for

NOW = datetime.now(UTC)
EXCERPT_OPTIONS = (
    *("--column", "occurred_time=TIMESTAMP"),
    *("--column", "input_tokens=ContextTokens"),
    *("--column", "output_tokens=GeneratedTokens"),
    *("--price", "input_tokens=0.15", "--price", "output_tokens=0.60"),
)


async def usage(service: Service, client: Client, *arguments: str) -> Ended:
    return await latchkey(service.address, client.secret, "usage", *arguments)


async def told(service: Service, client: Client, *arguments: str) -> dict[str, Any]:
    answer = await usage(service, client, "--json", *arguments)
    assert (answer.status, answer.err) == (0, "")
    found = json.loads(answer.out)
    assert isinstance(found, dict)
    return found


async def key(client: Client, label: str = "", name: str = "") -> str:
    return (await client.create_key(key_pb2.Key(environment=label, name=name))).key.key_id


async def record(client: Client, events: Sequence[usage_pb2.UsageEvent]) -> None:
    for at in range(0, len(events), 1_000):
        request = usage_service_pb2.ReportUsageRequest(events=events[at : at + 1_000])
        answer = await client.usage.ReportUsage(request)
        assert {result.outcome for result in answer.results} == {usage_service_pb2.USAGE_OUTCOME_NEW}


def lines(text: str) -> dict[str, str]:
    """Return a table's lines by their first word."""
    return {line.split()[0]: line for line in text.splitlines() if line.split()}


def dollars(rows: Sequence[dict[str, Any]]) -> Decimal:
    return sum((Decimal(row["measures"]["spend"]) for row in rows), Decimal(0))


async def test_nothing_recorded_is_said_with_zeros_and_is_no_error(service: Service, owner: Client) -> None:
    answer = await usage(service, owner)

    assert (answer.status, answer.err) == (0, "")
    assert "Nothing was recorded in this time." in answer.out
    assert lines(answer.out)["total"].split() == ["total", "$0.00", "0", "0", "0"]


async def test_the_report_groups_by_the_label_that_a_key_carries_now_and_adds_up_exactly(
    service: Service, owner: Client
) -> None:
    prod, bare, named = [await key(owner, label) for label in ("prod", "", "unlabeled")]
    await record(
        owner, [event(prod, "1", 1), event(bare, "2", 2_000_000_000), event(named, "3", 3), event(prod, "4", 5)]
    )

    answer = await usage(service, owner, "--zone", "Asia/Kolkata")
    found = await told(service, owner, "--bucket", "1d")

    assert answer.status == 0
    assert [name for name in lines(answer.out) if name in ("(unlabeled)", "prod", '"unlabeled"', "total")] == [
        "(unlabeled)",
        "prod",
        '"unlabeled"',
        "total",
    ]
    assert "$0.000000006" in lines(answer.out)["prod"]
    assert "$2.000000009" in lines(answer.out)["total"]
    assert found["totals"]["spend"] == "2.000000009"
    assert dollars(found["groups"]) == Decimal("2.000000009")
    assert sum((dollars(group["buckets"]) for group in found["groups"]), Decimal(0)) == Decimal("2.000000009")
    assert found["groups"][0]["group"] == {"environment": "", "unlabeled": True}


async def test_filters_select_and_unlabeled_is_one_of_them(service: Service, owner: Client) -> None:
    prod, bare, named = [await key(owner, label) for label in ("prod", "", "unlabeled")]
    await record(owner, [event(prod, "1", 1), event(bare, "2", 2), event(named, "3", 4)])

    async def spend(*arguments: str) -> str:
        return str((await told(service, owner, *arguments))["totals"]["spend"])

    assert await spend("--unlabeled") == "0.000000002"
    assert await spend("--environment", " unlabeled ") == "0.000000004"
    assert await spend("--environment", "prod", "--unlabeled") == "0.000000003"
    assert await spend("--key", named, "--environment", "prod") == "0.00"
    assert await spend("--model", "nothing") == "0.00"


async def test_keys_keep_their_history_flagged_when_they_are_gone(service: Service, owner: Client) -> None:
    deleted, revoked = await key(owner, "prod", "first"), await key(owner, "prod", "second")
    await record(owner, [event(deleted, "1", 2), event(revoked, "2", 1)])
    await owner.keys.DeleteKey(key_service_pb2.DeleteKeyRequest(key_id=deleted))
    await owner.keys.RevokeKey(
        key_service_pb2.RevokeKeyRequest(key_id=revoked, reason=key_pb2.REVOKE_REASON_COMPROMISED)
    )

    answer = await usage(service, owner, "--by", "key")

    assert f"first {deleted} [deleted]" in answer.out
    assert f"second {revoked} [revoked]" in answer.out


async def test_the_groups_outside_the_top_are_one_row_and_the_totals_stay(service: Service, owner: Client) -> None:
    for at in range(4):
        await record(owner, [event(await key(owner, f"label-{at}"), str(at), 10 - at)])

    answer = await usage(service, owner, "--top", "2")
    found = await told(service, owner, "--top", "2")

    assert "$0.000000015" in lines(answer.out)["(other)"]
    assert "$0.000000034" in lines(answer.out)["total"]
    assert [group["other"] for group in found["groups"]] == [False, False, True]
    assert dollars(found["groups"]) == Decimal("0.000000034")


async def test_a_report_of_several_pages_is_read_to_its_end(service: Service, owner: Client) -> None:
    keys = [await key(owner, "many") for _ in range(3)]
    # A key and day keeps 1000 models apart.
    made = [event(keys[at % 3], str(at), 1) for at in range(PAGE_SIZE + 100)]
    for at, each in enumerate(made):
        each.model = f"model-{at}"
    await record(owner, made)

    found = await told(service, owner, "--by", "model")

    assert len(found["as_of"]) == 2
    assert len(found["groups"]) == PAGE_SIZE + 100
    assert dollars(found["groups"]) == Decimal(found["totals"]["spend"]) == Decimal(PAGE_SIZE + 100).scaleb(-9)


async def test_refunds_and_corrections_are_told_beside_the_spend(service: Service, owner: Client) -> None:
    prod = await key(owner, "prod")
    refund = usage_pb2.UsageEvent(source="t", event_id="r", key_id=prod, type=usage_pb2.USAGE_TYPE_REFUND)
    refund.cost.CopyFrom(event(prod, "x", -4).cost)
    refund.occurred_time.FromDatetime(NOW)
    await record(owner, [event(prod, "1", 11), refund])

    answer = await usage(service, owner)

    assert lines(answer.out)["environment"].split()[:5] == ["environment", "spend", "share", "adjustments", "net"]
    assert lines(answer.out)["prod"].split()[1] == "$0.000000011"
    assert {"-$0.000000004", "$0.000000007"} <= set(lines(answer.out)["prod"].split())


async def test_csv_adds_up_to_the_totals(service: Service, owner: Client) -> None:
    for at, label in enumerate(("a", "b", "")):
        each = await key(owner, label)
        await record(owner, [event(each, f"{at}-{day}", at + 1, NOW - timedelta(days=day)) for day in range(3)])

    answer = await usage(service, owner, "--csv", "--bucket", "1d", "--by", "environment", "--by", "key")
    rows = list(csv.DictReader(io.StringIO(answer.out)))

    assert len(rows) == 9
    assert sum(Decimal(row["spend"]) for row in rows) == Decimal("0.000000018")
    assert {(row["environment"], row["unlabeled"]) for row in rows} == {("a", "false"), ("b", "false"), ("", "true")}


async def test_a_picture_is_drawn_beside_the_table(service: Service, owner: Client, tmp_path: Path) -> None:
    await record(owner, [event(await key(owner, "prod"), "1")])
    file = tmp_path / "usage.png"

    answer = await usage(service, owner, "--plot", str(file))
    nowhere = await usage(service, owner, "--plot", str(tmp_path / "no" / "usage.svg"))

    assert (answer.status, answer.err) == (0, f"Drawn into {file}.\n")
    assert file.read_bytes().startswith(b"\x89PNG")
    assert nowhere.status == 1
    assert nowhere.err.endswith("usage.svg: No such file or directory\n")


async def test_a_refused_call_is_one_line_with_its_reason_and_ends_with_1(service: Service, owner: Client) -> None:
    stranger = await latchkey(service.address, "lkm_x", "usage")
    long = await usage(service, owner, "--from", "2000-01-01", "--to", "2026-01-01")
    nobody = await latchkey("127.0.0.1:1", owner.secret, "usage")

    for answer, begins in (
        (stranger, "Error: UNAUTHENTICATED (CREDENTIAL_INVALID): "),
        (long, "Error: INVALID_ARGUMENT (INVALID_FIELD): "),
        (nobody, "Error: UNAVAILABLE: no Latchkey answers at 127.0.0.1:1 in plaintext"),
    ):
        assert answer.status == 1
        assert answer.out == ""
        assert answer.err.startswith(begins)
        assert answer.err.count("\n") == 1
        assert "lkm_" not in answer.err


async def test_tls_trusts_the_roots_of_a_file_and_shows_a_certificate(dsn: str, tmp_path: Path) -> None:
    authority = trustme.CA()
    ca = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(ca)
    server, client = (write(authority.issue_cert(name), tmp_path, name) for name in ("127.0.0.1", "client.example"))
    tls = {"tls_certificate": server[0], "tls_private_key": server[1], "tls_client_ca": ca}
    shown = ("--certificate", str(client[0]), "--private-key", str(client[1]))
    async with serving(dsn, settings=settings_for(dsn).model_copy(update=tls)) as service:
        trusted = await latchkey(service.address, service.root_secret, "usage", "--ca", str(ca), *shown)
        untrusted = await latchkey(service.address, service.root_secret, "usage", "--tls", *shown)
        stranger = await latchkey(service.address, service.root_secret, "usage", "--ca", str(ca))

    assert (trusted.status, trusted.err) == (0, "")
    for refused in (untrusted, stranger):
        assert refused.status == 1
        assert refused.err.startswith(f"Error: UNAVAILABLE: no Latchkey answers at {service.address} over TLS")


async def test_the_shipped_excerpt_is_imported_as_its_own_sum_however_often(service: Service, owner: Client) -> None:
    staging = await key(owner, "staging")
    arguments = ("import", str(EXCERPT), "--key", staging, *EXCERPT_OPTIONS, "--ending-at", NOW.isoformat())

    first = await usage(service, owner, *arguments)
    second = await usage(service, owner, *arguments)

    requests, tokens_in, tokens_out, spent = independent_sum(EXCERPT)
    assert (first.status, first.out) == (0, f"{requests} lines: {requests} new, 0 duplicate, 0 conflict, 0 rejected\n")
    assert (second.status, second.out) == (
        0,
        f"{requests} lines: 0 new, {requests} duplicate, 0 conflict, 0 rejected\n",
    )
    (group,) = (await told(service, owner))["groups"]
    measures = group["measures"]
    assert (measures["requests"], measures["input_tokens"], measures["output_tokens"]) == (
        requests,
        tokens_in,
        tokens_out,
    )
    assert Decimal(measures["spend"]) == Decimal(spent).scaleb(-9)
    assert group["group"]["environment"] == "staging"


async def test_each_line_has_its_own_fate_and_any_that_is_not_recorded_ends_with_1(
    service: Service, owner: Client, tmp_path: Path
) -> None:
    prod, time = await key(owner, "prod"), NOW.isoformat()
    file = tmp_path / "usage.jsonl"
    good = {"key_id": prod, "occurred_time": time, "cost": "0.25", "source": "s", "metadata": {"a": 1.5}}
    told_lines: list[object] = [
        good | {"event_id": "1", "colour": "red"},
        good | {"event_id": "1"},
        good | {"event_id": "1", "cost": "0.5"},
        good | {"event_id": "2", "cost": "-0.25"},
        good | {"event_id": "3", "key_id": "key_00000000000000000000000000"},
        good | {"event_id": "4", "occurred_time": "2020-01-01T00:00:00Z"},
        good | {"event_id": "5", "cost": "much"},
        ["no", "object"],
        good | {"event_id": "6", "cost": 0.75},
    ]
    file.write_text("\n".join(map(json.dumps, told_lines)))

    answer = await usage(service, owner, "import", str(file))

    told_by = [line.strip().split(": ")[:2] for line in answer.out.splitlines()[1:-1]]
    assert answer.status == 1
    assert answer.err.startswith("Not read: colour.\n")
    assert answer.out.splitlines()[0] == "9 lines: 2 new, 1 duplicate, 1 conflict, 5 rejected"
    assert told_by == [
        ["line 3", "conflict"],
        ["line 4", "rejected"],
        ["line 5", "rejected"],
        ["line 6", "rejected"],
        ["line 7", "rejected"],
        ["line 8", "rejected"],
    ]
    assert answer.out.splitlines()[-1].startswith("A conflict has the name of a recorded event and other content;")
    assert "KEY_NOT_FOUND" in answer.out
    assert "OCCURRED_TIME_OUT_OF_RANGE" in answer.out
    assert (await told(service, owner))["totals"]["spend"] == "1.00"


async def test_an_import_that_may_not_report_stops_and_says_why(
    service: Service, owner: Client, tmp_path: Path
) -> None:
    file = tmp_path / "usage.csv"
    file.write_text(f"key_id,occurred_time\n{await key(owner)},{NOW.isoformat()}\n")

    answer = await latchkey(service.address, "lkm_x", "usage", "import", str(file))

    assert answer.status == 1
    assert answer.out == "0 lines: 0 new, 0 duplicate, 0 conflict, 0 rejected\n"
    assert answer.err.startswith("Error: UNAUTHENTICATED (CREDENTIAL_INVALID): ")
