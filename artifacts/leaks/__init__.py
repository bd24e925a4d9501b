"""Leak recognition: is this file one of our artifacts, and whose copy? Usable alone.

    key = SketchKey(secret)                       # 32 bytes, kept with the signatures
    seal_tree(..., observers=[SignatureObserver(key)])          # the signature is made while sealing
    signature = signature_of("model-7b", parts, key)            # from the sealed entries of the manifest
    references = ReferenceSet(key, [signature, parent.as_public_parent()])
    verdict = scan("hf:someone/upload", references)

`docs/leaks.md` says what is recognised, with measured numbers, and what is not.
"""

from artifacts.leaks.builder import SignatureBuilder
from artifacts.leaks.digests import FileDigests, StreamDigests, digest_stream
from artifacts.leaks.errors import (
    AddressRefused,
    BudgetError,
    HostileError,
    LeakError,
    MarkError,
    SignatureError,
    SourceFailure,
    UnreadableError,
    UnsupportedError,
)
from artifacts.leaks.marks import DeliveryReceipt, MarkKey, PartnerMark
from artifacts.leaks.matching import ListedFile, exact
from artifacts.leaks.observing import SignatureObserver, signature_of
from artifacts.leaks.ranged import AddressPolicy
from artifacts.leaks.references import ReferenceSet
from artifacts.leaks.scan import ScanLimits, scan, scan_each
from artifacts.leaks.signature import WeightSignature
from artifacts.leaks.sketch import SketchKey
from artifacts.leaks.targets import HubOptions, ObjectProfile, ObjectProfiles, ObjectStoreOptions
from artifacts.leaks.tracing import TraceReport, trace_files
from artifacts.leaks.verdict import ArtifactFinding, ExactEvidence, Outcome, TensorEvidence, Verdict
from artifacts.leaks.whole import compare_whole

__all__ = [
    "AddressPolicy",
    "AddressRefused",
    "ArtifactFinding",
    "BudgetError",
    "DeliveryReceipt",
    "ExactEvidence",
    "FileDigests",
    "HostileError",
    "HubOptions",
    "LeakError",
    "ListedFile",
    "MarkError",
    "MarkKey",
    "ObjectProfile",
    "ObjectProfiles",
    "ObjectStoreOptions",
    "Outcome",
    "PartnerMark",
    "ReferenceSet",
    "ScanLimits",
    "SignatureBuilder",
    "SignatureError",
    "SignatureObserver",
    "SketchKey",
    "SourceFailure",
    "StreamDigests",
    "TensorEvidence",
    "TraceReport",
    "UnreadableError",
    "UnsupportedError",
    "Verdict",
    "WeightSignature",
    "compare_whole",
    "digest_stream",
    "exact",
    "scan",
    "scan_each",
    "signature_of",
    "trace_files",
]
