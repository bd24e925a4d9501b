"""What the outside sees of a release: publications of its steps, public key records, envelopes, the Hub.

`publish_step` puts a step's publication in place while the step is being entered; it gives nobody access.
`apply_access` makes the outside look like the state, whatever it looked like before: it runs after every event that
changes access, after rollbacks and takings-back, and again after a crash. Both are idempotent by name.

    publications/<release>/<step>.<attempt>.json     what was released, to whom, under which controls (canonical JSON)
    public/<release>/<step>.<attempt>/<artifact>.json the public key record, made and signed by custody
    public/<release>/files/…                          the plaintext, where the plan's step says so, with `model.sig`

Invariants: nothing becomes visible outside before the audit log says so; envelopes of ended grants are dropped in the
transaction that logs it; what is gone already is not an error.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog
from sqlalchemy import Engine
from sqlalchemy.orm import Session
from temporalio import activity

from activities.beating import Beat, beating
from activities.errors import at_the_edge
from artifacts.errors import ObjectExists
from artifacts.stores.base import Store
from orchestrator.contracts import names
from orchestrator.contracts.messages import AccessApplied, AccessRequest, Published, StepRequest
from orchestrator.domain.decide_late import late_id
from orchestrator.domain.errors import Conflict, NotFound
from orchestrator.domain.events import Grant
from orchestrator.domain.plan import Step
from orchestrator.domain.stage import audience_words
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import canonical
from orchestrator.records import audit, envelopes, releases
from orchestrator.records.database import reading, writing

_ACTOR = "sluice"
log = structlog.get_logger("publishing")


class HubFace(Protocol):
    """What the Hub shows of a release; `activities.hub.HubPublishing` for a Hub store, nothing for others."""

    def prepare(self, state: ReleaseState) -> None:
        """Have a repository, private until the state says otherwise."""
        ...

    def settle(self, state: ReleaseState, store: Store) -> list[str]:
        """Make visibility, gating, accounts, card and tags as the state says; what was changed, in words."""
        ...


class Plaintext(Protocol):
    """Publishes the plaintext of an open release; `activities.plaintext.PlaintextPublishing`."""

    def publish(
        self, store: Store, release: str, records: Mapping[str, bytes], prefix: str, check: Callable[[], None]
    ) -> None:
        """Open the artifacts with their public records and put their files below `prefix`."""
        ...


class PublishingActivities:
    """The activities `publish_step` and `apply_access`.

    Args:
        engine: of the records.
        open_store: opens the store that publications go to.
        hub: what to show on the Hub, where the store is one.
        plaintext: publishes plaintext where a step asks for it; None refuses such steps.
        clock: tells the time (aware).
    """

    def __init__(
        self,
        engine: Engine,
        open_store: Callable[[], Store],
        *,
        hub: HubFace | None = None,
        plaintext: Plaintext | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._engine, self._open_store = engine, open_store
        self._hub, self._plaintext, self._clock = hub, plaintext, clock

    @property
    def all(self) -> list[Callable[..., Any]]:
        """Every activity, for a worker."""
        return [self.publish_step, self.apply_access]

    # --- entering a step

    @activity.defn(name=names.PUBLISH_STEP, no_thread_cancel_exception=True)
    def publish_step(self, request: StepRequest) -> Published:
        """Write the step's publication. It names what is released and gives no access by itself.

        Raises:
            ApplicationError: the step is not being entered any more (`conflict`, not retried), or the store fails (retried).
        """
        with at_the_edge(), beating():
            state = self._state(request.release)
            step = _entering(state, request)
            if step.publish_plaintext and self._plaintext is None:
                raise Conflict(
                    f"`{step.name}` publishes plaintext, and this service has no key to sign it with: "
                    "set SLUICE_MODEL_SIGNING_KEY_FILE, or publish the keys alone"
                )
            key = publication_key(request.release, step.name, request.attempt)
            with self._open_store() as store:
                if self._hub is not None:
                    self._hub.prepare(state)
                _put_again(store, key, publication(state, step, request.attempt))
            return Published(references=[key])

    # --- the outside as the state says

    @activity.defn(name=names.APPLY_ACCESS, no_thread_cancel_exception=True)
    def apply_access(self, request: AccessRequest) -> AccessApplied:
        """Make the outside look like the state as it stands now (at `seq` or later).

        First what takes access away, then what gives it. Retried until it succeeds.
        """
        with at_the_edge(), beating() as beat:
            state = self._state(request.release)
            changes = self._drop_envelopes(state)
            with self._open_store() as store:
                changes += self._remove_publications(state, store)
                changes += self._public_records(state, store, beat)
                changes += self._publications_anew(state, store)
                if self._hub is not None:
                    changes += self._hub.settle(state, store)
            for change in changes:
                log.info("access changed", release=state.release, change=change)
            return AccessApplied(changes=changes)

    def _state(self, release: str) -> ReleaseState:
        with reading(self._engine) as session:
            return releases.load(session, release)

    def _note(self, session: Session, release: str, action: str, reference: str) -> None:
        audit.record_access(
            session, at=self._clock(), actor=_ACTOR, action=action, release=release, reference=reference
        )

    def _logged(self, release: str, action: str, reference: str) -> None:
        with writing(self._engine) as session:
            self._note(session, release, action, reference)

    def _drop_envelopes(self, state: ReleaseState) -> list[str]:
        """Forget the bytes of envelopes whose grants have ended, or never came to be in an approach that is over."""
        with reading(self._engine) as session:
            there = [e for e in envelopes.of_release(session, state.release) if e.dropped_at is None]
        if all(_stands(state, envelope.grant, envelope.reference) for envelope in there):
            return []
        changes = []
        with writing(self._engine) as session:
            for envelope in there:
                if _stands(state, envelope.grant, envelope.reference):
                    continue
                if envelopes.drop(session, envelope.reference, at=self._clock()):
                    self._note(session, state.release, "drop_envelope", envelope.reference)
                    changes.append(f"dropped the envelope {envelope.reference}")
        return changes

    def _remove_publications(self, state: ReleaseState, store: Store) -> list[str]:
        """Keep the publications of steps that the release is at or past, and of an entry in progress."""
        keep = {publication_key(state.release, step, attempt) for step, attempt in standing_steps(state)}
        changes = []
        for info in list(store.list(f"publications/{state.release}/")):
            if info.key not in keep:
                self._logged(state.release, "remove_publication", info.key)
                store.delete(info.key)
                changes.append(f"removed {info.key}")
        return changes

    def _publications_anew(self, state: ReleaseState, store: Store) -> list[str]:
        """A publication names what stands now: the public's marked copy, and what was sealed anew."""
        steps = {grant.step for grant in public_grants(state) if grant.copies}
        changes = []
        for name, attempt in standing_steps(state):
            step = state.plan.step(name)
            if step is None or not (state.superseded or name in steps):
                continue
            key, data = publication_key(state.release, name, attempt), publication(state, step, attempt)
            info = store.stat(key)
            if info is not None and store.get_range(key, 0, info.size) != data:
                self._logged(state.release, "publish_anew", key)
                _put_again(store, key, data)
                changes.append(f"published {key} anew")
        return changes

    def _public_records(self, state: ReleaseState, store: Store, beat: Beat) -> list[str]:
        """The public record of every artifact whose keys are public now; others are removed."""
        wanted: dict[str, tuple[str, str]] = {}
        for grant in public_grants(state):
            for artifact, reference in grant.envelopes.items():
                wanted[public_key(state.release, grant.step, _attempt(grant), artifact)] = (
                    artifact,
                    reference,
                )
        changes = []
        records_prefix = f"public/{state.release}/"
        files_prefix = f"{records_prefix}files/"
        there = [info.key for info in store.list(records_prefix)]
        open_files = _publishes_plaintext(state)
        for key in there:
            plaintext = key.startswith(files_prefix)
            if (plaintext and not open_files) or (not plaintext and key not in wanted):
                self._logged(state.release, "remove_public", key)
                store.delete(key)
                changes.append(f"removed {key}")
        records: dict[str, bytes] = {}
        for key, (artifact, reference) in sorted(wanted.items()):
            beat.check()
            with reading(self._engine) as session:
                records[artifact] = envelopes.data(session, reference)
            if key not in there:
                self._logged(state.release, "publish_keys", key)
                _put_again(store, key, records[artifact])
                changes.append(f"published the keys in {key}")
        if open_files and records and self._plaintext is not None and f"{files_prefix}model.sig" not in there:
            self._logged(state.release, "publish_plaintext", files_prefix)
            self._plaintext.publish(store, state.release, records, files_prefix, beat.check)
            changes.append(f"published the plaintext in {files_prefix}")
        return changes


