"""The audit log in the database: leaves, nodes, head and checkpoints. Appending is O(log n) and in the caller's transaction.

A leaf is the canonical JSON of an entry, and every entry says its `kind`:

    event     {"kind":"event","release","seq","event":{…},"command":{"type","digest","request"}}
    refusal   a command that was refused: who, what, when, from where, and why; no bodies
    command   a command that was accepted and changed nothing: who, what, when, from where
    custody   what custody did or refused: unwraps, envelopes, rotations
    access    a key, file or page that was handed out, a visibility that was changed
    admin     principals, tokens, partners and their keys

Whoever appends holds the head row until the transaction ends, so leaves lie in the order of their commits and none is
missing in between. Only complete subtrees are stored, and stored rows never change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import and_, insert, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.errors import Malformed, NotFound, Reason
from orchestrator.records.errors import RecordsBroken
from orchestrator.records.tables import AuditCheckpointRow, AuditHeadRow, AuditLeafRow, AuditNodeRow, table
from orchestrator.trust import merkle
from orchestrator.trust.audit import MAX_LEAF, export_lines, leaf_bytes
from orchestrator.trust.checkpoints import Checkpoint, format_proof

Kind = Literal["event", "refusal", "command", "custody", "access", "admin"]

_HEAD = 1
_CHUNK = 1_000

# What every append runs is built once: building statements costs more than running them.
_HEAD_TABLE = table(AuditHeadRow)
_READ_HEAD = select(_HEAD_TABLE.c.frontier).where(_HEAD_TABLE.c.id == _HEAD)
_HOLD_HEAD = _READ_HEAD.with_for_update()
_MOVE_HEAD = update(_HEAD_TABLE).where(_HEAD_TABLE.c.id == _HEAD)
_ADD_LEAVES = insert(table(AuditLeafRow))
_ADD_NODES = insert(table(AuditNodeRow))


@dataclass(frozen=True, slots=True)
class NewLeaf:
    """A leaf that is to be appended: its canonical bytes, and what it is found by."""

    kind: Kind
    body: bytes
    at: datetime
    release: str | None = None


@dataclass(frozen=True, slots=True)
class Leaf:
    """A stored leaf. `body`: the canonical bytes that were hashed."""

    index: int
    kind: str
    release: str | None
    at: datetime
    body: bytes
    hash: bytes


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A signed checkpoint: how many leaves it covers, their root, and the signed note."""

    size: int
    root: bytes
    note: str
    at: datetime


def append_leaves(session: Session, leaves: Sequence[NewLeaf]) -> int:
    """Append leaves in the caller's write transaction; the index of the first.

    Raises:
        Malformed: a leaf is longer than the log allows.
    """
    tree = _hold_head(session)
    first = tree.size
    rows: list[dict[str, Any]] = []
    nodes: list[dict[str, Any]] = []
    for leaf in leaves:
        if len(leaf.body) > MAX_LEAF:
            raise Malformed(
                f"an entry of {len(leaf.body)} bytes is too long for the log; {MAX_LEAF} is the most"
            )
        index = tree.size
        own, *above = tree.append(leaf.body)
        rows.append(
            {
                "index": index,
                "kind": leaf.kind,
                "release": leaf.release,
                "at": leaf.at,
                "body": leaf.body,
                "hash": own.hash,
            }
        )
        nodes += [{"level": node.level, "index": node.position, "hash": node.hash} for node in above]
    connection = session.connection()
    connection.execute(_ADD_LEAVES, rows)
    if nodes:
        connection.execute(_ADD_NODES, nodes)
    connection.execute(_MOVE_HEAD, {"size": tree.size, "frontier": tree.to_bytes()})
    return first


def append(
    session: Session, kind: Kind, body: Mapping[str, Any], *, at: datetime, release: str | None = None
) -> int:
    """Append one entry of a kind other than `event`; its index.

    `kind`, `at` and, if there is one, `release` are added to the body. No secret and no text of a document may be in it.
    """
    entry = {**body, "kind": kind, "at": at.isoformat()}
    if release is not None:
        entry["release"] = release
    return append_leaves(session, [NewLeaf(kind, leaf_bytes(entry), at, release)])


