"""An issuer's metadata and signing keys, over HTTPS from the issuer's own address.

Keys are kept and read anew when a token names one that is not known (the issuer rotated), at most once in `_PAUSE` seconds,
so that made-up key ids cause no storm of requests. A key that the issuer has taken back is forgotten with the next reading,
at the latest after `_FRESH` seconds. An issuer that does not answer leaves the keys that are known in force until then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import httpx
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from orchestrator.domain.errors import Unavailable

log = structlog.get_logger("sluice.api")

_PAUSE = 10.0
_FRESH = 3600.0
_MAX_BYTES = 512 * 1024


class IssuerKeys:
    """Metadata and keys of one issuer. Thread-safe.

    Args:
        issuer: its address; the metadata must name exactly this.
        http: how it is reached.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        issuer: str,
        http: httpx.Client,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.issuer = issuer
        self._http, self._clock = http, clock
        self._lock = threading.Lock()
        self._metadata: dict[str, Any] | None = None
        self._keys: dict[str | None, Any] = {}
        self._read_at = float("-inf")
        self._tried_at = float("-inf")

    def metadata(self) -> dict[str, Any]:
        """What the issuer says of itself (OpenID Connect Discovery 1.0).

        Raises:
            Unavailable: it does not answer, or names another issuer.
        """
        with self._lock:
            if self._metadata is None:
                self._metadata = self._discover()
            return self._metadata

    def key(self, key_id: str | None) -> Any | None:
        """The key of that id; None when the issuer has none.

        Raises:
            Unavailable: the issuer was never reached.
        """
        with self._lock:
            now = self._clock()
            old = now - self._read_at >= _FRESH
            if (old or key_id not in self._keys) and now - self._tried_at >= _PAUSE:
                self._tried_at = now
                self._refresh(now)
            if now - self._read_at >= _FRESH + _PAUSE and self._read_at == float("-inf"):
                raise Unavailable(f"the identity provider {self.issuer} does not answer")
            return self._keys.get(key_id)

    def _refresh(self, now: float) -> None:
        try:
            if self._metadata is None:
                self._metadata = self._discover()
            document = self._get(str(self._metadata["jwks_uri"]))
            found = KeySet.import_key_set({"keys": [_public(key) for key in document["keys"]]})
            self._keys = {key.kid: key for key in found.keys}
            self._read_at = now
        except (Unavailable, JoseError, KeyError, TypeError, ValueError) as error:
            log.warning("keys of an identity provider could not be read", issuer=self.issuer, why=str(error))
            if now - self._read_at >= 2 * _FRESH:
                self._keys = {}

    def _discover(self) -> dict[str, Any]:
        found = self._get(self.issuer.rstrip("/") + "/.well-known/openid-configuration")
        if found.get("issuer") != self.issuer:
            raise Unavailable(f"the identity provider at {self.issuer} says that it is another one")
        return found

    def _get(self, url: str) -> dict[str, Any]:
        try:
            with self._http.stream("GET", url, headers={"Accept": "application/json"}) as answer:
                if answer.status_code != httpx.codes.OK:
                    raise Unavailable(f"{self.issuer} answered {answer.status_code}")
                body = b""
                for chunk in answer.iter_bytes():
                    body += chunk
                    if len(body) > _MAX_BYTES:
                        raise Unavailable(f"{self.issuer} answered more than {_MAX_BYTES} bytes")
            found = httpx.Response(200, content=body).json()
        except (httpx.HTTPError, ValueError, httpx.InvalidURL) as error:
            raise Unavailable(f"{self.issuer} does not answer: {type(error).__name__}") from None
        if not isinstance(found, dict):
            raise Unavailable(f"{self.issuer} answered no JSON object")
        return found


def _public(key: dict[str, Any]) -> dict[str, Any]:
    """The key without private parts, and never a shared secret."""
    if key.get("kty") not in {"RSA", "EC", "OKP"}:
        raise ValueError("an issuer's key is none that signatures are verified with")
    return {
        name: value for name, value in key.items() if name not in {"d", "p", "q", "dp", "dq", "qi", "oth"}
    }
