"""`sluice artifact`: seal where the weights are, verify what lies in a store, register with the service."""

from __future__ import annotations

import base64
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.client import JSON, Client
from orchestrator.cli.config import config_folder, public_text, read_secret, state_folder, write_secret
from orchestrator.cli.decisions import me, told
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.failures import Failure, WaitedInVain
from orchestrator.cli.output import Output, command, escape, table
from orchestrator.cli.release_commands import Key
from orchestrator.cli.shares import dealing_of, opened_share
from orchestrator.cli.transfer import bar, components_of, opened_store, say_what_is_missing, size_words
from orchestrator.domain.values import parse_duration

if TYPE_CHECKING:
    from artifacts.custody.shares import Dealing
    from artifacts.sealing import SealedArtifact
    from artifacts.signing import SigningKey

app = typer.Typer(no_args_is_help=True, help="Sealed artifacts.")

Component = Annotated[
    list[str] | None,
    typer.Option(
        "--component", "-c", help="COMPONENT=PATH: which files are which component; a folder or a glob too."
    ),
]
Store = Annotated[
    str,
    typer.Option(
        "--store", "-s", help="Where sealed files lie: dir:/path, s3://bucket/prefix, hf:owner/name."
    ),
]
ShareHolder = Annotated[
    list[str] | None,
    typer.Option(
        "--share-holder",
        help="NAME=age1pq… (or a file with it): this person of the plan gets a share of the key, as a second lock. Once for each.",
    ),
]
Threshold = Annotated[
    int | None,
    typer.Option(
        "--threshold", help="With --share-holder: how many shares are needed (`shares:` of the plan)."
    ),
]


@command(app, "seal")
def seal(
    out: Output,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder (or file) to seal.")],
    to: Annotated[
        str, typer.Option("--to", help="Custody's public string (sluicecustody1…), or its public file.")
    ],
    store: Store,
    component: Component = None,
    release: Annotated[str | None, typer.Option(help="Release to write into the manifest.")] = None,
    artifact: Annotated[
        str | None, typer.Option("--id", help="Id of the artifact; drawn when left out.")
    ] = None,
    signing_key: Annotated[
        Path | None,
        typer.Option("--signing-key", help="Key that signs the manifest; made on first use when left out."),
    ] = None,
    register: Annotated[
        bool, typer.Option("--register", help="Register the artifact with the service as well.")
    ] = False,
    monitor: Annotated[
        str | None,
        typer.Option(
            "--monitor",
            help="The leak monitor's public string (sluicemonitor1…), or a file with it: copies are recognised by the signature that is made for it.",
        ),
    ] = None,
    share_holder: ShareHolder = None,
    threshold: Threshold = None,
    kms_key: Annotated[
        str | None, typer.Option("--kms-key", help="S3: have the server encrypt with this KMS key too.")
    ] = None,
    lock_mode: Annotated[
        str | None, typer.Option("--lock-mode", help="S3: object lock, GOVERNANCE or COMPLIANCE.")
    ] = None,
    lock_days: Annotated[int, typer.Option("--lock-days", min=0, help="S3: for how many days.")] = 0,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Threads.")] = 2,
) -> None:
    """Seal a folder into a store, with no secret of the service. Goes on where an interrupted sealing stopped.

    The root key is drawn here, wrapped to custody's public key and forgotten: this machine cannot open what it sealed.
    With `--share-holder`, custody alone cannot either: so many of the holders have to sign off with their shares.
    """
    from artifacts.sealing import seal_tree

    patterns = components_of(component)
    dealing = dealing_of(share_holder, threshold)
    signer = _signing_key(out, signing_key)
    with (
        opened_store(store, kms_key=kms_key, lock_mode=lock_mode, lock_days=lock_days) as place,
        bar(out, f"sealing {folder}") as progress,
    ):
        say_what_is_missing(out, place)
        sealed = seal_tree(
            folder,
            place,
            custody_recipient=public_text(to, "recipient"),
            signer=signer,
            components=patterns,
            release=release,
            workers=workers,
            progress=progress,
            state_dir=state_folder() / "sealing",
            artifact_id=artifact,
            monitor=None if monitor is None else public_text(monitor, "recipient"),
            shares=dealing,
        )
    document: JSON = {
        "artifact": sealed.artifact_id,
        "manifest_digest": f"sha256:{sealed.manifest_digest}",
        "store": sealed.store_uri,
        "files": len(sealed.files),
        "bytes": sum(f.size for f in sealed.files),
        "bytes_reused": sealed.bytes_reused,
        "recognised": sealed.recognised,
        "weight_signature_bytes": None if sealed.signature is None else len(sealed.signature),
        "signer": str(signer.verify_key),
        "registered": False,
    }
    if dealing is not None:
        document["shares"] = {"threshold": dealing.threshold, "holders": sorted(dealing.holders)}
    if register:
        document["registered"] = _register(sealed)
    words = (
        "was sealed before"
        if sealed.recognised
        else f"sealed {len(sealed.files)} files, {size_words(document['bytes'])}"
    )
    out.result(
        document,
        f"[bold]{escape(sealed.artifact_id)}[/bold]: {words}, in {escape(sealed.store_uri)}",
        f"manifest {document['manifest_digest']}",
        *_dealt_words(dealing),
    )


