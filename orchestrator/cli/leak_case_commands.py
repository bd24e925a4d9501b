"""`sluice leak export`, `replay`, `compare`, `unseal`, `takedown`: evidence that others can repeat, and drafts for people to send."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.client import JSON, Client
from orchestrator.cli.config import read_secret, write_secret
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.failures import LocalFailure
from orchestrator.cli.incident_commands import Incident
from orchestrator.cli.leak_cases import (
    case_of,
    compared,
    notice,
    read_case,
    read_verdict,
    verdict_of,
    without_our_names,
)
from orchestrator.cli.leak_commands import KeyFile, app, end_with_verdict, key_of, signature_from
from orchestrator.cli.output import Output, command, escape, write_new
from orchestrator.cli.release_commands import Release

if TYPE_CHECKING:
    from artifacts.leaks import Verdict


def _evidence(client: Client, release: str, incident: str) -> tuple[JSON, JSON, JSON]:
    """The incident, its verdict, and the statement in it."""
    items = client.get("releases", release, "incidents")["items"]
    found = next((item for item in items if item["id"] == incident), None)
    if found is None:
        raise LocalFailure("There is no such incident", f"{incident} is none of {release}")
    digest = verdict_of(found)
    verdict = client.get("leaks", "verdicts", digest)
    statement, _ = read_verdict(verdict["envelope"], digest, verdict.get("verdict_key"))
    return found, verdict, statement


@command(app, "export")
def export(
    out: Output,
    release: Release,
    incident: Incident,
    to: Annotated[Path, typer.Option("--to", "-o", help="Where to write the case.")],
) -> None:
    """Write an incident of the monitor as a case: signed verdict, digests of all answers, which signatures. A false alarm becomes a test."""
    with Client() as client:
        found, verdict, statement = _evidence(client, release, incident)
    case = case_of(release, found, verdict, statement)
    write_new(to, json.dumps(case, indent=2, ensure_ascii=False) + "\n")
    out.result(
        {"file": str(to), "expected": case["expected"], "responses": len(case["responses"])},
        f"{escape(str(to))}: {len(case['responses'])} answers, expected of a repetition: {case['expected'].replace('_', ' ')}",
    )


@command(app, "replay")
def replay(
    out: Output,
    file: Annotated[Path, typer.Argument(metavar="CASE", help="A case, as `sluice leak export` wrote it.")],
    key: KeyFile,
    signatures: Annotated[
        list[Path], typer.Option("--signature", "-s", help="The signatures that it was held against.")
    ],
    target: Annotated[
        str | None,
        typer.Option("--target", help="A copy of the suspect kept elsewhere; left out: where it was seen."),
    ] = None,
    allow: Annotated[list[str] | None, typer.Option(help="Allow a private address or network.")] = None,
    endpoint: Annotated[str, typer.Option(help="The Hub that `hf:` means.")] = "https://huggingface.co",
    any_signature: Annotated[
        bool, typer.Option("--any-signature", help="Also with other signatures than those of the case.")
    ] = False,
) -> None:
    """Judge a case's suspect again. Exit code 0: as expected; 1: otherwise; 11: it could not be judged."""
    from artifacts.leaks import AddressPolicy, HubOptions, Outcome, ReferenceSet, scan

    case = read_case(file.read_text(encoding="utf-8"))
    references = ReferenceSet(key_of(key), [signature_from(path) for path in signatures])
    missing = sorted(set(case["signatures"].values()) - set(references.digests.values()))
    if missing and not any_signature:
        raise LocalFailure(
            "Other signatures",
            f"the case was held against {', '.join(missing)}; give those, or --any-signature",
        )
    place = target or case["suspect"]["target"]
    local = Path(place)
    found: Verdict = scan(
        local if local.exists() else place,
        references,
        addresses=AddressPolicy(allow=tuple(allow or ())),
        hub=HubOptions(endpoint=endpoint),
    )
    document = compared(case, found.document())
    told = "as expected" if document["as_expected"] else f"expected {document['expected'].replace('_', ' ')}"
    out.result(
        document,
        f"[bold]{found.outcome.value.replace('_', ' ')}[/bold], {told}",
        f"{document['answers_identical']} of {document['answers_now']} answers are those of the case; "
        f"r differs by {document['largest_difference_of_r']:.2g} at most over {document['tensors_shared']} tensors",
        *[f"[yellow]·[/yellow] {escape(reason)}" for reason in found.reasons],
    )
    if found.outcome is Outcome.INCONCLUSIVE:
        raise typer.Exit(ExitCode.INCONCLUSIVE)
    if not document["as_expected"]:
        raise typer.Exit(ExitCode.NOT_IN_ORDER)


