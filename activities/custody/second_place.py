"""Signed checkpoints are copied to a second place, out of reach of whoever can write the service's database.

    file:/mnt/elsewhere/checkpoints                        a folder, best on another machine
    s3://bucket/prefix?lock_days=365&endpoint=https://…    a bucket; with object lock nobody takes a note away before its time
    https://witness.example/checkpoints                    POSTed as text/plain; answers 2xx, or 409 when it holds another note

Each note is kept under the log's size with twenty digits (`00000000000000001234.note`) and never overwritten. Ed25519 is
deterministic, so the same log gives the same note: another note of the same size means that the log was rewritten, and is
an error that does not go away. `sluice audit verify --checkpoint NOTE` holds an export against what lies there.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

import httpx
import structlog

from orchestrator.domain.errors import Malformed
from orchestrator.trust.checkpoints import Checkpoint
from orchestrator.trust.errors import LogRewritten

_log = structlog.get_logger(__name__)
_TIMEOUT = 10.0
_KEPT = 1_000


class PlaceAwayError(Exception):
    """The second place does not take a note now; it is tried again."""


class SecondPlace(Protocol):
    """Where notes are copied to."""

    @property
    def name(self) -> str:
        """As it is named in the settings, without secrets."""
        ...

    def put(self, size: int, note: str) -> None:
        """Keep a note; the same one twice is once.

        Raises:
            LogRewritten: another note of that size lies there.
            PlaceAwayError: it cannot be kept now.
        """
        ...


def note_name(size: int) -> str:
    """The name that a checkpoint over `size` entries is kept under."""
    return f"{size:020d}.note"


class Folder:
    """A folder; each note a file that is created once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = f"file:{path}"

    def put(self, size: int, note: str) -> None:
        """See `SecondPlace.put`."""
        target = self._path / note_name(size)
        temporary = self._path / f".{note_name(size)}.{os.getpid()}.{threading.get_ident()}"
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            with temporary.open("w", encoding="utf-8") as file:
                file.write(note)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(temporary, target)
            except FileExistsError:
                _same(target.read_text(encoding="utf-8"), note, size, self.name)
        except OSError as error:
            raise PlaceAwayError(f"{self.name}: {type(error).__name__}") from None
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


class Bucket:
    """An S3 bucket; notes are created conditionally, and locked where it is asked for.

    Args:
        client: a boto3 S3 client.
        bucket: its name.
        prefix: put before each note's name.
        lock: how long nobody may take a note away (object lock in compliance mode; the bucket must have it); None: not locked.
        clock: the time (aware).
    """

    def __init__(
        self, client: Any, bucket: str, prefix: str, lock: timedelta | None, clock: Callable[[], datetime]
    ) -> None:
        self._client, self._bucket, self._prefix = client, bucket, prefix
        self._lock, self._clock = lock, clock
        self.name = f"s3://{bucket}/{prefix}"

    def put(self, size: int, note: str) -> None:
        """See `SecondPlace.put`."""
        from botocore.exceptions import BotoCoreError, ClientError

        where = {"Bucket": self._bucket, "Key": self._prefix + note_name(size)}
        locked: dict[str, Any] = {}
        if self._lock is not None:
            until = self._clock() + self._lock
            locked = {"ObjectLockMode": "COMPLIANCE", "ObjectLockRetainUntilDate": until}
        try:
            self._client.put_object(
                **where,
                Body=note.encode(),
                ContentType="text/plain; charset=utf-8",
                ChecksumAlgorithm="SHA256",
                IfNoneMatch="*",
                **locked,
            )
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != 412:
                code = error.response.get("Error", {}).get("Code")
                raise PlaceAwayError(f"{self.name}: {code}") from None
            known = self._client.get_object(**where)["Body"].read().decode("utf-8", "replace")
            _same(known, note, size, self.name)
        except BotoCoreError as error:
            raise PlaceAwayError(f"{self.name}: {type(error).__name__}") from None


