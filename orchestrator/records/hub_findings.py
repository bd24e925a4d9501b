"""What sweeps saw of releases' repositories on the Hub: the last look, and findings that are open or closed.

One finding is open at most per release: the same differences seen again are the same finding, others close it and open
another one. A sweep that cannot look closes nothing: a watch that is blind must not look quiet.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session
from sqlmodel import col

from orchestrator.records.database import insert_new
from orchestrator.records.hub_tables import HubFindingRow, HubLookRow
from orchestrator.records.tables import table

Outcome = Literal["open", "repaired", "gone", "other"]
"""`gone`: somebody put it right; `other`: something else was different at the next look."""

_LOOK, _FINDING = table(HubLookRow), table(HubFindingRow)


@dataclass(frozen=True, slots=True)
class HubDifference:
    """One difference, as `artifacts.stores.hub_release.Difference`."""

    what: str
    expected: str
    actual: str
    exposes: bool


@dataclass(frozen=True, slots=True)
class HubFinding:
    """Differences that were found together. `incident`: the one that was opened for it."""

    id: str
    release: str
    differences: tuple[HubDifference, ...]
    exposes: bool
    found_at: datetime
    last_seen_at: datetime
    closed_at: datetime | None
    outcome: Outcome
    incident: str | None


@dataclass(frozen=True, slots=True)
class HubLook:
    """The last look. `failing_since` and `error`: since when it cannot be looked at, and why."""

    release: str
    repository: str
    looked_at: datetime
    last_success: datetime | None
    failing_since: datetime | None
    error: str | None


def looked(
    session: Session, release: str, repository: str, *, at: datetime, error: str | None = None
) -> None:
    """Note a look and whether it saw."""
    row = {"release": release, "repository": repository, "looked_at": at}
    insert_new(session, _LOOK, row | {"last_success": None, "failing_since": None, "error": None})
    there = last_look(session, release)
    if error is None:
        change: dict[str, object] = {"last_success": at, "failing_since": None, "error": None}
    else:
        since = at if there is None or there.failing_since is None else there.failing_since
        change = {"failing_since": since, "error": error}
    session.execute(update(_LOOK).where(_LOOK.c.release == release).values(row | change))


def last_look(session: Session, release: str) -> HubLook | None:
    """The last look at a release's repository, or None when there was none."""
    row = session.execute(select(_LOOK).where(_LOOK.c.release == release)).mappings().one_or_none()
    return None if row is None else HubLook(**row)


def found(
    session: Session, release: str, differences: Sequence[HubDifference], *, at: datetime
) -> HubFinding:
    """Note what was found: the finding that is open for it, now or already."""
    text = json.dumps([[d.what, d.expected, d.actual, d.exposes] for d in differences])
    there = open_finding(session, release)
    if there is not None:
        if tuple(differences) == there.differences:
            session.execute(update(_FINDING).where(_FINDING.c.id == there.id).values(last_seen_at=at))
            return there
        close(session, there.id, "other", at=at)
    row = {
        "id": "hub-" + secrets.token_hex(8),
        "release": release,
        "differences": text,
        "exposes": any(d.exposes for d in differences),
        "found_at": at,
        "last_seen_at": at,
        "closed_at": None,
        "outcome": "open",
        "incident": None,
    }
    session.execute(insert(_FINDING).values(row))
    return HubFinding(**(row | {"differences": tuple(differences)}))  # type: ignore[arg-type]


def raised(session: Session, finding: str, incident: str) -> None:
    """Note the incident that was opened for a finding."""
    session.execute(update(_FINDING).where(_FINDING.c.id == finding).values(incident=incident))


def close(session: Session, finding: str, outcome: Outcome, *, at: datetime) -> None:
    """End a finding."""
    session.execute(
        update(_FINDING)
        .where(_FINDING.c.id == finding, _FINDING.c.closed_at.is_(None))
        .values(closed_at=at, outcome=outcome)
    )


def open_finding(session: Session, release: str) -> HubFinding | None:
    """What is not as it should be now, as far as the last look saw."""
    rows = session.execute(
        select(HubFindingRow).where(
            col(HubFindingRow.release) == release, col(HubFindingRow.closed_at).is_(None)
        )
    ).scalars()
    return next((_finding(row) for row in rows), None)


def findings(session: Session, release: str, *, limit: int) -> list[HubFinding]:
    """The newest findings of a release, newest first."""
    rows = session.execute(
        select(HubFindingRow)
        .where(col(HubFindingRow.release) == release)
        .order_by(col(HubFindingRow.found_at).desc(), col(HubFindingRow.id))
        .limit(limit)
    ).scalars()
    return [_finding(row) for row in rows]


def _finding(row: HubFindingRow) -> HubFinding:
    return HubFinding(
        id=row.id,
        release=row.release,
        differences=tuple(HubDifference(*entry) for entry in json.loads(row.differences)),
        exposes=row.exposes,
        found_at=row.found_at,
        last_seen_at=row.last_seen_at,
        closed_at=row.closed_at,
        outcome=row.outcome,  # type: ignore[arg-type]
        incident=row.incident,
    )
