"""What a job cost may be stated after its end, and corrected."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "3"
down_revision = "2"


def upgrade() -> None:
    """From schema 2. Nobody can tell any more which costs of older jobs were only their holds."""
    op.add_column("jobs", sa.Column("unheld", sa.Boolean))
    op.add_column("jobs", sa.Column("unstated", sa.String(40)))
    op.add_column("jobs", sa.Column("ask_at", sa.Float))
    op.add_column("jobs", sa.Column("n_asks", sa.Integer))
    op.add_column("jobs", sa.Column("corrected_at", sa.Float))
    jobs = sa.table("jobs", sa.column("state", sa.String), sa.column("unheld", sa.Boolean))
    op.execute(jobs.update().where(jobs.c.state == "stray").values(unheld=True))
