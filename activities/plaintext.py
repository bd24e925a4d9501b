"""The plaintext of an open release: opened with its public key record, as anybody may, and put beside it with a signature.

By then the keys are public, so a folder of plaintext on this worker's disk discloses nothing; it is removed all the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from sqlalchemy import Engine

from artifacts.envelope import open_public_record
from artifacts.fetching import fetch_artifact
from artifacts.progress import Progress
from artifacts.signing import VerifyKey
from artifacts.stores.base import Store
from artifacts.stores.opening import TreeSigner, publish_plaintext
from orchestrator.records import artifacts as artifact_records
from orchestrator.records.database import reading


class PlaintextPublishing:
    """Satisfies `activities.publishing.Plaintext`.

    Args:
        engine: of the records.
        open_store: opens the store that an artifact lies in, by its location.
        custody_keys: custody's public keys; a record that none of them signed opens nothing.
        signer: signs the tree, so that the public can check it with `model_signing`.
        scratch: folder for the tree while it is signed.
    """

    def __init__(
        self,
        engine: Engine,
        open_store: Callable[[str], Store],
        *,
        custody_keys: Callable[[], Sequence[VerifyKey]],
        signer: TreeSigner,
        scratch: Path,
    ) -> None:
        self._engine, self._open_store = engine, open_store
        self._custody_keys, self._signer, self._scratch = custody_keys, signer, scratch

    def publish(
        self, store: Store, release: str, records: Mapping[str, bytes], prefix: str, check: Callable[[], None]
    ) -> None:
        """Open every artifact of `records` and put the files below `prefix`, the signature last."""
        self._scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{release}-", dir=self._scratch) as folder:
            tree = Path(folder) / "tree"
            for artifact, record in sorted(records.items()):
                self._open(artifact, record, tree, check)
            publish_plaintext(store, tree, self._signer, prefix=prefix)

    def _open(self, artifact: str, record: bytes, tree: Path, check: Callable[[], None]) -> None:
        payload = open_public_record(record, verify_keys=self._custody_keys())
        with reading(self._engine) as session:
            known = artifact_records.get(session, artifact)
            manifest = artifact_records.manifest(session, artifact)

        def tell(_: Progress) -> None:
            check()

        with self._open_store(known.location) as source:
            fetch_artifact(source, manifest, payload, tree, progress=tell)
