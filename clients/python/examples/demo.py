"""A key's whole life on a server of its own: create, list, verify, record real usage, read it by environment, retag."""

import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import grpc
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.money_pb2 import Money
from rich import box
from rich.bar import Bar
from rich.console import Console
from rich.table import Table

from examples.trace import EXCERPT, Target, TraceRow, events, read_trace, report
from latchkey.v1 import (
    key_pb2,
    key_service_pb2,
    key_service_pb2_grpc,
    usage_pb2,
    usage_service_pb2,
    usage_service_pb2_grpc,
    verification_pb2,
    verify_service_pb2,
    verify_service_pb2_grpc,
)

SERVER = Path(sys.executable).with_name("latchkey-server")
START_SECONDS = 60.0

console = Console(highlight=False)


class Bearer(grpc.AuthMetadataPlugin):
    """Sends a management key's secret with every call; only TLS or loopback channels may carry it."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        callback((("authorization", f"Bearer {self._secret}"),), None)


class Demo:
    """The steps, in order; each prints what it did."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.keys = key_service_pb2_grpc.KeyServiceStub(channel)
        self.verifier = verify_service_pb2_grpc.VerifyServiceStub(channel)
        self.usage = usage_service_pb2_grpc.UsageServiceStub(channel)
        self.made: list[key_service_pb2.CreateKeyResponse] = []

    async def run(self, trace: Path, ending_at: datetime) -> None:
        """Walk through a key's life."""
        await self.create_keys()
        await self.list_keys()
        await self.verify_keys()
        await self.replay(trace, ending_at)
        start, end = _quarters(read_trace(trace), ending_at)
        await self.show_usage("Usage by environment", start, end)
        await self.retag()
        await self.show_usage(
            "Usage by environment, after the retag: the history moved, the totals did not", start, end
        )

    async def create_keys(self) -> None:
        """Create a key for each environment, each with limits of its own."""
        heading("Create a key for each environment")
        near = Timestamp()
        near.FromDatetime(datetime.now(UTC) + timedelta(hours=2))
        wanted = [
            key_pb2.Key(
                name="web",
                environment="prod",
                prefix="sk_live",
                allow_ips=["203.0.113.0/28"],
                scopes=["chat.*"],
                spend_limit=_monthly_cap(5_000),
                firewall_policy_id="fw-strict",
            ),
            key_pb2.Key(
                name="web",
                environment="staging",
                prefix="sk_test",
                scopes=["chat.*"],
                spend_limit=_monthly_cap(50),
            ),
            key_pb2.Key(
                name="laptop",
                environment="dev",
                prefix="sk_test",
                scopes=["chat.write"],
                model_limits=key_pb2.ModelLimits(enabled=True, models=["assistant-mini"]),
                expire_time=near,
            ),
        ]
        for key in wanted:
            made = await self.keys.CreateKey(key_service_pb2.CreateKeyRequest(key=key))
            self.made.append(made)
            console.print(f"  {made.key.environment:<8} {made.secret}   (shown this once)")

    async def list_keys(self) -> None:
        """List the keys as anybody else sees them: masked."""
        heading("List them, masked, with their labels")
        answer = await self.keys.ListKeys(key_service_pb2.ListKeysRequest())
        table = Table("environment", "secret", "status", "limits", box=box.SIMPLE)
        for key in answer.keys:
            status = key_pb2.KeyStatus.Name(key.status).removeprefix("KEY_STATUS_")
            table.add_row(key.environment, key.secrets[0].mask, status, "\n".join(_limits(key)))
        console.print(table)

    async def verify_keys(self) -> None:
        """Ask about each key as a service would, and about one that comes to the wrong door."""
        heading("Verify each, as the service that received it would")
        prod, staging, dev = (made.secret for made in self.made)
        required = [verify_service_pb2.ScopeGroup(any_of=["chat.write"])]
        questions = [
            ("prod, from its own address", prod, question(client_ip="203.0.113.7")),
            ("prod, from somewhere else", prod, question(client_ip="198.51.100.9")),
            ("staging", staging, question()),
            ("dev, the cheap model", dev, question(model="assistant-mini")),
            ("dev, another model", dev, question(model="assistant-large")),
            ("dev, where only prod may come", dev, question(environments=["prod"])),
            ("a made-up secret", prod[:-1] + ("a" if prod[-1] != "a" else "b"), question()),
        ]
        table = Table("asked", box=box.SIMPLE)
        for column in ("verdict", "label", "degraded"):
            table.add_column(column, no_wrap=True)
        for asked, secret, request in questions:
            request.key = secret
            request.required_scopes.extend(required)
            verification = (await self.verifier.Verify(request)).verification
            code = verification_pb2.VerifyCode.Name(verification.code).removeprefix("VERIFY_CODE_")
            degraded = [
                verification_pb2.Degradation.Name(item).removeprefix("DEGRADATION_") for item in verification.degraded
            ]
            table.add_row(
                asked,
                f"[green]{code}[/]" if verification.valid else f"[red]{code}[/]",
                verification.key.environment or "-",
                ", ".join(degraded),
            )
        console.print(table)

    async def replay(self, trace: Path, ending_at: datetime) -> None:
        """Report a real trace as usage over the three keys, twice: the second time nothing is counted again."""
        rows = read_trace(trace)
        heading(f"Report {len(rows):,} real LLM requests as usage, ending at {ending_at:%Y-%m-%d %H:%M:%S} UTC")
        models = ("assistant-large", "assistant-large", "assistant-mini")
        targets = [Target(made.key.key_id, model) for made, model in zip(self.made, models, strict=True)]
        for attempt in ("sent", "sent again"):
            outcomes = await report(self.usage, events(rows, targets, ending_at))
            told = ", ".join(
                f"{count:,} {usage_service_pb2.UsageOutcome.Name(outcome).removeprefix('USAGE_OUTCOME_')}"
                for outcome, count in sorted(outcomes.items())
            )
            console.print(f"  {attempt:<11} {told}")

    async def show_usage(self, title: str, start: datetime, end: datetime) -> None:
        """Print spend, requests and tokens by environment, with bars."""
        heading(title)
        request = usage_service_pb2.QueryUsageRequest(
            group_by=[usage_pb2.USAGE_DIMENSION_ENVIRONMENT], order_by=usage_pb2.USAGE_MEASURE_SPEND
        )
        request.start_time.FromDatetime(start)
        request.end_time.FromDatetime(end)
        answer = await self.usage.QueryUsage(request)
        table = Table("environment", "spend", "", "requests", "tokens in", "tokens out", box=box.SIMPLE)
        total = _nanos(answer.totals.spend)
        for row in answer.rows:
            share = _nanos(row.measures.spend) / total if total else 0.0
            table.add_row(row.group.environment or "(unlabeled)", *_cells(row.measures, share))
        table.add_section()
        table.add_row("total", *_cells(answer.totals, 1.0))
        console.print(table)

    async def retag(self) -> None:
        """Give the staging key another label."""
        heading("Retag the staging key as qa")
        await self.keys.UpdateKey(
            key_service_pb2.UpdateKeyRequest(
                key=key_pb2.Key(key_id=self.made[1].key.key_id, environment="qa"),
                update_mask=FieldMask(paths=["environment"]),
            )
        )
        answer = await self.keys.ListEnvironments(key_service_pb2.ListEnvironmentsRequest())
        console.print(
            "  labels in use: " + ", ".join(f"{item.environment} ({item.key_count})" for item in answer.environments)
        )


