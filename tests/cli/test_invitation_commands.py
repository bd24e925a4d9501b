"""An outside reviewer from the terminal: invited, shown, signed, withdrawn; and what the command refuses by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.cli import client as client_module
from tests.api.conftest import RELEASE
from tests.api.test_invitations import DAN, inviting


@pytest.fixture
def at_gate(service, home, sealed):
    """A release whose next gate waits for a reviewer, whom dan may invite with the key that is here."""
    api = service.api
    api.ok(api.create(**inviting()))
    api.bind(sealed)
    api.evidence("demo")
    key = home / "dan_ed25519"
    key.write_bytes(DAN.to_openssh(None))
    key.chmod(0o600)
    return service


def made(service, home: Path, *more: object, name: str = "invitation.json") -> dict:
    file, key = home / name, home / "dan_ed25519"
    given = (
        "--reviewer",
        "jane",
        "--organisation",
        "A University",
        "--file",
        file,
        "--key",
        key,
        "--yes",
        *more,
    )
    return service.ok("dan", "invitation", "make", RELEASE, *given)


def test_a_reviewer_without_an_account_is_walked_through(at_gate, home):
    invited = made(at_gate, home)
    assert invited["events"] == ["invited"]
    file, link = home / "invitation.json", invited["link"]
    assert file.stat().st_mode & 0o077 == 0, "the file is a secret"
    for what in (file, link):
        shown = at_gate("mia", "invitation", "show", what)
        assert shown.code == 0, shown.err
        for words in (
            "jane of A University may sign as reviewer",
            "invited by dan",
            "evidence  model_card",
            "can be cut off",
        ):
            assert words in shown.out, shown.out
    signed = at_gate.ok("mia", "invitation", "sign", link, "--approve", "--yes", "-m", "Sound.")
    assert signed["events"] == ["signed_off"]
    listed = at_gate.ok("sam", "invitation", "list", RELEASE)
    assert [(one["reviewer"], one["standing"]) for one in listed] == [("jane", "used")]
    again = at_gate("mia", "invitation", "sign", file, "--reject", "--yes")
    assert again.code == 5
    assert "was used already" in again.err
    gate = at_gate.ok("sam", "gate", "show", RELEASE, "demo")["verdict"]["sign_offs"]
    assert [(one["person"], one["comment"], one["standing"]) for one in gate] == [
        ("jane", "Sound.", "counts")
    ]
    assert at_gate.ok("mia", "invitation", "withdraw", link, "--yes")["events"] == ["sign_off_withdrawn"]
    assert at_gate("mia", "invitation", "withdraw", link, "--yes").code == 5


def test_the_reviewers_requests_carry_no_account(at_gate, home, monkeypatch):
    link = made(at_gate, home)["link"]
    through, seen = client_module.TRANSPORT, []

    class Watching(type(through)):
        def handle_request(self, request):
            seen.append(request.headers.get("Authorization"))
            return super().handle_request(request)

    monkeypatch.setattr(client_module, "TRANSPORT", Watching(at_gate.api))
    at_gate.ok("mia", "invitation", "show", link)
    assert seen == [None]


def test_revoked_and_broken_links_are_told_in_words(at_gate, home):
    invited = made(at_gate, home)
    short = invited["invitation"].removeprefix("sha256:")[:8]
    assert at_gate.ok("sam", "invitation", "revoke", RELEASE, short, "--reason", "astray")["events"]
    assert "this invitation is revoked" in at_gate("mia", "invitation", "show", invited["link"]).out
    assert at_gate("mia", "invitation", "sign", invited["link"], "--approve", "--yes").code == 5
    document = json.loads((home / "invitation.json").read_text())
    cut = (invited["link"].split("#")[0], invited["link"][:-9], home / "nothing.json")
    for link in cut:
        assert at_gate("mia", "invitation", "show", link).code == 8
    other = f"{document['url']}/invitation/{'0' * 64}#{document['token']}"
    refused = at_gate("mia", "invitation", "show", other)
    assert refused.code == 4
    assert "or this is not its link" in refused.err


def test_who_may_not_invite_is_told_and_leaves_no_file(at_gate, home):
    file, key = home / "x.json", home / "dan_ed25519"
    given = ("--reviewer", "jane", "--organisation", "A University", "--file", file, "--key", key, "--yes")
    assert at_gate("sam", "invitation", "make", RELEASE, *given).code == 2
    assert at_gate("sam", "invitation", "make", RELEASE, *given, "--role", "reviewer").code == 3
    made(at_gate, home)
    assert at_gate("dan", "invitation", "make", RELEASE, *given).code == 5, "one person invites one reviewer"
    assert not file.exists()
