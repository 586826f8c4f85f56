"""What verifications cost, measured against an empty handler on the same stack: `make bench`."""

import os

# Before gRPC is loaded: we start processes while we use it, and its lines about that would fill the screen.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