def record_refusal(
    session: Session,
    *,
    at: datetime,
    actor: str | None,
    action: str,
    code: str,
    detail: str,
    reasons: Iterable[Reason] = (),
    release: str | None = None,
    command_id: str | None = None,
    request_id: str | None = None,
    address: str | None = None,
) -> int:
    """Log that somebody asked for something and was refused; the leaf's index.

    Args:
        session: a write session.
        at: when.
        actor: the principal; None when nobody was recognised.
        action: what was asked, such as `sign_off` or `POST /v1/releases`.
        code: the code of the error.
        detail: its sentence.
        reasons: every reason of it.
        release: which release, if it was one.
        command_id: the caller's idempotency key.
        request_id: of the request.
        address: where it came from.
    """
    body: dict[str, Any] = {
        "actor": actor,
        "action": action,
        "code": code,
        "detail": detail,
        "reasons": [reason.as_dict() for reason in reasons],
        "command_id": command_id,
        "request_id": request_id,
        "address": address,
    }
    return append(session, "refusal", body, at=at, release=release)


def record_unchanged(
    session: Session,
    *,
    at: datetime,
    actor: str,
    action: str,
    release: str,
    command_id: str | None = None,
    request_id: str | None = None,
    address: str | None = None,
) -> int:
    """Log that somebody commanded what held already, so that nothing came of it; the leaf's index.

    Args:
        session: a write session.
        at: when.
        actor: the principal.
        action: what was asked, such as `endorse`.
        release: which release.
        command_id: the caller's idempotency key.
        request_id: of the request.
        address: where it came from.
    """
    body: dict[str, Any] = {
        "actor": actor,
        "action": action,
        "changed": [],
        "command_id": command_id,
        "request_id": request_id,
        "address": address,
    }
    return append(session, "command", body, at=at, release=release)


def record_access(
    session: Session,
    *,
    at: datetime,
    actor: str | None,
    action: str,
    release: str | None = None,
    reference: str | None = None,
    request_id: str | None = None,
    address: str | None = None,
) -> int:
    """Log that something was handed out or made visible (an envelope, a link, a page); the leaf's index."""
    body = {
        "actor": actor,
        "action": action,
        "reference": reference,
        "request_id": request_id,
        "address": address,
    }
    return append(session, "access", body, at=at, release=release)


def _hold_head(session: Session) -> merkle.CompactTree:
    return merkle.CompactTree.from_bytes(bytes(session.connection().execute(_HOLD_HEAD).scalar_one()))


# --- reading ---------------------------------------------------------------------------------------------------------


def head(session: Session) -> merkle.CompactTree:
    """Size and frontier of the whole tree."""
    return merkle.CompactTree.from_bytes(bytes(session.execute(_READ_HEAD).scalar_one()))


def leaf(session: Session, index: int) -> Leaf:
    """One leaf.

    Raises:
        NotFound: the log is shorter.
    """
    found = next(leaves(session, index, limit=1), None)
    if found is None or found.index != index:
        raise NotFound(f"the audit log has no entry {index}")
    return found


def leaves(
    session: Session,
    start: int = 0,
    *,
    limit: int | None = None,
    release: str | None = None,
    kind: Kind | None = None,
) -> Iterator[Leaf]:
    """Leaves in order from index `start` on, of one release or kind if asked; read in chunks."""
    left = limit
    while left is None or left > 0:
        size = _CHUNK if left is None else min(_CHUNK, left)
        statement = select(AuditLeafRow).where(col(AuditLeafRow.index) >= start)
        if release is not None:
            statement = statement.where(col(AuditLeafRow.release) == release)
        if kind is not None:
            statement = statement.where(col(AuditLeafRow.kind) == kind)
        rows = session.execute(statement.order_by(col(AuditLeafRow.index)).limit(size)).scalars().all()
        for row in rows:
            yield Leaf(row.index, row.kind, row.release, row.at, bytes(row.body), bytes(row.hash))
        session.expunge_all()
        if len(rows) < size:
            return
        start = rows[-1].index + 1
        left = None if left is None else left - len(rows)


def node_reader(session: Session) -> merkle.NodeReader:
    """Reads stored nodes by (level, index), for proofs."""

    def read(level: int, index: int) -> bytes:
        if level == 0:
            statement = select(col(AuditLeafRow.hash)).where(col(AuditLeafRow.index) == index)
        else:
            statement = select(col(AuditNodeRow.hash)).where(
                and_(col(AuditNodeRow.level) == level, col(AuditNodeRow.index) == index)
            )
        found = session.execute(statement).scalar_one_or_none()
        if found is None:
            raise RecordsBroken(f"node ({level}, {index}) of the audit log is missing")
        return bytes(found)

    return read