def _dealt_words(dealing: Dealing | None) -> list[str]:
    if dealing is None:
        return []
    names = ", ".join(sorted(dealing.holders))
    return [
        f"key shares: {dealing.threshold} of {escape(names)}; each checks theirs with `sluice artifact check-share`"
    ]


def _register(sealed: SealedArtifact) -> bool:
    body = registration(
        sealed.manifest,
        f"sha256:{sealed.manifest_digest}",
        sealed.wrapped_root,
        sealed.store_uri,
        sealed.signature,
    )
    with Client() as client:
        client.post("artifacts", body=body)
    return True


def registration(
    manifest: bytes, digest: str, wrapped_root: str, location: str, signature: bytes | None = None
) -> JSON:
    """The body that registers a sealed artifact: its manifest, its wrapped root, where it lies. Nothing of it is secret."""
    body: JSON = {
        "manifest": base64.b64encode(manifest).decode(),
        "digest": digest,
        "wrapped_root": wrapped_root,
        "location": location,
    }
    if signature is not None:
        body["signature"] = base64.b64encode(signature).decode()
    return body


def _signing_key(out: Output, file: Path | None) -> SigningKey:
    """The key that signs manifests; without a file, one of this machine's own, made on first use."""
    from artifacts.signing import SigningKey

    path = (file or config_folder() / "sealing.key").expanduser()
    if file is None and not path.exists():
        made = SigningKey.generate()
        write_secret(path, made.secret_string().encode() + b"\n")
        out.note(f"made a key to sign manifests with: {path}")
    return SigningKey.parse(read_secret(path).decode("utf-8", "replace"))


@command(app, "check-share")
def check_share(
    out: Output,
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="Id of the artifact.")],
    share_key: Annotated[
        Path, typer.Option("--share-key", help="Your private key file, to which the share was sealed.")
    ],
) -> None:
    """Open your share of an artifact's key on this machine and hold it to the signed manifest. Nothing is sent."""
    with Client() as client:
        person = me(client)
        digest = str(client.get("artifacts", artifact)["manifest_digest"])
        share, record = opened_share(client, artifact, digest, person, share_key)
    document = {
        "artifact": artifact,
        "manifest_digest": digest,
        "holder": share.holder,
        "threshold": record.threshold,
        "holders": record.names,
        "custody": share.custody,
    }
    out.result(
        document,
        f"[green]your share is good[/green]: one of {len(record.holders)}, {record.threshold} are needed; of {escape(artifact)} {digest}",
    )


@command(app, "keygen")
def keygen(
    out: Output,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write the private half.")],
) -> None:
    """Make a key that signs manifests (Ed25519 and ML-DSA-65). The public half is what others verify against."""
    from artifacts.signing import SigningKey

    made = SigningKey.generate()
    write_secret(file.expanduser(), made.secret_string().encode() + b"\n")
    document = {
        "file": str(file),
        "public_key": str(made.verify_key),
        "fingerprint": made.verify_key.fingerprint,
    }
    out.result(document, escape(str(made.verify_key)))
    out.note(f"private half: {file}")


