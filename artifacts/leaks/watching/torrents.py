"""What a torrent file or magnet link says: names, sizes, v2 pieces roots. No swarm is joined, no tracker asked.

v1 (BEP 3), v2 (BEP 52) and hybrids are read. Everything in them is a stranger's: the input is capped before it is decoded, the decoder
bounds its nesting and takes canonical bencoding alone, and every field is checked for its type.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from artifacts.leaks.errors import LeakError, shown
from artifacts.leaks.watching.base import MAX_DIGESTS, Digests

MAX_TORRENT = 8 << 20
MAX_FILES = 100_000
MAX_DEPTH = 64
MAX_MAGNET = 20_000
_MAX_SIZE = 1 << 60


class TorrentError(LeakError):
    """A torrent file or magnet link that cannot be one, or that is larger than any honest one."""


@dataclass(frozen=True)
class TorrentFile:
    """One file that a torrent names: path as told (untrusted), bytes, hex pieces root of v2 or None."""

    path: str
    size: int
    pieces_root: str | None = None


@dataclass(frozen=True)
class Torrent:
    """What a torrent or magnet link says.

    Attributes:
        name: as told, printable.
        infohash_v1: hex SHA-1; None for v2 alone.
        infohash_v2: hex SHA-256; None for v1 alone.
        files: without padding files; empty for a magnet link, which has no list.
        size: of all files; for a magnet link what it says, or None.
    """

    name: str
    infohash_v1: str | None
    infohash_v2: str | None
    files: tuple[TorrentFile, ...] = ()
    size: int | None = None

    @property
    def key(self) -> str:
        """What it is deduplicated by; a hybrid has the same key as a torrent file and as a magnet link of its v2."""
        return f"btv2:{self.infohash_v2}" if self.infohash_v2 else f"btv1:{self.infohash_v1}"

    def digests(self) -> tuple[Digests, ...]:
        """The largest files, as candidates carry them."""
        largest = sorted(self.files, key=lambda f: -f.size)[:MAX_DIGESTS]
        return tuple(Digests(path=shown(f.path, 200), size=f.size, btv2_root=f.pieces_root) for f in largest)


def read_torrent(data: bytes) -> Torrent:
    """Read a torrent file.

    Raises:
        TorrentError: it is none, or over a cap.
    """
    from bencode2 import BencodeDecodeError, bdecode, bencode

    if len(data) > MAX_TORRENT:
        raise TorrentError(f"a torrent file of {len(data)} bytes: more than {MAX_TORRENT} are not read")
    try:
        document = bdecode(data)
    except (BencodeDecodeError, ValueError, RecursionError, OverflowError) as error:
        raise TorrentError(f"not a torrent file: {shown(error, 100)}") from error
    info = document.get(b"info") if isinstance(document, dict) else None
    if not isinstance(info, dict):
        raise TorrentError("not a torrent file: it has no `info`")
    raw = bencode(
        info
    )  # the decoder takes canonical bencoding alone, so these are the bytes that stood there
    version = info.get(b"meta version", 1)
    tree = info.get(b"file tree")
    has_v1 = b"pieces" in info
    if version == 2 and isinstance(tree, dict):
        files = _v2(tree)
    elif version == 2:
        raise TorrentError("a v2 torrent without its `file tree`")
    elif version == 1 and has_v1:
        files = _v1(info)
    else:
        raise TorrentError(f"a torrent of a version that is not read: {shown(version, 20)}")
    if has_v1 and version == 2:
        # A hybrid names its files twice; whoever reads only one list must not be shown another.
        told = {(f.path, f.size) for f in _v1(info)}
        if told != {(f.path, f.size) for f in files}:
            raise TorrentError("a hybrid torrent whose v1 and v2 file lists differ")
    return Torrent(
        name=shown(_text(info.get(b"name", b"")), 200),
        infohash_v1=hashlib.sha1(raw, usedforsecurity=False).hexdigest() if has_v1 else None,
        infohash_v2=hashlib.sha256(raw).hexdigest() if version == 2 else None,
        files=tuple(files),
        size=sum(f.size for f in files),
    )


def read_magnet(link: str) -> Torrent:
    """Read a magnet link: infohashes, and the name and size that it claims.

    Raises:
        TorrentError: it is none, or names no torrent.
    """
    if len(link) > MAX_MAGNET:
        raise TorrentError(f"a magnet link of {len(link)} characters: more than {MAX_MAGNET} are not read")
    parts = urlsplit(link.strip())
    if parts.scheme.lower() != "magnet":
        raise TorrentError("not a magnet link: it does not begin with `magnet:?`")
    try:
        fields = parse_qsl(parts.query, max_num_fields=200)
    except ValueError as error:
        raise TorrentError("a magnet link of more than 200 fields") from error
    v1: str | None = None
    v2: str | None = None
    for name, value in fields:
        if name == "xt" or name.startswith("xt."):
            first, second = _topic(value)
            v1, v2 = v1 or first, v2 or second
    if v1 is None and v2 is None:
        raise TorrentError("a magnet link without an infohash (`xt=urn:btih:…` or `xt=urn:btmh:…`)")
    told = dict(fields)
    size = told.get("xl", "")
    return Torrent(
        name=shown(unquote(told.get("dn", "")), 200),
        infohash_v1=v1,
        infohash_v2=v2,
        size=int(size) if size.isascii() and size.isdigit() and len(size) <= 18 else None,
    )


def _topic(value: str) -> tuple[str | None, str | None]:
    value = value.strip()
    if match := re.fullmatch(r"urn:btih:([0-9a-fA-F]{40})", value):
        return match[1].lower(), None
    if match := re.fullmatch(r"urn:btih:([A-Za-z2-7]{32})", value):
        try:
            return base64.b32decode(match[1].upper()).hex(), None
        except binascii.Error:
            return None, None
    if match := re.fullmatch(r"urn:btmh:1220([0-9a-fA-F]{64})", value):
        return None, match[1].lower()
    return None, None


def _v1(info: dict[bytes, Any]) -> list[TorrentFile]:
    name = _text(info.get(b"name", b""))
    if b"files" not in info:
        return [TorrentFile(name, _length(info.get(b"length")))]
    listed = info[b"files"]
    if not isinstance(listed, list) or len(listed) > MAX_FILES:
        raise TorrentError(f"a torrent whose file list is none, or longer than {MAX_FILES}")
    out = []
    for item in listed:
        path = item.get(b"path") if isinstance(item, dict) else None
        if not isinstance(path, list) or not path or len(path) > MAX_DEPTH:
            raise TorrentError("a torrent with a file that has no path")
        attributes = item.get(b"attr", b"")
        if isinstance(attributes, bytes) and b"p" in attributes:
            continue  # padding, so that v1 pieces begin where files do
        out.append(TorrentFile("/".join(_text(p) for p in path), _length(item.get(b"length"))))
    return out


def _v2(tree: dict[bytes, Any]) -> list[TorrentFile]:
    out: list[TorrentFile] = []
    waiting: list[tuple[str, dict[bytes, Any]]] = [("", tree)]
    while waiting:
        base, folder = waiting.pop()
        for name, held in folder.items():
            if not isinstance(held, dict) or not name:
                raise TorrentError("a v2 torrent with a malformed `file tree`")
            path = f"{base}/{_text(name)}".strip("/")
            leaf = held.get(b"")
            if leaf is None:
                waiting.append((path, held))
                continue
            if not isinstance(leaf, dict):
                raise TorrentError("a v2 torrent with a malformed `file tree`")
            size, root = _length(leaf.get(b"length")), leaf.get(b"pieces root")
            if size and not (isinstance(root, bytes) and len(root) == 32):
                raise TorrentError("a v2 torrent with a file that has no pieces root")
            attributes = leaf.get(b"attr", b"")
            if isinstance(attributes, bytes) and b"p" in attributes:
                continue
            out.append(TorrentFile(path, size, root.hex() if size and isinstance(root, bytes) else None))
            if len(out) > MAX_FILES:
                raise TorrentError(f"a torrent of more than {MAX_FILES} files")
    return sorted(out, key=lambda f: f.path)


def _length(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_SIZE:
        raise TorrentError("a torrent with a file of an impossible size")
    return value


def _text(value: object) -> str:
    if not isinstance(value, bytes):
        raise TorrentError("a torrent with a name that is no text")
    return value.decode("utf-8", "replace")
