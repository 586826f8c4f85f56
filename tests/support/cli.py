"""`latchkey` as a real process, as a user runs it."""

import asyncio
import sys
from pathlib import Path

from tests.support.process import DEADLINE, Ended, environment

COMMAND = Path(sys.executable).with_name("latchkey")


def variables(address: str, token: str) -> dict[str, str]:
    """Return this environment without settings of others, and with a server and a credential."""
    return {**environment({}), "LK_ADDRESS": address, "LK_TOKEN": token, "PYTHONWARNINGS": "error"}


async def started(address: str, token: str, *arguments: str) -> asyncio.subprocess.Process:
    """Start the command line."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        COMMAND, *arguments, env=variables(address, token), stdout=pipe, stderr=pipe
    )


async def ended(process: asyncio.subprocess.Process) -> Ended:
    """Return how a command ended and what it printed."""
    try:
        async with asyncio.timeout(DEADLINE):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return Ended(process.returncode or 0, out.decode(), err.decode())


async def latchkey(address: str, token: str, *arguments: str) -> Ended:
    """Run the command line to its end."""
    return await ended(await started(address, token, *arguments))
