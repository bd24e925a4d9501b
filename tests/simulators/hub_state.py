"""What a Hub remembers: users, repositories with commits and refs, large files, access requests. No HTTP in here."""

from __future__ import annotations

import hashlib
import itertools
import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

LFS_SUFFIXES = (".safetensors", ".gguf", ".bin", ".pt", ".onnx", ".sealed", ".sig")
REGULAR_LIMIT = 10 * 1024 * 1024


class Refused(Exception):
    """An answer that is an error: HTTP status, the Hub's error code and its message."""

    def __init__(
        self, status: int, message: str, code: str | None = None, extra: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.extra = status, message, code, extra or {}


@dataclass
class User:
    name: str
    token: str
    orgs: frozenset[str] = frozenset()
    role: str = "write"  # "read" tokens may not change anything


@dataclass(frozen=True)
class Entry:
    """A file of a commit: `oid` is git's blob id; large files also have a SHA-256 and a Xet hash."""

    size: int
    oid: str
    sha256: str | None
    content_sha256: str

    @property
    def xet(self) -> str | None:
        return hashlib.sha256(b"xet" + self.content_sha256.encode()).hexdigest() if self.sha256 else None


@dataclass(frozen=True)
class Commit:
    oid: str
    parent: str | None
    title: str
    message: str
    date: datetime
    author: str
    files: dict[str, Entry]


@dataclass
class Request:
    user: str
    status: str
    date: datetime
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    reason: str | None = None


@dataclass
class Repo:
    type: str
    id: str
    private: bool
    created: datetime
    gated: str | bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: dict[str, str] = field(default_factory=dict)
    access: dict[str, Request] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)  # SHA-256 of large files uploaded to this repository
    parameters: int | None = None
    storage: int | None = None  # what listings say instead of the files' sizes
    card_tags: tuple[str, ...] = ()
    modified: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    @property
    def owner(self) -> str:
        return self.id.split("/")[0]

    @property
    def head(self) -> Commit:
        return self.commits[self.branches["main"]]

    def at(self, revision: str) -> Commit:
        oid = next(
            (
                d[r]
                for d, r in ((self.branches, revision), (self.tags, revision), (self.pulls, revision))
                if r in d
            ),
            revision.removeprefix("refs/heads/").removeprefix("refs/tags/"),
        )
        oid = self.branches.get(oid) or self.tags.get(oid) or oid
        if oid not in self.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[oid]


def is_large(path: str, size: int, sample: bytes) -> bool:
    """How the Hub chooses for a file: by size, by what .gitattributes tracks, by binary content."""
    if size > REGULAR_LIMIT or path.endswith(LFS_SUFFIXES):
        return True
    try:
        sample.decode()
    except UnicodeDecodeError as error:
        return error.start < len(sample) - 4
    return b"\0" in sample


