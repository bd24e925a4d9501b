"""What waits for a second lock: as people see it, and as the provider keeps it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PendingUnwrap:
    """An unwrap that waits for a second lock, as its provider keeps it.

    Attributes:
        token: **secret**: whoever holds it gets the key once people have approved.
        accessor: for the approvers.
        expires_at: POSIX seconds when it lapses.
        purpose: what the unwrap is for.
        about: the artifact whose root is asked for.
    """

    token: str
    accessor: str
    expires_at: float
    purpose: str = ""
    about: str = ""

    def __repr__(self) -> str:
        return f"PendingUnwrap(accessor={self.accessor!r})"


@dataclass(frozen=True, slots=True)
class LockRequest:
    """One unwrap that a second lock holds, as the people who approve it need it. No secret is in it.

    Attributes:
        about: the artifact whose root is asked for.
        accessor: what approvers look at and approve the request by; it opens nothing by itself.
        expires_at: POSIX seconds when it lapses.
        approved: whether enough people have approved; None when the provider may not look.
        approved_by: who has, as the key service names them.
    """

    about: str
    accessor: str
    expires_at: float
    approved: bool | None = None
    approved_by: tuple[str, ...] = ()
