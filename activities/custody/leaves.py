"""What custody says in the log: who gets which key, what it refuses, whom it waits for; and checkpoints over the log.

A refusal is in custody's own memory too. What waits is asked again and again, and told once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import structlog

from activities.custody.base import Asked, CustodyBase, Issue
from activities.custody.errors import CustodyRefused, CustodyWaits, Unbacked
from activities.custody.memory import Refusal
from activities.custody.second_lock import Purpose
from activities.custody.sharing import SharedSecret
from activities.custody.watch import ClockSetBack
from artifacts.custody.errors import SecondLockPending
from artifacts.errors import ArtifactError
from artifacts.manifest import Manifest
from orchestrator.domain.errors import Reason, SluiceError, Unavailable
from orchestrator.domain.state import ReleaseState
from orchestrator.records import audit
from orchestrator.records.database import reading, writing
from orchestrator.trust.checkpoints import Checkpoint, format_proof, sign_checkpoint
from orchestrator.trust.errors import TrustError
from orchestrator.trust.merkle import leaf_hash, verify_inclusion

_log = structlog.get_logger(__name__)
_WAITING_KEPT = 1000


class WritesLeaves(CustodyBase):
    """Writes what custody does, refuses and waits for into the log, and signs checkpoints over it."""

    def _log(
        self,
        asked: Asked,
        state: ReleaseState,
        issues: Sequence[Issue],
        manifests: Mapping[str, Manifest],
        shared: Mapping[str, SharedSecret],
    ) -> tuple[str, str, int]:
        """Write what is about to be unwrapped, and sign a checkpoint over it; the leaf, its proof and its place."""
        grants = {issue.grant.id: issue.grant for issue in issues}
        own = {
            name: sorted(issue.manifest.artifact_id for issue in issues if issue.grant.id == name)
            for name in grants
        }
        body = {
            "action": "unwrap",
            "step": asked.step,
            "attempt": asked.attempt,
            "seq": state.seq,
            "subject": "" if state.entry is None or asked.late is not None else state.entry.subject,
            "plan": state.plan_digest,
            "manifests": {name: "sha256:" + manifest.digest for name, manifest in manifests.items()},
            "grants": [
                {
                    "grant": g.id,
                    "holder": g.holder,
                    "recipient": g.recipient,
                    "components": g.components,
                    "artifacts": own[g.id],
                }
                for g in grants.values()
            ],
        }
        if shared:
            body["shares"] = {name: combined.holders for name, combined in shared.items()}
        with writing(self._engine) as session:
            index = audit.append(session, "custody", body, at=self._clock(), release=asked.release)
        return self._proved(index)

    def _proved(self, index: int) -> tuple[str, str, int]:
        """A leaf of custody's own, its proof under a checkpoint signed now, and its place.

        Raises:
            TrustError: the log was rewritten; the leaf is not the one that stands in it.
        """
        with reading(self._engine) as session:
            leaf = audit.leaf(session, index).body
        note = self.sign_checkpoint()
        checkpoint = Checkpoint.parse(note.partition("\n\n")[0] + "\n")
        with reading(self._engine) as session:
            path = audit.inclusion(session, index, checkpoint.size)
        verify_inclusion(leaf_hash(leaf), index, checkpoint.size, path, checkpoint.root)
        return leaf.decode(), format_proof(index, path, note), index

    def sign_checkpoint(self) -> str:
        """Verify the log up to its end, sign a checkpoint over it, and keep it with the records.

        Raises:
            TrustError: the log was rewritten; nothing is signed.
        """
        tree = self.watch.catch_up()
        note = sign_checkpoint(Checkpoint(self._keys.log.name, tree.size, tree.root()), self._keys.log)
        with writing(self._engine) as session:
            audit.store_checkpoint(session, note, self._clock())
        return note

    @contextmanager
    def _refusing(self, release: str, step: str, attempt: int) -> Iterator[None]:
        """Whatever does not hold in this block leaves it as one refusal, which is in the log and in custody's memory."""
        try:
            yield
        except (SluiceError, TrustError, ArtifactError) as error:
            if isinstance(error, Unavailable) or (isinstance(error, ArtifactError) and error.retryable):
                raise
            refused = _told(error)
        except (ValueError, TypeError, LookupError) as error:
            refused = CustodyRefused(f"the records make no sense ({type(error).__name__})")
        else:
            return
        self._refuse(release, step, attempt, refused)
        raise refused

    def _refuse(self, release: str, step: str, attempt: int, error: SluiceError) -> None:
        if isinstance(error, CustodyWaits):
            codes = ",".join(reason.code for reason in error.reasons)
            if not self._once(release, step, attempt, f"{error.code}:{codes}"):
                return
            _log.warning("custody waits for its clock", release=release, step=step, why=error.detail)
        now = self._clock()
        self._memory.note_refusal(Refusal(now, release, step, error.code, error.detail))
        body = {
            "action": "refused",
            "step": step,
            "attempt": attempt,
            "code": error.code,
            "detail": error.detail,
            "reasons": [reason.as_dict() for reason in error.reasons],
        }
        try:
            with writing(self._engine) as session:
                audit.append(session, "custody", body, at=now, release=release)
        except (SluiceError, TrustError) as broken:
            # custody's own memory has it; a log that takes no entry is one more thing to look at
            _log.error("a refusal could not be logged", release=release, step=step, why=str(broken))

    @contextmanager
    def _waiting_for(self, purpose: Purpose, leaf: int | None = None) -> Iterator[None]:
        """Whoever has to approve what this block asks for is remembered, and named in the log: once for each request."""
        try:
            yield
        except SecondLockPending as pending:
            if self.second_lock.waits(purpose, pending, leaf):
                self._say_waiting(purpose, pending)
            raise

    def _say_waiting(self, purpose: Purpose, pending: SecondLockPending) -> None:
        accessors = [request.accessor for request in pending.requests]
        _log.warning(
            "people have to approve", release=purpose.release, step=purpose.name, accessors=accessors
        )
        body = {
            "action": "second_lock_waits",
            "for": purpose.kind,
            "step": purpose.name,
            "attempt": purpose.attempt,
            "detail": str(pending),
            "requests": {request.accessor: request.about for request in pending.requests},
        }
        body |= {"partner": purpose.partner} if purpose.partner else {}
        with writing(self._engine) as session:
            audit.append(session, "custody", body, at=self._clock(), release=purpose.release)

    def _once(self, release: str, step: str, attempt: int, what: str) -> bool:
        """Whether this was not just said of this gate: what waits is asked again and again, and told once."""
        with self._lock:
            place = (release, step, attempt)
            if self._said.get(place) == what:
                return False
            while len(self._said) >= _WAITING_KEPT:
                del self._said[next(iter(self._said))]
            self._said[place] = what
        return True


def _told(error: SluiceError | TrustError | ArtifactError) -> SluiceError:
    if isinstance(error, CustodyRefused | CustodyWaits | Unbacked):
        return error
    if isinstance(error, ClockSetBack):
        return CustodyWaits(str(error), [Reason("clock", str(error))])
    if isinstance(error, SluiceError):
        return CustodyRefused(error.detail, error.reasons)
    code = error.code if isinstance(error, TrustError) else "artifact"
    return CustodyRefused(str(error), [Reason(code, str(error))])
