"""What reports on usage and on verifications have in common as SQL."""
