"""Approvers' key shares in custody: opened while a step is entered, combined, used for its roots, and forgotten.

Which shares there are comes from the log alone: they lie in the sign-offs, sealed to custody and bound to the very
statement that was signed. Only those of people whose sign-off counts in custody's own verdict are opened. Too few,
tampered and foreign ones are refused before anything is unwrapped, each with the name of its holder.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from activities.custody.errors import CustodyRefused
from artifacts.custody.errors import SharesInvalid
from artifacts.custody.shares import Share, combine, receive_share
from artifacts.keys import HybridIdentity
from artifacts.manifest import Manifest
from orchestrator.domain import events as ev
from orchestrator.domain.errors import Reason
from orchestrator.domain.gate import counting_approvals
from orchestrator.domain.plan import Step
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import statement_digest


@dataclass(frozen=True, slots=True)
class Released:
    """A share as it stands in the log: whose, with which statement, sealed."""

    holder: str
    statement: str
    sealed: str


@dataclass(frozen=True, slots=True)
class SharedSecret:
    """What the shares of one artifact make, and whose they are."""

    secret: bytes = field(repr=False)
    holders: list[str]


def released_shares(
    state: ReleaseState, step: Step, events: Sequence[ev.AnyEvent], now: datetime
) -> dict[str, list[Released]]:
    """The shares that counting sign-offs on a gate released: artifact → one for each person.

    Args:
        state: the release as custody believes it, entering the step.
        step: the step.
        events: the release's events, as verified against the log.
        now: when the sign-offs have to count.
    """
    found: dict[str, list[Released]] = {}
    for view in counting_approvals(state, step, now):
        if not view.shares or view.statement is None:
            continue
        for event in reversed(events):
            if not isinstance(event, ev.SignedOff) or event.by != view.person:
                continue
            if statement_digest(event.envelope) != view.statement:
                continue
            for artifact, sealed in event.shares.items():
                found.setdefault(artifact, []).append(Released(view.person, view.statement, sealed))
            break
    return found


def require_as_dealt(state: ReleaseState, manifest: Manifest) -> None:
    """Refuse an artifact that the log says something else of than its manifest does.

    Raises:
        CustodyRefused: threshold or holders differ; somebody registered it by hand.
    """
    known = state.artifacts.get(manifest.artifact_id)
    logged = None if known is None else known.shares
    told = None if logged is None else (logged.threshold, logged.holders)
    dealt = None if manifest.shares is None else (manifest.shares.threshold, manifest.shares.names)
    if dealt != told:
        raise CustodyRefused(
            f"the key shares of {manifest.artifact_id} are not those of its manifest",
            [Reason("shares", "register the artifact through the service, which reads its manifest")],
        )


def shared_secrets(
    manifests: Mapping[str, Manifest], released: Mapping[str, Sequence[Released]], identity: HybridIdentity
) -> dict[str, SharedSecret]:
    """Artifact → the secret that its shares make, for those that were sealed with shares.

    Args:
        manifests: of the artifacts whose keys are about to go out.
        released: what `released_shares` found.
        identity: custody's own.

    Raises:
        CustodyRefused: with every share that does not hold, by its holder, or who is still to be asked.
    """
    secrets: dict[str, SharedSecret] = {}
    for name, manifest in manifests.items():
        if manifest.shares is None:
            continue
        good, faults = list[Share](), list[Reason]()
        for one in released.get(name, ()):
            try:
                good.append(
                    receive_share(_bytes(one), identity, one.statement, manifest.shares, name, one.holder)
                )
            except SharesInvalid as error:
                faults.append(Reason("shares", str(error)))
        if not faults:
            try:
                secret = combine(manifest.shares, name, good)
                secrets[name] = SharedSecret(secret, sorted(share.holder for share in good))
            except SharesInvalid as error:
                faults.append(Reason("shares", str(error)))
        if faults:
            raise CustodyRefused(f"the key shares of {name} do not open it", faults)
    return secrets


def _bytes(released: Released) -> bytes:
    try:
        return base64.b64decode(released.sealed, validate=True)
    except (binascii.Error, ValueError):
        return b""
