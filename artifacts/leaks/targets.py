"""What a scan's target names: a file or folder here, an address, or a repository of the Hub."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from artifacts.leaks.errors import SourceFailure, UnreadableError, shown
from artifacts.leaks.matching import ListedFile
from artifacts.leaks.ranged import AddressPolicy, GuardedClient, HttpSource, public_url
from artifacts.leaks.references import ReferenceSet
from artifacts.leaks.sources import Budget, ByteSource, Ledger, LocalSource

WEIGHT_SUFFIXES = frozenset(
    {
        ".safetensors",
        ".gguf",
        ".bin",
        ".pt",
        ".pth",
        ".ckpt",
        ".npz",
        ".npy",
        ".zip",
        ".model",
        ".onnx",
        ".h5",
        ".pkl",
    }
)
MIN_WEIGHT_BYTES = 256 * 1024


@dataclass(frozen=True)
class HubOptions:
    """How `hf:` targets are reached.

    Attributes:
        endpoint: base address of the Hub; its address is checked like any other.
        token: for gated repositories; sent to the endpoint only, never to where it redirects.
    """

    endpoint: str = "https://huggingface.co"
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class ObjectStoreOptions:
    """How `s3:` targets are reached.

    Attributes:
        endpoint: address of the object store; None for Amazon's. It is checked like any other.
        region: of the bucket.
        access_key: with `secret_key`; without them the usual places of credentials are tried, unless `anonymous`.
        secret_key: never printed.
        session_token: of temporary credentials.
        anonymous: ask unsigned, as anybody could.
    """

    endpoint: str | None = None
    region: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    anonymous: bool = False


@dataclass(frozen=True)
class ObjectProfile:
    """Credentials for reading, and the buckets that they are for.

    Attributes:
        name: to speak of it.
        buckets: their names, in full.
        options: the store's address, region and credentials.
    """

    name: str
    buckets: frozenset[str]
    options: ObjectStoreOptions


@dataclass(frozen=True)
class ObjectProfiles:
    """Which credentials are shown to which bucket, however somebody came to name it. A bucket of no profile is asked as anybody could.

    The usual places of credentials are never tried: what lies there may be the service's own.
    """

    profiles: tuple[ObjectProfile, ...] = ()

    def of(self, bucket: str, endpoint: str | None = None, region: str | None = None) -> ObjectStoreOptions:
        """How a bucket is reached.

        Args:
            bucket: its name.
            endpoint: the store's address, where it is known from elsewhere; a profile of another one is not used.
            region: of the bucket, likewise.
        """
        for profile in self.profiles:
            own = profile.options
            if bucket in profile.buckets and (endpoint is None or _same(endpoint, own.endpoint)):
                return replace(own, region=region or own.region)
        return ObjectStoreOptions(endpoint=endpoint, region=region, anonymous=True)

    def of_target(
        self, target: str, endpoint: str | None = None, region: str | None = None
    ) -> ObjectStoreOptions:
        """The same for `s3://bucket/…`."""
        return self.of(target.removeprefix("s3://").partition("/")[0], endpoint, region)


def _same(one: str, other: str | None) -> bool:
    return other is not None and one.rstrip("/").lower() == other.rstrip("/").lower()


@dataclass(frozen=True)
class TargetFile:
    """One file of a target, opened when it is needed."""

    location: str
    listed: ListedFile
    opener: Callable[[], ByteSource] = field(repr=False)

    def open(self) -> ByteSource:
        """The file's bytes.

        Raises:
            UnreadableError: if it cannot be opened.
        """
        return self.opener()


@dataclass
class Target:
    """A target's files.

    Attributes:
        label: printable name without secrets.
        files: all that are listed.
        single: the target is one file, which is looked at whatever its name and size.
        notes: what was left out.
        hasher: computes a local file's SHA-256 when its size equals an issued file's.
    """

    label: str
    files: list[TargetFile]
    single: bool = False
    notes: list[str] = field(default_factory=list)
    hasher: Callable[[str], str] | None = None
    closers: list[Callable[[], None]] = field(default_factory=list)

    def listed(self, references: ReferenceSet) -> list[ListedFile]:
        """What the place says about each file; local files are hashed where their size is one of ours."""
        sizes = {f.size for _, f in references.files() if f.distinctive}
        out = []
        for file in self.files:
            listed = file.listed
            if self.hasher is not None and listed.size in sizes:
                listed = ListedFile(listed.location, listed.size, sha256=self.hasher(file.location))
            out.append(listed)
        return out

    def weight_files(self) -> list[TargetFile]:
        """Files that may hold weights: by suffix or size, since names are the leaker's choice. Largest first."""
        if self.single:
            return self.files
        held = [
            f
            for f in self.files
            if (f.listed.size or 0) >= MIN_WEIGHT_BYTES
            or (Path(f.location).suffix.lower() in WEIGHT_SUFFIXES and f.listed.size != 0)
        ]
        return sorted(held, key=lambda f: -(f.listed.size or 0))

    def close(self) -> None:
        """Close connections and files."""
        for closer in self.closers:
            closer()


