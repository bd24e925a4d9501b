"""After Temporal's data was lost, or restored to an older day: releases' workflows are started again from the recorded events.

    lost      the records hold a release that has not ended, and Temporal does not know its workflow
    stopped   Temporal knows it, but somebody ended it (terminated, failed) before the release has ended
    behind    it runs from an older day than the records: what happened since would be acted on too late

Invariants:
    - A workflow begins at the state that the events of the audit log give, each held against its row; nothing else is believed.
    - A release whose history holds events that the records lack, or others, is refused: first the records, then the workflow.
    - The audit log says so (`workflow_restarted`) before the workflow is started.
    - Done twice it is done once: a release that runs at the records' last event is left alone.

A workflow that is started again first makes the outside look like the state, then does what is due; effects have the names of what
they are for, so whatever was done before is found done.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Engine
from sqlmodel import col, select
from temporalio.client import Client, WorkflowExecutionStatus
from temporalio.common import WorkflowIDConflictPolicy, WorkflowIDReusePolicy
from temporalio.exceptions import WorkflowAlreadyStartedError
from temporalio.service import RPCError, RPCStatusCode

from infra.backup.histories import read_history
from infra.backup.reconciling import differs
from orchestrator.contracts import names
from orchestrator.contracts.messages import Handled, ReleaseInput, carried_over
from orchestrator.domain import commands as cmd
from orchestrator.domain.errors import SluiceError
from orchestrator.domain.events import ReleaseCreated
from orchestrator.domain.evolve import fold
from orchestrator.records import audit, event_log, releases
from orchestrator.records.database import reading, writing
from orchestrator.records.errors import RecordsBroken
from orchestrator.records.tables import CommandRow, ReleaseRow
from workflows.release_recording import HANDLED_KEPT

Why = Literal["lost", "stopped", "behind"]

#: A healthy workflow writes its event to the records a moment before Temporal keeps it.
_SETTLES = timedelta(seconds=2)


@dataclass(frozen=True, slots=True)
class ToRestart:
    """One release that does not go on by itself. `temporal`: the event that its workflow is at, where it is known."""

    release: str
    why: Why
    records: int
    temporal: int | None = None


@dataclass(frozen=True, slots=True)
class NotRestarted:
    """One release that people have to look at first."""

    release: str
    reason: str


@dataclass(slots=True)
class Found:
    """What was found, and what came of it."""

    to_restart: list[ToRestart] = field(default_factory=list)
    refused: list[NotRestarted] = field(default_factory=list)
    restarted: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether every release goes on by itself now."""
        return not self.refused and {one.release for one in self.to_restart} == set(self.restarted)

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"complete": self.complete, **asdict(self)}


async def find(engine: Engine, client: Client, only: Sequence[str] = (), *, ended: bool = False) -> Found:
    """Every release that does not go on by itself; nothing is changed.

    Args:
        engine: the records.
        client: Temporal, with the codec keys.
        only: these releases; empty: all.
        ended: also those that have ended and that Temporal does not know: their access is put in order once more.

    Raises:
        CodecError: the codec keys do not open the histories.
        RPCError: Temporal does not answer.
        Unavailable: the database does not answer.
    """
    with reading(engine) as session:
        rows = session.execute(
            select(col(ReleaseRow.id), col(ReleaseRow.seq), col(ReleaseRow.status)).order_by(
                col(ReleaseRow.id)
            )
        ).all()
    known = {str(row[0]): (int(row[1]), row[2] in {"completed", "aborted"}) for row in rows}
    found = Found()
    for release in only:
        if release not in known:
            found.refused.append(NotRestarted(release, "the records hold no release of that id"))
    unsure: list[ToRestart] = []
    for release, (seq, over) in known.items():
        if only and release not in only:
            continue
        seen = await _look(engine, client, release, seq, over=over)
        if isinstance(seen, NotRestarted):
            found.refused.append(seen)
        elif seen is not None and seen.why == "behind":
            unsure.append(seen)
        elif seen is not None and (ended or not over):
            found.to_restart.append(seen)
    if unsure:  # one that is at work looks the same for a moment
        await asyncio.sleep(_SETTLES.total_seconds())
    for one in unsure:
        again = await _look(engine, client, one.release, one.records, over=known[one.release][1])
        if isinstance(again, ToRestart) and again.temporal == one.temporal:
            found.to_restart.append(again)
    found.to_restart.sort(key=lambda one: one.release)
    return found


