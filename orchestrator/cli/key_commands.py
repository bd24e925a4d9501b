"""`sluice key`: the key with which a person signs decisions."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.config import config_folder, write_secret
from orchestrator.cli.keys import identity_path, load_identity
from orchestrator.cli.output import Output, command, escape

app = typer.Typer(
    no_args_is_help=True, help="Your signing key (Ed25519). An existing ssh-ed25519 key will do."
)

KeyFile = Annotated[
    Path | None, typer.Option("--key", "-k", help="Your private key file (SLUICE_IDENTITY_FILE).")
]


@command(app, "new")
def new(
    out: Output,
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Where to write it.")] = None,
    unprotected: Annotated[
        bool, typer.Option("--no-passphrase", help="Leave the file without a passphrase.")
    ] = False,
) -> None:
    """Make a signing key. The private half stays in the file; put the printed line into the plan."""
    from orchestrator.trust.keys import PrivateKey

    path = (file or config_folder() / "id_ed25519").expanduser()
    key = PrivateKey.generate()
    passphrase = None
    if not unprotected:
        passphrase = typer.prompt(
            "passphrase for the new key", hide_input=True, confirmation_prompt=True, err=True
        )
    write_secret(path, key.to_openssh(passphrase.encode() if passphrase else None))
    text = key.public.text()
    out.result({"file": str(path), "public_key": text, "key_id": key.public.key_id}, escape(text))
    out.note(
        f"private key: {path}; fingerprint {key.public.key_id}; `sluice key register` shows others that it is yours"
    )


@command(app, "show")
def show(out: Output, key: KeyFile = None) -> None:
    """Print your public key, as a plan pins it, and its fingerprint."""
    public = load_identity(key).public
    document = {"file": str(identity_path(key)), "public_key": public.text(), "key_id": public.key_id}
    out.result(document, escape(public.text()))
    out.note(f"fingerprint {public.key_id}")


@command(app, "register")
def register(
    out: Output,
    person: Annotated[str, typer.Argument(metavar="PERSON", help="Your name as plans know you.")],
    key: KeyFile = None,
    replaces: Annotated[
        str | None, typer.Option(help="Fingerprint of the key whose place it takes (SHA256:…).")
    ] = None,
) -> None:
    """Print a registration of your public key, signed with the key itself: give it to whoever writes the plan.

    It shows that you hold the private half. They check it with `sluice key accept`, which prints the line for the plan.
    """
    from orchestrator.trust.encoding import sha256_digest
    from orchestrator.trust.signing import sign
    from orchestrator.trust.statements import KeyRegistration, Statement, Subject

    private = load_identity(key)
    text, now = private.public.text(), datetime.now(UTC)
    predicate = KeyRegistration(
        person=person, public_key=text, replaces=replaces, issued_at=now, expires_at=now + timedelta(days=14)
    )
    subject = Subject.of("key", sha256_digest(text.encode()))
    statement = Statement[KeyRegistration](subjects=(subject,), predicate=predicate)
    sys.stdout.write(sign(statement.to_bytes(), private).decode() + "\n")


@command(app, "accept")
def accept(
    out: Output,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `sluice key register` printed.")],
) -> None:
    """Check a registration and print the person and the key for the plan (`people: PERSON: keys:`)."""
    from orchestrator.trust.encoding import sha256_digest
    from orchestrator.trust.keys import PublicKey
    from orchestrator.trust.signing import signed_payload, verify_single
    from orchestrator.trust.statements import KeyRegistration, Statement, Subject, parse

    data = file.read_bytes()
    claimed: Statement[KeyRegistration] = parse(signed_payload(data), KeyRegistration)
    key = PublicKey.parse(claimed.predicate.public_key)
    statement: Statement[KeyRegistration] = parse(verify_single(data, [key]).payload, KeyRegistration)
    statement.check_time(datetime.now(UTC))
    statement.require(subjects=[Subject.of("key", sha256_digest(key.text().encode()))])
    document = {
        "person": statement.predicate.person,
        "public_key": key.text(),
        "key_id": key.key_id,
        "replaces": statement.predicate.replaces,
    }
    out.result(document, f"people: {escape(statement.predicate.person)}: keys: [{escape(key.text())}]")
    out.note(
        f"whoever made this holds the key {key.key_id}; ask {statement.predicate.person} whether that is theirs"
    )


__all__ = ["KeyFile", "app"]
