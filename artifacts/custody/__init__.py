"""Who holds the key-encryption key: providers behind one interface, and shares for a quorum of people.

`local.LocalKeyring`, `openbao.OpenBaoTransit` and `aws_kms.AwsKms` are the `KeyProvider`s; each binds
what it wraps to a context of release, artifact and plan digest. `shares` adds a lock that k of n people hold.
"""

from artifacts.custody.base import (
    CONTEXT_FIELDS,
    Context,
    Description,
    Health,
    KeyProvider,
    WrappedKey,
    wrapping_context,
)

__all__ = [
    "CONTEXT_FIELDS",
    "Context",
    "Description",
    "Health",
    "KeyProvider",
    "WrappedKey",
    "wrapping_context",
]
