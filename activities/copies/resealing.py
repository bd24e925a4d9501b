"""What a rotation names, sealed anew under fresh keys; and the envelopes of it for grants that still stand."""

from __future__ import annotations

from datetime import datetime

from activities.copies.sealing import UPLOADER, SealsCopies, Tell, copied_id
from activities.custody.base import Asked
from activities.custody.copies import MadeCopy
from activities.custody.errors import CustodyRefused
from activities.custody.second_lock import Purpose
from artifacts.manifest import Manifest
from artifacts.resealing import reseal_artifact
from orchestrator.contracts.messages import Resealed
from orchestrator.domain import events as ev
from orchestrator.domain.errors import SluiceError
from orchestrator.domain.plan import recipient_digest
from orchestrator.domain.state import ReleaseState
from orchestrator.records import signatures
from orchestrator.records.database import writing


class Reseals(SealsCopies):
    """Seals anew what a rotation names, and gives grants that still stand envelopes of it."""

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
        recipient = self._recipients(state.plan, [grant])[grant.id]
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
