"""Test double: a provider whose module cannot be imported."""
