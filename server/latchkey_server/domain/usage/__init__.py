"""Usage: events recorded once, summed by key and by label, and reported (spec §5)."""
