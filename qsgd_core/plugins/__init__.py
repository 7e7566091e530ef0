"""Finds what is installed and chooses what a name means."""
