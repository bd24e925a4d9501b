"""The Hub sweep: is each release's repository still as the release left it? What was changed by hand is seen and answered.

    in order                    an open finding is closed
    different, plan `repair`    logged, brought back, shown as repaired; what cannot be brought back is raised
    different, plan `raise`     shown; where it lets somebody see or download more than the step allows, an incident is
                                opened too, which closes the release's gates until somebody has looked
    cannot be looked at         shown, with since when

A difference counts once it is seen twice with the same state of the release, so that a change that the release itself is
just making is none. What is exposed in such a case is ciphertext: the incident is a low one, and keys stay where they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import structlog
from sqlalchemy import Engine
from temporalio import activity

from activities.errors import at_the_edge
from activities.hub import expectation
from activities.leaks.sending import Commands
from artifacts.errors import ArtifactError
from artifacts.stores.hub_calls import HubCalls
from artifacts.stores.hub_release import Difference, HubDrift, HubRelease
from orchestrator.contracts import names
from orchestrator.contracts.messages import HubSwept, SweepHub
from orchestrator.domain.commands import SERVICE, ReportIncident
from orchestrator.domain.errors import Conflict, ReleaseEnded, Unavailable
from orchestrator.domain.incident import IncidentKind, Severity
from orchestrator.domain.state import ReleaseState
from orchestrator.records import audit, hub_findings, releases, spreading
from orchestrator.records.database import reading, writing
from orchestrator.records.hub_findings import HubDifference, HubFinding

log = structlog.get_logger("hub")


class HubSweeping:
    """The activity `sweep_hub`.

    Args:
        engine: of the records.
        calls: the repository (`HubStore.calls`); None: this deployment's store is no Hub, and there is nothing to look at.
        commands: where incidents are reported.
        confirm: seconds between the two looks that a difference has to be seen in.
        clock: tells the time (aware).
    """

    def __init__(
        self,
        engine: Engine,
        calls: HubCalls | None,
        commands: Commands,
        *,
        confirm: float = 10.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._engine, self._commands, self._confirm, self._clock = engine, commands, confirm, clock
        self._hub = None if calls is None else HubRelease(calls)
        self._where = "" if calls is None else calls.where

    @property
    def all(self) -> list[Callable[..., Any]]:
        """Every activity, for a worker."""
        return [self.sweep_hub]

    @activity.defn(name=names.SWEEP_HUB)
    async def sweep_hub(self, request: SweepHub) -> HubSwept:
        """Look at the repository once, for every release that is shown there."""
        with at_the_edge():
            if self._hub is None:
                return HubSwept()
            shown = await asyncio.to_thread(self._shown)
            if len(shown) > 1:
                # Each wants the repository its own way; repairing one would be drift of the other.
                told = "several releases share this repository: give each a store of its own"
                for state in shown:
                    await asyncio.to_thread(self._looked, state.release, told)
                return HubSwept(blind=[state.release for state in shown])
            result = HubSwept()
            for state in shown:
                result = await self._sweep(self._hub, state)
            return result

    async def _sweep(self, hub: HubRelease, state: ReleaseState) -> HubSwept:
        release = state.release
        try:
            differences = await asyncio.to_thread(hub.drift, expectation(state))
            if differences:
                await asyncio.sleep(self._confirm)
                if (await asyncio.to_thread(self._load, release)).seq != state.seq:
                    return HubSwept(busy=[release])
                differences = await asyncio.to_thread(hub.drift, expectation(state))
            return await self._answer(hub, state, differences)
        except HubDrift as drift:
            return await self._raise(state, drift.differences, "could not be brought back")
        except ArtifactError as error:
            log.warning("the Hub could not be looked at", release=release, why=str(error))
            await asyncio.to_thread(self._looked, release, str(error))
            return HubSwept(blind=[release])

    async def _answer(
        self, hub: HubRelease, state: ReleaseState, differences: tuple[Difference, ...]
    ) -> HubSwept:
        if not differences:
            await asyncio.to_thread(self._in_order, state.release)
            return HubSwept(in_order=[state.release])
        if state.plan.hub_drift == "raise":
            return await self._raise(state, differences, "was changed by hand")
        finding = await asyncio.to_thread(self._found, state, differences, "hub_repair")
        await asyncio.to_thread(hub.settle, expectation(state), "repair")
        await asyncio.to_thread(self._closed, finding, "repaired")
        log.warning("the Hub was changed by hand and brought back", release=state.release, finding=finding.id)
        return HubSwept(repaired=[state.release])

    async def _raise(self, state: ReleaseState, differences: tuple[Difference, ...], why: str) -> HubSwept:
        finding = await asyncio.to_thread(self._found, state, differences, "hub_drift")
        if finding.exposes and finding.incident is None:
            incident = finding.id
            command = ReportIncident(
                command_id=f"incident:{incident}",
                actor=SERVICE,
                incident=incident,
                kind=IncidentKind.LEAK,
                severity=Severity.LOW,
                summary=f"The repository {self._where} {why}: " + "; ".join(map(str, differences))[:1500],
                sighting=self._where,
            )
            try:
                with suppress(Conflict):  # it stands already: an earlier sweep died before it could note so
                    await self._commands.send(state.release, command)
            except ReleaseEnded:
                return HubSwept(raised=[state.release])
            except Unavailable as error:
                log.warning("an incident could not be reported", release=state.release, why=error.detail)
                return HubSwept(raised=[state.release])
            await asyncio.to_thread(self._reported, finding, incident)
        log.warning("the Hub is not as the release left it", release=state.release, finding=finding.id)
        return HubSwept(raised=[state.release])

    # --- the records

    def _shown(self) -> list[ReleaseState]:
        """Releases that have a repository: they are at a step, and none is just being entered."""
        with reading(self._engine) as session:
            standing = spreading.all_standing(session)
        return [state for state in standing if state.current is not None and state.entry is None]

    def _load(self, release: str) -> ReleaseState:
        with reading(self._engine) as session:
            return releases.load(session, release)

    def _looked(self, release: str, error: str | None) -> None:
        with writing(self._engine) as session:
            hub_findings.looked(session, release, self._where, at=self._clock(), error=error)

    def _in_order(self, release: str) -> None:
        now = self._clock()
        with writing(self._engine) as session:
            hub_findings.looked(session, release, self._where, at=now)
            there = hub_findings.open_finding(session, release)
            if there is not None:
                hub_findings.close(session, there.id, "gone", at=now)

    def _found(self, state: ReleaseState, differences: tuple[Difference, ...], action: str) -> HubFinding:
        now = self._clock()
        told = tuple(HubDifference(d.what, d.expected, d.actual, d.exposes) for d in differences)
        with writing(self._engine) as session:
            hub_findings.looked(session, state.release, self._where, at=now)
            finding = hub_findings.found(session, state.release, told, at=now)
            if finding.found_at == now:
                reference = f"{self._where}: " + "; ".join(map(str, differences))
                audit.record_access(
                    session, at=now, actor="sluice", action=action, release=state.release,
                    reference=reference[:1000],
                )  # fmt: skip
        return finding

    def _reported(self, finding: HubFinding, incident: str) -> None:
        with writing(self._engine) as session:
            hub_findings.raised(session, finding.id, incident)

    def _closed(self, finding: HubFinding, outcome: hub_findings.Outcome) -> None:
        with writing(self._engine) as session:
            hub_findings.close(session, finding.id, outcome, at=self._clock())
