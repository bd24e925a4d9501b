"""`sluice evidence`: documents that gates ask for, bound by their digest."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from orchestrator.cli.client import Client
from orchestrator.cli.decisions import told
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.failures import Failure, LocalFailure
from orchestrator.cli.output import Output, command, escape, table, write_new
from orchestrator.cli.pictures import instant
from orchestrator.cli.release_commands import Key, Release
from orchestrator.domain.errors import Malformed, Reason
from orchestrator.domain.evidence import Consideration, RiskAssessment
from orchestrator.domain.values import digest_bytes

app = typer.Typer(no_args_is_help=True, help="Evidence: model cards, evaluations, risk assessments.")

Step = Annotated[
    str | None, typer.Option("--step", help="The step that it belongs to; left out: every step.")
]

_QUESTIONS = {
    Consideration.CONCENTRATION_OF_POWER: "Who gains power by this system, and who is left out? (§4.1)",
    Consideration.DISPARATE_PERFORMANCE: "Whom does it serve worse or harm? (§4.2)",
    Consideration.MISUSE: "What could be done with it, on purpose or by mistake? (§4.3)",
    Consideration.AUDITABILITY: "Who outside can examine it, and with what access? (§4.4)",
    Consideration.ACCOUNTABILITY: "Who answers for harm, and how would they know? (§4.5)",
    Consideration.VALUE_JUDGMENTS: "Whose values decide who gets access? (§4.6)",
}
_MEDIA = {
    ".md": "text/markdown",
    ".txt": "text/plain",
    ".json": "application/json",
    ".pdf": "application/pdf",
}


@command(app, "add")
def add(
    out: Output,
    release: Release,
    kind: Annotated[
        str,
        typer.Option(
            help="model_card, system_card, datasheet, data_statement, evaluation_result or risk_assessment."
        ),
    ],
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="The document; it is stored sealed.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Its title; the file's name when left out.")] = None,
    step: Step = None,
    digest: Annotated[
        str | None, typer.Option(help="Instead of a file: the digest (sha256:…) of one that lies elsewhere.")
    ] = None,
    location: Annotated[str | None, typer.Option(help="Where people who sign can read that one.")] = None,
    key: Key = None,
) -> None:
    """Bind a document to a release. A risk assessment is YAML or JSON (`sluice evidence new` writes a form)."""
    if (file is None) == (digest is None):
        raise Failure("Which document?", "give a FILE, or --digest with --location", exit_code=ExitCode.USAGE)
    with Client() as client:
        if file is None:
            body = {
                "kind": kind,
                "digest": digest,
                "title": title or kind,
                "step": step,
                "location": location,
            }
            result = client.post("releases", release, "evidence", body=body, key=key)
        else:
            data, media = _document(file, kind)
            form = {"kind": kind, "title": title or file.name, **({"step": step} if step else {})}
            result = client.upload(
                "releases",
                release,
                "evidence",
                "documents",
                file=(file.name, data, media),
                form=form,
                key=key,
            )
            if result["document"]["digest"] != digest_bytes(data):
                raise LocalFailure(
                    "The service has another document",
                    "its digest is not that of what was sent; tell an operator",
                )
    out.result(result, f"{escape(release)}: {escape(told(result))}")


def _document(file: Path, kind: str) -> tuple[bytes, str]:
    """The bytes to send, and what they are; a risk assessment is checked here and sent as JSON."""
    data = file.read_bytes()
    if kind != "risk_assessment":
        return data, _MEDIA.get(file.suffix.lower(), "application/octet-stream")
    assessment = read_assessment(data, str(file))
    return json.dumps(
        assessment.model_dump(mode="json"), ensure_ascii=False, indent=1
    ).encode(), "application/json"


def read_assessment(data: bytes, source: str) -> RiskAssessment:
    """A risk assessment from YAML or JSON.

    Raises:
        Malformed: it is none; with every reason and its line.
    """
    from pydantic import ValidationError

    from orchestrator.plans.tree import join, read_tree

    tree = read_tree(data)
    if tree.problems:
        raise Malformed(f"{source} cannot be read", tree.problems)
    try:
        return RiskAssessment.model_validate(tree.value)
    except ValidationError as error:
        reasons = []
        for found in error.errors(include_url=False):
            path = ""
            for part in found["loc"]:
                path = join(path, part)
            reasons.append(
                Reason(
                    "assessment", found["msg"].removeprefix("Value error, "), path or None, tree.line(path)
                )
            )
        raise Malformed(f"{source} is not a risk assessment", reasons) from None


@command(app, "new")
def new(
    out: Output,
    step: Annotated[str, typer.Argument(metavar="STEP", help="The step that it is for.")],
) -> None:
    """Print a form for a risk assessment: the six considerations of the paper (§4), to be filled in."""
    if out.as_json:
        blank: dict[str, Any] = {"finding": "", "rating": "", "mitigation": ""}
        out.result({"step": step, "considerations": {c.value: blank for c in Consideration}})
        return
    lines = [
        "# A risk assessment answers all six considerations, for one step.",
        "# rating: low, moderate, high, or unacceptable (which closes the gate whoever signs).",
        f"step: {json.dumps(step)}",
        "considerations:",
    ]
    for consideration, question in _QUESTIONS.items():
        lines += [
            f"  # {question}",
            f"  {consideration.value}:",
            "    finding:",
            "    rating:",
            "    mitigation:",
        ]
    sys.stdout.write("\n".join(lines) + "\n")


@command(app, "list")
def list_evidence(out: Output, release: Release) -> None:
    """List the documents of a release, newest first."""
    with Client() as client:
        found = client.get("releases", release, "evidence")["items"]
    rows = [
        (e["kind"], e.get("step") or "every step", e["title"], instant(e["at"]), e["by"], e["digest"])
        for e in found
    ]
    out.result(found, table(("kind", "step", "title", "at (UTC)", "by", "digest"), rows) if rows else "none")


@command(app, "get")
def get(
    out: Output,
    release: Release,
    digest: Annotated[str, typer.Argument(metavar="DIGEST", help="Digest of the document (sha256:…).")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")],
) -> None:
    """Read a document, checked against its digest."""
    with Client() as client:
        data = client.read("releases", release, "evidence", "documents", digest)
    if digest_bytes(data) != digest:
        raise Failure("The document is not what its digest says", digest, exit_code=ExitCode.NOT_IN_ORDER)
    write_new(file, data)
    out.result({"file": str(file), "bytes": len(data), "digest": digest}, f"wrote {escape(str(file))}")
