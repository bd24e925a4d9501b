"""Made the frozen vectors of this folder, once. Kept to show how; it refuses to run where they exist."""

from __future__ import annotations

import copy
import json
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from artifacts import age
from artifacts.body import CHUNK, HEADER, WIRE_CHUNK, sealed_size
from artifacts.encoding import b64, canonical_json
from artifacts.envelope import EnvelopePayload, file_keys, make_envelope, make_public_record
from artifacts.keys import (
    RootKey,
    custody_identity,
    custody_keygen,
    partner_identity,
    partner_keygen,
    partner_recipient,
    unwrap_root,
    wrap_root,
)
from artifacts.manifest import PAYLOAD_TYPE, file_object_key, open_inner, parse_manifest, statement_of
from artifacts.sealing import seal_tree
from artifacts.signing import SigningKey
from artifacts.stores.directory import DirectoryStore

HERE = Path(__file__).parent
NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
VECTORS: list[dict[str, Any]] = []


def put(name: str, data: bytes) -> str:
    target = HERE / "data" / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return name


def vector(
    name: str, purpose: str, operation: str, *, expected: Any = None, attack: str | None = None, **inputs: Any
) -> None:
    made = {"name": name, "purpose": purpose, "operation": operation, "inputs": inputs}
    VECTORS.append(made | ({"attack": attack} if attack else {"expected": expected}))


def main() -> None:
    if (HERE / "index.json").exists():
        sys.exit("the vectors are frozen; a new format version gets a folder of its own")
    custody, partner, friend = custody_keygen(), partner_keygen(), partner_keygen()
    signer, stranger = SigningKey.generate(), SigningKey.generate()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        (source / "tokenizer").mkdir(parents=True)
        rng = np.random.default_rng(1)
        save_file(
            {
                "a.weight": rng.normal(size=(40, 100)).astype(np.float32),
                "b.bias": np.arange(1500, dtype=np.int64),
            },
            source / "model.safetensors",
        )
        (source / "exact.bin").write_bytes(rng.bytes(CHUNK))
        (source / "empty.bin").write_bytes(b"")
        (source / "tokenizer" / "vocab.txt").write_bytes("[PAD]\n[UNK]\nörtlich\n".encode())
        store = DirectoryStore(Path(folder) / "store")
        components = {"weights": ["*.safetensors", "*.bin"], "tokenizer": "tokenizer"}

        def seal(artifact_id: str) -> Any:
            return seal_tree(
                source, store, custody_recipient=custody.recipient, signer=signer, components=components,
                release="example-1", part_size=CHUNK, artifact_id=artifact_id,
            )  # fmt: skip

        sealed, other = seal("vector-artifact-1"), seal("vector-artifact-2")
        files = {
            f.path: (Path(folder) / "store" / file_object_key(sealed.artifact_id, f.path)).read_bytes()
            for f in sealed.files
        }
        foreign = (
            Path(folder) / "store" / file_object_key(other.artifact_id, "model.safetensors")
        ).read_bytes()
        plain = {f.path: (source / f.path).read_bytes() for f in sealed.files}
    manifest = parse_manifest(sealed.manifest, expected_digest=sealed.manifest_digest)
    root = unwrap_root(sealed.wrapped_root, custody_identity(custody.identity), sealed.manifest_digest)
    keys = file_keys(root, manifest)
    (HERE / "keys.json").write_text(
        json.dumps(
            {
                "note": "Public test keys. Never use them.",
                "verify_key": str(signer.verify_key),
                "partner_identity": partner.identity,
                "partner_recipient": partner.recipient,
                "custody_identity": custody.identity,
                "custody_recipient": custody.recipient,
            },
            indent=1,
        )
        + "\n"
    )
    good = put("manifest.dsse.json", sealed.manifest)
    opening(good, manifest, files, plain, keys, foreign)
    manifests(good, manifest, sealed, signer, stranger, keys)
    envelopes(manifest, keys, partner, friend, signer, stranger)
    roots(root, custody, sealed, manifest, keys)
    (HERE / "index.json").write_text(json.dumps(VECTORS, indent=1, ensure_ascii=False) + "\n")


