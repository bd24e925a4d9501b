"""Roots in custody: taken in once, under the key-encryption key in the context of the plan that holds.

take in   the root that was wrapped to custody when it was sealed, bound to the manifest digest -> under the KEK
re-wrap   an amended plan is another context; the fold has checked the old plan's quorum for every step between
unwrap    only in the context of the plan that holds now, and only what the manifest commits to
shares    of an artifact that was dealt among people custody has a half, which opens nothing without their shares
rotate    everything anew under the KEK's newest version
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping

from activities.custody.errors import CustodyRefused
from activities.custody.keys import CustodyKeys
from activities.custody.memory import CustodyMemory, Holding
from artifacts.custody.base import KeyProvider, WrappedKey, wrapping_context
from artifacts.custody.errors import SecondLockPending
from artifacts.custody.second_lock import LockRequest
from artifacts.custody.shares import unlock
from artifacts.keys import CustodyHalf, RootKey, SecretKey, unwrap_half, unwrap_root
from artifacts.manifest import Manifest
from orchestrator.domain.errors import Reason
from orchestrator.domain.state import ReleaseState


class Keeping:
    """What custody holds, and the only code that has a root in clear.

    Args:
        memory: custody's own database.
        provider: keeps the key-encryption key.
        keys: custody's own keys.
    """

    def __init__(self, memory: CustodyMemory, provider: KeyProvider, keys: CustodyKeys) -> None:
        self._memory, self._provider, self._keys = memory, provider, keys

    def hold(self, state: ReleaseState, manifest: Manifest) -> Holding:
        """The artifact's root under the key-encryption key, in the context of the plan that holds now.

        Raises:
            CustodyRefused: the artifact belongs to another release, or has another manifest.
            KeyProviderError: the wrapped root or the key service does not hold.
        """
        artifact = manifest.artifact_id
        holding = self._memory.holding(artifact)
        if holding is None:
            holding = self._take_in(state, manifest)
        if holding.release != state.release:
            raise CustodyRefused(f"{artifact} is bound to the release {holding.release}, which had it first")
        if holding.manifest_digest != "sha256:" + manifest.digest:
            raise CustodyRefused(f"{artifact} was taken in with another manifest")
        if holding.plan_digest != state.plan_digest:
            rewrapped = self._provider.rewrap(
                WrappedKey.parse(holding.wrapped),
                wrapping_context(state.release, artifact, holding.plan_digest),
                wrapping_context(state.release, artifact, state.plan_digest),
            )
            holding = self._memory.rewrap(holding, state.plan_digest, str(rewrapped))
        return holding

    def _take_in(self, state: ReleaseState, manifest: Manifest) -> Holding:
        artifact = manifest.artifact_id
        known = state.artifacts[artifact]
        if known.root is None:
            raise CustodyRefused(f"no wrapped root was registered with {artifact}")
        return self.take_in(state, manifest, known.root)

    def take_in(self, state: ReleaseState, manifest: Manifest, wrapped_root: str) -> Holding:
        """Hold a root that was wrapped to custody, bound to its manifest; whoever was first stays.

        Raises:
            KeyProviderError: the wrapped root or the key service does not hold.
        """
        artifact, dealt = manifest.artifact_id, manifest.shares
        held: SecretKey
        if dealt is None:
            held = unwrap_root(
                wrapped_root,
                self._keys.identity,
                manifest.digest,
                artifact_id=artifact,
                commitment=manifest.root_commitment,
            )
        else:
            held = unwrap_half(
                wrapped_root,
                self._keys.identity,
                manifest.digest,
                artifact_id=artifact,
                set_id=dealt.set_id,
                commitment=dealt.half,
            )
        wrapped = self._provider.wrap(held.raw, wrapping_context(state.release, artifact, state.plan_digest))
        return self._memory.take_in(
            Holding(artifact, state.release, "sha256:" + manifest.digest, state.plan_digest, str(wrapped))
        )

    def unwrap(
        self,
        state: ReleaseState,
        holdings: Mapping[str, Holding],
        manifests: Mapping[str, Manifest],
        purpose: str,
        shared: Mapping[str, bytes] | None = None,
    ) -> dict[str, RootKey]:
        """The roots, in clear: only here, only for the time of one request, and either all of them or none.

        Where a second lock stands, people are asked for every root at once, and none is fetched before all are approved: no root
        waits in clear for another one's approval.

        Args:
            state: the release.
            holdings: artifact → what is held of it.
            manifests: artifact → its manifest.
            purpose: what the roots are for (`second_lock.Purpose.key`).
            shared: artifact → what people's key shares make, for those that were sealed with shares.

        Raises:
            CustodyRefused: what is held is not what the manifest commits to, or shares are needed and not there.
            SecondLockPending: people must approve first; it names every request.
            KeyProviderError: the key service refuses, or the context is another.
        """
        shared = shared or {}
        for name, manifest in manifests.items():
            if manifest.shares is not None and name not in shared:
                raise _needs_shares(manifest)
        wrapped = {name: WrappedKey.parse(holding.wrapped) for name, holding in holdings.items()}
        contexts = {
            name: wrapping_context(state.release, holding.artifact, state.plan_digest)
            for name, holding in holdings.items()
        }
        asked = {
            name: self._provider.second_lock(wrapped[name], contexts[name], purpose) for name in holdings
        }
        waiting = [request for request in asked.values() if request is not None and request.approved is False]
        opened: dict[str, bytes] = {}
        approvers = None
        # first those that nobody was asked for; then, if nothing waits, those that are approved
        for name in sorted(holdings, key=lambda name: asked[name] is not None):
            if asked[name] is not None and waiting:
                continue
            try:
                opened[name] = self._provider.unwrap(wrapped[name], contexts[name], purpose)
            except SecondLockPending as pending:
                waiting += pending.requests
                approvers = pending.approvers
        if waiting:
            raise SecondLockPending(sorted(waiting, key=lambda request: request.about), approvers)
        roots = {name: _root(raw, manifests[name], shared.get(name)) for name, raw in opened.items()}
        for name, root in roots.items():
            if root.commitment(name) != manifests[name].root_commitment:
                raise CustodyRefused(f"the key held for {name} is not the one that its manifest commits to")
        return roots

    def hold_all(self, state: ReleaseState, manifests: Iterable[Manifest]) -> dict[str, Holding]:
        """`hold` of several artifacts; where a second lock stands, people are asked for all of them at once.

        Raises:
            SecondLockPending: an amended plan is another context, and wrapping anew waits for people; it names every request.
            CustodyRefused, KeyProviderError: as `hold`.
        """
        held: dict[str, Holding] = {}
        waiting: list[LockRequest] = []
        approvers = None
        for manifest in manifests:
            try:
                held[manifest.artifact_id] = self.hold(state, manifest)
            except SecondLockPending as pending:
                waiting += pending.requests
                approvers = pending.approvers
        if waiting:
            raise SecondLockPending(waiting, approvers)
        return held

    def mark_secret(
        self, state: ReleaseState, artifact: str, commitment: Callable[[bytes], str], purpose: str
    ) -> bytes:
        """The secret of an artifact's marks, drawn the first time and held like a root.

        Args:
            state: the release.
            artifact: the artifact that copies are marked under.
            commitment: of a secret, 64 hex digits; held beside it.
            purpose: what it is for (`second_lock.Purpose.key`).

        Raises:
            CustodyRefused: it belongs to another release, or is not the one that was committed to.
            KeyProviderError: the key service fails.
        """
        name = f"{artifact}.marks"
        holding = self._memory.holding(name)
        if holding is None:
            secret = os.urandom(32)
            context = wrapping_context(state.release, name, state.plan_digest)
            wrapped = str(self._provider.wrap(secret, context))
            committed = "sha256:" + commitment(secret)
            holding = self._memory.take_in(
                Holding(name, state.release, committed, state.plan_digest, wrapped)
            )
        if holding.release != state.release:
            raise CustodyRefused(f"{artifact} is bound to the release {holding.release}, which had it first")
        context = wrapping_context(holding.release, name, holding.plan_digest)
        secret = self._provider.unwrap(WrappedKey.parse(holding.wrapped), context, purpose)
        if "sha256:" + commitment(secret) != holding.manifest_digest:
            raise CustodyRefused(f"the mark key held for {artifact} is not the one that was committed to")
        return secret

    def rotate(self, *, resume: bool = False) -> tuple[int, int]:
        """A new version of the key-encryption key, and every root anew under it; the version, and how many roots.

        Old versions still unwrap, so a rotation that was cut short loses nothing: go on with `resume`.

        Args:
            resume: make no new version; wrap anew what is not under the newest one.

        Raises:
            KeyProviderError: the key service fails.
        """
        version = self._provider.describe().version if resume else self._provider.rotate()
        count = 0
        for holding in self._memory.holdings():
            if resume and version and WrappedKey.parse(holding.wrapped).version == version:
                continue
            context = wrapping_context(holding.release, holding.artifact, holding.plan_digest)
            wrapped = self._provider.rewrap(WrappedKey.parse(holding.wrapped), context, context)
            self._memory.rewrap(holding, holding.plan_digest, str(wrapped))
            count += 1
        return version, count


def _root(held: bytes, manifest: Manifest, shared: bytes | None) -> RootKey:
    """The root: what is held, or what opens with it and people's shares."""
    if manifest.shares is None or shared is None:
        return RootKey(held)
    return unlock(manifest.shares, manifest.artifact_id, CustodyHalf(held), shared)


def _needs_shares(manifest: Manifest) -> CustodyRefused:
    dealt = manifest.shares
    told = (
        "no shares were dealt"
        if dealt is None
        else f"{dealt.threshold} of {len(dealt.holders)} key shares open it, released with the sign-offs of the step that hands it out"
    )
    return CustodyRefused(
        f"{manifest.artifact_id} was sealed with key shares, which custody opens for an entry alone",
        [Reason("shares", told)],
    )
