"""A second implementation of docs/sealed-format.md, made from that page: it opens the good vectors and refuses the bad.

It imports nothing of `artifacts`, only the standard library, the primitives of `cryptography`, and SLIP-0039's reference
library. If this file and the
library disagree, one of the two does not follow the page.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import struct
import sys
import unicodedata
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, MLKEM768X25519PrivateKey, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from shamir_mnemonic import MnemonicError, combine_mnemonics

VECTORS = Path(__file__).parents[1] / "vectors"
KEYS = json.loads((VECTORS / "keys.json").read_text())


class Refused(Exception):
    pass


def need(condition: object, what: str) -> None:
    if not condition:
        raise Refused(what)


# --- section 1 -----------------------------------------------------------------------------------------------------


def lp(*fields: bytes) -> bytes:
    return b"".join(struct.pack(">I", len(f)) + f for f in fields)


def u64(n: int) -> bytes:
    return struct.pack(">Q", n)


def b64d(text: str, *, padded: bool = True) -> bytes:
    try:
        data = base64.b64decode(text + ("" if padded else "=" * (-len(text) % 4)), validate=True)
    except ValueError as error:
        raise Refused("base64") from error
    again = base64.b64encode(data).decode()
    need((again if padded else again.rstrip("=")) == text, "canonical base64")
    return data


def canonical(data: bytes) -> Any:
    """RFC 8785 for the values of this format: strings, integers, null, arrays, objects; keys in UTF-16 order."""

    def write(value: Any) -> str:
        if isinstance(value, dict):
            ordered = sorted(value, key=lambda k: k.encode("utf-16-be"))
            return (
                "{"
                + ",".join(json.dumps(k, ensure_ascii=False) + ":" + write(value[k]) for k in ordered)
                + "}"
            )
        if isinstance(value, list):
            return "[" + ",".join(map(write, value)) + "]"
        need(value is None or isinstance(value, (str, bool, int)), "value")
        return json.dumps(value, ensure_ascii=False)

    try:
        value = json.loads(data.decode())
    except ValueError as error:
        raise Refused("json") from error
    need(write(value).encode() == data, "canonical form")
    return value


def exactly(value: Any, *members: str) -> None:
    need(isinstance(value, dict) and set(value) == set(members), f"members {members}")


def is_hex(text: Any) -> bool:
    return isinstance(text, str) and re.fullmatch(r"[0-9a-f]{64}", text) is not None


def is_text(text: Any) -> bool:
    return (
        isinstance(text, str)
        and 1 <= len(text) <= 200
        and not any(ord(c) < 32 or ord(c) == 127 for c in text)
    )


def is_number(n: Any, low: int, high: int = 2**53 - 1) -> bool:
    return type(n) is int and low <= n <= high


def time_of(text: Any) -> datetime:
    need(isinstance(text, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text), "time")
    return datetime.fromisoformat(text)


# --- sections 2 and 3 ------------------------------------------------------------------------------------------------


def check_root(root: bytes, artifact: str, commitment: str) -> None:
    found = HKDF(hashes.SHA512(), 32, artifact.encode(), lp(b"sluice.release/root-commitment/v1")).derive(
        root
    )
    need(found.hex() == commitment, "root commitment")


def file_key(root: bytes, artifact: str, path: str, version: int) -> bytes:
    info = lp(b"sluice.release/file-key/v1", path.encode(), u64(version))
    return HKDF(hashes.SHA512(), 32, artifact.encode(), info).derive(root)


def open_message(key: bytes, context: bytes, message: bytes) -> bytes:
    need(len(message) >= 56 + 16, "too short")
    info = b"c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM\0" + message[:24] + context
    okm = HKDFExpand(hashes.SHA512(), 76, info).derive(key)
    need(hmac.compare_digest(okm[44:], message[24:56]), "commitment")
    cipher, base, body = AESGCM(okm[:32]), int.from_bytes(okm[32:44], "big"), message[56:]
    chunks = [body[i : i + 16400] for i in range(0, len(body), 16400)]
    if len(body) % 16400 == 0:
        chunks.append(b"")
    need(16 <= len(chunks[-1]) < 16400, "the last chunk is shorter")
    try:
        return b"".join(cipher.decrypt((base ^ k).to_bytes(12, "big"), c, None) for k, c in enumerate(chunks))
    except InvalidTag as error:
        raise Refused("tag") from error


def sealed_length(n: int) -> int:
    return 56 + n + 16 * (n // 16384 + 1)


def part_lengths(size: int, part_size: int) -> list[int]:
    count = max(1, -(-size // part_size))
    need(count <= 10_000, "parts")
    return [min(part_size, size - i * part_size) for i in range(count)]


def open_file(manifest: Any, path: str, key: bytes, sealed: bytes) -> bytes:
    entry = next(f for f in manifest["files"] if f["path"] == path)
    need(len(sealed) == entry["sealed_size"], "sealed size")
    plain, position = b"", 0
    lengths = part_lengths(entry["size"], entry["part_size"])
    for index, length in enumerate(lengths):
        part = sealed[position : position + sealed_length(length)]
        position += len(part)
        need(hashlib.sha256(part).hexdigest() == entry["parts"][index]["sha256"], "digest of the part")
        context = b"sluice.release/sealed-part/v1" + lp(
            manifest["artifact"].encode(),
            path.encode(),
            u64(index),
            u64(len(lengths)),
            u64(entry["part_size"]),
            u64(entry["size"]),
        )
        plain += open_message(key, context, part)
    need(len(plain) == entry["size"], "size")
    inner = open_inner(manifest, path, key)
    need(inner["digests"]["sha256"] == hashlib.sha256(plain).hexdigest(), "plaintext digest")
    return plain


# --- sections 4 and 5 ------------------------------------------------------------------------------------------------


def check_path(path: Any) -> None:
    need(
        isinstance(path, str)
        and 1 <= len(path.encode()) <= 700
        and unicodedata.normalize("NFC", path) == path,
        "path",
    )
    need(not path.startswith("/") and path.split("/")[0].lower() != ".sluice-fetch", "path")
    devices = {"con", "prn", "aux", "nul", *(f"{d}{i}" for d in ("com", "lpt") for i in range(1, 10))}
    for part in path.split("/"):
        need(part not in ("", ".", "..") and len(part.encode()) <= 200 and part[-1] not in " .", "path")
        need(
            not any(
                c in '<>:"|?*\\' or unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs") for c in part
            ),
            "path",
        )
        need(part.split(".")[0].lower() not in devices, "path")


def check_paths(paths: list[Any]) -> None:
    spelled: dict[str, tuple[str, bool]] = {}
    for path in paths:
        check_path(path)
        steps = path.split("/")
        for depth in range(1, len(steps) + 1):
            prefix, is_file = "/".join(steps[:depth]), depth == len(steps)
            folded = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", prefix).casefold())
            need(
                folded not in spelled or (spelled[folded] == (prefix, False) and not is_file), "paths collide"
            )
            spelled[folded] = (prefix, is_file)


def verified(data: bytes, payload_type: str, key: str) -> bytes:
    need(len(data) <= 32 * 2**20, "size")
    dsse = canonical(data)
    exactly(dsse, "payload", "payloadType", "signatures")
    need(dsse["payloadType"] == payload_type and len(dsse["signatures"]) == 2, "payload type, two signatures")
    payload = b64d(dsse["payload"])
    raw = b64d(key.removeprefix("sluice-sig-v1."))
    ed, ml = raw[:32], raw[32:]
    first, second = dsse["signatures"]
    exactly(first, "keyid", "sig")
    exactly(second, "keyid", "sig")
    need(first["keyid"] == "ed25519:" + hashlib.sha256(ed).hexdigest(), "key id")
    need(second["keyid"] == "ml-dsa-65/1:" + hashlib.sha256(ml).hexdigest(), "key id")
    kind = payload_type.encode()
    pae = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    try:
        Ed25519PublicKey.from_public_bytes(ed).verify(b64d(first["sig"]), pae)
        MLDSA65PublicKey.from_public_bytes(ml).verify(
            b64d(second["sig"]), b"tuf\1" + hashlib.sha512(pae).digest()
        )
    except InvalidSignature as error:
        raise Refused("signature") from error
    return payload


def read_manifest(data: bytes, key: str = KEYS["verify_key"]) -> tuple[str, Any]:
    payload = verified(data, "application/vnd.in-toto+json", key)
    statement = canonical(payload)
    exactly(statement, "_type", "subject", "predicateType", "predicate")
    need(statement["_type"] == "https://in-toto.io/Statement/v1", "type")
    need(statement["predicateType"] == "https://sluice.release/sealed-manifest/v1", "predicate type")
    manifest = statement["predicate"]
    exactly(
        manifest,
        "format",
        "artifact",
        "release",
        "created",
        "body",
        "root_commitment",
        "custody",
        "components",
        "files",
        *(["shares"] if "shares" in manifest else []),
    )
    need(manifest["format"] == "sluice.release/sealed/v1", "format")
    need(re.fullmatch(r"[a-z0-9][a-z0-9_-]{7,63}", manifest["artifact"]), "artifact id")
    need(manifest["release"] is None or is_text(manifest["release"]), "release")
    time_of(manifest["created"])
    need(manifest["body"] == {"suite": "cobblestone-256", "chunk_size": 16384}, "body")
    need(is_hex(manifest["root_commitment"]) and is_hex(manifest["custody"]), "digests")
    files = manifest["files"]
    need(isinstance(files, list) and 1 <= len(files) <= 100_000, "files")
    for entry in files:
        check_entry(entry)
    paths = [f["path"] for f in files]
    check_paths(paths)
    need(paths == sorted(paths, key=str.encode), "order")
    need(manifest["components"] == sorted({f["component"] for f in files}), "components")
    subjects = [
        {"name": f["path"], "digest": {"sluicePartsSha256": hashlib.sha256(
            b"".join(bytes.fromhex(p["sha256"]) for p in f["parts"])).hexdigest()}}
        for f in files
    ]  # fmt: skip
    need(statement["subject"] == subjects, "subjects")
    if "shares" in manifest:
        check_shares(manifest["shares"], manifest["custody"])
    return hashlib.sha256(payload).hexdigest(), manifest


def check_entry(entry: Any) -> None:
    exactly(entry, "path", "component", "version", "size", "part_size", "sealed_size", "parts", "inner")
    need(is_text(entry["component"]) and is_number(entry["version"], 1, 2**31), "component, version")
    need(
        is_number(entry["size"], 0)
        and is_number(entry["part_size"], 16384)
        and entry["part_size"] % 16384 == 0,
        "sizes",
    )
    lengths = [sealed_length(n) for n in part_lengths(entry["size"], entry["part_size"])]
    need(entry["sealed_size"] == sum(lengths) and len(entry["parts"]) == len(lengths), "sealed size")
    for part, length in zip(entry["parts"], lengths, strict=True):
        exactly(part, "size", "sha256")
        need(part["size"] == length and is_hex(part["sha256"]), "part")
    need(len({p["sha256"] for p in entry["parts"]}) == len(lengths), "part twice")
    need(len(b64d(entry["inner"])) >= 72, "inner")


def open_inner(manifest: Any, path: str, key: bytes) -> Any:
    entry = next(f for f in manifest["files"] if f["path"] == path)
    context = b"sluice.release/sealed-inner/v1" + lp(manifest["artifact"].encode(), path.encode())
    inner = canonical(open_message(key, context, b64d(entry["inner"])))
    exactly(inner, "digests", "signatures", "tensors")
    return inner


# --- sections 6 and 7 ------------------------------------------------------------------------------------------------


def bech32_data(text: str, prefix: str) -> bytes:
    """The data of a Bech32 string whose checksum is taken as read: the vectors are not about typing errors."""
    need(text.startswith(prefix), "prefix")
    values = ["QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7L".index(c) for c in text[len(prefix) :]][:-6]
    bits = "".join(f"{v:05b}" for v in values)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits) - 7, 8))


def hybrid(seed: bytes) -> tuple[MLKEM768X25519PrivateKey, str]:
    expanded = hashlib.shake_256(seed).digest(96)
    kem, dh = (
        MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
        X25519PrivateKey.from_private_bytes(expanded[64:]),
    )
    public = kem.public_key().public_bytes_raw() + dh.public_key().public_bytes_raw()
    return MLKEM768X25519PrivateKey(kem, dh), hashlib.sha256(public).hexdigest()


def unwrap(text: str, identity: str, digest: str, what: str = "root") -> bytes:
    """The root of an artifact, or custody's half of one (section 8)."""
    key, fingerprint = hybrid(bech32_data(identity, "SLUICE-CUSTODY-KEY-1"))
    label, mark, body = text.split(".", 2)
    need(label == f"sluice-{what}-v1" and mark == fingerprint[:16], "for this key")
    info = lp(f"sluice.release/{what}-wrap/v1".encode(), bytes.fromhex(digest))
    try:
        return Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM).decrypt(
            b64d(body), key, info=info
        )
    except InvalidTag as error:
        raise Refused("root") from error


