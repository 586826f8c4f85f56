"""The gRPC server: its handlers, its services and what limits a connection."""
