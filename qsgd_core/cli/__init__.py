"""The command line ``qsgd``: parses, calls the library, prints. Light to import."""

from __future__ import annotations

from qsgd_core.cli.app import main

__all__ = ["main"]
