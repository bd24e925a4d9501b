"""Commands against the real API: a release walked from the terminal alone, and every way to be refused."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from orchestrator.cli import client as client_module
from orchestrator.cli import output
from orchestrator.trust.keys import PrivateKey
from tests.api.conftest import RELEASE
from tests.support.plans import five_stages

ANSWER = {"finding": "none found", "rating": "low", "mitigation": "none needed"}


def plan_file(folder: Path, **changes) -> Path:
    file = folder / "plan.json"
    file.write_text(json.dumps(five_stages(**changes), indent=1))
    return file


def create(service, home: Path, **changes) -> str:
    return service.ok("mia", "release", "create", "mini", "1", "--plan", plan_file(home, **changes))[
        "release"
    ]


def bind(service, sealed) -> None:
    service.api.ok(service.api.post("ci", "/v1/artifacts", sealed.body))
    service.ok("ci", "artifact", "add", RELEASE, sealed.id)


def evidence(service, home: Path, step: str) -> None:
    card = home / "card.md"
    card.write_text("# Model card\n")
    service.ok("ci", "evidence", "add", RELEASE, card, "--kind", "model_card", "--step", step)
    form = yaml.safe_load(service("ci", "evidence", "new", step).out)
    form["considerations"] = dict.fromkeys(form["considerations"], ANSWER)
    file = home / f"risks-{step}.yaml"
    file.write_text(json.dumps(form))
    service.ok(
        "mia", "evidence", "add", RELEASE, file, "--kind", "risk_assessment", "--title", f"Risks of {step}"
    )


def to_demo(service, home, sealed) -> None:
    create(service, home)
    bind(service, sealed)
    evidence(service, home, "demo")
    for kind in ("rate_limit", "user_accounts", "input_monitoring"):
        service.ok("sam", "gate", "attest", RELEASE, "demo", kind, "--note", "checked")
    service.ok("sam", "sign", RELEASE, "demo", "--approve", "--yes")


def test_a_release_is_walked_from_the_terminal(service, home, sealed):
    to_demo(service, home, sealed)
    shown = service.ok("ann", "release", "show", RELEASE)
    assert (shown["release"]["current"], shown["release"]["stage"]) == ("demo", "hosted")
    assert shown["gate"]["verdict"]["step"] == "query"
    picture = service("ann", "release", "show", RELEASE, "--plan").out
    for words in ("demo", "signed by sam (safety)", "research access", "Five stages"):
        assert words in picture


def test_creating_twice_is_creating_once(service, home):
    create(service, home)
    again = service.ok("mia", "release", "create", "mini", "1", "--plan", plan_file(home))
    assert again["repeated"] is True
    assert [r["id"] for r in service.ok("ann", "release", "list")] == [RELEASE]


def test_another_plan_under_the_same_name_is_a_conflict(service, home):
    create(service, home)
    ran = service(
        "mia", "release", "create", "mini", "1", "--plan", plan_file(home, title="Another"), "--json"
    )
    assert ran.code == 5
    assert ran.error["status"] == 409


def test_a_plan_that_breaks_rules_is_refused_here_with_lines(service, home):
    value = five_stages()
    del value["steps"][3]["gate"]["cooling_off"]
    file = home / "bad.json"
    file.write_text(json.dumps(value, indent=1))
    ran = service("mia", "release", "create", "mini", "1", "--plan", file, "--json")
    assert ran.code == 6
    (reason,) = ran.error["reasons"]
    assert reason["path"] == "steps[3].gate.cooling_off"
    assert reason["line"] > 1


def test_a_creator_whose_signature_is_needed_is_refused_before_anything_is_sent(service, home):
    value = five_stages()
    value["people"] = {name: p for name, p in value["people"].items() if name != "sue"}
    value["people"]["mia"]["roles"] = ["safety"]
    del value["people"]["sam"]
    file = home / "mine.json"
    file.write_text(json.dumps(value, indent=1))
    ran = service("mia", "release", "create", "mini", "1", "--plan", file, "--json")
    assert ran.code == 6
    assert "rule-7" in {r["code"] for r in ran.error["reasons"]}


def test_a_placeholder_of_a_template_is_never_released(service, home):
    file = home / "template.yaml"
    service("mia", "plan", "new", file, "-t", "five-stages")
    ran = service("mia", "release", "create", "mini", "1", "--plan", file, "--json")
    assert ran.code == 1
    assert {r["code"] for r in ran.error["reasons"]} == {"placeholder"}


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\nb", "", "\u202eabc"])
def test_a_release_name_with_control_characters(service, home, name):
    ran = service("mia", "release", "create", name, "1", "--plan", plan_file(home), "--json")
    assert ran.code == 6
    assert ran.error["status"] == 422
    assert "\x1b" not in ran.err


def test_a_gate_is_shown_with_all_that_is_unmet(service, home, sealed):
    create(service, home)
    gate = service.ok("sam", "gate", "show", RELEASE)
    codes = {c["code"] for c in gate["verdict"]["unmet"]}
    assert {"sign_off", "evidence", "artifact", "control"} <= codes
    assert gate["etag"].strip('"') == gate["verdict"]["etag"]
    picture = service("sam", "gate", "show", RELEASE).out
    for condition in gate["verdict"]["unmet"]:
        assert condition["message"] in picture
    assert "access can be cut off again" in picture


def test_a_preview_says_what_would_happen_and_changes_nothing(service, home, sealed):
    create(service, home)
    bind(service, sealed)
    before = service.ok("ann", "release", "show", RELEASE)["release"]["seq"]
    found = service.ok("sam", "gate", "preview", RELEASE, "demo")
    assert found["accepted"] is True
    assert any("approves the gate" in line for line in found["consequences"])
    held = service("sam", "gate", "preview", RELEASE, "--decision", "hold")
    assert "all clocks and gates" in held.out
    assert service.ok("ann", "release", "show", RELEASE)["release"]["seq"] == before


def test_signing_asks_first_and_shows_every_field(service, home, sealed):
    create(service, home)
    bind(service, sealed)
    ran = service("sam", "sign", RELEASE, "--approve")
    assert ran.code == 2
    for words in ("approve as safety", "closed → hosted", "partners: research", sealed.id, "sha256:"):
        assert words in ran.err
    assert service.ok("sam", "gate", "show", RELEASE)["verdict"]["sign_offs"] == []


@pytest.mark.parametrize("flags", [[], ["--approve", "--reject"], ["--approve", "--withdraw"]])
def test_one_decision_has_to_be_named(service, home, flags):
    create(service, home)
    assert service("sam", "sign", RELEASE, *flags, "--yes").code == 2


def test_a_rejection_closes_the_gate_until_it_is_withdrawn(service, home, sealed):
    create(service, home)
    service.ok("sam", "sign", RELEASE, "--reject", "-m", "not yet", "--yes")
    unmet = service.ok("ann", "gate", "show", RELEASE)["verdict"]["unmet"]
    assert "rejection" in {c["code"] for c in unmet}
    service.ok("sam", "sign", RELEASE, "--withdraw", "--yes")
    unmet = service.ok("ann", "gate", "show", RELEASE)["verdict"]["unmet"]
    assert "rejection" not in {c["code"] for c in unmet}


def test_who_is_not_in_the_plan_cannot_sign(service, home):
    create(service, home)
    ran = service("olaf", "sign", RELEASE, "--approve", "--yes", "--json")
    assert ran.code == 3


def test_who_created_it_cannot_sign(service, home):
    create(service, home)
    ran = service("mia", "sign", RELEASE, "demo", "--role", "manager", "--approve", "--yes", "--json")
    assert ran.code == 3
    assert "cannot sign off" in ran.error["detail"]


def test_with_several_roles_one_has_to_be_named(service, home, sealed):
    to_demo(service, home, sealed)
    ran = service("sue", "sign", RELEASE, "query", "--approve", "--yes")
    assert ran.code == 2
    assert "safety, legal" in ran.err


def test_holding_takes_one_and_resuming_takes_two(service, home):
    create(service, home)
    service.ok("sam", "release", "hold", RELEASE, "--reason", "odd")
    assert service.ok("sam", "release", "resume", RELEASE, "-r", "fine")["events"] == ["proposed"]
    shown = service.ok("ann", "release", "show", RELEASE)["release"]
    (proposal,) = shown["proposals"]
    service.ok("lea", "release", "endorse", RELEASE, proposal["id"], "--yes")
    assert service.ok("ann", "release", "show", RELEASE)["release"]["holds"] == []


def test_an_incident_from_report_to_closing(service, home):
    create(service, home)
    service.ok(
        "sam", "incident", "report", RELEASE, "--kind", "leak", "--severity", "severe", "--summary", "seen on a forum",
        "-c", "weights", "--id", "leak-1",
    )  # fmt: skip
    assert "leak-1" in service("sam", "incident", "list", RELEASE).out
    service.ok(
        "sam", "incident", "triage", RELEASE, "leak-1", "--severity", "severe", "--confidence", "confirmed"
    )
    service.ok("sam", "incident", "close", RELEASE, "leak-1", "-o", "taken down")
    service.ok("lea", "incident", "close", RELEASE, "leak-1", "-o", "taken down")
    assert service.ok("sam", "incident", "list", RELEASE) == []
    assert service.ok("sam", "incident", "list", RELEASE, "--all")[0]["outcome"] == "taken down"


def test_rolling_back_says_first_what_stays_out(service, home, sealed):
    to_demo(service, home, sealed)
    ran = service("mia", "release", "rollback", RELEASE, "inside", "-r", "harm seen")
    assert ran.code == 2
    assert "nothing had left for good" in ran.err
    service.ok("mia", "release", "rollback", RELEASE, "inside", "-r", "harm seen", "--yes")
    assert service.ok("ann", "release", "show", RELEASE)["release"]["current"] == "inside"


def test_an_ended_release_takes_no_commands(service, home):
    create(service, home)
    service.ok("mia", "release", "abort", RELEASE, "-r", "given up", "--yes")
    ran = service("sam", "release", "hold", RELEASE, "--reason", "odd", "--json")
    assert ran.code == 5
    assert "has ended" in ran.error["detail"]


def test_watching_an_ended_release_tells_every_event(service, home):
    create(service, home)
    service.ok("mia", "release", "abort", RELEASE, "-r", "given up", "--yes")
    lines = [
        json.loads(line) for line in service("ann", "release", "watch", RELEASE, "--json").out.splitlines()
    ]
    assert lines[0]["type"] == "release_created"
    assert lines[-1]["type"] == "aborted"
    assert [e["seq"] for e in lines] == sorted({e["seq"] for e in lines})
    words = service("ann", "release", "watch", RELEASE).out
    assert "release created" in words
    ran = service("ann", "release", "watch", RELEASE, "--until", "demo")
    assert ran.code == 9


def test_watching_in_a_terminal_redraws_the_timeline(service, home, monkeypatch):
    create(service, home)
    service.ok("mia", "release", "abort", RELEASE, "-r", "given up", "--yes")
    monkeypatch.setattr(
        output, "_console", lambda *, stderr=False: Console(stderr=stderr, force_terminal=True, width=120)
    )
    ran = service("ann", "release", "watch", RELEASE)
    assert ran.code == 0
    assert "aborted" in ran.out
    assert "\x1b[" in ran.out


def test_windows_are_extended_by_one_and_shortened_by_two(service, home, sealed):
    to_demo(service, home, sealed)
    service.ok("sam", "gate", "extend", RELEASE, "--by", "14d", "-r", "more time")
    assert service.ok("ann", "gate", "show", RELEASE)["verdict"]["window"]["asked"] == 44 * 86_400
    for who in ("sam", "lea"):
        service.ok(who, "gate", "shorten", RELEASE, "--to", "20d", "-r", "findings are in")
    assert service.ok("ann", "gate", "show", RELEASE)["verdict"]["window"]["asked"] == 20 * 86_400


def test_the_glass_is_broken_by_two_and_leaves_a_review(service, home, sealed):
    to_demo(service, home, sealed)
    for who in ("sam", "lea"):
        service.ok(
            who, "gate", "break-glass", RELEASE, "-w", "research_window", "-r", "a patch is urgent", "--yes"
        )
    shown = service.ok("ann", "release", "show", RELEASE)["release"]
    assert shown["waived"] == ["research_window"]
    (review,) = shown["reviews"]
    assert service("sam", "release", "close-review", RELEASE, review["id"], "-o", "fine").code == 3
    service.ok("dan", "release", "close-review", RELEASE, review["id"], "-o", "it was needed")


def test_an_amendment_takes_a_quorum_that_read_it(service, home):
    create(service, home)
    file = plan_file(home, description="A second version.")
    service.ok("sam", "release", "amend", RELEASE, "--plan", file, "-r", "clearer")
    (proposal,) = service.ok("ann", "release", "show", RELEASE)["release"]["proposals"]
    assert service("lea", "release", "endorse", RELEASE, proposal["id"], "--yes").code == 2
    other = home / "other.json"
    other.write_text(json.dumps(five_stages(description="Something else.")))
    assert service("lea", "release", "endorse", RELEASE, proposal["id"], "--plan", other, "--yes").code == 1
    service.ok("lea", "release", "endorse", RELEASE, proposal["id"], "--plan", file, "--yes")
    assert (
        service.ok("ann", "release", "show", RELEASE, "--plan")["plan"]["description"] == "A second version."
    )


def test_somebody_signs_for_an_absent_person(service, home, sealed):
    create(service, home)
    until = (datetime.now(UTC) + timedelta(days=5)).isoformat()
    service.ok("sam", "release", "delegate", RELEASE, "dan", "--role", "safety", "--until", until)
    service.ok("dan", "sign", RELEASE, "--role", "safety", "--approve", "--yes")
    (view,) = service.ok("ann", "gate", "show", RELEASE)["verdict"]["sign_offs"]
    assert (view["person"], view["on_behalf_of"]) == ("dan", "sam")


def test_what_waits_for_me(service, home, sealed):
    create(service, home)
    assert {w["what"] for w in service.ok("sam", "release", "pending")} >= {"sign_off"}
    assert "nothing waits" in service("ann", "release", "pending").out


# --- signed decisions


@pytest.fixture
def pinned(service, home):
    """A plan that pins the keys of sam and lea; their key files."""
    keys, people = {}, five_stages()["people"]
    for name in ("sam", "lea"):
        key = PrivateKey.generate()
        keys[name] = home / f"{name}.key"
        keys[name].write_bytes(key.to_openssh())
        keys[name].chmod(0o600)
        people[name]["keys"] = [key.public.text()]
    create(service, home, people=people)
    return keys


def test_a_pinned_person_signs_with_their_key(service, pinned):
    service.ok("sam", "sign", RELEASE, "--approve", "--yes", "--key", pinned["sam"])
    (view,) = service.ok("ann", "gate", "show", RELEASE)["verdict"]["sign_offs"]
    assert (view["standing"], view["statement"][:7]) == ("counts", "sha256:")
    service.ok("sam", "sign", RELEASE, "--withdraw", "--yes", "--key", pinned["sam"])


def test_somebody_elses_key_is_refused_on_this_machine(service, pinned):
    ran = service("sam", "sign", RELEASE, "--approve", "--yes", "--key", pinned["lea"])
    assert ran.code == 8
    assert "the plan pins" in ran.err


def test_a_pinned_person_without_a_key_cannot_sign(service, pinned):
    assert service("sam", "sign", RELEASE, "--approve", "--yes").code == 8


def test_a_pinned_quorum_resumes_with_signatures(service, pinned):
    service.ok("sam", "release", "hold", RELEASE, "-r", "odd")
    service.ok("sam", "release", "resume", RELEASE, "--key", pinned["sam"])
    (proposal,) = service.ok("ann", "release", "show", RELEASE)["release"]["proposals"]
    service.ok("lea", "release", "endorse", RELEASE, proposal["id"], "--yes", "--key", pinned["lea"])
    assert service.ok("ann", "release", "show", RELEASE)["release"]["holds"] == []


class Lying:
    """A service that shows one thing and would have another signed."""

    def __init__(self, inner, change) -> None:
        self._inner, self._change = inner, change

    def handle_request(self, request):
        import httpx

        answer = self._inner.handle_request(request)
        if request.method == "GET" and b"verdict" in answer.content:
            value = answer.json()
            self._change(value["verdict"]["subject"])
            headers = [(k, v) for k, v in answer.headers.multi_items() if k != "content-length"]
            return httpx.Response(answer.status_code, headers=headers, json=value)
        return answer

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.update(audience="internal"),
        lambda s: s.update(to_stage="closed"),
        lambda s: s.update(manifests={}, attempt=7),
        lambda s: s.update(plan_digest="sha256:" + "0" * 64),
    ],
)
def test_a_service_that_shows_something_else_than_would_be_signed_is_found_out(
    service, pinned, monkeypatch, change
):
    monkeypatch.setattr(client_module, "TRANSPORT", Lying(client_module.TRANSPORT, change))
    ran = service("sam", "sign", RELEASE, "--approve", "--yes", "--key", pinned["sam"])
    assert ran.code == 1
    assert "not what" in ran.err


# --- partners, principals, evidence, grants, audit


def test_a_partner_and_its_account_are_made(service, home):
    recipient = home / "museum.key"
    service.ok("olaf", "partner", "keygen", recipient)
    for _ in range(2):
        service.ok("olaf", "partner", "add", "museum", "--name", "Museum", "--recipient", recipient)
    partners = {p["id"]: p for p in service.ok("ann", "partner", "list")}
    assert len(partners["museum"]["keys"]) == 1
    service.ok(
        "olaf",
        "principal",
        "add",
        "museum-bot",
        "-n",
        "Museum",
        "--kind",
        "partner",
        "-r",
        "partner",
        "--partner",
        "museum",
    )
    token = home / "token"
    service.ok("olaf", "principal", "token", "museum-bot", "-l", "laptop", "-f", token)
    assert token.stat().st_mode & 0o077 == 0
    service.api.tokens["museum"] = token.read_text().strip()
    service.ok("museum", "partner", "accept", "museum", "--terms", "Research terms")
    service.ok("museum", "partner", "key", "museum", recipient)
    assert service("museum", "partner", "list").code == 3


def test_a_token_is_revoked(service, home):
    issued = service.ok("olaf", "principal", "token", "sam", "-l", "second")
    service.api.tokens["sam2"] = issued["text"]
    assert service("sam2", "release", "list").code == 0
    service.ok("olaf", "principal", "revoke-token", "sam", issued["token"]["id"])
    assert service("sam2", "release", "list").code == 3


def test_a_document_comes_back_as_it_was(service, home, sealed):
    create(service, home)
    evidence(service, home, "demo")
    found = service.ok("ann", "evidence", "list", RELEASE)
    card = next(e for e in found if e["kind"] == "model_card")
    service.ok("ann", "evidence", "get", RELEASE, card["digest"], home / "back.md")
    assert (home / "back.md").read_text() == "# Model card\n"
    assert service("ann", "evidence", "get", RELEASE, card["digest"], home / "back.md").code == 8


def test_an_assessment_that_misses_a_consideration_is_told_with_its_line(service, home):
    create(service, home)
    file = home / "risks.yaml"
    file.write_text("step: demo\nconsiderations:\n  misuse: {finding: x, rating: tiny, mitigation: y}\n")
    ran = service("mia", "evidence", "add", RELEASE, file, "--kind", "risk_assessment", "--json")
    assert ran.code == 6
    assert any(r.get("line") == 3 for r in ran.error["reasons"])


def test_evidence_is_a_file_or_a_digest(service, home):
    create(service, home)
    assert service("ci", "evidence", "add", RELEASE, "--kind", "model_card").code == 2
    service.ok(
        "ci",
        "evidence",
        "add",
        RELEASE,
        "--kind",
        "model_card",
        "--digest",
        "sha256:" + "ab" * 32,
        "--step",
        "demo",
    )


def test_an_artifact_is_registered_from_its_store(service, home):
    create(service, home)
    folder = home / "model"
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"w" * 1000)
    (folder / "tokenizer.json").write_text("{}")
    from artifacts.keys import custody_keygen

    done = service.ok(
        "ci", "artifact", "seal", folder, "--to", custody_keygen().recipient, "--store", f"dir:{home / 'store'}",
        "-c", "weights=model.bin", "-c", "tokenizer=tokenizer.json",
    )  # fmt: skip
    added = service.ok(
        "ci",
        "artifact",
        "add",
        RELEASE,
        done["artifact"],
        "--store",
        done["store"],
        "--digest",
        done["manifest_digest"],
    )
    assert added["events"] == ["artifact_registered"]
    assert [a["id"] for a in service.ok("ann", "artifact", "list")] == [done["artifact"]]


def test_a_grant_is_listed_and_revoked_after_saying_what_that_does(service, home, sealed):
    to_demo(service, home, sealed)
    grants = {g["holder"]: g for g in service.ok("ann", "grant", "list", RELEASE)}
    assert {"platform", "uni", "ngo"} <= set(grants)
    ran = service("mia", "grant", "revoke", RELEASE, "--partner", "uni", "-r", "terms broken")
    assert ran.code == 2
    assert "never handed over" in ran.err
    service.ok("mia", "grant", "revoke", RELEASE, "--partner", "uni", "-r", "terms broken", "--yes")
    assert "uni" not in {g["holder"] for g in service.ok("ann", "grant", "list", RELEASE)}
    assert [g["holder"] for g in service.ok("ann", "grant", "list", RELEASE, "--ended")] == ["uni"]


def test_a_partner_sees_its_own_grants_alone(service, home, sealed):
    to_demo(service, home, sealed)
    assert {g["holder"] for g in service.ok("ngo-account", "grant", "list")} == {"ngo"}
    assert service("ngo-account", "release", "show", RELEASE).code in {3, 4}


def test_a_log_without_a_checkpoint_is_not_there_yet(service, home):
    create(service, home)
    ran = service("ann", "audit", "export", home / "log.jsonl", "--json")
    assert ran.code == 4
    assert not (home / "log.jsonl").exists()


def test_an_ingest_is_started_once(service, home):
    create(service, home)
    first = service.ok(
        "ci", "artifact", "ingest", "model", "--store", "s3://sealed/x", "-c", "weights=model.bin"
    )
    again = service.ok(
        "ci", "artifact", "ingest", "model", "--store", "s3://sealed/x", "-c", "weights=model.bin"
    )
    assert first["id"] == again["id"]
    assert service("ci", "artifact", "ingest", "../etc", "--store", "s3://x/y", "-c", "w=*").code == 6


# --- refusals


def test_no_token_is_told(service, sluice, monkeypatch):
    monkeypatch.delenv("SLUICE_TOKEN", raising=False)
    ran = sluice("release", "list", "--json")
    assert ran.code == 3
    assert ran.error["code"] == "unauthenticated"


def test_a_wrong_token_is_never_printed(service):
    service.api.tokens["wrong"] = "slt_thisisnotarealtoken"
    ran = service("wrong", "release", "list")
    assert ran.code == 3
    assert "thisisnotarealtoken" not in ran.out + ran.err


def test_what_is_not_there_is_told(service):
    assert service("ann", "release", "show", "nothing").code == 4


def test_a_name_cannot_leave_its_place_in_the_path(service):
    assert service("ann", "release", "show", "../me").code in {4, 6}


def test_a_service_that_is_down_is_told_and_may_be_asked_again(service, home, monkeypatch):
    create(service, home)
    service.api.gateway.down = True
    monkeypatch.setattr("orchestrator.cli.client.time.sleep", lambda _: None)
    monkeypatch.setattr(
        client_module.Client.__init__, "__kwdefaults__", {"transport": None, "sleep": lambda _: None}
    )
    ran = service("sam", "release", "hold", RELEASE, "-r", "odd", "--json")
    assert ran.code == 7
    assert ran.error["status"] == 503


def test_a_manifest_that_is_altered_is_refused(service, sealed):
    body = {**sealed.body, "manifest": base64.b64encode(sealed.manifest.replace(b"sig", b"sih", 1)).decode()}
    assert service.api.post("ci", "/v1/artifacts", body).status_code == 422
