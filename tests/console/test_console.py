"""The console as people use it: a real Chromium, a real HTTP server, passkeys in the browser."""

from __future__ import annotations

from io import StringIO

import pytest
from playwright.sync_api import Page, expect
from rich.console import Console

from orchestrator.cli.pictures import gate_picture
from orchestrator.domain.custody_wait import CustodyWait, LockRequest
from orchestrator.domain.events import CustodyWaits, EntryBegan
from orchestrator.domain.state import gate_subject
from orchestrator.records import database, releases
from orchestrator.trust.decisions import check_sign_off, check_withdrawal
from orchestrator.trust.keys import PrivateKey
from tests.api.conftest import RELEASE, Sealed
from tests.console.conftest import Site, plan_with_key
from tests.support.browser import give_authenticator

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]


def ready_for_sign_off(site: Site, sealed: Sealed, **plan: object) -> None:
    """The hosted step waits for its sign-off alone."""
    api = site.api
    api.ok(api.create(RELEASE, **plan))
    api.bind(sealed)
    api.evidence("demo")
    api.controls("demo", "rate_limit", "user_accounts", "input_monitoring")


def state(site: Site):
    with database.reading(site.api.engine) as session:
        return releases.load(session, RELEASE)


def events(site: Site) -> list:
    with database.reading(site.api.engine) as session:
        return [stored.event for stored in releases.events(session, RELEASE)]


def make_passkey(site: Site, page: Page) -> str:
    page.goto(f"{site.url}/console/passkey")
    page.click("text=Make a passkey…")
    line = page.locator("#passkey-line code").first
    expect(line).to_contain_text("sk-ecdsa-sha2-nistp256@openssh.com")
    return line.inner_text()


def test_an_approver_sees_what_waits_decides_and_the_gate_opens(site, sealed):
    ready_for_sign_off(site, sealed)
    page = site.open("sam")
    expect(page.locator("h1")).to_have_text("Waiting for me")
    expect(page.locator(".waits li")).to_have_count(1)
    site.shot(page, "home")
    page.click(".waits a")
    expect(page.locator("h1")).to_have_text("The gate of demo")
    expect(page.locator("main")).to_contain_text("1 condition unmet")
    site.shot(page, "gate")
    page.fill('#sign-off [name="comment"]', "Evaluations look sound.")
    page.click("text=Approve…")
    dialog = page.locator("#confirm")
    expect(dialog).to_contain_text("the gate then holds and opens at once")
    expect(dialog).to_contain_text("access can be cut off again by a rollback")
    site.shot(page, "confirm")
    page.click("#confirm-go")
    expect(page.locator("h1 ~ .tag.good")).to_contain_text("entered")
    assert state(site).current == "demo"
    page.goto(f"{site.url}/console/releases/{RELEASE}")
    site.shot(page, "release")
    expect(page.locator(".gradient .current")).to_contain_text("demo")


def test_a_passkey_signs_exactly_the_statement_that_was_shown(site, sealed):
    page = site.open("sam")
    give_authenticator(page)
    line = make_passkey(site, page)
    site.shot(page, "passkey")
    ready_for_sign_off(site, sealed, **plan_with_key("sam", line))
    with database.reading(site.api.engine) as session:
        before = releases.load(session, RELEASE)
    subject = gate_subject(before, before.plan.step("demo"))
    page.goto(f"{site.url}/console/releases/{RELEASE}/steps/demo")
    page.select_option('#sign-off [name="role"]', "safety")
    page.click("text=Approve…")
    shown = page.locator("#confirm .signed")
    expect(shown).to_contain_text(subject.plan_digest)
    for manifest in subject.manifests.values():
        expect(shown).to_contain_text(manifest)
    expect(shown).to_contain_text("decision: approve")
    expect(page.locator("#confirm-go")).to_have_text("Sign with my passkey")
    site.shot(page, "passkey-confirm")
    page.click("#confirm-go")
    expect(page.locator("h1 ~ .tag.good")).to_contain_text("entered")
    [signed] = [event for event in events(site) if event.type == "signed_off"]
    check_sign_off(
        signed.envelope,
        before.plan,
        subject,
        person="sam",
        role="safety",
        decision="approve",
        now=signed.at,
        expires_at=signed.expires_at,
    )


