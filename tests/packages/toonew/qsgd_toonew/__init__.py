"""Test double: a provider written for a later hook API."""
