"""Builds of the release worker beside one another: which is the current one, who still runs on an old one, and moving them.

A release's run stays on the build that it began on (pinned). New runs begin on the current build; a run that wakes while another
build is the current one continues as new there. So an old build empties by itself, as its releases wake; `move` wakes them.

    take_over   what every release worker does once it polls: a build that was never the current one becomes it
    use         an operator's decision, for a way back
    builds      each build with what still runs on it
    move        wake every release that is on another build than the current one
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from temporalio.api.deployment.v1 import WorkerDeploymentInfo
from temporalio.api.enums.v1 import WorkerDeploymentVersionStatus
from temporalio.api.workflowservice.v1 import DescribeWorkerDeploymentRequest
from temporalio.client import Client
from temporalio.common import WorkerDeploymentVersion
from temporalio.service import RPCError, RPCStatusCode

from infra.temporal import TemporalError, make_current
from orchestrator.contracts import names

log = structlog.get_logger("builds")

_CALL = timedelta(seconds=10)
_PREFIX = "WORKER_DEPLOYMENT_VERSION_STATUS_"


@dataclass(frozen=True, slots=True)
class Build:
    """One build that the server knows.

    Attributes:
        id: its build id.
        current: whether new runs begin on it.
        status: the server's word: current, draining (something of an old kind may still run on it), drained, inactive.
        since: when that began to be so; None while it is not known.
        releases: how many releases run on it.
        others: how many other runs (ingests, sweeps, rotations).
    """

    id: str
    current: bool
    status: str
    since: datetime | None
    releases: int
    others: int

    @property
    def empty(self) -> bool:
        """Whether its worker may be ended: it is not the current one and nothing runs on it."""
        return not self.current and self.releases == 0 and self.others == 0

    def as_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "since": self.since and self.since.isoformat(), "empty": self.empty}


async def take_over(client: Client, version: WorkerDeploymentVersion) -> bool:
    """Make a worker's build the current one, unless it was so before and another one has replaced it.

    A worker of the old build that is started again beside the new one must not draw new releases back to the old code.

    Returns:
        Whether new runs begin on this build now.

    Raises:
        TemporalError: the server did not see a worker of this build.
    """
    known = await _describe(client, version.deployment_name)
    if known is not None:
        current = known.routing_config.current_deployment_version.build_id
        own = [s for s in known.version_summaries if s.deployment_version.build_id == version.build_id]
        if current and current != version.build_id and any(s.HasField("last_current_time") for s in own):
            log.warning(
                "an old build: it serves the releases that are on it, new ones begin on the current build",
                build=version.build_id,
                current=current,
            )
            return False
    await make_current(client, version)
    return True


async def use(client: Client, deployment: str, build: str) -> None:
    """Let new runs begin on a build, old or new; a worker of it must poll.

    Raises:
        TemporalError: the server has seen no worker of that build.
    """
    await make_current(client, WorkerDeploymentVersion(deployment, build), patience=timedelta(seconds=3))


async def builds(client: Client, deployment: str) -> list[Build]:
    """Every build that the server knows, the current one first. Its counts of runs may lag by seconds.

    Raises:
        TemporalError: no versioned worker has ever polled here.
    """
    known = await _describe(client, deployment)
    if known is None:
        raise TemporalError(
            f"Temporal knows no deployment {deployment!r} in {client.namespace}: no release worker has polled there"
        )
    current = known.routing_config.current_deployment_version.build_id
    found = [await _build(client, known.name, summary, current) for summary in known.version_summaries]
    return sorted(found, key=lambda one: (not one.current, one.id))


async def _build(
    client: Client,
    deployment: str,
    summary: WorkerDeploymentInfo.WorkerDeploymentVersionSummary,
    current: str,
) -> Build:
    build = summary.deployment_version.build_id
    changed = summary.routing_update_time
    on_it = f"ExecutionStatus = 'Running' AND TemporalWorkerDeploymentVersion = '{deployment}:{build}'"
    runs = (await client.count_workflows(on_it)).count
    releases = (await client.count_workflows(f"{on_it} AND WorkflowType = '{names.RELEASE_WORKFLOW}'")).count
    return Build(
        id=build,
        current=build == current,
        status=WorkerDeploymentVersionStatus.Name(summary.status).removeprefix(_PREFIX).lower(),
        since=changed.ToDatetime() if summary.HasField("routing_update_time") else None,
        releases=releases,
        others=max(0, runs - releases),
    )


async def move(client: Client, deployment: str) -> list[str]:
    """Wake every open release that is not on the current build; the ids of those that were woken.

    Each continues as new on the current build, as soon as what it does at the moment is done. Safe to repeat. A release on a build
    that does not know of moving yet stays there until its history is long.

    Raises:
        TemporalError: there is no such deployment, or it has no current build.
    """
    known = await _describe(client, deployment)
    current = known.routing_config.current_deployment_version.build_id if known is not None else ""
    if not current:
        raise TemporalError(f"the deployment {deployment!r} has no current build to move to")
    query = (
        f"WorkflowType = '{names.RELEASE_WORKFLOW}' AND ExecutionStatus = 'Running' "
        f"AND TemporalWorkerDeploymentVersion != '{deployment}:{current}'"
    )
    woken = []
    async for found in client.list_workflows(query):
        try:
            await client.get_workflow_handle(found.id).signal(names.SIGNAL_LOOK)
        except RPCError as error:
            if error.status is not RPCStatusCode.NOT_FOUND:  # it has ended meanwhile
                raise
        else:
            woken.append(found.id.removeprefix(names.release_workflow_id("")))
    return sorted(woken)


async def _describe(client: Client, deployment: str) -> WorkerDeploymentInfo | None:
    try:
        answer = await client.workflow_service.describe_worker_deployment(
            DescribeWorkerDeploymentRequest(namespace=client.namespace, deployment_name=deployment),
            timeout=_CALL,
        )
    except RPCError as error:
        if error.status is RPCStatusCode.NOT_FOUND:
            return None
        raise
    return answer.worker_deployment_info