def test_a_rejection_is_signed_and_taken_back_with_the_passkey(site, sealed):
    page = site.open("sam")
    give_authenticator(page)
    line = make_passkey(site, page)
    ready_for_sign_off(site, sealed, **plan_with_key("sam", line))
    page.goto(f"{site.url}/console/releases/{RELEASE}/steps/demo")
    page.click("text=Reject…")
    page.click("#confirm-go")
    expect(page.locator("main")).to_contain_text("You decided: reject")
    standing = state(site).sign_offs["sam"]
    page.click("text=Withdraw…")
    page.click("#confirm-go")
    expect(page.locator("main")).not_to_contain_text("You decided")
    [withdrawn] = [event for event in events(site) if event.type == "sign_off_withdrawn"]
    check_withdrawal(
        withdrawn.envelope,
        state(site).plan,
        release=RELEASE,
        step="demo",
        attempt=withdrawn.attempt,
        person="sam",
        withdraws=standing.statement,
        now=withdrawn.at,
    )


def test_a_stolen_session_without_the_passkey_decides_nothing(site, sealed):
    owner = site.open("sam")
    give_authenticator(owner)
    line = make_passkey(site, owner)
    ready_for_sign_off(site, sealed, **plan_with_key("sam", line))
    thief = site.open("sam")
    give_authenticator(thief)
    make_passkey(site, thief)  # one of the thief's own, which no plan pins
    thief.goto(f"{site.url}/console/releases/{RELEASE}/steps/demo")
    thief.click("text=Approve…")
    thief.click("#confirm-go")
    expect(thief.locator("#confirm-problem")).to_contain_text("the passkey's answer does not hold")
    assert state(site).sign_offs == {}


def test_a_gate_that_changed_meanwhile_refuses_the_decision(site, sealed):
    ready_for_sign_off(site, sealed)
    page = site.open("sam")
    page.goto(f"{site.url}/console/releases/{RELEASE}/steps/demo")
    page.click("text=Approve…")
    expect(page.locator("#confirm-go")).to_have_text("Confirm")
    card = {"kind": "model_card", "digest": "sha256:" + "ef" * 32, "title": "Another card", "step": "demo"}
    site.api.ok(site.api.post("ci", f"/v1/releases/{RELEASE}/evidence", card))
    page.click("#confirm-go")
    expect(page.locator("#confirm-problem")).to_contain_text("has changed since it was read")
    assert state(site).sign_offs == {}


def test_whoever_has_a_key_file_is_shown_the_command(site, sealed):
    key = PrivateKey.generate().public.text()
    ready_for_sign_off(site, sealed, **plan_with_key("sam", key))
    page = site.open("sam")
    page.goto(f"{site.url}/console/releases/{RELEASE}/steps/demo")
    page.click("text=Approve…")
    expect(page.locator("#confirm")).to_contain_text(f"sluice sign {RELEASE} demo --role safety --approve")
    expect(page.locator("#confirm-go")).to_be_hidden()


def test_one_person_holds_and_two_resume_and_the_page_follows(site, sealed):
    ready_for_sign_off(site, sealed)
    watching = site.open("lea")
    watching.goto(f"{site.url}/console/releases/{RELEASE}")
    page = site.open("sam")
    page.goto(f"{site.url}/console/releases/{RELEASE}")
    page.fill('form[data-command="hold"] [name="reason"]', "<script>alert(1)</script> odd numbers")
    page.click("text=Hold…")
    expect(page.locator("#confirm")).to_contain_text("all clocks and gates of the release stand")
    page.click("#confirm-go")
    expect(watching.locator(".banner.bad")).to_contain_text("<script>alert(1)</script> odd numbers")
    site.shot(watching, "held")
    page.click("text=Resume…")
    page.click("#confirm-go")
    expect(watching.locator(".banner.warn")).to_contain_text("1 of 2 agree")
    watching.click("text=Endorse…")
    watching.click("#confirm-go")
    expect(watching.locator(".banner.bad")).to_have_count(0)
    assert state(site).holds == {}


def test_an_incident_is_reported_and_judged_from_the_page(site, sealed):
    ready_for_sign_off(site, sealed)
    page = site.open("sam")
    page.goto(f"{site.url}/console/releases/{RELEASE}")
    page.fill('form[data-command="report_incident"] [name="summary"]', "A copy is on a public hub")
    page.fill('form[data-command="report_incident"] [name="sighting"]', "https://hub.example/x")
    page.click("text=Report…")
    page.click("#confirm-go")
    banner = page.locator(".banner.bad").filter(has_text="A copy is on a public hub")
    expect(banner).to_be_visible()
    banner.locator("summary").click()
    banner.locator('[name="confidence"]').select_option("false_alarm")
    banner.locator("text=Triage…").click()
    page.click("#confirm-go")
    expect(banner).to_contain_text("false alarm")
    site.shot(page, "incident")


