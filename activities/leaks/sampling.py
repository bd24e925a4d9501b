"""Reading what is traced: matrices of a recognised suspect, within a budget, sealed to custody and signed for by the monitor.

The leak worker never learns a mark key, and custody never asks a stranger. What was read is deleted once it was traced.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import rfc8785

from activities.leaks.judging import Judging
from artifacts.leaks import ScanLimits
from artifacts.leaks.errors import UnreadableError, shown
from artifacts.leaks.samples import PREDICATE, seal_sample
from artifacts.leaks.sampling import Sample, take_sample
from artifacts.stores.base import Store
from orchestrator.contracts import leak_messages as msg
from orchestrator.domain.errors import Malformed
from orchestrator.records import suspects
from orchestrator.records.database import reading
from orchestrator.records.suspects import Suspect
from orchestrator.trust import signing

FOLDER = "traces"
_ACCESSES = 200
_KEPT = timedelta(days=3)


@dataclass
class Sampling:
    """Takes samples.

    Attributes:
        judging: its records, keys, references, addresses and credentials.
        open_store: opens a store at an address, with this worker's credentials.
        location: the store that samples lie in until they are traced; custody reads it too.
        custody: custody's public string.
        limits: of one sample.
    """

    judging: Judging
    open_store: Callable[[str], Store]
    location: str
    custody: Callable[[], str]
    limits: ScanLimits

    def take(self, asked: msg.TraceRequest) -> msg.SampleTaken:
        """Read what can be read of the suspect that a verdict recognised.

        Raises:
            StoreError: the store does not take it.
            SluiceError: there is no such verdict.
        """
        with reading(self.judging.engine) as session:
            suspect = suspects.get(session, asked.suspect)
            _, envelope = suspects.verdict(session, asked.verdict, self.judging.cipher)
        document = json.loads(signing.signed_payload(zlib.decompress(envelope)))["predicate"]["verdict"]
        matched = [
            tensor
            for finding in document["findings"]
            if finding["artifact"] == asked.artifact
            for tensor in finding["tensors"]
            if tensor["matched"]
        ]
        tier = max((f["tier"] for f in document["findings"] if f["artifact"] == asked.artifact), default=0)
        aligned = tier >= 2
        try:
            made, only = self._read(suspect, asked.artifact, matched, aligned=aligned)
        except UnreadableError as error:
            return msg.SampleTaken(not_traced=f"the suspect could not be read for it: {error}")
        return self._sealed(asked, suspect, made, only, aligned=aligned)

    def _read(
        self, suspect: Suspect, artifact: str, matched: list[dict[str, str]], *, aligned: bool
    ) -> tuple[Sample, list[str]]:
        known = self.judging.references.of([artifact])
        if not matched or not known or not self.judging.readable(suspect):
            raise UnreadableError("the verdict names no matrix of it that could be read again")
        reference, embedding = known[0], known[0].signature.embedding
        tables = [(embedding.rows, embedding.cols)] if aligned and embedding is not None else []
        only = {str(tensor["reference"]) for tensor in matched}
        if tables and embedding is not None:
            only.add(embedding.name)
        target = suspect.target
        if not target.startswith(("http://", "https://", "hf:", "s3://")) and not Path(target).exists():
            raise UnreadableError("the file is not where it was dropped any more")
        made = take_sample(
            target,
            reference.known,
            {str(tensor["suspect"]): str(tensor["reference"]) for tensor in matched},
            limits=self.limits,
            aligned=aligned,
            tables=tables,
            addresses=self.judging.addresses,
            hub=self.judging.hub,
            objects=self.judging.store_of(suspect),
        )
        return made, sorted(only)

    def _sealed(
        self, asked: msg.TraceRequest, suspect: Suspect, made: Sample, only: list[str], *, aligned: bool
    ) -> msg.SampleTaken:
        sealed = seal_sample(made.data, self.custody())
        digest = hashlib.sha256(sealed).hexdigest()
        key = f"{FOLDER}/{digest}.sealed"
        with self.open_store(self.location) as store:
            self._tidy(store)
            store.put(key, sealed, sha256=digest)
        place = shown((suspect.target or suspect.title).split("?", 1)[0], 200)
        statement: dict[str, Any] = {
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"name": key, "digest": {"sha256": digest}}],
            "predicateType": PREDICATE,
            "predicate": {
                "release": asked.release,
                "incident": asked.incident,
                "component": asked.component,
                "artifact": asked.artifact,
                "verdict": asked.verdict,
                "place": place or "an unnamed place",
                "aligned": aligned,
                "only": only,
                "sample": {
                    "sha256": hashlib.sha256(made.data).hexdigest(),
                    "size": len(made.data),
                    "matrices": made.matrices,
                    "weights": made.weights,
                    "bytes_read": made.bytes_read,
                    "notes": list(made.notes),
                },
                "accesses": [asdict(access) for access in made.accesses[:_ACCESSES]],
            },
        }
        signed = signing.sign(rfc8785.dumps(statement), self.judging.keys.verdicts)
        return msg.SampleTaken(statement=signed.decode(), location=self.location, key=key)

    def _tidy(self, store: Store) -> None:
        """Delete samples that nobody can be tracing any more: of a worker that was killed after it had put one there."""
        old = self.judging.clock() - _KEPT
        for info in list(store.list(f"{FOLDER}/")):
            if info.modified is not None and info.modified < old:
                store.delete(info.key)

    def drop(self, sample: msg.SampleTaken) -> None:
        """Delete a sample that was traced.

        Raises:
            Malformed: it is none of ours.
        """
        if sample.location != self.location or not sample.key.startswith(f"{FOLDER}/"):
            raise Malformed(f"{sample.key} is no sample of this worker's")
        with self.open_store(self.location) as store:
            store.delete(sample.key)


def trace_limits(most_bytes: int, seconds: float) -> ScanLimits:
    """What one sample may cost."""
    return replace(ScanLimits(), max_bytes=most_bytes, max_seconds=seconds)
