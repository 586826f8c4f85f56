"""Outcomes of verifications: counted, summed by key and by label, and reported (spec §5)."""
