"""Verifications: what VerifyService decides, and who watches for changes (spec §4)."""