def question(
    *, client_ip: str | None = None, model: str | None = None, environments: Sequence[str] = ()
) -> verify_service_pb2.VerifyRequest:
    """Return a question without its secret."""
    return verify_service_pb2.VerifyRequest(client_ip=client_ip, model=model, environments=environments)


def heading(text: str) -> None:
    """Print what comes next."""
    console.print(f"\n[bold]{text}[/]")


@asynccontextmanager
async def own_server() -> AsyncIterator[tuple[str, str]]:
    """Run a server on a free port with a temporary data directory; give its address and the first owner's secret."""
    folder = _reachable_folder()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LATCHKEY_")},
        "LATCHKEY_LISTEN": "127.0.0.1:0",
        "LATCHKEY_DATA_DIR": str(folder / "data"),
        "LATCHKEY_LOG_FORMAT": "json",
        "LATCHKEY_LOG_LEVEL": "INFO",
        "LATCHKEY_STOP_DELAY": "0",
    }
    process = await asyncio.create_subprocess_exec(
        SERVER, "serve", env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            address, secret = await _started(process)
        drains = [asyncio.create_task(_drain(stream)) for stream in (process.stdout, process.stderr)]
        yield address, secret
        process.send_signal(signal.SIGTERM)
        await process.wait()
        await asyncio.gather(*drains)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _reachable_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="latchkey-demo-"))
    # PostgreSQL runs as another user when we are root, and has to get in.
    folder.chmod(0o711)
    return folder


