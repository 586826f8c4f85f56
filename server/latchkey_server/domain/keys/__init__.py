"""API keys: what KeyService does (spec §3)."""
