"""A run's record: what it asked, got, used and spent; written and read."""
