"""What keeps verifications fresh: records, their cache, and the feed of changes that it follows."""
