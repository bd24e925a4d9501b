"""One request to custody: verify the log, judge the gate anew, write the leaf, unwrap, make the envelopes.

Order matters: the leaf that says who gets which key is in the log, under a signed checkpoint, before any key is
unwrapped; every envelope carries that proof, and a partner's client refuses one without.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import structlog
from sqlalchemy import Engine

from activities.custody.checking import Checked, checked_fold
from activities.custody.clocks import clocks_left
from activities.custody.copies import CopyMemory, copy_for
from activities.custody.errors import CustodyRefused, CustodyWaits, Unbacked
from activities.custody.keeping import Keeping
from activities.custody.keys import CustodyKeys
from activities.custody.late import judge_late
from activities.custody.memory import CustodyMemory, Refusal
from activities.custody.second_lock import Purpose, SecondLock
from activities.custody.sharing import (
    Released,
    SharedSecret,
    released_shares,
    require_as_dealt,
    shared_secrets,
)
from activities.custody.watch import ClockSetBack, LogWatch
from artifacts.custody.base import KeyProvider
from artifacts.custody.errors import SecondLockPending
from artifacts.envelope import EnvelopePayload, file_keys, make_envelope, make_public_record
from artifacts.errors import ArtifactError
from artifacts.keys import RootKey
from artifacts.manifest import Manifest, parse_manifest
from orchestrator.domain import events as ev
from orchestrator.domain.decide_access import planned_grants
from orchestrator.domain.deciding import short_id
from orchestrator.domain.errors import Reason, SluiceError, Unavailable
from orchestrator.domain.gate import still_holds
from orchestrator.domain.plan import Plan, recipient_digest
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import digest
from orchestrator.records import artifacts as artifact_records
from orchestrator.records import audit, envelopes, partners
from orchestrator.records.database import reading, writing
from orchestrator.trust.checkpoints import Checkpoint, format_proof, sign_checkpoint
from orchestrator.trust.errors import TrustError
from orchestrator.trust.merkle import leaf_hash, verify_inclusion

DEFAULT_VALIDITY = timedelta(days=365)
_WAITING_KEPT = 1000
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for: one approach to one step, as entered at `at`; partners' registered keys by digest.

    `absent`: partners that get nothing now. `late`: the partner whose grant was asked for, at `at`, after the step was entered (activities/custody/late.py).
    """

    release: str
    step: str
    attempt: int
    at: datetime
    partners: Mapping[str, str | None]
    absent: frozenset[str] = frozenset()
    late: str | None = None


