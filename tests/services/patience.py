"""How long a test waits for what another process or thread does, before it counts as hung."""

from __future__ import annotations

PATIENCE_S = 1800.0
"""Seconds. A machine that does other work as well may be thirty times slower than a quiet one."""
