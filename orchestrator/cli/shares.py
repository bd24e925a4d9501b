"""The caller's own key shares: who gets one when an artifact is sealed, and releasing it with a sign-off.

A share is opened on this machine alone, held to the manifest that the caller signs for, and leaves it sealed to the one
custody key that it was dealt for, bound to the very statement that was signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.cli.client import Client
from orchestrator.cli.config import public_text, read_secret
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.failures import Failure, LocalFailure, NotInOrder
from orchestrator.domain.state import GateSubject
from orchestrator.domain.values import statement_digest

if TYPE_CHECKING:
    from artifacts.custody.shares import Dealing, Share
    from artifacts.dealt import DealtShares


def dealing_of(holders: list[str] | None, threshold: int | None) -> Dealing | None:
    """`sam=age1pq1…` for each holder and a threshold, as sealing takes them; None without holders.

    Raises:
        Failure: not of that form, a name twice, or one without the other.
    """
    from artifacts.custody.shares import Dealing

    if not holders and threshold is None:
        return None
    if not holders or threshold is None:
        raise Failure(
            "Who holds how many shares?",
            "give --share-holder NAME=age1pq… for each holder, and --threshold",
            exit_code=ExitCode.USAGE,
        )
    found: dict[str, str] = {}
    for pair in holders:
        name, separator, key = pair.partition("=")
        if not separator or not name or not key or name in found:
            raise Failure(
                "Who holds a share?",
                f"{pair[:100]!r}: expected NAME=age1pq…, once for each",
                exit_code=ExitCode.USAGE,
            )
        found[name] = public_text(key, "recipient")
    dealing = Dealing(threshold, found)
    dealing.check()
    return dealing


def own_shares(gate: Mapping[str, Any], person: str) -> list[str]:
    """The artifacts of a gate of which somebody holds a key share."""
    return [str(one["artifact"]) for one in gate["verdict"].get("shares", []) if person in one["holders"]]


def opened_share(
    client: Client, artifact: str, digest: str, person: str, key_file: Path
) -> tuple[Share, DealtShares]:
    """A holder's share out of the artifact's manifest, and what the manifest says of the set.

    Args:
        client: the service, which keeps the manifest.
        artifact: its id.
        digest: the manifest's, from what is being signed.
        person: the holder.
        key_file: their private key, as `sluice partner keygen` or `age-keygen -pq` writes it.

    Raises:
        NotInOrder: the artifact was sealed without shares.
        ArtifactError: the manifest is another, or the share does not open or does not hold.
    """
    from artifacts.custody.shares import open_share
    from artifacts.keys import partner_identity
    from artifacts.manifest import parse_manifest

    data = client.read("artifacts", artifact, "manifest")
    manifest = parse_manifest(data, expected_digest=digest.removeprefix("sha256:"))
    if manifest.shares is None or manifest.artifact_id != artifact:
        raise NotInOrder("There are no key shares", f"by its manifest, {artifact} was sealed without shares")
    identity = partner_identity(read_secret(key_file.expanduser()).decode("utf-8", "replace"))
    return open_share(manifest.shares, artifact, person, identity), manifest.shares


class OwnShares:
    """The shares that a sign-off will release: opened before anything is signed, sealed to custody after.

    Args:
        client: the service.
        gate: the gate as it was read.
        subject: what will be signed; its manifests are those that the shares have to belong to.
        person: the caller.
        key_file: the key that their shares were sealed to; None releases nothing.

    Raises:
        Failure: the caller holds no share here, or what is shown does not fit what is signed.
    """

    def __init__(
        self,
        client: Client,
        gate: Mapping[str, Any],
        subject: GateSubject,
        person: str,
        key_file: Path | None,
    ) -> None:
        self.held = own_shares(gate, person)
        self._opened: dict[str, tuple[Share, DealtShares]] = {}
        if key_file is None:
            return
        if not self.held:
            raise Failure(
                "You hold no key share here",
                f"no artifact whose key `{subject.step}` hands out was sealed with a share for {person}",
                exit_code=ExitCode.USAGE,
            )
        for artifact in self.held:
            digest = subject.manifests.get(artifact)
            if digest is None:
                raise NotInOrder(
                    "The gate asks for a share of something else",
                    f"{artifact} is not among what would be signed; tell an operator",
                )
            self._opened[artifact] = opened_share(client, artifact, digest, person, key_file)

    def lines(self) -> list[str]:
        """What a person reads of it before they sign."""
        told = []
        for artifact in self.held:
            if artifact in self._opened:
                share, record = self._opened[artifact]
                told.append(
                    f"  key share {artifact}: released to custody {share.custody[:16]}, one of {record.threshold} that are needed"
                )
            else:
                told.append(
                    f"  key share {artifact}: yours is NOT released (give --share-key FILE to release it)"
                )
        return told

    def released(self, envelope: str | None) -> dict[str, str]:
        """Artifact → the share, sealed to custody and bound to the signed statement.

        Raises:
            LocalFailure: there is a share, but no signature to bind it to.
        """
        from artifacts.custody.shares import release_share

        if not self._opened:
            return {}
        statement = statement_digest(envelope)
        if statement is None:
            raise LocalFailure(
                "A key share needs a signature",
                "the plan pins no key of yours, so there is no signed statement to bind it to",
            )
        return {
            artifact: release_share(share, record.custody, statement)
            for artifact, (share, record) in self._opened.items()
        }
