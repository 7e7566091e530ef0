"""Test double: a provider that claims the name of the core's own simulator."""
