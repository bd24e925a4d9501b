"""Envelopes: how the keys of an artifact's files reach the people a gate let in.

An envelope is an age file (`artifacts.age`), detached from the sealed files: adding or removing a recipient touches no
ciphertext. Inside is a DSSE file signed by custody (`artifacts.signing`), whose payload is canonical JSON: which keys,
of which manifest, for which release, step and grant, until when, for which recipients, and the log proof. The same
signed payload without age around it is the public record of an `open` step. Bytes: docs/sealed-format.md section 7.

Checked by `open_envelope`, in this order: the age file, the signatures, the format, that this identity is among the
recipients named inside (a copy re-encrypted for somebody else is refused), the time, the log proof.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from artifacts import age
from artifacts.encoding import b64, canonical_json, parse_canonical_json, unb64
from artifacts.errors import ArtifactError, EnvelopeError, ExpiredError
from artifacts.keys import KEY_BYTES, FileKey, HybridIdentity, RootKey, partner_identity, partner_recipient
from artifacts.manifest import MAX_FILES, Hex64, Manifest, Name
from artifacts.paths import MAX_PATH_BYTES, check_paths
from artifacts.signing import SigningKey, VerifyKey, verify_dsse

FORMAT = "sluice.release/envelope/v1"
PAYLOAD_TYPE = "application/vnd.sluice.envelope+json"
MAX_ENVELOPE_BYTES = 32 * 1024 * 1024

ProofVerifier = Callable[[Mapping[str, Any], "EnvelopePayload"], None]
"""Given the `log` member and the payload; raises `EnvelopeError` (or any `ArtifactError`) when the proof does not hold."""

_Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]


@dataclass(frozen=True, slots=True)
class EnvelopePayload:
    """What an envelope says.

    Attributes:
        artifact_id: the artifact.
        manifest_digest: hex; the keys are for the files of exactly this manifest.
        release: release id.
        step: name of the step whose gate let the recipients in.
        grant: id of the grant that this envelope fulfils.
        keys: path -> file key; only the files that the step discloses.
        issued_at: when custody made it.
        not_after: when it stops being accepted; None for a public record.
        recipients: fingerprints (hex SHA-256) of the recipients' public keys; empty in a public record.
        log: the inclusion proof in the audit log, opaque here (checkpoint, leaf, proof).
    """

    artifact_id: str
    manifest_digest: str
    release: str
    step: str
    grant: str
    keys: Mapping[str, FileKey] = field(repr=False)
    issued_at: datetime
    not_after: datetime | None
    recipients: tuple[str, ...] = ()
    log: Mapping[str, Any] | None = None

    def key(self, path: str) -> FileKey:
        """The key of one file; `EnvelopeError` if this envelope does not hold it."""
        try:
            return self.keys[path]
        except KeyError:
            raise EnvelopeError(
                f"envelope: holds no key for {path!a}; the step {self.step!r} does not disclose it"
            ) from None


class _Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    format: Literal["sluice.release/envelope/v1"]
    artifact: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{7,63}$")]
    manifest: Hex64
    release: Name
    step: Name
    grant: Name
    issued_at: _Time
    not_after: _Time | None
    recipients: Annotated[list[Hex64], Field(max_length=2000)]
    keys: Annotated[
        dict[
            Annotated[str, Field(max_length=MAX_PATH_BYTES)],
            Annotated[str, Field(min_length=44, max_length=44)],
        ],
        Field(min_length=1, max_length=MAX_FILES),
    ]
    log: dict[str, Any] | None


def _stamp(time: datetime) -> str:
    if time.tzinfo is None:
        raise EnvelopeError("envelope: times need a time zone")
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise EnvelopeError(f"envelope: {text!r} is no time") from None


def file_keys(
    root: RootKey, manifest: Manifest, components: Sequence[str] | None = None
) -> dict[str, FileKey]:
    """The file keys of some components (all when None), for `EnvelopePayload.keys`. Inside custody."""
    entries = manifest.files if components is None else manifest.of_components(components)
    return {entry.path: root.file_key(manifest.artifact_id, entry.path, entry.version) for entry in entries}


def _sign(payload: EnvelopePayload, recipients: Sequence[str], signer: SigningKey) -> bytes:
    wire = {
        "format": FORMAT,
        "artifact": payload.artifact_id,
        "manifest": payload.manifest_digest,
        "release": payload.release,
        "step": payload.step,
        "grant": payload.grant,
        "issued_at": _stamp(payload.issued_at),
        "not_after": None if payload.not_after is None else _stamp(payload.not_after),
        "recipients": list(recipients),
        "keys": {path: b64(key.raw) for path, key in payload.keys.items()},
        "log": None if payload.log is None else dict(payload.log),
    }
    data = canonical_json(wire)
    _parse(data)
    return signer.sign(data, PAYLOAD_TYPE)


def make_envelope(payload: EnvelopePayload, recipients: Sequence[str], signer: SigningKey) -> bytes:
    """Sign `payload` and encrypt it to `recipients` (`age1pq1...`).

    Raises:
        EnvelopeError: no recipient, no end of validity, or a payload that no client would accept.
        KeyProviderError: a recipient string that is none; classical `age1...` keys are refused.
    """
    if payload.not_after is None:
        raise EnvelopeError("envelope: needs a not_after; only a public record has none")
    parsed = [partner_recipient(text) for text in recipients]
    fingerprints = sorted({r.fingerprint for r in parsed})
    if len(fingerprints) != len(parsed):
        raise EnvelopeError("envelope: the same recipient is given twice")
    return age.encrypt(_sign(payload, fingerprints, signer), parsed)


def open_envelope(
    data: bytes,
    identity: str | HybridIdentity,
    *,
    now: datetime,
    verify_keys: Sequence[VerifyKey],
    proof_verifier: ProofVerifier | None = None,
) -> EnvelopePayload:
    """Open an envelope as its recipient.

    Args:
        data: the age file.
        identity: the recipient's secret string (or the file that `age-keygen -pq` wrote), or the parsed key.
        now: the time to hold `not_after` against, with time zone.
        verify_keys: custody's verification keys; one of them must have signed.
        proof_verifier: called with the `log` member; when given, an envelope without one is refused.

    Raises:
        ExpiredError: `not_after` has passed.
        EnvelopeError: everything else.
    """
    if len(data) > MAX_ENVELOPE_BYTES:
        raise EnvelopeError(f"envelope: {len(data)} bytes, at most {MAX_ENVELOPE_BYTES} are accepted")
    holder = partner_identity(identity) if isinstance(identity, str) else identity
    payload = _verified(age.decrypt(data, holder), verify_keys, "envelope")
    if holder.recipient.fingerprint not in payload.recipients:
        raise EnvelopeError(
            "envelope: this key is not among the recipients that custody signed for; it was passed on"
        )
    if payload.not_after is None:
        raise EnvelopeError("envelope: has no end of validity")
    if now >= payload.not_after:
        raise ExpiredError(
            f"envelope: ended {_stamp(payload.not_after)}; ask the owner of release {payload.release!a} for a new one"
        )
    _check_log(payload, proof_verifier)
    return payload


def make_public_record(payload: EnvelopePayload, signer: SigningKey) -> bytes:
    """The signed public record of an `open` step: the same payload, in clear, for everyone and without end."""
    if payload.not_after is not None:
        raise EnvelopeError("public record: what is public stays public; not_after must be None")
    return _sign(payload, (), signer)


def open_public_record(
    data: bytes, *, verify_keys: Sequence[VerifyKey], proof_verifier: ProofVerifier | None = None
) -> EnvelopePayload:
    """Read a public record and verify its signatures and, with a `proof_verifier`, its log proof."""
    payload = _verified(data, verify_keys, "public record")
    if payload.recipients or payload.not_after is not None:
        raise EnvelopeError("public record: names recipients or an end; it is an envelope that was published")
    _check_log(payload, proof_verifier)
    return payload


def _check_log(payload: EnvelopePayload, proof_verifier: ProofVerifier | None) -> None:
    if proof_verifier is None:
        return
    if payload.log is None:
        raise EnvelopeError(
            "envelope: carries no proof that it stands in the audit log; refused, tell the release's owner"
        )
    try:
        proof_verifier(payload.log, payload)
    except ArtifactError:
        raise
    except Exception as cause:
        # whatever a verifier stumbles over in a hostile proof is a proof that does not hold
        raise EnvelopeError(f"envelope: its log proof does not hold ({type(cause).__name__})") from cause


def _verified(signed: bytes, verify_keys: Sequence[VerifyKey], what: str) -> EnvelopePayload:
    data, _ = verify_dsse(signed, PAYLOAD_TYPE, verify_keys, EnvelopeError, what, MAX_ENVELOPE_BYTES)
    return _parse(data)


def _parse(data: bytes) -> EnvelopePayload:
    value = parse_canonical_json(data, EnvelopeError, "envelope")
    try:
        wire = _Wire.model_validate(value)
    except ValidationError as invalid:
        first = invalid.errors(include_input=False, include_url=False)[0]
        # the first step of the place only: a path below `keys` is fine to show, a key would not be
        raise EnvelopeError(
            f"envelope: {first['loc'][0] if first['loc'] else ''!s}: {first['msg']}"
        ) from None
    check_paths(wire.keys)
    keys = {}
    for path, text in wire.keys.items():
        raw = unb64(text, EnvelopeError, f"envelope: key of {path!a}")
        if len(raw) != KEY_BYTES:
            raise EnvelopeError(f"envelope: key of {path!a}: {len(raw)} bytes, expected {KEY_BYTES}")
        keys[path] = FileKey(raw)
    if wire.recipients != sorted(set(wire.recipients)):
        raise EnvelopeError("envelope: recipients are not in order, once each")
    return EnvelopePayload(
        artifact_id=wire.artifact,
        manifest_digest=wire.manifest,
        release=wire.release,
        step=wire.step,
        grant=wire.grant,
        keys=keys,
        issued_at=_time(wire.issued_at),
        not_after=None if wire.not_after is None else _time(wire.not_after),
        recipients=tuple(wire.recipients),
        log=wire.log,
    )
