"""Latchkey, API keys as a gRPC service."""