# --- what follows from the state


def publication_key(release: str, step: str, attempt: int) -> str:
    """Where the publication of one entry of a step lies."""
    return f"publications/{release}/{step}.{attempt}.json"


def public_key(release: str, step: str, attempt: int, artifact: str) -> str:
    """Where the public key record of an artifact lies."""
    return f"public/{release}/{step}.{attempt}/{artifact}.json"


def standing_steps(state: ReleaseState) -> list[tuple[str, int]]:
    """Step and attempt of every entry that stands: up to the current step, the latest of each, and one in progress."""
    if state.status == "aborted":
        return []
    latest = {entered.step: entered.attempt for entered in state.history}
    behind = [step.name for step in state.plan.steps[: state.index + 1] if step.name in latest]
    standing = [(name, latest[name]) for name in behind]
    if state.entry is not None:
        standing.append((state.entry.step, state.entry.attempt))
    return standing


def public_grants(state: ReleaseState) -> list[Grant]:
    """Live grants that make keys public."""
    return [grant for grant in state.live_grants() if grant.kind == "public"]


def publication(state: ReleaseState, step: Step, attempt: int) -> bytes:
    """The publication of a step, as canonical JSON: what is released, to whom, under which controls."""
    carried = _published(state, step, attempt)
    license_name = next(
        (c.parameters.get("name") for c in step.controls if c.kind == "license" and c.waived is None), None
    )
    return canonical(
        {
            "format": "sluice.publication/v1",
            "release": state.release,
            "name": state.name,
            "version": state.version,
            "step": step.name,
            "stage": step.stage.value,
            "attempt": attempt,
            "audience": audience_words(step.audience),
            "deployments": sorted(step.deployments),
            "plan": state.plan_digest,
            "license": license_name,
            "components": [
                {
                    "name": name,
                    "kind": state.plan.components[name].kind.value,
                    "artifact": next((a["id"] for a in carried if name in a["components"]), None),
                }
                for name in step.component_names
            ],
            "artifacts": [
                {name: artifact[name] for name in ("id", "manifest", "location")} for artifact in carried
            ],
            "evidence": {kind.value: found.digest for kind, found in state.evidence_for(step).items()},
            "controls": [
                {"kind": control.kind.value, "parameters": control.parameters, "waived": control.waived}
                for control in step.controls
            ],
        }
    )


