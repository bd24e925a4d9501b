"""Bodies and views of what stands beside releases: partners, artifacts, principals and tokens, ingests, the audit log."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from orchestrator.api.views import Timed, View
from orchestrator.contracts.messages import ShareDealing
from orchestrator.domain.evidence import Consideration, Finding
from orchestrator.domain.incident import Incident
from orchestrator.domain.permissions import Role
from orchestrator.domain.values import Digest, Frozen, Instant, Line, Name
from orchestrator.records.artifacts import Artifact
from orchestrator.records.documents import Document
from orchestrator.records.partners import Partner, PartnerKey
from orchestrator.records.principals import Principal, Token

AgeRecipient = Annotated[
    str,
    StringConstraints(pattern=r"^age1pq1[02-9ac-hj-np-z]{50,2500}$"),
    Field(
        description="an age recipient (hybrid post-quantum), as `sluice partner keygen` or `age-keygen -pq` make it"
    ),
]


class PartnerBody(Frozen):
    """A new partner."""

    id: Name = Field(examples=["uni"])
    name: Line = Field(examples=["University of Example"])


class PartnerChange(Frozen):
    """Switch a partner off (no new grant is made for it) or on again."""

    active: bool


class PartnerKeyBody(Frozen):
    """A recipient to register."""

    recipient: AgeRecipient
    statement: Annotated[str, Field(max_length=24_000)] | None = Field(
        default=None, description="the signed envelope that it is registered with"
    )


class TermsBody(Frozen):
    """Terms that the partner accepts, by name or digest, as its partner group in the plan names them."""

    terms: Line


class RegisteredPartner(Partner):
    """A partner with its keys and the terms that it accepted."""


class PartnerView(RegisteredPartner, Timed):
    """A partner with its keys and the terms that it accepted."""


class PartnerKeyView(PartnerKey, Timed):
    """A registered recipient."""


class PartnerPage(Timed):
    """Partners by id."""

    items: list[RegisteredPartner]
    next_cursor: str | None


class ArtifactBody(Frozen):
    """A sealed artifact: its signed manifest and its root key, wrapped to custody."""

    manifest: str = Field(
        description="base64 of the signed manifest, byte for byte", max_length=64 * 1024 * 1024
    )
    digest: Digest = Field(description="the manifest digest, as the sealer printed it")
    location: Line = Field(description="where the sealed files lie", examples=["s3://models/sealed"])
    wrapped_root: Annotated[str, Field(max_length=24_000)] | None = Field(
        default=None, description="the root key wrapped to custody's public key; base64"
    )
    signature: Annotated[str, Field(max_length=24 * 1024 * 1024)] | None = Field(
        default=None,
        description="base64 of the weight signature that sealing made, sealed to the leak monitor; without one no copy is recognised",
    )


class ArtifactView(View):
    """A sealed artifact. Its wrapped root is not shown; whether there is one is."""

    id: Name
    manifest_digest: Digest
    location: Line
    components: list[Name]
    size: int
    uploader: Name
    created_at: Instant
    has_root: bool


class ArtifactDetail(ArtifactView, Timed):
    """A sealed artifact."""


class ArtifactPage(Timed):
    """Artifacts, newest first."""

    items: list[ArtifactView]
    next_cursor: str | None


def artifact_fields(artifact: Artifact) -> dict[str, Any]:
    """The fields of an `ArtifactView`."""
    fields = dict(artifact)
    fields["has_root"] = fields.pop("wrapped_root") is not None
    return fields


class IngestBody(Frozen):
    """Plaintext to seal and register. The same request again is the same ingest."""

    source: Line = Field(description="a path below the configured ingest folder, `s3://…` or `hf:…`")
    store: Line = Field(description="where the sealed files go")
    components: Annotated[
        dict[Name, Annotated[list[Line], Field(min_length=1, max_length=100)]],
        Field(min_length=1, max_length=500),
    ] = Field(description="component → glob patterns of its files")
    release: Name | None = Field(default=None, description="bind the artifact to this release afterwards")
    shares: ShareDealing | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="who gets a share of the key, where the plan asks for key shares (`shares:`)",
    )


class IngestView(Timed):
    """An ingest. `running`, `done` (then with its artifact) or `failed`."""

    id: Name
    status: Literal["running", "done", "failed"]
    artifact: Name | None = None
    manifest_digest: Digest | None = None
    files: int | None = None
    size: int | None = None


class AssessmentBody(Frozen):
    """A risk assessment: all six considerations, for one step."""

    step: Name
    title: Line = Field(examples=["Risk assessment of gt-mini 1.0 for the demo"])
    considerations: dict[Consideration, Finding] = Field(description="all six")


class DocumentResult(Timed):
    """A document that was stored, and what binding it did."""

    document: Document
    release: Name
    seq: int
    events: list[str]
    repeated: bool = False


class PrincipalBody(Frozen):
    """Somebody or something that may call."""

    id: Name = Field(examples=["ana"])
    name: Line = Field(examples=["Ana Example"])
    kind: Literal["person", "machine", "partner"] = "person"
    roles: Annotated[list[Role], Field(max_length=10)]
    partner: Name | None = Field(default=None, description="of a partner's account: the partner")


class PrincipalChange(Frozen):
    """New roles, or off (its tokens stop at once) or on. Left out: as it was."""

    roles: Annotated[list[Role], Field(max_length=10)] | None = None
    active: bool | None = None


class PrincipalView(Principal, Timed):
    """A principal."""


class PrincipalPage(Timed):
    """Principals by id."""

    items: list[Principal]
    next_cursor: str | None


class TokenBody(Frozen):
    """A token to issue."""

    label: Line = Field(examples=["laptop"])
    expires_at: Instant | None = None


class IssuedTokenView(Timed):
    """A new token. `text` is shown this once and kept nowhere."""

    token: Token
    text: str


class TokenView(Token, Timed):
    """A token; never its text."""


class TokenList(Timed):
    """A principal's tokens, newest first."""

    items: list[Token]


class IncidentEntry(View):
    """An incident and the release that it belongs to."""

    release: Name
    incident: Incident


class IncidentPage(Timed):
    """Incidents of all releases, newest first."""

    items: list[IncidentEntry]
    next_cursor: str | None


class AuditEntry(View):
    """An entry of the audit log. `leaf` is the canonical JSON that was hashed; `hash` the Merkle leaf hash (hex)."""

    index: int
    kind: str
    release: Name | None
    at: Instant
    leaf: str
    hash: str


class AuditPage(Timed):
    """Entries in order. Ask on with `start=next_start`."""

    size: int = Field(description="how many entries the log has")
    items: list[AuditEntry]
    next_start: int | None


class CheckpointView(Timed):
    """The latest signed checkpoint (C2SP `tlog-checkpoint`)."""

    size: int
    root: str = Field(description="base64, as in the note")
    note: str
    at: Instant
    keys: list[str] = Field(description="the log's public keys (note verifiers)")


class ProofView(Timed):
    """A Merkle proof (RFC 9162): hashes in base64, in order."""

    first: int = Field(description="the entry, or the smaller log")
    size: int = Field(description="the log that it is about")
    path: list[str]
