"""Telling releases what was seen: sightings become incidents, and which sources see becomes known to gates.

A sighting has one incident id, so that telling it again changes nothing; it counts as told once every release that carries the
artifact has the incident. What a source saw is told only when it matters to a gate, by the release's own rule.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog
from sqlalchemy import Engine

from activities.leaks.sending import Commands
from orchestrator.contracts import leak_messages as msg
from orchestrator.domain.commands import SERVICE, AnyCommand, ReportIncident, ReportMonitor, ReportTrace
from orchestrator.domain.decide import decide
from orchestrator.domain.deciding import short_id
from orchestrator.domain.errors import Conflict, NotFound, ReleaseEnded, SluiceError, Unavailable
from orchestrator.domain.leaks import (
    Evidence,
    Sighting,
    monitored_sources,
    report_of,
    surer,
    traceable,
    traced,
    whose_copies,
)
from orchestrator.domain.state import ReleaseState
from orchestrator.records import monitors, releases, spreading, suspects
from orchestrator.records.database import reading, writing
from orchestrator.records.suspects import Judgement, Suspect

_log = structlog.get_logger("leaks")


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Telling:
    """Tells releases.

    Attributes:
        engine: of the records.
        commands: where commands go.
        evidence: digest of a verdict → partners whose own copy it found, bit for bit; and whether only sealed files were found.
        clock: tells the time (aware).
    """

    engine: Engine
    commands: Commands
    evidence: Callable[[str], tuple[tuple[str, ...], bool]]
    clock: Callable[[], datetime] = field(default=_now)

    async def sightings(self, artifacts: list[str]) -> msg.Told:
        """Open the incidents of what was found of these artifacts; those that stand then, and what of them is to be traced."""
        found = await asyncio.to_thread(self._unreported, artifacts)
        told: list[str] = []
        traces: list[msg.TraceRequest] = []
        for judgement, suspect in found:
            sighting = await asyncio.to_thread(self._sighting, judgement, suspect)
            states = await asyncio.to_thread(self._carrying, judgement.artifact)
            complete = True
            for state in states:
                command = report_of(state, sighting)
                if command is None:
                    continue
                if await self._open(state, command) and await self._name(state, command, sighting):
                    told.append(f"{state.release}/{command.incident}")
                    traces += _to_trace(state, command, sighting)
                else:
                    complete = False
            if complete:
                await asyncio.to_thread(self._reported, judgement)
        return msg.Told(incidents=told, traces=traces)

    async def trace(self, told: msg.TraceTold) -> None:
        """Write on an incident what its trace came to; whoever is accused becomes its partner, and the response table acts.

        Raises:
            Unavailable: the release does not answer; tell it again.
        """
        release, name = told.asked.release, told.asked.incident
        state = await asyncio.to_thread(self._state, release)
        incident = state.incidents.get(name)
        if incident is None or not incident.open:
            _log.warning("a trace came to an incident that is closed", release=release, incident=name)
            return
        accused = [p.partner for p in told.trace.partners if p.suspicion == "accused"]
        digest = told.trace.report or ""
        noted = ReportTrace(
            command_id=short_id("trace", release, name, digest, told.trace.at.isoformat()),
            actor=SERVICE,
            incident=name,
            trace=told.trace,
        )
        judged = traced(state, incident, accused, digest) if digest else []
        commands: list[AnyCommand] = [noted, *judged]
        for command in commands:
            try:
                await self.commands.send(release, command)
            except (ReleaseEnded, Conflict, NotFound) as error:
                _log.warning("a trace was not taken", release=release, incident=name, why=error.detail)
                return
        _log.warning("a leak was traced", release=release, incident=name, accused=len(accused))

    async def tokens(self, release: str, since: datetime) -> list[str]:
        """Open the incidents of honey tokens that were touched since then."""
        mark = f"@{release}"
        state, touched = await asyncio.to_thread(self._touched, release, mark, since)
        told: list[str] = []
        for suspect in touched:
            place = suspect.title[:200] or suspect.key[:200]
            command = report_of(
                state, Sighting(candidate=suspect.key, artifact=None, evidence="token", place=place)
            )
            if command is None or not await self._open(state, command):
                continue
            told.append(f"{release}/{command.incident}")
            seen = Judgement(mark, suspect.key, "sighted", self.clock(), reported=True)
            await asyncio.to_thread(self._judged, seen)
        return told

    async def monitors(self, release: str) -> list[str]:
        """Tell a release when its sources last saw, where its gates would notice; the sources told of."""
        commands = await asyncio.to_thread(self._monitor_commands, release)
        for command in commands:
            try:
                await self.commands.send(release, command)
            except (ReleaseEnded, Conflict) as error:
                _log.info("a release was not told of a source", release=release, why=error.detail)
        return [command.source for command in commands]

    # --- what is to be told

    def _monitor_commands(self, release: str) -> list[ReportMonitor]:
        now = self.clock()
        with reading(self.engine) as session:
            state = releases.load(session, release)
            standing = {source.name: source for source in monitors.list_sources(session)}
        commands = []
        for name in monitored_sources(state):
            source = standing.get(name)
            if source is None or source.last_success is None or not source.configured:
                continue
            # it saw up to where it is behind, not up to the moment it looked
            seen = source.last_success - timedelta(seconds=source.behind_seconds)
            command = ReportMonitor(
                command_id=f"monitor:{name}:{int(seen.timestamp() * 1000)}",
                actor=SERVICE,
                source=name,
                last_success=seen,
            )
            try:
                if decide(state, command, now):
                    commands.append(command)
            except ReleaseEnded:
                return []
        return commands

    def _unreported(self, artifacts: list[str]) -> list[tuple[Judgement, Suspect]]:
        with reading(self.engine) as session:
            found = suspects.unreported(session, artifacts)
            return [(judgement, suspects.get(session, judgement.suspect)) for judgement in found]

    def _sighting(self, judgement: Judgement, suspect: Suspect) -> Sighting:
        evidence: Evidence = "partial"
        if judgement.outcome == "match":
            evidence = "exact" if judgement.tier == 0 else "sketch"
        place = (suspect.target or suspect.title).split("?", 1)[0]
        printable = "".join(c if c.isprintable() else "?" for c in place)[:200]
        copies, sealed = ((), False) if judgement.verdict is None else self.evidence(judgement.verdict)
        if sealed:
            evidence = "sealed"
        return Sighting(
            candidate=suspect.key,
            artifact=judgement.artifact,
            evidence=evidence,
            place=printable or "an unnamed place",
            verdict=judgement.verdict,
            copies=copies,
        )

    def _carrying(self, artifact: str) -> list[ReleaseState]:
        with reading(self.engine) as session:
            found = spreading.carrying(session, [artifact])
        return [state for state in found if artifact in state.artifacts]

    def _touched(self, release: str, mark: str, since: datetime) -> tuple[ReleaseState, list[Suspect]]:
        with reading(self.engine) as session:
            state = releases.load(session, release)
            found = suspects.pending(session, {mark: since}, self.clock(), limit=50, sightings=True)
        return state, [suspect for suspect, _ in found]

    async def _open(self, state: ReleaseState, command: ReportIncident) -> bool:
        """Open one incident; whether it stands now, or never will."""
        known = state.incidents.get(command.incident)
        sent: AnyCommand | None = command if known is None else surer(known, command)
        if sent is None:
            return True
        try:
            await self.commands.send(state.release, sent)
        except (ReleaseEnded, Conflict):
            return True  # it has ended, or has the incident already
        except Unavailable as error:
            _log.warning("a release could not be told of a leak", release=state.release, why=error.detail)
            return False
        except SluiceError as error:
            _log.exception("a release refused the report of a leak", release=state.release, why=error.detail)
            return False
        _log.warning("a leak was reported", release=state.release, incident=command.incident)
        return True

    async def _name(self, state: ReleaseState, report: ReportIncident, sighting: Sighting) -> bool:
        """Name every partner whose own copy was found, where there are several: their grants end one after the other."""
        for command in whose_copies(state, report, sighting):
            try:
                await self.commands.send(state.release, command)
            except (ReleaseEnded, Conflict, NotFound):
                return True
            except Unavailable as error:
                _log.warning(
                    "a release could not be told whose copy", release=state.release, why=error.detail
                )
                return False
        return True

    def _state(self, release: str) -> ReleaseState:
        with reading(self.engine) as session:
            return releases.load(session, release)

    def _reported(self, judgement: Judgement) -> None:
        with writing(self.engine) as session:
            suspects.reported(session, judgement.artifact, judgement.suspect)

    def _judged(self, judgement: Judgement) -> None:
        with writing(self.engine) as session:
            suspects.judge(session, [judgement])


def _to_trace(state: ReleaseState, report: ReportIncident, sighting: Sighting) -> list[msg.TraceRequest]:
    """What of a sighting is traced: weights that were recognised, not known by their digest, of which marked copies are out."""
    if (
        sighting.verdict is None
        or sighting.artifact is None
        or sighting.evidence not in {"sketch", "partial"}
    ):
        return []
    known = state.incidents.get(report.incident)
    if known is not None and known.sighting != report.sighting:
        return []  # judged again (tier 3): custody traces for the verdict that the incident rests on
    return [
        msg.TraceRequest(
            release=state.release,
            incident=report.incident,
            component=component,
            suspect=sighting.candidate,
            artifact=sighting.artifact,
            verdict=sighting.verdict,
        )
        for component in traceable(state, report.components)
    ]
