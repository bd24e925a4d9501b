"""One typed, frozen settings object, built only in composition roots.

Every setting is an environment variable `SLUICE_<NAME>`; `docs/settings.md` is generated from this module. Invariants:

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
import ipaddress
import os
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import SplitResult, parse_qs, urlsplit

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

PREFIX = "SLUICE_"

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


class KeyProvider(StrEnum):
    """Where the key-encryption key lives."""

    LOCAL = "local"
    OPENBAO = "openbao"
    AWS_KMS = "aws-kms"


class Settings(BaseSettings):
    """Everything that can be set. Paths are made absolute; ports are TCP ports; `0` as a port means any free one."""

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

    # --- records
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

    webhook_keys_file: Path | None = Field(
        default=None,
        description="File with the keys that encrypt webhooks' secrets and the addresses of notices in the database, in the form of the "
        "codec keys. The API and worker-notices need it; without it no webhook and no channel can be added. Dev mode makes one in the "
        "data folder.",
    )
    webhook_allow: tuple[str, ...] = Field(
        default=(),
        description="Addresses beside public ones that webhooks and notices by `apprise` may go to, as a JSON list of networks "
        "(`10.1.0.0/16`), addresses, or `address:port`. With any of them, webhooks may be plain `http://`.",
    )
    webhook_poll_seconds: float = Field(
        default=1.0, gt=0, le=60, description="How often worker-notices looks for new events, in seconds."
    )

    mail_from: str = Field(
        default="",
        pattern=r"^$|^([^<>\x00-\x1f]{1,100} <)?[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9.-]{1,255}>?$",
        description="Address that notices come from, such as `Sluice <sluice@example.org>`. Empty: notices are not sent by mail. The API "
        "and worker-notices need it.",
    )
    mail_url_file: Path | None = Field(
        default=None,
        description="File with the address of the mail server: `smtps://user:[password]@host`, `smtp+starttls://user:[password]@host`, or "
        "`smtp://127.0.0.1`. A secret of worker-notices alone.",
    )
    mail_ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authority that signed the mail server's certificate. Unset: the system's.",
    )
    notice_gather_seconds: float = Field(
        default=600,
        ge=0,
        le=86_400,
        description="For how long notices that are not urgent wait for others to share a message with, in seconds.",
    )

    # --- the durable engine
    temporal_address: str = Field(default="127.0.0.1:7233", description="`host:port` of the Temporal server.")
    temporal_namespace: str = Field(default="sluice", min_length=2, description="Temporal namespace.")
    temporal_tls: bool = Field(
        default=False, description="Speak TLS to Temporal, with the system's trusted roots."
    )
    temporal_tls_ca_file: Path | None = Field(
        default=None,
        description="PEM file of the authority that signed Temporal's certificate. Turns TLS on.",
    )
    temporal_tls_cert_file: Path | None = Field(
        default=None, description="PEM file of the client certificate. Turns TLS on."
    )
    temporal_tls_key_file: Path | None = Field(
        default=None, description="PEM file of the client certificate's key."
    )
    temporal_api_key_file: Path | None = Field(
        default=None, description="File with the API key for Temporal Cloud. Turns TLS on."
    )
    temporal_retention_days: int = Field(
        default=30,
        ge=1,
        le=3650,
        description="Days that Temporal keeps the history of a release that ended. Set when the one-machine stack makes the namespace.",
    )
    temporal_ui: bool = Field(
        default=True, description="Whether the one-machine stack serves Temporal's own pages."
    )
    temporal_ui_port: int = Field(
        default=8233, ge=0, le=65535, description="Port of Temporal's own pages in the one-machine stack."
    )
    codec_keys_file: Path | None = Field(
        default=None,
        description="File with the keys that encrypt every payload in Temporal, one `id:base64` a line; the first encrypts, all "
        "decrypt. Dev mode makes one in the data folder.",
    )

    # --- objects
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

    # --- the API
    api_host: str = Field(default="127.0.0.1", description="Address that the API listens on.")
    api_port: int = Field(default=8420, ge=0, le=65535, description="Port that the API listens on.")
    api_public_url: str = Field(
        default="", description="The API's address as callers see it. Empty: made from host and port."
    )
    api_trusted_proxies: tuple[str, ...] = Field(
        default=(),
        description="Networks (CIDR, as a JSON list) of the proxies that end TLS and whose `X-Forwarded-For` is believed. Needed to "
        "listen on more than loopback.",
    )
    link_seconds: int = Field(
        default=900,
        ge=30,
        le=43200,
        description="How long a link to a sealed file in S3 is good, in seconds. The API process signs links with S3 credentials of "
        "its own, which need `s3:GetObject` on `artifacts/*` of the store and nothing else.",
    )

    sign_in_file: Path | None = Field(
        default=None,
        description="YAML file that says whom single sign-on trusts: the identity provider of people, the CI of pipelines (`docs/sign-in.md`). "
        "Unset: API tokens alone.",
    )
    operator_token_file: Path | None = Field(
        default=None,
        description="Where `migrate` writes the first operator's API token (0600) when there is no principal yet. Unset: none is made. "
        "Dev mode uses `secrets/operator.token` in the data folder.",
    )

    # --- custody
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

    # --- leak monitoring
    monitor_public_file: Path | None = Field(
        default=None,
        description="JSON file with the leak monitor's public half, written when the leak worker starts: who weight signatures are sealed to "
        "while artifacts are sealed, and the key that verdicts are verified with. Unset: `public/monitor-public.json` in the data folder.",
    )
    monitor_keys_file: Path | None = Field(
        default=None,
        description="File with the leak monitor's own keys, made on the first start. They open weight signatures and nothing else. Unset: "
        "`monitor/keys.json` in the data folder.",
    )
    verdict_keys_file: Path | None = Field(
        default=None,
        description="File with the keys that encrypt verdicts in the database, in the form of the codec keys. The API and the leak worker "
        "need it. Dev mode makes one in the data folder.",
    )
    leak_s3_profiles_file: Path | None = Field(
        default=None,
        description="File with the credentials that leak scans and sources read buckets with, by bucket (`profiles:` in docs/leaks.md). A secret "
        "of the leak worker alone. A bucket that it does not name is asked without credentials, never with the store's own.",
    )
    leak_sources_file: Path | None = Field(
        default=None,
        description="YAML file with the leak sources, `sources: [{kind: hub, name: hub, …}, …]`; see `docs/leaks.md`. The sources `reports` and "
        "`outside-monitors`, which read what is handed in, are always there. Unset: no others.",
    )
    leak_allow_addresses: tuple[str, ...] = Field(
        default=(),
        description="Addresses inside the operator's network that sources and scans may ask, as a JSON list of networks, addresses or "
        "`address:port`. Everything that is not public is refused otherwise.",
    )
    leak_reference_dir: Path | None = Field(
        default=None,
        description="Folder with artifacts' plaintext, one folder per artifact id, for whole-file checks by the leak worker. Unset: they are done "
        "with `sluice leak compare`, in the place that holds the weights.",
    )
    leak_sweep_seconds: float = Field(
        default=120.0,
        ge=1,
        le=86_400,
        description="How often a release is swept while anything of it is withheld, in seconds. A sweep that still runs is not doubled.",
    )
    leak_poll_seconds: float = Field(
        default=60.0, ge=0, le=86_400, description="Least time between two polls of one source, in seconds."
    )
    leak_lookback_hours: float = Field(
        default=168.0,
        ge=0,
        description="How far back suspects are judged for a newly registered artifact, in hours before its registration.",
    )
    leak_scan_bytes: int = Field(
        default=8 << 20, ge=1 << 16, description="The most bytes that one scan of a suspect reads."
    )
    leak_scan_seconds: float = Field(
        default=60.0, gt=0, le=3600, description="The longest that one scan of a suspect takes, in seconds."
    )
    report_rate: str = Field(
        default="6/hour",
        description="How many leak reports one address may hand in without an account, such as `6/hour`.",
    )
    report_rate_all: str = Field(
        default="200/hour",
        description="How many leak reports all addresses together may hand in without an account.",
    )
    invitation_rate: str = Field(
        default="60/hour",
        description="How many requests on invitations of outside reviewers, who have no account, one address may make.",
    )
    outside_monitors_file: Path | None = Field(
        default=None,
        description="File with the signing secrets of outside leak monitors, one `name=whsec_…` a line (Standard Webhooks). Only the API needs "
        "it. Unset: no outside monitor is listened to.",
    )

    # --- workers
    releases_workflow_tasks: int = Field(
        default=16,
        ge=2,
        le=2000,
        description="Workflow tasks that a release worker runs at once. They share one core, and the server gives each ten seconds: so many "
        "that a busy core cannot end them in time are begun again and again, and nothing gets done. What waits, waits better in the queue.",
    )
    releases_activities: int = Field(
        default=32,
        ge=1,
        le=1000,
        description="Activities that a release worker runs at once, each in a thread.",
    )
    releases_cached_workflows: int = Field(
        default=1000, ge=0, le=100_000, description="Open releases that a release worker keeps in memory."
    )
    transfer_activities: int = Field(
        default=4, ge=1, le=100, description="Files that a transfer worker seals or moves at once."
    )
    custody_activities: int = Field(
        default=8, ge=1, le=100, description="Requests that a custody worker answers at once."
    )
    leaks_activities: int = Field(
        default=8, ge=2, le=200, description="Polls and scans that a leak worker runs at once."
    )
    copies_activities: int = Field(
        default=2,
        ge=1,
        le=100,
        description="Copies that a custody worker makes at once: partners' marked copies, and what is sealed anew under fresh keys.",
    )
    shutdown_seconds: float = Field(
        default=10.0,
        ge=0,
        le=3600,
        description="Seconds that a process may finish its work in after SIGTERM.",
    )
    deployment: str = Field(
        default="sluice", min_length=1, description="Deployment name for Temporal's worker versioning."
    )
    build_id: str | None = Field(
        default=None,
        description="Build of the release worker: an open release stays on its build until it wakes while another build is the current "
        "one, so the old worker is kept until then. Unset: a digest over workflow, domain and contract code. The one-machine stack, which keeps no old worker, "
        "uses `one-machine` throughout.",
    )
    health_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="Port on which a process answers `/healthz`, `/readyz` and `/metrics`. Unset: it answers nowhere (the API has the "
        "first two on its own port as well).",
    )
    health_host: str = Field(
        default="127.0.0.1",
        description="Address on which a process answers its health requests and shows its metrics.",
    )

    temporal_metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description="Port on which a process shows the Temporal SDK's own metrics, beside its health answers. Unset: they are not made.",
    )
    otlp_endpoint: str | None = Field(
        default=None,
        description="Where traces go, OTLP over HTTP, such as `http://127.0.0.1:4318/v1/traces`. Unset: nothing is traced.",
    )
    trace_share: float = Field(
        default=1.0, ge=0, le=1, description="Share of requests that are traced, from their first span on."
    )

    # --- logs
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least level that is logged."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        default="auto",
        description="`json`, `console`, or `auto`: console in dev mode on a terminal, else JSON lines.",
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

    @field_validator("temporal_address")
    @classmethod
    def _host_and_port(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or not 0 <= int(port) <= 65535:
            raise ValueError(f"{value!r} is not host:port")
        return value

    @field_validator("database_url", "custody_database_url")
    @classmethod
    def _database(cls, value: str) -> str:
        if not value:
            return value
        url = urlsplit(value)
        if url.scheme not in {"sqlite", "postgresql", "postgresql+psycopg"}:
            raise ValueError(f"the scheme is {url.scheme!r}; use sqlite or postgresql")
        if url.password is not None or "password" in parse_qs(url.query):
            raise ValueError(
                "holds a password; put it in a file and name that in SLUICE_DATABASE_PASSWORD_FILE"
            )
        return value

    @field_validator("store_uri")
    @classmethod
    def _store(cls, value: str) -> str:
        if value and value.partition(":")[0] not in {"dir", "s3", "hf"}:
            raise ValueError(f"{value!r} is none of dir:/path, s3://bucket/prefix, hf:owner/name")
        return value

    @field_validator("webhook_allow")
    @classmethod
    def _allowed(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for rule in value:
            host, _, port = rule.rpartition(":")
            text = host.strip("[]") if port.isdigit() and (rule.startswith("[") or ":" not in host) else rule
            try:
                ipaddress.ip_network((text or rule).strip("[]"), strict=False)
            except ValueError:
                raise ValueError(f"{rule} is no network, address, or address:port") from None
        return value

    @field_validator("api_trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            if ipaddress.ip_network(network, strict=False).prefixlen == 0:
                raise ValueError(f"{network} trusts the whole internet as a proxy")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.temporal_tls_cert_file is None) != (self.temporal_tls_key_file is None):
            raise ValueError("SLUICE_TEMPORAL_TLS_CERT_FILE and SLUICE_TEMPORAL_TLS_KEY_FILE go together")
        if self.key_provider is KeyProvider.OPENBAO and not self.openbao_address:
            raise ValueError("key provider openbao needs SLUICE_OPENBAO_ADDRESS")
        if self.key_provider is KeyProvider.AWS_KMS and not self.aws_kms_key_id:
            raise ValueError("key provider aws-kms needs SLUICE_AWS_KMS_KEY_ID")
        return self

    # --- what follows from the settings

    @property
    def temporal_uses_tls(self) -> bool:
        """Whether the connection to Temporal is encrypted."""
        return self.temporal_tls or any(
            (self.temporal_tls_ca_file, self.temporal_tls_cert_file, self.temporal_api_key_file)
        )

    @property
    def effective_database_url(self) -> str:
        """The database's URL, still without a password."""
        return self.database_url or f"sqlite:///{self.data_dir / 'records.db'}"

    @property
    def effective_store_uri(self) -> str:
        """The object store's URI."""
        return self.store_uri or f"dir:{self.data_dir / 'store'}"

    @property
    def effective_public_url(self) -> str:
        """The API's address as callers see it, without a trailing slash."""
        return (self.api_public_url or f"http://{self.api_host}:{self.api_port}").rstrip("/")

    @property
    def effective_codec_keys_file(self) -> Path | None:
        """The file of codec keys; in dev mode the one that the stack makes."""
        return self.codec_keys_file or (self.data_dir / "secrets" / "codec.keys" if self.dev else None)

    @property
    def effective_document_keys_file(self) -> Path | None:
        """The file of document keys; in dev mode the one that the stack makes."""
        return self.document_keys_file or (self.data_dir / "secrets" / "document.keys" if self.dev else None)

    @property
    def effective_webhook_keys_file(self) -> Path | None:
        """The file of the keys for webhooks' secrets; in dev mode the one that the stack makes."""
        return self.webhook_keys_file or self._dev_secret("webhook.keys")

    @property
    def effective_keyring_file(self) -> Path:
        """The local keyring's file."""
        return self.keyring_file or self.data_dir / "custody" / "keyring"

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

    @property
    def effective_operator_token_file(self) -> Path | None:
        """Where the first operator's token goes."""
        return self.operator_token_file or self._dev_secret("operator.token")

    def _dev_secret(self, name: str) -> Path | None:
        return self.data_dir / "secrets" / name if self.dev else None

    @property
    def effective_custody_public_file(self) -> Path:
        """Custody's public half."""
        return self.custody_public_file or self.data_dir / "public" / "custody-public.json"

    @property
    def effective_monitor_public_file(self) -> Path:
        """The leak monitor's public half."""
        return self.monitor_public_file or self.data_dir / "public" / "monitor-public.json"

    @property
    def effective_monitor_keys_file(self) -> Path:
        """The leak monitor's own keys."""
        return self.monitor_keys_file or self.data_dir / "monitor" / "keys.json"

    @property
    def effective_verdict_keys_file(self) -> Path | None:
        """The file of verdict keys; in dev mode the one that the stack makes."""
        return self.verdict_keys_file or self._dev_secret("verdict.keys")

    @property
    def effective_custody_keys_file(self) -> Path:
        """Custody's own keys."""
        return self.custody_keys_file or self.data_dir / "custody" / "keys.json"

    @property
    def effective_copies_state_dir(self) -> Path:
        """Where copies in the making keep their tickets."""
        return self.copies_state_dir or self.data_dir / "custody" / "copies"

    @property
    def effective_custody_database_url(self) -> str:
        """Custody's own database."""
        return self.custody_database_url or f"sqlite:///{self.data_dir / 'custody' / 'memory.db'}"

    def mail_may_be_clear(self, host: str) -> bool:
        """Whether mail may be handed in at a host without TLS."""
        return self.dev or self.isolated_network or is_loopback(host)

    @property
    def shutdown_timeout(self) -> timedelta:
        """How long a process may finish its work after SIGTERM."""
        return timedelta(seconds=self.shutdown_seconds)

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


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's own, unreachable from others."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


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
        reasons += _insecure_database(settings)
    if role in {Role.API, Role.STACK}:
        reasons += _insecure_api(settings)
    if role in {Role.CUSTODY, Role.STACK}:
        reasons += _insecure_custody(settings)
    if not settings.isolated_network:
        reasons += _insecure_url("otlp_endpoint", settings.otlp_endpoint)
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
            reasons += _insecure_url(name, getattr(settings, name))
    return reasons


