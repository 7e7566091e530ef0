"""Bringing an older database up to date: what the ledger's and the record's migrations share.

The revisions are Alembic's, each in the ``migrations/versions`` of its own package. Alembic is
imported only when there is something to bring up to date.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlalchemy as sa

_ONE_AT_A_TIME = threading.Lock()
"""Alembic keeps what it is at in its modules."""


def upgrade(
    db: sa.Connection,
    folder: Path,
    *,
    found: int | None,
    to: int,
    note: Callable[[sa.Connection, str], None],
) -> None:
    """Take the revisions that lead from ``found`` to ``to``.

    Args:
        db: in a transaction that no other writer's overlaps and that is ended by whoever began it:
            all of it is done, or none.
        folder: that holds ``env.py`` and ``versions``.
        found: the version that the tables have; None where there are none.
        to: the newest.
        note: writes down, where other versions of qsgd-core look for it, the one that was reached.
    """
    import sqlalchemy as sa
    from alembic import command
    from alembic.config import Config

    with _ONE_AT_A_TIME:
        config = Config()
        config.set_main_option("script_location", str(folder).replace("%", "%%"))
        config.attributes.update(connection=db, note=note)
        if found is not None and not sa.inspect(db).has_table("alembic_version"):
            command.stamp(config, str(found))  # made without Alembic, or before it was used
        command.upgrade(config, str(to))


def run() -> None:
    """The whole of an ``env.py``: take the revisions, on the connection of :func:`upgrade`."""
    from alembic import context

    attributes = context.config.attributes

    def noted(ctx: Any, step: Any, heads: Any, run_args: Any) -> None:
        if step.is_upgrade:
            attributes["note"](ctx.connection, step.up_revision_id)

    context.configure(
        connection=attributes["connection"], transactional_ddl=True, on_version_apply=noted
    )
    context.run_migrations()
