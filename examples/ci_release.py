r"""A CI job's part of a release: seal the checkpoint where it was trained, register it, start the release, follow it to a step.

    python ci_release.py gt-mini 1.0 --plan plan.yaml --checkpoint ./checkpoint --component weights=model.safetensors \
        --custody custody-public.json --store s3://models/sealed --until demo

The job signs in with the identity that its CI gives it (a JWT): no secret of the service lies in the CI. What it needs beside that are
credentials for the bucket of *sealed* files; custody's public file and the plan lie in the repository. Run again with the same
arguments it goes on where it stopped: sealing resumes, registering and creating are done once.

Environment: SLUICE_URL; and one of ACTIONS_ID_TOKEN_REQUEST_URL and ACTIONS_ID_TOKEN_REQUEST_TOKEN (GitHub Actions, `id-token: write`,
with SLUICE_AUDIENCE), SLUICE_ID_TOKEN_FILE (a file that the CI keeps fresh), SLUICE_TOKEN.

Exit codes: 0 the step was entered · 1 the service refused, in words · 2 the command line · 3 not in the time given.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from pathlib import Path

import httpx
import yaml

from artifacts.sealing import SealedArtifact, seal_tree
from artifacts.signing import SigningKey
from artifacts.stores.base import open_store
from orchestrator.client import ClientError, Sluice, errors, models, operations


def main(arguments: list[str] | None = None) -> int:
    """Run the job; its exit code."""
    asked = parsed(arguments)
    with Sluice(os.environ["SLUICE_URL"], ci_token) as sluice:
        try:
            return run(asked, sluice)
        except errors.NotSeen as error:
            print(error, file=sys.stderr)
            return 3
        except ClientError as error:
            print(error, file=sys.stderr)
            return 1


def run(asked: argparse.Namespace, sluice: Sluice) -> int:
    """Seal, register, create, bind, wait."""
    release = f"{asked.name}-{asked.version}".lower()
    sealed = seal(asked, release)
    sluice.do(operations.register_artifact(registration(sealed)))
    print(f"sealed and registered {sealed.artifact_id}")

    # the same key with the same request is one request, however often the job is run again
    run_of = os.environ.get("GITHUB_SHA", release)
    created = sluice.do(
        operations.create_release(
            {"id": release, "name": asked.name, "version": asked.version, "plan": asked.plan},
            idempotency_key=f"create-{run_of}"[:64],
        )
    )
    bound = operations.bind_artifact(
        release,
        models.BindArtifactBody(artifact=sealed.artifact_id),
        idempotency_key=f"bind-{run_of}"[:64],
    )
    sluice.do(bound)
    print(f"{release} {'was' if created.repeated else 'is'} created; its gate waits for people now")

    gate = sluice.do(operations.get_gate(release, asked.until))
    for condition in gate.verdict.unmet:
        print(f"  unmet: {condition.message}")
    after = 0
    while True:
        event = sluice.wait_for(release, "step_entered", after=after, within=asked.within)
        after = event.seq
        print(f"  {event.at:%Y-%m-%d %H:%M} entered {event.data['step']}")
        if event.data["step"] == asked.until:
            return 0


def seal(asked: argparse.Namespace, release: str) -> SealedArtifact:
    """Seal the checkpoint; the root key is wrapped to custody and forgotten, so this job cannot open what it made."""
    custody = json.loads(asked.custody.read_text(encoding="utf-8"))
    components: dict[str, list[str]] = {}
    for given in asked.component:
        name, _, pattern = given.partition("=")
        components.setdefault(name, []).append(pattern)
    return seal_tree(
        asked.checkpoint,
        open_store(asked.store),
        custody_recipient=custody["recipient"],
        signer=signing_key(asked.signing_key),
        components=components,
        release=release,
        artifact_id=asked.artifact,
    )


def signing_key(path: Path) -> SigningKey:
    """The key that signs what this machine seals: its own, made on first use. It opens nothing."""
    if not path.exists():
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(
            path, "x", opener=lambda name, flags: os.open(name, flags, 0o600), encoding="ascii"
        ) as file:
            file.write(SigningKey.generate().secret_string() + "\n")
    return SigningKey.parse(path.read_text(encoding="ascii").strip())


def registration(sealed: SealedArtifact) -> models.ArtifactBody:
    """What the service is told of it; nothing of this is secret."""
    return models.ArtifactBody(
        manifest=base64.b64encode(sealed.manifest).decode(),
        digest=f"sha256:{sealed.manifest_digest}",
        location=sealed.store_uri,
        wrapped_root=sealed.wrapped_root,
    )


def ci_token() -> str:
    """The identity of this job, asked for anew each time: it lives for minutes."""
    request_url = os.environ.get("ACTIONS_ID_TOKEN_REQUEST_URL")
    if request_url:
        answer = httpx.get(
            request_url,
            params={"audience": os.environ["SLUICE_AUDIENCE"]},
            headers={"Authorization": f"Bearer {os.environ['ACTIONS_ID_TOKEN_REQUEST_TOKEN']}"},
        )
        return str(answer.raise_for_status().json()["value"])
    file = os.environ.get("SLUICE_ID_TOKEN_FILE")
    return Path(file).read_text(encoding="utf-8").strip() if file else os.environ["SLUICE_TOKEN"]


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Register a checkpoint and start its release.")
    parser.add_argument("name")
    parser.add_argument("version")
    parser.add_argument(
        "--plan", type=lambda path: yaml.safe_load(Path(path).read_text("utf-8")), required=True
    )
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--component", action="append", required=True, metavar="NAME=PATTERN")
    parser.add_argument("--custody", type=Path, required=True, help="custody-public.json")
    parser.add_argument("--store", required=True, help="where sealed files go, as the service knows it")
    parser.add_argument(
        "--artifact", help="an id of one's own, so that a second run recognises what is sealed"
    )
    parser.add_argument("--signing-key", type=Path, default=Path("~/.config/sluice/sealing.key").expanduser())
    parser.add_argument("--until", required=True, metavar="STEP", help="the step to wait for")
    parser.add_argument(
        "--within", type=float, default=3600, metavar="SECONDS", help="how long for each step"
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
