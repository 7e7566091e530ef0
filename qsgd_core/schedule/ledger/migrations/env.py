"""Run by Alembic."""

from qsgd_core.schedule.revisions import run

run()
