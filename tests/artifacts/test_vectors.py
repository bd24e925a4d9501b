"""The library against the frozen vectors: good ones open to what is written down, bad ones are refused by class."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from artifacts.custody.shares import Share, combine, open_share, receive_share, unlock
from artifacts.dealt import DealtShares
from artifacts.envelope import EnvelopePayload, open_envelope, open_public_record
from artifacts.errors import ArtifactError
from artifacts.fetching import fetch_artifact
from artifacts.keys import FileKey, RootKey, custody_identity, partner_identity, unwrap_half, unwrap_root
from artifacts.manifest import Manifest, open_inner, parse_manifest
from artifacts.reader import SealedFile
from artifacts.signing import VerifyKey
from artifacts.sources import BytesBlob

VECTORS = Path(__file__).parents[1] / "vectors"
TRUSTED = [VerifyKey.parse(json.loads((VECTORS / "keys.json").read_text())["verify_key"])]
INDEX = json.loads((VECTORS / "index.json").read_text())


def data(name: str) -> bytes:
    return (VECTORS / "data" / name).read_bytes()


def manifest_of(given: Any) -> Manifest:
    trusted = [VerifyKey.parse(given["verify_key"])] if "verify_key" in given else TRUSTED
    return parse_manifest(data(given["manifest"]), trusted=trusted)


def b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()


class OneBlob:
    """A source with one sealed file, given as bytes."""

    def __init__(self, sealed: bytes) -> None:
        self._sealed = sealed

    def blob(self, path: str) -> BytesBlob:
        return BytesBlob(self._sealed, path)

    def unlisted(self, known: Any) -> list[str]:
        return []


def by_fetching(given: Any, folder: Path) -> Any:
    manifest = manifest_of(given)
    payload = EnvelopePayload(
        artifact_id=manifest.artifact_id, manifest_digest=manifest.digest, release="r", step="s", grant="g",
        keys={given["path"]: FileKey(base64.b64decode(given["key"]))}, issued_at=datetime.fromisoformat("2026-01-01T00:00:00Z"),
        not_after=None,
    )  # fmt: skip
    fetch_artifact(OneBlob(data(given["sealed"])), manifest, payload, folder)
    return hashlib.sha256((folder / given["path"]).read_bytes()).hexdigest()


def by_reading(given: Any, folder: Path) -> Any:
    manifest = manifest_of(given)
    key = FileKey(base64.b64decode(given["key"]))
    file = SealedFile(
        BytesBlob(data(given["sealed"])), manifest.artifact_id, manifest.file(given["path"]), key
    )
    return hashlib.sha256(file.readall()).hexdigest()


def payload_json(payload: EnvelopePayload) -> Any:
    def stamp(time: datetime | None) -> str | None:
        return None if time is None else time.strftime("%Y-%m-%dT%H:%M:%SZ")

    return {
        "format": "sluice.release/envelope/v1", "artifact": payload.artifact_id, "manifest": payload.manifest_digest,
        "release": payload.release, "step": payload.step, "grant": payload.grant, "issued_at": stamp(payload.issued_at),
        "not_after": stamp(payload.not_after), "recipients": list(payload.recipients),
        "keys": {p: b64(k.raw) for p, k in payload.keys.items()}, "log": payload.log,
    }  # fmt: skip


def envelope(given: Any, folder: Path) -> Any:
    verifier = (lambda log, payload: None) if given["need_log"] else None
    return payload_json(
        open_envelope(
            data(given["envelope"]), given["identity"], now=datetime.fromisoformat(given["now"]), verify_keys=TRUSTED,
            proof_verifier=verifier,
        )
    )  # fmt: skip


def inner(given: Any, folder: Path) -> Any:
    manifest = manifest_of(given)
    found = open_inner(
        manifest.artifact_id, manifest.file(given["path"]), FileKey(base64.b64decode(given["key"]))
    )
    return json.loads(found.to_bytes())


def root(given: Any, folder: Path) -> Any:
    found = unwrap_root(
        data(given["wrapped"]).decode(), custody_identity(given["custody_identity"]), given["manifest_digest"],
        artifact_id=given.get("artifact", ""), commitment=given.get("commitment", ""),
    )  # fmt: skip
    return b64(found.raw)


def dealt(given: Any) -> tuple[Manifest, DealtShares]:
    manifest = manifest_of(given)
    assert manifest.shares is not None
    return manifest, manifest.shares


def own_share(given: Any, folder: Path) -> Any:
    manifest, record = dealt(given)
    identity = partner_identity(given["identity"])
    return json.loads(open_share(record, manifest.artifact_id, given["holder"], identity).to_bytes())


def received(given: Any, holder: str, released: str) -> Share:
    manifest, record = dealt(given)
    custody, raw = custody_identity(given["custody_identity"]), base64.b64decode(data(released))
    return receive_share(raw, custody, given["sign_off"], record, manifest.artifact_id, holder)


def unlocked(given: Any, folder: Path) -> Any:
    """As custody does it (`activities.custody.keeping`)."""
    manifest, record = dealt(given)
    shares = [received(given, holder, released) for holder, released in given["released"]]
    half = unwrap_half(
        data(given["wrapped"]).decode(), custody_identity(given["custody_identity"]), manifest.digest,
        artifact_id=manifest.artifact_id, set_id=record.set_id, commitment=record.half,
    )  # fmt: skip
    root = unlock(record, manifest.artifact_id, half, combine(record, manifest.artifact_id, shares))
    if root.commitment(manifest.artifact_id) != manifest.root_commitment:
        raise ArtifactError("the root is not the one that the manifest commits to")
    return b64(root.raw)


RUN = {
    "open-file": [by_fetching, by_reading],
    "open-inner": [inner],
    "read-manifest": [lambda given, folder: manifest_of(given).digest],
    "open-envelope": [envelope],
    "open-record": [
        lambda g, folder: payload_json(open_public_record(data(g["record"]), verify_keys=TRUSTED))
    ],
    "unwrap-root": [root],
    "open-share": [own_share],
    "receive-share": [lambda g, folder: json.loads(received(g, g["holder"], g["released"]).to_bytes())],
    "unlock-root": [unlocked],
    "file-key": [
        lambda g, folder: b64(
            RootKey(base64.b64decode(g["root"])).file_key(g["artifact"], g["path"], g["version"]).raw
        )
    ],
}


@pytest.mark.parametrize("vector", INDEX, ids=lambda v: v["name"].replace(" ", "-"))
def test_vector(vector: Any, tmp_path: Path) -> None:
    for run in RUN[vector["operation"]]:
        if "attack" not in vector:
            assert run(vector["inputs"], tmp_path / "copy") == vector["expected"]
            continue
        with pytest.raises(ArtifactError):
            run(vector["inputs"], tmp_path / "copy")
        assert not [p for p in tmp_path.rglob("*") if p.is_file() and ".sluice-fetch" not in p.parts]


def test_each_vector_says_its_purpose_once() -> None:
    assert len({v["name"] for v in INDEX}) == len(INDEX)
    assert all(v["purpose"] and ("attack" in v) != ("expected" in v) for v in INDEX)
    given = [value for v in INDEX for value in v["inputs"].values()]
    used = {name for name in given if isinstance(name, str)}
    used |= {name for pairs in given if isinstance(pairs, list) for _, name in pairs}
    assert {
        str(p.relative_to(VECTORS / "data")) for p in (VECTORS / "data").rglob("*") if p.is_file()
    } <= used
