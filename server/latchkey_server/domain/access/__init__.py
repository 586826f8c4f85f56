"""Who may call what: roles, callers' credentials, and management keys (spec §6)."""
