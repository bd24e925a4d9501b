"""Where a service lives and how strict it is: what every other topic of settings leans on."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "SLUICE_"


class Place(BaseSettings):
    """Mode, data folder and network. Paths are made absolute."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", validate_default=True, env_ignore_empty=False
    )

    dev: bool = Field(
        default=False,
        description="Dev mode: allows what is insecure (unprotected keyring, generated codec key) and says so loudly. "
        "The same as `--dev`.",
    )
    data_dir: Path = Field(
        default=Path(".sluice"),
        description="Folder of the one-machine stack: databases, object store, keyring, logs. Made with mode 0700.",
    )
    isolated_network: bool = Field(
        default=False,
        description="Allows connections without TLS to Temporal, PostgreSQL and the object store on other hosts. Only for a network "
        "that no one but these services can reach, such as one compose network.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first, then the environment; no `.env` file is read behind anyone's back."""
        return (init_settings, env_settings)

    @field_validator("*", mode="before")
    @classmethod
    def _empty(cls, value: Any, info: ValidationInfo) -> Any:
        """An empty variable of a setting that has no default is not set: what a compose file writes where nothing was given."""
        without = cls.model_fields[str(info.field_name)].default is None
        return None if without and value == "" else value

    @field_validator("*", mode="after")
    @classmethod
    def _absolute(cls, value: Any) -> Any:
        return value.expanduser().absolute() if isinstance(value, Path) else value

    def _dev_secret(self, name: str) -> Path | None:
        return self.data_dir / "secrets" / name if self.dev else None


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own, unreachable from others."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def insecure_url(name: str, value: str | None) -> list[str]:
    """Why the address that the setting `name` holds may not be used outside dev mode; empty when it may."""
    url: SplitResult = urlsplit(value or "")
    if value is None or url.scheme == "https" or is_loopback(url.hostname or ""):
        return []
    return [f"{PREFIX}{name.upper()} is {value}: use https://"]


def without_password(url: str) -> str:
    """A database's URL, as it may be a setting.

    Raises:
        ValueError: it is of no database that we use, or holds a password.
    """
    if not url:
        return url
    parts = urlsplit(url)
    if parts.scheme not in {"sqlite", "postgresql", "postgresql+psycopg"}:
        raise ValueError(f"the scheme is {parts.scheme!r}; use sqlite or postgresql")
    if parts.password is not None or "password" in parse_qs(parts.query):
        raise ValueError("holds a password; put it in a file and name that in SLUICE_DATABASE_PASSWORD_FILE")
    return url
