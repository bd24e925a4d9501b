"""What custody says when it gives no key. Both are refusals of the rules, never retried by themselves.

Conflict
├── CustodyRefused    the gate, the request, a manifest or a key does not hold; the reasons say what
└── Unbacked          the log of the release has no honest reading
"""

from __future__ import annotations

from orchestrator.domain.errors import Conflict


class CustodyRefused(Conflict):
    """Custody gives no key; the reasons say why."""

    code = "custody-refused"
    title = "Custody gives no key"


class Unbacked(Conflict):
    """An event of the log that no signature and no rule backs: custody gives no key of this release."""

    code = "unbacked"
    title = "An entry of the log is not backed by what it needs"
