"""Sends, or only reads, one `apprise` address: a process of its own, run by `elsewhere`.

Addresses are set by users and lead to code of some hundred services. So an audit hook stands before what this process does:
connections only where the address policy allows, checked at the number that is connected to; no other program; no file
written; no file read but those of Python itself. The process is killed when its time is over.

In, as JSON on stdin: `{"do": "read"|"send", "url", "title", "text", "allow"}`. Out: `{"ok", "refused", "known"}`.
"""

from __future__ import annotations

import contextlib
import io
import ipaddress
import json
import logging
import os
import sys
import sysconfig
from typing import Any

from artifacts.leaks.ranged import AddressPolicy

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_NEVER = (
    "subprocess.",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.spawn",
    "os.fork",
    "pty.",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.mkdir",
    "os.chmod",
    "os.chown",
    "os.link",
    "os.symlink",
    "os.truncate",
    "shutil.",
    "syslog.",
)
_CONNECTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})


def guard(allow: tuple[str, ...], refused: list[str]) -> None:
    """Forbid, from here on and for good, what a notice does not need. What was refused is noted."""
    policy = AddressPolicy(allow)
    readable = tuple(
        os.path.realpath(place) + os.sep
        for place in {*sysconfig.get_paths().values(), *sys.path, "/usr/share/zoneinfo"}
        if place
    )

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in _CONNECTS:
            _connecting(args[1] if len(args) > 1 else None)
        elif event == "open":
            _opening(*args)
        elif event.startswith(_NEVER):
            _refuse(event)

    def _connecting(address: Any) -> None:
        try:
            host, port = str(address[0]), int(address[1])
            allowed = isinstance(address, tuple) and policy.permits(host, port)
            ipaddress.ip_address(host.split("%", 1)[0])
        except (TypeError, ValueError, IndexError):
            allowed = False
        if not allowed:
            _refuse("address")

    def _opening(path: Any, _mode: Any, flags: Any) -> None:
        if isinstance(path, int):
            return
        if isinstance(flags, int) and flags & _WRITES:
            _refuse("file")
        place = os.path.realpath(os.fsdecode(path))
        if not place.startswith(readable) and place not in {"/dev/null", "/etc/mime.types"}:
            _refuse("file")

    def _refuse(what: str) -> None:
        refused.append(what)
        raise PermissionError(f"not allowed here: {what}")

    sys.addaudithook(hook)


def main() -> None:
    """Do what stdin says."""
    asked = json.loads(sys.stdin.read())
    import apprise
    from apprise.common import PersistentStoreMode

    logging.disable(logging.CRITICAL)
    refused: list[str] = []
    guard(tuple(asked["allow"]), refused)
    out = {"ok": False, "known": False}
    # whatever a service's code meets, it was not sent
    with contextlib.redirect_stderr(io.StringIO()), contextlib.suppress(Exception):
        asset = apprise.AppriseAsset(
            async_mode=False, storage_mode=PersistentStoreMode.MEMORY, service_timeout=10
        )
        service = apprise.Apprise.instantiate(asked["url"], asset=asset)
        out["known"] = service is not None
        if service is not None and asked["do"] == "send":
            sender = apprise.Apprise(asset=asset)
            sender.add(service)
            out["ok"] = bool(sender.notify(body=asked["text"], title=asked["title"]))
    sys.stdout.write(json.dumps({**out, "refused": sorted(set(refused))}))


if __name__ == "__main__":
    main()
