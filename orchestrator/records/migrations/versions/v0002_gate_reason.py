"""Why a release's next gate is closed, and since when: what `/metrics` and dashboards show."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_ORDERED = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the table; each release's rows come with its next event or refresh."""
    op.create_table(
        "gate_reason",
        sa.Column("release", _ORDERED, nullable=False),
        sa.Column("code", _ORDERED, nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("met_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("release", "code", name=op.f("pk_gate_reason")),
    )
    op.create_index(op.f("ix_gate_reason_code_since"), "gate_reason", ["code", "since"], unique=False)
