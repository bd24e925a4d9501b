"""Exit codes of `sluice`. They are a contract: scripts and pipelines act on them (`docs/cli.md`)."""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command ended with."""

    DONE = 0
    NOT_IN_ORDER = 1
    USAGE = 2
    NOT_PERMITTED = 3
    NOT_FOUND = 4
    CONFLICT = 5
    MALFORMED = 6
    UNAVAILABLE = 7
    LOCAL = 8
    WAITED_IN_VAIN = 9
    UNEXPECTED = 10
    INCONCLUSIVE = 11
    INTERRUPTED = 130


MEANING: dict[ExitCode, str] = {
    ExitCode.DONE: "it was done, or what was looked at is in order",
    ExitCode.NOT_IN_ORDER: "what was looked at is not in order: a plan that breaks rules, a log or an artifact that does not verify, a file that is ours",
    ExitCode.USAGE: "the command line itself is wrong",
    ExitCode.NOT_PERMITTED: "who asks is not known (401) or may not do that (403)",
    ExitCode.NOT_FOUND: "there is no such thing, or none that the caller may know of (404)",
    ExitCode.CONFLICT: "the release or the gate is not in a state for this, or has changed since it was read (409, 412, 428)",
    ExitCode.MALFORMED: "the input is not of the asked form (413, 422)",
    ExitCode.UNAVAILABLE: "the service does not answer, or asks to come back later (429, 503); the same command may be tried again",
    ExitCode.LOCAL: "something on this machine: a file, a key, a passphrase, the disk",
    ExitCode.WAITED_IN_VAIN: "what was waited for did not happen in the time given",
    ExitCode.UNEXPECTED: "an error that nobody foresaw; please report it",
    ExitCode.INCONCLUSIVE: "it could not be judged whether this is ours (`leak scan`)",
    ExitCode.INTERRUPTED: "interrupted from the keyboard",
}


def of_status(status: int) -> ExitCode:
    """The exit code of a refusal with this HTTP status."""
    if status in {401, 403}:
        return ExitCode.NOT_PERMITTED
    if status == 404:
        return ExitCode.NOT_FOUND
    if status in {409, 412, 428}:
        return ExitCode.CONFLICT
    if status in {400, 405, 413, 415, 422}:
        return ExitCode.MALFORMED
    if status in {429, 502, 503, 504}:
        return ExitCode.UNAVAILABLE
    return ExitCode.UNEXPECTED
