"""Whole stories: real processes, as a newcomer starts them."""
