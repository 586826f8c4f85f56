"""Verifications as bytes: requests read, answers written, and the fast path of those that need no waiting."""
