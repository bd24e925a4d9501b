"""`sluice invitation`: invite one outside reviewer to sign one gate; and, for the reviewer, read and sign it without an account."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from orchestrator.cli.client import JSON, Client
from orchestrator.cli.config import Config, checked_url, config_folder, read_secret, write_secret
from orchestrator.cli.decisions import me, plan_of, signer_for, subject_of, told
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.failures import Failure, LocalFailure, NotInOrder
from orchestrator.cli.gate_commands import OptionalStep, next_step
from orchestrator.cli.key_commands import KeyFile
from orchestrator.cli.output import Output, command, escape, table
from orchestrator.cli.release_commands import Key, Reason, Release, Yes
from orchestrator.domain.state import GateSubject
from orchestrator.domain.values import parse_duration

if TYPE_CHECKING:
    from orchestrator.trust.keys import PrivateKey
    from orchestrator.trust.statements import Invitation, Statement

FORMAT = "sluice.invitation/v1"
app = typer.Typer(
    no_args_is_help=True, help="Outside reviewers without an account: invite one to sign one gate, once."
)

Link = Annotated[
    str,
    typer.Argument(
        metavar="FILE|URL", help="The invitation: the file, or the whole link, that you were sent."
    ),
]


# --- whoever invites ----------------------------------------------------------------------------------------------------


@command(app, "make")
def make(
    out: Output,
    release: Release,
    reviewer: Annotated[str, typer.Option("--reviewer", help="Their name in the log, such as jane.doe.")],
    organisation: Annotated[str, typer.Option("--organisation", help="Where they stand.")],
    file: Annotated[Path, typer.Option("--file", "-f", help="Write the invitation into this new file.")],
    step: OptionalStep = None,
    role: Annotated[str | None, typer.Option("--role", help="The role that they sign in.")] = None,
    lasts: Annotated[str, typer.Option("--for", help="How long it can be used, such as 7d.")] = "7d",
    yes: Yes = False,
    key_file: KeyFile = None,
    key: Key = None,
) -> None:
    """Invite an outside reviewer to sign a gate as it stands, once. You then count at that gate through them alone.

    The file, and the link that is printed, hold a secret: whoever has it can sign in the reviewer's name until the reviewer has.
    """
    from orchestrator.trust.invitations import invitation_statement
    from orchestrator.trust.keys import PrivateKey
    from orchestrator.trust.signing import sign

    with Client() as client:
        name = next_step(client, release, step)
        gate, _ = client.gate(release, name)
        plan, person = plan_of(client, release), me(client)
        subject = subject_of(gate, plan)
        found = plan.step(name)
        open_to = [
            need.role for need in (found.gate.sign_offs if found else []) if person in plan.inviters(need)
        ]
        chosen = role or (open_to[0] if len(open_to) == 1 else None)
        if chosen is None:
            raise Failure(
                "For which role?",
                f"give --role; the plan lets you invite for: {', '.join(open_to) or 'none of this gate'}",
                exit_code=ExitCode.USAGE,
            )
        private = signer_for(plan, person, key_file)
        if private is None:
            raise Failure(
                "The plan pins no key of yours",
                "an invitation counts only signed; have the plan amended",
                exit_code=ExitCode.NOT_PERMITTED,
            )
        now = datetime.now(UTC).replace(microsecond=0)
        ends = now + parse_duration(lasts)
        out.confirm(
            f"Invite {reviewer} of {organisation} to sign {name} as {chosen}? You then count at this gate through them alone.",
            assumed=yes,
        )
        one_time = PrivateKey.generate()
        statement = invitation_statement(
            subject,
            reviewer=reviewer,
            organisation=organisation,
            role=chosen,
            one_time_key=one_time.public,
            invited_by=person,
            issued_at=now,
            expires_at=ends,
        )
        envelope = sign(statement.to_bytes(), private).decode()
        document = {
            "format": FORMAT,
            "url": client.config.url,
            "id": statement.digest,
            "token": _encoded(one_time),
            "envelope": envelope,
        }
        # first the file: an invitation whose secret was lost could only be revoked
        write_secret(file, json.dumps(document, indent=1).encode())
        body = {
            "role": chosen,
            "reviewer": reviewer,
            "organisation": organisation,
            "subject": gate["verdict"]["subject_digest"],
            "key": one_time.public.text(),
            "expires_at": ends.isoformat(),
            "envelope": envelope,
        }
        try:
            result = client.post("releases", release, "steps", name, "invitations", body=body, key=key)
        except Failure:
            file.unlink()
            raise
    link = f"{document['url']}/invitation/{_hex(statement.digest)}#{document['token']}"
    answer = {**result, "invitation": statement.digest, "file": str(file), "link": link}
    out.result(
        answer,
        f"{escape(reviewer)} is invited until {ends:%Y-%m-%d %H:%M} UTC; send them {escape(str(file))}, or this link:\n{escape(link)}",
    )
    out.note(
        "whoever has the link can sign in their name: send it on a way that you trust, and revoke it if it went astray"
    )


@command(app, "list")
def list_invitations(out: Output, release: Release) -> None:
    """List invitations to the next gate, and what became of each."""
    with Client() as client:
        found = client.get("releases", release, "invitations")["items"]
    rows = [
        (
            i["id"][7:19],
            i["reviewer"],
            i["organisation"],
            i["role"],
            i["invited_by"],
            i["standing"],
            i["expires_at"],
        )
        for i in found
    ]
    columns = ("invitation", "reviewer", "of", "role", "invited by", "", "until")
    out.result(found, table(columns, rows) if rows else "nobody is invited to the next gate")


@command(app, "revoke")
def revoke(
    out: Output,
    release: Release,
    invitation: Annotated[
        str,
        typer.Argument(
            metavar="INVITATION", help="Its id, or the beginning of it (`sluice invitation list`)."
        ),
    ],
    reason: Reason,
    key: Key = None,
) -> None:
    """Take an invitation back. An approval that was given on it counts no more; a rejection stands."""
    asked = invitation.removeprefix("sha256:")
    with Client() as client:
        known = [i["id"] for i in client.get("releases", release, "invitations")["items"]]
        fitting = [name for name in known if _hex(name).startswith(asked)]
        if len(fitting) != 1:
            raise Failure(
                "Which invitation?",
                f"{len(fitting)} of the {len(known)} invitations to the next gate begin with {asked}",
                exit_code=ExitCode.NOT_FOUND,
            )
        result = client.post(
            "releases", release, "invitations", _hex(fitting[0]), "revoke", body={"reason": reason}, key=key
        )
    out.result(result, f"{escape(release)}: {escape(told(result))}")


# --- the reviewer -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """An invitation that one holds: where it is redeemed, which it is, and its one-time key."""

    url: str
    id: str
    one_time: PrivateKey


def read_held(given: str) -> Held:
    """An invitation from its file or its link.

    Raises:
        LocalFailure: it is neither.
    """
    if given.startswith(("https://", "http://")):
        place, _, token = given.partition("#")
        base, found, name = place.rpartition("/invitation/")
        if not found or len(name) != 64 or not token:
            raise LocalFailure(
                "That is not the whole link",
                "it ends in `/invitation/…#…`; ask whoever invited you for all of it",
            )
        return Held(base, f"sha256:{name}", _decoded(token))
    data = read_secret(Path(given))
    try:
        document = json.loads(data)
        known = {FORMAT: (str(document["url"]), str(document["id"]), str(document["token"]))}
        url, name, token = known[document["format"]]
    except (ValueError, KeyError, TypeError):
        raise LocalFailure(
            "That is not an invitation", f"{given}: not a file of the format {FORMAT}"
        ) from None
    return Held(url, name, _decoded(token))


def _encoded(key: PrivateKey) -> str:
    return base64.urlsafe_b64encode(key.seed()).decode().rstrip("=")


def _decoded(token: str) -> PrivateKey:
    from orchestrator.trust.keys import PrivateKey

    try:
        return PrivateKey.from_seed(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, binascii.Error):
        raise LocalFailure(
            "That is not the whole link", "the part behind `#` is cut off; ask whoever invited you"
        ) from None


def _hex(digest: str) -> str:
    return digest.removeprefix("sha256:")


def _client(held: Held) -> Client:
    """Without an account: whatever token this machine has is not sent."""
    return Client(Config(url=checked_url(held.url.rstrip("/"), with_token=False), token=None))


@dataclass(frozen=True, slots=True)
class Asked:
    """What the service shows for an invitation, held to what was signed."""

    shown: JSON
    statement: Statement[Invitation]
    subject: GateSubject


def _ask(client: Client, held: Held) -> Asked:
    """Ask what is to be signed. Nothing is taken on the service's word: the statement is hashed and compared here.

    Raises:
        NotInOrder: what is shown is not what the invitation is for.
    """
    from orchestrator.trust.invitations import holding_statement, read_invitation
    from orchestrator.trust.keys import PrivateKey
    from orchestrator.trust.signing import sign

    # with a key of the moment: it shows that we hold the link, and binds nothing
    holding = holding_statement(held.id, key=PrivateKey.generate().public, issued_at=datetime.now(UTC))
    body = {"acceptance": sign(holding.to_bytes(), held.one_time).decode()}
    shown = client.post("invitations", _hex(held.id), body=body)
    statement = read_invitation(shown["envelope"])
    subject = GateSubject.model_validate(shown["subject"])
    if statement.digest != held.id or statement.predicate.one_time_key != held.one_time.public.text():
        raise NotInOrder("The invitation is another one", "the service shows another invitation than yours")
    if subject.digest != shown["subject_digest"]:
        raise NotInOrder("The gate is not what its digest says", "do not sign; tell whoever invited you")
    return Asked(shown, statement, subject)


def _accepted(held: Held, own: PrivateKey, statement: Statement[Invitation]) -> str:
    from orchestrator.trust.invitations import acceptance_statement
    from orchestrator.trust.signing import sign

    made = acceptance_statement(statement, reviewer_key=own.public, issued_at=datetime.now(UTC))
    return sign(made.to_bytes(), held.one_time).decode()


@command(app, "show")
def show(out: Output, invitation: Link) -> None:
    """Show in plain words what you are invited to sign. Takes no account; nothing is signed."""
    held = read_held(invitation)
    with _client(held) as client:
        asked = _ask(client, held)
    out.result({**asked.shown, "id": held.id}, _picture(asked))


def _picture(asked: Asked) -> str:
    """Every field of the statement, and what it means."""
    from orchestrator.trust.signing import key_ids

    shown, said, subject = asked.shown, asked.statement.predicate, asked.subject
    standing, ends = shown["invitation"]["standing"], f"{said.expires_at:%Y-%m-%d %H:%M} UTC"
    lines = [
        f"[bold]{escape(said.reviewer)} of {escape(said.organisation)} may sign as {escape(said.role)}[/bold], once, until {ends}",
        f"  invited by {escape(said.invited_by)} (key {escape(', '.join(key_ids(shown['envelope'].encode())))})",
        f"  release   {escape(shown['name'])} {escape(shown['version'])}: {escape(shown['title'])} ({escape(subject.release)})",
        f"  step      {escape(subject.step)}, attempt {subject.attempt}: {subject.from_stage} → {subject.to_stage}",
        f"  audience  {escape(subject.audience)}",
        f"  plan      {subject.plan_digest}",
    ]
    lines += [f"  artifact  {escape(name)} {digest}" for name, digest in sorted(subject.manifests.items())]
    for document in shown["documents"]:
        where = f", at {document['location']}" if document["location"] else ""
        lines.append(
            f"  evidence  {document['kind']} {document['digest']}: {escape(document['title'] + where)}"
        )
    lines += [f"  [dim]→[/dim] {escape(words)}" for words in shown["means"]]
    if shown["irreversible"]:
        lines.append("  [bold red]entering this step cannot be undone[/bold red]")
    if standing == "stale":
        lines.append(
            "[red]what stands at the gate has changed since: this invitation is stale; ask for a new one[/red]"
        )
    elif standing != "open":
        lines.append(f"[red]this invitation is {standing}[/red]")
    own = shown["sign_off"]
    if own is not None:
        lines.append(f"  your {own['decision']} stands: {own['standing'].replace('_', ' ')}")
    return "\n".join(lines)


def own_key(held: Held, given: Path | None, *, make: bool) -> PrivateKey:
    """The reviewer's own key for this invitation: as given, or made on this machine and kept for a withdrawal.

    Raises:
        LocalFailure: there is none and none is to be made.
    """
    from orchestrator.trust.keys import PrivateKey

    if given is not None:
        from orchestrator.cli.keys import load_identity

        return load_identity(given)
    path = config_folder() / "invitations" / f"{_hex(held.id)[:32]}.key"
    if path.is_file():
        return PrivateKey.load(read_secret(path))
    if not make:
        raise LocalFailure(
            "The key that you signed with is not here",
            f"looked at {path}; give --key FILE if it is elsewhere",
        )
    key = PrivateKey.generate()
    write_secret(path, key.to_openssh(None))
    return key


@command(app, "sign")
def sign_command(
    out: Output,
    invitation: Link,
    approve: Annotated[bool, typer.Option("--approve", help="Approve.")] = False,
    reject: Annotated[
        bool, typer.Option("--reject", help="Reject: the gate stays closed until you withdraw it.")
    ] = False,
    comment: Annotated[
        str | None, typer.Option("--comment", "-m", help="For everybody in the plan to read.")
    ] = None,
    validity: Annotated[str | None, typer.Option(help="How long it counts, such as 30d.")] = None,
    yes: Yes = False,
    key_file: KeyFile = None,
) -> None:
    """Decide as an invited reviewer: shows what will be signed, signs on this machine, sends it. Takes no account.

    A key of your own is made here (or is the one that you give); only it can take the decision back.
    """
    from orchestrator.trust.invitations import invited_sign_off_statement
    from orchestrator.trust.signing import sign

    if approve == reject:
        raise Failure("Which decision?", "give one of --approve, --reject", exit_code=ExitCode.USAGE)
    decision: Literal["approve", "reject"] = "approve" if approve else "reject"
    held = read_held(invitation)
    with _client(held) as client:
        asked = _ask(client, held)
        if (
            asked.shown["invitation"]["standing"] == "open"
            and asked.subject.digest != asked.statement.predicate.gate
        ):
            raise NotInOrder(
                "What is shown is not what you were invited to sign", "do not sign; tell whoever invited you"
            )
        if not out.as_json:
            out.notes.print(_picture(asked))
        out.confirm(f"{decision.capitalize()} as {asked.statement.predicate.role}?", assumed=yes)
        own = own_key(held, key_file, make=True)
        now = datetime.now(UTC).replace(microsecond=0)
        longest = timedelta(seconds=asked.shown["longest"])
        lasts = longest if validity is None else min(parse_duration(validity), longest)
        statement = invited_sign_off_statement(
            asked.subject,
            asked.statement,
            decision=decision,
            issued_at=now,
            validity=lasts,
            comment=comment or "",
        )
        body: dict[str, Any] = {
            "acceptance": _accepted(held, own, asked.statement),
            "decision": decision,
            "comment": comment,
            "expires_at": (now + lasts).isoformat(),
            "envelope": sign(statement.to_bytes(), own).decode(),
        }
        result = client.post("invitations", _hex(held.id), "sign-off", body=body)
    out.result(
        result, f"{escape(asked.subject.release)} {escape(asked.subject.step)}: {escape(told(result))}"
    )
    if key_file is None:
        out.note(
            f"your key for this review stays in {config_folder() / 'invitations'}: a withdrawal takes it"
        )


@command(app, "withdraw")
def withdraw(
    out: Output,
    invitation: Link,
    comment: Annotated[str | None, typer.Option("--comment", "-m", help="Why.")] = None,
    yes: Yes = False,
    key_file: KeyFile = None,
) -> None:
    """Take your decision on an invitation back, until the step is entered. The invitation stays used up."""
    from orchestrator.trust.invitations import invited_sign_off_statement
    from orchestrator.trust.signing import sign

    held = read_held(invitation)
    with _client(held) as client:
        asked = _ask(client, held)
        standing = asked.shown["sign_off"]
        if standing is None:
            raise Failure(
                "Nothing stands that you could take back",
                "nothing was signed on this invitation, or it was withdrawn",
                exit_code=ExitCode.CONFLICT,
            )
        own = own_key(held, key_file, make=False)
        out.confirm(f"Withdraw your {standing['decision']}?", assumed=yes)
        statement = invited_sign_off_statement(
            asked.subject,
            asked.statement,
            decision="withdraw",
            issued_at=datetime.now(UTC),
            validity=timedelta(days=1),
            comment=comment or "",
            withdraws=standing["statement"],
        )
        body = {
            "acceptance": _accepted(held, own, asked.statement),
            "comment": comment,
            "envelope": sign(statement.to_bytes(), own).decode(),
        }
        result = client.post("invitations", _hex(held.id), "withdraw", body=body)
    out.result(
        result, f"{escape(asked.subject.release)} {escape(asked.subject.step)}: {escape(told(result))}"
    )
