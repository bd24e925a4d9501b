"""Checkpoints of the log: C2SP `tlog-checkpoint` bodies in C2SP `signed-note` notes, Ed25519 signatures.

    sluice.example/log          origin: the log's name
    1234                        size, decimal
    qINS1GRFhWHwdkUeqLEoP4yEMkTBBzxBkGwGQlVlVcs=      root, base64

    — sluice.example/log AAAAAAAA...                  signature by the log's key (custody's)

Also C2SP `tlog-proof`: one entry's inclusion proof and a checkpoint in one text, which an envelope carries.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.trust.encoding import b64decode, b64encode
from orchestrator.trust.errors import KeyUnusable, Malformed, SignatureInvalid, UnknownKey
from orchestrator.trust.keys import PrivateKey, PublicKey
from orchestrator.trust.merkle import HASH_SIZE, MAX_SIZE, leaf_hash, verify_inclusion

MAX_NOTE = 1 << 16
MAX_SIGNATURES = 16
PROOF_HEADER = "c2sp.org/tlog-proof@v1"
_ED25519 = b"\x01"
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")
_NAME = re.compile(r"[^\s+]{1,200}")


def _key_hash(name: str, material: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + material).digest()[:4]


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name) or not name.isprintable():
        raise Malformed("a note key's name has no spaces and no plus sign", where="note key")


@dataclass(frozen=True, slots=True)
class NoteVerifier:
    """The public key of a log: a name and an Ed25519 key.

    Attributes:
        name: the key's name, usually the log's origin.
        key: the public key.
    """

    name: str
    key: PublicKey

    def __post_init__(self) -> None:
        _check_name(self.name)
        if self.key.passkey:
            raise KeyUnusable("a passkey cannot sign checkpoints", where="note key")

    @classmethod
    def parse(cls, text: str) -> NoteVerifier:
        """Read a verifier key `NAME+HASH+BASE64` (signed-note).

        Raises:
            Malformed: not of that form.
            KeyUnusable: the hash does not fit, or not an Ed25519 key.
        """
        where = "note key"
        parts = text.strip().split("+", 2) if len(text) <= 1024 else []
        if len(parts) != 3:
            raise Malformed("is not of the form NAME+HASH+BASE64", where=where)
        name, hashed, encoded = parts
        raw = b64decode(encoded, where=where)
        if raw[:1] != _ED25519 or len(raw) != 33:
            raise KeyUnusable("is not an Ed25519 key", where=where)
        if _key_hash(name, raw[1:]).hex() != hashed:
            raise KeyUnusable(
                "the name or the hash does not belong to the key", where=where, remedy="copy it again"
            )
        return cls(name, PublicKey("ed25519", raw[1:]))

    @property
    def key_hash(self) -> bytes:
        """The four bytes that name the key in a signature line."""
        return _key_hash(self.name, self.key.material)

    def text(self) -> str:
        """The verifier key `NAME+HASH+BASE64`: what an auditor pins."""
        return f"{self.name}+{self.key_hash.hex()}+{b64encode(_ED25519 + self.key.material)}"


@dataclass(frozen=True, slots=True)
class NoteSigner:
    """The log's private key with its name."""

    name: str
    key: PrivateKey

    def __post_init__(self) -> None:
        _check_name(self.name)

    @property
    def verifier(self) -> NoteVerifier:
        """The public half."""
        return NoteVerifier(self.name, self.key.public)


def sign_note(text: str, *signers: NoteSigner) -> str:
    """Sign a note's text (which ends in a newline) with each of the keys.

    Raises:
        Malformed: not a text that a note can hold.
    """
    _check_text(text)
    lines = []
    for signer in signers:
        signature = signer.verifier.key_hash + signer.key.sign_raw(text.encode())
        lines.append(f"— {signer.name} {b64encode(signature)}\n")
    return text + "\n" + "".join(lines)


def verify_note(note: str, *verifiers: NoteVerifier) -> str:
    """Verify a signed note; returns its text. One good signature by any of the keys is enough.

    Raises:
        Malformed: not a signed note.
        SignatureInvalid: a signature that names one of the keys does not fit.
        UnknownKey: none of the keys signed.
    """
    where = "signed note"
    if not isinstance(note, str) or len(note) > MAX_NOTE:
        raise Malformed(f"is longer than {MAX_NOTE} letters", where=where)
    head, separator, tail = note.rpartition("\n\n")
    text = head + "\n"
    if not separator or not tail.endswith("\n"):
        raise Malformed("has no signatures behind a blank line", where=where)
    _check_text(text)
    lines = tail[:-1].split("\n")
    if len(lines) > MAX_SIGNATURES:
        raise Malformed(f"carries more than {MAX_SIGNATURES} signatures", where=where)
    known = {(verifier.name, verifier.key_hash): verifier for verifier in verifiers}
    good = 0
    for line in lines:
        name, raw = _signature_line(line, where)
        verifier = known.get((name, raw[:4]))
        if verifier is None:
            continue
        try:
            verifier.key.verify_raw(raw[4:], text.encode())
        except SignatureInvalid:
            raise SignatureInvalid(
                f"the signature of {name} does not fit",
                where=where,
                remedy="the text was changed; fetch it again, and compare with another copy",
            ) from None
        good += 1
    if not good:
        raise UnknownKey(
            "is signed by none of the pinned log keys", where=where, remedy="check the log key you pinned"
        )
    return text


