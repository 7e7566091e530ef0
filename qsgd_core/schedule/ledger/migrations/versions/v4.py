"""Where a job is in the vendor's queue."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "4"
down_revision = "3"


def upgrade() -> None:
    """From schema 3."""
    op.add_column("jobs", sa.Column("queue_position", sa.Integer))
