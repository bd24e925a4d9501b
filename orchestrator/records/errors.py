"""What can be wrong with the records themselves, in the tree of the rules.

SluiceError
├── RecordsBehind   503   the event log ends before what the workflow knows: an old database was restored
└── RecordsBroken   500   the event log and the read models contradict each other
"""

from __future__ import annotations

from orchestrator.domain.errors import SluiceError


class RecordsBehind(SluiceError):  # noqa: N818 - the names are the words a caller reads
    """The event log ends before the event that is to be written: an older database was restored. Never retried."""

    code = "records-behind"
    title = "The records are older than the release"
    status = 503


class RecordsBroken(SluiceError):  # noqa: N818
    """Event log and read model contradict each other: rows were changed by hand."""

    code = "records-broken"
    title = "The records contradict themselves"
    status = 500
