"""`sluice release`: create, list, show, watch; hold, resume, abort, roll back, amend, endorse."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.live import Live

from orchestrator.cli.client import JSON, Client
from orchestrator.cli.decisions import plan_of, signed_by_digest, signed_delegation, signed_endorsement, told
from orchestrator.cli.exit_codes import ExitCode
from orchestrator.cli.failures import Failure, NotInOrder, WaitedInVain
from orchestrator.cli.key_commands import KeyFile
from orchestrator.cli.output import Output, command, escape, table
from orchestrator.cli.pictures import event_line, instant, preview_picture, releases_table, timeline
from orchestrator.cli.plan_commands import load_for_release, plan_picture
from orchestrator.domain.values import digest, parse_duration

app = typer.Typer(no_args_is_help=True, help="Releases on their way along the gradient.")

Release = Annotated[str, typer.Argument(metavar="RELEASE", help="Id of the release.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; everybody in the plan can read it.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask before it happens.")]
Key = Annotated[
    str | None, typer.Option("--idempotency-key", help="The same key with the same request is one request.")
]


@command(app, "create")
def create(
    out: Output,
    name: Annotated[str, typer.Argument(help="Name of the model.")],
    version: Annotated[str, typer.Argument(help="Version of the model.")],
    plan: Annotated[Path, typer.Option("--plan", "-p", help="The plan that it follows.")],
    release: Annotated[
        str | None, typer.Option("--id", help="Its id; made of name and version when left out.")
    ] = None,
    key: Key = None,
) -> None:
    """Start a release along a plan. Running the same command again starts nothing new."""
    with Client() as client:
        found = load_for_release(plan, str(client.get("me")["id"]))
        asked = {"id": release, "name": name, "version": version, "plan": found.model_dump(mode="json")}
        # The same request has the same key by itself, so that a pipeline may simply run it again.
        made = "create-" + digest([release, name, version, found.digest]).removeprefix("sha256:")[:32]
        result = client.post("releases", body=asked, key=key or made)
    out.result(
        result,
        f"release [bold]{escape(result['release'])}[/bold] follows {found.digest}: {escape(told(result))}",
    )


@command(app, "list")
def list_releases(
    out: Output,
    stage: Annotated[str | None, typer.Option(help="Only at this stage.")] = None,
    status: Annotated[
        str | None, typer.Option(help="Only active, entering, completed or aborted ones.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Only names that begin so.")] = None,
    waiting_for: Annotated[
        str | None, typer.Option(help="Only those that wait for this person; `me` is you.")
    ] = None,
    order: Annotated[str, typer.Option(help="created, updated or name.")] = "created",
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
) -> None:
    """List releases, newest first."""
    filters = {"stage": stage, "status": status, "name": name, "waiting_for": waiting_for, "order": order}
    with Client() as client:
        found = list(client.items("releases", limit=limit, **filters))
    out.result(found, releases_table(found) if found else "none")


@command(app, "show")
def show(
    out: Output,
    release: Release,
    plan: Annotated[bool, typer.Option("--plan", help="Show its plan as well.")] = False,
) -> None:
    """Show a release as it stands: its way, what its next gate waits for, holds, incidents, proposals."""
    with Client() as client:
        state = _state(client, release)
        shown = plan_of(client, release) if plan else None
    document = {**state, **({"plan": shown} if shown is not None else {})}
    pictures = [timeline(state["release"], state["steps"], state["gate"])]
    out.result(document, *pictures, *([plan_picture(shown)] if shown is not None else []))


def _state(client: Client, release: str) -> JSON:
    found = client.get("releases", release)
    steps = client.get("releases", release, "steps")["items"]
    gate = client.gate(release, found["next"])[0] if found.get("next") else None
    return {"release": found, "steps": steps, "gate": gate}


@command(app, "hub")
def hub(out: Output, release: Release) -> None:
    """Whether the repository on the Hub is as the release left it, and what was changed there by hand."""
    with Client() as client:
        found = client.get("releases", release, "hub")
    if found["error"]:
        head = f"[red]cannot be looked at[/red] since {instant(found['failing_since'])}: {escape(found['error'])}"
    elif found["looked_at"] is None:
        head = "nobody has looked: the release is not shown on the Hub, or the first sweep is still to come"
    else:
        words = "[green]as the release left it[/green]" if found["in_order"] else "[red]changed by hand[/red]"
        head = f"{escape(found['repository'])}: {words}, looked at {instant(found['looked_at'])}"
    told = [
        f"{instant(one['found_at'])}  {one['outcome']}  {escape(d['what'])}: expected {escape(d['expected'])}, was {escape(d['actual'])}"
        for one in found["findings"]
        for d in one["differences"]
    ]
    out.result(found, head, *told)


@command(app, "watch")
def watch(
    out: Output,
    release: Release,
    until: Annotated[
        str | None, typer.Option(help="End when this step is entered, or at `completed`.")
    ] = None,
    timeout: Annotated[
        str | None, typer.Option(help="Give up after this long, such as 30m; exit code 9.")
    ] = None,
    after: Annotated[int, typer.Option(min=0, help="Begin behind this event.")] = 0,
) -> None:
    """Watch a release live: its timeline in a terminal, a line per event elsewhere, JSON lines with --json."""
    ends = time.monotonic() + parse_duration(timeout).total_seconds() if timeout else None
    live = None
    with Client() as client:
        if out.console.is_terminal and not out.as_json:
            live = Live(_picture(client, release), console=out.console, refresh_per_second=4)
            live.start()
        try:
            for event in client.events(release, after=after):
                if live is not None:
                    live.console.print(event_line(event))
                    live.update(_picture(client, release))
                else:
                    out.event(event, event_line(event))
                if until is not None and _reached(event, until):
                    return
                if ends is not None and time.monotonic() > ends:
                    raise WaitedInVain("Time is over", f"{release} did not get there in {timeout}")
        finally:
            if live is not None:
                live.stop()
    if until is not None and until != "completed":
        raise WaitedInVain("The release has ended", f"{release} ended without entering `{until}`")


def _picture(client: Client, release: str) -> RenderableType:
    state = _state(client, release)
    return timeline(state["release"], state["steps"], state["gate"])


def _reached(event: JSON, until: str) -> bool:
    if event["type"] != "step_entered":
        return False
    data = event["data"]
    return bool(data.get("completed")) if until == "completed" else data.get("step") == until


@command(app, "hold")
def hold(out: Output, release: Release, reason: Reason, key: Key = None) -> None:
    """Stop all clocks and gates, at once. One person may."""
    with Client() as client:
        result = client.post("releases", release, "hold", body={"reason": reason}, key=key)
    out.result(result, f"{escape(release)}: {escape(told(result))}; it takes a quorum to resume")


@command(app, "resume")
def resume(
    out: Output,
    release: Release,
    reason: Annotated[str | None, typer.Option("--reason", "-r", help="Why.")] = None,
    key_file: KeyFile = None,
    key: Key = None,
) -> None:
    """Lift the holds that stand now: proposed at first, carried out when a quorum stands behind it."""
    with Client() as client:
        holds = sorted(h["id"] for h in client.get("releases", release)["holds"])
        envelope = signed_endorsement(client, release, "resume", {"holds": holds}, key_file)
        result = client.post(
            "releases", release, "resume", body={"reason": reason, "envelope": envelope}, key=key
        )
    out.result(result, f"{escape(release)}: {escape(told(result))}")


@command(app, "abort")
def abort(out: Output, release: Release, reason: Reason, yes: Yes = False, key: Key = None) -> None:
    """End the release for good. What can be taken back is; what cannot is said before you confirm."""
    with Client() as client:
        _confirmed(out, client, release, {"type": "abort", "reason": reason}, yes)
        result = client.post("releases", release, "abort", body={"reason": reason}, key=key)
    out.result(result, f"{escape(release)}: {escape(told(result))}")


@command(app, "rollback")
def rollback(
    out: Output,
    release: Release,
    to: Annotated[str, typer.Argument(metavar="STEP", help="The earlier step to go back to.")],
    reason: Reason,
    yes: Yes = False,
    key: Key = None,
) -> None:
    """Go back to an earlier step. What is out already and stays out is said before you confirm."""
    with Client() as client:
        _confirmed(out, client, release, {"type": "roll_back", "to": to, "reason": reason}, yes)
        result = client.post("releases", release, "rollback", body={"to": to, "reason": reason}, key=key)
    out.result(result, f"{escape(release)}: {escape(told(result))}")


@command(app, "rotate-keys")
def rotate_keys(
    out: Output,
    release: Release,
    component: Annotated[
        list[str], typer.Option("--component", "-c", help="What gets new keys; give it once for each.")
    ],
    reason: Reason,
    delete_old: Annotated[
        bool, typer.Option("--delete-old", help="Delete the old sealed files once the new ones are complete.")
    ] = False,
    yes: Yes = False,
    key: Key = None,
) -> None:
    """Seal components anew under fresh keys, after one was or may have been disclosed.

    What was disclosed stays disclosed, and that is said before you confirm. Grants that still stand get envelopes for the
    new files; sign-offs on the old manifest become stale.
    """
    body = {"components": component, "reason": reason, "delete_old": delete_old}
    with Client() as client:
        _confirmed(out, client, release, {"type": "rotate_keys", **body}, yes)
        result = client.post("releases", release, "rotate-keys", body=body, key=key)
    out.result(result, f"{escape(release)}: {escape(told(result))}")


@command(app, "rotations")
def rotations(out: Output, release: Release) -> None:
    """List rotations of keys: how far each is, and what became of the old sealed files."""
    with Client() as client:
        found = client.get("releases", release, "rotations")
    fates = {old["artifact"]: old["fate"].replace("_", " ") for old in found["superseded"]}
    rows = [
        (
            r["id"],
            r["status"],
            ", ".join(r["components"]),
            f"{len(r['done'])} of {len(r['artifacts'])}",
            ", ".join(sorted({fates.get(name, "") for name in r["done"]})) or "-",
            r["failed"] or r["disclosed"],
        )
        for r in found["items"]
    ]
    columns = ("rotation", "standing", "components", "sealed anew", "old files", "note")
    out.result(found, table(columns, rows) if rows else "none")


@command(app, "copies")
def copies(
    out: Output,
    release: Release,
    sha256: Annotated[
        str | None, typer.Option(help="Whose copy has a file of this SHA-256 (hex); exit code 4: nobody's.")
    ] = None,
) -> None:
    """List partners' marked copies, or say whose copy a file is by its exact digest."""
    with Client() as client:
        found = client.get("releases", release, "copies")["items"]
    if sha256 is not None:
        found = [c for c in found if any(f["sha256"] == sha256.lower() for f in c["files"])]
        if not found:
            raise Failure("No issued copy has that file", f"sha256 {sha256}", exit_code=ExitCode.NOT_FOUND)
    rows = [(c["holder"], c["grant"], c["artifact"], len(c["files"]), instant(c["at"])) for c in found]
    out.result(
        found, table(("copy of", "grant", "artifact", "files", "made (UTC)"), rows) if rows else "none"
    )


