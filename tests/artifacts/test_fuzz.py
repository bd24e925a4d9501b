"""Mutated input for every parser: an `ArtifactError`, or exactly the original value; never anything else.

Short by default; `make fuzz` runs the same for many more examples (`FUZZ_EXAMPLES`).
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artifacts import age
from artifacts.custody.shares import Share, receive_share
from artifacts.encoding import canonical_json
from artifacts.envelope import PAYLOAD_TYPE as ENVELOPE_TYPE
from artifacts.envelope import open_envelope, open_public_record
from artifacts.errors import ArtifactError
from artifacts.keys import (
    FileKey,
    custody_identity,
    custody_recipient,
    partner_identity,
    partner_recipient,
    unwrap_root,
)
from artifacts.manifest import PAYLOAD_TYPE, open_inner, parse_manifest
from artifacts.reader import SealedFile
from artifacts.signing import SigningKey, VerifyKey, parse_dsse
from artifacts.sources import BytesBlob
from artifacts.tensors import read_index

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "120"))
VECTORS = Path(__file__).parents[1] / "vectors"
KEYS = json.loads((VECTORS / "keys.json").read_text())
INDEX = {v["name"]: v for v in json.loads((VECTORS / "index.json").read_text())}
TRUSTED = [VerifyKey.parse(KEYS["verify_key"])]
FORGER = SigningKey.generate()


def data(name: str) -> bytes:
    return (VECTORS / "data" / name).read_bytes()


MANIFEST = parse_manifest(data("manifest.dsse.json"), trusted=TRUSTED)
ENVELOPE = INDEX["envelope for two partners"]["inputs"]
OPEN = INDEX["open model.safetensors"]["inputs"]
IDENTITY = partner_identity(KEYS["partner_identity"])
CUSTODY = custody_identity(KEYS["custody_identity"])
KEY = FileKey(base64.b64decode(OPEN["key"]))


@st.composite
def mutations(draw: st.DrawFn, original: bytes) -> bytes:
    """`original` with one to four cuts, copies, flips and insertions."""
    bad = bytearray(original)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(bad)))
        match draw(st.sampled_from(["flip", "cut", "insert", "copy", "end", "digit"])):
            case "flip" if at < len(bad):
                bad[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del bad[at : at + draw(st.integers(1, 64))]
            case "insert":
                bad[at:at] = draw(st.binary(min_size=1, max_size=16))
            case "copy":
                source = draw(st.integers(0, len(bad)))
                bad[at:at] = bad[source : source + draw(st.integers(1, 64))]
            case "end":
                del bad[at:]
            case "digit" if at < len(bad):
                bad[at] = draw(st.sampled_from(b'0123456789{}[]",:\\-.eE/\n'))
            case _:
                pass
    return bytes(bad)


def envelope(raw: bytes) -> Any:
    now = datetime.fromisoformat(ENVELOPE["now"])
    return open_envelope(raw, IDENTITY, now=now, verify_keys=TRUSTED)


def signed_manifest(payload: bytes) -> Any:
    """The rules behind the signature: whatever a key holder signs."""
    return parse_manifest(FORGER.sign(payload, PAYLOAD_TYPE), trusted=[FORGER.verify_key]).files


def signed_payload(payload: bytes) -> Any:
    return open_public_record(FORGER.sign(payload, ENVELOPE_TYPE), verify_keys=[FORGER.verify_key])


def sealed_file(raw: bytes) -> Any:
    entry = MANIFEST.file("model.safetensors")
    return SealedFile(BytesBlob(raw), MANIFEST.artifact_id, entry, KEY).readall()


def inner_part(raw: bytes) -> Any:
    entry = MANIFEST.file("model.safetensors").model_copy(update={"inner": raw.decode("latin-1")})
    return open_inner(MANIFEST.artifact_id, entry, KEY)


def tensors(raw: bytes) -> Any:
    return read_index(lambda start, length: raw[start : start + length], len(raw), "suspect")


def text(parse: Callable[[str], Any]) -> Callable[[bytes], Any]:
    return lambda raw: parse(raw.decode("latin-1"))


SHARED = INDEX["receive a released share of the shares"]["inputs"]
SHARED_MANIFEST = parse_manifest(data(SHARED["manifest"]), trusted=[VerifyKey.parse(SHARED["verify_key"])])
SHARED_STATEMENT, _ = parse_dsse(data(SHARED["manifest"]), PAYLOAD_TYPE, ArtifactError, "manifest", 1 << 25)


def released_share(raw: bytes) -> Any:
    assert SHARED_MANIFEST.shares is not None
    return receive_share(
        raw, custody_identity(SHARED["custody_identity"]), SHARED["sign_off"], SHARED_MANIFEST.shares,
        SHARED_MANIFEST.artifact_id, SHARED["holder"],
    )  # fmt: skip


STATEMENT, _ = parse_dsse(data("manifest.dsse.json"), PAYLOAD_TYPE, ArtifactError, "manifest", 1 << 25)
RECORD, _ = parse_dsse(data("record.dsse.json"), ENVELOPE_TYPE, ArtifactError, "record", 1 << 25)
SAFETENSORS = sealed_file(data(OPEN["sealed"]))

PARSERS: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "manifest": (data("manifest.dsse.json"), lambda raw: parse_manifest(raw, trusted=TRUSTED).digest),
    "manifest by digest": (
        data("manifest.dsse.json"),
        lambda raw: parse_manifest(raw, expected_digest=MANIFEST.digest).digest,
    ),
    "rightly signed statement": (STATEMENT, signed_manifest),
    "rightly signed statement with key shares": (SHARED_STATEMENT, signed_manifest),
    "released key share": (base64.b64decode(data(SHARED["released"])), released_share),
    "key share": (canonical_json(INDEX["receive a released share of the shares"]["expected"]), Share.parse),
    "envelope": (data(ENVELOPE["envelope"]), envelope),
    "age file": (data(ENVELOPE["envelope"]), lambda raw: age.decrypt(raw, IDENTITY)),
    "rightly signed payload": (RECORD, signed_payload),
    "record": (data("record.dsse.json"), lambda raw: open_public_record(raw, verify_keys=TRUSTED)),
    "sealed file": (data(OPEN["sealed"]), sealed_file),
    "inner part": (MANIFEST.file("model.safetensors").inner.encode(), inner_part),
    "wrapped root": (data("root.wrapped"), text(lambda t: unwrap_root(t, CUSTODY, MANIFEST.digest))),
    "safetensors header": (SAFETENSORS[:400], tensors),
    "partner identity": (KEYS["partner_identity"].encode(), text(partner_identity)),
    "partner recipient": (KEYS["partner_recipient"].encode(), text(partner_recipient)),
    "custody recipient": (KEYS["custody_recipient"].encode(), text(custody_recipient)),
    "verification key": (KEYS["verify_key"].encode(), text(VerifyKey.parse)),
}
MAY_DIFFER = {
    "rightly signed statement", "rightly signed statement with key shares", "rightly signed payload", "key share",
    "safetensors header", "verification key",
}  # fmt: skip
"""Here a mutation can give another value that keeps every rule (a verification key has no check digits: a wrong one
trusts nobody); elsewhere only the original passes."""


@pytest.mark.parametrize("parser", PARSERS)
def test_mutations_are_refused_or_change_nothing(parser: str) -> None:
    original, parse = PARSERS[parser]
    expected = None if parser in MAY_DIFFER else parse(original)

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        print_blob=True,
    )
    @given(mutations(original))
    def campaign(raw: bytes) -> None:
        try:
            found = parse(raw)
        except ArtifactError:
            return
        assert parser in MAY_DIFFER or found == expected

    campaign()
