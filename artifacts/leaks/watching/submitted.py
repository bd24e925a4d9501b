"""Candidates of what somebody handed in: links, digests, torrents. Their words are checked for form and never trusted."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

from artifacts.leaks.errors import LeakError, shown
from artifacts.leaks.ranged import public_url
from artifacts.leaks.watching.base import Candidate, Digests
from artifacts.leaks.watching.polling import short
from artifacts.leaks.watching.torrents import Torrent, read_magnet, read_torrent

MAX_LINKS = 1 << 20
_SHA256 = re.compile(r"^(?:sha256:)?([0-9a-fA-F]{64})$")
_HUB = re.compile(
    r"^hf:((models|datasets|spaces)/)?[\w.-]{1,96}(/[\w.-]{1,96})?(@[\w./-]{1,200})?$", re.ASCII
)
_OBJECT = re.compile(r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\x00-\x1f]{0,1024}$", re.ASCII)
_URL = re.compile(r"^https?://[^\s\x00-\x1f]{1,2000}$", re.IGNORECASE)


class LinkError(LeakError):
    """Something handed in that names no place and no content."""


def candidate_of_link(source: str, link: str, at: datetime, detail: dict[str, Any]) -> Candidate:
    """The candidate of an address, `hf:…`, `s3://…`, SHA-256 or magnet link.

    Raises:
        LinkError: it is none of these.
        TorrentError: a magnet link that cannot be one.
    """
    link = link.strip()
    if link.lower().startswith("magnet:"):
        return _of_torrent(source, read_magnet(link), at, detail)
    if match := _SHA256.match(link):
        digest = match[1].lower()
        return Candidate(
            source=source,
            key=f"sha256:{digest}",
            target="",
            title=f"SHA-256 {digest}",
            seen_at=at,
            digests=(Digests(path="", sha256=digest),),
            detail=detail,
        )
    if _HUB.match(link) or _OBJECT.match(link):
        return Candidate(source=source, key=link[:250] if len(link) <= 250 else f"{link[:230]}…{short(link)}",
                         target=link, title=shown(link, 300), seen_at=at, detail=detail)  # fmt: skip
    if _URL.match(link):
        # A query may hold a signature: it stays in the target alone.
        where = public_url(link)
        key = where if where == link and len(link) <= 250 else f"{where[:230]}?{short(link)}"
        return Candidate(
            source=source, key=key, target=link, title=shown(where, 300), seen_at=at, detail=detail
        )
    raise LinkError(f"{shown(link, 80)}: no address, hf:, s3:, SHA-256 or magnet link")


def candidate_of_torrent(source: str, data: bytes, at: datetime, detail: dict[str, Any]) -> Candidate:
    """The candidate of a torrent file.

    Raises:
        TorrentError: it is none.
    """
    return _of_torrent(source, read_torrent(data), at, detail)


def _of_torrent(source: str, torrent: Torrent, at: datetime, detail: dict[str, Any]) -> Candidate:
    said = {
        "infohash_v1": torrent.infohash_v1,
        "infohash_v2": torrent.infohash_v2,
        "files": len(torrent.files) or None,
        "roots": sum(f.pieces_root is not None for f in torrent.files) or None,
    }
    return Candidate(
        source=source,
        key=torrent.key,
        target="",
        title=shown(f"torrent {torrent.name or torrent.key}", 300),
        size=torrent.size,
        seen_at=at,
        digests=torrent.digests(),
        detail={**detail, **{k: v for k, v in said.items() if v is not None}},
    )
