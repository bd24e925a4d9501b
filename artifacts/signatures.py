"""Weight signatures as sealing makes them; what needs NumPy is imported only where a monitor is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from artifacts.keys import MONITOR_RECIPIENT_HRP, HybridRecipient, RootKey
from artifacts.manifest import Manifest, open_inner

if TYPE_CHECKING:
    from artifacts.leaks.observing import SignatureObserver

MAX_SIGNATURE_BYTES = 16 << 20


def monitor_fingerprint(monitor: str) -> str:
    """Names a monitor's public string in resume tickets.

    Raises:
        KeyProviderError: not such a string.
    """
    return HybridRecipient.parse(monitor, MONITOR_RECIPIENT_HRP).fingerprint


def signature_observer(root: RootKey, artifact_id: str) -> SignatureObserver:
    """What sees the plaintext pass, with the artifact's own sketch key."""
    from artifacts.leaks.observing import SignatureObserver
    from artifacts.leaks.sealed import sketch_secret
    from artifacts.leaks.sketch import SketchKey

    return SignatureObserver(SketchKey(sketch_secret(root, artifact_id)))


def signature_for(manifest: Manifest, root: RootKey, monitor: str) -> bytes:
    """The artifact's signature from what each file's entry keeps, sealed to the monitor.

    The entries hold it also for files that an earlier, interrupted run had finished.
    """
    from artifacts.leaks.observing import NAME, signature_of
    from artifacts.leaks.sealed import seal_signature, sketch_secret
    from artifacts.leaks.sketch import SketchKey

    artifact = manifest.artifact_id
    secret = sketch_secret(root, artifact)
    parts = []
    for entry in manifest.files:
        left = open_inner(artifact, entry, root.file_key(artifact, entry.path)).signatures or {}
        if left.get(NAME) is not None:
            parts.append(left[NAME])
    signature = signature_of(artifact, parts, SketchKey(secret))
    return seal_signature(signature, secret, manifest=manifest.digest, recipient=monitor)
