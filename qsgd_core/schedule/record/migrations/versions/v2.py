"""The header calls a run's id and the name of its budget what everything else does."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "2"
down_revision = "1"

RENAMED = {"run": "run_id", "budget": "budget_name"}


def upgrade() -> None:
    """From format 1."""
    header = sa.table("header", sa.column("key"))
    for old, new in RENAMED.items():
        op.execute(header.update().where(header.c.key == old).values(key=new))
