"""A search for secrets in clear: whatever form they may have been written in, wherever a run left bytes.

`Secret.homes` are the places where one may lie (its own file). Whoever searches says beside it what each place must contain in clear
(`witness`), so that a place that was not really searched is found out.
"""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote


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
    yield "utf-16", value.decode("latin-1").encode("utf-16-le")
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return
    yield "JSON", json.dumps(text)[1:-1].encode()
    yield "URL", quote(text, safe="").encode()


class Search:
    """Looks for secrets in bytes."""

    def __init__(self, secrets: Sequence[Secret]) -> None:
        self.secrets = list(secrets)
        self.searched = 0
        self.found: list[Sighted] = []
        self._forms = [(one, list(dict.fromkeys(forms(one.value)))) for one in secrets]
        for one in secrets:
            assert len(one.value) >= 12, f"{one.name} is too short to be told from chance"

    def look(self, where: str, data: bytes, path: Path | None = None) -> None:
        """Search bytes, and what is packed in them (gzip, zlib)."""
        self.searched += len(data)
        for content in (data, *_unpacked(data)):
            for secret, wanted in self._forms:
                if path is not None and any(path.is_relative_to(home) for home in secret.homes):
                    continue
                self.found += [
                    Sighted(secret.name, form, where) for form, bytes_ in wanted if bytes_ in content
                ]

    def folder(self, folder: Path, witness: Mapping[str, bytes], leave_out: Sequence[Path] = ()) -> None:
        """Search every file below, and its name.

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
            for pattern, known in witness.items():
                if path.match(pattern) and known in data:
                    missing.pop(pattern, None)
        assert not missing, f"not searched, or not what was thought: {sorted(missing)}"


def _unpacked(data: bytes) -> Iterator[bytes]:
    if data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    elif data[:2] in {b"\x78\x9c", b"\x78\x01", b"\x78\xda"}:
        try:
            yield zlib.decompress(data)
        except zlib.error:
            return
