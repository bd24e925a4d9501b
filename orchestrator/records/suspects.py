"""Suspects: candidates of the sources, what they were judged to be, and the signed verdicts.

A suspect is known by its key (a digest of its content, or its place at a revision): seen by two sources or for two releases, it
is one. Each is judged once per artifact, and again only when something could not be read.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import and_, func, insert, or_, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.domain.errors import NotFound
from orchestrator.records.database import insert_new, upsert
from orchestrator.records.documents import Cipher
from orchestrator.records.monitor_tables import JudgementRow, SuspectRow, VerdictRow
from orchestrator.records.pages import Page, after, cut, decode_cursor, encode_cursor, page_size
from orchestrator.records.tables import table

_SUSPECT, _JUDGEMENT, _VERDICT = table(SuspectRow), table(JudgementRow), table(VerdictRow)
_CHUNK = 400

#: What of a verdict binds its sealed bytes to their place.
_CONTEXT = "leak-verdict:"


@dataclass(frozen=True, slots=True)
class Suspect:
    """A candidate as it was kept. `body`: the whole candidate as JSON, its digests and details included."""

    key: str
    source: str
    target: str
    title: str
    size: int | None
    sighting: bool
    body: dict[str, Any]
    seen_at: datetime


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found when a suspect was held against an artifact.

    Attributes:
        outcome: `match`, `partial`, `no_match`, `inconclusive`, or `ruled_out` (by the listing alone).
        tier: that decided; -1 when none did.
        verdict: digest of the signed verdict.
        next_at: when it is tried again; None: never.
    """

    artifact: str
    suspect: str
    outcome: str
    at: datetime
    tier: int = -1
    reason: str = ""
    verdict: str | None = None
    attempts: int = 1
    reported: bool = False
    next_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredVerdict:
    """A signed verdict without its text."""

    digest: str
    suspect: str
    artifact: str
    outcome: str
    tier: int
    log_index: int
    at: datetime


# --- candidates --------------------------------------------------------------------------------------------------------


def keep(session: Session, candidates: Sequence[Suspect], now: datetime) -> int:
    """Keep candidates that are not known; how many were new. The first sighting of a key stays."""
    fresh = {suspect.key: suspect for suspect in reversed(candidates)}
    keys = list(fresh)
    for at in range(0, len(keys), _CHUNK):
        some = keys[at : at + _CHUNK]
        for key in session.execute(
            select(col(SuspectRow.key)).where(col(SuspectRow.key).in_(some))
        ).scalars():
            del fresh[key]
    if not fresh:
        return 0
    last = session.execute(select(func.max(col(SuspectRow.number)))).scalar_one() or 0
    rows = [
        {
            "key": suspect.key,
            "number": last + place,
            "source": suspect.source,
            "target": suspect.target,
            "title": suspect.title,
            "size": suspect.size,
            "sighting": suspect.sighting,
            "body": json.dumps(suspect.body),
            "seen_at": suspect.seen_at,
            "recorded_at": now,
        }
        for place, suspect in enumerate(fresh.values(), 1)
    ]
    session.connection().execute(insert(_SUSPECT), rows)
    return len(rows)


def get(session: Session, key: str) -> Suspect:
    """One suspect.

    Raises:
        NotFound: there is none.
    """
    row = session.get(SuspectRow, key)
    if row is None:
        raise NotFound(f"there is no suspect {key}")
    return _of(row)


def _of(row: Any) -> Suspect:
    return Suspect(
        row.key, row.source, row.target, row.title, row.size, row.sighting, json.loads(row.body), row.seen_at
    )


def pending(
    session: Session,
    artifacts: Mapping[str, datetime],
    now: datetime,
    *,
    limit: int,
    sightings: bool = False,
) -> list[tuple[Suspect, list[str]]]:
    """Suspects that some of these artifacts have not been held against, oldest first, with those artifacts.

    Args:
        session: any session.
        artifacts: artifact → the earliest sighting that counts for it.
        now: judgements to be tried again by then are pending too.
        limit: at most so many.
        sightings: only those that are evidence by themselves.
    """
    found: dict[str, tuple[int, Suspect, list[str]]] = {}
    for artifact, since in sorted(artifacts.items()):
        judged = _SUSPECT.outerjoin(
            _JUDGEMENT, and_(_JUDGEMENT.c.suspect == _SUSPECT.c.key, _JUDGEMENT.c.artifact == artifact)
        )
        statement = (
            select(_SUSPECT)
            .select_from(judged)
            .where(
                _SUSPECT.c.seen_at >= since,
                or_(_JUDGEMENT.c.suspect.is_(None), _JUDGEMENT.c.next_at <= now),
            )
        )
        if sightings:
            statement = statement.where(_SUSPECT.c.sighting.is_(True))
        for row in session.execute(statement.order_by(_SUSPECT.c.number).limit(limit)):
            found.setdefault(row.key, (row.number, _of(row), []))[2].append(artifact)
    ordered = sorted(found.values(), key=lambda entry: entry[0])[:limit]
    return [(suspect, names) for _, suspect, names in ordered]


