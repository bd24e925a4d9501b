"""The manifest: what an artifact consists of, signed, readable without a key, with a sealed part inside each entry.

It is an in-toto Statement v1 (canonical JSON) in a DSSE file. The **manifest digest** is the SHA-256 of the statement's
bytes, the DSSE payload: it does not depend on who signed. Everything here is held to at parse time, before anything
else looks at a value (docs/sealed-format.md section 4):

- one spelling (RFC 8785), a size cap, no unknown member, numbers in range;
- paths that are safe everywhere (`artifacts.paths`), listed in order, once;
- part lists that follow from size and part size, subjects that follow from part lists.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from artifacts.body import CHUNK, MAX_PARTS, Layout, inner_context, open_bytes, seal_bytes, sealed_size
from artifacts.dealt import DealtShares
from artifacts.encoding import b64, canonical_json, parse_canonical_json, unb64
from artifacts.errors import IntegrityError, KeyProviderError, ManifestError
from artifacts.keys import FileKey, check_digest, custody_recipient
from artifacts.paths import MAX_PATH_BYTES, check_paths
from artifacts.signing import SigningKey, VerifyKey, parse_dsse, verify_dsse

FORMAT = "sluice.release/sealed/v1"
PREDICATE_TYPE = "https://sluice.release/sealed-manifest/v1"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
SUBJECT_DIGEST = "sluicePartsSha256"
MAX_MANIFEST_BYTES = 32 * 1024 * 1024
MAX_FILES = 100_000
MAX_SIZE = 2**53 - 1

_ID = re.compile(r"[a-z0-9][a-z0-9_-]{7,63}")

Hex64 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Size = Annotated[int, Field(ge=0, le=MAX_SIZE)]
Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Part(_Strict):
    """One sealed part: its bytes and their SHA-256."""

    size: Annotated[int, Field(ge=72, le=MAX_SIZE)]
    sha256: Hex64


class FileEntry(_Strict):
    """One sealed file.

    Attributes:
        path: relative POSIX path.
        component: the component it belongs to.
        version: counts re-sealings of this path under the same root; part of the file key.
        size: plaintext bytes.
        part_size: plaintext bytes of every part but the last.
        sealed_size: bytes of the sealed file.
        parts: the sealed parts in order.
        inner: base64 of the sealed inner part (plaintext digests, tensor index), opened with the file key.
    """

    path: Annotated[str, Field(min_length=1, max_length=MAX_PATH_BYTES)]
    component: Name
    version: Annotated[int, Field(ge=1, le=2**31)]
    size: Size
    part_size: Annotated[int, Field(ge=CHUNK, le=MAX_SIZE, multiple_of=CHUNK)]
    sealed_size: Size
    parts: Annotated[list[Part], Field(min_length=1, max_length=MAX_PARTS)]
    inner: Annotated[str, Field(min_length=4)]

    @property
    def layout(self) -> Layout:
        """Where parts lie, in plaintext and sealed."""
        return Layout(self.size, self.part_size)

    def parts_digest(self) -> str:
        """SHA-256 over the concatenated raw part digests: the file's digest among the statement's subjects."""
        return hashlib.sha256(b"".join(bytes.fromhex(part.sha256) for part in self.parts)).hexdigest()


class _Body(_Strict):
    suite: Literal["cobblestone-256"] = "cobblestone-256"
    chunk_size: Literal[16384] = 16384


class _Predicate(_Strict):
    format: Literal["sluice.release/sealed/v1"]
    artifact: str
    release: Name | None
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
    body: _Body
    root_commitment: Hex64
    custody: Hex64
    components: Annotated[list[Name], Field(min_length=1, max_length=1000)]
    files: Annotated[list[FileEntry], Field(min_length=1, max_length=MAX_FILES)]
    shares: DealtShares | None = None

    @field_validator("shares", mode="before")
    @classmethod
    def _left_out(cls, value: Any) -> Any:
        """One spelling: an artifact without shares has no such member."""
        if value is None:
            raise ValueError("left out where no shares were dealt")
        return value


class _Subject(_Strict):
    name: Name
    digest: dict[str, Hex64]


class _Statement(_Strict):
    type_: Literal["https://in-toto.io/Statement/v1"] = Field(alias="_type")
    subject: list[_Subject]
    predicate_type: Literal["https://sluice.release/sealed-manifest/v1"] = Field(alias="predicateType")
    predicate: _Predicate


@dataclass(frozen=True, slots=True)
class Inner:
    """What a file entry keeps sealed.

    Attributes:
        digests: algorithm -> hex digest of the whole plaintext; at least one.
        tensors: safetensors name -> dtype, shape and [start, end) byte offsets in the plaintext file; None for other files.
        signatures: what observers of the sealing left (leak signatures), by name.
    """

    digests: Mapping[str, str]
    tensors: Mapping[str, Mapping[str, Any]] | None = None
    signatures: Mapping[str, Any] | None = None

    def to_bytes(self) -> bytes:
        """Canonical JSON."""
        value = {"digests": dict(self.digests), "signatures": self.signatures, "tensors": self.tensors}
        return canonical_json(value)

    def __repr__(self) -> str:
        return f"Inner(digests={sorted(self.digests)}, tensors={len(self.tensors or {})})"


@dataclass(frozen=True, slots=True)
class Manifest:
    """A parsed manifest.

    `data` is the DSSE file, `digest` the manifest digest, `signer` who signed if that was checked, `shares` the key shares
    that were dealt for it, if any.
    """

    artifact_id: str
    release: str | None
    created: str
    root_commitment: str
    custody: str
    components: tuple[str, ...]
    files: tuple[FileEntry, ...]
    digest: str
    data: bytes
    signer: VerifyKey | None
    shares: DealtShares | None = None

    def __repr__(self) -> str:
        return f"Manifest({self.artifact_id}, {len(self.files)} files, digest={self.digest})"

    def file(self, path: str) -> FileEntry:
        """The entry of `path`; `ManifestError` if there is none."""
        for entry in self.files:
            if entry.path == path:
                return entry
        raise ManifestError(f"artifact {self.artifact_id}: the manifest has no file {path[:200]!a}")

    def of_components(self, components: Sequence[str]) -> tuple[FileEntry, ...]:
        """The files of these components; unknown names are an error."""
        unknown = sorted(set(components) - set(self.components))
        if unknown:
            raise ManifestError(
                f"artifact {self.artifact_id}: no component {unknown[0]!r}; it has {list(self.components)}"
            )
        return tuple(f for f in self.files if f.component in components)

    @property
    def size(self) -> int:
        """Plaintext bytes of all files."""
        return sum(f.size for f in self.files)


def check_artifact_id(artifact_id: str) -> str:
    """Give the id back if it is well formed: 8 to 64 of `a-z 0-9 _ -`."""
    if not _ID.fullmatch(artifact_id):
        raise ManifestError(f"artifact id {artifact_id[:80]!a}: must be 8 to 64 of a-z, 0-9, _ and -")
    return artifact_id


def manifest_key(artifact_id: str) -> str:
    """The store key of an artifact's manifest."""
    return f"artifacts/{check_artifact_id(artifact_id)}/manifest.dsse.json"


