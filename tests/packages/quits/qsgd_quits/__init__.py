"""Test double: a provider whose module calls sys.exit on import."""
