"""Objects: where sealed files lie, where plaintext is read from, and what signs them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from infra.settings_parts.place import Place


class ObjectsSettings(Place):
    """Stores, the Hub, ingests, signing keys."""

    store_uri: str = Field(
        default="",
        description="Where sealed files go: `dir:/path`, `s3://bucket/prefix`, or `hf:owner/name`. Empty: `store` in the data folder.",
    )
    s3_endpoint_url: str | None = Field(
        default=None,
        description="Endpoint of an S3-compatible store. Unset: AWS S3 of the configured region.",
    )
    s3_kms_key_id: str | None = Field(
        default=None,
        description="Have S3 encrypt what is stored with this KMS key as well; an answer that does not confirm it is an error. "
        "Unset: the bucket's own default.",
    )
    s3_lock_mode: Literal["GOVERNANCE", "COMPLIANCE"] | None = Field(
        default=None,
        description="Object lock for what is stored on S3; needs `SLUICE_S3_LOCK_DAYS` and a bucket with object lock. Unset: none.",
    )
    s3_lock_days: int = Field(
        default=0, ge=0, le=36500, description="Days for which a stored object stays locked."
    )
    hub_endpoint_url: str | None = Field(
        default=None, description="Endpoint of a Hugging Face Hub. Unset: the public one."
    )
    hub_token_file: Path | None = Field(
        default=None, description="File with the token for the Hugging Face Hub."
    )
    hub_sweep_seconds: int = Field(
        default=900,
        ge=30,
        description="How often a repository on the Hub is held against what the release left there, in seconds. What is done about a "
        "difference the plan says (`hub_drift`).",
    )
    ingest_dir: Path | None = Field(
        default=None,
        description="Folder that ingests may read plaintext from; a path in an ingest is below it. Unset: ingests read `s3://` and "
        "`hf:` only. Dev mode makes `ingest` in the data folder.",
    )
    transfer_signing_key_file: Path | None = Field(
        default=None,
        description="File with the key that signs manifests of what transfer workers seal (`sluice artifact keygen`). Dev mode makes one.",
    )
    model_signing_key_file: Path | None = Field(
        default=None,
        description="PEM file with the EC key that signs plaintext published at `open`, in the form of OpenSSF model signing. Unset: a "
        "plan that publishes plaintext can't be entered there. Dev mode makes one.",
    )

    @field_validator("store_uri")
    @classmethod
    def _store(cls, value: str) -> str:
        if value and value.partition(":")[0] not in {"dir", "s3", "hf"}:
            raise ValueError(f"{value!r} is none of dir:/path, s3://bucket/prefix, hf:owner/name")
        return value

    @property
    def effective_store_uri(self) -> str:
        """The object store's URI."""
        return self.store_uri or f"dir:{self.data_dir / 'store'}"

    @property
    def effective_ingest_dir(self) -> Path | None:
        """The ingest folder; in dev mode the one that the stack makes."""
        return self.ingest_dir or (self.data_dir / "ingest" if self.dev else None)

    @property
    def effective_transfer_signing_key_file(self) -> Path | None:
        """The transfer workers' signing key; in dev mode the one that the stack makes."""
        return self.transfer_signing_key_file or self._dev_secret("transfer.key")

    @property
    def effective_model_signing_key_file(self) -> Path | None:
        """The key that signs published plaintext; in dev mode the one that the stack makes."""
        return self.model_signing_key_file or self._dev_secret("model-signing.pem")