@command(app, "compare")
def compare(
    out: Output,
    suspect: Annotated[Path, typer.Argument(metavar="SUSPECT", help="The suspect's file or folder, whole.")],
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="Our own weights, in clear.")],
    artifact: Annotated[str, typer.Option("--name", "-n", help="What the verdict calls ours.")],
    parent: Annotated[
        list[Path] | None,
        typer.Option("--parent", "-p", help="A public parent's files, taken out of the verdict."),
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write the whole verdict here.")] = None,
) -> None:
    """Compare every weight (tier 3), where the reference lies. Required before anybody is accused. Exit codes as `scan`."""
    from artifacts.leaks import compare_whole

    with out.status(f"comparing {suspect} with {reference}"):
        found = compare_whole(
            _files(suspect),
            artifact,
            _files(reference),
            parents={path.name: _files(path) for path in parent or []},
        )
    end_with_verdict(out, found, save)


@command(app, "unseal")
def unseal(
    out: Output,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A sealed signature (signature-….sealed of the store).")
    ],
    monitor_keys: Annotated[
        Path, typer.Option("--monitor-keys", help="The leak monitor's own keys (its keys.json).")
    ],
    to: Annotated[Path, typer.Option("--to", "-o", help="Folder for the sketch key and the signature.")],
) -> None:
    """Open a sealed signature with the monitor's keys, for `scan` and `replay`. What comes out is secret like weights."""
    from artifacts.errors import ArtifactError
    from artifacts.leaks.sealed import monitor_identity, open_signature

    try:
        identity = monitor_identity(json.loads(read_secret(monitor_keys.expanduser()))["identity"])
        key, signature = open_signature(file.read_bytes(), identity)
    except (ValueError, KeyError, TypeError, ArtifactError) as error:
        raise LocalFailure("The signature cannot be opened", str(error) or type(error).__name__) from None
    to.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_secret(to / f"{signature.artifact}.key", key.secret.hex().encode() + b"\n")
    write_secret(to / f"{signature.artifact}.signature", signature.to_bytes())
    out.result(
        {
            "artifact": signature.artifact,
            "key_id": key.key_id,
            "digest": signature.digest(),
            "folder": str(to),
        },
        f"{escape(signature.artifact)}: {len(signature.matrices)} matrices, key {key.key_id}, in {escape(str(to))}",
    )


@command(app, "takedown")
def takedown(
    out: Output,
    release: Release,
    incident: Incident,
    to: Annotated[Path, typer.Option("--to", "-o", help="Folder for the draft and its attachments.")],
) -> None:
    """Draft a takedown notice with the evidence attached, for a person to complete and send. Nothing is sent.

    What is attached names none of our tensors; the signed verdict that it was made from stays here, by its digest.
    """
    with Client() as client:
        found, verdict, statement = _evidence(client, release, incident)
        organisation = client.get("releases", release)["organisation"]
    document = without_our_names(statement["predicate"]["verdict"])
    answers = document["read"]["accesses"]
    record = {
        "made_from": {"verdict": verdict["digest"], "entry_of_the_audit_log": verdict["log_index"]},
        "signed_by": verdict.get("verdict_key"),
        "verdict": document,
    }
    to.mkdir(parents=True, exist_ok=True)
    files = {
        "evidence.json": json.dumps(record, indent=2, ensure_ascii=False) + "\n",
        "answers.csv": "at,location,offset,length,sha256\n"
        + "".join(
            f"{a['at']},{json.dumps(a['location'])},{a.get('offset', '')},{a['length']},{a['sha256']}\n"
            for a in answers
        ),
    }
    files["notice.txt"] = notice(organisation, found, statement, sorted(files))
    for name, text in files.items():
        write_new(to / name, text)
    out.result(
        {"folder": str(to), "files": sorted(files), "sent": False},
        f"{escape(str(to))}: {', '.join(sorted(files))}",
        "[yellow]a draft; nothing was sent[/yellow]",
    )


def _files(place: Path) -> list[Path]:
    return sorted(p for p in place.rglob("*") if p.is_file()) if place.is_dir() else [place]