def test_nothing_is_shown_to_whoever_is_not_signed_in_or_not_meant(site, sealed):
    ready_for_sign_off(site, sealed)
    page = site.open()
    page.goto(f"{site.url}/console/releases/{RELEASE}")
    expect(page.locator("h1")).to_have_text("Sign in")
    assert RELEASE not in page.content().replace(f"/console/releases/{RELEASE}", "")
    for token, told in (
        ("slt_" + "a" * 43, "not known"),
        (site.api.tokens["ci"], "for the people"),
        (site.api.tokens["uni-account"], "for the people"),
    ):
        page.fill("#token", token)
        page.click("text=Sign in >> nth=-1")
        expect(page.locator("main .problem")).to_contain_text(told)
    site.shot(page, "sign-in")
    page.fill("#token", site.api.tokens["sam"])
    page.click("text=Sign in >> nth=-1")
    expect(page.locator("h1")).to_contain_text("mini")
    page.goto(f"{site.url}/console/releases/not-there")
    expect(page.locator("main")).to_contain_text("there is no release")
    page.goto(f"{site.url}/console/releases/{RELEASE}/steps/nowhere")
    expect(page.locator("main")).to_contain_text("the plan has no step")
    page.click("text=Sign out")
    page.wait_for_url("**/console/sign-in")
    page.goto(f"{site.url}/console")
    expect(page.locator("h1")).to_have_text("Sign in")


def test_an_auditor_looks_and_decides_nothing(site, sealed):
    ready_for_sign_off(site, sealed)
    page = site.open("ann")
    page.goto(f"{site.url}/console/releases/{RELEASE}")
    expect(page.locator("form[data-command]")).to_have_count(0)
    page.goto(f"{site.url}/console/releases/{RELEASE}/steps/demo")
    expect(page.locator("main")).to_contain_text("The plan does not name you")


def test_a_token_that_is_revoked_ends_its_sessions(site, sealed):
    page = site.open("sam")
    expect(page.locator("h1")).to_have_text("Waiting for me")
    [token] = site.api.ok(site.api.get("sam", "/v1/principals/sam/tokens"))["items"]
    site.api.ok(site.api.call("olaf", "DELETE", f"/v1/principals/sam/tokens/{token['id']}"))
    page.reload()
    expect(page.locator("h1")).to_have_text("Sign in")


def test_a_gate_that_waits_for_the_second_lock_says_for_whom_and_since_when(site, sealed):
    ready_for_sign_off(site, sealed)
    found = state(site)
    head = {"at": site.api.clock(), "by": "sluice", "command_id": "entry"}
    subject = gate_subject(found, found.plan.step("demo")).digest
    request = LockRequest(about=sealed.id, accessor="acc-1234", approved_by=["userpass-alice"])
    wait = CustodyWait(
        what="second_lock", message="two of the board must approve", approvers="the board", requests=[request]
    )
    place = {"step": "demo", "attempt": found.attempt}
    made = [EntryBegan(**head, **place, subject=subject), CustodyWaits(**head, **place, wait=wait)]
    asked = releases.Append(RELEASE, found.seq + 1, made, "entry", "begin_entry", subject, "sluice")
    with database.writing(site.api.engine) as session:
        releases.append(session, asked, site.api.clock())
    gate = site.api.ok(site.api.gate("demo"))
    assert gate["verdict"]["waits"]["requests"][0]["accessor"] == "acc-1234"
    assert "second_lock" in {condition["code"] for condition in gate["verdict"]["unmet"]}
    shown = Console(width=200, file=StringIO())
    shown.print(gate_picture(gate))
    line = shown.file.getvalue()
    for told in ("the board", "acc-1234", "userpass-alice"):
        assert told in line
    page = site.open("sam")
    expect(page.locator(".waits")).to_contain_text("two of the board must approve")
    page.goto(f"{site.url}/console/releases/{RELEASE}")
    expect(page.locator("main")).to_contain_text("Custody waits at demo")
    page.goto(f"{site.url}/console/releases/{RELEASE}/steps/demo")
    banner = page.locator(".banner.warn")
    for told in ("Custody waits since", "the board", "acc-1234", "userpass-alice"):
        expect(banner).to_contain_text(told)
    site.shot(page, "second-lock")
