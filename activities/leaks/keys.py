"""The monitor's own keys: the identity that signatures are sealed to, and the key that signs verdicts.

They open weight signatures: samples of weights, and digests of issued files. No artifact's key follows from them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from activities.key_files import write_once
from artifacts.errors import KeyProviderError
from artifacts.keys import HybridIdentity
from artifacts.leaks.sealed import monitor_identity, monitor_keygen
from orchestrator.trust.keys import PrivateKey

_FORMAT = "sluice-monitor-keys/v1"
_ALIKE = b"sluice.release/leak-alike/v1\0"


@dataclass(frozen=True, slots=True)
class MonitorKeys:
    """The monitor's private keys. They never leave the leak worker."""

    identity: HybridIdentity = field(repr=False)
    verdicts: PrivateKey = field(repr=False)

    @property
    def public(self) -> MonitorPublic:
        """What everybody may know, and whoever seals has to pin."""
        return MonitorPublic(str(self.identity.recipient), self.verdicts.public.text())

    def alike(self, digests: Iterable[str]) -> str:
        """A name that artifacts with the same weight files share, and that tells nobody else anything."""
        data = _ALIKE + "\n".join(sorted(digests)).encode()
        return hmac.new(self.identity.raw, data, hashlib.sha256).hexdigest()[:32]


@dataclass(frozen=True, slots=True)
class MonitorPublic:
    """The monitor's public keys: where weight signatures are sealed to, and who signs verdicts."""

    recipient: str
    verdict_key: str

    def as_dict(self) -> dict[str, str]:
        """As JSON; the form of `monitor-public.json`."""
        return {"recipient": self.recipient, "verdict_key": self.verdict_key}


def load_or_make(path: Path) -> MonitorKeys:
    """Read the monitor's keys, or make them on the first start (the file is created once, mode 0600).

    Raises:
        KeyProviderError: the file is damaged.
    """
    if not path.exists():
        _make(path)
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        form, identity, seed = stored["format"], stored["identity"], base64.b64decode(stored["verdicts"])
        if form == _FORMAT:
            return MonitorKeys(monitor_identity(identity), PrivateKey.from_seed(seed))
        why = f"the format is {form!r}"
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        why = type(error).__name__
    raise KeyProviderError(f"monitor keys {path}: damaged ({why}); restore the file")


def _make(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    own = {
        "format": _FORMAT,
        "identity": monitor_keygen().identity,
        "verdicts": base64.b64encode(PrivateKey.generate().seed()).decode(),
    }
    write_once(path, json.dumps(own, indent=1).encode() + b"\n")
