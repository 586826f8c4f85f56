"""Counts of verifications in PostgreSQL."""
