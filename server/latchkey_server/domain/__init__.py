"""What Latchkey decides, in plain Python without a network or a database."""