def _insecure_database(settings: Settings) -> list[str]:
    url = urlsplit(settings.effective_database_url)
    if url.scheme == "sqlite" or not url.hostname or is_loopback(url.hostname) or settings.isolated_network:
        return []
    if parse_qs(url.query).get("sslmode", [""])[0] in {"verify-ca", "verify-full"}:
        return []
    return [
        f"SLUICE_DATABASE_URL: the connection to {url.hostname} is not verified; add ?sslmode=verify-full"
    ]


def _insecure_api(settings: Settings) -> list[str]:
    reasons = []
    if settings.document_keys_file is None:
        reasons.append(
            "SLUICE_DOCUMENT_KEYS_FILE is not set: evidence texts in the database would be in clear"
        )
    if is_loopback(settings.api_host):
        return reasons
    if not settings.api_trusted_proxies:
        reasons.append(
            f"SLUICE_API_HOST is {settings.api_host}: without TLS proxies in SLUICE_API_TRUSTED_PROXIES tokens would travel in clear"
        )
    if urlsplit(settings.api_public_url).scheme != "https":
        reasons.append(
            f"SLUICE_API_HOST is {settings.api_host}: SLUICE_API_PUBLIC_URL must be an https:// address"
        )
    return reasons


def _insecure_custody(settings: Settings) -> list[str]:
    match settings.key_provider:
        case KeyProvider.LOCAL if settings.keyring_passphrase_file is None:
            return [
                "the local keyring is unprotected: set SLUICE_KEYRING_PASSPHRASE_FILE, or use openbao or aws-kms"
            ]
        case KeyProvider.OPENBAO if settings.openbao_token_file is None:
            return ["key provider openbao needs SLUICE_OPENBAO_TOKEN_FILE"]
        case KeyProvider.OPENBAO:
            return _insecure_url("openbao_address", settings.openbao_address)
        case KeyProvider.AWS_KMS:
            return _insecure_url("aws_kms_endpoint_url", settings.aws_kms_endpoint_url)
        case _:
            return []


def _insecure_url(name: str, value: str | None) -> list[str]:
    url: SplitResult = urlsplit(value or "")
    if value is None or url.scheme == "https" or is_loopback(url.hostname or ""):
        return []
    return [f"{PREFIX}{name.upper()} is {value}: use https://"]
