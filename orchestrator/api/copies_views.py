"""What the API shows of copies: rotations of keys and what became of the old files, issued copies, receipts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from orchestrator.api.views import Timed, View
from orchestrator.domain.commands import Envelope
from orchestrator.domain.preview import disclosed_words
from orchestrator.domain.state import ReleaseState, Rotation, Superseded
from orchestrator.domain.values import Digest, Frozen, Instant, Line, Name, Text
from orchestrator.records.issued import IssuedCopy, IssuedFile, StoredReceipt


class RotateKeysBody(Frozen):
    """Which components get new keys, and what becomes of the old sealed files."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"components": ["weights"], "reason": "A laptop with a key was lost."}]
        }
    )

    components: Annotated[list[Name], Field(min_length=1, max_length=500)]
    reason: Text
    delete_old: bool = Field(
        default=False, description="delete the old sealed files once the new ones are complete"
    )


class RotationView(View):
    """One rotation. `disclosed` says plainly what it cannot take back."""

    id: Name
    status: Literal["pending", "done", "failed"]
    components: list[Name]
    artifacts: list[Name] = Field(description="what is sealed anew: artifacts, and grants' own copies")
    done: dict[Name, Name] = Field(description="old artifact → new one")
    reason: Text | None
    incident: Name | None
    delete_old: bool
    by: Name
    at: Instant
    ended_at: Instant | None
    failed: Text | None
    disclosed: Line


class SupersededView(View):
    """An artifact in whose place another stands, and what became of its sealed files."""

    artifact: Name
    by: Name
    manifest_digest: Digest
    location: Line
    at: Instant
    rotation: Name
    fate: Literal["kept", "to_be_deleted", "deleted"]


class RotationList(Timed):
    """Rotations of a release, the latest first, and what they replaced."""

    release: Name
    items: list[RotationView]
    superseded: list[SupersededView]


class IssuedCopyView(View):
    """One partner's marked copy, with the exact digests that only it has."""

    entry: int = Field(description="its place in the audit log")
    artifact: Name
    of: Name
    step: Name
    grant: str
    holder: Name
    manifest_digest: Digest
    mark: Digest = Field(description="the commitment to the key of its mark")
    files: list[IssuedFile]
    at: Instant


class IssuedCopyList(Timed):
    """Issued copies of a release in the order in which they were made."""

    release: Name
    items: list[IssuedCopyView]


class ReceiptBody(Frozen):
    """A receipt that the partner's client signed (docs/predicates/receipt.md)."""

    envelope: Envelope


class ReceiptView(View):
    """A receipt as it stands in the audit log."""

    entry: int
    grant: str
    partner: Name
    member: Name
    statement: Digest
    copy_digest: Digest
    manifests: dict[Name, Digest]
    envelope: str
    at: Instant


class ReceiptDetail(ReceiptView, Timed):
    """A receipt."""


class ReceiptList(Timed):
    """Receipts of a grant in the order in which they came."""

    release: Name
    items: list[ReceiptView]


def rotation_view(state: ReleaseState, rotation: Rotation) -> RotationView:
    """A rotation as it is shown."""
    fields = {name: getattr(rotation, name) for name in Rotation.model_fields}
    status = "pending" if rotation.pending else "failed" if rotation.failed else "done"
    told = disclosed_words(state, rotation.components, rotation.at)
    return RotationView(**fields, status=status, disclosed=told[:200])


def superseded_view(old: Superseded) -> SupersededView:
    """A superseded artifact as it is shown."""
    return SupersededView(**dict(old))


def issued_view(copy: IssuedCopy) -> IssuedCopyView:
    """An issued copy as it is shown."""
    fields = {name: getattr(copy, name) for name in IssuedCopyView.model_fields if name != "artifact"}
    return IssuedCopyView(**fields, artifact=copy.copy_id)


def receipt_fields(found: StoredReceipt) -> dict[str, object]:
    """A receipt's fields as they are shown."""
    return {name: getattr(found, name) for name in ReceiptView.model_fields}