class State:
    """Everything, behind one lock. Dates come from `now`, so that tests can move it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.users: dict[str, User] = {}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.blobs: dict[str, bytes] = {}  # by SHA-256 of the content
        self.multipart: dict[str, dict[int, bytes]] = {}
        self.shift = timedelta()
        self._serial = itertools.count()

    def now(self) -> datetime:
        return datetime.now(UTC) + self.shift

    def add_user(
        self, name: str, *, orgs: Iterable[str] = (), role: str = "write", token: str | None = None
    ) -> User:
        user = User(name, token or "hf_" + secrets.token_hex(17), frozenset(orgs), role)
        self.users[user.token] = user
        return user

    def store(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.blobs[digest] = data
        return digest

    def entry(self, path: str, data: bytes, *, large: bool | None = None) -> Entry:
        digest = self.store(data)
        if is_large(path, len(data), data[:512]) if large is None else large:
            return self.large_entry(digest)
        return Entry(len(data), hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(), None, digest)

    def large_entry(self, digest: str) -> Entry:
        size = len(self.blobs[digest])
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {size}\n".encode()
        oid = hashlib.sha1(b"blob %d\0" % len(pointer) + pointer).hexdigest()
        return Entry(size, oid, digest, digest)

    def create(
        self, repo_id: str, *, kind: str = "model", private: bool = False, author: str = "system"
    ) -> Repo:
        with self.lock:
            if (kind, repo_id.lower()) in self.repos:
                raise Refused(409, "You already created this model repo", extra={"url": f"/{repo_id}"})
            repo = Repo(kind, repo_id, private, self.now())
            self.repos[kind, repo_id.lower()] = repo
            attributes = "".join(
                f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES
            )
            files = {".gitattributes": self.entry(".gitattributes", attributes.encode(), large=False)}
            self.commit(repo, "main", files, (), title="initial commit", author=author)
            return repo

    def commit(
        self,
        repo: Repo,
        branch: str,
        changed: dict[str, Entry],
        deleted: Iterable[str],
        *,
        title: str,
        author: str,
        message: str = "",
        parent: str | None = None,
        pull: bool = False,
    ) -> tuple[Commit, str | None]:
        """A new commit on `branch`, or on a new pull request's ref."""
        with self.lock:
            before = repo.at(branch) if branch in repo.branches or branch in repo.pulls else None
            if parent is not None and (before is None or before.oid != parent):
                raise Refused(412, "A commit has happened since. Please refresh and try again.")
            files = dict(before.files) if before else {}
            for path in deleted:
                gone = [f for f in files if f == path or f.startswith(path.rstrip("/") + "/")]
                if not gone:
                    raise Refused(404, f"Entry not found: {path}", "EntryNotFound")
                for name in gone:
                    del files[name]
            files |= changed
            date = self.now()
            salt = f"{repo.id}{branch}{before and before.oid}{date}{title}{next(self._serial)}"
            made = Commit(
                hashlib.sha1(salt.encode()).hexdigest(),
                before and before.oid,
                title,
                message,
                date,
                author,
                files,
            )
            repo.commits[made.oid] = made
            if pull:
                ref = f"refs/pr/{len(repo.pulls) + 1}"
                repo.pulls[ref] = made.oid
                return made, ref
            target = repo.pulls if branch in repo.pulls else repo.branches
            target[branch] = made.oid
            repo.modified = date
            return made, None

    def find(self, kind: str, repo_id: str, user: User | None) -> Repo:
        """The repository, if `user` may know of it."""
        repo = self.repos.get((kind, repo_id.lower()))
        if repo is None or (repo.private and not self.member(repo, user)):
            status = 404 if user else 401
            raise Refused(status, "Repository not found", "RepoNotFound")
        return repo

    def member(self, repo: Repo, user: User | None) -> bool:
        return user is not None and (user.name == repo.owner or repo.owner in user.orgs)

    def must_write(self, repo: Repo, user: User | None) -> User:
        if user is None:
            raise Refused(401, "Invalid username or password.")
        if not self.member(repo, user) or user.role != "write":
            raise Refused(403, "You don't have the required permissions to perform this action")
        return user

    def must_read_files(self, repo: Repo, user: User | None) -> None:
        """Downloads of a gated repository are for its members and those with accepted access."""
        if not repo.gated or self.member(repo, user):
            return
        if user is None:
            raise Refused(401, f"Access to {repo.type} {repo.id} is restricted. Please log in.", "GatedRepo")
        request = repo.access.get(user.name)
        if request is None or request.status != "accepted":
            raise Refused(403, f"Access to {repo.type} {repo.id} is restricted.", "GatedRepo")

    def ask_access(self, repo: Repo, name: str) -> Request:
        """A user asks on the web page; with gating `auto` the answer is yes at once."""
        status = "accepted" if repo.gated == "auto" else "pending"
        return repo.access.setdefault(name, Request(name, status, self.now()))

    def handle(
        self, repo: Repo, name: str | None, request_id: str | None, status: str, reason: str | None
    ) -> None:
        if not repo.gated:
            raise Refused(400, "This repository is not gated")
        request = next((r for r in repo.access.values() if name == r.user or request_id == r.id), None)
        if request is None:
            raise Refused(404, "No access request of this user")
        if request.status == status:
            raise Refused(404, f"The access request is already {status}")
        request.status, request.reason = status, reason

    def grant(self, repo: Repo, name: str) -> None:
        if not repo.gated:
            raise Refused(400, "This repository is not gated")
        if all(user.name != name for user in self.users.values()):
            raise Refused(404, "User not found")
        there = repo.access.get(name)
        if there and there.status == "accepted":
            raise Refused(400, "This user already has access")
        repo.access[name] = Request(name, "accepted", self.now())
