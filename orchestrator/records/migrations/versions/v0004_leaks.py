"""Leak monitoring: signatures, sources, suspects, judgements, verdicts, reports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ORDERED = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables; nothing has been told to other releases yet."""
    op.create_table(
        "leak_judgement",
        sa.Column("artifact", _ORDERED, nullable=False),
        sa.Column("suspect", _ORDERED, nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("tier", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("verdict", sa.String(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("reported", sa.Boolean(), nullable=False),
        sa.Column("next_at", _TIME, nullable=True),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("artifact", "suspect", name=op.f("pk_leak_judgement")),
    )
    op.create_index(
        op.f("ix_leak_judgement_artifact_next_at"), "leak_judgement", ["artifact", "next_at"], unique=False
    )
    op.create_index(
        op.f("ix_leak_judgement_outcome_at_artifact_suspect"),
        "leak_judgement",
        ["outcome", "at", "artifact", "suspect"],
        unique=False,
    )
    op.create_table(
        "leak_parent",
        sa.Column("name", _ORDERED, nullable=False),
        sa.Column("artifact", _ORDERED, nullable=False),
        sa.Column("place", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leak_parent")),
    )
    op.create_table(
        "leak_parent_signature",
        sa.Column("parent", _ORDERED, nullable=False),
        sa.Column("artifact", _ORDERED, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("parent", "artifact", name=op.f("pk_leak_parent_signature")),
    )
    op.create_table(
        "leak_report",
        sa.Column("position", _BIG, autoincrement=False, nullable=False),
        sa.Column("id", _ORDERED, nullable=False),
        sa.Column("queue", _ORDERED, nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("contact", sa.Text(), nullable=False),
        sa.Column("via", sa.String(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("position", name=op.f("pk_leak_report")),
    )
    op.create_index(op.f("ix_leak_report_id"), "leak_report", ["id"], unique=True)
    op.create_index(op.f("ix_leak_report_queue_position"), "leak_report", ["queue", "position"], unique=False)
    op.create_table(
        "leak_signature",
        sa.Column("artifact", _ORDERED, nullable=False),
        sa.Column("copy_of", _ORDERED, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=False),
        sa.Column("alike", sa.String(), nullable=True),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("artifact", "copy_of", name=op.f("pk_leak_signature")),
    )
    op.create_table(
        "leak_spread",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("after", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leak_spread")),
    )
    op.create_table(
        "leak_suspect",
        sa.Column("key", _ORDERED, nullable=False),
        sa.Column("number", _BIG, nullable=False),
        sa.Column("source", _ORDERED, nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("title", sa.String(), nullable=False),
        sa.Column("size", _BIG, nullable=True),
        sa.Column("sighting", sa.Boolean(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("seen_at", _TIME, nullable=False),
        sa.Column("recorded_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_leak_suspect")),
    )
    op.create_index(op.f("ix_leak_suspect_number"), "leak_suspect", ["number"], unique=True)
    op.create_index(op.f("ix_leak_suspect_seen_at_key"), "leak_suspect", ["seen_at", "key"], unique=False)
    op.create_table(
        "leak_verdict",
        sa.Column("digest", _ORDERED, nullable=False),
        sa.Column("suspect", _ORDERED, nullable=False),
        sa.Column("artifact", _ORDERED, nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("tier", sa.Integer(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("log_index", _BIG, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_leak_verdict")),
    )
    op.create_index(op.f("ix_leak_verdict_artifact_at"), "leak_verdict", ["artifact", "at"], unique=False)
    op.create_index(op.f("ix_leak_verdict_suspect_at"), "leak_verdict", ["suspect", "at"], unique=False)
    op.create_table(
        "monitor_source",
        sa.Column("name", _ORDERED, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=True),
        sa.Column("configured", sa.Boolean(), nullable=False),
        sa.Column("polls", _BIG, nullable=False),
        sa.Column("candidates", _BIG, nullable=False),
        sa.Column("behind_seconds", sa.Float(), nullable=False),
        sa.Column("limits", sa.Text(), nullable=False),
        sa.Column("notes", sa.Text(), nullable=False),
        sa.Column("trouble", sa.String(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("failing_since", _TIME, nullable=True),
        sa.Column("last_attempt", _TIME, nullable=True),
        sa.Column("last_success", _TIME, nullable=True),
        sa.Column("retry_at", _TIME, nullable=True),
        sa.Column("leased_by", sa.String(), nullable=True),
        sa.Column("leased_until", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_monitor_source")),
    )
    spread = sa.table("leak_spread", sa.column("id", sa.Integer), sa.column("after", sa.BigInteger))
    op.execute(spread.insert().values(id=1, after=-1))
