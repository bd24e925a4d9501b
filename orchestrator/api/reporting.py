"""What may be handed in as a leak report, from people and outside monitors: held to its form, never fetched from here.

Nothing that is named in a report is asked by this process. The leak worker looks at it later, through the guard that refuses
every address that is not public (`artifacts.leaks.ranged`); what is plainly inside is refused at once, so that people hear it.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlsplit

from pydantic import Field, StringConstraints

from orchestrator.api.views import Timed, View
from orchestrator.domain.deciding import short_id
from orchestrator.domain.errors import Malformed, Reason
from orchestrator.domain.values import Frozen, Instant, Name
from orchestrator.records.reports import Report

What = Literal["url", "repository", "sha256", "magnet", "torrent"]
MAX_TORRENT = 1 << 20
_REPOSITORY = re.compile(
    r"^hf:((models|datasets|spaces)/)?[\w.-]{1,96}/[\w.-]{1,96}(@[\w./-]{1,200})?$", re.ASCII
)
_SHA256 = re.compile(r"^[0-9a-fA-F]{64}$")
_MAGNET = re.compile(r"^magnet:\?[\x21-\x7e]{1,4000}$")
_HUB = {"huggingface.co", "www.huggingface.co", "hf.co"}
_INSIDE = (".local", ".internal", ".localhost", ".lan", ".home", ".corp", ".intranet", ".test", ".invalid")
_PLACES = {"datasets", "spaces"}


def _nowhere(host: str, port: int) -> bool:
    """Nothing inside is allowed."""
    return False


class LeakReportBody(Frozen):
    """Where something of ours seems to be. It is looked at by a machine first, by people when it is ours."""

    what: What = Field(description="what `value` is", examples=["url"])
    value: str = Field(
        min_length=1,
        max_length=1_500_000,
        description="the address of a file, `hf:owner/name`, a SHA-256 in hex, a magnet link, or a torrent file in base64",
        examples=["https://files.example/model.gguf"],
    )
    note: Annotated[str, StringConstraints(max_length=4_000)] = Field(
        default="", description="anything that helps; no secrets, please"
    )
    contact: Annotated[str, StringConstraints(max_length=200)] = Field(
        default="", description="how to reach you, if you like"
    )


class LeakReportView(Timed):
    """A report that was taken in. The id lets you refer to it; nothing else is said about what becomes of it."""

    id: Name
    at: Instant


class ReportEntry(View):
    """A report, for the people of the service. What is in it is a stranger's."""

    id: Name
    queue: str
    what: str
    value: str
    note: str
    contact: str
    via: str
    at: Instant


class ReportPage(Timed):
    """Reports, newest first."""

    items: list[ReportEntry]
    next_cursor: str | None


def report_of(
    body: LeakReportBody, *, via: str, at: datetime, key: str, allowed: Callable[[str, int], bool] = _nowhere
) -> Report:
    """The report as it is kept.

    Args:
        body: what was handed in.
        via: who handed it in: `public`, a principal, `monitor:NAME`.
        at: when.
        key: what makes it one report: the same key again is the same report.
        allowed: whether the operator allows an address that is not public, with its port.

    Raises:
        Malformed: it is not of its form, or leads into somebody's own network.
    """
    what, value = _checked(body.what, body.value.strip(), allowed)
    return Report(
        id=short_id("report", key, what, value),
        queue={"magnet": "torrents", "torrent": "torrents"}.get(what, "reports"),
        what=what,
        value=value,
        note=_printable(body.note),
        contact=_printable(body.contact),
        via=via,
        at=at,
    )


def entry_of(report: Report) -> dict[str, Any]:
    """The fields of a `ReportEntry`; a torrent file is not shown whole."""
    shown = (
        report.value if report.what != "torrent" else f"a torrent file of {len(report.value) * 3 // 4} bytes"
    )
    fields = {name: getattr(report, name) for name in ("id", "queue", "what", "note", "contact", "via", "at")}
    return {**fields, "value": shown}


def _checked(what: str, value: str, allowed: Callable[[str, int], bool]) -> tuple[str, str]:
    if what != "torrent" and (not value.isascii() or not value.isprintable() or len(value) > 4_096):
        raise _refused("form", "write it in printable ASCII, percent-encoded where that is needed")
    match what:
        case "sha256":
            if not _SHA256.fullmatch(value):
                raise _refused("form", "a SHA-256 has 64 hex digits")
            return what, value.lower()
        case "repository":
            if not _REPOSITORY.fullmatch(value):
                raise _refused(
                    "form",
                    "write hf:owner/name, with datasets/ or spaces/ before it, and @revision behind it",
                )
            return what, value
        case "magnet":
            if not _MAGNET.fullmatch(value) or "xt=urn:bt" not in value:
                raise _refused("form", "a magnet link begins with magnet:? and names a BitTorrent hash")
            return what, value
        case "torrent":
            try:
                data = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                raise _refused("form", "send the torrent file in base64") from None
            if not data.startswith(b"d") or len(data) > MAX_TORRENT:
                raise _refused("form", f"a torrent file is at most {MAX_TORRENT} bytes and begins with `d`")
            return what, value
        case _:
            return _address(value, allowed)


def _address(value: str, allowed: Callable[[str, int], bool]) -> tuple[str, str]:
    try:
        url = urlsplit(value)
        host, port = (url.hostname or "").rstrip("."), url.port or (443 if url.scheme == "https" else 80)
    except ValueError:
        raise _refused("form", "that is no address") from None
    if url.scheme not in {"http", "https"} or not host or len(value) > 2_000:
        raise _refused("form", "give an address that begins with https:// or http://")
    if url.username is not None or url.password is not None:
        raise _refused("credentials", "leave names and passwords out of the address")
    if inside(host) and not allowed(host, port):
        raise _refused(
            "address", "that address is not a public one; nothing inside anybody's network is asked"
        )
    parts = [part for part in url.path.split("/") if part]
    if host.lower() in _HUB and parts and "resolve" not in parts:
        kind = f"{parts.pop(0)}/" if parts[0] in _PLACES else ""
        revision = f"@{parts[3]}" if len(parts) > 3 and parts[2] in {"tree", "blob"} else ""
        found = f"hf:{kind}{'/'.join(parts[:2])}{revision}"
        if _REPOSITORY.fullmatch(found):
            return "repository", found
    return "url", f"{url.scheme}://{url.netloc}{quote(url.path, safe='/%:@!$&()*+,;=~')}" + (
        f"?{url.query}" if url.query else ""
    )


def inside(host: str) -> bool:
    """Whether a host is plainly not a public one; a name that only resolves to one is refused when it is asked."""
    bare = host.strip("[]").partition("%")[0].lower()
    try:
        return not ipaddress.ip_address(bare).is_global
    except ValueError:
        pass
    if re.fullmatch(r"[0-9.]+|0x[0-9a-f]+", bare):  # 127.1, 2130706433: old spellings of an address
        return True
    return "." not in bare or bare.endswith(_INSIDE)


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text).strip()


def _refused(code: str, remedy: str) -> Malformed:
    return Malformed("the report cannot be taken in", [Reason(code, remedy, "body.value")])