@dataclass(frozen=True, slots=True)
class Judged:
    """What custody found to be given: the release by the log, the grants that carry keys, the key shares that were released."""

    state: ReleaseState
    grants: list[ev.Grant]
    released: Mapping[str, Sequence[Released]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Issue:
    """What one grant gets of one artifact: the artifact itself, or the grant's own copy of it."""

    grant: ev.Grant
    manifest: Manifest
    components: list[str]


class Custody:
    """The only holder of the key-encryption key.

    Args:
        engine: the service's database: read for the log and the manifests, written for custody's leaves and envelopes.
        memory: custody's own database.
        provider: keeps the key-encryption key.
        keys: custody's own keys.
        clock: custody's own clock (aware).
        tolerance: how late custody may be to see an event (it looks at the log this often).
        signed_only: decisions of people whose keys the plan does not pin count for nothing.
    """

    def __init__(
        self,
        engine: Engine,
        memory: CustodyMemory,
        provider: KeyProvider,
        keys: CustodyKeys,
        clock: Callable[[], datetime],
        tolerance: timedelta = timedelta(seconds=5),
        *,
        signed_only: bool = False,
    ) -> None:
        self._engine, self._memory, self._keys = engine, memory, keys
        self._clock, self._tolerance, self._signed_only = clock, tolerance, signed_only
        self.keeping = Keeping(memory, provider, keys)
        self._lock = threading.Lock()
        self._said: dict[tuple[str, str, int], str] = {}
        self.second_lock = SecondLock(memory, provider, keys)
        self.copies = CopyMemory(memory)
        self.watch = LogWatch(engine, memory, clock)

    def make_envelopes(self, asked: Asked) -> dict[str, dict[str, str]]:
        """The envelopes of one entry: grant → artifact → reference.

        Raises:
            CustodyRefused: the log, a signature, the gate or a key does not hold; the refusal is in the log too.
            KeyProviderError: the key service does not answer; the same call may succeed later.
        """
        with self._refusing(asked.release, asked.step, asked.attempt):
            return self._make(asked)

    def _make(self, asked: Asked) -> dict[str, dict[str, str]]:
        judged = self._judge(asked)
        state, issues = judged.state, self._issues(judged.state, judged.grants)
        return self._issue(asked, state, issues, purpose_of(asked, state), judged.released)

    def _issue(
        self,
        asked: Asked,
        state: ReleaseState,
        issues: Sequence[Issue],
        purpose: Purpose,
        released: Mapping[str, Sequence[Released]] | None = None,
    ) -> dict[str, dict[str, str]]:
        """Combine the shares, write the leaf, unwrap, make and keep the envelopes of what was judged to be given."""
        manifests = {issue.manifest.artifact_id: issue.manifest for issue in issues}
        grants = list({issue.grant.id: issue.grant for issue in issues}.values())
        given = [[i.grant.id, i.grant.recipient, i.manifest.digest, i.components] for i in issues]
        purpose = replace(purpose, given=digest([state.plan_digest, *given]))
        with self._waiting_for(purpose):
            holdings = self.keeping.hold_all(state, manifests.values())
        recipients = {grant.id: self._recipient(state.plan, grant) for grant in grants}
        shared = shared_secrets(manifests, released or {}, self._keys.identity)
        # one request, one leaf: while people approve, the leaf that announced it stands for all later tries, of either worker
        index = self.second_lock.announced(purpose)
        leaf, proof, index = (
            self._log(asked, state, issues, manifests, shared) if index is None else self._proved(index)
        )
        with self._waiting_for(purpose, index):
            secrets = {name: combined.secret for name, combined in shared.items()}
            roots = self.keeping.unwrap(state, holdings, manifests, purpose.key, secrets)
        made: dict[str, dict[str, str]] = {}
        sealed: list[tuple[str, bytes, ev.Grant]] = []
        for issue in issues:
            grant, name = issue.grant, issue.manifest.artifact_id
            recipient = recipients[grant.id]
            log = {"leaf": leaf, "proof": proof}
            payload = self._payload(asked, grant, issue.manifest, roots[name], issue.components, log)
            data = (
                make_public_record(payload, self._keys.envelopes)
                if recipient is None
                else make_envelope(payload, [recipient], self._keys.envelopes)
            )
            reference = short_id("envelope", asked.release, grant.id, name, asked.at.isoformat())
            sealed.append((reference, data, grant))
            made.setdefault(grant.id, {})[name] = reference
        now = self._clock()
        with writing(self._engine) as session:
            for reference, data, grant in sealed:
                envelopes.put(
                    session,
                    reference,
                    data,
                    release=asked.release,
                    grant=grant.id,
                    holder=grant.holder,
                    at=now,
                )
        self.second_lock.done(purpose)
        return made

    def take_in(self, release: str) -> list[str]:
        """Take in the roots of a release's artifacts, bound to it from then on; the artifacts held after.

        Raises:
            CustodyRefused: the log or a signature does not hold, or an artifact belongs to another release.
        """
        self.watch.catch_up()
        history = [event for event, _ in self.watch.history(release)]
        state = self._checked(release, history).state
        held = self.keeping.hold_all(state, [self._manifest(state, name) for name in sorted(state.artifacts)])
        return list(held)

    def forget(self) -> None:
        """Give up requests to a second lock that nobody needs any more: their entry is done or taken back, or their time is over.

        Raises:
            TrustError, SluiceError: the log has no honest reading; what has lapsed is forgotten all the same.
        """
        self.second_lock.end_late(self._clock())
        for release in self.second_lock.releases():
            history = [event for event, _ in self.watch.history(release)]
            ended = self.second_lock.end_of(self._checked(release, history).state)
            if ended:
                _log.info("requests to the second lock given up", release=release, requests=ended)

    def rotate(self, *, resume: bool = False, by: str | None = None) -> tuple[int, int]:
        """Rotate the key-encryption key and wrap every root anew; the new version, and how many roots.

        Args:
            resume: go on with a rotation that was cut short, instead of making another version.
            by: the operator who asked, for the log.

        Raises:
            KeyProviderError: the key service fails; call again with `resume`.
        """
        version, count = self.keeping.rotate(resume=resume)
        body = {"action": "kek_rotated", "version": version, "roots": count}
        body |= {"by": by} if by is not None else {}
        with writing(self._engine) as session:
            audit.append(session, "custody", body, at=self._clock())
        return version, count

    # --- judging -----------------------------------------------------------------------------------------------------

    def _checked(self, release: str, history: Sequence[ev.AnyEvent]) -> Checked:
        made = self.copies.of_release(release)
        return checked_fold(history, self._clock(), signed_only=self._signed_only, made=made)

    def _judge(self, asked: Asked) -> Judged:
        now = self._clock()
        self.watch.catch_up()
        history = self.watch.history(asked.release)
        events = [event for event, _ in history]
        checked = self._checked(asked.release, events)
        if asked.late is not None:
            seen = [leaf.seen_at for _, leaf in history]
            fold = partial(self._checked, asked.release)
            late = judge_late(asked, checked, events, seen, fold, self._tolerance)
            return Judged(late.state, [late.grant], late.released)
        state, entry = checked.state, checked.state.entry
        if entry is None or (entry.step, entry.attempt) != (asked.step, asked.attempt):
            raise CustodyRefused(
                f"by the log, {asked.release} is not entering `{asked.step}`", checked.ignored
            )
        step = state.plan.step(asked.step)
        if step is None:
            raise CustodyRefused(f"the plan has no step `{asked.step}`", checked.ignored)
        reasons = [Reason(c.code, c.message) for c in still_holds(state, step, now)]
        seen = [leaf.seen_at for _, leaf in history]
        clocks = clocks_left(state, events, seen, now, self._tolerance)
        waits = [left for _, left in clocks if left is not None]
        if clocks and not reasons and len(waits) == len(clocks):
            unmet = [reason for reason, _ in clocks]
            left = max(waits).total_seconds()
            raise CustodyWaits(f"the gate of `{asked.step}` waits for custody's clock", unmet, seconds=left)
        reasons += [reason for reason, _ in clocks]
        if reasons:
            raise CustodyRefused(f"the gate of `{asked.step}` does not hold", [*reasons, *checked.ignored])
        grants = planned_grants(state, step, dict(asked.partners), state.updated_at)
        gone = asked.absent
        grants = [grant for grant in grants if grant.holder_kind != "partner" or grant.holder not in gone]
        keyed = [grant for grant in grants if grant.kind != "access"]
        return Judged(state, keyed, released_shares(state, step, events, now))

    def _issues(self, state: ReleaseState, grants: Sequence[ev.Grant]) -> list[Issue]:
        """What each grant gets: where the plan marks its components, its own copy and never the artifact itself.

        Raises:
            CustodyRefused: a manifest is not the one that was signed or made, or a copy has not been made.
        """
        copies = self.copies.of_release(state.release)
        manifests: dict[str, Manifest] = {}
        issues = []
        for grant in grants:
            step = state.plan.step(grant.step)
            for base in sorted({state.carried_by[c] for c in grant.components if c in state.carried_by}):
                components = [c for c in grant.components if state.carried_by.get(c) == base]
                name, digest = base, state.artifacts[base].manifest_digest
                if step is not None and state.plan.marks(step, grant.holder_kind, components):
                    copy = copy_for(copies, grant.id, base)
                    if copy is None:
                        raise CustodyRefused(f"no marked copy of {base} was made for {grant.holder}")
                    name, digest = copy.artifact, copy.manifest_digest
                if name not in manifests:
                    manifests[name] = self._manifest(state, name, digest)
                issues.append(Issue(grant, manifests[name], components))
        return issues

    def _manifest(self, state: ReleaseState, artifact: str, digest: str | None = None) -> Manifest:
        """A manifest as the records hold it, if it is the one of this digest (that of the release by default)."""
        expected = digest or state.artifacts[artifact].manifest_digest
        with reading(self._engine) as session:
            data = artifact_records.manifest(session, artifact)
        try:
            manifest = parse_manifest(data, expected_digest=expected.removeprefix("sha256:"))
        except ArtifactError as error:
            raise CustodyRefused(
                f"the manifest of {artifact} is not the one that was signed: {error}"
            ) from None
        if manifest.release is not None and manifest.release != state.release:
            raise CustodyRefused(f"{artifact} was sealed for the release {manifest.release}")
        require_as_dealt(state, manifest)
        return manifest

    def _recipient(self, plan: Plan, grant: ev.Grant) -> str | None:
        """The recipient's text, whose digest the grant names; None for the public record."""
        if grant.kind == "public":
            return None
        pinned = (
            plan.deployments[grant.holder].recipient
            if grant.holder_kind == "deployment"
            else plan.partners[grant.holder].recipient
        )
        with reading(self._engine) as session:
            known = partners.standing(session, [grant.holder]).get(grant.holder)
        keys = () if known is None or grant.holder_kind != "partner" else known.keys
        gone = [key for key in keys if key.revoked_at is not None]
        if any(recipient_digest(key.recipient) == grant.recipient for key in gone):
            raise CustodyRefused(
                f"the key {grant.recipient} of {grant.holder} was revoked",
                [
                    Reason(
                        "recipient", f"{grant.holder} makes a new key; where the plan pins it, amend the plan"
                    )
                ],
            )
        if pinned is not None and not pinned.startswith("sha256:"):
            return pinned
        for key in keys:
            if recipient_digest(key.recipient) == grant.recipient and key.revoked_at is None:
                return key.recipient
        raise CustodyRefused(
            f"no registered key of {grant.holder} fits the digest that the plan pins",
            [Reason("recipient", f"{grant.holder} registers the key {grant.recipient}")],
        )

    def _payload(
        self,
        asked: Asked,
        grant: ev.Grant,
        manifest: Manifest,
        root: RootKey,
        components: list[str],
        log: dict[str, Any],
    ) -> EnvelopePayload:
        now = self._clock()
        until = grant.not_after or now + DEFAULT_VALIDITY
        return EnvelopePayload(
            artifact_id=manifest.artifact_id,
            manifest_digest=manifest.digest,
            release=asked.release,
            step=asked.step,
            grant=grant.id,
            keys=file_keys(root, manifest, components),
            issued_at=now,
            not_after=None if grant.kind == "public" else until,
            log=log,
        )

    # --- the log -----------------------------------------------------------------------------------------------------

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


def purpose_of(asked: Asked, state: ReleaseState) -> Purpose:
    """What a judged request is for: the entry that is under way, or the grant that was asked for."""
    if asked.late is not None:
        at = asked.at.timestamp()
        return Purpose(asked.release, "late", asked.step, asked.attempt, asked.late, at)
    began = asked.at if state.entry is None else state.entry.at
    return Purpose(asked.release, "entry", asked.step, asked.attempt, at=began.timestamp())


def _told(error: SluiceError | TrustError | ArtifactError) -> SluiceError:
    if isinstance(error, CustodyRefused | CustodyWaits | Unbacked):
        return error
    if isinstance(error, ClockSetBack):
        return CustodyWaits(str(error), [Reason("clock", str(error))])
    if isinstance(error, SluiceError):
        return CustodyRefused(error.detail, error.reasons)
    code = error.code if isinstance(error, TrustError) else "artifact"
    return CustodyRefused(str(error), [Reason(code, str(error))])