def _signature_line(line: str, where: str) -> tuple[str, bytes]:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != "—" or not _NAME.fullmatch(parts[1]):
        raise Malformed("a signature line is `— NAME BASE64`", where=where)
    try:
        raw = base64.b64decode(parts[2], validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("a signature is not base64", where=where) from None
    if len(raw) < 5:
        raise Malformed("a signature is cut off", where=where)
    return parts[1], raw


def _check_text(text: str) -> None:
    where = "signed note"
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Malformed("is not Unicode text", where=where) from None
    if not text.endswith("\n") or any(letter < " " and letter != "\n" for letter in text):
        raise Malformed("the text must end in a newline and hold no control characters", where=where)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The state of a log at a size.

    Attributes:
        origin: the log's name.
        size: the number of entries.
        root: the Merkle root over them, 32 bytes.
        extensions: further lines, uninterpreted.
    """

    origin: str
    size: int
    root: bytes
    extensions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        where = "checkpoint"
        if len(self.root) != HASH_SIZE or not 0 <= self.size < MAX_SIZE:
            raise Malformed("the size or the root is not one", where=where)
        lines = (self.origin, *self.extensions)
        if any(not line or not line.isprintable() for line in lines):
            raise Malformed("the origin and each extension is one line that is not empty", where=where)

    def text(self) -> str:
        """The body that is signed."""
        return "\n".join((self.origin, str(self.size), b64encode(self.root), *self.extensions)) + "\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read a checkpoint's body.

        Raises:
            Malformed: not a checkpoint.
        """
        where = "checkpoint"
        if not isinstance(text, str) or len(text) > MAX_NOTE or not text.endswith("\n"):
            raise Malformed("is not a text that ends in a newline", where=where)
        lines = text[:-1].split("\n")
        if len(lines) < 3 or not _SIZE.fullmatch(lines[1]) or int(lines[1]) >= MAX_SIZE:
            raise Malformed("does not hold an origin, a size and a root", where=where)
        root = b64decode(lines[2], where=where, length=HASH_SIZE)
        return cls(lines[0], int(lines[1]), root, tuple(lines[3:]))


def sign_checkpoint(checkpoint: Checkpoint, *signers: NoteSigner) -> str:
    """A checkpoint as a signed note."""
    return sign_note(checkpoint.text(), *signers)


def verify_checkpoint(note: str, *verifiers: NoteVerifier, origin: str | None = None) -> Checkpoint:
    """Verify a signed checkpoint.

    Args:
        note: the signed note.
        verifiers: the pinned log keys; one of them must have signed.
        origin: the log's name that it must bear; None for the name of any of the keys.

    Raises:
        Malformed: not a signed checkpoint, or of another log.
        SignatureInvalid: a signature does not fit.
        UnknownKey: none of the keys signed.
    """
    checkpoint = Checkpoint.parse(verify_note(note, *verifiers))
    allowed = {origin} if origin is not None else {verifier.name for verifier in verifiers}
    if checkpoint.origin not in allowed:
        raise Malformed(f"belongs to the log {checkpoint.origin[:120]!r}, not to ours", where="checkpoint")
    return checkpoint


def format_proof(index: int, path: Sequence[bytes], checkpoint: str) -> str:
    """An inclusion proof and a signed checkpoint in one text (C2SP `tlog-proof`)."""
    lines = [PROOF_HEADER, f"index {index}", *(b64encode(step) for step in path)]
    return "\n".join(lines) + "\n\n" + checkpoint


def parse_proof(proof: str) -> tuple[int, list[bytes], str]:
    """The index, the path and the signed checkpoint of a `tlog-proof`, **unverified**.

    Raises:
        Malformed: not such a text.
    """
    where = "log proof"
    if not isinstance(proof, str) or len(proof) > 2 * MAX_NOTE:
        raise Malformed("is too long", where=where)
    head, _, checkpoint = proof.partition("\n\n")
    lines = head.split("\n")
    if lines[0] != PROOF_HEADER or len(lines) < 2 or len(lines) > 2 + 64:
        raise Malformed(f"does not begin with {PROOF_HEADER}", where=where)
    word, _, number = lines[1].partition(" ")
    if word != "index" or not _SIZE.fullmatch(number):
        raise Malformed("names no index", where=where)
    return int(number), [b64decode(line, where=where, length=HASH_SIZE) for line in lines[2:]], checkpoint


def verify_proof(
    proof: str, leaf: bytes, *verifiers: NoteVerifier, origin: str | None = None
) -> tuple[int, Checkpoint]:
    """Verify offline that a leaf is in the log; returns its index and the checkpoint that commits to it.

    Raises:
        Malformed: not a proof.
        SignatureInvalid: the checkpoint's signature does not fit.
        UnknownKey: the checkpoint is signed by none of the pinned keys.
        ProofInvalid: the leaf is not where the proof says.
    """
    index, path, note = parse_proof(proof)
    checkpoint = verify_checkpoint(note, *verifiers, origin=origin)
    verify_inclusion(leaf_hash(leaf), index, checkpoint.size, path, checkpoint.root)
    return index, checkpoint
