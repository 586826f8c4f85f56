"""The embedded PostgreSQL: where its programs are, its data directory, and its starting and stopping."""