class Witness:
    """A URL that notes are POSTed to."""

    def __init__(self, url: str, transport: httpx.BaseTransport | None = None) -> None:
        parts = urlsplit(url)
        self._url, self._transport = url, transport
        self.name = f"{parts.scheme}://{parts.hostname}{parts.path}"

    def put(self, size: int, note: str) -> None:
        """See `SecondPlace.put`."""
        try:
            with httpx.Client(timeout=_TIMEOUT, transport=self._transport) as client:
                answer = client.post(
                    self._url,
                    content=note.encode(),
                    headers={"Content-Type": "text/plain; charset=utf-8", "Checkpoint-Size": str(size)},
                )
        except httpx.HTTPError as error:
            raise PlaceAwayError(f"{self.name}: {type(error).__name__}") from None
        if answer.status_code == 409:
            raise _rewritten(size, self.name)
        if not answer.is_success:
            raise PlaceAwayError(f"{self.name}: {answer.status_code}")


def _same(known: str, note: str, size: int, where: str) -> None:
    if known != note:
        raise _rewritten(size, where)


def _rewritten(size: int, where: str) -> LogRewritten:
    return LogRewritten(
        f"another checkpoint over {size} entries lies there",
        where=where,
        remedy="the log was rewritten, or two logs use one place; compare both before anything else is released",
    )


def open_place(text: str, clock: Callable[[], datetime]) -> SecondPlace:
    """A second place from its setting (the forms at the head of this module).

    Raises:
        Malformed: not of those forms.
    """
    parts = urlsplit(text)
    if parts.scheme == "file" and parts.path.startswith("/") and not parts.netloc:
        return Folder(Path(parts.path))
    if parts.scheme == "s3" and parts.netloc:
        import boto3

        asked = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        days = asked.pop("lock_days", None)
        endpoint = asked.pop("endpoint", None)
        if asked or (days is not None and not days.isdigit()):
            raise Malformed(f"the second place {parts.netloc}: only lock_days=N and endpoint=URL are known")
        prefix = parts.path.strip("/")
        return Bucket(
            boto3.client("s3", endpoint_url=endpoint),
            parts.netloc,
            prefix + "/" if prefix else "",
            None if days is None else timedelta(days=int(days)),
            clock,
        )
    if parts.scheme == "https" or (
        parts.scheme == "http" and parts.hostname in {"127.0.0.1", "localhost", "::1"}
    ):
        return Witness(text)
    raise Malformed("a second place for checkpoints is file:/…, s3://bucket/prefix or https://…")


class SecondPlaces:
    """Copies notes to every place, and keeps what a place does not take until it does."""

    def __init__(self, places: Iterable[SecondPlace]) -> None:
        self._places = list(places)
        self._waiting: dict[str, OrderedDict[int, str]] = {
            place.name: OrderedDict() for place in self._places
        }
        self.conflicts: list[str] = []

    def push(self, note: str | None = None) -> int:
        """Copy a note, and whatever is still waiting; how many notes wait now.

        A place that is away for long loses the oldest notes, never the newest: each commits to all before it.
        """
        for place in self._places:
            waiting = self._waiting[place.name]
            if note is not None:
                waiting[Checkpoint.parse(note.partition("\n\n")[0] + "\n").size] = note
            while len(waiting) > _KEPT:
                waiting.popitem(last=False)
            try:
                for size in list(waiting):
                    self._put(place, size, waiting[size])
                    del waiting[size]
            except PlaceAwayError as error:
                _log.warning("a second place takes no checkpoint", why=str(error), waiting=len(waiting))
        return sum(len(waiting) for waiting in self._waiting.values())

    def _put(self, place: SecondPlace, size: int, note: str) -> None:
        try:
            place.put(size, note)
        except LogRewritten as error:
            self.conflicts.append(str(error))
            _log.error("the second place holds another checkpoint", why=str(error))
