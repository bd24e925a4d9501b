"""Where the service is and who asks: environment first, then `~/.config/sluice/config.toml`.

    SLUICE_URL              the API's address; http://127.0.0.1:8420 when nothing says otherwise
    SLUICE_TOKEN            the API token
    SLUICE_TOKEN_FILE       the file that holds it; without either, who signed in with `sluice login`
    SLUICE_IDENTITY_FILE    the caller's own private key (to sign, to open)

    # config.toml
    url = "https://sluice.example.org"
    token_file = "~/.config/sluice/token"
    identity_file = "~/.ssh/id_ed25519"

Invariants: a token is never printed; a file with a secret that others can read is refused; a token does not travel
over plain http to another machine.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator.cli.failures import LocalFailure

DEFAULT_URL = "http://127.0.0.1:8420"
#: Custody's public file, as the stack writes it and a lab hands it out: `recipient`, `envelope_key`, `log_key`.
PUBLIC_FILE = "custody-public.json"

_KNOWN = {"url", "token_file", "identity_file", "custody_key_file"}


@dataclass(frozen=True, slots=True)
class Config:
    """What the command line knows. `token` shows itself nowhere."""

    url: str
    token: str | None
    identity_file: Path | None = None

    def __repr__(self) -> str:
        return f"Config(url={self.url!r}, token={'<set>' if self.token else None}, identity_file={self.identity_file})"


def config_folder() -> Path:
    """The folder of the command's own files (`$XDG_CONFIG_HOME/sluice`)."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return (Path(home) if home else Path.home() / ".config") / "sluice"


def state_folder() -> Path:
    """The folder of what is to be gone on with (`$XDG_STATE_HOME/sluice`): resume tickets of sealings."""
    home = os.environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "sluice"


def load_config() -> Config:
    """Read environment and file.

    Raises:
        LocalFailure: the file is not TOML, has an unknown entry, or a secret lies open.
    """
    file = config_folder() / "config.toml"
    given: dict[str, object] = {}
    if file.is_file():
        try:
            given = tomllib.loads(file.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise LocalFailure("The configuration cannot be read", f"{file}: {error}") from None
        unknown = sorted(set(given) - _KNOWN)
        if unknown:
            told = f"{file}: unknown: {', '.join(unknown)}; known: {', '.join(sorted(_KNOWN))}"
            raise LocalFailure("The configuration cannot be read", told)
    token_file = os.environ.get("SLUICE_TOKEN_FILE") or given.get("token_file")
    token = os.environ.get("SLUICE_TOKEN")
    if token is None and token_file:
        token = read_secret(Path(str(token_file)).expanduser()).decode("utf-8", "replace")
    url = str(os.environ.get("SLUICE_URL") or given.get("url") or DEFAULT_URL).rstrip("/")
    if token is None:
        token = _signed_in(url)
    identity = os.environ.get("SLUICE_IDENTITY_FILE") or given.get("identity_file")
    return Config(
        url=checked_url(url, with_token=bool(token)),
        token=None if token is None else checked_token(token),
        identity_file=Path(str(identity)).expanduser() if identity else None,
    )


def public_text(given: str, member: str) -> str:
    """A public key as given, or from a file: its text, or that member of custody's public file (`custody-public.json`).

    Raises:
        LocalFailure: the file is JSON, and has no such member.
    """
    path = Path(given)
    if len(given) >= 200 or not path.is_file():
        return given
    text = path.read_text(encoding="utf-8").strip()
    if not text.startswith("{"):
        return text
    try:
        return str(json.loads(text)[member])
    except (ValueError, KeyError, TypeError):
        raise LocalFailure(
            "The public key cannot be read", f"{path}: is JSON, but not custody's public file with `{member}`"
        ) from None


def session_file() -> Path:
    """Where `sluice login` keeps who is signed in."""
    return config_folder() / "session.json"


def _signed_in(url: str) -> str | None:
    """The token that `sluice login` got for this service; for another service it is never sent."""
    file = session_file()
    if not file.is_file():
        return None
    try:
        kept = json.loads(read_secret(file))
        return str(kept["token"]) if kept["url"] == url else None
    except (ValueError, KeyError, TypeError):
        raise LocalFailure(
            "The session cannot be read", f"{file}: run `sluice logout`, then `sluice login`"
        ) from None


def checked_url(url: str, *, with_token: bool) -> str:
    """The address, if a token may go there.

    Raises:
        LocalFailure: not an http(s) address, or plain http to another machine.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
        raise LocalFailure(
            "The address of the service is none",
            f"{parts.scheme}://{parts.hostname}: expected https://HOST[:PORT]",
        )
    loopback = parts.hostname in {"localhost", "127.0.0.1", "::1"}
    if parts.scheme == "http" and not loopback and with_token:
        raise LocalFailure(
            "The token would travel in clear",
            f"{parts.hostname} is another machine: use its https:// address",
        )
    return url


def checked_token(text: str) -> str:
    """The token as it is sent.

    Raises:
        LocalFailure: nothing, or letters that no token has.
    """
    token = text.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise LocalFailure(
            "The token is none", "expected one line of printable letters; ask an operator for a new one"
        )
    return token


def read_secret(path: Path) -> bytes:
    """A file that holds a secret; refused when others than its owner can read it.

    Raises:
        LocalFailure: others can read it, or it is larger than any key.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise LocalFailure("The secret cannot be read", f"{path}: is not a file")
        if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise LocalFailure("The secret lies open", f"{path}: others can read it; run: chmod 600 {path}")
        return file.read(1 << 20)


def write_secret(path: Path, data: bytes) -> None:
    """Write a secret into a new file that only its owner can read.

    Raises:
        LocalFailure: a file is there already; keys are never overwritten.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise LocalFailure(
            "A file is there already", f"{path}: keys are never overwritten; choose another name"
        ) from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
