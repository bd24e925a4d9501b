"""At `open`, what the public gets: the keys in a signed record, or the plaintext with a signature they know how to check.

The plaintext goes with an OpenSSF `model_signing` signature over the whole tree, so that a download is checked with
`model_signing verify`. That library is in the `service` extra; whoever only fetches does not need it.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from artifacts.errors import ArtifactError, ObjectExists, SourceChangedError, SourceError
from artifacts.stores.base import ObjectInfo, Store, valid_key

SIGNATURE = "model.sig"
"""Name of the signature beside the files, the one that `model_signing` uses itself."""

PART = 64 * 1024 * 1024
_GIT = {".git", ".gitattributes", ".github", ".gitignore"}  # model_signing leaves these out, and so do we
_SMALL = 8 * 1024 * 1024


class TreeSigner(Protocol):
    """Signs a folder and writes the signature to a file: `model_signing.signing.Config.sign` fits."""

    def __call__(self, tree: Path, signature: Path, /) -> object:
        """Sign every file of `tree` into the file `signature`."""
        ...


@runtime_checkable
class TakesFiles(Protocol):
    """A store that uploads a file from where it lies, without a copy of its own (the Hub)."""

    def put_files(self, files: Mapping[str, Path], message: str) -> dict[str, ObjectInfo]:
        """Create an object of each file, by key."""
        ...


class SignatureRefused(ArtifactError):  # noqa: N818 - says what happened
    """The tree is not what was signed, or not by this key."""


def elliptic_key_signer(private_key: Path, password: str | None = None) -> TreeSigner:
    """A signer with an EC private key in a PEM file (P-256, P-384 or P-521), by `model_signing`."""
    from model_signing import signing

    config = signing.Config()  # type: ignore[no-untyped-call]
    signer: TreeSigner = config.use_elliptic_key_signer(private_key=private_key, password=password).sign
    return signer


def publish_key_record(store: Store, record: bytes, key: str) -> ObjectInfo:
    """Put the signed public key record of an open release beside its sealed files.

    Args:
        store: the release's store.
        record: the record's bytes, signed by custody; they are published as they are.
        key: where, for example `open/<manifest digest>/keys.json`.
    """
    return store.put(key, record)


def publish_plaintext(
    store: Store, tree: Path, sign: TreeSigner, *, prefix: str = ""
) -> dict[str, ObjectInfo]:
    """Sign the files of `tree`, upload them, and last the signature as `model.sig`.

    Args:
        store: the plaintext repository: not the one with the sealed files.
        tree: a folder of regular files; `.git*` is left out. A model card (README.md) in it is signed too.
        sign: see `elliptic_key_signer`; a Sigstore or certificate signer of `model_signing` does as well.
        prefix: put before every name, with its slash.

    Returns:
        The stored object of each file, by its path in the tree, the signature included.

    Raises:
        SourceError: the tree has links, devices, an old signature or nothing in it.
        SourceChangedError: a file changed between signing and the end of its upload.
    """
    before = dict(_snapshot(tree))
    if not before:
        raise SourceError(f"{tree}: there are no files to publish")
    if SIGNATURE in before:
        raise SourceError(f"{tree}: holds a {SIGNATURE} already; remove it, a new one is made")
    with tempfile.TemporaryDirectory(prefix="sluice-sign-") as folder:
        signature = Path(folder) / SIGNATURE
        sign(tree, signature)
        if isinstance(store, TakesFiles):
            done = store.put_files({prefix + path: tree / path for path in before}, "Publish the plaintext")
            stored = {path: done[prefix + path] for path in before}
        else:
            stored = {path: _upload(store, tree / path, prefix + path) for path in before}
        if dict(_snapshot(tree)) != before:
            raise SourceChangedError(
                f"{tree}: files changed while they were published; nothing of it is signed"
            )
        stored[SIGNATURE] = store.put(prefix + SIGNATURE, signature.read_bytes())
    return stored


def verify_plaintext(tree: Path, public_key: Path, signature: Path | None = None) -> None:
    """Check a downloaded tree as the public would, with `model_signing` and an EC public key in a PEM file.

    Raises:
        SignatureRefused: a file differs, is missing or is extra, or the signature is not by this key.
    """
    from model_signing import hashing, verifying

    where = signature or tree / SIGNATURE
    if not where.is_file():
        raise SignatureRefused(f"{tree}: there is no {SIGNATURE}")
    hashes = hashing.Config()  # type: ignore[no-untyped-call]
    verifier = verifying.Config()  # type: ignore[no-untyped-call]
    try:
        verifier.use_elliptic_key_verifier(public_key=public_key)
        verifier.set_hashing_config(hashes.set_ignored_paths(paths=[where], ignore_git_paths=True))
        verifier.verify(tree, where)
    except (ValueError, OSError) as error:
        raise SignatureRefused(f"{tree}: {error}") from error


def _snapshot(tree: Path) -> Iterator[tuple[str, tuple[int, int, int]]]:
    """Every file below `tree` with what changes when it does."""
    if not tree.is_dir() or tree.is_symlink():
        raise SourceError(f"{tree}: is not a folder")
    for folder, folders, files in os.walk(tree, followlinks=False):
        folders[:] = sorted(f for f in folders if f not in _GIT)
        for name in sorted([*files, *(f for f in folders if Path(folder, f).is_symlink())]):
            path = Path(folder, name)
            relative = path.relative_to(tree).as_posix()
            if name in _GIT:
                continue
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                raise SourceError(f"{path}: is a link or a device, not a file; only files are published")
            valid_key(relative)
            yield relative, (status.st_size, status.st_mtime_ns, status.st_ino)


def _upload(store: Store, path: Path, key: str) -> ObjectInfo:
    with path.open("rb") as source:
        size = os.fstat(source.fileno()).st_size
        if size <= _SMALL:
            return store.put(key, source.read())
        there = store.stat(key)
        if there is not None:
            return _same(store, path, key, there)
        upload = store.begin(key, -(-size // PART), PART)
        done = upload.parts()
        for index in range(upload.part_count):
            data = source.read(PART)
            digest = hashlib.sha256(data).hexdigest()
            if index not in done or done[index].sha256 != digest:
                upload.put_part(index, data, digest)
        return upload.complete()


def _same(store: Store, path: Path, key: str, there: ObjectInfo) -> ObjectInfo:
    """An earlier run stored this object: it must be this very file."""
    same = there.size == path.stat().st_size
    with path.open("rb") as source:
        for start in range(0, there.size if same else 0, PART):
            length = min(PART, there.size - start)
            same = same and store.get_range(key, start, length) == source.read(length)
    if not same:
        raise ObjectExists(
            f"{store.uri}: {key}: holds other bytes than {path}; publish to a fresh repository"
        )
    return there