def open_age(data: bytes, identity: str) -> tuple[bytes, str]:
    key, fingerprint = hybrid(bech32_data(identity, "AGE-SECRET-KEY-PQ-1"))
    mac_at = data.find(b"\n---") + 1
    need(data.startswith(b"age-encryption.org/v1\n") and mac_at > 0, "age header")
    header, rest = data[: mac_at + 3], data[mac_at + 3 :]
    line, _, payload = rest.partition(b"\n")
    try:
        lines = header.decode("ascii").split("\n")[1:-1]
        mac = b64d(line.decode("ascii").removeprefix(" "), padded=False)
    except UnicodeDecodeError as error:
        raise Refused("header") from error
    suite, found = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305), None
    need(line[:1] == b" " and len(lines) % 2 == 0, "header")
    for argument_line, body in zip(lines[::2], lines[1::2], strict=True):
        arguments = argument_line.split(" ")
        need(
            arguments[:2] == ["->", "mlkem768x25519"] and len(arguments) == 3, "post-quantum recipients only"
        )
        enc, sealed = b64d(arguments[2], padded=False), b64d(body, padded=False)
        need((len(enc), len(sealed)) == (1120, 32), "stanza")
        try:
            found = found or suite.decrypt(enc + sealed, key, info=b"age-encryption.org/mlkem768x25519")
        except InvalidTag:
            continue
    if found is None:
        raise Refused("not for this identity")

    def derive(salt: bytes, info: bytes) -> bytes:
        return HKDF(hashes.SHA256(), 32, salt, info).derive(found)

    need(hmac.compare_digest(hmac.digest(derive(b"", b"header"), header, "sha256"), mac), "header MAC")
    cipher, sealed = ChaCha20Poly1305(derive(payload[:16], b"payload")), payload[16:]
    chunks = [sealed[i : i + 65552] for i in range(0, len(sealed), 65552)] or [b""]
    try:
        plain = [
            cipher.decrypt(k.to_bytes(11, "big") + bytes([k == len(chunks) - 1]), c, None)
            for k, c in enumerate(chunks)
        ]
    except InvalidTag as error:
        raise Refused("payload") from error
    need(len(chunks) == 1 or plain[-1], "empty last chunk")
    return b"".join(plain), fingerprint