def inclusion(session: Session, index: int, size: int) -> list[bytes]:
    """The path from leaf `index` to the root of the first `size` leaves.

    Raises:
        NotFound: there is no such leaf in a log of that size, or the log is shorter.
    """
    _within(session, size)
    if not 0 <= index < size:
        raise NotFound(f"a log of {size} entries has no entry {index}")
    return merkle.inclusion_proof(index, size, node_reader(session))


def consistency(session: Session, old: int, new: int) -> list[bytes]:
    """The proof that the log of `new` leaves extends that of `old`.

    Raises:
        NotFound: the log is shorter than `new`, or `old` is larger.
    """
    _within(session, new)
    if not 0 <= old <= new:
        raise NotFound(f"a log of {new} entries does not extend one of {old}")
    return merkle.consistency_proof(old, new, node_reader(session))


def _within(session: Session, size: int) -> None:
    there = head(session).size
    if size > there:
        raise NotFound(f"the audit log has {there} entries, not {size}")


# --- checkpoints -----------------------------------------------------------------------------------------------------


def store_checkpoint(session: Session, note: str, at: datetime) -> StoredCheckpoint:
    """Keep a signed checkpoint that custody made. The same one twice is once.

    The root must be ours: a checkpoint of another tree is refused. The signature is checked by whoever relies on it.

    Raises:
        RecordsBroken: the log does not have that root at that size.
    """
    checkpoint = Checkpoint.parse(note.partition("\n\n")[0] + "\n")
    tree = head(session)
    if checkpoint.size > tree.size:
        raise RecordsBroken(f"a checkpoint over {checkpoint.size} entries, but the log has {tree.size}")
    ours = (
        tree.root() if checkpoint.size == tree.size else merkle.root_at(checkpoint.size, node_reader(session))
    )
    if ours != checkpoint.root:
        raise RecordsBroken(f"the log's root over {checkpoint.size} entries is not the checkpoint's")
    known = session.get(AuditCheckpointRow, checkpoint.size)
    if known is None:
        known = AuditCheckpointRow(size=checkpoint.size, root=checkpoint.root, note=note, at=at)
        session.add(known)
        session.flush()
    return StoredCheckpoint(known.size, bytes(known.root), known.note, known.at)


def latest_checkpoint(session: Session, *, over: int = 0) -> StoredCheckpoint | None:
    """The checkpoint over the most leaves, if one covers at least `over`."""
    statement = select(AuditCheckpointRow).where(col(AuditCheckpointRow.size) >= over)
    row = session.execute(statement.order_by(col(AuditCheckpointRow.size).desc()).limit(1)).scalars().first()
    return None if row is None else StoredCheckpoint(row.size, bytes(row.root), row.note, row.at)


def checkpoints(
    session: Session, *, above: int = 0, limit: int | None = None, down: bool = False
) -> list[StoredCheckpoint]:
    """Checkpoints over more than `above` leaves, by size (largest first if `down`)."""
    size = col(AuditCheckpointRow.size)
    statement = (
        select(AuditCheckpointRow)
        .where(size > above)
        .order_by(size.desc() if down else size.asc())
        .limit(limit)
    )
    rows = session.execute(statement).scalars()
    return [StoredCheckpoint(row.size, bytes(row.root), row.note, row.at) for row in rows]


def proof(session: Session, index: int) -> str:
    """The inclusion proof of a leaf with the latest signed checkpoint, as one text (C2SP `tlog-proof`).

    Raises:
        NotFound: no such leaf, or no checkpoint covers it yet.
    """
    checkpoint = latest_checkpoint(session, over=index + 1)
    if checkpoint is None:
        _within(session, index + 1)
        raise NotFound(f"no signed checkpoint covers entry {index} yet; ask again in a moment")
    return format_proof(index, inclusion(session, index, checkpoint.size), checkpoint.note)


def export(session: Session, origin: str, *, start: int = 0) -> Iterator[bytes]:
    """The log as JSON lines up to its latest signed checkpoint, beginning at the checkpoint over `start` entries.

    Raises:
        NotFound: there is no signed checkpoint behind `start`.
    """
    last = latest_checkpoint(session, over=start)
    if last is None:
        raise NotFound(f"no signed checkpoint covers the log behind entry {start} yet")
    tree = merkle.compact_tree_at(start, node_reader(session)) if start else None
    bodies = (found.body for found in leaves(session, start, limit=last.size - start))
    notes = [c.note for c in checkpoints(session, above=start) if c.size <= last.size] or [last.note]
    return export_lines(origin, bodies, notes, start=tree)
