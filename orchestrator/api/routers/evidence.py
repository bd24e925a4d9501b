"""Evidence: documents bound by their digest. Their texts are kept sealed, or lie elsewhere."""

from __future__ import annotations

import json
from typing import Annotated

from fastapi import APIRouter, Depends, File, Form, Path, Response, UploadFile
from fastapi.concurrency import run_in_threadpool
from pydantic import ValidationError

from orchestrator.api import administration as adm
from orchestrator.api import bodies, views
from orchestrator.api.auth import commanded, guarded, reading
from orchestrator.api.deps import Deps, Parts
from orchestrator.api.problems import malformed
from orchestrator.api.sending import Sending, sends
from orchestrator.domain import commands as cmd
from orchestrator.domain.errors import Malformed, NotFound, Reason
from orchestrator.domain.events import EvidenceSubmitted
from orchestrator.domain.evidence import Consideration, EvidenceKind, Rating, RiskAssessment
from orchestrator.domain.permissions import Permission
from orchestrator.domain.state import ReleaseState
from orchestrator.domain.values import Digest, Line, Name, canonical
from orchestrator.records import database, documents, releases
from orchestrator.records.documents import Document

router = APIRouter(prefix="/v1/releases/{release}/evidence", tags=["evidence"])

Submit = Annotated[Sending, Depends(sends(Permission.EVIDENCE_ADD))]
State = Annotated[ReleaseState, Depends(reading())]

SHOWN_AS = frozenset(
    {"text/plain", "text/markdown", "text/yaml", "text/csv", "application/json", "application/pdf"}
)
OTHER = "application/octet-stream"


@router.get("", operation_id="listEvidence", **guarded(Permission.RELEASE_READ, 404))
def list_evidence(state: State, deps: Parts) -> views.EvidenceList:
    """The latest document of each kind and step, newest first."""
    return views.evidence_list(state, deps.now())


@router.post("", operation_id="submitEvidence", **commanded(Permission.EVIDENCE_ADD))
async def submit(body: bodies.EvidenceBody, send: Submit) -> views.CommandResult:
    """Bind a document that lies elsewhere, by its digest."""
    return await send(cmd.SubmitEvidence(**send.head, **dict(body)))


@router.post("/assessments", operation_id="submitAssessment", **commanded(Permission.EVIDENCE_ADD))
async def assess(body: adm.AssessmentBody, send: Submit) -> adm.DocumentResult:
    """Fill in a risk assessment: all six considerations, for one step. Stored sealed, bound by its digest."""
    fields = {"step": body.step, "considerations": body.considerations}
    assessment = _assessment(fields, below="body")
    text = canonical(assessment.model_dump(mode="json"))
    return await _store_and_bind(
        send,
        text,
        "application/json",
        EvidenceKind.RISK_ASSESSMENT,
        body.title,
        body.step,
        assessment.ratings,
    )


@router.post("/documents", operation_id="uploadEvidence", **commanded(Permission.EVIDENCE_ADD))
async def upload(
    send: Submit,
    file: Annotated[UploadFile, File(description="the document; a risk assessment as JSON")],
    kind: Annotated[EvidenceKind, Form()],
    title: Annotated[Line, Form()],
    step: Annotated[Name | None, Form()] = None,
) -> adm.DocumentResult:
    """Upload a document: its digest is computed here, its text is stored sealed. Ratings of an assessment are taken out."""
    data = await file.read()
    if not data:
        raise Malformed("the document is empty", [Reason("empty", "upload a file with content", "body.file")])
    ratings = None
    media_type = (file.content_type or OTHER).partition(";")[0].strip().lower()
    if kind is EvidenceKind.RISK_ASSESSMENT:
        media_type = "application/json"
        assessment = _assessment(_parsed(data), below="body.file")
        if step is not None and step != assessment.step:
            told = f"the assessment is for `{assessment.step}`, not for `{step}`"
            raise Malformed(told, [Reason("step", told, "body.step")])
        step, ratings = assessment.step, assessment.ratings
    return await _store_and_bind(send, data, media_type, kind, title, step, ratings)


def _parsed(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed(
            "the risk assessment is not JSON",
            [Reason("json", "write it as a JSON object with `step` and `considerations`", "body.file")],
        ) from None


def _assessment(value: object, *, below: str) -> RiskAssessment:
    try:
        return RiskAssessment.model_validate(value)
    except ValidationError as error:
        raise malformed(error, below=below) from None


async def _store_and_bind(
    send: Sending,
    data: bytes,
    media_type: str,
    kind: EvidenceKind,
    title: str,
    step: str | None,
    ratings: dict[Consideration, Rating] | None,
) -> adm.DocumentResult:
    """Store first, then bind: a document that is bound can always be read by those who sign."""
    shown = media_type if media_type in SHOWN_AS else OTHER
    document = await run_in_threadpool(_store, send.deps, data, shown, send.caller.id)
    done = await send(
        cmd.SubmitEvidence(
            **send.head,
            kind=kind,
            digest=document.digest,
            title=title,
            step=step,
            location=f"/v1/releases/{send.release}/evidence/documents/{document.digest}",
            ratings=ratings,
        )
    )
    return adm.DocumentResult(document=document, **dict(done))


def _store(deps: Deps, data: bytes, media_type: str, by: str) -> Document:
    with database.writing(deps.engine) as session:
        return documents.put(
            session, data, media_type=media_type, cipher=deps.documents, by=by, at=deps.now()
        )


@router.get(
    "/documents/{digest}",
    operation_id="getEvidenceDocument",
    response_class=Response,
    **{
        **guarded(Permission.RELEASE_READ, 404),
        "responses": {
            **guarded(Permission.RELEASE_READ, 404)["responses"],
            200: {
                "description": "the document's bytes",
                "content": {name: {"schema": {"type": "string"}} for name in sorted({*SHOWN_AS, OTHER})},
            },
        },
    },
)
def get_document(
    state: State,
    digest: Annotated[Digest, Path(description="digest of the document")],
    deps: Parts,
) -> Response:
    """A document that this release has bound, checked against its digest. Always sent as a file, never shown as a page."""
    with database.reading(deps.engine) as session:
        bound = any(document.digest == digest for document in state.evidence.values()) or any(
            isinstance(stored.event, EvidenceSubmitted) and stored.event.evidence.digest == digest
            for stored in releases.events(session, state.release)
        )
        if not bound:
            raise NotFound(f"this release has no document {digest}")
        found = documents.get(session, digest)
        data = documents.text(session, digest, cipher=deps.documents)
    name = digest.removeprefix("sha256:")[:16]
    return Response(
        data,
        media_type=found.media_type,
        headers={"Content-Disposition": f'attachment; filename="evidence-{name}"'},
    )
