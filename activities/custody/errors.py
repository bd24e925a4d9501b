"""What custody says when it gives no key. Refusals of the rules are never retried by themselves; what waits is asked again.

Conflict
├── CustodyRefused    the gate, the request, a manifest or a key does not hold; the reasons say what
├── CustodyWaits      nothing but a clock stands against it; the release asks again by itself
└── Unbacked          the log of the release has no honest reading
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.domain.errors import Conflict, Reason


class CustodyRefused(Conflict):
    """Custody gives no key; the reasons say why."""

    code = "custody-refused"
    title = "Custody gives no key"


class CustodyWaits(Conflict):
    """No key yet: only a clock of custody's stands against it. The release waits and asks again; nobody has to retry.

    Attributes:
        seconds: how long until it is worth asking again; None when only custody's machine can be set right.
    """

    code = "custody-waits"
    title = "Custody waits for its clock"

    def __init__(self, detail: str, reasons: Iterable[Reason] = (), *, seconds: float | None = None) -> None:
        super().__init__(detail, list(reasons))
        self.seconds = seconds


class Unbacked(Conflict):
    """An event of the log that no signature and no rule backs: custody gives no key of this release."""

    code = "unbacked"
    title = "An entry of the log is not backed by what it needs"


class NoEffectError(Exception):
    """An event that nothing backs, and whose only effect would be to loosen something: custody's state stays as it was."""
