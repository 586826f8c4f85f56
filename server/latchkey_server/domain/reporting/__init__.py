"""What reports on usage and on verifications have in common: buckets, days, ranges (spec §5)."""
