"""Whom single sign-on trusts: one YAML file, read at the start (`SLUICE_SIGN_IN_FILE`).

    people:
      issuer: https://sso.lab.example
      client_id: sluice
      client_secret_file: /run/secrets/oidc-client     # left out: a public client, with PKCE alone
      principal_claim: preferred_username              # its value is the principal's id, and so the person of a plan
      groups_claim: groups
      roles:
        release-managers: [release_manager]
        safety-board: [approver]
        audit: [auditor]
        platform: [operator]
      create: false                                    # whether a first sign-in makes the principal
    pipelines:
      - issuer: https://ci.example
        audience: https://sluice.lab.example
        match: {repository: lab/models, ref: refs/heads/main}
        principal: ci-models
        roles: [mlops]

Invariants: an issuer is an https address, or on loopback; a pipeline's rule matches on at least one claim, for an issuer's
tokens are everybody's who uses it; nobody becomes a partner this way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from orchestrator.domain.errors import Malformed, Reason
from orchestrator.domain.permissions import Role
from orchestrator.domain.values import Name

_MAX_BYTES = 256 * 1024


def _issuer(text: str) -> str:
    parts = urlsplit(text)
    loopback = parts.hostname in {"127.0.0.1", "localhost", "::1"}
    if not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("an issuer is an address such as https://sso.example, without a query")
    if parts.scheme != "https" and not (parts.scheme == "http" and loopback):
        raise ValueError("an issuer speaks https; http is for this machine alone")
    return text


def _no_partner(roles: list[Role]) -> list[Role]:
    if Role.PARTNER in roles:
        raise ValueError("a partner's account has an API token; it does not come through single sign-on")
    return roles


Issuer = Annotated[str, AfterValidator(_issuer)]
Roles = Annotated[list[Role], Field(min_length=1), AfterValidator(_no_partner)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PeopleProvider(_Strict):
    """Where people sign in. `longest_hours`: after so long they sign in again, whatever the provider allows."""

    issuer: Issuer
    client_id: Annotated[str, Field(min_length=1, max_length=200)]
    client_secret_file: Path | None = None
    audience: str | None = Field(
        default=None, description="of access tokens; identity tokens name the client"
    )
    principal_claim: str = "preferred_username"
    name_claim: str = "name"
    groups_claim: str = "groups"
    roles: Annotated[dict[str, Roles], Field(min_length=1)]
    scopes: list[str] = Field(default_factory=lambda: ["openid", "profile", "email"])
    create: bool = False
    longest_hours: Annotated[float, Field(gt=0, le=72)] = 10

    def roles_of(self, groups: object) -> tuple[Role, ...]:
        """The roles that these groups carry, each once; nothing for what is no list of groups."""
        names = groups if isinstance(groups, list) else [groups]
        found = {role for name in names if isinstance(name, str) for role in self.roles.get(name, ())}
        return tuple(sorted(found))


class PipelineRule(_Strict):
    """Which tokens of a CI are which machine. Every claim of `match` must be there with exactly that value."""

    issuer: Issuer
    audience: Annotated[str, Field(min_length=1)]
    match: Annotated[dict[str, str], Field(min_length=1)]
    principal: Name
    roles: Roles

    def matches(self, claims: dict[str, Any]) -> bool:
        """Whether a verified token is this machine's."""
        return all(isinstance(claims.get(k), str) and claims[k] == v for k, v in self.match.items())


class SignInSettings(_Strict):
    """The whole file."""

    people: PeopleProvider | None = None
    pipelines: list[PipelineRule] = Field(default_factory=list)


def read_sign_in(path: Path) -> SignInSettings:
    """Read the file.

    Raises:
        Malformed: it cannot be read or understood; every reason with its place.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise Malformed(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > _MAX_BYTES:
        raise Malformed(f"{path} is larger than {_MAX_BYTES} bytes")
    try:
        given = yaml.safe_load(data.decode("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise Malformed(f"{path} is no YAML: {str(error).splitlines()[0]}") from None
    try:
        return SignInSettings.model_validate(given or {})
    except ValidationError as error:
        reasons = [
            Reason(
                "sign-in",
                item["msg"].removeprefix("Value error, "),
                ".".join(str(part) for part in item["loc"]),
            )
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        told = "; ".join(f"{reason.path}: {reason.message}" for reason in reasons)
        raise Malformed(f"{path} does not say whom to trust: {told}", reasons) from None
