"""A confirmed leak of weights is told to every release that shares them, whoever confirmed it and where.

Follows the event log behind a mark in the records, and moves the mark once everybody was told: a worker that dies in between,
and two that follow at once, tell the same commands again, which changes nothing. What other releases hear has its own incident
there, so that each closes it by its own quorum.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from activities.leaks.sending import Commands
from orchestrator.domain.commands import SERVICE, AnyCommand, TriageIncident
from orchestrator.domain.errors import SluiceError, Unavailable
from orchestrator.domain.events import ArtifactRegistered, IncidentReported, IncidentTriaged
from orchestrator.domain.incident import Confidence, Incident
from orchestrator.domain.leaks import confirmed_weights, shared_incident, shared_report, sharing
from orchestrator.domain.state import ReleaseState
from orchestrator.records import event_log, releases, signatures, spreading
from orchestrator.records.database import reading, writing

_log = structlog.get_logger("leaks")
_KINDS = ("incident_reported", "incident_triaged", "artifact_registered")


@dataclass
class Spreading:
    """Follows the log and tells.

    Attributes:
        engine: of the records.
        commands: where commands go.
        every: seconds between two looks.
    """

    engine: Engine
    commands: Commands
    every: float = 1.0
    _task: asyncio.Task[None] | None = field(default=None, repr=False)

    def start(self) -> None:
        """Follow until `stop`."""
        self._task = asyncio.create_task(self._run(), name="leak-spreading")

    async def stop(self) -> None:
        """End, and wait."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except Unavailable as error:
                _log.warning("confirmed leaks could not be told yet", why=error.detail)
            except SluiceError:
                _log.exception("confirmed leaks could not be told")
            await asyncio.sleep(self.every)

    async def look(self) -> int:
        """Tell what has come to the log; how many commands were sent.

        Raises:
            Unavailable: the records or a release do not answer; the mark stays, the next look tells again.
        """
        upto, wanted = await asyncio.to_thread(self._wanted)
        for release, command in wanted:
            try:
                await self.commands.send(release, command)
            except Unavailable:
                raise
            except SluiceError as error:  # it has ended, or somebody was first
                _log.info("a shared leak was not reported", release=release, why=error.detail)
            else:
                _log.warning("a confirmed leak holds a release that shares the weights", release=release)
        if upto is not None:
            await asyncio.to_thread(self._told, upto)
        return len(wanted)

    def _told(self, upto: int) -> None:
        with writing(self.engine) as session:
            spreading.tell_upto(session, upto)

    def _wanted(self) -> tuple[int | None, list[tuple[str, AnyCommand]]]:
        with reading(self.engine) as session:
            after, last = spreading.told_upto(session), event_log.last_event(session)
            if last <= after:
                return None, []
            found = event_log.since(session, after, _KINDS, upto=last)
            leaks: dict[tuple[str, str], None] = {}
            newcomers: dict[str, None] = {}
            for stored in found:
                match stored.event:
                    case IncidentReported(incident=incident):
                        leaks[stored.release, incident.id] = None
                    case IncidentTriaged(incident=name):
                        leaks[stored.release, name] = None
                    case ArtifactRegistered():
                        newcomers[stored.release] = None
            alike = signatures.alike(session) if leaks or newcomers else {}
            wanted: list[tuple[str, AnyCommand]] = []
            for release, name in leaks:
                state = releases.load(session, release)
                reported = state.incidents.get(name)
                if reported is not None and reported.open:
                    wanted += _tell(state, reported, _carriers(session, state, alike), alike)
            if newcomers:
                troubled = spreading.with_open_incidents(session)
                for release in newcomers:
                    state = releases.load(session, release)
                    for other in troubled:
                        if other.release != release and not state.ended:
                            for incident in other.open_incidents:
                                wanted += _tell(other, incident, [state], alike)
        return last, wanted


def _carriers(session: Session, state: ReleaseState, alike: dict[str, str]) -> list[ReleaseState]:
    """Other releases that may share weights with this one."""
    own = set(state.artifacts)
    same = {alike[name] for name in own if name in alike}
    names = own | {name for name, group in alike.items() if group in same}
    manifests = {artifact.manifest_digest for artifact in state.artifacts.values()}
    found = spreading.carrying(session, sorted(names | manifests))
    return [other for other in found if other.release != state.release]


def _tell(
    state: ReleaseState, incident: Incident, others: list[ReleaseState], alike: dict[str, str]
) -> list[tuple[str, AnyCommand]]:
    """The commands that tell other releases of a confirmed leak."""
    weights = confirmed_weights(state, incident)
    as_id = shared_incident(state.release, incident)
    if not weights or as_id is None:
        return []
    commands: list[tuple[str, AnyCommand]] = []
    for other in others:
        components = sharing(state, weights, other, alike)
        if not components or other.ended:
            continue
        known = other.incidents.get(as_id)
        if known is None:
            commands.append((other.release, shared_report(state.release, incident, components, as_id=as_id)))
        elif known.open and known.confidence in {Confidence.REPORTED, Confidence.SUSPECTED}:
            severity = max(known.severity, incident.severity, key=lambda s: s.rank)
            triage = TriageIncident(
                command_id=f"confirmed:{state.release}:{incident.id}"[:128],
                actor=SERVICE,
                incident=as_id,
                severity=severity,
                confidence=Confidence.CONFIRMED,
                note=f"confirmed in {state.release}, which shares the weights",
            )
            commands.append((other.release, triage))
    return commands
