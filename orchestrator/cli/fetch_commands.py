"""`sluice fetch` and `sluice open`: a partner's copy, from sealed files anywhere to plaintext on its own disk.

Both verify everything on the way: custody's signature on the envelope, the envelope's proof of inclusion in the audit log,
the manifest by the digest that the envelope names, every sealed part, every tag. What fails is not written under its name. The private key is read here and goes nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.client import JSON, Client
from orchestrator.cli.config import PUBLIC_FILE, config_folder, load_config, public_text, read_secret
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.failures import Failure, LocalFailure, Refused
from orchestrator.cli.keys import load_identity
from orchestrator.cli.output import Output, escape
from orchestrator.cli.partner_commands import DEFAULT_KEY
from orchestrator.cli.receipts import send_receipt
from orchestrator.cli.release_commands import Release
from orchestrator.cli.transfer import bar, size_words

if TYPE_CHECKING:
    from artifacts.envelope import EnvelopePayload, ProofVerifier
    from artifacts.fetching import FetchReport
    from artifacts.keys import HybridIdentity
    from artifacts.links import LinkedSource
    from artifacts.signing import VerifyKey

To = Annotated[Path, typer.Option("--to", "-o", help="The folder to write to; nothing in it is overwritten.")]
Identity = Annotated[
    Path | None,
    typer.Option(
        "--identity", "-i", help="Your private key file (SLUICE_IDENTITY_FILE, ~/.config/sluice/partner.key)."
    ),
]
CustodyKey = Annotated[
    list[str] | None,
    typer.Option(
        "--custody-key", help="Custody's public key (sluice-sig-v1.…), or a file with it. Pin it once."
    ),
]
LogKey = Annotated[
    list[str] | None,
    typer.Option("--log-key", help="The audit log's public key (NAME+HASH+BASE64), or a file with it."),
]
Recheck = Annotated[
    bool,
    typer.Option("--recheck", help="Read each finished file from the disk once more and check its digest."),
]
Workers = Annotated[int, typer.Option(min=1, max=64, help="Threads.")]
Only = Annotated[list[str] | None, typer.Option("--component", "-c", help="Only files of this component.")]
From = Annotated[
    str | None, typer.Option("--from", help="Where the sealed files lie, if not where the release says.")
]


def fetch_command(
    out: Output,
    release: Release,
    to: To,
    custody_key: CustodyKey = None,
    log_key: LogKey = None,
    identity: Identity = None,
    grant: Annotated[
        str | None, typer.Option("--grant", "-g", help="Which grant, when there are several.")
    ] = None,
    source: From = None,
    component: Only = None,
    workers: Workers = 2,
    recheck: Recheck = False,
    receipt: Annotated[
        bool, typer.Option(help="Sign what you received, where the plan pins a key of yours for it.")
    ] = True,
    receipt_key: Annotated[
        Path | None,
        typer.Option(help="Sign it with this private key; without it, with the one that follows from yours."),
    ] = None,
) -> None:
    """Fetch your copy of a release: envelope, manifest and sealed files, verified and opened on the way.

    Goes on where it stopped; finished files are recognised and not fetched again. A signed receipt of what was delivered
    goes to the release's log.
    """
    keys, logs = _pinned(custody_key, "custody.pub"), _pinned(log_key, "log.pub")
    holder = load_holder(identity)
    signer = None if receipt_key is None else load_identity(receipt_key)
    reports = []
    receipts: list[JSON] = []
    with Client() as client:
        found = _grant(client, release, grant)
        for artifact in found["artifacts"]:
            if artifact["id"] not in found.get("envelopes", [artifact["id"]]):
                continue
            if component and not set(component) & set(artifact.get("components", component)):
                continue
            place = ("releases", release, "grants", found["id"])
            envelope = client.read(*place, "envelopes", artifact["id"])
            payload = _opened(envelope, holder, keys, logs)
            _check_payload(payload, release, found["id"], artifact)
            manifest = client.read(*place, "manifests", artifact["id"])
            reports.append(
                _fetch(
                    out,
                    source or _where(client, release, found, artifact, manifest),
                    manifest,
                    payload,
                    to,
                    component,
                    workers,
                    recheck=recheck,
                )
            )
            if receipt:
                receipts.append(send_receipt(client, holder, found, envelope, payload, reports[-1], signer))
    if not reports:
        raise Failure(
            "There is nothing to fetch",
            f"grant {found['id']} carries no key (yet)",
            exit_code=ExitCode.CONFLICT,
        )
    for one in receipts:
        if not one["sent"] and found.get("receipt_keys"):
            out.note(f"no receipt was sent: {one['why']}")
    _show(out, {"release": release, "grant": found["id"], "receipts": receipts}, reports)


def open_command(
    out: Output,
    envelope: Annotated[
        Path,
        typer.Argument(
            metavar="ENVELOPE", help="The envelope (an age file), or a public record with --public."
        ),
    ],
    manifest: Annotated[Path, typer.Option("--manifest", "-m", help="The manifest (DSSE file).")],
    source: Annotated[
        str,
        typer.Option("--from", help="Where the sealed files lie: dir:/path, s3://…, hf:…, or a base URL."),
    ],
    to: To,
    custody_key: CustodyKey = None,
    log_key: LogKey = None,
    identity: Identity = None,
    public: Annotated[
        bool,
        typer.Option("--public", help="It is the signed public record of an open release: no key is needed."),
    ] = False,
    component: Only = None,
    workers: Workers = 2,
    recheck: Recheck = False,
) -> None:
    """Open sealed files with an envelope that is here already, without the service."""
    from artifacts.envelope import MAX_ENVELOPE_BYTES, open_public_record

    keys, logs = _pinned(custody_key, "custody.pub"), _pinned(log_key, "log.pub")
    with envelope.open("rb") as opened:
        data = opened.read(MAX_ENVELOPE_BYTES + 1)
    if public:
        payload = open_public_record(
            data, verify_keys=_verify_keys(keys), proof_verifier=_proof_verifier(logs)
        )
    else:
        payload = _opened(data, load_holder(identity), keys, logs)
    report = _fetch(out, source, manifest.read_bytes(), payload, to, component, workers, recheck=recheck)
    _show(out, {"release": payload.release, "grant": payload.grant}, [report])


def load_holder(given: Path | None) -> HybridIdentity:
    """The holder's private key.

    Raises:
        LocalFailure: there is none, or others can read it.
    """
    from artifacts.keys import partner_identity

    default = config_folder() / DEFAULT_KEY
    path = given or load_config().identity_file or default
    if not path.expanduser().is_file():
        raise LocalFailure(
            "No key to open with",
            f"{path}: not there; give --identity FILE, or make one with `sluice partner keygen`",
        )
    return partner_identity(read_secret(path.expanduser()).decode("utf-8", "replace"))


def _pinned(given: list[str] | None, default: str) -> list[str]:
    """Public keys that the caller trusts: as given, or from the configuration folder.

    Raises:
        LocalFailure: none is pinned; nothing is taken on the service's word.
    """
    texts = given or []
    file = config_folder() / default
    if not texts and file.is_file():
        texts = [
            line
            for line in file.read_text(encoding="utf-8").splitlines()
            if line and not line.startswith("#")
        ]
    member = "envelope_key" if default.startswith("custody") else "log_key"
    handed = config_folder() / PUBLIC_FILE
    if not texts and handed.is_file():
        texts = [str(handed)]
    if not texts:
        option = "--custody-key" if default.startswith("custody") else "--log-key"
        raise LocalFailure(
            "Whom to trust is not known",
            f"give {option}, put the key that you were handed into {file}, or custody's public file into {handed}; it is never taken from the service",
        )
    return [public_text(text, member) for text in texts]


def _verify_keys(texts: list[str]) -> list[VerifyKey]:
    from artifacts.signing import VerifyKey

    return [VerifyKey.parse(text) for text in texts]


def _opened(data: bytes, holder: HybridIdentity, keys: list[str], logs: list[str]) -> EnvelopePayload:
    from artifacts.envelope import open_envelope

    return open_envelope(
        data,
        holder,
        now=datetime.now(UTC),
        verify_keys=_verify_keys(keys),
        proof_verifier=_proof_verifier(logs, str(holder.recipient)),
    )


def _proof_verifier(logs: list[str], recipient: str | None = None) -> ProofVerifier:
    """Checks that the log entry about exactly this envelope is in the log that these keys sign."""
    from artifacts.errors import EnvelopeError
    from orchestrator.trust.checkpoints import NoteVerifier
    from orchestrator.trust.errors import TrustError
    from orchestrator.trust.receipts import envelope_proof_verifier

    check = envelope_proof_verifier(*(NoteVerifier.parse(text) for text in logs), recipient=recipient)

    def verify(log: Mapping[str, Any], payload: EnvelopePayload) -> None:
        try:
            check(log, payload)
        except TrustError as error:
            raise EnvelopeError(f"envelope: {error}; refused") from None

    return verify


def _check_payload(payload: EnvelopePayload, release: str, grant: str, artifact: JSON) -> None:
    """What was opened is what was asked for: an envelope of another release or grant is refused.

    Raises:
        Failure: it is not.
    """
    want = (release, grant, artifact["id"], str(artifact["manifest_digest"]).removeprefix("sha256:"))
    have = (payload.release, payload.grant, payload.artifact_id, payload.manifest_digest)
    if want != have:
        raise Failure(
            "The envelope is for something else",
            f"it says {have}, asked for {want}",
            exit_code=ExitCode.NOT_IN_ORDER,
        )


def _grant(client: Client, release: str, wanted: str | None) -> JSON:
    """The caller's live grant with a key; the latest when there are several and none is named."""
    found = client.get("releases", release, "grants")["items"]
    usable = [g for g in found if g["live"] and g["kind"] == "key" and (wanted is None or g["id"] == wanted)]
    if not usable:
        told = ", ".join(g["id"] for g in found) or "none"
        raise Failure("You have no key of this release", f"grants: {told}", exit_code=ExitCode.NOT_FOUND)
    chosen: JSON = usable[-1]
    if chosen.get("on_hold"):
        raise Failure(
            "The release is on hold", "no key is handed over until it is resumed", exit_code=ExitCode.CONFLICT
        )
    return chosen


