"""The newest writes are numbered and named: an older copy of the ledger lacks some of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "5"
down_revision = "4"


def upgrade() -> None:
    """From schema 4."""
    op.create_table(
        "writes",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("name", sa.String(32), nullable=False),
    )
