"""Keys that a deployment needs before its first start. Dev mode makes all of them in the data folder; nothing existing is touched.

    secrets/codec.keys · secrets/document.keys    what Temporal and the evidence texts are encrypted with
    secrets/transfer.key                          signs manifests of what transfer workers seal
    secrets/model-signing.pem                     signs plaintext published at `open`
    custody/keyring · identity · signing.key · log.key    custody's own, which no other process reads
    public/custody.json                           custody's public half

For production, `make_custody_keys` runs once where custody runs; the public file is handed to the others.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, ValidationError

from artifacts.custody.local import InsecureUnprotectedKeyring, LocalKeyring
from artifacts.keys import custody_identity, custody_keygen
from artifacts.signing import SigningKey, VerifyKey
from infra.codec import write_new_keys
from infra.settings import InvalidSettingError, KeyProvider, Settings, read_secret
from orchestrator.trust.checkpoints import NoteSigner, NoteVerifier
from orchestrator.trust.keys import PrivateKey

LOG_NAME = "sluice.release/log"
"""The log's origin, unless a deployment names its own."""


class CustodyPublic(BaseModel):
    """Custody's public half: nothing of it is secret.

    Attributes:
        recipient: who root keys are wrapped to (`sluicecustody1…`).
        verify_keys: keys that envelopes and public records are verified with.
        log_keys: C2SP note verifiers of the audit log's checkpoints.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    recipient: str
    verify_keys: tuple[str, ...]
    log_keys: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> CustodyPublic:
        """Read the file.

        Raises:
            InvalidSettingError: it is missing or malformed.
        """
        try:
            return cls.model_validate_json(read_secret(path, "custody_public_file"))
        except ValidationError as error:
            raise InvalidSettingError(
                f"SLUICE_CUSTODY_PUBLIC_FILE: {path} is malformed ({error.error_count()} errors)"
            ) from None

    @property
    def verifiers(self) -> list[VerifyKey]:
        """The keys that envelopes are verified with."""
        return [VerifyKey.parse(text) for text in self.verify_keys]

    @property
    def log_verifiers(self) -> list[NoteVerifier]:
        """The keys that checkpoints are verified with."""
        return [NoteVerifier.parse(text) for text in self.log_keys]


def provision_dev(settings: Settings) -> None:
    """Make what dev mode needs in its data folder; safe to repeat."""
    if not settings.dev:
        return
    for given, effective in (
        (settings.codec_keys_file, settings.effective_codec_keys_file),
        (settings.document_keys_file, settings.effective_document_keys_file),
    ):
        if given is None and effective is not None and not effective.exists():
            write_new_keys(effective)
    transfer = settings.effective_transfer_signing_key_file
    if settings.transfer_signing_key_file is None and transfer is not None and not transfer.exists():
        write_private(transfer, SigningKey.generate().secret_string().encode() + b"\n")
    model = settings.effective_model_signing_key_file
    if settings.model_signing_key_file is None and model is not None and not model.exists():
        write_private(model, _new_pem())
    if settings.ingest_dir is None:
        (settings.data_dir / "ingest").mkdir(mode=0o700, exist_ok=True)
    make_custody_keys(settings)


def make_custody_keys(settings: Settings) -> CustodyPublic:
    """Make custody's keys that are missing, and write its public half; the public half.

    The local keyring is made only for the provider `local`; another provider holds its key itself.
    """
    identity_file = settings.effective_custody_identity_file
    if not identity_file.exists():
        write_private(identity_file, custody_keygen().identity.encode() + b"\n")
    signing_file = settings.effective_custody_signing_key_file
    if not signing_file.exists():
        write_private(signing_file, SigningKey.generate().secret_string().encode() + b"\n")
    log_file = settings.effective_custody_log_key_file
    if not log_file.exists():
        write_private(log_file, PrivateKey.generate().to_openssh())
    if settings.key_provider is KeyProvider.LOCAL and not settings.effective_keyring_file.exists():
        settings.effective_keyring_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", InsecureUnprotectedKeyring)  # said when custody opens it
            LocalKeyring.create(settings.effective_keyring_file, keyring_passphrase(settings))
    public = custody_public(settings)
    public_file = settings.effective_custody_public_file
    if not public_file.exists() or CustodyPublic.read(public_file) != public:
        public_file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary = public_file.with_suffix(".tmp")
        temporary.write_text(json.dumps(public.model_dump(), indent=2) + "\n", encoding="utf-8")
        temporary.replace(public_file)
    return public


def custody_public(settings: Settings) -> CustodyPublic:
    """Custody's public half from its private keys; only where those may be read."""
    identity = custody_identity(
        read_secret(settings.effective_custody_identity_file, "custody_identity_file")
    )
    return CustodyPublic(
        recipient=str(identity.recipient),
        verify_keys=(str(custody_signer(settings).verify_key),),
        log_keys=(log_signer(settings).verifier.text(),),
    )


def custody_signer(settings: Settings) -> SigningKey:
    """The key that signs envelopes."""
    return SigningKey.parse(
        read_secret(settings.effective_custody_signing_key_file, "custody_signing_key_file")
    )


def log_signer(settings: Settings) -> NoteSigner:
    """The key that signs checkpoints of the audit log."""
    text = read_secret(settings.effective_custody_log_key_file, "custody_log_key_file")
    return NoteSigner(LOG_NAME, PrivateKey.load(text.encode() + b"\n"))


def keyring_passphrase(settings: Settings) -> bytes | None:
    """The passphrase of the local keyring; None leaves it unprotected (dev mode)."""
    path = settings.keyring_passphrase_file
    return None if path is None else read_secret(path, "keyring_passphrase_file").encode()


def write_private(path: Path, data: bytes) -> None:
    """Write a new file that only its owner can read; an existing one is an error."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _new_pem() -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
