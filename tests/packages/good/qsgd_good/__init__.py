"""Test double: a provider that keeps every rule."""
