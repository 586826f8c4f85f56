"""Keys and secrets in PostgreSQL."""
