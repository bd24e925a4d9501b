"""Notices against a real SMTP server and a real receiver on loopback: who is told of what, when, and what a failure leaves."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, Session

from activities.notices.elsewhere import Elsewhere
from activities.notices.mail import Mailer, MailServer
from activities.notices.people import NoticeDelivery
from activities.notices.sending import PAUSES
from orchestrator.domain.errors import Malformed
from orchestrator.domain.notices import Topic
from orchestrator.records import database, notice_channels, notices
from tests.api.conftest import RELEASE, Api, TestCipher, api, sealed, template

__all__ = ["api", "sealed", "template"]
SENDER = "Sluice <sluice@sluice.example>"


@dataclass
class Mailbox:
    """What a real SMTP server took. `answers` to DATA, and `refusals` of recipients, are used up first."""

    port: int = 0
    answers: list[str] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)
    got: list[tuple[str, EmailMessage]] = field(default_factory=list)

    async def handle_RCPT(self, server, session: Session, envelope: Envelope, address, options):
        if self.refusals:
            return self.refusals.pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session: Session, envelope: Envelope):
        for to in envelope.rcpt_tos:
            self.got.append((to, message_from_bytes(envelope.content, policy=policy.default)))
        return self.answers.pop(0) if self.answers else "250 OK"

    def to(self, address: str) -> list[EmailMessage]:
        return [message for to, message in self.got if to == address]

    def texts(self, address: str) -> str:
        return "\n".join(m.get_content() for m in self.to(address))


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    box = Mailbox(free_port())
    server = Controller(box, hostname="127.0.0.1", port=box.port)
    server.start()
    yield box
    server.stop()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def delivery(api: Api, port: int, name: str = "w1", **more) -> NoticeDelivery:
    server = MailServer("127.0.0.1", port, "clear")
    allow = more.pop("allow", ())
    return NoticeDelivery(
        api.engine,
        TestCipher(),
        name,
        mailer=Mailer(server, SENDER),
        elsewhere=Elsewhere(allow),
        public_url="https://sluice.example",
        clock=api.clock,
        **more,
    )


def add(api: Api, owner: str | None, address: str | None = None, kind="mail", **more) -> str:
    with database.writing(api.engine) as session:
        made = notice_channels.add(
            session,
            owner,
            kind,
            address or f"{owner}@example.org",
            cipher=TestCipher(),
            at=api.clock(),
            by=owner or "olaf",
            **more,
        )
    return made.id


def listed(api: Api, channel: str, status=None) -> list[notices.Told]:
    with database.reading(api.engine) as session:
        return list(reversed(notices.told(session, channel, status=status, limit=200).items))


def later(api: Api, worker: NoticeDelivery, **by: float) -> int:
    api.clock.advance(**by)
    return worker.turn()


def test_a_broken_glass_reaches_everyone_in_the_plan_at_once_whatever_they_chose(api, sealed, mailbox):
    api.to_demo(sealed)
    for person in ("sam", "lea", "rex", "mia"):
        add(api, person, topics=[Topic.REMINDERS])
    add(api, "ann")
    add(api, "uni-account")
    worker = delivery(api, mailbox.port)
    for person in ("sam", "lea"):
        headers = {"If-Match": api.gate("query").headers["ETag"]}
        glass = {"waives": ["research_window"], "reason": "canary-reason"}
        api.ok(api.post(person, api.path("/steps/query/break-glass"), glass, headers=headers))
    worker.turn()
    for person in ("sam", "lea", "rex", "mia"):
        subjects = [m["Subject"] for m in mailbox.to(f"{person}@example.org")]
        assert [s for s in subjects if "BREAK-GLASS at step query" in s], (person, subjects)
    told = {to for to, _ in mailbox.got}
    assert "ann@example.org" not in told, "the plan does not name her"
    assert "uni-account@example.org" not in told, "a partner hears of its own grants alone"
    assert "canary-reason" not in mailbox.texts("mia@example.org")
    assert f"https://sluice.example/console/releases/{RELEASE}" in mailbox.texts("mia@example.org")


def test_notify_in_the_response_table_notifies_and_its_absence_does_not(api, mailbox):
    responses = {"low": [], "moderate": ["notify"], "severe": ["notify", "hold"]}
    api.ok(api.create(responses=responses))
    quiet, all_of_it = add(api, "sam", topics=[Topic.REMINDERS]), add(api, "lea")
    worker = delivery(api, mailbox.port, gather=timedelta())
    for name, severity in (("i-low", "low"), ("i-mod", "moderate"), ("i-bad", "severe")):
        body = {"id": name, "kind": "misuse", "severity": severity, "summary": "canary-summary"}
        api.ok(api.post("mia", api.path("/incidents"), body))
    worker.turn()
    heard = mailbox.texts("sam@example.org")
    assert "i-mod" in heard
    assert "i-bad" in heard
    assert "i-low" not in heard, "the plan answers a low one with nothing, and sam did not choose incidents"
    assert "i-low" in mailbox.texts("lea@example.org")
    assert "canary-summary" not in heard
    assert {n.status for n in listed(api, quiet) + listed(api, all_of_it)} <= {"delivered", "superseded"}
    severe = [n for n in listed(api, quiet) if n.urgent]
    assert [n.type for n in severe] == ["incident_reported"]


def test_what_is_not_urgent_is_gathered_and_what_waits_is_told_once_until_it_is_gone(api, sealed, mailbox):
    channel = add(api, "sam")
    worker = delivery(api, mailbox.port, gather=timedelta(minutes=10))
    api.to_demo(sealed)
    worker.turn()
    assert not mailbox.got, "nothing here is urgent"
    later(api, worker, minutes=11)
    (message,) = mailbox.to("sam@example.org")
    assert "notices about" in message["Subject"]
    text = message.get_content()
    assert "step demo is entered" in text
    assert text.count("your sign-off is waited for") == 1, (
        "for the next gate; that of the last one stands no more"
    )
    numbers = [n.number for n in listed(api, channel)]
    assert numbers == list(range(1, len(numbers) + 1))
    api.evidence("query")
    worker.turn()
    later(api, worker, minutes=11)
    assert mailbox.texts("sam@example.org").count("your sign-off is waited for") == 1


def test_a_partner_is_told_of_its_own_grants_alone(api, sealed, mailbox):
    add(api, "uni-account")
    add(api, "ngo-account")
    worker = delivery(api, mailbox.port, gather=timedelta())
    api.to_demo(sealed)
    worker.turn()
    text = mailbox.texts("uni-account@example.org")
    assert "you have access" in text
    assert "ngo" not in text
    assert "sam" not in text
    assert "by " not in text.split("--")[0]
    api.ok(api.post("sam", api.path("/revoke"), {"partner": "uni", "reason": "canary-reason"}))
    worker.turn()
    ended = mailbox.to("uni-account@example.org")[-1]
    assert "access has ended" in ended["Subject"]
    assert "canary-reason" not in ended.get_content()
    assert "access has ended" not in mailbox.texts("ngo-account@example.org")


def test_a_retry_is_the_same_message_and_a_dead_one_can_be_redriven(api, mailbox):
    channel = add(api, "sam")
    api.ok(api.create())
    worker = delivery(api, mailbox.port, gather=timedelta(), pauses=PAUSES[:2])
    mailbox.answers = ["451 later", "451 later", "451 later"]
    worker.turn()
    assert worker.turn() == 0, "it is not tried before its pause is over"
    later(api, worker, seconds=7)
    later(api, worker, seconds=70)
    dead = listed(api, channel, "dead")
    assert dead
    assert {(n.attempts, n.error) for n in dead} == {(3, "the mail server answered 451")}
    with database.writing(api.engine) as session:
        numbers = notices.redrive(session, channel, number=dead[-1].number, at=api.clock(), by="sam")
    assert numbers == [n.number for n in dead]
    worker.turn()
    assert not listed(api, channel, "dead")
    ids = [m["Message-ID"] for m in mailbox.to("sam@example.org")]
    assert len(ids) == 4
    assert len(set(ids)) == 1
    assert ids[0] == f"<{channel}.{dead[0].number}@sluice.example>"


def test_a_refused_recipient_is_dead_at_once_and_urgent_ones_do_not_wait_for_the_others(api, mailbox):
    channel = add(api, "sam")
    api.ok(api.create())
    worker = delivery(api, mailbox.port, gather=timedelta())
    mailbox.answers = ["451 later"]
    worker.turn()
    body = {"id": "i-bad", "kind": "harm", "severity": "severe", "summary": "x"}
    api.ok(api.post("mia", api.path("/incidents"), body))
    mailbox.refusals = []
    worker.turn()
    assert "severe harm incident" in mailbox.to("sam@example.org")[-1]["Subject"]
    body = {**body, "id": "i-worse"}
    api.ok(api.post("mia", api.path("/incidents"), body))
    mailbox.refusals = ["550 nobody of that name"]
    worker.turn()
    (dead,) = listed(api, channel, "dead")
    assert (dead.attempts, dead.error) == (1, "the mail server refused the recipient (550)")


def test_a_worker_killed_with_kill_9_in_between_keeps_its_turn_and_then_another_sends_the_same_message(
    api, mailbox
):
    add(api, "sam")
    api.ok(api.create())
    url = api.engine.url.render_as_string(hide_password=False)
    argv = [sys.executable, "-m", "tests.activities.killed_notice"]
    killed = subprocess.run([*argv, url, str(mailbox.port), api.clock().isoformat()], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert len(mailbox.got) == 1, "the server had taken it"
    other = delivery(api, mailbox.port, "w2", gather=timedelta())
    other.turn()
    assert len(mailbox.got) == 1, "nobody knows yet that it is dead: its turn stands until the lease ends"
    later(api, other, minutes=10)
    (one, two) = mailbox.to("sam@example.org")
    assert one["Message-ID"] == two["Message-ID"]
    assert one.get_content() == two.get_content()
    later(api, other, minutes=10)
    assert len(mailbox.got) == 2, "and then it is noted"


def test_a_channel_of_nobody_hears_every_release_and_one_whose_owner_left_hears_nothing(api, mailbox):
    add(api, None, "ops@example.org")
    gone = add(api, "sam")
    worker = delivery(api, mailbox.port, gather=timedelta())
    api.ok(api.call("olaf", "PATCH", "/v1/principals/sam", json={"active": False}))
    api.ok(api.create())
    api.ok(api.post("mia", api.path("/hold"), {"reason": "canary-reason"}))
    worker.turn()
    assert "on hold" in mailbox.texts("ops@example.org")
    assert not mailbox.to("sam@example.org")
    with database.reading(api.engine) as session:
        found = notice_channels.get(session, gone)
    assert (found.active, found.off_reason) == (False, "sam may not read any more")


def test_a_server_that_hangs_is_left_and_one_that_is_not_there_is_said(api):
    silent = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    try:
        server = MailServer("127.0.0.1", silent.server_port, "clear")
        begun = time.monotonic()
        import activities.notices.mail as module

        old, module._TIMEOUT = module._TIMEOUT, 0.3
        try:
            found = Mailer(server, SENDER).check()
        finally:
            module._TIMEOUT = old
        assert found.error is not None
        assert time.monotonic() - begun < 5
    finally:
        silent.server_close()
    assert Mailer(server, SENDER).check().error == "no mail server answered: ConnectionRefusedError"


def test_starttls_that_is_not_offered_gets_neither_password_nor_mail(mailbox):
    server = MailServer("127.0.0.1", mailbox.port, "starttls", "sluice", "canary-password")
    sent = Mailer(server, SENDER).check()
    assert sent.error is not None
    assert "does not offer" in sent.error
    assert "canary" not in repr(server) + sent.error


def test_tls_and_sign_in_work_and_another_authority_or_password_does_not(tmp_path):
    import ssl

    authority, certificate = _certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    port = free_port()
    box = Mailbox(port)

    def authenticate(_server, _session, _envelope, _mechanism, data) -> AuthResult:
        return AuthResult(success=(data.login, data.password) == (b"sluice", b"p:w@rd"), handled=False)

    server = Controller(
        box, hostname="127.0.0.1", port=port, tls_context=context, require_starttls=True,
        authenticator=authenticate, auth_required=True,
    )  # fmt: skip
    server.start()
    try:
        good = MailServer.parse(f"smtp+starttls://sluice:p%3Aw%40rd@127.0.0.1:{port}", authority)
        sent = Mailer(good, SENDER).send("mia@example.org", name="nc-1.1", title="a", text="b", at=_now())
        assert sent.error is None
        assert len(box.got) == 1
        wrong = MailServer.parse(f"smtp+starttls://sluice:other@127.0.0.1:{port}", authority)
        assert Mailer(wrong, SENDER).check().error == "the mail server did not take user and password (535)"
        stranger = MailServer.parse(f"smtp+starttls://sluice:p%3Aw%40rd@127.0.0.1:{port}")
        assert Mailer(stranger, SENDER).check().error == "the mail server's certificate does not verify"
    finally:
        server.stop()


def test_the_doctor_signs_in_at_the_mail_server_and_says_what_it_answers(mailbox, tmp_path):
    from infra.doctor import Examination, _mail
    from infra.settings import InvalidSettingError, Settings

    file = tmp_path / "mail-url"
    file.write_text(f"smtp://127.0.0.1:{mailbox.port}\n")
    settings = Settings(data_dir=tmp_path, mail_from=SENDER, mail_url_file=file)
    seen = Examination()
    _mail(seen, settings)
    file.write_text(f"smtp://127.0.0.1:{free_port()}\n")
    _mail(seen, settings)
    file.write_text("smtp://mail.example.org\n")
    _mail(seen, settings)
    assert [(f.level, f.found.split(":")[0]) for f in seen.findings] == [
        ("ok", "it takes mail"),
        ("problem", "no mail server answered"),
        ("problem", "SLUICE_MAIL_URL_FILE"),
    ]
    with pytest.raises(InvalidSettingError, match="SLUICE_MAIL_FROM is not set"):
        loops_of(Settings(data_dir=tmp_path, mail_url_file=file))


def loops_of(settings):
    from infra.notices import mailer

    return mailer(settings)


@pytest.mark.parametrize(
    "text",
    [
        "mail.example.org",
        "https://mail.example.org",
        "smtps://",
        "smtp://user:canary@mail.example.org",
        "smtps://canary@mail.example.org",
        "smtps://mail.example.org/canary",
        "smtps://mail.example.org:canary",
    ],
)
def test_an_address_of_a_mail_server_that_cannot_be_used_is_refused_without_showing_it(text):
    with pytest.raises(Malformed) as found:
        MailServer.parse(text)
    assert "canary" not in str(found.value) + str([r.message for r in found.value.reasons])


def test_apprise_reaches_what_is_allowed_and_nothing_inside(api):
    got: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        where = f"json://127.0.0.1:{server.server_port}/room?canary-token=1"
        channel = add(api, "sam", where, kind="apprise")
        api.ok(api.create())
        delivery(api, 1, gather=timedelta()).turn()
        assert not got
        (refused, *_) = listed(api, channel)
        assert refused.error is not None
        assert "not public; nothing was sent" in refused.error
        api.clock.advance(seconds=10)
        delivery(api, 1, gather=timedelta(), allow=("127.0.0.1",)).turn()
        assert len(got) == 1
        assert RELEASE in got[0]["message"]
        assert {n.status for n in listed(api, channel)} == {"delivered"}
        with database.reading(api.engine) as session:
            assert notice_channels.get(session, channel).shown == "json://…"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize(
    ("url", "told"),
    [("syslog://", "reads or starts something"), ("mailto://u:p@10.0.0.1", "no service is known")],
)
def test_an_address_of_apprise_that_starts_something_here_or_is_none_is_refused(url, told):
    fault = Elsewhere().fault(url)
    assert fault is not None
    assert told in fault


def test_the_guard_of_apprise_forbids_programs_files_and_addresses():
    code = """
