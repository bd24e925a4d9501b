"""What stands at a gate, as everybody is shown it: unmet conditions, sign-offs, shares, the window, the whole verdict."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from orchestrator.domain.custody_wait import StandingWait
from orchestrator.domain.state import GateSubject
from orchestrator.domain.values import Digest, Frozen, Instant, Line, Name

Standing = Literal["counts", "stale", "expired", "not_in_plan", "barred", "revoked", "counted_already"]


class Condition(Frozen):
    """One thing that must hold, and does not.

    Attributes:
        code: a stable word, such as `sign_off` or `research_window`.
        message: what is missing, in words.
        who: people who can meet it; empty when nobody has to do anything (a clock) or anybody with the permission can.
        met_at: for a clock that runs, when it will be met if nothing changes; None when it stands or is no clock.
        role: of a missing sign-off, the role.
    """

    code: str
    message: str
    who: list[str] = Field(default_factory=list)
    met_at: Instant | None = None
    role: Name | None = None


class SignOffView(Frozen):
    """A standing decision and whether it counts: `counts`, or why not.

    Attributes:
        standing: `revoked`: the invitation was taken back; `counted_already`: one of the people who stand behind it (the
            person, whoever delegated to them, or whoever invited them) counts at this gate already.
        invited_by: of an invited reviewer, who invited them; `organisation`: where the invitation says that they stand.
    """

    person: Name
    role: Name
    decision: Literal["approve", "reject"]
    standing: Standing
    at: Instant
    expires_at: Instant
    on_behalf_of: Name | None = None
    comment: str | None = None
    statement: Digest | None = None
    invited_by: Name | None = None
    organisation: Line | None = None
    shares: list[Name] = Field(default_factory=list, exclude_if=lambda value: not value)

    @property
    def behind(self) -> set[str]:
        """Who of the plan stands behind it: each counts once at a gate."""
        if self.invited_by is not None:
            return {self.invited_by}
        return {self.person} if self.on_behalf_of is None else {self.person, self.on_behalf_of}


class ShareView(Frozen):
    """The key shares of one artifact that a gate hands out: how many are needed, who holds one, whose counts."""

    artifact: Name
    threshold: int
    holders: list[Name]
    released: list[Name]


class DelegationView(Frozen):
    """At this gate, `to` may sign in `role` for `person` until then."""

    person: Name
    to: Name
    role: Name
    until: Instant


class WindowView(Frozen):
    """The research window: seconds asked and counted, and whether the clock runs."""

    asked: float
    counted: float
    running: bool
    stands_because: str | None = None
    met_at: Instant | None = None


class Verdict(Frozen):
    """What stands at a gate now.

    Attributes:
        open: every condition holds.
        unmet: every condition that does not, waived ones left out.
        waived: codes that break-glass lifted, of those that would be unmet.
        delegations: who may sign this gate in somebody else's role, for whom, and until when.
        opens_at: when the gate will open if nothing changes; None when somebody has to do something first.
        changes_at: the next instant at which time alone changes this verdict (a clock is met, a sign-off expires).
        waits: what custody waits for while the step is being entered; also among the unmet conditions.
        etag: changes exactly when what people decide on changes; clocks do not change it.
    """

    step: Name
    open: bool
    unmet: list[Condition]
    waived: list[str]
    sign_offs: list[SignOffView]
    delegations: list[DelegationView] = Field(default_factory=list)
    window: WindowView
    shares: list[ShareView] = Field(default_factory=list, exclude_if=lambda value: not value)
    subject: GateSubject
    subject_digest: Digest
    irreversible: bool
    opens_at: Instant | None
    changes_at: Instant | None
    etag: str
    waits: StandingWait | None = None