@command(app, "verify")
def verify(
    out: Output,
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="Id of the artifact.")],
    store: Store,
    signer: Annotated[
        list[str] | None,
        typer.Option("--signer", help="Public key that must have signed the manifest, or a file."),
    ] = None,
    digest: Annotated[
        str | None,
        typer.Option("--digest", help="The manifest's digest (sha256:…), as the release names it."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Threads.")] = 2,
) -> None:
    """Hold every sealed byte in a store against the manifest, without any key. Exit code 1 if anything differs."""
    from artifacts.signing import VerifyKey
    from artifacts.verifying import verify_artifact

    if not signer and digest is None:
        raise Failure(
            "Nobody vouches for the manifest", "give --signer, --digest, or both", exit_code=ExitCode.USAGE
        )
    trusted = [VerifyKey.parse(public_text(text, "envelope_key")) for text in signer] if signer else None
    with opened_store(store) as place, bar(out, f"verifying {artifact}") as progress:
        report = verify_artifact(
            place,
            artifact,
            trusted=trusted,
            expected_digest=digest.removeprefix("sha256:") if digest else None,
            workers=workers,
            progress=progress,
        )
    document = {
        "artifact": report.artifact_id,
        "ok": report.ok,
        "manifest_digest": f"sha256:{report.manifest_digest}",
        "signer": report.signer,
        "files": report.files,
        "sealed_bytes": report.sealed_bytes,
        "problems": [{"path": p.path, "kind": p.kind, "message": p.message} for p in report.problems],
    }
    lines = [f"[red]{escape(p.kind)}[/red] {escape(p.message)}" for p in report.problems]
    if report.ok:
        lines.append(
            f"[green]as the manifest says[/green]: {report.files} files, {size_words(report.sealed_bytes)}"
        )
    out.result(document, *lines)
    if not report.ok:
        raise typer.Exit(ExitCode.NOT_IN_ORDER)


@command(app, "add")
def add(
    out: Output,
    release: Annotated[str, typer.Argument(metavar="RELEASE", help="The release that it belongs to.")],
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="Id of the artifact.")],
    component: Annotated[
        list[str] | None,
        typer.Option("--component", "-c", help="Only these; left out: all that the manifest names."),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", "-s", help="Register it first, from this store, where it was sealed to."),
    ] = None,
    digest: Annotated[
        str | None,
        typer.Option("--digest", help="With --store: the manifest's digest, as sealing printed it."),
    ] = None,
    key: Key = None,
) -> None:
    """Say that an artifact carries components of a release. Sign-offs bind to its manifest's digest from then on."""
    with Client() as client:
        if store is not None:
            client.post("artifacts", body=_stored(store, artifact, digest))
        body = {"artifact": artifact, "components": component or None}
        result = client.post("releases", release, "artifacts", body=body, key=key)
    out.result(result, f"{escape(release)}: {escape(told(result))}")


def _stored(store: str, artifact: str, digest: str | None) -> JSON:
    """What registers an artifact that lies in a store, read from there."""
    from artifacts.manifest import MAX_MANIFEST_BYTES, manifest_key, signature_key, wrapped_root_key
    from artifacts.sealing import read_object
    from artifacts.signatures import MAX_SIGNATURE_BYTES

    if digest is None:
        raise Failure("Which manifest?", "give --digest, as sealing printed it", exit_code=ExitCode.USAGE)
    with opened_store(store) as place:
        manifest = read_object(place, manifest_key(artifact), MAX_MANIFEST_BYTES)
        root = read_object(place, wrapped_root_key(artifact), 65_536).decode("ascii", "replace")
        beside = signature_key(artifact, digest.removeprefix("sha256:"))
        signature = None if place.stat(beside) is None else read_object(place, beside, MAX_SIGNATURE_BYTES)
        return registration(manifest, digest, root, place.uri, signature)


@command(app, "ingest")
def ingest(
    out: Output,
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="A path below the ingest folder, s3://… or hf:….")
    ],
    store: Store,
    component: Component = None,
    release: Annotated[str | None, typer.Option(help="Bind the artifact to this release afterwards.")] = None,
    share_holder: ShareHolder = None,
    threshold: Threshold = None,
    wait: Annotated[
        str | None, typer.Option(help="Wait until it is done, at most so long, such as 2h.")
    ] = None,
) -> None:
    """Let a transfer worker seal plaintext from a place. Started twice, it is one ingest with one result."""
    body: JSON = {
        "source": source,
        "store": store,
        "components": components_of(component),
        "release": release,
    }
    dealing = dealing_of(share_holder, threshold)
    if dealing is not None:
        body["shares"] = {"threshold": dealing.threshold, "holders": dict(dealing.holders)}
    with Client() as client:
        found = client.post("ingests", body=body)
        if wait is not None:
            with out.status(f"sealing {source}"):
                found = _waited(client, found, parse_duration(wait).total_seconds())
    shown = f"ingest {escape(found['id'])}: {found['status']}"
    out.result(found, shown + (f", artifact {escape(found['artifact'])}" if found.get("artifact") else ""))
    if found["status"] == "failed":
        raise typer.Exit(ExitCode.NOT_IN_ORDER)


def _waited(client: Client, found: JSON, seconds: float) -> JSON:
    ends = time.monotonic() + seconds
    while found["status"] == "running":
        if time.monotonic() > ends:
            raise WaitedInVain(
                "Time is over", f"ingest {found['id']} still runs; ask again by running the same command"
            )
        time.sleep(1)
        found = client.get("ingests", str(found["id"]))
    return found


@command(app, "list")
def list_artifacts(
    out: Output, limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50
) -> None:
    """List the artifacts that the service knows."""
    with Client() as client:
        found = list(client.items("artifacts", limit=limit))
    rows = [
        (a["id"], a.get("manifest_digest"), size_words(int(a.get("size") or 0)), a.get("location"))
        for a in found
    ]
    out.result(found, table(("artifact", "manifest", "size", "where"), rows) if rows else "none")