def opening(good: str, manifest: Any, files: Any, plain: Any, keys: Any, foreign: bytes) -> None:
    import hashlib

    for path, data in files.items():
        name = put("files/" + path.replace("/", "_") + ".sealed", data)
        vector(
            f"open {path}", "a sealed file opens to the plaintext", "open-file",
            expected=hashlib.sha256(plain[path]).hexdigest(), manifest=good, path=path, sealed=name, key=b64(keys[path].raw),
        )  # fmt: skip
        inner = open_inner(manifest.artifact_id, manifest.file(path), keys[path])
        vector(
            f"inner part of {path}", "the sealed part of the entry holds digests and the tensor index", "open-inner",
            expected=json.loads(inner.to_bytes()), manifest=good, path=path, key=b64(keys[path].raw),
        )  # fmt: skip
    path = "model.safetensors"
    data, part = files[path], sealed_size(CHUNK)

    def bad(attack: str, sealed: bytes, key_of: str = path) -> None:
        name = put("bad/" + attack.replace(" ", "-") + ".sealed", sealed)
        vector(
            attack, "must be refused before any plaintext is handed out", "open-file", attack=attack,
            manifest=good, path=path, sealed=name, key=b64(keys[key_of].raw),
        )  # fmt: skip

    def flipped(place: int) -> bytes:
        return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]

    bad("one bit of the salt", flipped(3))
    bad("one bit of the commitment", flipped(30))
    bad("one bit of a chunk", flipped(HEADER + 1000))
    bad("one bit of the last tag", flipped(len(data) - 1))
    bad("one bit of the empty chunk that ends a full part", flipped(part - 1))
    bad("last byte cut off", data[:-1])
    bad("last part cut off", data[:part])
    bad("cut at a chunk edge", data[: HEADER + WIRE_CHUNK])
    bad("one byte appended", data + b"\0")
    bad("nothing left", b"")
    bad("first part doubled", data[:part] + data[:part])
    bad("parts swapped", data[part:] + data[:part])
    bad("part of another file", files["exact.bin"] + data[part:])
    bad("part of another artifact", foreign[:part] + data[part:])
    bad("plaintext in place of the sealed file", plain[path])
    bad("key of another file", data, key_of="exact.bin")


def manifests(good: str, manifest: Any, sealed: Any, signer: Any, stranger: Any, keys: Any) -> None:
    vector(
        "read the manifest",
        "signed, canonical, every rule kept",
        "read-manifest",
        expected=sealed.manifest_digest,
        manifest=good,
    )
    statement = statement_of(manifest)

    def bad(attack: str, data: bytes) -> None:
        name = put("bad/" + attack.replace(" ", "-") + ".dsse.json", data)
        vector(attack, "must be refused whole", "read-manifest", attack=attack, manifest=name)

    def signed(change: Any) -> bytes:
        changed = copy.deepcopy(statement)
        change(changed)
        return bytes(signer.sign(canonical_json(changed), PAYLOAD_TYPE))

    def rename(index: int, path: str) -> Any:
        def change(s: Any) -> None:
            s["predicate"]["files"][index]["path"] = s["subject"][index]["name"] = path
            order = sorted(range(len(s["subject"])), key=lambda i: s["subject"][i]["name"].encode())
            s["subject"] = [s["subject"][i] for i in order]
            s["predicate"]["files"] = [s["predicate"]["files"][i] for i in order]

        return change

    for attack, path in [
        ("path that leaves its folder", "../evil"), ("absolute path", "/etc/evil"), ("path with a backslash", "a\\evil"),
        ("path of a device", "nul.bin"), ("path that differs in case only", "MODEL.safetensors"),
        ("path with an invisible character", "model\u200b.bin"), ("file where another path has a folder", "tokenizer"),
    ]:  # fmt: skip
        bad(attack, signed(rename(0, path)))
    bad("signed by a stranger", bytes(stranger.sign(canonical_json(statement), PAYLOAD_TYPE)))
    half = json.loads(sealed.manifest)
    half["signatures"].pop()
    bad("without its post-quantum signature", canonical_json(half))
    mixed = json.loads(signed(lambda s: s["predicate"].update(release="evil")))
    mixed["signatures"][1] = json.loads(sealed.manifest)["signatures"][1]
    bad("post-quantum signature of another statement", canonical_json(mixed))
    bad("another payload type", bytes(signer.sign(canonical_json(statement), "application/json")))
    bad("spacing that is not canonical", sealed.manifest.replace(b'","payloadType', b'", "payloadType'))
    bad("duplicate member", sealed.manifest[:-1] + b',"signatures":[]}')
    bad(
        "part listed twice",
        signed(
            lambda s: s["predicate"]["files"][2]["parts"].__setitem__(
                1, s["predicate"]["files"][2]["parts"][0]
            )
        ),
    )
    bad("size that does not fit the parts", signed(lambda s: s["predicate"]["files"][2].update(size=5)))
    bad(
        "inner part in clear",
        signed(lambda s: s["predicate"]["files"][2].update(inner=b64(b'{"digests":{}}'))),
    )
    bad("unknown member", signed(lambda s: s["predicate"].update(extra=True)))
    bad("later format version", signed(lambda s: s["predicate"].update(format="sluice.release/sealed/v9")))
    path = "exact.bin"
    vector(
        "inner part with another file's key", "must be refused", "open-inner", attack="key of another file",
        manifest=good, path=path, key=b64(keys["empty.bin"].raw),
    )  # fmt: skip