def _confirmed(out: Output, client: Client, release: str, asked: JSON, yes: bool) -> None:
    """Show what a command would do, and ask."""
    step = client.get("releases", release, "steps")["items"][0]["name"]
    found = client.post("releases", release, "steps", step, "gate", "preview", body={"command": asked})
    if not out.as_json:
        out.notes.print(preview_picture(found))
    if found["accepted"]:
        out.confirm("Do it?", assumed=yes)


@command(app, "amend")
def amend(
    out: Output,
    release: Release,
    plan: Annotated[Path, typer.Option("--plan", "-p", help="The plan that holds from here on.")],
    reason: Reason,
    key_file: KeyFile = None,
    key: Key = None,
) -> None:
    """Replace the plan from here on, by the quorum of the plan that is replaced. Standing sign-offs become stale."""
    with Client() as client:
        found = load_for_release(plan, None)
        document = found.model_dump(mode="json")
        payload = {"plan_digest": found.digest, "plan": document, "reason": reason}
        envelope = signed_endorsement(client, release, "amend", payload, key_file)
        result = client.post(
            "releases",
            release,
            "amendments",
            body={"plan": document, "reason": reason, "envelope": envelope},
            key=key,
        )
    out.result(result, f"{escape(release)}: {escape(told(result))}")