# --- judgements --------------------------------------------------------------------------------------------------------


def judge(session: Session, judgements: Sequence[Judgement]) -> None:
    """Keep judgements. One that was reported stays reported, and counts its attempts."""
    upsert(
        session,
        _JUDGEMENT,
        [
            {
                "artifact": j.artifact,
                "suspect": j.suspect,
                "outcome": j.outcome,
                "tier": j.tier,
                "reason": j.reason[:4_000],
                "verdict": j.verdict,
                "attempts": j.attempts,
                "reported": j.reported,
                "next_at": j.next_at,
                "at": j.at,
            }
            for j in judgements
        ],
    )


def judgements_of(session: Session, suspect: str) -> dict[str, Judgement]:
    """Artifact → what a suspect was judged to be."""
    rows = session.execute(select(JudgementRow).where(col(JudgementRow.suspect) == suspect)).scalars()
    return {row.artifact: _judgement(row) for row in rows}


def unreported(session: Session, artifacts: Collection[str] | None = None) -> list[Judgement]:
    """Matches and parts that no release has been told of."""
    statement = select(JudgementRow).where(
        col(JudgementRow.outcome).in_(("match", "partial")), col(JudgementRow.reported).is_(False)
    )
    if artifacts is not None:
        statement = statement.where(col(JudgementRow.artifact).in_(sorted(artifacts)))
    return [_judgement(row) for row in session.execute(statement.order_by(col(JudgementRow.at))).scalars()]


def reported(session: Session, artifact: str, suspect: str) -> None:
    """Note that every release concerned has its incident."""
    session.execute(
        update(_JUDGEMENT)
        .where(col(JudgementRow.artifact) == artifact, col(JudgementRow.suspect) == suspect)
        .values(reported=True)
    )


def counts(session: Session) -> dict[str, int]:
    """Outcome → how many judgements; `suspects` → how many suspects."""
    rows = session.execute(
        select(col(JudgementRow.outcome), func.count()).group_by(col(JudgementRow.outcome))
    )
    found = {str(outcome): int(number) for outcome, number in rows}
    return found | {"suspects": int(session.execute(select(func.count()).select_from(_SUSPECT)).scalar_one())}


def _judgement(row: JudgementRow) -> Judgement:
    return Judgement(
        artifact=row.artifact,
        suspect=row.suspect,
        outcome=row.outcome,
        at=row.at,
        tier=row.tier,
        reason=row.reason,
        verdict=row.verdict,
        attempts=row.attempts,
        reported=row.reported,
        next_at=row.next_at,
    )


def list_judgements(
    session: Session, *, outcome: str | None = None, cursor: str | None = None, limit: int = 50
) -> Page[tuple[Judgement, Suspect]]:
    """Judgements with their suspects, newest first.

    Raises:
        Malformed: a cursor of another list, or a limit out of range.
    """
    limit = page_size(limit)
    key = None if cursor is None else decode_cursor(cursor, "judgements", datetime, str, str)
    statement = select(JudgementRow, SuspectRow).join(
        SuspectRow, col(SuspectRow.key) == col(JudgementRow.suspect)
    )
    if outcome is not None:
        statement = statement.where(col(JudgementRow.outcome) == outcome)
    columns = [col(JudgementRow.at), col(JudgementRow.artifact), col(JudgementRow.suspect)]
    rows = session.execute(after(statement, columns, key, down=True).limit(limit + 1)).all()
    return cut(
        rows,
        limit,
        lambda row: (_judgement(row[0]), _of(row[1])),
        lambda row: encode_cursor("judgements", row[0].at, row[0].artifact, row[0].suspect),
    )


# --- verdicts ----------------------------------------------------------------------------------------------------------


def put_verdict(session: Session, verdict: StoredVerdict, envelope: bytes, cipher: Cipher) -> bool:
    """Keep a signed verdict, sealed; whether it is new."""
    row = {
        "digest": verdict.digest,
        "suspect": verdict.suspect,
        "artifact": verdict.artifact,
        "outcome": verdict.outcome,
        "tier": verdict.tier,
        "sealed": cipher.seal(envelope, f"{_CONTEXT}{verdict.digest}".encode()),
        "log_index": verdict.log_index,
        "at": verdict.at,
    }
    return insert_new(session, _VERDICT, row)


def verdict(session: Session, digest: str, cipher: Cipher) -> tuple[StoredVerdict, bytes]:
    """A verdict and its signed envelope.

    Raises:
        NotFound: there is none.
    """
    row = session.get(VerdictRow, digest)
    if row is None:
        raise NotFound(f"there is no verdict {digest}")
    known = StoredVerdict(row.digest, row.suspect, row.artifact, row.outcome, row.tier, row.log_index, row.at)
    return known, cipher.open(bytes(row.sealed), f"{_CONTEXT}{digest}".encode())
