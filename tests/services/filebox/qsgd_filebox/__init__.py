"""Test double: a queued, paid quantum service whose vendor is a folder on disk."""
