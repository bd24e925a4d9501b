"""What custody waits for while a step is being entered or a late grant is made: people behind a second lock, or its own clock."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.domain.values import Frozen, Instant, Line, Name, Text


class LockRequest(Frozen):
    """One key that people have to approve at the key service.

    Attributes:
        about: the artifact whose key is asked for.
        accessor: what approvers look at and approve the request by; it opens nothing.
        expires_at: when the request lapses; custody then makes a new one.
        approved_by: who has approved so far, as the key service names them.
    """

    about: Line
    accessor: Line
    expires_at: Instant | None = None
    approved_by: list[Line] = Field(default_factory=list)


class CustodyWait(Frozen):
    """What custody waits for.

    Attributes:
        what: `second_lock`: a control group has to approve; `clock`: custody's own clock has not counted enough.
        message: that in words.
        approvers: who approves, in the words of whoever set custody up; None when nobody said.
        requests: of a second lock, one for each key.
    """

    what: Literal["second_lock", "clock"]
    message: Text
    approvers: Line | None = None
    requests: list[LockRequest] = Field(default_factory=list)


class StandingWait(CustodyWait):
    """A wait that stands: since when, at which approach to which step, and for which partner's late grant if for one."""

    step: Name
    attempt: int
    partner: Name | None = None
    since: Instant

    @property
    def wait(self) -> CustodyWait:
        """What is waited for, alone."""
        return CustodyWait(
            what=self.what, message=self.message, approvers=self.approvers, requests=self.requests
        )


__all__ = ["CustodyWait", "LockRequest", "StandingWait"]
