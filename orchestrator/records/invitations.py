"""Which release an invitation belongs to, by its digest: how somebody without an account is let in to one gate.

A row decides nothing: the release's state says what an invitation is for, and custody reads it from the log. One that is put in by
hand leads to a release that does not know it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import MetaData, Text, select
from sqlalchemy.orm import Session
from sqlmodel import Field, SQLModel

from orchestrator.domain.events import Invited
from orchestrator.records.tables import METADATA, ORDERED, UtcTime, table


class InvitationRow(SQLModel, table=True):
    """An invitation: its digest, its release, and the one-time public key that accepts it."""

    metadata: ClassVar[MetaData] = METADATA
    __tablename__ = "invitation"

    id: str = Field(primary_key=True, sa_type=ORDERED)
    release: str
    key: str = Field(sa_type=Text)
    at: datetime = Field(sa_type=UtcTime)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an invitation belongs."""

    release: str
    key: str


INVITATION = table(InvitationRow)


def row_of(release: str, event: Invited) -> dict[str, Any]:
    """The row of an invitation that was made."""
    return {"id": event.invitation, "release": release, "key": event.key, "at": event.at}


def find(session: Session, invitation: str) -> Place | None:
    """Where an invitation belongs, by its digest; None when there is none."""
    found = session.execute(
        select(INVITATION.c.release, INVITATION.c.key).where(INVITATION.c.id == invitation)
    ).one_or_none()
    return None if found is None else Place(found.release, found.key)
