"""The tables as qsgd-core has had them from its first record on; a new record has them too."""

from __future__ import annotations

revision = "1"
down_revision = None


def upgrade() -> None:
    """Nothing leads here: a record is made as the newest format has it."""