def wrapped_root_key(artifact_id: str) -> str:
    """The store key of an artifact's root, wrapped to custody."""
    return f"artifacts/{check_artifact_id(artifact_id)}/root.wrapped"


def signature_key(artifact_id: str, manifest_digest: str) -> str:
    """The store key of an artifact's weight signature, sealed to the leak monitor."""
    return f"artifacts/{check_artifact_id(artifact_id)}/signature-{manifest_digest[:16]}.sealed"


def file_prefix(artifact_id: str) -> str:
    """The store keys of an artifact's sealed files begin with this."""
    return f"artifacts/{check_artifact_id(artifact_id)}/files/"


def file_object_key(artifact_id: str, path: str) -> str:
    """The store key of one sealed file."""
    return file_prefix(artifact_id) + path


def seal_inner(artifact_id: str, path: str, key: FileKey, inner: Inner) -> str:
    """The `inner` member of a file entry."""
    return b64(seal_bytes(key, inner_context(artifact_id, path), inner.to_bytes()))


def open_inner(artifact_id: str, entry: FileEntry, key: FileKey) -> Inner:
    """Open the sealed part of a file entry.

    Raises:
        WrongKeyError: another file's key.
        IntegrityError: changed.
    """
    where = f"artifact {artifact_id}: {entry.path}: inner part"
    sealed = unb64(entry.inner, IntegrityError, where)
    value = parse_canonical_json(
        open_bytes(key, inner_context(artifact_id, entry.path), sealed, where), IntegrityError, where
    )
    if (
        not isinstance(value, dict)
        or set(value) != {"digests", "signatures", "tensors"}
        or not value["digests"]
    ):
        raise IntegrityError(f"{where}: not what this format seals there")
    return Inner(value["digests"], value["tensors"], value["signatures"])


def build_manifest(
    *,
    artifact_id: str,
    release: str | None,
    root_commitment: str,
    custody_fingerprint: str,
    files: Sequence[FileEntry],
    signer: SigningKey,
    created: datetime | None = None,
    shares: DealtShares | None = None,
) -> Manifest:
    """Make and sign a manifest; the result went through the same checks that a reader makes."""
    ordered = sorted(files, key=lambda f: f.path.encode())
    statement = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": f.path, "digest": {SUBJECT_DIGEST: f.parts_digest()}} for f in ordered],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "format": FORMAT,
            "artifact": artifact_id,
            "release": release,
            "created": (created or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "body": {"suite": "cobblestone-256", "chunk_size": CHUNK},
            "root_commitment": root_commitment,
            "custody": custody_fingerprint,
            "components": sorted({f.component for f in ordered}),
            "files": [f.model_dump() for f in ordered],
            **({} if shares is None else {"shares": shares.model_dump(by_alias=True)}),
        },
    }
    return parse_manifest(signer.sign(canonical_json(statement), PAYLOAD_TYPE), trusted=[signer.verify_key])


