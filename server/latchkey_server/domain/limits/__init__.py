"""Budgets of a key in time: spend caps and credits (spec §3)."""
