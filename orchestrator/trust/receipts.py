"""What a partner's client checks of the log entry that an envelope carries.

An envelope's `log` member holds the leaf that custody wrote before it unwrapped, and its inclusion proof (C2SP
`tlog-proof`). `envelope_proof_verifier` makes the function that `artifacts.envelope.open_envelope` asks: the leaf is in a log
that a pinned key signed, and it speaks of exactly this envelope: same release, step, grant, manifest and recipient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from orchestrator.trust.checkpoints import NoteVerifier, verify_proof
from orchestrator.trust.encoding import parse_object, sha256_digest
from orchestrator.trust.errors import Malformed, StatementMismatch

_WHERE = "envelope's log entry"


class Opened(Protocol):
    """What of an opened envelope's payload is compared (`artifacts.envelope.EnvelopePayload`)."""

    @property
    def artifact_id(self) -> str: ...  # noqa: D102 - the names say it
    @property
    def manifest_digest(self) -> str: ...  # noqa: D102
    @property
    def release(self) -> str: ...  # noqa: D102
    @property
    def step(self) -> str: ...  # noqa: D102
    @property
    def grant(self) -> str: ...  # noqa: D102
    @property
    def recipients(self) -> tuple[str, ...]: ...  # noqa: D102


def envelope_proof_verifier(
    *verifiers: NoteVerifier, recipient: str | None = None
) -> Callable[[Mapping[str, Any], Opened], None]:
    """A `proof_verifier` for `open_envelope` and `open_public_record`.

    Args:
        verifiers: the pinned log keys.
        recipient: the holder's own recipient text (`age1pq1…`); then the entry must name it. None leaves it unchecked.

    Returns:
        A function of the `log` member and the payload, which returns nothing or raises a `TrustError`.
    """

    def verify(log: Mapping[str, Any], payload: Opened) -> None:
        leaf, proof = log.get("leaf"), log.get("proof")
        if not isinstance(leaf, str) or not isinstance(proof, str):
            raise Malformed("has no leaf or no proof", where=_WHERE)
        verify_proof(proof, leaf.encode(), *verifiers)
        _check_leaf(parse_object(leaf.encode(), where=_WHERE), payload, recipient)

    return verify


def _check_leaf(entry: Mapping[str, Any], payload: Opened, recipient: str | None) -> None:
    grants = entry.get("grants")
    manifests = entry.get("manifests")
    if not isinstance(grants, list) or not isinstance(manifests, dict):
        raise StatementMismatch("is about something else than an unwrap", where=_WHERE, fields=("action",))
    grant = next((g for g in grants if isinstance(g, dict) and g.get("grant") == payload.grant), None)
    said = {
        "kind": (entry.get("kind"), "custody"),
        "action": (entry.get("action"), "unwrap"),
        "release": (entry.get("release"), payload.release),
        "step": (entry.get("step"), payload.step),
        "grant": (grant is not None, True),
        "manifest": (manifests.get(payload.artifact_id), f"sha256:{payload.manifest_digest}"),
    }
    named = None if grant is None else grant.get("recipient")
    own = None if grant is None else grant.get("artifacts")
    if isinstance(own, list):  # a marked copy is one grant's alone
        said["copy"] = (payload.artifact_id in own, True)
    if not payload.recipients:
        said["recipient"] = (named, None)
    elif recipient is not None:
        said["recipient"] = (named, sha256_digest(recipient.strip().encode()))
    wrong = tuple(name for name, (have, want) in said.items() if have != want)
    if wrong:
        raise StatementMismatch(
            f"is about another {', '.join(wrong)} than the envelope",
            where=_WHERE,
            remedy="do not use what it opens; tell the release's owner",
            fields=wrong,
        )
