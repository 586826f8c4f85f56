"""What PostgreSQL does for a query: rows looked at, never time."""
