"""What verifications cost, measured against an empty handler on the same stack: `make bench`."""
