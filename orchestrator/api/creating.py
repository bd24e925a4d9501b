"""Idempotency keys of what is made beside releases: the same key and request from the same caller makes one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from pydantic import BaseModel
from sqlalchemy.orm import Session

from orchestrator.api.auth import Caller
from orchestrator.api.context import context_of
from orchestrator.api.deps import Deps, Parts
from orchestrator.api.sending import IdempotencyKey, keyed
from orchestrator.domain.values import digest
from orchestrator.records import idempotency


@dataclass(frozen=True, slots=True)
class Creating:
    """The caller's key for one creation."""

    deps: Deps
    key: str
    given: bool

    def known(self, session: Session, caller: Caller, kind: str, body: BaseModel) -> str | None:
        """What this key made before.

        Raises:
            KeyReused: another request used it.
        """
        if not self.given:
            return None
        return idempotency.recall(session, caller.id, self.key, _digest(kind, body))

    def remember(self, session: Session, caller: Caller, kind: str, body: BaseModel, reference: str) -> None:
        """Bind the key to what was made, in the same transaction."""
        if self.given:
            idempotency.remember(
                session, caller.id, self.key, _digest(kind, body), reference, at=self.deps.now()
            )


def _digest(kind: str, body: BaseModel) -> str:
    return digest([kind, body.model_dump(mode="json")])


def _creating(request: Request, deps: Parts, key: IdempotencyKey = None) -> Creating:
    return Creating(deps, keyed(context_of(request), key), key is not None)


CreatingDep = Annotated[Creating, Depends(_creating)]
