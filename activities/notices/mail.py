"""Mail over SMTP: with TLS from the first byte or by STARTTLS, never without where that was asked for.

Where the server is, and with which password, is one address in a secret file:

    smtps://user:[password]@mail.example.org:465       TLS from the first byte
    smtp+starttls://user:[password]@mail.example.org   STARTTLS; a server that does not offer it gets nothing
    smtp://127.0.0.1:25                              in clear: only where nobody else listens

User and password are percent-encoded. Neither they nor what the server says ever stand in an error: only its codes.
"""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

from activities.notices.sending import Sent
from orchestrator.domain.errors import Malformed, Reason

Security = Literal["tls", "starttls", "clear"]
_SCHEMES: dict[str, tuple[Security, int]] = {
    "smtps": ("tls", 465),
    "smtp+starttls": ("starttls", 587),
    "smtp": ("clear", 25),
}
_TIMEOUT = 10.0
_LONGEST = 30.0
_PERMANENT = 500


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed in. `ca_file`: the authority to trust instead of the system's."""

    host: str
    port: int
    security: Security
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None

    @classmethod
    def parse(cls, text: str, ca_file: Path | None = None) -> MailServer:
        """Read the address of a server, see the head of this module.

        Raises:
            Malformed: it is none; the text never says what is in it.
        """
        try:
            url = urlsplit(text.strip())
            security, usual = _SCHEMES[url.scheme]
            host, port = url.hostname, url.port
        except (ValueError, KeyError):
            host = None
        if not host or url.path not in {"", "/"} or url.query or url.fragment:
            told = (
                f"give {', '.join(f'{scheme}://…' for scheme in _SCHEMES)} with a host, and nothing behind it"
            )
            raise Malformed("the address of the mail server cannot be read", [Reason("mail-url", told)])
        if (url.username is None) != (url.password is None):
            told = "give user and password, or neither"
            raise Malformed("the address of the mail server cannot be read", [Reason("mail-url", told)])
        if security == "clear" and url.password is not None:
            told = "a password does not travel in clear: use smtps:// or smtp+starttls://"
            raise Malformed("the address of the mail server cannot be used", [Reason("mail-url", told)])
        return cls(
            host=host,
            port=port or usual,
            security=security,
            user=None if url.username is None else unquote(url.username),
            password=None if url.password is None else unquote(url.password),
            ca_file=ca_file,
        )


class Mailer:
    """Hands in mail, one connection for each.

    Args:
        server: where.
        sender: the address that it comes from.
        longest: seconds after which a connection is cut, however busy it looks.
    """

    def __init__(self, server: MailServer, sender: str, *, longest: float = _LONGEST) -> None:
        self._server, self._sender, self._longest = server, sender, longest

    def message_id(self, name: str) -> str:
        """The Message-ID of a message of that name: the same whenever it is sent."""
        return f"<{name}@{_domain(self._sender)}>"

    def send(self, to: str, *, name: str, title: str, text: str, at: datetime) -> Sent:
        """Hand in one message.

        Args:
            to: the recipient.
            name: names the message for good (`message_id`).
            title: its subject, one line.
            text: what it says.
            at: its date.
        """
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self._sender, to, title
        message["Date"], message["Message-ID"] = format_datetime(at), self.message_id(name)
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text)
        return self._within(lambda client: client.send_message(message, self._envelope(), [to]))

    def check(self) -> Sent:
        """Connect, secure, sign in, and leave again."""
        return self._within(lambda client: client.noop())

    def _envelope(self) -> str:
        return re.sub(r"^.*<([^<>]+)>\s*$", r"\1", self._sender)

    def _within(self, do: Callable[[smtplib.SMTP], object]) -> Sent:
        cut: threading.Timer | None = None
        try:
            client = self._connect()
            cut = threading.Timer(self._longest, _cut, [client])
            cut.daemon = True
            cut.start()
            with client:
                self._secure(client)
                do(client)
        except smtplib.SMTPRecipientsRefused as error:
            code = max((answer[0] for answer in error.recipients.values()), default=0)
            return Sent(f"the mail server refused the recipient ({code})", for_good=code >= _PERMANENT)
        except smtplib.SMTPAuthenticationError as error:
            return Sent(f"the mail server did not take user and password ({error.smtp_code})")
        except smtplib.SMTPResponseException as error:
            return Sent(f"the mail server answered {error.smtp_code}")
        except smtplib.SMTPNotSupportedError:
            return Sent("the mail server does not offer what is needed (STARTTLS, sign-in, or this address)")
        except ssl.SSLCertVerificationError:
            return Sent("the mail server's certificate does not verify")
        except (smtplib.SMTPException, OSError, ValueError) as error:
            return Sent(f"no mail server answered: {type(error).__name__}")
        finally:
            if cut is not None:
                cut.cancel()
        return Sent()

    def _connect(self) -> smtplib.SMTP:
        server, name = self._server, _domain(self._sender)
        if server.security == "tls":
            return smtplib.SMTP_SSL(
                server.host, server.port, local_hostname=name, timeout=_TIMEOUT, context=self._tls()
            )
        return smtplib.SMTP(server.host, server.port, local_hostname=name, timeout=_TIMEOUT)

    def _secure(self, client: smtplib.SMTP) -> None:
        if self._server.security == "starttls":
            client.starttls(context=self._tls())
        if self._server.user is not None and self._server.password is not None:
            client.login(self._server.user, self._server.password)

    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self._server.ca_file)


def _cut(client: smtplib.SMTP) -> None:
    with suppress(OSError):
        if client.sock is not None:
            client.sock.shutdown(socket.SHUT_RDWR)


def _domain(sender: str) -> str:
    return sender.rpartition("@")[2].strip("> ") or "localhost"
