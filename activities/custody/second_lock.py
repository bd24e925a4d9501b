"""What custody remembers while a second lock holds a request of its own: for two workers one memory, for each request one end.

    custody_waiting   a request that people have to approve: which entry (or other work) it is for, the leaf that announced it,
                      what was said of it last, and until when it can wait
    custody_pending   what the key service holds for it: accessor, and the token that redeems the approval, sealed

No root is kept here or anywhere else: every root of a request is fetched in one go, once all are approved. A token opens a
root once people have approved, so it lies sealed under a key that derives from custody's own identity: whoever reads or
writes this memory can neither use one nor put one in. A request whose entry has ended, whose work is done or whose time is over
is given up: its tokens are revoked at the key service and forgotten here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from sqlalchemy import (
    Column,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from activities.custody.keys import CustodyKeys
from activities.custody.memory import CustodyMemory
from artifacts.custody.base import KeyProvider
from artifacts.custody.errors import SecondLockPending
from artifacts.custody.second_lock import PendingUnwrap
from orchestrator.domain.decide_late import asked_key
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import digest

_METADATA = MetaData()
_WAITING = Table(
    "custody_waiting",
    _METADATA,
    Column("purpose", String, primary_key=True),
    Column("release", String, nullable=False, index=True),
    Column("kind", String, nullable=False),
    Column("name", String, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("partner", String, nullable=False),
    Column("at", Float, nullable=False),
    Column("leaf", Integer),
    Column("said", Text, nullable=False),
    Column("until", Float, nullable=False),
)
_PENDING = Table(
    "custody_pending",
    _METADATA,
    Column("ticket", String, primary_key=True),
    Column("purpose", String, nullable=False, index=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("expires_at", Float, nullable=False),
)
_SEAL_LABEL = b"sluice.release/custody-pending/v1"


@dataclass(frozen=True, slots=True)
class Purpose:
    """What custody asks the key service for: the work that ends it when it ends.

    Attributes:
        kind: `entry` of a step, a `late` grant, a `rotation` that seals anew, a `renewal` of envelopes, a `trace`
            of a suspect (ended by time alone).
        name: of the step or rotation.
        at: when the entry began or the grant was asked for; POSIX seconds.
        given: digest of who gets what under which key, where something is given: an approval counts for exactly that.
    """

    release: str
    kind: Literal["entry", "late", "rotation", "renewal", "trace"]
    name: str
    attempt: int = 0
    partner: str = ""
    at: float = 0.0
    given: str = ""

    @property
    def key(self) -> str:
        """Under what the key service and this memory know it."""
        parts = (self.release, self.kind, self.name, self.attempt, self.partner, repr(self.at), self.given)
        return digest([str(part) for part in parts])

    def stands(self, state: ReleaseState) -> bool:
        """Whether the work that it was asked for is still under way, by the log."""
        if self.release != state.release:
            return False
        match self.kind:
            case "entry":
                entry = state.entry
                return entry is not None and (entry.step, entry.attempt, entry.at.timestamp()) == (
                    self.name,
                    self.attempt,
                    self.at,
                )
            case "late":
                asked = state.grants_asked.get(asked_key(self.name, self.partner))
                return asked is not None and asked.at.timestamp() == self.at
            case "rotation":
                rotation = state.rotations.get(self.name)
                return rotation is not None and rotation.pending
            case "renewal":
                return bool(state.awaiting_renewal())
            case "trace":
                return True


class PendingStore(MutableMapping[str, PendingUnwrap]):
    """What waits at the key service, in custody's memory: every worker that has custody's keys and memory can go on with it."""

    def __init__(self, memory: CustodyMemory, keys: CustodyKeys) -> None:
        self._engine = memory.engine
        _METADATA.create_all(self._engine)
        derived = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=_SEAL_LABEL)
        self._aead = AESGCM(derived.derive(keys.identity.raw))

    def __getitem__(self, ticket: str) -> PendingUnwrap:
        with self._engine.connect() as connection:
            row = connection.execute(select(_PENDING).where(_PENDING.c.ticket == ticket)).one_or_none()
        if row is None:
            raise KeyError(ticket)
        try:
            sealed = bytes(row.sealed)
            opened = json.loads(self._aead.decrypt(sealed[:12], sealed[12:], ticket.encode()))
            return PendingUnwrap(**opened)
        except (InvalidTag, ValueError, TypeError):
            raise KeyError(ticket) from None  # not ours: as if it were not there, and people are asked anew

    def __setitem__(self, ticket: str, waiting: PendingUnwrap) -> None:
        with self._engine.begin() as connection:
            connection.execute(delete(_PENDING).where(_PENDING.c.ticket == ticket))
            connection.execute(insert(_PENDING).values(**self._row(ticket, waiting)))

    def setdefault(self, ticket: str, waiting: PendingUnwrap) -> PendingUnwrap:
        """Keep it unless something waits under this ticket; what waits then."""
        known = self.get(ticket)
        if known is not None:
            return known
        try:
            with self._engine.begin() as connection:
                connection.execute(insert(_PENDING).values(**self._row(ticket, waiting)))
        except IntegrityError:
            known = self.get(ticket)
            if known is not None:
                return known
            self[ticket] = waiting
        return waiting

    def __delitem__(self, ticket: str) -> None:
        with self._engine.begin() as connection:
            gone = connection.execute(delete(_PENDING).where(_PENDING.c.ticket == ticket)).rowcount
        if not gone:
            raise KeyError(ticket)

    def __iter__(self) -> Iterator[str]:
        with self._engine.connect() as connection:
            return iter(connection.execute(select(_PENDING.c.ticket)).scalars().all())

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _row(self, ticket: str, waiting: PendingUnwrap) -> dict[str, object]:
        nonce = os.urandom(12)
        text = json.dumps({name: getattr(waiting, name) for name in PendingUnwrap.__dataclass_fields__})
        return {
            "ticket": ticket,
            "purpose": waiting.purpose,
            "sealed": nonce + self._aead.encrypt(nonce, text.encode(), ticket.encode()),
            "expires_at": waiting.expires_at,
        }


class SecondLock:
    """Custody's requests that wait for people.

    Args:
        memory: custody's own database.
        provider: the key service; it keeps what waits there from now on.
        keys: custody's own.
    """

    def __init__(self, memory: CustodyMemory, provider: KeyProvider, keys: CustodyKeys) -> None:
        self._engine, self._provider = memory.engine, provider
        self.pending = PendingStore(memory, keys)
        provider.keep_pending(self.pending)

    def announced(self, purpose: Purpose) -> int | None:
        """The leaf that announced a request which waits; None for a new one."""
        statement = select(_WAITING.c.leaf).where(_WAITING.c.purpose == purpose.key)
        with self._engine.connect() as connection:
            found: int | None = connection.execute(statement).scalar_one_or_none()
        return found

    def waits(self, purpose: Purpose, pending: SecondLockPending, leaf: int | None) -> bool:
        """Remember that people are waited for; whether exactly this was not said before.

        Args:
            purpose: what the request is for.
            pending: what the key service said.
            leaf: where the log announces the request, if it does.
        """
        said = " ".join(sorted(request.accessor for request in pending.requests))
        until = max(request.expires_at for request in pending.requests)
        row = {
            name: getattr(purpose, name) for name in ("release", "kind", "name", "attempt", "partner", "at")
        }
        mine = _WAITING.c.purpose == purpose.key
        try:
            with self._engine.begin() as connection:
                known = connection.execute(select(_WAITING.c.said).where(mine)).one_or_none()
                if known is None:
                    values = {"purpose": purpose.key, "leaf": leaf, "said": said, "until": until}
                    connection.execute(insert(_WAITING).values(**row, **values))
                else:
                    kept = {"said": said, "until": until}
                    kept |= {} if leaf is None else {"leaf": leaf}
                    connection.execute(update(_WAITING).where(mine).values(**kept))
        except IntegrityError:
            return False  # the other worker has just said it
        return known is None or known.said != said

    def done(self, purpose: Purpose) -> None:
        """The work is done: nothing that was approved for it opens anything any more."""
        with self._engine.connect() as connection:
            known = connection.execute(
                select(_WAITING.c.purpose).where(_WAITING.c.purpose == purpose.key)
            ).first()
        if known is not None:
            self._end(purpose.key)

    def releases(self) -> list[str]:
        """Releases of which something waits."""
        with self._engine.connect() as connection:
            return sorted(connection.execute(select(_WAITING.c.release).distinct()).scalars())

    def end_of(self, state: ReleaseState) -> int:
        """Give up whatever the release does not ask for any more; how many requests that were."""
        statement = select(_WAITING).where(_WAITING.c.release == state.release)
        with self._engine.connect() as connection:
            rows = connection.execute(statement).all()
        gone = [
            row.purpose
            for row in rows
            if not Purpose(row.release, row.kind, row.name, row.attempt, row.partner, row.at).stands(state)
        ]
        for key in gone:
            self._end(key)
        return len(gone)

    def end_late(self, now: datetime) -> None:
        """Forget what has lapsed at the key service."""
        over = now.astimezone(UTC).timestamp()
        with self._engine.connect() as connection:
            lapsed = list(
                connection.execute(select(_WAITING.c.purpose).where(_WAITING.c.until < over)).scalars()
            )
        for key in lapsed:
            self._end(key)
        with self._engine.begin() as connection:
            connection.execute(delete(_PENDING).where(_PENDING.c.expires_at < over))

    def _end(self, key: str) -> None:
        self._provider.give_up(key)
        with self._engine.begin() as connection:
            connection.execute(delete(_WAITING).where(_WAITING.c.purpose == key))
            connection.execute(delete(_PENDING).where(_PENDING.c.purpose == key))


__all__ = ["PendingStore", "Purpose", "SecondLock"]