def _published(state: ReleaseState, step: Step, attempt: int) -> list[dict[str, Any]]:
    """What a publication names of a step: where the public gets a marked copy, that one and never what it was made from."""
    components: dict[str, list[str]] = {}
    for name in step.component_names:
        if name in state.carried_by:
            components.setdefault(state.carried_by[name], []).append(name)
    public = state.grants.get(f"{step.name}.{attempt}.public")
    copies = {copy.of: copy for copy in public.copies} if public is not None else {}
    found = []
    for artifact, names_ in sorted(components.items()):
        known = state.artifacts[artifact]
        row = {"id": artifact, "manifest": known.manifest_digest, "location": known.location}
        if step.audience == "public" and state.plan.marks(
            step, "public", set(names_) & set(state.plan.keyed_components(step, "audience"))
        ):
            copy = copies.get(artifact)
            if copy is None:
                continue  # not made yet: this publication is written anew when it is
            row = {"id": copy.artifact, "manifest": copy.manifest_digest, "location": copy.location}
        found.append({**row, "components": names_})
    return found


def _entering(state: ReleaseState, request: StepRequest) -> Step:
    entry, step = state.entry, state.plan.step(request.step)
    if step is None:
        raise NotFound(f"the plan of {state.release} has no step `{request.step}`")
    if entry is None or (entry.step, entry.attempt) != (request.step, request.attempt):
        raise Conflict(f"`{request.step}` is not being entered (any more)")
    return step


def _publishes_plaintext(state: ReleaseState) -> bool:
    step = state.current_step
    return step is not None and step.publish_plaintext and bool(public_grants(state))


def _attempt(grant: Grant) -> int:
    """From the grant's id `step.attempt.holder`."""
    return int(grant.id[len(grant.step) + 1 :].partition(".")[0])


def _stands(state: ReleaseState, grant_id: str, reference: str) -> bool:
    """Whether an envelope's grant gives access, or may still come to be; one of an artifact that was sealed anew does not."""
    grant = state.grants.get(grant_id)
    if grant is not None:
        # while it waits for an envelope of what was sealed anew, that one may lie here before the event that names it
        return grant.live and (
            not state.superseded or bool(grant.renew) or reference in grant.envelopes.values()
        )
    if state.ended:
        return False
    if state.entry is not None and grant_id.startswith(f"{state.entry.step}.{state.entry.attempt}."):
        return True
    asked = ((state.plan.step(one.step), one.partner) for one in state.grants_asked.values())
    return any(step is not None and grant_id == late_id(state, step, partner) for step, partner in asked)


def _put_again(store: Store, key: str, data: bytes) -> None:
    """Put an object of ours; one that an earlier approach left under the name with other bytes is replaced."""
    try:
        store.put(key, data)
    except ObjectExists:
        info = store.stat(key)
        if info is not None and store.get_range(key, 0, info.size) == data:
            return
        store.delete(key)
        store.put(key, data)


def read_publication(data: bytes) -> dict[str, Any]:
    """A publication as an object."""
    value = json.loads(data)
    if not isinstance(value, dict):
        raise TypeError("a publication is a JSON object")
    return value
