"""The ledger's tables, as the newest revision in ``migrations/versions`` leaves them."""

from __future__ import annotations

import sqlalchemy as sa

from qsgd_core.schedule.ledger.states import allowed_move, known_state

metadata = sa.MetaData()

meta = sa.Table(
    "qsgd_meta",
    metadata,
    sa.Column("key", sa.String(32), primary_key=True),
    sa.Column("value", sa.String(64), nullable=False),
)

budgets = sa.Table(
    "budgets",
    metadata,
    sa.Column("name", sa.String(320), primary_key=True),
    sa.Column("created_at", sa.Float, nullable=False),
)

caps = sa.Table(
    "caps",
    metadata,
    sa.Column("budget", sa.String(320), sa.ForeignKey("budgets.name"), primary_key=True),
    sa.Column("unit", sa.String(16), primary_key=True),
    sa.Column("cap", sa.BigInteger, nullable=False),
    sa.Column("reserved", sa.BigInteger, nullable=False, default=0),
    sa.Column("spent", sa.BigInteger, nullable=False, default=0),
    sa.Column("overrun", sa.BigInteger, nullable=False, default=0),
    sa.CheckConstraint("reserved >= 0 AND spent >= 0 AND overrun >= 0", name="not_negative"),
    sa.CheckConstraint("reserved + spent <= cap", name="never_over_the_cap"),
)

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run", sa.String(300), primary_key=True),
    sa.Column("backend", sa.String(256), nullable=False),
    sa.Column("options", sa.Text, nullable=False),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("pinned", sa.String(256)),
    sa.Column("capabilities", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("guard", sa.Text),
)

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("tag", sa.String(60), primary_key=True),
    sa.Column("run", sa.String(300), nullable=False, index=True),
    sa.Column("budget", sa.String(320), nullable=False),
    sa.Column("backend", sa.String(256), nullable=False),
    sa.Column("options", sa.Text, nullable=False),
    sa.Column("step", sa.Integer, nullable=False),
    sa.Column("part", sa.Integer, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
    sa.Column("shots", sa.Integer, nullable=False),
    sa.Column("seed", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String(16), nullable=False, index=True),
    sa.Column("came_from", sa.String(16)),
    sa.Column("handle", sa.Text),
    sa.Column("error", sa.Text),
    sa.Column("created_at", sa.Float, nullable=False),
    sa.Column("submitted_at", sa.Float),
    sa.Column("doubt_since", sa.Float),
    sa.Column("cancel_asked", sa.Float),
    sa.Column("settled_at", sa.Float),
    sa.Column("consumed_step", sa.Integer),
    *(sa.Column(f"hold_{unit}", sa.BigInteger) for unit in ("shots", "micro_usd", "qpu_us")),
    *(sa.Column(f"spent_{unit}", sa.BigInteger) for unit in ("shots", "micro_usd", "qpu_us")),
    sa.Column("unheld", sa.Boolean),
    sa.Column("unstated", sa.String(40)),
    sa.Column("ask_at", sa.Float),
    sa.Column("n_asks", sa.Integer),
    sa.Column("corrected_at", sa.Float),
    sa.Column("queue_position", sa.Integer),
    sa.CheckConstraint(known_state(), name="known_state"),
    sa.CheckConstraint(allowed_move(), name="allowed_move"),
)

payloads = sa.Table(
    "payloads",
    metadata,
    sa.Column("tag", sa.String(60), sa.ForeignKey("jobs.tag"), primary_key=True),
    sa.Column("kind", sa.String(8), primary_key=True),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

writes = sa.Table(
    "writes",
    metadata,
    sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("name", sa.String(32), nullable=False),
)
