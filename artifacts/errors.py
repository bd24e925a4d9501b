"""Everything that can go wrong with a sealed artifact: one tree, so that a caller catches one class.

    ArtifactError
    ├── IntegrityError        bytes are not the ones that were sealed or signed
    │   ├── NotSealedError    an object in clear, or of another format, where a sealed one must be
    │   └── WrongKeyError     the key commitment does not fit: another file's key, or another file
    ├── ManifestError         the manifest is malformed, unsigned, or breaks a rule of the format
    │   └── PathError         a path that leaves its folder, is absolute, collides, or cannot be written
    ├── SourceChangedError    a file changed while it was read for sealing
    ├── SourceError           a folder or file that cannot be sealed: symlink, device, nothing there
    ├── EnvelopeError         malformed, not for this identity, not signed, or without its log proof
    │   └── ExpiredError      an envelope, link or grant whose time is over
    ├── DestinationError      the place to write plaintext to is not usable: file exists, disk full
    ├── KeyProviderError      a key, a key string or a key service cannot be used
    └── StoreError            a store's answer, or the lack of one
        ├── ObjectExists      the name is taken by other bytes; nothing is ever overwritten
        ├── ObjectMissing     no such object (404)
        ├── AccessDenied      the credentials may not do this (401, 403)
        ├── StaleObject       a short or wrong answer, or other bytes than were seen under that name before
        └── StoreUnavailable  worth trying again later: 5xx, rate limit, cut connection, timeout

Each message says what went wrong, where (path, part, byte), and what to do if there is something to do. No
message ever holds key bytes, plaintext or a presigned URL.
"""

from __future__ import annotations


class ArtifactError(Exception):
    """Base of all errors of `artifacts`.

    Attributes:
        retryable: whether the same call may succeed later without anybody changing anything.
    """

    retryable: bool = False


class IntegrityError(ArtifactError):
    """Bytes differ from what was sealed or signed; nothing of them was handed out."""


class NotSealedError(IntegrityError):
    """An object is not sealed although the manifest says that it is. Plaintext is never accepted instead."""


class WrongKeyError(IntegrityError):
    """The commitment at a part's head does not fit the key: wrong key, file or part, or a changed head."""


class ManifestError(ArtifactError):
    """A manifest that is malformed, too large, wrongly signed or against `docs/sealed-format.md`."""


class PathError(ManifestError):
    """A path that could leave its folder, collide with another, or not be written everywhere."""


class SourceChangedError(ArtifactError):
    """A file changed while it was being sealed. Stop whatever writes to it and seal again."""


class SourceError(ArtifactError):
    """A source that cannot be sealed: missing, a symbolic link, a device, or outside its folder."""


class EnvelopeError(ArtifactError):
    """An envelope that is malformed, for someone else, not rightly signed, or without its log proof."""


class ExpiredError(EnvelopeError):
    """The envelope's time is over. Ask the release's owner for a new one."""


class DestinationError(ArtifactError):
    """Plaintext cannot be written where it should go: something is there already, or the disk is full."""


class KeyProviderError(ArtifactError):
    """A key, a key string or a key service that cannot be used as asked."""


class StoreError(ArtifactError):
    """A store refused, failed, or answered nonsense."""


class ObjectExists(StoreError):  # noqa: N818 - reads as what it is; the tree is the stores' vocabulary
    """The key holds other bytes already; they were left alone."""


class ObjectMissing(StoreError):  # noqa: N818
    """The store has no object under that key."""


class AccessDenied(StoreError):  # noqa: N818
    """The store's credentials do not allow this."""


class StaleObject(StoreError):  # noqa: N818
    """An answer was short, of the wrong range, or of other bytes than were seen under that name before."""


class StoreUnavailable(StoreError):  # noqa: N818
    """The store cannot be reached or asks to come back later."""

    retryable = True
