"""Test double: a provider that claims the prefix of qsgd-good."""
