"""One request to custody: verify the log, judge the gate anew, write the leaf, unwrap, make the envelopes.

Order matters: the leaf that says who gets which key is in the log, under a signed checkpoint, before any key is
unwrapped; every envelope carries that proof, and a partner's client refuses one without.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import structlog

from activities.custody.base import Asked, Issue, purpose_of
from activities.custody.judging import Judges
from activities.custody.leaves import WritesLeaves
from activities.custody.second_lock import Purpose
from activities.custody.sharing import Released, shared_secrets
from artifacts.envelope import EnvelopePayload, file_keys, make_envelope, make_public_record
from artifacts.keys import RootKey
from artifacts.manifest import Manifest
from orchestrator.domain import events as ev
from orchestrator.domain.deciding import short_id
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import digest
from orchestrator.records import audit, envelopes
from orchestrator.records.database import writing

_log = structlog.get_logger(__name__)
DEFAULT_VALIDITY = timedelta(days=365)


class Custody(WritesLeaves, Judges):
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
        recipients = self._recipients(state.plan, grants)
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
        with self._refusing(release, "take-in", 0):
            self.watch.catch_up()
            history = [event for event, _ in self.watch.history(release)]
            state = self._checked(release, history).state
            manifests = [self._manifest(state, name) for name in sorted(state.artifacts)]
            return list(self.keeping.hold_all(state, manifests))

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