@command(app, "endorse")
def endorse(
    out: Output,
    release: Release,
    proposal: Annotated[str, typer.Argument(metavar="PROPOSAL", help="Id of the proposal (`release show`).")],
    plan: Annotated[
        Path | None, typer.Option("--plan", "-p", help="Of an amendment: the plan that you agree to.")
    ] = None,
    yes: Yes = False,
    key_file: KeyFile = None,
    key: Key = None,
) -> None:
    """Stand behind somebody else's proposal: resume, shorten, close, amend, break the glass."""
    with Client() as client:
        proposals = client.get("releases", release)["proposals"]
        found = next((p for p in proposals if p["id"] == proposal), None)
        if found is None:
            known = ", ".join(p["id"] for p in proposals) or "none"
            raise Failure("There is no such proposal", f"open ones: {known}", exit_code=ExitCode.NOT_FOUND)
        payload = dict(found["payload"])
        if found["action"] == "amend":
            if plan is None:
                raise Failure(
                    "Which plan?",
                    "give --plan FILE: you agree to what you have read",
                    exit_code=ExitCode.USAGE,
                )
            payload["plan"] = load_for_release(plan, None).model_dump(mode="json")
        if digest(payload) != found["payload_digest"]:
            raise NotInOrder(
                "The proposal is not what its digest says", "what is shown is not what would be agreed to"
            )
        if not out.as_json:
            rows = [(name, value) for name, value in payload.items() if name != "plan"]
            out.notes.print(table(("proposed", found["action"].replace("_", " ")), rows))
        out.confirm("Stand behind it?", assumed=yes)
        envelope = signed_by_digest(client, release, found["action"], found["payload_digest"], key_file)
        result = client.post(
            "releases", release, "proposals", proposal, "endorse", body={"envelope": envelope}, key=key
        )
    out.result(result, f"{escape(release)}: {escape(told(result))}")