def envelopes(manifest: Any, keys: Any, partner: Any, friend: Any, signer: Any, stranger: Any) -> None:
    payload = EnvelopePayload(
        artifact_id=manifest.artifact_id, manifest_digest=manifest.digest, release="example-1", step="partners", grant="grant-7",
        keys=keys, issued_at=NOW, not_after=NOW + timedelta(days=30), log={"index": 12, "checkpoint": "example", "proof": []},
    )  # fmt: skip
    identity = partner_identity(partner.identity)
    good = make_envelope(payload, [friend.recipient, partner.recipient], signer)
    signed = age.decrypt(good, identity)

    def wire(data: bytes) -> Any:
        import base64

        return json.loads(base64.b64decode(json.loads(age.decrypt(data, identity))["payload"]))

    def one(name: str, data: bytes, *, attack: bool, now: datetime = NOW, need_log: bool = True) -> None:
        file = put(("bad/" if attack else "") + name.replace(" ", "-") + ".age", data)
        vector(
            name, "must be refused, no key comes out" if attack else "opens with the partner's identity", "open-envelope",
            envelope=file, identity=partner.identity, now=now.strftime("%Y-%m-%dT%H:%M:%SZ"), need_log=need_log,
            **({"attack": name} if attack else {"expected": wire(data)}),
        )  # fmt: skip

    one("envelope for two partners", good, attack=False)
    one("expired envelope", good, attack=True, now=NOW + timedelta(days=30))
    one("envelope for somebody else", make_envelope(payload, [friend.recipient], signer), attack=True)
    one("envelope signed by a stranger", make_envelope(payload, [partner.recipient], stranger), attack=True)
    one(
        "envelope without its log entry",
        make_envelope(replace(payload, log=None), [partner.recipient], signer),
        attack=True,
    )
    alone = make_envelope(payload, [friend.recipient], signer)
    passed_on = age.encrypt(
        age.decrypt(alone, partner_identity(friend.identity)), [partner_recipient(partner.recipient)]
    )
    one("envelope passed on by its recipient", passed_on, attack=True)
    one(
        "envelope with one bit of its header changed",
        good[:100] + bytes([good[100] ^ 1]) + good[101:],
        attack=True,
    )
    one("envelope with one bit of its payload changed", good[:-1] + bytes([good[-1] ^ 1]), attack=True)
    one("envelope cut off", good[:-20], attack=True)
    dropped = good[: good.index(b"-> ")] + good[good.index(b"-> ", good.index(b"-> ") + 3) :]
    one("envelope with a recipient dropped", dropped, attack=True)
    classical = b"-> X25519 " + b"A" * 43 + b"\n" + b"A" * 43 + b"\n"
    one("envelope with a classical recipient added", good[:22] + classical + good[22:], attack=True)
    record = make_public_record(replace(payload, not_after=None), signer)
    import base64

    vector(
        "public record", "the signed keys of an open step", "open-record", record=put("record.dsse.json", record),
        expected=json.loads(base64.b64decode(json.loads(record)["payload"])),
    )  # fmt: skip
    vector(
        "envelope published as a record", "must be refused", "open-record", attack="envelope published as a record",
        record=put("bad/envelope-as-record.dsse.json", signed),
    )  # fmt: skip


def roots(root: Any, custody: Any, sealed: Any, manifest: Any, keys: Any) -> None:
    name = put("root.wrapped", sealed.wrapped_root.encode())
    vector(
        "unwrap the root", "custody gets the root back", "unwrap-root", expected=b64(root.raw),
        wrapped=name, custody_identity=custody.identity, manifest_digest=sealed.manifest_digest,
    )  # fmt: skip
    vector(
        "root for another manifest", "must be refused", "unwrap-root", attack="root moved to another manifest",
        wrapped=name, custody_identity=custody.identity, manifest_digest="0" * 64,
    )  # fmt: skip
    moved = put(
        "bad/root-not-committed-to.wrapped",
        wrap_root(RootKey.generate(), custody.recipient, sealed.manifest_digest).encode(),
    )
    vector(
        "root that the manifest does not commit to", "must be refused", "unwrap-root", attack="root exchanged by who can write",
        wrapped=moved, custody_identity=custody.identity, manifest_digest=sealed.manifest_digest,
        artifact=manifest.artifact_id, commitment=manifest.root_commitment,
    )  # fmt: skip
    for path, version in [("model.safetensors", 1), ("tokenizer/vocab.txt", 1), ("model.safetensors", 2)]:
        key = root.file_key(manifest.artifact_id, path, version)
        vector(
            f"file key of {path} version {version}", "derived from the root", "file-key", expected=b64(key.raw),
            root=b64(root.raw), artifact=manifest.artifact_id, path=path, version=version,
        )  # fmt: skip


if __name__ == "__main__":
    main()