def signed_payload(data: bytes) -> Any:
    value = canonical(verified(data, "application/vnd.sluice.envelope+json", KEYS["verify_key"]))
    exactly(
        value,
        "format",
        "artifact",
        "manifest",
        "release",
        "step",
        "grant",
        "issued_at",
        "not_after",
        "recipients",
        "keys",
        "log",
    )
    need(value["format"] == "sluice.release/envelope/v1" and is_hex(value["manifest"]), "format")
    need(all(is_text(value[m]) for m in ("release", "step", "grant")), "text")
    time_of(value["issued_at"])
    need(
        value["recipients"] == sorted(set(value["recipients"])) and all(map(is_hex, value["recipients"])),
        "recipients",
    )
    need(value["keys"] and all(len(b64d(k)) == 32 for k in value["keys"].values()), "keys")
    check_paths(list(value["keys"]))
    need(value["log"] is None or isinstance(value["log"], dict), "log")
    return value


def open_envelope(data: bytes, identity: str, now: datetime, need_log: bool) -> Any:
    signed, fingerprint = open_age(data, identity)
    value = signed_payload(signed)
    need(fingerprint in value["recipients"], "passed on")
    need(value["not_after"] is not None and now < time_of(value["not_after"]), "expired")
    need(value["log"] is not None or not need_log, "no log entry")
    return value


