"""The records' first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ORDERED = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make every table, and the head of an empty audit log."""
    op.create_table(
        "artifact",
        sa.Column("id", _ORDERED, nullable=False),
        sa.Column("manifest_digest", sa.String(), nullable=False),
        sa.Column("manifest", sa.LargeBinary(), nullable=False),
        sa.Column("wrapped_root", sa.Text(), nullable=True),
        sa.Column("location", sa.String(), nullable=False),
        sa.Column("components", sa.Text(), nullable=False),
        sa.Column("size", _BIG, nullable=False),
        sa.Column("uploader", sa.String(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_artifact")),
    )
    op.create_index(op.f("ix_artifact_created_at_id"), "artifact", ["created_at", "id"], unique=False)
    op.create_index(op.f("ix_artifact_manifest_digest"), "artifact", ["manifest_digest"], unique=False)
    op.create_table(
        "audit_checkpoint",
        sa.Column("size", _BIG, autoincrement=False, nullable=False),
        sa.Column("root", sa.LargeBinary(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("size", name=op.f("pk_audit_checkpoint")),
    )
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("size", _BIG, nullable=False),
        sa.Column("frontier", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_head")),
    )
    op.create_table(
        "audit_leaf",
        sa.Column("index", _BIG, autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("release", _ORDERED, nullable=True),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("index", name=op.f("pk_audit_leaf")),
    )
    op.create_index(op.f("ix_audit_leaf_kind_index"), "audit_leaf", ["kind", "index"], unique=False)
    op.create_index(op.f("ix_audit_leaf_release_index"), "audit_leaf", ["release", "index"], unique=False)
    op.create_table(
        "audit_node",
        sa.Column("level", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("index", _BIG, autoincrement=False, nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("level", "index", name=op.f("pk_audit_node")),
    )
    op.create_table(
        "command",
        sa.Column("release", _ORDERED, nullable=False),
        sa.Column("command_id", _ORDERED, nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.Column("first_seq", sa.Integer(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("events", sa.Text(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("release", "command_id", name=op.f("pk_command")),
    )
    op.create_table(
        "document",
        sa.Column("digest", _ORDERED, nullable=False),
        sa.Column("media_type", sa.String(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("size", _BIG, nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("digest", name=op.f("pk_document")),
    )
    op.create_table(
        "envelope",
        sa.Column("reference", _ORDERED, nullable=False),
        sa.Column("release", sa.String(), nullable=False),
        sa.Column("grant", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("dropped_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("reference", name=op.f("pk_envelope")),
    )
    op.create_index(op.f("ix_envelope_release_grant"), "envelope", ["release", "grant"], unique=False)
    op.create_table(
        "event",
        sa.Column("id", _BIG, autoincrement=False, nullable=False),
        sa.Column("release", _ORDERED, nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("command_id", sa.String(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_event")),
        sa.UniqueConstraint("release", "seq", name=op.f("uq_event_release_seq")),
    )
    op.create_table(
        "grant_row",
        sa.Column("release", _ORDERED, nullable=False),
        sa.Column("id", _ORDERED, nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("holder", sa.String(), nullable=False),
        sa.Column("holder_kind", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.Column("made_at", _TIME, nullable=False),
        sa.Column("not_after", _TIME, nullable=True),
        sa.Column("disclosed_at", _TIME, nullable=True),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("release", "id", name=op.f("pk_grant_row")),
    )
    op.create_index(
        op.f("ix_grant_row_holder_live_made_at_release_id"),
        "grant_row",
        ["holder", "live", "made_at", "release", "id"],
        unique=False,
    )
    op.create_index(op.f("ix_grant_row_live_not_after"), "grant_row", ["live", "not_after"], unique=False)
    op.create_table(
        "idempotency",
        sa.Column("principal", _ORDERED, nullable=False),
        sa.Column("key", _ORDERED, nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("reference", sa.String(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("principal", "key", name=op.f("pk_idempotency")),
    )
    op.create_index(op.f("ix_idempotency_at"), "idempotency", ["at"], unique=False)
    op.create_table(
        "incident",
        sa.Column("release", _ORDERED, nullable=False),
        sa.Column("id", _ORDERED, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False),
        sa.Column("confidence", sa.String(), nullable=False),
        sa.Column("open", sa.Boolean(), nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("release", "id", name=op.f("pk_incident")),
    )
    op.create_index(op.f("ix_incident_at_release_id"), "incident", ["at", "release", "id"], unique=False)
    op.create_index(
        op.f("ix_incident_open_at_release_id"), "incident", ["open", "at", "release", "id"], unique=False
    )
    op.create_table(
        "partner",
        sa.Column("id", _ORDERED, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_partner")),
    )
    op.create_table(
        "partner_key",
        sa.Column("partner", _ORDERED, nullable=False),
        sa.Column("digest", _ORDERED, nullable=False),
        sa.Column("recipient", sa.Text(), nullable=False),
        sa.Column("statement", sa.Text(), nullable=True),
        sa.Column("added_at", _TIME, nullable=False),
        sa.Column("added_by", sa.String(), nullable=False),
        sa.Column("revoked_at", _TIME, nullable=True),
        sa.Column("revoked_by", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("partner", "digest", name=op.f("pk_partner_key")),
    )
    op.create_table(
        "partner_terms",
        sa.Column("partner", _ORDERED, nullable=False),
        sa.Column("terms", _ORDERED, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("partner", "terms", name=op.f("pk_partner_terms")),
    )
    op.create_table(
        "principal",
        sa.Column("id", _ORDERED, nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("roles", sa.Text(), nullable=False),
        sa.Column("partner", sa.String(), nullable=True),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_principal")),
    )
    op.create_index(op.f("ix_principal_partner"), "principal", ["partner"], unique=False)
    op.create_table(
        "release",
        sa.Column("id", _ORDERED, nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("name_key", _ORDERED, nullable=False),
        sa.Column("organisation", sa.String(), nullable=False),
        sa.Column("creator", sa.String(), nullable=False),
        sa.Column("announced", sa.Boolean(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("stage", sa.String(), nullable=False),
        sa.Column("current_step", sa.String(), nullable=True),
        sa.Column("next_step", sa.String(), nullable=True),
        sa.Column("on_hold", sa.Boolean(), nullable=False),
        sa.Column("open_incidents", sa.Integer(), nullable=False),
        sa.Column("plan_digest", sa.String(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("gate_etag", sa.String(), nullable=True),
        sa.Column("opens_at", _TIME, nullable=True),
        sa.Column("changes_at", _TIME, nullable=True),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("updated_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_release")),
        sa.UniqueConstraint("name", "version", name=op.f("uq_release_name_version")),
    )
    op.create_index(op.f("ix_release_changes_at"), "release", ["changes_at"], unique=False)
    op.create_index(op.f("ix_release_created_at_id"), "release", ["created_at", "id"], unique=False)
    op.create_index(op.f("ix_release_name_key_id"), "release", ["name_key", "id"], unique=False)
    op.create_index(
        op.f("ix_release_stage_created_at_id"), "release", ["stage", "created_at", "id"], unique=False
    )
    op.create_index(
        op.f("ix_release_status_created_at_id"), "release", ["status", "created_at", "id"], unique=False
    )
    op.create_index(
        op.f("ix_release_status_stage_created_at_id"),
        "release",
        ["status", "stage", "created_at", "id"],
        unique=False,
    )
    op.create_index(op.f("ix_release_updated_at_id"), "release", ["updated_at", "id"], unique=False)
    op.create_table(
        "token",
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("principal", sa.String(), nullable=False),
        sa.Column("label", sa.String(), nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("expires_at", _TIME, nullable=True),
        sa.Column("revoked_at", _TIME, nullable=True),
        sa.Column("last_used_at", _TIME, nullable=True),
        sa.PrimaryKeyConstraint("hash", name=op.f("pk_token")),
        sa.UniqueConstraint("id", name=op.f("uq_token_id")),
    )
    op.create_index(op.f("ix_token_principal"), "token", ["principal"], unique=False)
    op.create_table(
        "wait",
        sa.Column("release", _ORDERED, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("person", _ORDERED, nullable=False),
        sa.Column("what", sa.String(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("step", sa.String(), nullable=True),
        sa.Column("reference", sa.String(), nullable=True),
        sa.Column("since", _TIME, nullable=False),
        sa.Column("due", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("release", "number", "person", name=op.f("pk_wait")),
    )
    op.create_index(
        op.f("ix_wait_person_due_release_number"),
        "wait",
        ["person", "due", "release", "number"],
        unique=False,
    )

    head = sa.table(
        "audit_head",
        sa.column("id", sa.Integer),
        sa.column("size", sa.Integer),
        sa.column("frontier", sa.LargeBinary),
    )
    op.execute(head.insert().values(id=1, size=0, frontier=bytes(8)))
