"""Custody as it makes copies: re-derived from the log what may be made for whom, then opened, sealed anew, written down.

    make_copies   while a step is entered: every grant whose components the plan marks gets a copy of its own
    reseal        while a rotation stands: an artifact, or a live grant's own copy, under a fresh key
    renew         when nothing is held any more: envelopes of what was sealed anew, for grants that still stand

A copy's id derives from what it is for, so that making it twice makes one; a ticket on custody's own disk lets a killed
run go on. The leaf that says which copy is whose, with its exact digests and the commitment to the mark key, is in the
log before custody remembers the copy, and nothing that it does not remember gets an envelope.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activities.custody.base import Asked, purpose_of
from activities.custody.copies import MadeCopy, lineage
from activities.custody.errors import CustodyRefused
from activities.custody.opening import Custody
from activities.custody.second_lock import Purpose
from artifacts.envelope import EnvelopePayload, file_keys
from artifacts.keys import RootKey, unwrap_root
from artifacts.manifest import Manifest, manifest_key, open_inner, parse_manifest
from artifacts.opened import OpenedArtifact
from artifacts.progress import Progress
from artifacts.resealing import reseal_artifact
from artifacts.sealing import SealedArtifact, seal_tree
from artifacts.stores.base import Store
from artifacts.ticket import Ticket
from orchestrator.contracts.messages import Resealed
from orchestrator.domain import events as ev
from orchestrator.domain.commands import GrantCopy
from orchestrator.domain.errors import Reason, SluiceError
from orchestrator.domain.plan import recipient_digest
from orchestrator.domain.state import ReleaseState
from orchestrator.records import artifacts as artifact_records
from orchestrator.records import audit, signatures
from orchestrator.records.artifacts import Artifact
from orchestrator.records.database import writing

if TYPE_CHECKING:
    from artifacts.leaks.marks import MarkKey, PartnerMark

UPLOADER = "custody"
_FILES_A_LEAF = 1_000
Tell = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class CopyPlaces:
    """Where copies are made.

    Attributes:
        open_store: opens a store at an address, with this worker's credentials.
        stores: addresses that copies may be read from and sealed into; nothing else is opened, whatever the log says.
        state_dir: resume tickets, on custody's own disk.
        workers: threads of one copy.
        part_size: plaintext bytes per part; None leaves it to the sealing.
        monitor: tells the leak monitor's public string: what is sealed anew, and every copy's digests, are known to it.
    """

    open_store: Callable[[str], Store]
    stores: Sequence[str]
    state_dir: Path
    workers: int = 2
    part_size: int | None = None
    monitor: Callable[[], str | None] = field(default=lambda: None)


class CopyingCustody(Custody):
    """Custody that also makes copies. Arguments as `Custody`, and where copies are made."""

    def __init__(self, *arguments: Any, places: CopyPlaces, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._places = places

    # --- marked copies -----------------------------------------------------------------------------------------------

    def make_copies(self, asked: Asked, tell: Tell | None = None) -> dict[str, list[GrantCopy]]:
        """The marked copies of one entry: grant → its copies.

        Raises:
            CustodyRefused: the log, a signature, the gate, a key or a file does not hold; the refusal is in the log too.
            KeyProviderError, StoreError: a service does not answer; the same call goes on where it stopped.
        """
        with self._refusing(asked.release, asked.step, asked.attempt):
            judged = self._judge(asked)
            state = judged.state
            purpose = replace(purpose_of(asked, state), given="copies")
            made: dict[str, list[GrantCopy]] = {}
            for grant in judged.grants:
                step = state.plan.step(grant.step)
                for base in sorted({state.carried_by[c] for c in grant.components if c in state.carried_by}):
                    components = [c for c in grant.components if state.carried_by.get(c) == base]
                    if step is None or not state.plan.marks(step, grant.holder_kind, components):
                        continue
                    with self._waiting_for(purpose):
                        copy = self._marked(state, asked, grant, base, components, purpose, tell)
                    made.setdefault(grant.id, []).append(copy)
            self.second_lock.done(purpose)
            return made

    def _marked(
        self,
        state: ReleaseState,
        asked: Asked,
        grant: ev.Grant,
        base: str,
        components: list[str],
        purpose: Purpose,
        tell: Tell | None,
    ) -> GrantCopy:
        from artifacts.leaks.errors import MarkError
        from artifacts.leaks.marking import IssuedDigests, MarkedTree
        from artifacts.leaks.marks import PartnerMark

        location = state.artifacts[base].location
        origin = lineage(self.copies.of_release(state.release), base)
        key = self._mark_key(state, origin, purpose)
        commitment = "sha256:" + key.commitment(origin)
        copy_id = copied_id(state.release, base, "mark", grant.id)
        known = self.copies.get(copy_id)
        if known is not None:
            manifest = self._manifest(state, copy_id, known.manifest_digest)
        else:
            step = state.plan.step(grant.step)
            assert step is not None
            holder = mark_name(grant)
            marks: dict[str, PartnerMark] = {
                name: PartnerMark(key, origin, holder, mark.strength)
                for name, mark in state.plan.marks(step, grant.holder_kind, components).items()
            }
            source_manifest = self._manifest(state, base)
            payload = self._opening(state, source_manifest, components, purpose)
            with (
                self._store(location) as store,
                OpenedArtifact(store, source_manifest, payload) as opened,
            ):
                try:
                    tree = MarkedTree(opened, marks)
                except MarkError as error:
                    told = str(error)
                    raise CustodyRefused(f"{base} cannot be marked: {told}", [Reason("mark", told)]) from None
                self._clear(store, base, copy_id)
                sealed = seal_tree(
                    tree,
                    store,
                    components=_assigned(opened),
                    observers=[IssuedDigests(holder)],
                    **self._sealing(state, copy_id, tell),
                )
            manifest, files = self._take_in_copy(state, sealed)
            strength = max(mark.strength for mark in marks.values())
            body = {
                "action": "copy_made",
                "step": asked.step,
                "attempt": asked.attempt,
                "grant": grant.id,
                "holder": grant.holder,
                "of": base,
                "copy": copy_id,
                "manifest": f"sha256:{manifest.digest}",
                "mark": {"artifact": origin, "as": holder, "commitment": commitment, "strength": strength},
            }
            copy = MadeCopy(
                copy_id,
                base,
                state.release,
                "mark",
                f"sha256:{manifest.digest}",
                grant.id,
                holder,
                None,
                origin,
                strength,
            )
            self._written_down(state, copy, manifest, location, body, files)
            self._tell_monitor(base, holder, copy_id, manifest, files)
        return GrantCopy(
            of=base,
            artifact=copy_id,
            manifest_digest=f"sha256:{manifest.digest}",
            location=location,
            components=components,
            size=manifest.size,
            mark=commitment,
        )

    # --- sealed anew -------------------------------------------------------------------------------------------------

    def reseal(self, release: str, rotation: str, artifact: str, tell: Tell | None = None) -> Resealed:
        """Seal one artifact of a standing rotation anew under a fresh key, into the same store.

        Raises:
            CustodyRefused: by the log no rotation asks for it, or what is sealed is not what was signed for.
            KeyProviderError, StoreError: a service does not answer; the same call goes on where it stopped.
        """
        with self._refusing(release, rotation, 0):
            state = self._current(release)
            asked = state.rotations.get(rotation)
            if asked is None or artifact not in asked.artifacts:
                raise CustodyRefused(f"by the log, no rotation {rotation} of {release} seals {artifact} anew")
            new_id = copied_id(release, artifact, "reseal", rotation)
            known = self.copies.get(new_id)
            if known is None and not asked.pending:
                raise CustodyRefused(f"by the log, the rotation {rotation} of {release} is over")
            own = self.copies.get(artifact)
            if artifact in state.artifacts:
                location, digest, owner = (
                    state.artifacts[artifact].location,
                    state.artifacts[artifact].manifest_digest,
                    None,
                )
            elif own is not None and own.release == release and own.grant is not None:
                grant = state.grants.get(own.grant)
                over = grant is None or not grant.live or _over(grant, self._clock())
                if known is None and over:
                    return Resealed(artifact=artifact)  # nobody gets it again
                location, digest, owner = self._place_of(state, own), own.manifest_digest, own
            elif known is not None:  # it stands in its place already
                location, digest, owner = state.superseded[artifact].location, known.manifest_digest, None
            else:
                raise CustodyRefused(f"{artifact} is no artifact of {release}, and no copy that custody made")
            if known is not None:
                manifest = self._manifest(state, new_id, known.manifest_digest)
                return _resealed(artifact, manifest, location, 0)
            purpose = Purpose(release, "rotation", rotation, given=artifact)
            with self._waiting_for(purpose):
                made = self._sealed_anew(state, purpose, artifact, digest, location, owner, tell)
            self.second_lock.done(purpose)
            return made

    def _sealed_anew(
        self,
        state: ReleaseState,
        purpose: Purpose,
        artifact: str,
        digest: str,
        location: str,
        owner: MadeCopy | None,
        tell: Tell | None,
    ) -> Resealed:
        rotation = purpose.name
        old = self._manifest(state, artifact, digest)
        new_id = copied_id(state.release, artifact, "reseal", rotation)
        monitor = self._places.monitor() if owner is None else None
        with self._store(location) as store:
            self._clear(store, artifact, new_id)
            sealed = reseal_artifact(
                store,
                old,
                self._opening(state, old, None, purpose),
                store,
                monitor=monitor,
                **self._sealing(state, new_id, tell),
            )
        manifest, _ = self._take_in_copy(state, sealed)
        if owner is None:
            self._still_watched(artifact, new_id, sealed.signature)
        body = {
            "action": "resealed",
            "rotation": rotation,
            "of": artifact,
            "copy": new_id,
            "grant": None if owner is None else owner.grant,
            "holder": None if owner is None else owner.holder,
            "manifest": f"sha256:{manifest.digest}",
        }
        copy = MadeCopy(
            new_id,
            artifact,
            state.release,
            "reseal",
            f"sha256:{manifest.digest}",
            None if owner is None else owner.grant,
            None if owner is None else owner.holder,
            rotation,
            None if owner is None else owner.marked_as,
            None if owner is None else owner.strength,
        )
        self._written_down(state, copy, manifest, location, body, [])
        return _resealed(artifact, manifest, location, sealed.bytes_reused)

    # --- envelopes of what was sealed anew ---------------------------------------------------------------------------

    def renew(self, release: str) -> tuple[dict[str, dict[str, str]], dict[str, str]]:
        """Envelopes of what was sealed anew, for grants that still stand: grant → artifact → reference; and who has none.

        Raises:
            CustodyRefused: the log or a signature does not hold.
            KeyProviderError: the key service does not answer.
        """
        with self._refusing(release, "renewal", 0):
            state = self._current(release)
            made: dict[str, dict[str, str]] = {}
            refused: dict[str, str] = {}
            for grant in state.awaiting_renewal():
                try:
                    made |= self._renewed(state, grant)
                except SluiceError as error:
                    refused[grant.id] = error.detail
            return made, refused

    def _renewed(self, state: ReleaseState, grant: ev.Grant) -> dict[str, dict[str, str]]:
        now = self._clock()
        if _over(grant, now):
            raise CustodyRefused(f"the grant {grant.id} has run out")
        recipient = self._recipient(state.plan, grant)
        if recipient is not None and recipient_digest(recipient) != grant.recipient:
            raise CustodyRefused(
                f"{grant.holder} has another key than the grant {grant.id} names; it needs a new grant"
            )
        issues = [i for i in self._issues(state, [grant]) if i.manifest.artifact_id in grant.renew]
        attempt = int(grant.id[len(grant.step) + 1 :].partition(".")[0])
        asked = Asked(state.release, grant.step, attempt, state.updated_at, {})
        return self._issue(
            asked, state, issues, Purpose(state.release, "renewal", grant.step, attempt, grant.id)
        )

    # --- what all of them do -----------------------------------------------------------------------------------------

    def _current(self, release: str) -> ReleaseState:
        """The release by the log, every decision in it checked."""
        self.watch.catch_up()
        return self._checked(release, [event for event, _ in self.watch.history(release)]).state

    def _store(self, location: str) -> Store:
        if location not in self._places.stores:
            raise CustodyRefused(
                f"custody opens no store at {location}",
                [Reason("store", "allowed: " + ", ".join(self._places.stores))],
            )
        return self._places.open_store(location)

    def _root(self, state: ReleaseState, manifest: Manifest, purpose: Purpose) -> RootKey:
        name = manifest.artifact_id
        held = {name: self.keeping.hold(state, manifest)}
        return self.keeping.unwrap(state, held, {name: manifest}, purpose.key)[name]

    def _opening(
        self, state: ReleaseState, manifest: Manifest, components: Sequence[str] | None, purpose: Purpose
    ) -> EnvelopePayload:
        """What opens an artifact inside custody; it never leaves."""
        return EnvelopePayload(
            artifact_id=manifest.artifact_id,
            manifest_digest=manifest.digest,
            release=state.release,
            step="custody",
            grant="custody",
            keys=file_keys(self._root(state, manifest, purpose), manifest, components),
            issued_at=self._clock(),
            not_after=None,
        )

    def _sealing(self, state: ReleaseState, artifact: str, tell: Tell | None) -> dict[str, Any]:
        chosen = {} if self._places.part_size is None else {"part_size": self._places.part_size}
        return {
            "custody_recipient": self._keys.public.recipient,
            "signer": self._keys.envelopes,
            "release": state.release,
            "artifact_id": artifact,
            "state_dir": self._places.state_dir,
            "workers": self._places.workers,
            "progress": tell,
            **chosen,
        }

    def _clear(self, store: Store, of: str, artifact: str) -> None:
        """Remove what a copy left behind whose ticket is gone: nobody knows its root, and nothing of it can be used.

        Only under the id that custody derives for exactly this copy, and only while that is not complete.
        """
        begun = Ticket.exists(self._places.state_dir, f"artifact {of}", store.uri, artifact)
        if begun or store.stat(manifest_key(artifact)) is not None:
            return
        for info in list(store.list(f"artifacts/{artifact}/")):
            store.delete(info.key)

    def _take_in_copy(
        self, state: ReleaseState, sealed: SealedArtifact
    ) -> tuple[Manifest, list[dict[str, Any]]]:
        """Hold the root of what was just sealed, and read back the digests that its sealing took."""
        manifest = parse_manifest(
            sealed.manifest, trusted=[self._keys.envelopes.verify_key], expected_digest=sealed.manifest_digest
        )
        self.keeping.take_in(state, manifest, sealed.wrapped_root)
        root = unwrap_root(
            sealed.wrapped_root,
            self._keys.identity,
            manifest.digest,
            artifact_id=manifest.artifact_id,
            commitment=manifest.root_commitment,
        )
        return manifest, issued_files(manifest, root)

    def _written_down(
        self,
        state: ReleaseState,
        copy: MadeCopy,
        manifest: Manifest,
        location: str,
        body: dict[str, Any],
        files: list[dict[str, Any]],
    ) -> None:
        """The manifest into the records and the leaf into the log; then custody remembers the copy."""
        now = self._clock()
        record = Artifact(
            id=copy.artifact,
            manifest_digest=copy.manifest_digest,
            wrapped_root=None,
            location=location,
            components=sorted(manifest.components),
            size=manifest.size,
            uploader=UPLOADER,
            created_at=now,
        )
        with writing(self._engine) as session:
            artifact_records.register(session, record, manifest.data)
            for start in range(0, max(len(files), 1), _FILES_A_LEAF):
                part = files[start : start + _FILES_A_LEAF]
                leaf = {**body, "files": part} if files else body
                audit.append(session, "custody", leaf, at=now, release=state.release)
        self.copies.keep(copy)

    def _tell_monitor(
        self, base: str, holder: str, copy: str, manifest: Manifest, files: list[dict[str, Any]]
    ) -> None:
        """Let the leak monitor know whose copy has which digests, sealed to it: a hit is then an attribution."""
        from artifacts.leaks.marking import issued_from_json
        from artifacts.leaks.sealed import seal_signature
        from artifacts.leaks.signature import WeightSignature
        from artifacts.leaks.sketch import SketchKey

        monitor = self._places.monitor()
        if monitor is None or not files:
            return
        secret = os.urandom(32)
        key = SketchKey(secret)
        known = tuple(issued_from_json(file, holder) for file in files)
        digests = WeightSignature(copy, key.key_id, (), None, (), known, 0, ())
        sealed = seal_signature(digests, secret, manifest=manifest.digest, recipient=monitor)
        with writing(self._engine) as session:
            signatures.put(
                session, base, sealed, key_id=key.key_id, by=UPLOADER, at=self._clock(), copy_of=holder
            )

    def _still_watched(self, old: str, new: str, signature: bytes | None) -> None:
        """What was recognised before is recognised under its new id: a rotation must not make the monitor blind."""
        with writing(self._engine) as session:
            for known in signatures.of(session, [old]):
                sealed, key_id = known.sealed, known.key_id
                if not known.copy_of and signature is not None:
                    from artifacts.leaks.sealed import SealedSignature

                    sealed, key_id = signature, SealedSignature.parse(signature).key_id
                signatures.put(
                    session,
                    new,
                    sealed,
                    key_id=key_id,
                    by=UPLOADER,
                    at=self._clock(),
                    copy_of=known.copy_of,
                )

    def _place_of(self, state: ReleaseState, copy: MadeCopy) -> str:
        """Where a grant's own copy lies: where what it was made from did."""
        known = state.grants.get(copy.grant or "")
        for own in () if known is None else known.copies:
            if own.artifact == copy.artifact:
                return own.location
        if copy.artifact in state.superseded:
            return state.superseded[copy.artifact].location
        return self._places.stores[0]

    def _mark_key(self, state: ReleaseState, origin: str, purpose: Purpose) -> MarkKey:
        from artifacts.leaks.marks import MarkKey

        secret = self.keeping.mark_secret(
            state, origin, lambda raw: MarkKey(raw).commitment(origin), purpose.key
        )
        return MarkKey(secret)


