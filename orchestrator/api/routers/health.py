"""Whether the process lives, and whether it can do its work."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import BaseModel

from orchestrator.api.deps import Parts
from orchestrator.domain.errors import Unavailable
from orchestrator.records import database

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """The process answers."""

    status: str = "ok"


class Readiness(BaseModel):
    """Whether each part that is needed answers."""

    ready: bool
    records: bool
    commands: bool


@router.get("/healthz", operation_id="healthz")
async def healthz() -> Health:
    """The process lives."""
    return Health()


@router.get(
    "/readyz",
    operation_id="readyz",
    responses={503: {"model": Readiness, "description": "something needed does not answer"}},
)
async def readyz(deps: Parts, response: Response) -> Readiness:
    """The records answer, and commands can be sent."""

    def answers() -> bool:
        try:
            database.ping(deps.engine)
        except Unavailable:
            return False
        return True

    records = await run_in_threadpool(answers)
    commands = await deps.gateway.ready()
    if not (records and commands):
        response.status_code = 503
    return Readiness(ready=records and commands, records=records, commands=commands)
