"""The API: where it listens, who may reach it, how people sign in."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from infra.settings_parts.place import Place, is_loopback


class ApiSettings(Place):
    """The API."""

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

    @field_validator("api_trusted_proxies")
    @classmethod
    def _networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for network in value:
            if ipaddress.ip_network(network, strict=False).prefixlen == 0:
                raise ValueError(f"{network} trusts the whole internet as a proxy")
        return value

    @property
    def effective_public_url(self) -> str:
        """The API's address as callers see it, without a trailing slash."""
        return (self.api_public_url or f"http://{self.api_host}:{self.api_port}").rstrip("/")

    @property
    def effective_operator_token_file(self) -> Path | None:
        """Where the first operator's token goes."""
        return self.operator_token_file or self._dev_secret("operator.token")

    def insecure_api(self) -> list[str]:
        """Why the API may not start outside dev mode."""
        if is_loopback(self.api_host):
            return []
        reasons = []
        if not self.api_trusted_proxies:
            reasons.append(
                f"SLUICE_API_HOST is {self.api_host}: without TLS proxies in SLUICE_API_TRUSTED_PROXIES tokens would travel in clear"
            )
        if urlsplit(self.api_public_url).scheme != "https":
            reasons.append(
                f"SLUICE_API_HOST is {self.api_host}: SLUICE_API_PUBLIC_URL must be an https:// address"
            )
        return reasons
