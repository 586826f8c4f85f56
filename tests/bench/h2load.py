"""h2load, where it is installed (Debian: nghttp2-client): the unary throughput that a leaner client reaches."""

import asyncio
import re
import shutil
import tempfile
from pathlib import Path

from tests.bench.load import CHANNELS, IN_FLIGHT, SERVICE
from tests.bench.seed import Metadata


async def throughput(address: str, request: bytes, metadata: Metadata, seconds: float) -> float | None:
    """Return how many Verify calls a second h2load has answered; None where it is missing or fails."""
    program = shutil.which("h2load")
    if program is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        body = _body(Path(folder, "request"), request)
        headers = (("content-type", "application/grpc"), ("te", "trailers"), *metadata)
        process = await asyncio.create_subprocess_exec(
            *(program, "-D", str(max(1, round(seconds))), "-c", str(CHANNELS), "-m", str(IN_FLIGHT // CHANNELS)),
            *(word for name, value in headers for word in ("-H", f"{name}: {value}")),
            *("-d", str(body), f"http://{address}{SERVICE}Verify"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        out, _ = await process.communicate()
    return read(out.decode())


def _body(path: Path, request: bytes) -> Path:
    """Write a request as gRPC frames it."""
    path.write_bytes(b"\0" + len(request).to_bytes(4, "big") + request)
    return path


def read(printed: str) -> float | None:
    """Return the calls a second of what h2load prints; None unless all of them were answered."""
    rate = re.search(r"finished in .*?, ([\d.]+) req/s", printed)
    failed = re.search(r"(\d+) failed", printed)
    return float(rate[1]) if rate and failed and failed[1] == "0" else None
