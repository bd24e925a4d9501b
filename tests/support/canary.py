"""A search for secrets in clear: whatever form they may have been written in, wherever a run left bytes.

`Secret.homes` are the places where one may lie (its own file). Whoever searches says beside it what each place must contain in clear
(`witness`), so that a place that was not really searched is found out.
"""

from __future__ import annotations

import base64
import gzip
import json
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import numpy as np

_SHORTEST = 12
_PIECE = 1 << 22


@dataclass(frozen=True)
class Secret:
    """One secret. `homes`: folders or files where it may lie."""

    name: str
    value: bytes
    homes: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Sighted:
    """A secret that was found. The secret itself is not shown."""

    secret: str
    form: str
    where: str


def forms(value: bytes) -> Iterator[tuple[str, bytes]]:
    """Every way that these bytes are usually written; of Base64 what is the same at each of three offsets."""
    yield "as it is", value
    yield "hex", value.hex().encode()
    yield "HEX", value.hex().upper().encode()
    for offset in range(3):
        for name, encode in (("base64", base64.standard_b64encode), ("base64url", base64.urlsafe_b64encode)):
            whole = encode(bytes(offset) + value)
            yield f"{name}+{offset}", whole[(8 * offset + 5) // 6 : len(whole) - 4]
    yield "repr", repr(value)[2:-1].encode()
    yield "utf-16", value.decode("latin-1").encode("utf-16-le")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return
    yield "JSON", json.dumps(text)[1:-1].encode()
    yield "URL", quote(text, safe="").encode()


class Search:
    """Looks for secrets in bytes: all of them in one pass, by how each of their forms begins."""

    def __init__(self, secrets: Sequence[Secret]) -> None:
        self.searched = 0
        self.found: list[Sighted] = []
        self._starts: dict[bytes, list[tuple[Secret, str, bytes]]] = defaultdict(list)
        self._longest = 0
        for one in secrets:
            assert len(one.value) >= _SHORTEST, f"{one.name} is too short to be told from chance"
            written: dict[bytes, str] = {}
            for form, wanted in forms(one.value):
                written.setdefault(wanted, form)
            for wanted, form in written.items():
                self._starts[wanted[:8]].append((one, form, wanted))
                self._longest = max(self._longest, len(wanted))
        # by the first two bytes, the next two, …: all that a form could begin with
        self._pairs = np.zeros((4, 1 << 16), dtype=bool)
        for start in self._starts:
            for place, pair in enumerate(np.frombuffer(start, "<u2")):
                self._pairs[place, pair] = True

    def look(self, where: str, data: bytes, path: Path | None = None) -> None:
        """Search bytes, and what is packed in them (gzip, zlib)."""
        self.searched += len(data)
        for content in (data, *_unpacked(data)):
            for secret, form in self._seen(content):
                if path is None or not any(path.is_relative_to(home) for home in secret.homes):
                    self.found.append(Sighted(secret.name, form, where))

    def _seen(self, content: bytes) -> set[tuple[Secret, str]]:
        seen = set()
        for begin in range(0, len(content), _PIECE):
            piece = content[begin : begin + _PIECE + self._longest]
            if len(piece) < 8:
                break
            numbers = np.frombuffer(piece, np.uint8).astype(np.uint16)
            pairs = numbers[:-1] | (numbers[1:] << 8)
            places = np.flatnonzero(self._pairs[0, pairs[: len(piece) - 7]])
            for place in (1, 2, 3):
                places = places[self._pairs[place, pairs[places + 2 * place]]]
            for at in places.tolist():
                for secret, form, wanted in self._starts.get(piece[at : at + 8], ()):
                    if piece.startswith(wanted, at):
                        seen.add((secret, form))
        return seen

    def folder(self, folder: Path, witness: Mapping[str, bytes], leave_out: Sequence[Path] = ()) -> None:
        """Search every file below, its name, and every value of what is an SQLite database.

        Args:
            folder: what to search.
            witness: pattern of file names → what one of these files holds in clear, as proof that it was searched.
            leave_out: files and folders that are not the service's.
        """
        missing = dict(witness)
        for path in sorted(folder.rglob("*")):
            if not path.is_file() or any(path.is_relative_to(other) for other in leave_out):
                continue
            data = path.read_bytes()
            name = str(path.relative_to(folder))
            self.look(name, data, path)
            self.look(f"the name {name}", name.encode())
            if data.startswith(b"SQLite format 3\0"):
                self._database(name, path)
            for pattern, known in witness.items():
                if path.match(pattern) and known in data:
                    missing.pop(pattern, None)
        assert not missing, f"not searched, or not what was thought: {sorted(missing)}"

    def _database(self, name: str, path: Path) -> None:
        """Every value whole: in the file's pages a long one is cut to pieces."""
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            database.text_factory = bytes
            tables = [
                row[0].decode()
                for row in database.execute(
                    "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
                )
            ]
            for table in tables:
                values = (
                    value
                    for row in database.execute(f'SELECT * FROM "{table}"')
                    for value in row
                    if isinstance(value, bytes)
                )
                self.look(f"{name} · {table}", b"\n".join(values))


def _unpacked(data: bytes) -> Iterator[bytes]:
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    elif data[:2] in {b"\x78\x9c", b"\x78\x01", b"\x78\xda"}:
        try:
            yield zlib.decompress(data)
        except zlib.error:
            return