def open_target(
    target: str | Path,
    budget: Budget,
    ledger: Ledger,
    addresses: AddressPolicy,
    hub: HubOptions,
    max_files: int,
    objects: ObjectStoreOptions | None = None,
) -> Target:
    """Resolve a target (see `scan.scan`).

    Raises:
        UnreadableError: if it cannot be reached at all.
    """
    text = str(target)
    if isinstance(target, str) and text.startswith("hf:"):
        from artifacts.leaks.hub import open_repository

        return open_repository(text, budget, ledger, addresses, hub, max_files)
    if isinstance(target, str) and text.split(":", 1)[0].lower() in ("http", "https"):
        return _open_url(text, budget, ledger, addresses)
    if isinstance(target, str) and text.startswith("s3://"):
        from artifacts.leaks.objects import open_objects

        return open_objects(text, budget, ledger, addresses, objects or ObjectStoreOptions(), max_files)
    if isinstance(target, str) and "://" in text:
        raise UnreadableError(
            f"{shown(text.split('://', 1)[0], 20)}: only http, https, hf:, s3: and paths can be scanned"
        )
    try:
        return _open_path(Path(target), budget, ledger, max_files)
    except (OSError, ValueError) as error:
        raise SourceFailure(f"{shown(text)}: not a path that can be read: {type(error).__name__}") from error


def _open_url(url: str, budget: Budget, ledger: Ledger, addresses: AddressPolicy) -> Target:
    client = GuardedClient(addresses, budget.max_wait)
    label = public_url(url)
    try:
        source = HttpSource(url, client, budget, ledger)
    except UnreadableError:
        client.close()
        raise
    listed = ListedFile(label, source.size)
    return Target(label, [TargetFile(label, listed, lambda: source)], single=True, closers=[client.close])


def _open_path(path: Path, budget: Budget, ledger: Ledger, max_files: int) -> Target:
    closers: list[Callable[[], None]] = []
    notes: list[str] = []
    paths: dict[str, Path] = {}

    def opener(at: Path) -> Callable[[], ByteSource]:
        def open_it() -> ByteSource:
            source = LocalSource(at, budget, ledger)
            closers.append(source.close)
            return source

        return open_it

    def hasher(location: str) -> str:
        try:
            with paths[location].open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise SourceFailure(f"{location}: cannot be read: {error.strerror}") from error

    files: list[TargetFile] = []
    found = [path] if not path.is_dir() else _walk(path, max_files + 1)
    if len(found) > max_files:
        notes.append(f"only the first {max_files} files of the folder were listed")
        found = found[:max_files]
    for at in found:
        location = shown(at, 400)
        try:
            size = at.stat().st_size
        except OSError as error:
            raise SourceFailure(f"{location}: {error.strerror}") from error
        paths[location] = at
        files.append(TargetFile(location, ListedFile(location, size), opener(at)))
    return Target(shown(path, 400), files, not path.is_dir(), notes, hasher, closers)


def _walk(root: Path, limit: int) -> list[Path]:
    out: list[Path] = []
    for folder, names, files in os.walk(root):
        names.sort()
        for name in sorted(files):
            at = Path(folder) / name
            if at.is_file() and not at.is_symlink():
                out.append(at)
            if len(out) >= limit:
                return out
    return out
