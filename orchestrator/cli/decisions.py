"""Decisions that count only signed: what is signed is recomputed here from what the service shows, then signed locally.

Nothing is taken on the service's word: the gate's subject is hashed here, the plan is hashed here, and both must be what
the gate says they are. A service that shows one thing and asks to sign another is found out before a key is touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from orchestrator.cli.client import JSON, Client
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.failures import Failure, LocalFailure, NotInOrder
from orchestrator.cli.keys import load_identity
from orchestrator.domain.plan import Person, Plan
from orchestrator.domain.state import GateSubject
from orchestrator.domain.values import digest

Action = Literal["resume", "shorten_window", "close_incident", "amend", "break_glass", "close_review"]


def plan_of(client: Client, release: str) -> Plan:
    """The plan of a release, if it is the one that its digest names.

    Raises:
        NotInOrder: the service shows a plan whose digest is another.
    """
    shown = client.get("releases", release, "plan")
    plan = Plan.model_validate(shown["plan"])
    if plan.digest != shown["digest"]:
        raise NotInOrder(
            "The plan is not what its digest says",
            f"digest {shown['digest']}, but the plan shown has {plan.digest}",
        )
    return plan


def subject_of(gate: Mapping[str, Any], plan: Plan) -> GateSubject:
    """What stands at a gate, if it is what its digest names and belongs to this plan.

    Raises:
        NotInOrder: the service shows a subject or a plan that is not what its digest says.
    """
    shown = gate["verdict"]
    subject = GateSubject.model_validate(shown["subject"])
    if subject.digest != shown["subject_digest"]:
        raise NotInOrder(
            "The gate is not what its digest says",
            "what is shown is not what would be signed; tell an operator",
        )
    if subject.plan_digest != plan.digest:
        raise NotInOrder(
            "The gate belongs to another plan",
            f"gate: {subject.plan_digest}, plan: {plan.digest}; read again",
        )
    return subject


def me(client: Client) -> str:
    """The caller's name, by which plans know people."""
    return str(client.get("me")["id"])


def named(plan: Plan, person: str) -> Person:
    """The person as the plan names them.

    Raises:
        Failure: the plan does not name them.
    """
    found = plan.people.get(person)
    if found is None:
        known = ", ".join(sorted(plan.people))
        raise Failure(
            "The plan does not name you", f"it names {known}, not {person}", exit_code=ExitCode.NOT_PERMITTED
        )
    return found


def signer_for(plan: Plan, person: str, key_file: Path | None) -> Any:
    """The private key that fits one that the plan pins for this person; None when it pins none.

    Raises:
        LocalFailure: the key on this machine is not among them.
    """
    from orchestrator.trust.decisions import pinned_keys

    pinned = pinned_keys(plan, person)
    if not pinned:
        return None
    if all(key.passkey for key in pinned):
        raise LocalFailure(
            "The plan pins a passkey of yours and no key file",
            "a passkey signs in the console; a key share is released with a key file alone, which an amendment of the plan can pin",
        )
    private = load_identity(key_file)
    if private.public not in pinned:
        known = ", ".join(key.key_id for key in pinned)
        raise LocalFailure(
            "This is not your key of the plan",
            f"the key here is {private.public.key_id}; the plan pins {known}",
        )
    return private


def signed_endorsement(
    client: Client, release: str, action: Action, payload: Mapping[str, Any], key_file: Path | None
) -> str | None:
    """The signed statement that the caller stands behind this proposal; None when the plan pins no key of theirs."""
    return signed_by_digest(client, release, action, digest(dict(payload)), key_file)


def signed_by_digest(
    client: Client, release: str, action: Action, payload_digest: str, key_file: Path | None
) -> str | None:
    """The same for a proposal that is known by the digest of its payload."""
    from orchestrator.trust.decisions import endorsement_statement
    from orchestrator.trust.signing import sign

    plan, person = plan_of(client, release), me(client)
    own = list(named(plan, person).roles)
    asked = [] if action == "close_review" else plan.quorums.of(action).roles
    roles = [role for role in own if role in asked] or own
    private = signer_for(plan, person, key_file)
    if private is None:
        return None
    statement = endorsement_statement(
        release=release,
        action=action,
        payload_digest=payload_digest,
        plan_digest=plan.digest,
        person=person,
        role=roles[0],
        issued_at=datetime.now(UTC),
    )
    return sign(statement.to_bytes(), private).decode()


def signed_delegation(
    client: Client, release: str, to: str, role: str, until: str, key_file: Path | None
) -> str | None:
    """The signed statement that `to` may act in the caller's role; None when the plan pins no key of the caller."""
    from orchestrator.trust.signing import sign
    from orchestrator.trust.statements import Delegation, Statement, Subject

    plan, person = plan_of(client, release), me(client)
    private = signer_for(plan, person, key_file)
    if private is None:
        return None
    try:
        ends = datetime.fromisoformat(until)
    except ValueError:
        raise Failure(
            "Until when?", "give an instant such as 2027-01-31T00:00:00Z", exit_code=ExitCode.USAGE
        ) from None
    predicate = Delegation(
        release=release,
        plan_digest=plan.digest,
        from_person=person,
        to_person=to,
        role=role,
        issued_at=datetime.now(UTC),
        expires_at=ends,
    )
    subject = Subject.of("plan", plan.digest)
    return sign(Statement[Delegation](subjects=(subject,), predicate=predicate).to_bytes(), private).decode()


def told(result: JSON) -> str:
    """What a command did, in a line."""
    events = ", ".join(str(name).replace("_", " ") for name in result.get("events", []))
    again = " (the same request was answered before)" if result.get("repeated") else ""
    return (events or "nothing changed") + again