import json, socket, subprocess, sys
from activities.notices.apprise_child import guard
refused = []
guard((), refused)
def tried(do):
    try:
        do()
    except PermissionError:
        return True
    except Exception:
        return False
    return False
out = [
    tried(lambda: subprocess.run(["/bin/true"])),
    tried(lambda: open("/etc/passwd").read()),
    tried(lambda: open("/tmp/x-sluice", "w")),
    tried(lambda: socket.create_connection(("127.0.0.1", 9), 1)),
    tried(lambda: socket.create_connection(("169.254.169.254", 80), 1)),
    tried(lambda: socket.socket(socket.AF_UNIX).connect("/run/x.sock")),
    tried(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("10.0.0.1", 514))),
    tried(lambda: socket.socket().connect(("localhost", 9))),
]
print(json.dumps(out))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout) == [True] * 8


def _now():
    from datetime import UTC, datetime

    return datetime.now(UTC)


def _certificates(folder: Path) -> tuple[Path, Path]:
    """An authority's certificate, and key with certificate of 127.0.0.1 in one file."""
    import ipaddress
    from datetime import UTC, datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, ca_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    ca_name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])

    def certificate(subject, public, extension):
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(extension, critical=False)
        )

    ca = (
        certificate(ca_name, ca_key.public_key(), x509.BasicConstraints(ca=True, path_length=None))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
        .sign(ca_key, hashes.SHA256())
    )  # fmt: skip
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mail")])
    own = (
        certificate(
            name,
            key.public_key(),
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False
        )
        .sign(ca_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    authority, both = folder / "ca.pem", folder / "server.pem"
    authority.write_bytes(ca.public_bytes(pem))
    both.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + own.public_bytes(pem)
    )
    return authority, both
