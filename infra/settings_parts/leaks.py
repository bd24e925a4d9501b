"""Leak monitoring: the monitor's keys, its sources and scans, and reports from outside."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from infra.settings_parts.place import Place


class LeakSettings(Place):
    """Leak monitoring."""

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
    leak_trace_bytes: int = Field(
        default=64 << 20,
        ge=1 << 20,
        le=1 << 30,
        description="The most bytes that are read of a recognised suspect to find out whose marked copy it is. Custody gets them, sealed to it.",
    )
    leak_trace_seconds: float = Field(
        default=600.0, gt=0, le=3600, description="The longest that this reading takes, in seconds."
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
