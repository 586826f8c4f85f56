"""The command line of the client; it needs the extra `cli`, and `plot` for pictures."""

import os
import sys
from importlib import import_module

INTERRUPTED = 130
"""The exit status of what a user ended with Ctrl-C."""

_EXTRA = ("click", "rich", "tenacity")


def main() -> None:
    """Run `latchkey`, or say in one line what it needs."""
    # What gRPC writes on the terminal by itself would repeat what is printed where a call fails.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    try:
        commands = import_module("latchkey.cli.commands")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in _EXTRA:
            raise
        sys.exit(f"latchkey: {missing} is missing; install it: pip install 'latchkey-client[cli]'")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    commands.main()
