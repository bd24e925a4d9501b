"""One error tree for everything that is signed, verified or logged.

    TrustError                    what is wrong, where, and what to do
    ├── Malformed                 the bytes are not of the asked form
    ├── KeyUnusable               a key file or public key cannot be used: wrong passphrase, weak point, other kind
    ├── SignatureInvalid          a pinned key is named, but its signature does not fit the bytes
    ├── UnknownKey                signed, but by none of the pinned keys
    ├── StatementMismatch         signed, but it says something else than what is at stake; lists each field
    ├── Expired                   past its expiry
    │   └── NotYetValid           before its time
    └── LogInvalid                the audit log does not hold together
        ├── ProofInvalid          an inclusion or consistency proof does not lead to the root
        ├── EntryInvalid          one entry is altered, missing, doubled or out of order; `index` names it
        └── LogRewritten          the log is not an extension of a checkpoint that was seen before

Nothing in `orchestrator.trust` raises anything else on account of its input; a `ValueError` that escapes is a bug.
"""

from __future__ import annotations

from typing import ClassVar


class TrustError(Exception):
    """Base of all refusals of this package.

    Attributes:
        what: what is wrong, in a sentence without a full stop.
        where: in which document or field, or an empty string.
        remedy: what to do, or an empty string.
    """

    code: ClassVar[str] = "trust"

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        super().__init__((f"{where}: " if where else "") + what + (f"; {remedy}" if remedy else ""))


class Malformed(TrustError):  # noqa: N818 - the names are the words a caller reads
    """The bytes are not of the asked form."""

    code = "malformed"


class KeyUnusable(TrustError):  # noqa: N818
    """A key file or a public key cannot be used."""

    code = "key-unusable"


class SignatureInvalid(TrustError):  # noqa: N818
    """A signature names a pinned key, but does not fit the bytes."""

    code = "signature-invalid"


class UnknownKey(TrustError):  # noqa: N818
    """No signature is by any of the pinned keys."""

    code = "unknown-key"


class StatementMismatch(TrustError):  # noqa: N818
    """The signed statement says something else than what is at stake.

    Attributes:
        fields: the names of the fields that differ.
    """

    code = "statement-mismatch"

    def __init__(self, what: str, *, where: str = "", remedy: str = "", fields: tuple[str, ...] = ()) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.fields = fields


class Expired(TrustError):  # noqa: N818
    """The statement is past its expiry."""

    code = "expired"


class NotYetValid(Expired):
    """The statement was issued in the future of the verifier's clock."""

    code = "not-yet-valid"


class LogInvalid(TrustError):  # noqa: N818
    """The audit log does not hold together."""

    code = "log-invalid"


class ProofInvalid(LogInvalid):
    """An inclusion or consistency proof does not lead to the root."""

    code = "proof-invalid"


class EntryInvalid(LogInvalid):
    """One entry of an exported log is bad.

    Attributes:
        index: the first entry that can be named as bad, counted from 0.
        last: the last entry that the finding covers; equal to `index` when one entry alone is to blame.
    """

    code = "entry-invalid"

    def __init__(
        self, what: str, *, index: int, last: int | None = None, where: str = "", remedy: str = ""
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.index, self.last = index, index if last is None else last


class LogRewritten(LogInvalid):
    """The log is not an extension of a checkpoint that was seen before."""

    code = "log-rewritten"
