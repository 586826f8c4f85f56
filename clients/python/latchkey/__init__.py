"""Client for Latchkey, API keys as a gRPC service."""
