"""What every source of suspects gives: candidates after a cursor, or an error that says why not.

    polled = source.poll(cursor, limit=200)
    for candidate in polled.candidates: ...       # scan(candidate.target, references)
    cursor = polled.cursor                        # kept by the caller, after the candidates are kept

Invariants that every source holds and the caller may build on:
- A poll changes nothing in the source: the same cursor again gives the same candidates again (and newer ones). Whoever
  stores the candidates first and the cursor after them loses nothing by a crash in between.
- The same content at the same place has the same `key`, from whatever list, poll or restart it comes. The caller throws away
  keys it has; a source may repeat a candidate, and will after an outage.
- A poll ends: its requests, bytes and seconds are bounded (`options.PollLimits`), whatever the other side sends.
- A source that could not look raises `SourceError`; an empty `Polled` means that it looked and there was nothing.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from artifacts.leaks.errors import LeakError

Cursor = dict[str, Any]
"""Where a source is: plain JSON, a few kilobytes at most, meaningless to anybody but the source that made it."""

MAX_DIGESTS = 200


class Digests(BaseModel):
    """What a listing says of one file's content. Nothing of it was computed here.

    Attributes:
        path: the file's name in the listing, printable.
        size: bytes, where the listing gives it.
        sha256: hex, of the whole content.
        xet_hash: hex, as the Hub lists it.
        git_oid: hex SHA-1 of git's blob (of the pointer file where the content is in LFS).
        btv2_root: hex pieces root of BEP 52.
        etag: an object store's or server's own mark of a version; equal marks mean equal content, nothing else follows.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    size: int | None = None
    sha256: str | None = None
    xet_hash: str | None = None
    git_oid: str | None = None
    btv2_root: str | None = None
    etag: str | None = None


class Candidate(BaseModel):
    """One thing that may hold weights of ours and should be scanned.

    Attributes:
        source: name of the source that saw it.
        key: what it is deduplicated by: a digest of the content where the listing gives one (`sha256:…`, `btv2:…`), else the
            location at a revision (`hf:owner/name@commit`, `https://…#etag`). At most 300 characters.
        target: what `artifacts.leaks.scan` takes: `https://…`, `hf:owner/name@revision`, `s3://bucket/key`, a path. Empty when
            there are only digests to compare (a torrent, a reported hash): see `digests`.
        title: one printable line for people.
        size: bytes in all, where it is known.
        seen_at: when the source saw it; UTC.
        digests: per file what the listing says, at most `MAX_DIGESTS` (the largest); `detail["files"]` counts them all.
        detail: more for people and records, plain JSON, a few kilobytes at most.
        sighting: this alone is evidence, before any scan: a honey token was touched or seen. `title` says which.
    """

    model_config = ConfigDict(frozen=True)

    source: str
    key: str = Field(min_length=1, max_length=300)
    target: str = Field(max_length=2_100)
    title: str = Field(max_length=400)
    size: int | None = Field(default=None, ge=0)
    seen_at: AwareDatetime
    digests: tuple[Digests, ...] = Field(default=(), max_length=MAX_DIGESTS)
    detail: dict[str, Any] = Field(default_factory=dict)
    sighting: bool = False


class RateLimits(BaseModel):
    """What the other side said about how often it may be asked.

    Attributes:
        limit: requests per window.
        remaining: requests left in this window.
        resets_in_s: seconds until the window starts again.
        window_s: the window's seconds.
        retry_after_s: how long it asked to be left alone.
        requests: requests of this poll.
    """

    model_config = ConfigDict(frozen=True)

    limit: int | None = None
    remaining: int | None = None
    resets_in_s: float | None = None
    window_s: float | None = None
    retry_after_s: float | None = None
    requests: int = 0


class Polled(BaseModel):
    """What one poll found.

    Attributes:
        candidates: in no particular order; about the `limit` that was asked for at most (one repository's refs stay together).
        cursor: to give to the next poll, once the candidates are kept.
        more: there is more at once: poll again without waiting.
        limits: what the server said about rates.
        notes: what was left out or looked odd, one printable sentence each: a list that ended early, a page that came again.
        failed: what could not be looked at though it should have been; empty when all was. A poll with this is not a success:
            the candidates are real, but the source is partly blind, and a gate must not count it as having seen.
        behind_s: how far behind the newest entry the finished part is, in seconds; 0 when it has caught up.
    """

    model_config = ConfigDict(frozen=True)

    candidates: tuple[Candidate, ...] = ()
    cursor: Cursor
    more: bool = False
    limits: RateLimits = RateLimits()
    notes: tuple[str, ...] = ()
    failed: str = ""
    behind_s: float = 0.0


class Trouble(StrEnum):
    """Why a source could not look."""

    UNREACHABLE = "unreachable"  # no answer, a cut answer, a server error: try again
    RATE_LIMITED = "rate_limited"  # asked to wait: `retry_after_s`
    DENIED = "denied"  # credentials or rights: a person must act
    GONE = "gone"  # what is watched is not there
    ADDRESS = "address"  # leads to an address that is not public and not allowed
    MISBEHAVING = "misbehaving"  # malformed, endless or contradictory answers
    SETTING = "setting"  # the setting itself cannot work: a person must act


class SourceError(LeakError):
    """A source could not look: until it can again it is blind.

    Attributes:
        message: what failed, where, and what to do; printable, free of secrets.
        trouble: what sort of failure.
        retry_after_s: seconds that the other side asked for, or None.
        limits: what the other side said about rates, as far as the poll came.
        retryable: whether the next poll may succeed without anybody doing anything.
    """

    def __init__(
        self,
        message: str,
        trouble: Trouble = Trouble.UNREACHABLE,
        *,
        retry_after_s: float | None = None,
        limits: RateLimits | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.trouble = trouble
        self.retry_after_s = retry_after_s
        self.limits = limits or RateLimits()
        self.retryable = trouble not in {Trouble.DENIED, Trouble.ADDRESS, Trouble.SETTING}


@runtime_checkable
class Source(Protocol):
    """A place where copies may turn up."""

    @property
    def name(self) -> str:
        """Its name in plans and records; unique in a service."""
        ...

    @property
    def kind(self) -> str:
        """The kind of its setting: `hub`, `repositories`, `urls` and so on."""
        ...

    def poll(self, cursor: Cursor | None, limit: int) -> Polled:
        """Candidates after `cursor` (None: from where the setting says), at most `limit`.

        Raises:
            SourceError: it could not look. The cursor stays as it was.
        """
        ...


class Submission(BaseModel):
    """Something that a person or an outside monitor handed in, as a queue of the service gives it to a source.

    Attributes:
        position: grows with every submission of the queue, from 1; never reused.
        id: the service's own name of it.
        at: when it came in.
        what: `url`, `repository` (`hf:…`), `object` (`s3://…`), `sha256` (hex), `file` (a path where the service keeps it),
            `torrent` (a path of a .torrent file), `magnet` (a link).
        value: that, as it was handed in: untrusted.
        note: the reporter's words: untrusted.
        via: who handed it in, as the service knows it (`public`, a principal, a monitor's name).
    """

    model_config = ConfigDict(frozen=True)

    position: int = Field(ge=1)
    id: str
    at: AwareDatetime
    what: str
    value: str
    note: str = ""
    via: str = "public"


class SubmissionQueue(Protocol):
    """Where the service keeps what was handed in; sources only read it."""

    def after(self, position: int, limit: int) -> list[Submission]:
        """At most `limit` submissions with a position larger than `position`, by position."""
        ...
