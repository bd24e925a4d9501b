"""`sluice gate` and `sluice sign`: what stands at a gate, what a decision would do, and deciding."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from orchestrator.cli.client import JSON, Client
from orchestrator.cli.decisions import me, named, plan_of, signed_endorsement, signer_for, subject_of, told
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.failures import Failure
from orchestrator.cli.key_commands import KeyFile
from orchestrator.cli.output import Output, command, escape
from orchestrator.cli.pictures import gate_picture, preview_picture
from orchestrator.cli.release_commands import Key, Reason, Release, Yes
from orchestrator.cli.shares import OwnShares
from orchestrator.domain.plan import Plan
from orchestrator.domain.state import GateSubject
from orchestrator.domain.values import format_duration, parse_duration

app = typer.Typer(no_args_is_help=True, help="Gates: what must hold before a step is entered.")

OptionalStep = Annotated[
    str | None, typer.Argument(metavar="STEP", help="The step; the next one when left out.")
]
_Decision = Literal["approve", "reject", "withdraw"]


def next_step(client: Client, release: str, step: str | None) -> str:
    """The step that was named, or the release's next one.

    Raises:
        Failure: none is left.
    """
    if step is not None:
        return step
    found = client.get("releases", release).get("next")
    if not found:
        raise Failure(
            "No step is left",
            f"{release} has entered its last step or has ended",
            exit_code=ExitCode.CONFLICT,
        )
    return str(found)


@command(app, "show")
def show(out: Output, release: Release, step: OptionalStep = None) -> None:
    """Show the verdict on a gate: every unmet condition, who can meet it, when a clock will, what entering means."""
    with Client() as client:
        gate, etag = client.gate(release, next_step(client, release, step))
    out.result({**gate, "etag": etag}, gate_picture(gate))


@command(app, "preview")
def preview(
    out: Output,
    release: Release,
    step: OptionalStep = None,
    role: Annotated[str | None, typer.Option(help="Preview your sign-off in this role.")] = None,
    decision: Annotated[
        str, typer.Option(help="approve, reject, withdraw, hold, abort or roll-back.")
    ] = "approve",
    to: Annotated[str | None, typer.Option(help="Of a roll-back: the step to go back to.")] = None,
) -> None:
    """Say what a decision would do, before anybody makes it. Nothing is changed."""
    with Client() as client:
        name = next_step(client, release, step)
        asked = _asked(client, release, name, role, decision, to)
        found = client.post("releases", release, "steps", name, "gate", "preview", body={"command": asked})
    out.result(found, preview_picture(found))


def _asked(client: Client, release: str, step: str, role: str | None, decision: str, to: str | None) -> JSON:
    if decision in {"hold", "abort"}:
        return {"type": decision, "reason": "preview"}
    if decision in {"roll-back", "rollback"}:
        if to is None:
            raise Failure("Back to where?", "give --to STEP", exit_code=ExitCode.USAGE)
        return {"type": "roll_back", "to": to, "reason": "preview"}
    if decision == "withdraw":
        return {"type": "withdraw_sign_off", "step": step}
    if decision not in {"approve", "reject"}:
        raise Failure(
            "Which decision?", "approve, reject, withdraw, hold, abort or roll-back", exit_code=ExitCode.USAGE
        )
    gate, _ = client.gate(release, step)
    chosen = role or _only_role(plan_of(client, release), me(client), step)
    return {
        "type": "sign_off",
        "step": step,
        "role": chosen,
        "decision": decision,
        "subject": gate["verdict"]["subject_digest"],
        # A preview is asked about an unsigned decision; the envelope only has to be there when keys are pinned.
        "envelope": "preview",
    }


@command(app, "retry")
def retry(out: Output, release: Release, step: OptionalStep = None, key: Key = None) -> None:
    """Try again to enter a step whose entry was taken back, once what was in the way is mended."""
    with Client() as client:
        name = next_step(client, release, step)
        _, etag = client.gate(release, name)
        result = client.post("releases", release, "steps", name, "retry", if_match=etag, key=key)
    out.result(result, f"{escape(release)} {escape(name)}: {escape(told(result))}")


@command(app, "extend")
def extend(
    out: Output,
    release: Release,
    by: Annotated[str, typer.Option("--by", help="How much longer, such as 14d.")],
    reason: Reason,
    step: OptionalStep = None,
    key: Key = None,
) -> None:
    """Ask for more research time before a step. One person may, at once."""
    with Client() as client:
        name = next_step(client, release, step)
        body = {"by": format_duration(parse_duration(by)), "reason": reason}
        result = client.post("releases", release, "steps", name, "window", "extend", body=body, key=key)
    out.result(result, f"{escape(release)} {escape(name)}: {escape(told(result))}")


@command(app, "shorten")
def shorten(
    out: Output,
    release: Release,
    to: Annotated[str, typer.Option("--to", help="How long it is to be, such as 30d.")],
    reason: Reason,
    step: OptionalStep = None,
    key_file: KeyFile = None,
    key: Key = None,
) -> None:
    """Ask for less research time: proposed at first, carried out when a quorum stands behind it."""
    with Client() as client:
        name = next_step(client, release, step)
        _, etag = client.gate(release, name)
        wanted = format_duration(parse_duration(to))
        envelope = signed_endorsement(
            client, release, "shorten_window", {"step": name, "to": wanted}, key_file
        )
        body = {"to": wanted, "reason": reason, "envelope": envelope}
        result = client.post(
            "releases", release, "steps", name, "window", "shorten", body=body, if_match=etag, key=key
        )
    out.result(result, f"{escape(release)} {escape(name)}: {escape(told(result))}")


@command(app, "break-glass")
def break_glass(
    out: Output,
    release: Release,
    waive: Annotated[
        list[str], typer.Option("--waive", "-w", help="A condition to lift, such as research_window.")
    ],
    reason: Reason,
    step: OptionalStep = None,
    yes: Yes = False,
    key_file: KeyFile = None,
    key: Key = None,
) -> None:
    """Lift conditions of the next gate in an emergency. Needs two people, tells everybody, leaves a review."""
    with Client() as client:
        name = next_step(client, release, step)
        gate, etag = client.gate(release, name)
        if not out.as_json:
            out.notes.print(gate_picture(gate))
        out.confirm(f"Break the glass at {name}? Everybody in the plan is told.", assumed=yes)
        payload: dict[str, Any] = {
            "step": name,
            "attempt": gate["verdict"]["subject"]["attempt"],
            "waives": sorted(set(waive)),
            "reason": reason,
        }
        envelope = signed_endorsement(client, release, "break_glass", payload, key_file)
        body = {"waives": sorted(set(waive)), "reason": reason, "envelope": envelope}
        result = client.post(
            "releases", release, "steps", name, "break-glass", body=body, if_match=etag, key=key
        )
    out.result(result, f"{escape(release)} {escape(name)}: {escape(told(result))}")


@command(app, "attest")
def attest(
    out: Output,
    release: Release,
    step: Annotated[str, typer.Argument(metavar="STEP", help="The step.")],
    control: Annotated[
        str, typer.Argument(metavar="CONTROL", help="Kind of the control, such as rate_limit.")
    ],
    failed: Annotated[bool, typer.Option("--not-in-force", help="Say that it is not in force.")] = False,
    evidence: Annotated[str | None, typer.Option(help="Digest (sha256:…) of what shows it.")] = None,
    note: Annotated[str | None, typer.Option(help="A remark.")] = None,
    key: Key = None,
) -> None:
    """Attest that a control of a step is in force, or say that it is not."""
    body = {"in_force": not failed, "evidence": evidence, "note": note}
    with Client() as client:
        result = client.post(
            "releases", release, "steps", step, "controls", control, body=body, key=key, method="PUT"
        )
    out.result(result, f"{escape(release)} {escape(step)} {escape(control)}: {escape(told(result))}")


def sign_command(
    out: Output,
    release: Release,
    step: OptionalStep = None,
    role: Annotated[str | None, typer.Option("--role", help="In which of your roles.")] = None,
    approve: Annotated[bool, typer.Option("--approve", help="Approve.")] = False,
    reject: Annotated[
        bool, typer.Option("--reject", help="Reject: the gate stays closed until you withdraw it.")
    ] = False,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take your standing sign-off back.")] = False,
    comment: Annotated[
        str | None, typer.Option("--comment", "-m", help="For everybody in the plan to read.")
    ] = None,
    validity: Annotated[
        str | None, typer.Option(help="How long it counts, such as 30d; at most what the plan allows.")
    ] = None,
    share_key: Annotated[
        Path | None,
        typer.Option(
            "--share-key",
            help="The private key that your key share was sealed to: the share is released to custody with this approval.",
        ),
    ] = None,
    yes: Yes = False,
    key_file: KeyFile = None,
    key: Key = None,
) -> None:
    """Decide at a gate: shows in plain words what will be signed, signs on this machine, sends it.

    The private key never leaves this machine. What is signed is exactly what is shown: when the gate changes in between,
    the decision is refused and counts for nothing.
    """
    decision = _decision(approve, reject, withdraw)
    if share_key is not None and decision != "approve":
        raise Failure(
            "A key share is released with an approval", "leave --share-key out", exit_code=ExitCode.USAGE
        )
    with Client() as client:
        name = next_step(client, release, step)
        gate, etag = client.gate(release, name)
        plan, person = plan_of(client, release), me(client)
        subject = subject_of(gate, plan)
        standing = next((s for s in gate["verdict"]["sign_offs"] if s["person"] == person), None)
        chosen = (standing or {}).get("role") if decision == "withdraw" else role
        chosen = str(chosen or _only_role(plan, person, name))
        private = signer_for(plan, person, key_file)
        longest = _validity(plan, name, validity)
        shares = OwnShares(client, gate, subject, person, share_key)
        if not out.as_json:
            out.notes.print(_what_is_signed(gate, subject, plan, person, chosen, decision, longest))
            for line in shares.lines() if decision == "approve" else []:
                out.notes.print(escape(line))
        out.confirm(f"{decision.capitalize()} as {chosen}?", assumed=yes)
        now = datetime.now(UTC).replace(microsecond=0)
        envelope = None
        if private is not None:
            envelope = _signed(private, subject, person, chosen, decision, now, longest, comment, standing)
        result = _send(
            client,
            release,
            name,
            etag,
            chosen,
            decision,
            gate,
            comment,
            now + longest if validity or envelope else None,
            envelope,
            shares.released(envelope),
            key,
        )
    out.result(result, f"{escape(release)} {escape(name)}: {escape(told(result))}")


def _decision(approve: bool, reject: bool, withdraw: bool) -> _Decision:
    chosen: list[_Decision] = []
    if approve:
        chosen.append("approve")
    if reject:
        chosen.append("reject")
    if withdraw:
        chosen.append("withdraw")
    if len(chosen) != 1:
        raise Failure(
            "Which decision?", "give one of --approve, --reject, --withdraw", exit_code=ExitCode.USAGE
        )
    return chosen[0]


def _only_role(plan: Plan, person: str, step: str) -> str:
    """The one role that this person can sign the step in; asked for when there are several."""
    found = plan.step(step)
    asked = [n.role for n in found.gate.sign_offs] if found is not None else []
    own = named(plan, person).roles
    fitting = [role for role in own if role in asked] or list(own)
    if len(fitting) != 1:
        raise Failure("In which role?", f"give --role: {', '.join(fitting)}", exit_code=ExitCode.USAGE)
    return fitting[0]


def _validity(plan: Plan, step: str, asked: str | None) -> timedelta:
    found = plan.step(step)
    longest = found.gate.sign_off_validity if found is not None else timedelta(days=90)
    return longest if asked is None else min(parse_duration(asked), longest)


def _what_is_signed(
    gate: JSON, subject: GateSubject, plan: Plan, person: str, role: str, decision: str, validity: timedelta
) -> str:
    """What a person reads before they sign: every field of the statement, and what it means."""
    lines = [
        f"[bold]You are about to {decision} as {escape(role)}[/bold] ({escape(person)}), for {format_duration(validity)}:",
        f"  release   {escape(subject.release)} ({escape(plan.title)})",
        f"  step      {escape(subject.step)}, attempt {subject.attempt}: {subject.from_stage} → {subject.to_stage}",
        f"  audience  {escape(subject.audience)}",
        f"  plan      {subject.plan_digest}",
    ]
    lines += [
        f"  artifact  {escape(name)} {manifest}" for name, manifest in sorted(subject.manifests.items())
    ]
    lines += [f"  evidence  {kind} {document}" for kind, document in sorted(subject.evidence.items())]
    lines += [f"  [dim]→[/dim] {escape(words)}" for words in gate["means"]]
    if gate["verdict"]["irreversible"]:
        lines.append("  [bold red]entering this step cannot be undone[/bold red]")
    return "\n".join(lines)


def _signed(
    private: Any,
    subject: GateSubject,
    person: str,
    role: str,
    decision: _Decision,
    now: datetime,
    validity: timedelta,
    comment: str | None,
    standing: JSON | None,
) -> str:
    from orchestrator.trust.decisions import sign_off_statement
    from orchestrator.trust.signing import sign

    statement = sign_off_statement(
        subject,
        person=person,
        role=role,
        decision=decision,
        issued_at=now,
        validity=validity,
        comment=comment or "",
        withdraws=(standing or {}).get("statement") if decision == "withdraw" else None,
    )
    return sign(statement.to_bytes(), private).decode()


def _send(
    client: Client,
    release: str,
    step: str,
    etag: str,
    role: str,
    decision: str,
    gate: JSON,
    comment: str | None,
    expires_at: datetime | None,
    envelope: str | None,
    shares: dict[str, str],
    key: str | None,
) -> JSON:
    place = ("releases", release, "steps", step, "sign-offs")
    if decision == "withdraw":
        return client.post(
            *place, "withdraw", body={"comment": comment, "envelope": envelope}, if_match=etag, key=key
        )
    body: JSON = {
        "role": role,
        "decision": decision,
        "subject": gate["verdict"]["subject_digest"],
        "comment": comment,
        "expires_at": None if expires_at is None else expires_at.isoformat(),
        "envelope": envelope,
    }
    if shares:
        body["shares"] = shares
    return client.post(*place, body=body, if_match=etag, key=key)


__all__ = ["app", "next_step", "sign_command"]
