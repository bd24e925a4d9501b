"""One typed, frozen settings object, built only in composition roots.

Every setting is an environment variable `SLUICE_<NAME>`; `docs/settings.md` is generated from this module. The settings
themselves stand by topic in `infra/settings_parts`; here is what holds for all of them. Invariants:

- **No secret is a setting.** A setting may name the *file* that holds one (`SLUICE_…_FILE`); the file is read where it is used. The
  object can therefore be printed, logged and handed to a child process whole.
- **A variable nobody reads is an error**, with the nearest known name: a misspelt `SLUICE_API_PROT` must not fall back to a default.
- **Nothing insecure starts** unless `dev` says so; `isolated_network` is the one written-down exception, for plaintext between
  services on a network that nobody else can reach.
- **Only custody sees custody's settings** (`for_role`): the other processes refuse to start when they are handed them.

Errors:

    SettingsError
    ├── UnknownSettingError    a variable `SLUICE_…` that no setting has
    ├── InvalidSettingError    a value that is malformed, or contradicts another
    └── InsecureSettingError   a value that may be used with `--dev` only, or by another process only
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from pydantic import ValidationError, model_validator

from infra.settings_parts.api import ApiSettings
from infra.settings_parts.custody import CustodySettings, KeyProvider
from infra.settings_parts.engine import EngineSettings
from infra.settings_parts.leaks import LeakSettings
from infra.settings_parts.notices import NoticesSettings
from infra.settings_parts.objects import ObjectsSettings
from infra.settings_parts.place import PREFIX, insecure_url, is_loopback
from infra.settings_parts.processes import ProcessSettings
from infra.settings_parts.records import RecordsSettings

#: Variables that the command-line client and the partner's tools read; they are no settings of the service, and no error.
CLIENT_VARIABLES: Mapping[str, str] = {
    "SLUICE_URL": "where the API is, for `sluice …` as a client",
    "SLUICE_TOKEN": "the caller's API token, for `sluice …` as a client",
    "SLUICE_TOKEN_FILE": "the file with the caller's API token, for `sluice …` as a client",
    "SLUICE_IDENTITY_FILE": "the file with the caller's own private key, for `sluice sign`, `fetch` and `open`",
}


class SettingsError(Exception):
    """The service can't start with these settings. The text lists every reason."""


class UnknownSettingError(SettingsError):
    """A variable `SLUICE_…` that no setting has."""


class InvalidSettingError(SettingsError):
    """A value that is malformed, or contradicts another one."""


class InsecureSettingError(SettingsError):
    """A value that may be used in dev mode only, or must not be given to this process."""


class Role(StrEnum):
    """What a process of the service is; each sees only the settings that it needs."""

    API = "api"
    RELEASES = "worker-releases"
    TRANSFER = "worker-transfer"
    CUSTODY = "worker-custody"
    LEAKS = "worker-leaks"
    NOTICES = "worker-notices"
    MIGRATE = "migrate"
    PREPARE = "prepare"
    STACK = "stack"


class Settings(
    # pydantic takes fields from the last base to the first: the order of docs/settings.md
    ProcessSettings,
    LeakSettings,
    CustodySettings,
    ApiSettings,
    ObjectsSettings,
    EngineSettings,
    NoticesSettings,
    RecordsSettings,
):
    """Everything that can be set. Paths are made absolute; ports are TCP ports; `0` as a port means any free one."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.temporal_tls_cert_file is None) != (self.temporal_tls_key_file is None):
            raise ValueError("SLUICE_TEMPORAL_TLS_CERT_FILE and SLUICE_TEMPORAL_TLS_KEY_FILE go together")
        if self.key_provider is KeyProvider.OPENBAO and not self.openbao_address:
            raise ValueError("key provider openbao needs SLUICE_OPENBAO_ADDRESS")
        if self.key_provider is KeyProvider.AWS_KMS and not self.aws_kms_key_id:
            raise ValueError("key provider aws-kms needs SLUICE_AWS_KMS_KEY_ID")
        return self

    def to_environment(self, role: Role) -> dict[str, str]:
        """These settings as variables for a child process of that role; custody's go to custody alone."""
        values = self.model_dump(mode="json", include=self.model_fields_set)
        return {
            PREFIX + name.upper(): _as_variable(value)
            for name, value in values.items()
            if value is not None and role in {*holders(name), Role.STACK}
        }

    def for_role(self, role: Role) -> Self:
        """These settings, after checking that a process of this role may start with them.

        Raises:
            InsecureSettingError: with every reason, one a line.
        """
        reasons = [] if self.dev else _insecure(self, role)
        if role is not Role.STACK:
            reasons += [
                f"{PREFIX}{name.upper()} is set for {role.value}; only {keeper.value} may hold it"
                for keeper, kept in ((Role.CUSTODY, CUSTODY_ONLY), (Role.LEAKS, MONITOR_ONLY))
                for name in sorted(kept & self.model_fields_set)
                if role is not keeper and getattr(self, name) not in {None, ""}
            ]
        if reasons:
            raise InsecureSettingError("\n".join(reasons))
        return self


#: Settings that lead to the key-encryption key.
CUSTODY_ONLY = frozenset(
    {
        "aws_kms_key_id",
        "custody_database_password_file",
        "custody_database_url",
        "custody_keys_file",
        "keyring_file",
        "keyring_passphrase_file",
        "openbao_token_file",
    }
)

#: Settings that lead to the leak monitor's key.
MONITOR_ONLY = frozenset({"monitor_keys_file"})


