"""What can go wrong between custody and the keeper of its key, below `artifacts.errors.KeyProviderError`.

    KeyProviderError
    ├── KeyServiceUnavailable    down, slow, sealed, throttled: the same call may succeed later (`retryable`)
    ├── SecondLockPending        a control group must approve first; the same call succeeds after that (`retryable`)
    ├── KeyServiceDenied         the credentials are missing, expired, or may not do this
    ├── KeyServiceMisconfigured  the key is missing, or not of the kind that binds a context
    ├── WrappedKeyInvalid        not a wrapped key, altered, or not for this context
    │   └── WrappedKeyForeign    of another provider or another key
    ├── KeyVersionGone           the version it was wrapped under is retired, disabled or deleted
    ├── KeyringInvalid           the local keyring file is missing, damaged, too open, or the passphrase is wrong
    └── SharesInvalid            shares that do not make the secret; never a wrong key
        ├── TooFewShares         fewer distinct good shares than the quorum
        ├── ShareTampered        a share, or the manifest's record, was altered; names the holder
        └── ShareForeign         a share of another set, or of someone who is not in it

Retryable ones are `ApplicationError(non_retryable=False)` at the activity's edge, all others are final. No message
holds a key, a token, a passphrase or a share.
"""

from __future__ import annotations

from collections.abc import Sequence

from artifacts.custody.second_lock import LockRequest
from artifacts.errors import KeyProviderError


class KeyServiceUnavailable(KeyProviderError):  # noqa: N818 - the names are the words a caller reads
    """The key service is down, slow, sealed or throttling. Nothing was decided; try again."""

    retryable = True


class SecondLockPending(KeyProviderError):  # noqa: N818
    """A control group guards the key and has not approved yet.

    Attributes:
        requests: what waits: one request for each key that is asked for.
        approvers: who has to approve, in the words of whoever set custody up; None when nobody said.
    """

    retryable = True

    def __init__(self, requests: Sequence[LockRequest], approvers: str | None = None) -> None:
        who = approvers or "a control group"
        what = "this unwrap" if len(requests) == 1 else f"these {len(requests)} unwraps"
        ways = "; ".join(
            f"`bao write sys/control-group/authorize accessor={request.accessor}`"
            + (f" ({request.about})" if len(requests) > 1 else "")
            + (f" - approved so far by {', '.join(request.approved_by)}" if request.approved_by else "")
            for request in requests
        )
        super().__init__(f"openbao: {who} must approve {what}; an approver runs {ways}, then ask again")
        self.requests, self.approvers = tuple(requests), approvers

    @property
    def accessor(self) -> str:
        """The first request's."""
        return self.requests[0].accessor

    @property
    def expires_at(self) -> float:
        """POSIX seconds when the first request lapses and a new one has to be made."""
        return min(request.expires_at for request in self.requests)


class KeyServiceDenied(KeyProviderError):  # noqa: N818
    """The credentials are missing, expired, or may not do this."""


class KeyServiceMisconfigured(KeyProviderError):  # noqa: N818
    """The key is missing, or is not of the kind that binds a context."""


class WrappedKeyInvalid(KeyProviderError):  # noqa: N818
    """Not a wrapped key, an altered one, or one that was wrapped in another context."""


class WrappedKeyForeign(WrappedKeyInvalid):
    """A key that another provider, or another key of this one, has wrapped."""


class KeyVersionGone(KeyProviderError):  # noqa: N818
    """The version of the key that it was wrapped under is retired, disabled or deleted."""


class KeyringInvalid(KeyProviderError):  # noqa: N818
    """The local keyring file cannot be used."""


class SharesInvalid(KeyProviderError):  # noqa: N818
    """Shares that do not make the secret."""


class TooFewShares(SharesInvalid):
    """Fewer distinct good shares than the quorum asks for."""


class ShareTampered(SharesInvalid):
    """A share, or what the manifest says of its set, was altered."""


class ShareForeign(SharesInvalid):
    """A share of another set, or of someone who holds none in this set."""
