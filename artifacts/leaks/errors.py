"""What can go wrong while recognising weights.

    ArtifactError
    └── LeakError
        ├── SignatureError         a signature's bytes or key do not fit
        ├── MarkError              a mark cannot be applied or traced as asked
        └── UnreadableError        a suspect could not be judged: the verdict is `inconclusive`, never `no_match`
            ├── HostileError       the suspect's own numbers lie (overlap, out of bounds, over a cap)
            ├── UnsupportedError   pickled objects, encrypted, compressed beyond ranges, unknown quantisation
            ├── BudgetError        the budget of bytes, requests or seconds is used up
            └── SourceFailure      the place it lies in does not answer as it must (retryable)
                ├── BusyError      it asks to be left alone for a while, or fails on its side (429, 5xx)
                ├── LyingError     its answers are malformed, endless, compressed, or lead in circles
                └── AddressRefused an address inside the operator's network was asked for (not retryable)

Each message names the suspect's own words (tensor, offset, host) only through `shown`, which shortens them and strips
control characters: they come from strangers and end up in terminals and logs.
"""

from __future__ import annotations

from artifacts.errors import ArtifactError


class LeakError(ArtifactError):
    """Base of all errors of `artifacts.leaks`."""


class SignatureError(LeakError):
    """A weight signature is malformed, was made with another key, or cannot be made from these bytes."""


class MarkError(LeakError):
    """A partner's mark cannot be applied or traced: wrong shapes, a strength out of range, an unknown partner."""


class UnreadableError(LeakError):
    """A suspect, or a part of it, cannot be judged. Leads to `inconclusive` with this message as the reason."""


class HostileError(UnreadableError):
    """The suspect's header contradicts itself or asks for more than any honest file would."""


class UnsupportedError(UnreadableError):
    """The suspect is in a form that is not decoded here. It may still be a copy: look at the whole file."""


class BudgetError(UnreadableError):
    """The scan used up its budget of bytes, requests or seconds before it could judge."""


class SourceFailure(UnreadableError):  # noqa: N818 - says what happened, like its siblings
    """The suspect's host failed or lied: a short or wrong range, an endless answer, a timeout, an error status."""

    retryable = True


class BusyError(SourceFailure):
    """The host answered 429 or 5xx.

    Attributes:
        status: the HTTP status.
        retry_after_s: seconds that it asked for, or None.
    """

    def __init__(self, message: str, status: int, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_s = retry_after_s


class LyingError(SourceFailure):
    """The host's answers cannot be honest: endless, malformed, compressed though asked not to, or in circles."""


class AddressRefused(SourceFailure):
    """The host resolves to, or redirects to, an address that is not public. Allow it explicitly if it is meant."""

    retryable = False


def shown(text: object, limit: int = 120) -> str:
    """A stranger's text made safe to print: control characters replaced, at most `limit` characters."""
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text)[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 1] + "\N{HORIZONTAL ELLIPSIS}"