async def _started(process: asyncio.subprocess.Process) -> tuple[str, str]:
    if process.stdout is None or process.stderr is None:
        raise click.ClickException("the server's output is not connected")
    line = await process.stdout.readline()
    if not line:
        raise click.ClickException("the server did not start: " + (await process.stderr.read()).decode().strip())
    started = json.loads(line)
    return started["address"], started["owner_secret"]


async def _drain(stream: asyncio.StreamReader | None) -> None:
    while stream is not None and await stream.read(65_536):
        pass


def _monthly_cap(dollars: int) -> key_pb2.SpendLimit:
    return key_pb2.SpendLimit(
        amount=Money(currency_code="USD", units=dollars), reset_interval=key_pb2.SPEND_RESET_MONTHLY
    )


def _quarters(rows: Sequence[TraceRow], ending_at: datetime) -> tuple[datetime, datetime]:
    """Return the range of whole quarters of an hour that a shifted trace lies in."""
    quarter = timedelta(minutes=15)
    first = ending_at - (max(row.time for row in rows) - min(row.time for row in rows))
    midnight = first.replace(hour=0, minute=0, second=0, microsecond=0)
    start = midnight + (first - midnight) // quarter * quarter
    return start, midnight + ((ending_at - midnight) // quarter + 1) * quarter


def _nanos(amount: Money) -> int:
    return amount.units * 1_000_000_000 + amount.nanos


def _limits(key: key_pb2.Key) -> list[str]:
    """Return what restricts a key, in words."""
    limits = []
    if key.allow_ips:
        limits.append(f"from {', '.join(key.allow_ips)}")
    if key.HasField("spend_limit"):
        limits.append(f"${key.spend_limit.amount.units:,} a month")
    if key.model_limits.enabled:
        limits.append(f"only {', '.join(key.model_limits.models)}")
    if key.HasField("expire_time"):
        limits.append(f"until {key.expire_time.ToDatetime():%H:%M} UTC")
    if key.firewall_policy_id:
        limits.append(f"policy {key.firewall_policy_id}")
    return limits


def _cells(measures: usage_pb2.UsageMeasures, share: float) -> list[str | Bar]:
    return [
        f"${measures.spend.units:,}.{measures.spend.nanos // 1_000:06}",
        Bar(size=1.0, begin=0.0, end=share, width=20, color="cyan"),
        f"{measures.requests:,}",
        f"{measures.input_tokens:,}",
        f"{measures.output_tokens:,}",
    ]


def _instant(_context: click.Context, _parameter: click.Parameter, text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter("must be an instant such as 2026-11-22T12:00:00Z") from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


@click.command()
@click.option("--trace", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=EXCERPT, help="CSV file")
@click.option("--ending-at", callback=_instant, help="when the last request happened; now unless told otherwise")
def main(trace: Path, ending_at: datetime) -> None:
    """See a key's whole life on a server of its own."""
    asyncio.run(_main(trace, ending_at))


async def _main(trace: Path, ending_at: datetime) -> None:
    console.print("Starting a server of its own, with an embedded PostgreSQL …")
    async with own_server() as (address, secret):
        credentials = grpc.composite_channel_credentials(
            grpc.local_channel_credentials(), grpc.metadata_call_credentials(Bearer(secret))
        )
        async with grpc.aio.secure_channel(address, credentials) as channel:
            await Demo(channel).run(trace, ending_at)
    console.print("\nDone; the server and its data are gone again.")


if __name__ == "__main__":
    main()
