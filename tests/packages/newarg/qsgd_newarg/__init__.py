"""Test double: a provider whose hook asks for an argument of a later API."""
