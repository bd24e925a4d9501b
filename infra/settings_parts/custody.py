"""Custody: its own keys, its own database, and who holds the key-encryption key."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from pydantic import Field, field_validator

from infra.settings_parts.place import Place, insecure_url, without_password


class KeyProvider(StrEnum):
    """Where the key-encryption key lives."""

    LOCAL = "local"
    OPENBAO = "openbao"
    AWS_KMS = "aws-kms"


class CustodySettings(Place):
    """Custody and its key service."""

    custody_public_file: Path | None = Field(
        default=None,
        description="JSON file with custody's public half, written when custody starts: who roots are wrapped to, and the keys that "
        "envelopes and log checkpoints are verified with. Everybody may read it. Unset: `public/custody-public.json` in the data folder.",
    )
    custody_keys_file: Path | None = Field(
        default=None,
        description="File with custody's own keys, wrapped under the key-encryption key; made on the first start. Unset: `custody/keys.json` "
        "in the data folder.",
    )
    custody_database_url: str = Field(
        default="",
        description="Custody's own database, which no other process may write: what it has seen of the log, and the roots that it holds. "
        "Several custody workers share one. Empty: `custody/memory.db` in the data folder.",
    )
    custody_database_password_file: Path | None = Field(
        default=None, description="File with the password of the PostgreSQL user of custody's own database."
    )
    custody_log_name: str = Field(
        default="sluice.release/log",
        min_length=1,
        max_length=200,
        pattern=r"^[^\s+]+$",
        description="Name of the audit log in its checkpoints.",
    )
    custody_watch_seconds: float = Field(
        default=1.0, gt=0, le=60, description="How often custody looks at the log, in seconds."
    )
    custody_checkpoint_places: tuple[str, ...] = Field(
        default=(),
        description="Second places that signed checkpoints of the log are copied to, as a JSON list: `file:/folder`, "
        "`s3://bucket/prefix?lock_days=365`, `https://…`. A log that was rewritten is noticed there.",
    )
    custody_signed_only: bool = Field(
        default=False,
        description="Whether decisions of people whose keys the plan does not pin count for nothing at custody. Then no key comes out "
        "of a release without signatures.",
    )
    custody_traces_a_day: int = Field(
        default=50,
        ge=0,
        le=10_000,
        description="How many suspects of one release custody traces a day for the leak monitor; counted per custody process. 0: none, only its "
        "operator traces (`sluice trace`).",
    )
    copies_state_dir: Path | None = Field(
        default=None,
        description="Folder on custody's own disk where copies that are being made keep what they need to go on after a crash; no key "
        "and no plaintext lies there in clear. Several custody workers share one: what another one began is found there alone. Unset: "
        "`custody/copies` in the data folder.",
    )
    key_provider: KeyProvider = Field(
        default=KeyProvider.LOCAL,
        description="Who holds the key-encryption key: `local`, `openbao`, `aws-kms`.",
    )
    keyring_file: Path | None = Field(
        default=None, description="The local keyring. Unset: `custody/keyring` in the data folder."
    )
    keyring_passphrase_file: Path | None = Field(
        default=None,
        description="File with the passphrase of the local keyring. Without it the keyring is unprotected: dev mode only.",
    )
    openbao_address: str | None = Field(default=None, description="`https://host:port` of OpenBao or Vault.")
    openbao_token_file: Path | None = Field(
        default=None, description="File with custody's token for OpenBao or Vault."
    )
    openbao_mount: str = Field(default="transit", description="Mount path of the transit engine.")
    openbao_key: str = Field(
        default="sluice", description="Name of the transit key; derived, so that its context binds."
    )
    openbao_ca_file: Path | None = Field(
        default=None, description="PEM file of the authority that signed OpenBao's certificate."
    )
    openbao_approvers: str | None = Field(
        default=None,
        max_length=200,
        description="Where a control group guards the key: who approves, in words for the people who see a step wait, such as "
        "`two of sluice-approvers`. OpenBao tells custody nobody's name before they have approved.",
    )
    aws_kms_key_id: str | None = Field(default=None, description="ARN or alias of the key in AWS KMS.")
    aws_kms_endpoint_url: str | None = Field(
        default=None, description="Endpoint of AWS KMS, if not AWS's own."
    )

    @field_validator("custody_database_url")
    @classmethod
    def _own_database(cls, value: str) -> str:
        return without_password(value)

    @property
    def effective_custody_public_file(self) -> Path:
        """Custody's public half."""
        return self.custody_public_file or self.data_dir / "public" / "custody-public.json"

    @property
    def effective_custody_keys_file(self) -> Path:
        """Custody's own keys."""
        return self.custody_keys_file or self.data_dir / "custody" / "keys.json"

    @property
    def effective_custody_database_url(self) -> str:
        """Custody's own database."""
        return self.custody_database_url or f"sqlite:///{self.data_dir / 'custody' / 'memory.db'}"

    @property
    def effective_copies_state_dir(self) -> Path:
        """Where copies in the making keep their tickets."""
        return self.copies_state_dir or self.data_dir / "custody" / "copies"

    @property
    def effective_keyring_file(self) -> Path:
        """The local keyring's file."""
        return self.keyring_file or self.data_dir / "custody" / "keyring"

    def insecure_custody(self) -> list[str]:
        """Why this key service may not be used outside dev mode."""
        match self.key_provider:
            case KeyProvider.LOCAL if self.keyring_passphrase_file is None:
                return [
                    "the local keyring is unprotected: set SLUICE_KEYRING_PASSPHRASE_FILE, or use openbao or aws-kms"
                ]
            case KeyProvider.OPENBAO if self.openbao_token_file is None:
                return ["key provider openbao needs SLUICE_OPENBAO_TOKEN_FILE"]
            case KeyProvider.OPENBAO:
                return insecure_url("openbao_address", self.openbao_address)
            case KeyProvider.AWS_KMS:
                return insecure_url("aws_kms_endpoint_url", self.aws_kms_endpoint_url)
            case _:
                return []
