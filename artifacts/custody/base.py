"""The interface of a key provider, and the string that a wrapped key is.

Invariants that every provider keeps (`tests/artifacts/custody/test_contract.py` holds them to it):
- what was wrapped in one context does not unwrap in any other: another release, artifact or plan is another key;
- wrapping the same key twice gives two different strings, and either unwraps (a call may be answered twice);
- a key wrapped under an older version unwraps after a rotation;
- an altered string is refused, never unwrapped to something else;
- no error, `repr` or log line holds key material.
"""

from __future__ import annotations

import base64
import binascii
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Self

import rfc8785

from artifacts.custody.errors import WrappedKeyInvalid
from artifacts.custody.second_lock import LockRequest, PendingUnwrap

Context = Mapping[str, str]
"""What a wrapped key is bound to. See `wrapping_context`."""

CONTEXT_FIELDS = ("release", "artifact", "plan_digest")
MAX_KEY = 1024
"""Longest key that is wrapped, in bytes. Roots have 32."""

_PREFIX = "sluice-wrapped-v1"
_PROVIDER = re.compile(r"[a-z][a-z0-9-]{0,31}")
_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9:/_.@-]{0,255}")


def wrapping_context(release: str, artifact: str, plan_digest: str) -> dict[str, str]:
    """The context that ties a key to its release, its artifact and the plan that it is kept under."""
    return {"release": release, "artifact": artifact, "plan_digest": plan_digest}


def check_context(context: Context) -> dict[str, str]:
    """A copy of the context, if it names release, artifact and plan digest, each a text that is not empty.

    Raises:
        WrappedKeyInvalid: something is missing or is no text.
    """
    copy = dict(context)
    missing = [name for name in CONTEXT_FIELDS if not copy.get(name)]
    if missing or not all(
        isinstance(k, str) and isinstance(v, str) and v and len(v) <= 1024 for k, v in copy.items()
    ):
        raise WrappedKeyInvalid(
            f"wrapping context: needs {', '.join(CONTEXT_FIELDS)} as texts of 1 to 1024 letters"
            + (f"; missing: {', '.join(missing)}" if missing else "")
        )
    return copy


def context_bytes(context: Context) -> bytes:
    """The context as canonical JSON (RFC 8785): equal contexts give equal bytes.

    Raises:
        WrappedKeyInvalid: not a context.
    """
    try:
        return rfc8785.dumps(check_context(context))
    except ValueError:
        raise WrappedKeyInvalid("wrapping context: holds letters that are not Unicode") from None


def check_plaintext(plaintext: bytes) -> bytes:
    """The key to wrap, if it has 1 to `MAX_KEY` bytes.

    Raises:
        WrappedKeyInvalid: it has not.
    """
    if not 1 <= len(plaintext) <= MAX_KEY:
        raise WrappedKeyInvalid(
            f"a key of {len(plaintext)} bytes is not wrapped; it must have 1 to {MAX_KEY}"
        )
    return bytes(plaintext)


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A key under a key-encryption key: no secret, but worth keeping whole.

    Attributes:
        provider: `local`, `openbao` or `aws-kms`.
        key: the name of the key-encryption key at the provider.
        version: its version, from 1; 0 where the service keeps versions to itself.
        ciphertext: the provider's bytes.
    """

    provider: str
    key: str
    version: int
    ciphertext: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if (
            not _PROVIDER.fullmatch(self.provider)
            or not _KEY_NAME.fullmatch(self.key)
            or not 0 <= self.version < 10**9
            or not 1 <= len(self.ciphertext) <= 65_536
        ):
            raise WrappedKeyInvalid("wrapped key: provider, key name, version or length are not those of one")

    def __str__(self) -> str:
        body = base64.b64encode(self.ciphertext).decode()
        return f"{_PREFIX}|{self.provider}|{self.key}|{self.version}|{body}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str()` wrote.

        Raises:
            WrappedKeyInvalid: not such a string.
        """
        parts = text.split("|") if isinstance(text, str) and len(text) < 100_000 else []
        if len(parts) != 5 or parts[0] != _PREFIX or not re.fullmatch(r"0|[1-9][0-9]{0,8}", parts[3]):
            raise WrappedKeyInvalid(f"wrapped key: is not of the form {_PREFIX}|PROVIDER|KEY|VERSION|BASE64")
        try:
            ciphertext = base64.b64decode(parts[4], validate=True)
        except (binascii.Error, ValueError):
            raise WrappedKeyInvalid("wrapped key: the last part is not base64") from None
        wrapped = cls(parts[1], parts[2], int(parts[3]), ciphertext)
        if str(wrapped) != text:
            raise WrappedKeyInvalid("wrapped key: is not in its canonical spelling")
        return wrapped


