"""OpenBao for custody: initialised once, with a transit engine, one derived key, a policy for that key alone, and custody's token.

The server unseals itself (`seal "static"` or a cloud's key service in its own configuration). What only its owners need, the root
token and the recovery key, is written once to a file that belongs in a safe.
"""

from __future__ import annotations

import json
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from infra.provision import write_private

POLICY = "sluice-custody"
_TOKEN_TTL = "8760h"  # noqa: S105 - a duration


class OpenBaoError(Exception):
    """OpenBao is not there, or refuses."""


@dataclass
class OpenBaoAdmin:
    """Speaks to one server as its owner."""

    address: str
    ca_file: Path | None = None
    token: str = ""

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """One request.

        Raises:
            OpenBaoError: it does not answer, or refuses; the text holds no token.
        """
        verify: Any = ssl.create_default_context(cafile=str(self.ca_file)) if self.ca_file else True
        try:
            answer = httpx.request(
                method,
                f"{self.address.rstrip('/')}/v1/{path}",
                headers={"X-Vault-Token": self.token} if self.token else {},
                json=body,
                timeout=30,
                verify=verify,
                trust_env=False,
            )
        except httpx.HTTPError as error:
            raise OpenBaoError(f"OpenBao at {self.address} does not answer: {type(error).__name__}") from None
        if answer.status_code >= httpx.codes.MULTIPLE_CHOICES and path != "sys/health":
            raise OpenBaoError(f"OpenBao refuses {method} {path}: {answer.status_code} {answer.text[:300]}")
        found: dict[str, Any] = answer.json() if answer.content else {}
        return found


def prepare_openbao(
    address: str,
    *,
    owner_file: Path,
    token_file: Path,
    ca_file: Path | None = None,
    mount: str = "transit",
    key: str = "sluice",
    patience_s: float = 30.0,
) -> list[str]:
    """Make what is missing; what was made.

    Args:
        address: of the server.
        owner_file: where the root token and the recovery key are written when it is initialised here, and read again later.
        token_file: where custody's token is written.
        ca_file: the authority of its certificate.
        mount: where the transit engine is mounted.
        key: the key-encryption key.
        patience_s: how long the server may take to unseal itself.

    Raises:
        OpenBaoError: it does not answer, stays sealed, or was initialised elsewhere and `owner_file` is not here.
    """
    admin, made = OpenBaoAdmin(address, ca_file), list[str]()
    if not admin.call("GET", "sys/init")["initialized"]:
        owner = admin.call("PUT", "sys/init", {"recovery_shares": 1, "recovery_threshold": 1})
        write_private(owner_file, json.dumps(owner, indent=1).encode() + b"\n")
        made.append("initialised")
    _until_unsealed(admin, patience_s)
    if token_file.exists() and _lives(admin, token_file):
        return made
    if not owner_file.exists():
        raise OpenBaoError(
            f"OpenBao at {address} was initialised elsewhere, and {owner_file} with its root token is not here; make the key, "
            "the policy and custody's token by hand (docs/key-providers.md)"
        )
    admin.token = json.loads(owner_file.read_text(encoding="utf-8"))["root_token"]
    if f"{mount}/" not in admin.call("GET", "sys/mounts"):
        admin.call("POST", f"sys/mounts/{mount}", {"type": "transit"})
        made.append(f"mount {mount}")
    try:
        admin.call("GET", f"{mount}/keys/{key}")
    except OpenBaoError:
        admin.call("POST", f"{mount}/keys/{key}", {"type": "aes256-gcm96", "derived": True})
        made.append(f"key {key}")
    admin.call("PUT", f"sys/policies/acl/{POLICY}", {"policy": _policy(mount, key)})
    admin.call("POST", "sys/mounts/auth/token/tune", {"max_lease_ttl": _TOKEN_TTL})
    asked = {
        "policies": [POLICY],
        "ttl": _TOKEN_TTL,
        "display_name": "sluice-custody",
        "no_parent": True,
        "no_default_policy": False,
    }
    issued = admin.call("POST", "auth/token/create", asked)
    token_file.unlink(missing_ok=True)
    write_private(token_file, issued["auth"]["client_token"].encode() + b"\n")
    made.append("custody's token")
    return made


def _until_unsealed(admin: OpenBaoAdmin, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while True:
        health = admin.call("GET", "sys/health")
        if not health.get("sealed", True) and not health.get("standby", True):
            return
        if time.monotonic() > deadline:
            raise OpenBaoError(f"OpenBao at {admin.address} stays sealed; see its log")
        time.sleep(0.1)


def _lives(admin: OpenBaoAdmin, token_file: Path) -> bool:
    own = OpenBaoAdmin(admin.address, admin.ca_file, token_file.read_text(encoding="utf-8").strip())
    try:
        own.call("GET", "auth/token/lookup-self")
    except OpenBaoError:
        return False
    return True


def _policy(mount: str, key: str) -> str:
    paths = {f"{mount}/{verb}/{key}": "update" for verb in ("encrypt", "decrypt", "rewrap")}
    paths[f"{mount}/keys/{key}"] = "read"
    return "\n".join(f'path "{path}" {{ capabilities = ["{right}"] }}' for path, right in paths.items())
