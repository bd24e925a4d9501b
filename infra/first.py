"""The first operator of a new deployment: a principal, and a token that is shown once, in a file of its own."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import structlog
from sqlalchemy import Engine

from infra.provision import write_private
from orchestrator.domain.permissions import Role
from orchestrator.records import principals
from orchestrator.records.database import reading, writing

OPERATOR = "operator"
log = structlog.get_logger("run")


def first_operator(engine: Engine, token_file: Path | None) -> bool:
    """Make the principal `operator` and write its token to `token_file` (0600), if there is no principal at all.

    A file whose token never came to be (the process was killed in between) is written anew, as long as nobody else was added.
    """
    if token_file is None:
        return False
    now = datetime.now(UTC)
    with reading(engine) as session:
        others = {p.id for p in principals.list_principals(session, limit=2).items} - {OPERATOR}
        written = token_file.read_text(encoding="utf-8").strip() if token_file.exists() else ""
        if others or principals.authenticate(session, written, now) is not None:
            return False
    token_file.unlink(missing_ok=True)
    with writing(engine) as session:
        known = {p.id for p in principals.list_principals(session, limit=2).items}
        if known - {OPERATOR}:
            return False
        if not known:
            principals.create(
                session, OPERATOR, "First operator", [Role.OPERATOR], kind="person", at=now, by=OPERATOR
            )
        for token in principals.tokens(session, OPERATOR):
            if token.revoked_at is None:
                principals.revoke_token(session, OPERATOR, token.id, at=now, by=OPERATOR)
        issued = principals.issue_token(session, OPERATOR, "first start", at=now, by=OPERATOR)
        write_private(token_file, issued.text.encode() + b"\n")
    log.warning(
        "the first operator's token is in a file of its own; it is shown nowhere else", file=str(token_file)
    )
    return True