def copied_id(release: str, of: str, purpose: str, cause: str) -> str:
    """The id of a copy: it derives from what it is for."""
    text = "\0".join(["sluice.release/copy/v1", release, of, purpose, cause])
    return "art-" + base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()[:26]


def mark_name(grant: ev.Grant) -> str:
    """Whose mark a copy carries. No partner can be called like the public one: names have no star."""
    return grant.holder if grant.holder_kind == "partner" else f"*{grant.holder}"


def issued_files(manifest: Manifest, root: RootKey) -> list[dict[str, Any]]:
    """The exact digests of a copy's files, as its sealing took them; empty for one that is no marked copy."""
    found = []
    for entry in manifest.files:
        key = root.file_key(manifest.artifact_id, entry.path, entry.version)
        inner = open_inner(manifest.artifact_id, entry, key)
        issued = (inner.signatures or {}).get("issued")
        if isinstance(issued, dict):
            found.append(issued)
    return found


def _assigned(opened: OpenedArtifact) -> dict[str, list[str]]:
    assigned: dict[str, list[str]] = {}
    for path in opened.paths():
        assigned.setdefault(opened.manifest.file(path).component, []).append(path)
    return assigned


def _over(grant: ev.Grant, now: datetime) -> bool:
    return grant.not_after is not None and grant.not_after <= now


def _resealed(artifact: str, manifest: Manifest, location: str, reused: int) -> Resealed:
    return Resealed(
        artifact=artifact,
        new=manifest.artifact_id,
        manifest_digest=f"sha256:{manifest.digest}",
        location=location,
        size=manifest.size,
        reused=reused,
    )


__all__ = ["CopyPlaces", "CopyingCustody", "copied_id", "issued_files", "mark_name"]
