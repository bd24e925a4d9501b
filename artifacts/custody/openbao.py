"""The key in OpenBao's (or Vault's) transit engine: it never leaves the server.

The transit key must be made with `derived=true`: then every ciphertext is bound to its context by a key derived for
it, and `transit/rewrap` works (with `associated_data` it does not). A key that is not derived would take a context and
ignore it; this is probed before the first use, with `encrypt` rights alone.

The second lock: when the policy puts a control group on `transit/decrypt/KEY`, the server answers an unwrap with a
wrapping token instead of the key, and executes it only once members of that group have approved. Then `unwrap` raises
`SecondLockPending` with the accessor that the approvers need; the same call succeeds after they did. What waits is kept by
what it is for (`purpose`), and can be given up, at the server too. See
`docs/key-providers.md` for the policies, and for what an approval means exactly (OpenBao 2.7).

One request is one attempt: repeating is the caller's business (`retryable` says when), and safe for every method.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import threading
import time
from collections.abc import MutableMapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

import httpx

from artifacts.custody.base import (
    Context,
    Description,
    Health,
    KeyProvider,
    WrappedKey,
    check_plaintext,
    context_bytes,
)
from artifacts.custody.errors import (
    KeyServiceDenied,
    KeyServiceMisconfigured,
    KeyServiceUnavailable,
    KeyVersionGone,
    SecondLockPending,
    WrappedKeyForeign,
    WrappedKeyInvalid,
)
from artifacts.custody.second_lock import LockRequest, PendingUnwrap
from artifacts.errors import KeyProviderError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_CIPHERTEXT = re.compile(r"vault:v([1-9][0-9]{0,8}):([A-Za-z0-9+/]+={0,2})")
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_MAX_ANSWER = 1 << 20


class OpenBaoTransit(KeyProvider):
    """A `KeyProvider` on a transit key."""

    name = "openbao"

    def __init__(
        self,
        address: str,
        key: str,
        token_file: Path | str,
        *,
        mount: str = "transit",
        namespace: str | None = None,
        ca_file: Path | str | None = None,
        timeout: float = 10.0,
        pending: MutableMapping[str, PendingUnwrap] | None = None,
        approvers: str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """A provider; nothing is sent yet.

        Args:
            address: `https://…` of the server; `http://` on loopback alone.
            key: the name of the transit key.
            token_file: a file with the token. Read anew for each request, so that an agent can renew it.
            mount: where the transit engine is mounted.
            namespace: OpenBao namespace, or None.
            ca_file: certificates to trust instead of the system's, or None.
            timeout: seconds until a server counts as down.
            pending: where unwraps that wait for a control group are kept; None keeps them in memory. They are
                secrets.
            approvers: who approves where a control group stands, in words that people are shown; the server tells nobody.
            transport: another way to the server, for tests.

        Raises:
            KeyServiceMisconfigured: the address, the key's name or the mount cannot be right.
        """
        parts = urlsplit(address)
        if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
            raise KeyServiceMisconfigured(
                "openbao: the address must be https://…; keys do not travel in clear"
            )
        if not _NAME.fullmatch(key) or not all(_NAME.fullmatch(part) for part in mount.split("/")):
            raise KeyServiceMisconfigured(
                "openbao: the key's or the mount's name has other letters than [A-Za-z0-9_.-]"
            )
        self._key = key
        self._mount = mount
        self._token_file = Path(token_file)
        self._pending: MutableMapping[str, PendingUnwrap] = {} if pending is None else pending
        self._approvers = approvers
        self._lock = threading.Lock()
        self._probed = False
        headers = {"X-Vault-Request": "true", "User-Agent": "sluice"}
        if namespace:
            headers["X-Vault-Namespace"] = namespace
        verify: Any = True
        if ca_file is not None:
            import ssl

            verify = ssl.create_default_context(cafile=str(ca_file))
        self._http = httpx.Client(
            base_url=address.rstrip("/") + "/v1/",
            headers=headers,
            timeout=timeout,
            verify=verify,
            transport=transport,
            follow_redirects=False,
            trust_env=False,
        )

    def __repr__(self) -> str:
        return f"OpenBaoTransit({str(self._http.base_url)!r}, key={self._name!r})"

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @property
    def _name(self) -> str:
        return f"{self._mount}/{self._key}"

    def wrap(self, plaintext: bytes, context: Context) -> WrappedKey:
        """See `KeyProvider.wrap`."""
        bound, plaintext = context_bytes(context), check_plaintext(plaintext)
        self._probe()
        data = self._call(
            "POST", f"{self._mount}/encrypt/{self._key}", plaintext=_b64(plaintext), context=_b64(bound)
        )
        return self._wrapped(data)

    def unwrap(self, wrapped: WrappedKey, context: Context, purpose: str = "") -> bytes:
        """See `KeyProvider.unwrap`.

        Raises:
            SecondLockPending: a control group must approve first.
        """
        bound = context_bytes(context)
        ciphertext = self._ciphertext(wrapped)
        ticket = _ticket(ciphertext, bound, purpose)
        waiting = self._waiting(ticket)
        if waiting is not None:
            data = self._collect(waiting)
            if not purpose:
                self._forget(ticket, waiting)
        else:
            answer = self._request(
                "POST",
                f"{self._mount}/decrypt/{self._key}",
                {"ciphertext": ciphertext, "context": _b64(bound)},
            )
            data = self._data_or_wait(answer, ticket, purpose, context.get("artifact", ""))
        try:
            return base64.b64decode(data["plaintext"], validate=True)
        except (KeyError, TypeError, ValueError, binascii.Error):
            raise self._confused() from None

    def rewrap(self, wrapped: WrappedKey, old_context: Context, new_context: Context) -> WrappedKey:
        """See `KeyProvider.rewrap`. Within one context the key does not leave the server."""
        old, new = context_bytes(old_context), context_bytes(new_context)
        if old != new:
            purpose = f"rewrap to {hashlib.sha256(new).hexdigest()}"
            moved = self.wrap(self.unwrap(wrapped, old_context, purpose), new_context)
            self.give_up(purpose)
            return moved
        body = {"ciphertext": self._ciphertext(wrapped), "context": _b64(old)}
        return self._wrapped(self._call("POST", f"{self._mount}/rewrap/{self._key}", **body))

    def rotate(self) -> int:
        """See `KeyProvider.rotate`."""
        data = self._call("POST", f"{self._mount}/keys/{self._key}/rotate")
        version = data.get("latest_version")
        if version is None:  # Vault answers 204
            version = self._call("GET", f"{self._mount}/keys/{self._key}").get("latest_version")
        if type(version) is not int:
            raise self._confused()
        return version

    def describe(self) -> Description:
        """See `KeyProvider.describe`. Needs `read` on the key."""
        data = self._call("GET", f"{self._mount}/keys/{self._key}")
        version = data.get("latest_version")
        if type(version) is not int:
            raise self._confused()
        if data.get("derived") is not True:
            self._not_derived()
        open_ends = [name for name in ("exportable", "allow_plaintext_backup") if data.get(name)]
        detail = f"transit key at {self._http.base_url.host}, type {data.get('type')}, derived"
        if open_ends:
            detail += f"; it can leave the server ({', '.join(open_ends)}): make a new key without"
        return Description(self.name, self._name, version, not open_ends, detail)

    def health(self) -> Health:
        """See `KeyProvider.health`. Says when the token ends, if it may look that up."""
        try:
            self._probed = False
            self._probe()
        except KeyProviderError as error:
            return Health(ok=False, detail=str(error))
        try:
            left = _object(self._request("GET", "auth/token/lookup-self").get("data")).get("ttl")
        except KeyProviderError:
            left = None  # a token need not be allowed to look itself up
        ends = f"; the token ends in {left} s" if type(left) is int and left > 0 else ""
        return Health(ok=True, detail=f"openbao key {self._name} answers and binds its context{ends}")

    # --- the second lock ------------------------------------------------------------------------------------------

    def second_lock(self, wrapped: WrappedKey, context: Context, purpose: str) -> LockRequest | None:
        """See `KeyProvider.second_lock`. Needs `update` on `sys/control-group/request` to tell who has approved."""
        ticket = _ticket(self._ciphertext(wrapped), context_bytes(context), purpose)
        waiting = self._waiting(ticket)
        if waiting is None:
            return None
        request = LockRequest(waiting.about, waiting.accessor, waiting.expires_at)
        try:
            found = self._call("POST", "sys/control-group/request", accessor=waiting.accessor)
        except KeyServiceDenied:
            return request
        except WrappedKeyInvalid:
            # the server knows of no such request any more: it was revoked there, or the server lost it
            with self._lock:
                self._pending.pop(ticket, None)
            return None
        by = found.get("authorizations")
        names = [str(_object(one).get("entity_name", "?")) for one in by] if isinstance(by, list) else []
        return replace(request, approved=found.get("approved") is True, approved_by=tuple(names))

    def give_up(self, purpose: str) -> None:
        """See `KeyProvider.give_up`. The requests are revoked at the server, so that a late approval opens nothing either."""
        with self._lock:
            found = [(ticket, one) for ticket, one in self._pending.items() if one.purpose == purpose]
        for ticket, waiting in found:
            self._forget(ticket, waiting)

    def keep_pending(self, store: MutableMapping[str, PendingUnwrap]) -> None:
        """See `KeyProvider.keep_pending`."""
        with self._lock:
            self._pending = store

    def _waiting(self, ticket: str) -> PendingUnwrap | None:
        with self._lock:
            waiting = self._pending.get(ticket)
            if waiting is not None and waiting.expires_at <= time.time():
                self._pending.pop(ticket, None)
                waiting = None
        return waiting

    def _forget(self, ticket: str, waiting: PendingUnwrap) -> None:
        with self._lock:
            self._pending.pop(ticket, None)
        with suppress(httpx.HTTPError):  # it lapses by itself
            self._http.post("auth/token/revoke-self", headers={"X-Vault-Token": waiting.token})

    def _data_or_wait(self, answer: dict[str, Any], ticket: str, purpose: str, about: str) -> dict[str, Any]:
        info = answer.get("wrap_info")
        if not isinstance(info, dict):
            return _object(answer.get("data"))
        token, accessor, ttl = info.get("token"), info.get("accessor"), info.get("ttl")
        if not isinstance(token, str) or not isinstance(accessor, str) or type(ttl) is not int:
            raise self._confused()
        asked = PendingUnwrap(token, accessor, time.time() + ttl, purpose, about)
        with self._lock:
            waiting = self._pending.setdefault(ticket, asked)
        if waiting.accessor != asked.accessor:  # another worker was first: people are asked once
            with suppress(httpx.HTTPError):
                self._http.post("auth/token/revoke-self", headers={"X-Vault-Token": asked.token})
        raise self._must_approve(waiting)

    def _collect(self, waiting: PendingUnwrap) -> dict[str, Any]:
        try:
            return self._call("POST", "sys/wrapping/unwrap", token=waiting.token)
        except WrappedKeyInvalid as error:
            # Until it is approved the server says that the wrapping token is not valid.
            if "wrapping token" in str(error):
                raise self._must_approve(waiting) from None
            raise

    def _must_approve(self, waiting: PendingUnwrap) -> SecondLockPending:
        request = LockRequest(waiting.about, waiting.accessor, waiting.expires_at)
        return SecondLockPending([request], self._approvers)

    # --- the server -----------------------------------------------------------------------------------------------

    def _probe(self) -> None:
        """Encrypt nothing without a context: a derived key refuses that, any other would take and ignore contexts."""
        if self._probed:
            return
        try:
            self._call("POST", f"{self._mount}/encrypt/{self._key}", plaintext=_b64(b"probe"))
        except WrappedKeyInvalid as error:
            if "context" not in str(error):
                raise
            self._probed = True
            return
        self._not_derived()

    def _call(self, method: str, path: str, **body: str) -> dict[str, Any]:
        return _object(self._request(method, path, body or None).get("data"))

    def _request(self, method: str, path: str, body: dict[str, str] | None = None) -> dict[str, Any]:
        try:
            answer = self._http.request(method, path, json=body, headers={"X-Vault-Token": self._token()})
        except httpx.TimeoutException:
            raise KeyServiceUnavailable(
                f"openbao {self._name}: no answer within {self._http.timeout.read:g} s; it will be tried again"
            ) from None
        except httpx.HTTPError as error:
            raise KeyServiceUnavailable(
                f"openbao {self._name}: cannot be reached ({type(error).__name__}); check the address and the network"
            ) from None
        if answer.status_code == 204:
            return {}
        if len(answer.content) > _MAX_ANSWER:
            raise self._confused()
        try:
            parsed = answer.json()
        except (ValueError, RecursionError):
            parsed = None
        if answer.status_code == 200 and isinstance(parsed, dict):
            return parsed
        errors = _object(parsed).get("errors")
        told = "; ".join(str(line)[:300] for line in errors) if isinstance(errors, list) else ""
        raise self._refusal(answer.status_code, told, path)

    def _refusal(self, status: int, told: str, path: str) -> KeyProviderError:
        where = f"openbao {self._name}"
        if status == 503 and "sealed" in told:
            return KeyServiceUnavailable(f"{where}: the server is sealed; its operators must unseal it")
        if status >= 500 or status in {408, 412, 429, 472, 473}:
            return KeyServiceUnavailable(f"{where}: answers {status}; it will be tried again")
        if status == 403:
            return KeyServiceDenied(self._why_denied(where, path))
        if status == 404:
            return KeyServiceMisconfigured(
                f"{where}: there is no such key or mount; make it with `derived=true`"
            )
        if status == 400:
            if "too old" in told or "too new" in told:
                return KeyVersionGone(f"{where}: that version of the key is retired or not there ({told})")
            if "key not found" in told:
                return KeyServiceMisconfigured(f"{where}: there is no such key; make it with `derived=true`")
            if "authentication failed" in told:
                return WrappedKeyInvalid(
                    f"{where}: the wrapped key was altered, or belongs to another release, artifact or plan"
                )
            return WrappedKeyInvalid(f"{where}: refused ({told or 'without a reason'})")
        return self._confused()

    def _why_denied(self, where: str, path: str) -> str:
        """Tell a dead token from a policy: a live token may look itself up."""
        if path != "auth/token/lookup-self":
            try:
                headers = {"X-Vault-Token": self._token()}
                alive = self._http.get("auth/token/lookup-self", headers=headers).status_code == 200
            except httpx.HTTPError:
                alive = False
            if alive:
                return f"{where}: the token's policy does not allow {path}; see docs/key-providers.md for the policy"
        return (
            f"{where}: the token has expired, was revoked, or is none; write a new one to {self._token_file}"
        )

    def _token(self) -> str:
        try:
            token = self._token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            token = ""
        if not token.isprintable() or not token:
            raise KeyServiceDenied(f"openbao {self._name}: there is no token in {self._token_file}")
        return token

    def _wrapped(self, data: dict[str, Any]) -> WrappedKey:
        match = _CIPHERTEXT.fullmatch(str(data.get("ciphertext")))
        if match is None:
            raise self._confused()
        try:
            return WrappedKey(self.name, self._name, int(match[1]), base64.b64decode(match[2], validate=True))
        except binascii.Error:
            raise self._confused() from None

    def _ciphertext(self, wrapped: WrappedKey) -> str:
        if (wrapped.provider, wrapped.key) != (self.name, self._name):
            raise WrappedKeyForeign(
                f"openbao {self._name}: the key was wrapped by {wrapped.provider} {wrapped.key}"
            )
        return f"vault:v{wrapped.version}:{_b64(wrapped.ciphertext)}"

    def _confused(self) -> KeyServiceUnavailable:
        return KeyServiceUnavailable(
            f"openbao {self._name}: the answer is not one of an OpenBao server; check what stands at the address"
        )

    def _not_derived(self) -> NoReturn:
        raise KeyServiceMisconfigured(
            f"openbao {self._name}: the key was not made with `derived=true`, so it would ignore the context; "
            "make a new one: `bao write transit/keys/NAME derived=true`"
        )


def _ticket(ciphertext: str, bound: bytes, purpose: str) -> str:
    """Under which name a waiting unwrap is kept: the same only for the same key, context and purpose."""
    return hashlib.sha256(b"\0".join([ciphertext.encode(), bound, purpose.encode()])).hexdigest()


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
