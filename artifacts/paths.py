"""Rules for paths inside an artifact: relative, inside their folder, and writable on every common disk.

Used on both sides: sealing refuses to make a manifest that fetching would refuse to follow.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from artifacts.errors import PathError

MAX_PATH_BYTES = 700
_FORBIDDEN = set('<>:"|?*\\')
_RESERVED = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"com{i}" for i in range(1, 10)),
    *(f"lpt{i}" for i in range(1, 10)),
}
FETCH_FOLDER = ".sluice-fetch"
"""Fetching keeps unfinished files in a folder of this name; no artifact may contain one."""


def check_path(path: str) -> str:
    """Give `path` back if it is safe everywhere, else raise `PathError` saying which rule it breaks."""
    shown = ascii(path[:120])
    try:
        encoded = path.encode("utf-8")
    except UnicodeEncodeError:
        raise PathError(f"path {shown}: not valid Unicode") from None
    if not path or len(encoded) > MAX_PATH_BYTES:
        raise PathError(f"path {shown}: must be 1 to {MAX_PATH_BYTES} bytes")
    if path.startswith("/"):
        raise PathError(f"path {shown}: absolute; paths are relative to the artifact")
    if unicodedata.normalize("NFC", path) != path:
        raise PathError(f"path {shown}: not in Unicode normal form C; rename the file")
    for part in path.split("/"):
        if part in {"", ".", ".."}:
            raise PathError(f"path {shown}: empty, '.' or '..' component; it could leave its folder")
        if any(c in _FORBIDDEN or unicodedata.category(c) in {"Cc", "Cf", "Zl", "Zp", "Cs"} for c in part):
            raise PathError(
                f"path {shown}: control characters and any of {''.join(sorted(_FORBIDDEN))} are not allowed"
            )
        if part[-1] in " .":
            raise PathError(f"path {shown}: a component ends with a space or a dot; not every disk keeps it")
        if part.split(".")[0].lower() in _RESERVED:
            raise PathError(
                f"path {shown}: {part.split('.')[0]!r} is a device name on some systems; rename the file"
            )
        if len(part.encode()) > 200:
            raise PathError(f"path {shown}: a component is longer than 200 bytes")
    if path.split("/", maxsplit=1)[0].lower() == FETCH_FOLDER:
        raise PathError(f"path {shown}: {FETCH_FOLDER} is kept for unfinished downloads")
    return path


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", text).casefold())


def check_paths(paths: Iterable[str]) -> None:
    """Check each path and that no two of them, or of their folders, meet on a case-insensitive disk."""
    seen: dict[str, tuple[str, bool]] = {}
    for path in paths:
        check_path(path)
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            spelled = "/".join(parts[:depth])
            is_file = depth == len(parts)
            earlier = seen.setdefault(_fold(spelled), (spelled, is_file))
            if earlier[0] != spelled:
                raise PathError(f"paths {earlier[0]!a} and {spelled!a} collide on a case-insensitive disk")
            if is_file != earlier[1] or (is_file and depth == len(parts) and earlier != (spelled, True)):
                raise PathError(f"path {spelled!a}: both a file and a folder")
        key = "\0" + path
        if key in seen:
            raise PathError(f"path {path!a}: listed twice")
        seen[key] = (path, True)
