"""Latchkey, API keys as a gRPC service."""

import os
from typing import Final

# gRPC's core writes lines of its own to standard error, one for every failed TLS handshake, in the middle of a log that
# machines read. It reads this when it is first imported, which every process of a server does after this package.
GRPC_VERBOSITY: Final = os.environ.setdefault("GRPC_VERBOSITY", "NONE")
