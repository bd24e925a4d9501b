"""After a restore: what the records lack, by release and number, as Temporal's histories and custody's memory know it.

Two witnesses outside the records are asked. A workflow's history holds every event that the workflow evolved by; custody's
database, and the notes in its second places, hold how long the log was and with what root. Nothing is changed by asking.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import col, select
from temporalio.client import Client

from infra.backup.histories import Asked, Held, read_history, releases_in_temporal
from infra.backup.manifest import BackupError
from infra.backup.records import root_at
from orchestrator.domain.events import AnyEvent
from orchestrator.domain.values import canonical, digest
from orchestrator.records import audit, event_log
from orchestrator.records.database import reading, writing
from orchestrator.records.tables import ReleaseRow
from orchestrator.trust.checkpoints import Checkpoint, NoteVerifier, verify_checkpoint
from orchestrator.trust.errors import TrustError
from orchestrator.trust.merkle import CompactTree

_CHUNK = 1_000


@dataclass(frozen=True, slots=True)
class MissingEvent:
    """An event that the workflow evolved by and the records lack. `held`: Temporal still keeps it whole."""

    seq: int
    held: bool
    type: str | None = None
    at: str | None = None
    by: str | None = None


@dataclass(frozen=True, slots=True)
class ReleaseFound:
    """One release, held against its workflow.

    Attributes:
        release: its id.
        records: the sequence number that the records end at; 0 when it is not in them.
        temporal: the one that the workflow is at; None when Temporal does not know it.
        missing: what the records lack.
        differs_at: the first number at which both hold another event; nothing may be written back then.
    """

    release: str
    records: int
    temporal: int | None
    missing: list[MissingEvent] = field(default_factory=list)
    differs_at: int | None = None


@dataclass(frozen=True, slots=True)
class LogFound:
    """The restored log, held against what somebody else knows of it.

    Attributes:
        witness: custody's memory, or a folder of notes.
        size: how many entries the witness has seen.
        fits: whether the entries that the records do have are those that it saw; `differs_at` is the first that is not.
        missing: events behind the end of the records, by release and number, as far as the witness knows them.
        other: how many entries behind the end are no events (refusals, unwraps, accesses, changes of people), or unknown.
    """

    witness: str
    size: int
    fits: bool
    differs_at: int | None = None
    missing: dict[str, list[int]] = field(default_factory=dict)
    other: int = 0


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What is known after asking everyone. `log_size`, `log_root`: of the records as they stand."""

    log_size: int
    log_root: str
    releases: list[ReleaseFound]
    witnesses: list[LogFound]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing and nothing differs, as far as anybody asked can know."""
        return not any(found.missing or found.differs_at for found in self.releases) and all(
            seen.fits and seen.size <= self.log_size for seen in self.witnesses
        )

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"complete": self.complete, **asdict(self)}


async def compare_with_temporal(engine: Engine, client: Client) -> tuple[list[ReleaseFound], dict[str, Held]]:
    """Every release in the records or in Temporal, and what its histories hold of those that lack events.

    Raises:
        CodecError: the codec keys do not open the histories.
        RPCError: Temporal does not answer.
        Unavailable: the database does not answer.
    """
    with reading(engine) as session:
        rows = session.execute(select(col(ReleaseRow.id), col(ReleaseRow.seq))).all()
        stored = {str(row[0]): int(row[1]) for row in rows}
    listed = {release async for release in releases_in_temporal(client)}
    found, behind = [], {}
    for release in sorted(listed | set(stored)):
        held = await read_history(client, release)
        seq = stored.get(release, 0)
        if held is None:
            found.append(ReleaseFound(release, seq, None))
            continue
        missing = [_missing(number, held.events.get(number)) for number in range(seq + 1, held.seq + 1)]
        found.append(ReleaseFound(release, seq, held.seq, missing, differs(engine, held, seq)))
        if missing:
            behind[release] = held
    return found, behind


def _missing(seq: int, event: AnyEvent | None) -> MissingEvent:
    if event is None:
        return MissingEvent(seq, held=False)
    return MissingEvent(seq, held=True, type=event.type, at=event.at.isoformat(), by=event.by)


def differs(engine: Engine, held: Held, seq: int) -> int | None:
    """The first place at which the records hold another event than the workflow evolved by."""
    first = min(held.events, default=seq + 1)
    with reading(engine) as session:
        for stored in event_log.events(session, held.release, after=first - 1, limit=max(0, seq - first + 1)):
            known = held.events.get(stored.seq)
            if known is not None and _body(known) != _body(stored.event):
                return stored.seq
    return None


def _body(event: AnyEvent) -> bytes:
    return canonical(event.model_dump(mode="json"))


def replay_missing(engine: Engine, found: Sequence[ReleaseFound], behind: dict[str, Held], by: str) -> int:
    """Write back what is missing, release by release, through the ordinary append; how many events. An entry of the log says so.

    A command that a person or pipeline sent is recorded as it was sent. Of the service's own commands (a gate that opened, an entry
    that was completed) the histories hold the events alone: they are recorded with the type `replayed`.

    Raises:
        BackupError: a release differs, or Temporal no longer keeps all that it lacks; nothing was written for any release.
        Conflict, KeyReused, RecordsBehind: the records changed meanwhile.
    """
    for one in found:
        if one.differs_at is not None and one.missing:
            raise BackupError(
                f"{one.release} holds another event {one.differs_at} than its workflow: people must decide"
            )
        gone = [event.seq for event in one.missing if not event.held]
        if gone:
            raise BackupError(
                f"Temporal no longer keeps the events {gone[0]} to {gone[-1]} of {one.release}: a newer backup is needed"
            )
    written = 0
    for one in found:
        if not one.missing:
            continue
        held = behind[one.release]
        events = [(event.seq, held.events[event.seq]) for event in one.missing]
        with writing(engine) as session:
            now = datetime.now(UTC)
            for _, group in groupby(events, key=lambda pair: pair[1].command_id):
                event_log.append(session, _request(one.release, list(group), held.asked), now)
            entry = {"action": "events_replayed", "by": by, "first": events[0][0], "last": events[-1][0]}
            audit.append(session, "admin", entry, at=now, release=one.release)
        written += len(events)
    return written


def _request(
    release: str, placed: Sequence[tuple[int, AnyEvent]], asked: dict[str, Asked]
) -> event_log.Append:
    events = [event for _, event in placed]
    first = events[0]
    made_of = digest([event.model_dump(mode="json") for event in events])
    command = asked.get(first.command_id) or Asked("replayed", made_of, None)
    return event_log.Append(
        release=release,
        first_seq=placed[0][0],
        events=events,
        command_id=first.command_id,
        command_type=command.type,
        command_digest=command.digest,
        actor=first.by,
        request_id=command.request_id,
        address=command.address,
    )


# --- what others know of the log -----------------------------------------------------------------------------------------


def compare_with_memory(engine: Engine, url: str, password: str | None = None) -> LogFound:
    """Hold the log against custody's memory, entry by entry. Custody's database is only read.

    Raises:
        BackupError: it can't be read.
        Unavailable: the records do not answer.
    """
    from orchestrator.records.database import connect

    memory = connect(url, password=password) if url.startswith("postgres") else create_engine(_read_only(url))
    try:
        with memory.connect() as connection:
            frontier = connection.execute(text("SELECT frontier FROM custody_tree WHERE id = 1")).scalar_one()
            size = CompactTree.from_bytes(bytes(frontier)).size
            return _held_against(engine, connection, size)
    except SQLAlchemyError as error:
        raise BackupError(
            f"custody's memory can't be read ({type(error).__name__}): run this where custody runs, with its SLUICE_CUSTODY_DATABASE_URL"
        ) from None
    finally:
        memory.dispose()


def _read_only(url: str) -> str:
    path = Path(url.removeprefix("sqlite:///")).absolute()
    return f"sqlite:///file:{path}?mode=ro&uri=true"


def _held_against(engine: Engine, memory: Any, size: int) -> LogFound:
    ask = text(
        'SELECT "index", hash, release, seq FROM custody_leaf WHERE "index" >= :start ORDER BY "index" LIMIT :most'
    )
    missing: dict[str, list[int]] = {}
    other, differs_at = 0, None
    with reading(engine) as session:
        end = audit.head(session).size
        for start in range(0, size, _CHUNK):
            ours = {leaf.index: leaf.hash for leaf in audit.leaves(session, start, limit=_CHUNK)}
            for index, hashed, release, seq in memory.execute(ask, {"start": start, "most": _CHUNK}):
                if index < end:
                    if differs_at is None and ours.get(index) != bytes(hashed):
                        differs_at = int(index)
                    if differs_at is None:
                        continue
                if release is not None and seq is not None:
                    missing.setdefault(release, []).append(int(seq))
                else:
                    other += 1
    return LogFound("custody's memory", size, differs_at is None, differs_at, missing, other)


def compare_with_notes(engine: Engine, folder: Path, verifier: NoteVerifier | None) -> LogFound:
    """Hold the log against the signed checkpoints that lie in a folder (a second place, or a copy of one).

    Raises:
        BackupError: there is none, or one is not signed by the log's key.
        Unavailable: the records do not answer.
    """
    with reading(engine) as session:
        end = audit.head(session).size
    largest, differs_at = 0, None
    for note in _notes(folder, verifier):
        if note.size > largest:
            largest = note.size
        if note.size <= end and differs_at is None and root_at(engine, note.size) != note.root:
            differs_at = note.size
    return LogFound(str(folder), largest, differs_at is None, differs_at, {}, max(0, largest - end))


def _notes(folder: Path, verifier: NoteVerifier | None) -> Iterator[Checkpoint]:
    paths = sorted(folder.glob("*.note"))
    if not paths:
        raise BackupError(f"{folder} holds no notes (*.note) of checkpoints")
    for path in paths:
        note = path.read_text(encoding="utf-8")
        try:
            if verifier is None:
                yield Checkpoint.parse(note.rpartition("\n\n")[0] + "\n")
            else:
                yield verify_checkpoint(note, verifier)
        except TrustError as error:
            raise BackupError(f"{path}: {error}") from None