# --- section 8 -------------------------------------------------------------------------------------------------------


def check_shares(shares: Any, custody: str) -> None:
    exactly(shares, "set", "threshold", "secret", "half", "custody", "root", "holders")
    need(isinstance(shares["set"], str) and re.fullmatch(r"[0-9a-f]{32}", shares["set"]), "set")
    need(is_hex(shares["secret"]) and is_hex(shares["half"]), "commitments")
    need(hashlib.sha256(custody_bytes(shares["custody"])).hexdigest() == custody, "custody")
    need(len(b64d(shares["root"])) == 12 + 32 + 16, "locked root")
    holders = shares["holders"]
    need(isinstance(holders, list) and is_number(shares["threshold"], 2, len(holders)), "threshold")
    need(len(holders) <= 16, "holders")
    for one in holders:
        exactly(one, "holder", "recipient", "commitment", "envelope")
        need(is_name(one["holder"]) and is_hex(one["recipient"]) and is_hex(one["commitment"]), "holder")
        b64d(one["envelope"])
    names = [one["holder"] for one in holders]
    need(names == sorted(set(names)), "once each, in order")
    for member in ("recipient", "commitment"):
        need(len({one[member] for one in holders}) == len(holders), f"distinct {member}s")


def is_name(text: Any) -> bool:
    return isinstance(text, str) and re.fullmatch(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", text) is not None


def custody_bytes(text: Any) -> bytes:
    need(
        isinstance(text, str) and re.fullmatch(r"sluicecustody1[02-9ac-hj-np-z]+", text),
        "custody's public key",
    )
    return bech32_data(text.upper(), "SLUICECUSTODY1")


def read_share(data: bytes, manifest: Any, holder: str) -> Any:
    """A share, held against what the manifest says of it."""
    share, shares = canonical(data), manifest["shares"]
    exactly(share, "format", "artifact", "set", "threshold", "custody", "holder", "words")
    need(share["format"] == "sluice.release/share/v1" and share["holder"] == holder, "format, holder")
    need((share["artifact"], share["set"]) == (manifest["artifact"], shares["set"]), "of this set")
    known = holder_of(manifest, holder)
    found = hashlib.sha256(lp(b"sluice.release/share-commitment/v1", data)).hexdigest()
    need(found == known["commitment"], "commitment to the share")
    return share


def holder_of(manifest: Any, holder: str) -> Any:
    known = [one for one in manifest["shares"]["holders"] if one["holder"] == holder]
    need(known, "holds a share")
    return known[0]


def open_share(manifest: Any, holder: str, identity: str) -> Any:
    known = holder_of(manifest, holder)
    data, fingerprint = open_age(b64d(known["envelope"]), identity)
    need(fingerprint == known["recipient"], "the holder's key")
    return read_share(data, manifest, holder)


def receive_share(manifest: Any, holder: str, sign_off: str, released: str, identity: str) -> Any:
    key, _ = hybrid(bech32_data(identity, "SLUICE-CUSTODY-KEY-1"))
    info = lp(
        b"sluice.release/share-release/v1", sign_off.encode(), manifest["artifact"].encode(), holder.encode()
    )
    suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    try:
        data = suite.decrypt(b64d(released), key, info=info)
    except InvalidTag as error:
        raise Refused("released share") from error
    return read_share(data, manifest, holder)


def unlock_root(manifest: Any, shares: list[Any], half: bytes) -> bytes:
    dealt, artifact = manifest["shares"], manifest["artifact"].encode()
    set_id = bytes.fromhex(dealt["set"])
    words = {share["holder"]: share["words"] for share in shares}
    need(len(words) >= dealt["threshold"], "enough shares")
    try:
        secret = combine_mnemonics([words[name] for name in sorted(words)][: dealt["threshold"]])
    except MnemonicError as error:
        raise Refused("shares") from error
    found = hashlib.sha256(
        lp(b"sluice.release/shared-secret-commitment/v1", artifact, set_id, secret)
    ).hexdigest()
    need(found == dealt["secret"], "commitment to the secret")
    info = lp(b"sluice.release/custody-half-commitment/v1", set_id)
    need(
        HKDF(hashes.SHA512(), 32, artifact, info).derive(half).hex() == dealt["half"],
        "commitment to the half",
    )
    lock = HKDF(hashes.SHA256(), 32, None, lp(b"sluice.release/share-lock/v1", artifact, set_id)).derive(
        half + secret
    )
    locked = b64d(dealt["root"])
    try:
        root = AESGCM(lock).decrypt(locked[:12], locked[12:], None)
    except InvalidTag as error:
        raise Refused("locked root") from error
    check_root(root, manifest["artifact"], manifest["root_commitment"])
    return root


# --- the vectors -----------------------------------------------------------------------------------------------------


def data(name: str) -> bytes:
    return (VECTORS / "data" / name).read_bytes()


def manifest_of(given: Any) -> tuple[str, Any]:
    return read_manifest(data(given["manifest"]), given.get("verify_key", KEYS["verify_key"]))


def run_open_file(given: Any) -> Any:
    _, manifest = manifest_of(given)
    plain = open_file(manifest, given["path"], b64d(given["key"]), data(given["sealed"]))
    return hashlib.sha256(plain).hexdigest()


def run_open_inner(given: Any) -> Any:
    return open_inner(manifest_of(given)[1], given["path"], b64d(given["key"]))


def run_open_envelope(given: Any) -> Any:
    return open_envelope(data(given["envelope"]), given["identity"], time_of(given["now"]), given["need_log"])


def run_open_record(given: Any) -> Any:
    value = signed_payload(data(given["record"]))
    need(value["recipients"] == [] and value["not_after"] is None, "a record names nobody and has no end")
    return value


def run_unwrap_root(given: Any) -> Any:
    root = unwrap(data(given["wrapped"]).decode(), given["custody_identity"], given["manifest_digest"])
    if "commitment" in given:
        check_root(root, given["artifact"], given["commitment"])
    return base64.b64encode(root).decode()


def run_file_key(given: Any) -> Any:
    key = file_key(b64d(given["root"]), given["artifact"], given["path"], given["version"])
    return base64.b64encode(key).decode()


def run_open_share(given: Any) -> Any:
    return open_share(manifest_of(given)[1], given["holder"], given["identity"])


def run_receive_share(given: Any) -> Any:
    released = data(given["released"]).decode()
    return receive_share(
        manifest_of(given)[1], given["holder"], given["sign_off"], released, given["custody_identity"]
    )


def run_unlock_root(given: Any) -> Any:
    digest, manifest = manifest_of(given)
    identity = given["custody_identity"]
    shares = [
        receive_share(manifest, holder, given["sign_off"], data(file).decode(), identity)
        for holder, file in given["released"]
    ]
    half = unwrap(data(given["wrapped"]).decode(), identity, digest, "half")
    return base64.b64encode(unlock_root(manifest, shares, half)).decode()


RUN: dict[str, Callable[[Any], Any]] = {
    "open-file": run_open_file,
    "open-inner": run_open_inner,
    "read-manifest": lambda given: manifest_of(given)[0],
    "open-envelope": run_open_envelope,
    "open-record": run_open_record,
    "unwrap-root": run_unwrap_root,
    "file-key": run_file_key,
    "open-share": run_open_share,
    "receive-share": run_receive_share,
    "unlock-root": run_unlock_root,
}
INDEX = json.loads((VECTORS / "index.json").read_text())


@pytest.mark.parametrize("vector", INDEX, ids=lambda v: v["name"].replace(" ", "-"))
def test_the_page_and_the_vectors_agree(vector: Any) -> None:
    run = RUN[vector["operation"]]
    if "attack" in vector:
        with pytest.raises(Refused):
            run(vector["inputs"])
    else:
        assert run(vector["inputs"]) == vector["expected"]


def test_nothing_of_the_library_was_used() -> None:
    here = sys.modules[__name__]
    source = Path(__file__).read_text()
    assert not re.search(r"^\s*(from|import) artifacts", source, re.MULTILINE)
    assert not [n for n, v in vars(here).items() if getattr(v, "__module__", "").startswith("artifacts")]
