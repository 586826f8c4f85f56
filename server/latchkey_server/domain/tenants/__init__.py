"""What a workspace consists of beside its keys: the workspace itself, apis, identities, the audit log."""
