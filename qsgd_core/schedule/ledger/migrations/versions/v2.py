"""A ledger has an id; the database knows a job's states and takes no move that is not allowed."""

from __future__ import annotations

import uuid

import sqlalchemy as sa
from alembic import op

from qsgd_core.schedule.ledger.schema import replace_checks

revision = "2"
down_revision = "1"

CHECKS = {
    "known_state": "state IN ('intent', 'denied', 'reserved', 'submitting', 'submitted', 'stored', "
    "'settled', 'failed', 'refunded', 'stray')",
    "allowed_move": "came_from IS NULL OR came_from || '>' || state IN ('intent>reserved', "
    "'intent>denied', 'intent>failed', 'denied>intent', 'denied>failed', 'reserved>submitting', "
    "'reserved>failed', 'submitting>submitted', 'submitting>reserved', 'submitting>refunded', "
    "'submitting>failed', 'submitted>stored', 'submitted>failed', 'stored>settled', "
    "'failed>stray', 'refunded>stray', 'stray>failed')",
}


def upgrade() -> None:
    """From schema 1."""
    op.add_column("jobs", sa.Column("came_from", sa.String(16)))
    replace_checks("jobs", CHECKS, old=())
    name = sa.text("INSERT INTO qsgd_meta (key, value) VALUES ('ledger', :id)")
    op.get_bind().execute(name, {"id": uuid.uuid4().hex})
