"""Notices to whatever `apprise` reaches: chat rooms, pagers, push services. Each is sent by a process of its own (`apprise_child`).

The address is a secret: it travels on stdin, never as an argument or variable, and never stands in an error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from activities.notices.sending import Sent

_LONGEST = 45.0
_CHILD = "activities.notices.apprise_child"


class Elsewhere:
    """Sends to addresses of `apprise`.

    Args:
        allow: addresses beside public ones that may be connected to (`AddressPolicy`).
        longest: seconds after which a process is killed.
    """

    def __init__(self, allow: Sequence[str] = (), *, longest: float = _LONGEST) -> None:
        self._allow, self._longest = list(allow), longest

    def send(self, url: str, *, title: str, text: str) -> Sent:
        """Send one message."""
        told = self._run({"do": "send", "url": url, "title": title, "text": text})
        if told is None:
            return Sent("the service did not answer in time")
        if told["ok"]:
            return Sent()
        if "address" in told["refused"]:
            return Sent(
                "it is at an address that is not public; nothing was sent (SLUICE_WEBHOOK_ALLOW allows others)"
            )
        if told["refused"]:
            return Sent(
                "this kind of address needs more than a connection, which it does not get", for_good=True
            )
        return Sent("the service did not take it" if told["known"] else "no service is known by this address")

    def fault(self, url: str) -> str | None:
        """Why an address cannot be used; None when it can be read. Nothing is sent."""
        told = self._run({"do": "read", "url": url, "title": "", "text": ""})
        if told is None:
            return "it could not be read in time"
        if told["refused"]:
            return "this kind of address reads or starts something on this machine"
        return None if told["known"] else "no service is known by this address: see apprise's list"

    def _run(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        environment = {
            "PATH": os.defpath,
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p),
            "LANG": "C.UTF-8",
        }
        for name in ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"):
            if name in os.environ:
                environment[name] = os.environ[name]
        try:
            done = subprocess.run(  # noqa: S603 - our own module; the address goes in by stdin
                [sys.executable, "-m", _CHILD],
                input=json.dumps({**asked, "allow": self._allow}).encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                cwd="/",
                timeout=self._longest,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
        try:
            told = json.loads(done.stdout)
        except ValueError:
            return {"ok": False, "known": False, "refused": []}
        return dict(told)