def parse_manifest(
    data: bytes,
    *,
    trusted: Sequence[VerifyKey] | None = None,
    expected_digest: str | None = None,
) -> Manifest:
    """Read a manifest and hold it to every rule of the format.

    Args:
        data: the DSSE file.
        trusted: identities of which one must have signed.
        expected_digest: the manifest digest known from elsewhere (an envelope, the event log). At least one of the
            two must be given: a manifest that nothing vouches for is refused.

    Raises:
        ManifestError: and `PathError`, its subclass.
        IntegrityError: it is another manifest than the expected one.
    """
    what = "manifest"
    if trusted is None and expected_digest is None:
        raise ManifestError(f"{what}: nothing vouches for it; give the signer's key or the expected digest")
    signer: VerifyKey | None = None
    if trusted is not None:
        payload, signer = verify_dsse(data, PAYLOAD_TYPE, trusted, ManifestError, what, MAX_MANIFEST_BYTES)
    else:
        payload, _ = parse_dsse(data, PAYLOAD_TYPE, ManifestError, what, MAX_MANIFEST_BYTES)
    digest = hashlib.sha256(payload).hexdigest()
    if expected_digest is not None and digest != check_digest(
        expected_digest, ManifestError, "manifest digest"
    ):
        raise IntegrityError(
            f"{what}: digest {digest}, expected {expected_digest}; it is not the one that was released"
        )
    value = parse_canonical_json(payload, ManifestError, what)
    try:
        statement = _Statement.model_validate(value)
    except ValidationError as invalid:
        first = invalid.errors(include_input=False, include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])[:200]
        raise ManifestError(f"{what}: {place}: {first['msg']}") from None
    _check_rules(statement)
    predicate = statement.predicate
    return Manifest(
        artifact_id=predicate.artifact,
        release=predicate.release,
        created=predicate.created,
        root_commitment=predicate.root_commitment,
        custody=predicate.custody,
        components=tuple(predicate.components),
        files=tuple(predicate.files),
        digest=digest,
        data=bytes(data),
        signer=signer,
        shares=predicate.shares,
    )


def _check_rules(statement: _Statement) -> None:
    predicate = statement.predicate
    check_artifact_id(predicate.artifact)
    try:
        datetime.fromisoformat(predicate.created)
    except ValueError:
        raise ManifestError(f"manifest: created {predicate.created!r} is no time") from None
    if predicate.shares is not None:
        _check_shares(predicate.shares, predicate.custody)
    paths = [entry.path for entry in predicate.files]
    check_paths(paths)
    if paths != sorted(paths, key=lambda p: p.encode()):
        raise ManifestError("manifest: files are not in order of their paths")
    if predicate.components != sorted({entry.component for entry in predicate.files}):
        raise ManifestError("manifest: components are not exactly those of the files, in order")
    expected = [{"name": f.path, "digest": {SUBJECT_DIGEST: f.parts_digest()}} for f in predicate.files]
    if [subject.model_dump() for subject in statement.subject] != expected:
        raise ManifestError("manifest: the subjects do not follow from the part lists")
    for entry in predicate.files:
        layout = entry.layout
        if entry.sealed_size != layout.sealed_size:
            raise ManifestError(
                f"manifest: {entry.path}: sealed_size does not follow from size and part_size"
            )
        sizes = [layout.sealed_length(i) for i in range(min(layout.part_count, MAX_PARTS + 1))]
        if [part.size for part in entry.parts] != sizes:
            raise ManifestError(
                f"manifest: {entry.path}: the part list does not follow from size and part_size"
            )
        if len({part.sha256 for part in entry.parts}) != len(entry.parts):
            raise ManifestError(f"manifest: {entry.path}: the same part is listed twice")
        if len(unb64(entry.inner, ManifestError, f"manifest: {entry.path}: inner")) < sealed_size(0):
            raise ManifestError(f"manifest: {entry.path}: the inner part is not sealed")


def _check_shares(shares: DealtShares, custody: str) -> None:
    try:
        known = custody_recipient(shares.custody).fingerprint
    except KeyProviderError as error:
        raise ManifestError(f"manifest: shares.custody: {error}") from None
    if known != custody:
        raise ManifestError("manifest: shares.custody is another key than `custody`")


def statement_of(manifest: Manifest) -> dict[str, Any]:
    """The in-toto statement as plain JSON values, for showing."""
    payload, _ = parse_dsse(manifest.data, PAYLOAD_TYPE, ManifestError, "manifest", MAX_MANIFEST_BYTES)
    return cast("dict[str, Any]", parse_canonical_json(payload, ManifestError, "manifest"))
