"""The database of the records, and the keys of the texts in it."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from pydantic import Field, field_validator

from infra.settings_parts.place import Place, is_loopback, without_password


class RecordsSettings(Place):
    """The records."""

    database_url: str = Field(
        default="",
        description="`sqlite:////path/file.db` or `postgresql://user@host/name?sslmode=verify-full`, without a password. "
        "Empty: `records.db` in the data folder.",
    )
    database_password_file: Path | None = Field(
        default=None, description="File with the password of the PostgreSQL user."
    )
    database_custody_user: str = Field(
        default="",
        pattern=r"^[a-z0-9_]*$",
        description="PostgreSQL user with which custody opens the records: `migrate` grants it reading, and writing of custody's own leaves "
        "and envelopes. Empty: custody uses the owner's user.",
    )
    database_pool_size: int = Field(
        default=10, ge=1, le=200, description="Connections a process keeps open to PostgreSQL at most."
    )
    document_keys_file: Path | None = Field(
        default=None,
        description="File with the keys that encrypt evidence texts in the database, in the form of the codec keys. Only the API needs "
        "it. Dev mode makes one in the data folder.",
    )

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str) -> str:
        return without_password(value)

    @property
    def effective_database_url(self) -> str:
        """The database's URL, still without a password."""
        return self.database_url or f"sqlite:///{self.data_dir / 'records.db'}"

    @property
    def effective_document_keys_file(self) -> Path | None:
        """The file of document keys; in dev mode the one that the stack makes."""
        return self.document_keys_file or (self.data_dir / "secrets" / "document.keys" if self.dev else None)

    def insecure_database(self) -> list[str]:
        """Why this database may not be used outside dev mode."""
        url = urlsplit(self.effective_database_url)
        if url.scheme == "sqlite" or not url.hostname or is_loopback(url.hostname) or self.isolated_network:
            return []
        if parse_qs(url.query).get("sslmode", [""])[0] in {"verify-ca", "verify-full"}:
            return []
        return [
            f"SLUICE_DATABASE_URL: the connection to {url.hostname} is not verified; add ?sslmode=verify-full"
        ]
