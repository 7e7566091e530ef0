"""Run by Alembic, in the transaction that :func:`qsgd_core.schedule.ledger.schema.upgrade` has."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import context


def note(ctx: Any, step: Any, heads: Any, run_args: Any) -> None:
    """Older versions of qsgd-core look here whether they can read the ledger."""
    if step.is_upgrade:
        schema = {"schema": step.up_revision_id}
        told = sa.text("UPDATE qsgd_meta SET value = :schema WHERE key = 'schema'")
        ctx.connection.execute(told, schema)


context.configure(
    connection=context.config.attributes["connection"],
    transactional_ddl=True,
    on_version_apply=note,
)
context.run_migrations()
