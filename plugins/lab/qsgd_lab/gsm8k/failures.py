"""What other libraries raise, for our own messages."""

from __future__ import annotations

LONGEST = 300


def in_a_line(error: BaseException) -> str:
    """Type and message, without line breaks and not endless."""
    text = " ".join(f"{type(error).__name__}: {error}".rstrip(": ").split())
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
