"""Workspaces, apis, identities, management keys and the audit log in PostgreSQL."""
