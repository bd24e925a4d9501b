"""The Hub sweep: looks at repositories, and what was changed there by hand."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ORDERED = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "hub_look",
        sa.Column("release", _ORDERED, nullable=False),
        sa.Column("repository", sa.String(), nullable=False),
        sa.Column("looked_at", _TIME, nullable=False),
        sa.Column("last_success", _TIME, nullable=True),
        sa.Column("failing_since", _TIME, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("release", name=op.f("pk_hub_look")),
    )
    op.create_table(
        "hub_finding",
        sa.Column("id", _ORDERED, nullable=False),
        sa.Column("release", _ORDERED, nullable=False),
        sa.Column("differences", sa.Text(), nullable=False),
        sa.Column("exposes", sa.Boolean(), nullable=False),
        sa.Column("found_at", _TIME, nullable=False),
        sa.Column("last_seen_at", _TIME, nullable=False),
        sa.Column("closed_at", _TIME, nullable=True),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("incident", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hub_finding")),
    )
    op.create_index(
        op.f("ix_hub_finding_release_found_at"), "hub_finding", ["release", "found_at"], unique=False
    )
