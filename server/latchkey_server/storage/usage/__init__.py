"""Usage events, their identities and their roll-ups in PostgreSQL."""
