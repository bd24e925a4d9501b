"""Channels of notices, and the notices for each."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ORDERED = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make their tables."""
    op.create_table(
        "notice_channel",
        sa.Column("id", _ORDERED, nullable=False),
        sa.Column("owner", _ORDERED, nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("address", sa.LargeBinary(), nullable=False),
        sa.Column("shown", sa.String(), nullable=False),
        sa.Column("topics", sa.Text(), nullable=False),
        sa.Column("release", sa.String(), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("off_reason", sa.String(), nullable=True),
        sa.Column("position", _BIG, nullable=False),
        sa.Column("next_number", _BIG, nullable=False),
        sa.Column("due_at", _TIME, nullable=True),
        sa.Column("lease_until", _TIME, nullable=True),
        sa.Column("lease_by", sa.String(), nullable=True),
        sa.Column("last_success_at", _TIME, nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notice_channel")),
    )
    op.create_index(op.f("ix_notice_channel_owner_id"), "notice_channel", ["owner", "id"], unique=False)
    op.create_table(
        "notice",
        sa.Column("channel", _ORDERED, nullable=False),
        sa.Column("number", _BIG, autoincrement=False, nullable=False),
        sa.Column("event", _BIG, nullable=True),
        sa.Column("release", sa.String(), nullable=True),
        sa.Column("topic", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("urgent", sa.Boolean(), nullable=False),
        sa.Column("batch", _BIG, nullable=True),
        sa.Column("wait", sa.String(), nullable=True),
        sa.Column("standing", sa.Boolean(), nullable=False),
        sa.Column("step", sa.String(), nullable=True),
        sa.Column("reference", sa.String(), nullable=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("planned_at", _TIME, nullable=False),
        sa.Column("due_at", _TIME, nullable=False),
        sa.Column("done_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("channel", "number", name=op.f("pk_notice")),
    )
    op.create_index(
        op.f("ix_notice_channel_status_number"), "notice", ["channel", "status", "number"], unique=False
    )
    op.create_index(
        op.f("ix_notice_channel_standing_release"), "notice", ["channel", "standing", "release"], unique=False
    )
    op.create_index(op.f("ix_notice_status_done_at"), "notice", ["status", "done_at"], unique=False)
