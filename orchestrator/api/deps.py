"""The parts that the API is made of, handed in by the composition root, and how routes get at them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Protocol, cast

from fastapi import Depends, Request
from sqlalchemy import Engine

from orchestrator.api.commands import CommandGateway
from orchestrator.domain.commands import KeyShares
from orchestrator.domain.permissions import Role
from orchestrator.records.documents import Cipher

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a bearer token says is asking.

    Attributes:
        name: the principal's name; a plan's people are known by it.
        kind: person, machine or partner.
        roles: what the principal is to the service.
        partner: of a partner's principal, the partner that it belongs to.
    """

    name: str
    kind: str
    roles: tuple[Role, ...]
    partner: str | None = None


@dataclass(frozen=True, slots=True)
class ManifestFacts:
    """What the API needs to know of a signed manifest. `size`: plaintext bytes of all files; `digest`: `sha256:…`.

    `shares`: that people's key shares lock it too.
    """

    artifact: str
    digest: str
    components: tuple[str, ...]
    files: int
    size: int
    shares: KeyShares | None = None


class Links(Protocol):
    """Makes short-lived URLs of sealed files, in the store that this deployment publishes to and in no other."""

    def serves(self, location: str) -> bool:
        """Whether links can be made for an artifact that was registered as lying there."""
        ...

    def make(
        self, manifest: bytes, digest: str, components: frozenset[str], paths: Sequence[str], seconds: int
    ) -> Mapping[str, str]:
        """Path → URL, each good for `seconds`, for files of these components of that manifest.

        Raises:
            NotFound: a path that no file of these components has; none is made then.
            Unavailable: links cannot be signed now.
        """
        ...


class Formats(Protocol):
    """Reads the formats of sealed artifacts, which the API itself knows nothing about."""

    def read_manifest(self, data: bytes, *, digest: str) -> ManifestFacts:
        """Hold a signed manifest to every rule of its format; raises `Malformed` with the reason."""
        ...

    def read_signature(self, data: bytes, *, artifact: str, digest: str) -> str:
        """The key id of a sealed weight signature; raises `Malformed` unless it is one of this artifact and manifest."""
        ...

    def check_recipient(self, text: str) -> None:
        """Raise `Malformed` unless this is an age recipient that envelopes can be made for."""
        ...


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """What can be set about the API. Sizes in bytes, times in seconds.

    Attributes:
        rate_limit: requests of one principal, such as `12000/minute`; None: no limit.
        rate_limit_strangers: requests with unknown tokens from one address.
        rate_limit_links: requests for links by one principal.
        mail: whether notices can go by mail.
        webhook_http: whether webhooks may be plain http (then only to addresses that the operator allows, or public ones).
        link_seconds: how long a link to a sealed file is good.
        report_rate: leak reports without an account from one address.
        report_rate_all: leak reports without an account from all addresses together.
        invitation_rate: requests on invitations, which take no account, from one address.
    """

    public_url: str = "http://127.0.0.1:8420"
    max_body: int = 2 * MIB
    max_manifest_body: int = 32 * MIB
    stream_poll: float = 0.5
    stream_heartbeat: float = 15.0
    rate_limit: str | None = "12000/minute"
    rate_limit_strangers: str | None = "300/minute"
    rate_limit_links: str | None = "120/minute"
    link_seconds: int = 900
    webhook_http: bool = False
    mail: bool = False
    report_rate: str | None = "6/hour"
    report_rate_all: str | None = "200/hour"
    invitation_rate: str | None = "60/hour"


@dataclass(frozen=True, slots=True)
class Deps:
    """The parts of the API.

    Attributes:
        engine: of the records (`orchestrator.records.database.connect`).
        gateway: where commands go.
        clock: the time now (aware).
        documents: seals evidence texts at rest.
        formats: reads manifests and recipients.
        identify: a second way to know a bearer token, tried when it is no API token of ours (single sign-on).
        sign_in: single sign-on in a browser (`sign_in.browser.SingleSignOn`); None: there is none.
        observe: told of every answered request: method, route template, status, seconds.
        links: makes links to sealed files; None: partners read them from where they lie.
        log_keys: public keys of the audit log (C2SP note verifiers), for those who verify it.
        webhook_secrets: seals secrets of webhooks and addresses of notices; None: none can be added.
        apprise_fault: why an address of `apprise` cannot be used, or None; it asks nobody. None: there is no `apprise` here.
        verdicts: opens leak verdicts; None: they are not shown.
        monitor_key: the leak monitor's public string and the key of its verdicts; None while there is no monitor.
        allowed_address: whether a report may name an address that is not public: what the operator allows scans to ask.
        outside_monitors: name → secret that an outside leak monitor signs its findings with (Standard Webhooks).
    """

    engine: Engine
    gateway: CommandGateway
    documents: Cipher
    formats: Formats
    settings: ApiSettings = field(default_factory=ApiSettings)
    clock: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    identify: Callable[[str], Identity | None] | None = None
    sign_in: object | None = None
    links: Links | None = None
    log_keys: tuple[str, ...] = ()
    observe: Callable[[str, str, int, float], None] | None = None
    verdicts: Cipher | None = None
    webhook_secrets: Cipher | None = None
    apprise_fault: Callable[[str], str | None] | None = None
    monitor_key: Callable[[], tuple[str, str] | None] = field(default=lambda: None)
    outside_monitors: Mapping[str, str] = field(default_factory=dict, repr=False)
    allowed_address: Callable[[str, int], bool] = field(default=lambda _host, _port: False)

    def now(self) -> datetime:
        """The time now, in UTC."""
        return self.clock().astimezone(UTC)


def deps_of(request: Request) -> Deps:
    """The parts that the application was made with."""
    return cast("Deps", request.app.state.deps)


Parts = Annotated[Deps, Depends(deps_of)]
