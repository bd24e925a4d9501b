"""What is known about the request that is being answered: its id, who asks, about which release, from where.

One object travels with each request, in `request.state`. The middleware makes it, the dependencies fill it in, the handler
of errors notes refusals through it, and the middleware writes one log line from it at the end.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import structlog
from fastapi import Request
from fastapi.concurrency import run_in_threadpool

from orchestrator.domain.errors import SluiceError
from orchestrator.records import audit, database

if TYPE_CHECKING:
    from orchestrator.api.deps import Deps

log = structlog.get_logger("sluice.api")

READS = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(slots=True)
class RequestContext:
    """One request.

    Attributes:
        request_id: given by the caller in `X-Request-Id`, or made here; on every log line and in the response.
        client: address that the request came from, as the server believes it.
        route: the route's template, such as `/v1/releases/{release}`; never the query.
        principal: who asks, once that is known.
        code: the problem's code when the request was refused.
        command: what was asked, for the log: the route's operation, or the command's type once it is built.
        audited: whether a refusal belongs into the audit log; previews decide nothing and turn it off.
    """

    request_id: str
    client: str
    method: str
    deps: Deps
    route: str = ""
    principal: str | None = None
    release: str | None = None
    step: str | None = None
    code: str | None = None
    command: str | None = None
    idempotency_key: str | None = None
    audited: bool = True
    headers: dict[str, str] = field(default_factory=dict)

    async def refused(self, error: SluiceError) -> None:
        """Note a refusal: for the log line and, when somebody known asked for a change, for the audit log.

        Requests beyond the rate limit are not written there: a flood of them would be one of entries that stay for ever.
        What the audit log cannot take at the moment does not hide the refusal from the caller; it is logged loudly.
        """
        self.code = error.code
        if self.principal is None or self.method in READS or not self.audited or error.status >= 429:
            return
        try:
            await run_in_threadpool(self._record, error)
        except Exception:  # the caller gets the refusal whatever became of the note
            log.exception("a refusal could not be written to the audit log", code=error.code)

    async def unchanged(self) -> None:
        """Note a command that was accepted and changed nothing, because what it asks for held already."""
        try:
            await run_in_threadpool(self._record_unchanged)
        except Exception:  # nothing came of the command; the caller gets its answer
            log.exception("a command that changed nothing could not be written to the audit log")

    def _record_unchanged(self) -> None:
        with database.writing(self.deps.engine) as session:
            audit.record_unchanged(
                session,
                at=self.deps.now(),
                actor=self.principal or "unknown",
                action=self.command or f"{self.method} {self.route}",
                release=self.release or "",
                command_id=self.idempotency_key,
                request_id=self.request_id,
                address=self.client,
            )

    def _record(self, error: SluiceError) -> None:
        with database.writing(self.deps.engine) as session:
            audit.record_refusal(
                session,
                at=self.deps.now(),
                actor=self.principal,
                action=self.command or f"{self.method} {self.route}",
                code=error.code,
                detail=error.detail,
                reasons=error.reasons,
                release=self.release,
                command_id=self.idempotency_key,
                request_id=self.request_id,
                address=self.client,
            )


def context_of(request: Request) -> RequestContext:
    """The context that the middleware made for this request."""
    return cast("RequestContext", request.state.context)