def _where(client: Client, release: str, grant: JSON, artifact: JSON, manifest: bytes) -> str | LinkedSource:
    """Where to read the sealed files: through links where the service makes them, else from where they lie."""
    location = str(artifact["location"])
    if not location.startswith("s3://"):
        return location
    from artifacts.links import LinkedSource
    from artifacts.manifest import parse_manifest

    listed = parse_manifest(
        manifest, expected_digest=str(artifact["manifest_digest"]).removeprefix("sha256:")
    )
    paths = [file.path for file in listed.files if file.component in grant["components"]]

    def ask(wanted: Sequence[str]) -> tuple[Mapping[str, str], float]:
        given = client.post(
            "releases",
            release,
            "grants",
            grant["id"],
            "links",
            body={"artifact": artifact["id"], "paths": list(wanted)},
        )
        return {str(item["path"]): str(item["url"]) for item in given["items"]}, float(given["expires_in"])

    try:
        ask(paths[:1])
    except Refused as refusal:
        if any(reason.code == "no-links" for reason in refusal.reasons):
            return location  # with S3 credentials of the partner's own
        raise
    return LinkedSource(ask, paths)


def _fetch(
    out: Output,
    source: str | LinkedSource,
    manifest: bytes,
    payload: EnvelopePayload,
    to: Path,
    component: list[str] | None,
    workers: int,
    *,
    recheck: bool = False,
) -> FetchReport:
    from artifacts.fetching import fetch_artifact

    with bar(out, f"fetching {payload.artifact_id}") as progress:
        return fetch_artifact(
            source,
            manifest,
            payload,
            to,
            workers=workers,
            progress=progress,
            components=component,
            recheck=recheck,
        )


def _show(out: Output, head: JSON, reports: list[FetchReport]) -> None:
    files = [
        {
            "path": file.path,
            "component": file.component,
            "size": file.size,
            "sha256": file.sha256,
            "digests": dict(file.digests),
            "was_there": file.was_there,
        }
        for report in reports
        for file in report.files
    ]
    total, reused = sum(r.bytes_total for r in reports), sum(r.bytes_reused for r in reports)
    document = {
        **head,
        "folder": str(reports[0].destination),
        "bytes": total,
        "bytes_reused": reused,
        "files": files,
    }
    words = f", {size_words(reused)} of it there before" if reused else ""
    out.result(
        document,
        *(f"{escape(file['path'])}  {size_words(int(str(file['size'])))}" for file in files),
        f"[green]verified and opened[/green]: {len(files)} files, {size_words(total)}{words}, in {escape(str(reports[0].destination))}",
    )
