"""Test double: an entry point and names that qsgd-good has too."""
