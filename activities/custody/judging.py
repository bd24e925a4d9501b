"""What a request is to be given, re-derived: the release by the log, the gate judged anew, the grants that the plan makes, their manifests and keys."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from activities.custody.base import Asked, CustodyBase, Issue, Judged
from activities.custody.checking import Checked, checked_fold
from activities.custody.clocks import clocks_left
from activities.custody.copies import copy_for
from activities.custody.errors import CustodyRefused, CustodyWaits
from activities.custody.late import judge_late
from activities.custody.sharing import released_shares, require_as_dealt
from artifacts.errors import ArtifactError
from artifacts.manifest import Manifest, parse_manifest
from orchestrator.domain import events as ev
from orchestrator.domain.decide_access import planned_grants
from orchestrator.domain.errors import Reason
from orchestrator.domain.gate import still_holds
from orchestrator.domain.plan import Plan, recipient_digest
from orchestrator.domain.state import ReleaseState
from orchestrator.records import artifacts as artifact_records
from orchestrator.records import partners
from orchestrator.records.database import reading

_AT_ONCE = 500  # names in one statement; a database takes no end of them


class Judges(CustodyBase):
    """Says by the log what a request is to be given, and to whose key."""

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

    def _recipients(self, plan: Plan, grants: Sequence[ev.Grant]) -> dict[str, str | None]:
        """Of each grant, by its id, the recipient's text whose digest it names; None for the public record.

        One look at the records for all of them.

        Raises:
            CustodyRefused: a key was revoked, or none fits.
        """
        holders = sorted({grant.holder for grant in grants if grant.holder_kind == "partner"})
        known: dict[str, partners.Partner] = {}
        with reading(self._engine) as session:
            for start in range(0, len(holders), _AT_ONCE):
                known |= partners.standing(session, holders[start : start + _AT_ONCE])
        return {grant.id: self._recipient(plan, grant, known.get(grant.holder)) for grant in grants}

    @staticmethod
    def _recipient(plan: Plan, grant: ev.Grant, known: partners.Partner | None) -> str | None:
        if grant.kind == "public":
            return None
        pinned = (
            plan.deployments[grant.holder].recipient
            if grant.holder_kind == "deployment"
            else plan.partners[grant.holder].recipient
        )
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
