"""Invitations made and used with real signatures, for whoever tests them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from orchestrator.domain import commands as cmd
from orchestrator.domain.state import GateSubject
from orchestrator.trust.invitations import (
    acceptance_statement,
    invitation_statement,
    invited_sign_off_statement,
)
from orchestrator.trust.keys import PrivateKey
from orchestrator.trust.signing import sign


@dataclass
class Invited:
    """One invitation with its one-time key, and a reviewer who answers it."""

    subject: GateSubject
    at: datetime
    inviter: str
    inviter_key: PrivateKey
    reviewer: str = "jane"
    role: str = "reviewer"
    lasts: timedelta = timedelta(days=7)
    one_time: PrivateKey = field(default_factory=PrivateKey.generate)
    own: PrivateKey = field(default_factory=PrivateKey.generate)

    def __post_init__(self) -> None:
        self.statement = invitation_statement(
            self.subject,
            reviewer=self.reviewer,
            organisation="A University",
            role=self.role,
            one_time_key=self.one_time.public,
            invited_by=self.inviter,
            issued_at=self.at,
            expires_at=self.at + self.lasts,
        )
        self.envelope = sign(self.statement.to_bytes(), self.inviter_key).decode()

    @property
    def id(self) -> str:
        return self.statement.digest

    @property
    def reviewing(self) -> cmd.Actor:
        return cmd.Actor(id=self.reviewer, kind="invited")

    def fields(self) -> dict[str, Any]:
        """Of the command and of the event."""
        return {
            "step": self.subject.step,
            "role": self.role,
            "reviewer": self.reviewer,
            "organisation": "A University",
            "subject": self.subject.digest,
            "key": self.one_time.public.text(),
            "expires_at": self.at + self.lasts,
            "envelope": self.envelope,
        }

    def acceptance(self, at: datetime, key: PrivateKey | None = None, own: PrivateKey | None = None) -> str:
        made = acceptance_statement(self.statement, reviewer_key=(own or self.own).public, issued_at=at)
        return sign(made.to_bytes(), key or self.one_time).decode()

    def signed(
        self,
        at: datetime,
        decision: Any = "approve",
        *,
        subject: GateSubject | None = None,
        key: PrivateKey | None = None,
        **more: Any,
    ) -> str:
        made = invited_sign_off_statement(
            subject or self.subject,
            self.statement,
            decision=decision,
            issued_at=at,
            validity=timedelta(days=60),
            **more,
        )
        return sign(made.to_bytes(), key or self.own).decode()

    def answer(self, at: datetime, decision: Any = "approve") -> dict[str, Any]:
        """Of the command that signs."""
        return {
            "step": self.subject.step,
            "invitation": self.id,
            "decision": decision,
            "subject": self.subject.digest,
            "expires_at": at + timedelta(days=59),
            "acceptance": self.acceptance(at),
            "envelope": self.signed(at, decision),
        }
