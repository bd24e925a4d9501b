"""What leaves the service for people and their programs: webhooks and notices."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from pydantic import Field, field_validator

from infra.settings_parts.place import Place, is_loopback


class NoticesSettings(Place):
    """Webhooks and notices."""

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

    @property
    def effective_webhook_keys_file(self) -> Path | None:
        """The file of the keys for webhooks' secrets; in dev mode the one that the stack makes."""
        return self.webhook_keys_file or self._dev_secret("webhook.keys")

    def mail_may_be_clear(self, host: str) -> bool:
        """Whether mail may be handed in at a host without TLS."""
        return self.dev or self.isolated_network or is_loopback(host)
