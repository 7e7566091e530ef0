"""Blocks to jobs and back. Pure."""
