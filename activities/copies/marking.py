"""Marked copies: every grant whose components the plan marks gets a copy of its own while the step is entered."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from activities.custody.base import Asked, purpose_of
from activities.custody.copies import MadeCopy, lineage
from activities.custody.errors import CustodyRefused
from activities.custody.second_lock import Purpose
from artifacts.manifest import Manifest
from artifacts.opened import OpenedArtifact
from artifacts.sealing import seal_tree
from orchestrator.domain import events as ev
from orchestrator.domain.commands import GrantCopy
from orchestrator.domain.errors import Reason
from orchestrator.domain.state import ReleaseState
from orchestrator.records import signatures
from orchestrator.records.database import writing

if TYPE_CHECKING:
    from artifacts.leaks.marks import MarkKey, PartnerMark
from activities.copies.sealing import UPLOADER, SealsCopies, Tell, copied_id


class MarksCopies(SealsCopies):
    """Makes every partner's own, marked copy of what a step hands out."""

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

    def _mark_key(self, state: ReleaseState, origin: str, purpose: Purpose) -> MarkKey:
        from artifacts.leaks.marks import MarkKey

        secret = self.keeping.mark_secret(
            state, origin, lambda raw: MarkKey(raw).commitment(origin), purpose.key
        )
        return MarkKey(secret)

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


def mark_name(grant: ev.Grant) -> str:
    """Whose mark a copy carries. No partner can be called like the public one: names have no star."""
    return grant.holder if grant.holder_kind == "partner" else f"*{grant.holder}"


def _assigned(opened: OpenedArtifact) -> dict[str, list[str]]:
    assigned: dict[str, list[str]] = {}
    for path in opened.paths():
        assigned.setdefault(opened.manifest.file(path).component, []).append(path)
    return assigned
