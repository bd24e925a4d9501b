"""Where copies may turn up: sources of suspects, each a small class with a cursor.

    source = open_source({"kind": "hub", "name": "hub", "names": ["*acme*"]}, Options())
    polled = source.poll(None, limit=200)         # Polled(candidates, cursor, more, limits, notes), or SourceError

What each source sees and cannot see is in `docs/leaks.md`. What becomes of candidates (deduplication by key, scans, incidents) is
the service's.
"""

from artifacts.leaks.targets import HubOptions, ObjectStoreOptions
from artifacts.leaks.watching.base import (
    Candidate,
    Cursor,
    Digests,
    Polled,
    RateLimits,
    Source,
    SourceError,
    Submission,
    SubmissionQueue,
    Trouble,
)
from artifacts.leaks.watching.opening import open_source
from artifacts.leaks.watching.options import Options, PollLimits
from artifacts.leaks.watching.settings import SourceSpec, read_spec

__all__ = [
    "Candidate",
    "Cursor",
    "Digests",
    "HubOptions",
    "ObjectStoreOptions",
    "Options",
    "PollLimits",
    "Polled",
    "RateLimits",
    "Source",
    "SourceError",
    "SourceSpec",
    "Submission",
    "SubmissionQueue",
    "Trouble",
    "open_source",
    "read_spec",
]
