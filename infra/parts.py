"""Parts that several processes are made of: the records, stores with their credentials, the API's helpers."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Any

import httpx
from sqlalchemy import Engine

from artifacts.errors import ArtifactError
from artifacts.keys import partner_recipient
from artifacts.leaks.sealed import SealedSignature
from artifacts.manifest import parse_manifest
from artifacts.stores.base import Store, open_store
from artifacts.stores.s3 import SharedS3
from infra.codec import CodecKeys
from infra.documents import SealedDocuments
from infra.settings import InvalidSettingError, Settings, read_secret
from infra.settings_parts.place import PREFIX
from orchestrator.api.deps import ManifestFacts
from orchestrator.domain.commands import KeyShares
from orchestrator.domain.errors import Malformed, Reason
from orchestrator.records import database

#: How long stores on S3 share a client, in seconds, and over how many connections.
_SHARED_S = 300.0
_CONNECTIONS = 32


def records_engine(settings: Settings) -> Engine:
    """The engine of the records."""
    file = settings.database_password_file
    password = None if file is None else read_secret(file, "database_password_file")
    url = settings.effective_database_url
    return database.connect(url, password=password, pool_size=settings.database_pool_size)


class StoreOpener:
    """Opens stores with this deployment's endpoints and tokens.

    Stores on S3 that are opened within five minutes share their connections, and what a probe found out.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._shared: dict[str, tuple[float, SharedS3]] = {}
        self._lock = Lock()

    def __call__(self, uri: str) -> Store:
        """The store at `uri`."""
        settings, options = self._settings, dict[str, Any]()
        scheme = uri.partition(":")[0]
        if scheme == "s3":
            options |= {"shared": self._share(uri), "max_connections": _CONNECTIONS}
            if settings.s3_endpoint_url:
                options["endpoint_url"] = settings.s3_endpoint_url
            if settings.s3_kms_key_id:
                options["sse_kms_key_id"] = settings.s3_kms_key_id
            if settings.s3_lock_mode or settings.s3_lock_days:
                options |= {"lock_mode": settings.s3_lock_mode, "lock_days": settings.s3_lock_days}
        if scheme == "hf":
            if settings.hub_endpoint_url:
                options["endpoint"] = settings.hub_endpoint_url
            if settings.hub_token_file is not None:
                options["token"] = read_secret(settings.hub_token_file, "hub_token_file")
            options["spool"] = settings.data_dir / "spool"
        return open_store(uri, **options)

    def _share(self, uri: str) -> SharedS3:
        now = monotonic()
        with self._lock:
            self._shared = {name: kept for name, kept in self._shared.items() if now - kept[0] < _SHARED_S}
            return self._shared.setdefault(uri, (now, SharedS3()))[1]


class ArtifactFormats:
    """Reads the formats of sealed artifacts; satisfies `orchestrator.api.deps.Formats`."""

    def read_manifest(self, data: bytes, *, digest: str) -> ManifestFacts:
        """Hold a signed manifest to every rule of its format."""
        try:
            found = parse_manifest(data, trusted=None, expected_digest=digest.removeprefix("sha256:"))
        except ArtifactError as error:
            raise Malformed(
                "the manifest cannot be registered", [Reason("manifest", str(error), "body.manifest")]
            ) from None
        return ManifestFacts(
            artifact=found.artifact_id,
            digest=f"sha256:{found.digest}",
            components=tuple(sorted({file.component for file in found.files})),
            files=len(found.files),
            size=found.size,
            shares=None
            if found.shares is None
            else KeyShares(threshold=found.shares.threshold, holders=found.shares.names),
        )

    def read_signature(self, data: bytes, *, artifact: str, digest: str) -> str:
        """The key id of a sealed weight signature, which must be of this artifact and manifest."""
        try:
            found = SealedSignature.parse(data)
            if (found.artifact, f"sha256:{found.manifest}") == (artifact, digest):
                return found.key_id
            why = f"it is of {found.artifact[:80]} with the manifest sha256:{found.manifest[:80]}"
        except ArtifactError as error:
            why = str(error)
        raise Malformed(
            "the weight signature cannot be registered", [Reason("signature", why, "body.signature")]
        )

    def check_recipient(self, text: str) -> None:
        """Raise unless this is an age recipient that envelopes can be made for."""
        try:
            partner_recipient(text)
        except ArtifactError as error:
            raise Malformed(
                "this is no recipient that envelopes can be made for",
                [Reason("recipient", str(error), "body.recipient")],
            ) from None


def single_sign_on(settings: Settings, engine: Engine) -> dict[str, Any]:
    """The parts of `Deps` that single sign-on makes; none when it is not set up.

    Raises:
        InvalidSettingError: the file does not say whom to trust.
    """
    if settings.sign_in_file is None:
        return {}
    from orchestrator.api.sign_in.browser import SingleSignOn
    from orchestrator.api.sign_in.settings import read_sign_in
    from orchestrator.api.sign_in.tokens import Verifier

    try:
        trusted = read_sign_in(settings.sign_in_file)
    except Malformed as error:
        raise InvalidSettingError(f"SLUICE_SIGN_IN_FILE: {error.detail}") from None
    secret_file = None if trusted.people is None else trusted.people.client_secret_file
    secret = None if secret_file is None else read_secret(secret_file, "sign_in_file")
    http = httpx.Client(timeout=httpx.Timeout(5.0), follow_redirects=False, trust_env=False)
    verifier = Verifier(trusted, engine, http)
    return {"identify": verifier.identify, "sign_in": SingleSignOn(verifier, http, secret)}


def webhook_cipher(settings: Settings) -> SealedDocuments | None:
    """What webhooks' secrets are sealed with; None when no file of keys is set: then there are no webhooks."""
    path = settings.effective_webhook_keys_file
    return None if path is None else SealedDocuments(CodecKeys.read(path))


def document_cipher(settings: Settings) -> SealedDocuments:
    """What evidence texts are sealed with.

    Raises:
        InvalidSettingError: no file of keys is set.
    """
    return _cipher(settings.effective_document_keys_file, "document_keys_file")


def verdict_cipher(settings: Settings) -> SealedDocuments:
    """What verdicts are sealed with.

    Raises:
        InvalidSettingError: no file of keys is set.
    """
    return _cipher(settings.effective_verdict_keys_file, "verdict_keys_file")


def _cipher(path: Path | None, setting: str) -> SealedDocuments:
    if path is None:
        raise InvalidSettingError(f"{PREFIX}{setting.upper()} is not set")
    return SealedDocuments(CodecKeys.read(path))