async def _look(
    engine: Engine, client: Client, release: str, seq: int, *, over: bool
) -> ToRestart | NotRestarted | None:
    handle = client.get_workflow_handle(names.release_workflow_id(release))
    try:
        status = (await handle.describe()).status
    except RPCError as error:
        if error.status is not RPCStatusCode.NOT_FOUND:
            raise
        return ToRestart(release, "lost", seq)
    running = status is WorkflowExecutionStatus.RUNNING
    if over and not running:
        return None
    held = await read_history(client, release)
    at = 0 if held is None else held.seq
    if at > seq:
        return NotRestarted(
            release,
            f"its workflow is at event {at}, the records end at {seq}: "
            "first `sluice backup reconcile --replay-missing`",
        )
    differing = None if held is None else differs(engine, held, seq)
    if differing is not None:
        return NotRestarted(
            release, f"event {differing} is another in its workflow than in the records: people must decide"
        )
    if not running:
        return ToRestart(release, "stopped", seq, at)
    return ToRestart(release, "behind", seq, at) if at < seq else None


async def restart(engine: Engine, client: Client, found: Found, by: str) -> None:
    """Start what was found; who was, and who could not be, is noted in `found`.

    Args:
        engine: the records.
        client: Temporal.
        found: from `find`.
        by: who asked, for the audit log.

    Raises:
        RPCError: Temporal does not answer; what is left is found again.
        Unavailable: the database does not answer.
    """
    for one in found.to_restart:
        try:
            start = beginning(engine, one.release)
        except SluiceError as error:  # the log and its rows do not agree
            found.refused.append(NotRestarted(one.release, error.detail))
            continue
        assert start.state is not None
        entry = {
            "action": "workflow_restarted",
            "by": by,
            "seq": start.state.seq,
            "why": one.why,
            "was_at": one.temporal,
        }
        with writing(engine) as session:
            audit.append(session, "admin", entry, at=datetime.now(UTC), release=one.release)
        replaces = one.why == "behind"
        try:
            await client.start_workflow(
                names.RELEASE_WORKFLOW,
                start,
                id=names.release_workflow_id(one.release),
                task_queue=names.QUEUE_RELEASES,
                id_conflict_policy=WorkflowIDConflictPolicy.TERMINATE_EXISTING
                if replaces
                else WorkflowIDConflictPolicy.FAIL,
                id_reuse_policy=WorkflowIDReusePolicy.ALLOW_DUPLICATE,
            )
        except WorkflowAlreadyStartedError:
            found.refused.append(NotRestarted(one.release, "somebody else has just started it: look again"))
        else:
            found.restarted.append(one.release)


def beginning(engine: Engine, release: str) -> ReleaseInput:
    """What a workflow of this release begins with: the state that the log's events give, and the commands that were answered.

    Raises:
        NotFound: the log has no event of it.
        RecordsBroken: the log's events, their rows and the stored state do not agree.
    """
    with reading(engine) as session:
        history = event_log.check_events(session, release)
        stored = releases.load(session, release)
        latest = (
            select(CommandRow)
            .where(col(CommandRow.release) == release)
            .order_by(col(CommandRow.first_seq).desc())
            .limit(HANDLED_KEPT)
        )
        commands = list(session.execute(latest).scalars())
    state = fold(history)
    if state != stored:
        raise RecordsBroken(
            f"the stored state of {release} is not what its {len(history)} events give; make its read models anew from the log"
        )
    first = history[0]
    assert isinstance(first, ReleaseCreated)
    create = cmd.CreateRelease(
        command_id=first.command_id,
        actor=cmd.Actor(id=first.by),
        release=release,
        name=first.name,
        version=first.version,
        plan=first.plan,
    )
    handled = [
        Handled(
            command_id=row.command_id, command_digest=row.digest, seq=row.seq, events=json.loads(row.events)
        )
        for row in reversed(commands)
    ]
    return ReleaseInput(create=carried_over(create), state=state, handled=handled, applied_seq=0)