@dataclass(frozen=True, slots=True)
class Description:
    """A provider as people see it.

    Attributes:
        provider: `local`, `openbao` or `aws-kms`.
        key: the name of the key-encryption key.
        version: the version that new keys are wrapped under; 0 where the service keeps versions to itself.
        protected: False when whoever copies the provider's files or database can unwrap.
        detail: one sentence on where the key is and what guards it.
    """

    provider: str
    key: str
    version: int
    protected: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Health:
    """Whether the provider could unwrap now.

    Attributes:
        ok: it could.
        detail: what is wrong and what to do, or what was found.
    """

    ok: bool
    detail: str


class KeyProvider(ABC):
    """Keeps one key-encryption key. Thread-safe; every method may block on the network for up to its timeout."""

    name: str
    """`local`, `openbao` or `aws-kms`; stands in every wrapped key."""

    @abstractmethod
    def wrap(self, plaintext: bytes, context: Context) -> WrappedKey:
        """Wrap a key under the newest version, bound to `context`.

        Raises:
            KeyProviderError: one of the tree in `artifacts.custody.errors`.
        """

    @abstractmethod
    def unwrap(self, wrapped: WrappedKey, context: Context, purpose: str = "") -> bytes:
        """Unwrap a key; `context` must be the one that it was wrapped in.

        Args:
            wrapped: what `wrap` gave.
            context: its context.
            purpose: what it is for. Where a second lock stands, its approval counts for this purpose alone, and until
                `give_up(purpose)`; without a purpose it counts once.

        Raises:
            SecondLockPending: people must approve first.
            WrappedKeyInvalid: altered, foreign, or another context.
            KeyProviderError: any other of the tree.
        """

    def close(self) -> None:
        """Let go of connections, where there are any."""
        return

    def second_lock(self, wrapped: WrappedKey, context: Context, purpose: str) -> LockRequest | None:
        """What was asked of the second lock by an `unwrap` with the same arguments; None where nothing waits or no second lock stands.

        Raises:
            KeyProviderError: the key service fails.
        """
        return None

    def give_up(self, purpose: str) -> None:
        """Take back every request to the second lock for a purpose, approved or not: it opens nothing any more.

        A key service that does not answer is no reason to keep one: what waits is forgotten here all the same.
        """
        return

    def keep_pending(self, store: MutableMapping[str, PendingUnwrap]) -> None:
        """Keep what waits for a second lock in `store` from now on (several workers may share it); it holds secrets."""
        return

    @abstractmethod
    def rewrap(self, wrapped: WrappedKey, old_context: Context, new_context: Context) -> WrappedKey:
        """Wrap anew under the newest version and `new_context` (which may equal the old one).

        Raises:
            WrappedKeyInvalid: altered, foreign, or not wrapped in `old_context`.
            KeyProviderError: any other of the tree.
        """

    @abstractmethod
    def rotate(self) -> int:
        """Make a new version; returns it (0 where the service keeps versions to itself). Old ones still unwrap.

        Raises:
            KeyProviderError: one of the tree.
        """

    @abstractmethod
    def describe(self) -> Description:
        """What this provider is.

        Raises:
            KeyProviderError: one of the tree.
        """

    @abstractmethod
    def health(self) -> Health:
        """Whether it could unwrap now. Never raises a `KeyProviderError`."""