@command(app, "close-review")
def close_review(
    out: Output,
    release: Release,
    review: Annotated[str, typer.Argument(metavar="REVIEW", help="Id of the review (`release show`).")],
    outcome: Annotated[str, typer.Option("--outcome", "-o", help="What came of it.")],
    key_file: KeyFile = None,
    key: Key = None,
) -> None:
    """Close the review that breaking the glass left; by somebody who did not break it."""
    with Client() as client:
        payload = {"review": review, "outcome": outcome}
        envelope = signed_endorsement(client, release, "close_review", payload, key_file)
        body = {"outcome": outcome, "envelope": envelope}
        result = client.post("releases", release, "reviews", review, "close", body=body, key=key)
    out.result(result, f"{escape(release)}: {escape(told(result))}")


@command(app, "delegate")
def delegate(
    out: Output,
    release: Release,
    to: Annotated[
        str, typer.Argument(metavar="PERSON", help="Who may sign for you; never somebody who signs anyway.")
    ],
    role: Annotated[str, typer.Option("--role", help="In which of your roles.")],
    until: Annotated[str, typer.Option("--until", help="Until when, such as 2027-01-31T00:00:00Z.")],
    key_file: KeyFile = None,
    key: Key = None,
) -> None:
    """Let somebody else sign in one of your roles until a date."""
    with Client() as client:
        envelope = signed_delegation(client, release, to, role, until, key_file)
        body = {"to": to, "role": role, "until": until, "envelope": envelope}
        result = client.post("releases", release, "delegations", body=body, key=key)
    out.result(result, f"{escape(release)}: {escape(told(result))}")


@command(app, "pending")
def pending(out: Output, limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50) -> None:
    """What waits for you in all releases, soonest first."""
    with Client() as client:
        found = list(client.items("me", "pending", limit=limit))
    rows = [
        (instant(w["due"]), w["release"], w["what"], w.get("step") or w.get("reference"), w["message"])
        for w in found
    ]
    out.result(
        found,
        table(("due (UTC)", "release", "what", "where", "why"), rows) if rows else "nothing waits for you",
    )


__all__ = ["Key", "Reason", "Release", "Yes", "app"]