def holders(setting: str) -> frozenset[Role]:
    """The roles that may be handed a setting."""
    if setting in CUSTODY_ONLY:
        return frozenset({Role.CUSTODY})
    if setting == "webhook_keys_file":
        return frozenset({Role.API, Role.NOTICES})
    if setting in {"mail_url_file", "mail_ca_file"}:
        return frozenset({Role.NOTICES})
    if setting == "leak_s3_profiles_file":
        return frozenset({Role.LEAKS})
    return frozenset({Role.LEAKS}) if setting in MONITOR_ONLY else frozenset(Role)


_HOLDS_CODEC_KEYS = frozenset({Role.API, Role.RELEASES, Role.TRANSFER, Role.CUSTODY, Role.LEAKS, Role.STACK})
_SPEAKS_TO_TEMPORAL = _HOLDS_CODEC_KEYS | {Role.PREPARE}
_SPEAKS_TO_DATABASE = frozenset(
    {Role.API, Role.RELEASES, Role.TRANSFER, Role.CUSTODY, Role.LEAKS, Role.NOTICES, Role.MIGRATE, Role.STACK}
)


def load_settings(**overrides: Any) -> Settings:
    """Build the settings from the environment, arguments before variables (`dev=True` for `--dev`).

    Raises:
        UnknownSettingError: a variable that no setting has, and the nearest one that exists.
        InvalidSettingError: every malformed value, one a line.
    """
    _refuse_unknown(os.environ)
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        raise InvalidSettingError("\n".join(_reason(item) for item in error.errors())) from None
    except ValueError as error:  # pydantic-settings: a list that is not JSON
        raise InvalidSettingError(f"a setting could not be read: {error}") from None


def known_variables() -> dict[str, str]:
    """Every variable that is a setting, with its description."""
    return {PREFIX + name.upper(): field.description or "" for name, field in Settings.model_fields.items()}


def read_secret(path: Path, setting: str) -> str:
    """The text of a secret file without its last line end.

    Raises:
        InvalidSettingError: the file is missing, unreadable or empty; the text never says what is in it.
    """
    try:
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise InvalidSettingError(f"{PREFIX}{setting.upper()}: {path}: {reason}") from None
    if not text:
        raise InvalidSettingError(f"{PREFIX}{setting.upper()}: {path} is empty")
    return text


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    known = known_variables()
    reasons = []
    for name in sorted(environment):
        if name.startswith(PREFIX) and name not in known and name not in CLIENT_VARIABLES:
            near = f"{name}_FILE"
            if near not in known:  # else a secret itself, where the file that holds it is asked for
                near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
            reasons.append(f"{name} is not a setting; the nearest is {near} ({known[near].split('.')[0]})")
    if reasons:
        raise UnknownSettingError("\n".join(reasons))


def _reason(item: Any) -> str:
    where = PREFIX + str(item["loc"][0]).upper() if item["loc"] else "settings"
    if item["type"] == "extra_forbidden":
        return f"{where} is not a setting"
    return f"{where}: {item['msg'].removeprefix('Value error, ')}"


def _as_variable(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(f'"{item}"' for item in value) + "]"
    return str(value)


def _insecure(settings: Settings, role: Role) -> list[str]:
    """Every reason why this role may not start outside dev mode."""
    reasons = []
    if role in _HOLDS_CODEC_KEYS and settings.codec_keys_file is None:
        reasons.append("SLUICE_CODEC_KEYS_FILE is not set: payloads in Temporal would be in clear")
    if role in _SPEAKS_TO_TEMPORAL:
        host = settings.temporal_address.rpartition(":")[0]
        if not settings.temporal_uses_tls and not is_loopback(host) and not settings.isolated_network:
            reasons.append(
                f"SLUICE_TEMPORAL_ADDRESS is {settings.temporal_address}, without TLS: set SLUICE_TEMPORAL_TLS or "
                "SLUICE_TEMPORAL_TLS_CA_FILE"
            )
    if role in _SPEAKS_TO_DATABASE:
        reasons += settings.insecure_database()
    if role in {Role.API, Role.STACK}:
        if settings.document_keys_file is None:
            reasons.append(
                "SLUICE_DOCUMENT_KEYS_FILE is not set: evidence texts in the database would be in clear"
            )
        reasons += settings.insecure_api()
    if role in {Role.CUSTODY, Role.STACK}:
        reasons += settings.insecure_custody()
    if not settings.isolated_network:
        reasons += insecure_url("otlp_endpoint", settings.otlp_endpoint)
    if role is Role.NOTICES and bool(settings.mail_from) != (settings.mail_url_file is not None):
        reasons.append("SLUICE_MAIL_FROM and SLUICE_MAIL_URL_FILE go together in worker-notices")
    if role is Role.NOTICES and settings.webhook_keys_file is None:
        reasons.append("SLUICE_WEBHOOK_KEYS_FILE is not set: webhooks' secrets could not be opened")
    if role in {Role.API, Role.LEAKS, Role.STACK} and settings.verdict_keys_file is None:
        reasons.append(
            "SLUICE_VERDICT_KEYS_FILE is not set: verdicts in the database would name our tensors in clear"
        )
    if (
        role in {Role.TRANSFER, Role.CUSTODY, Role.LEAKS, Role.STACK, Role.API}
        and not settings.isolated_network
    ):
        for name in ("s3_endpoint_url", "hub_endpoint_url"):
            reasons += insecure_url(name, getattr(settings, name))
    return reasons
