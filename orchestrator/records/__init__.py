"""The records: the event log, which is the audit log, and the read models that are made of it.

    database      an engine for a URL; one transaction per request (`reading`, `writing`)
    tables        SQLModel tables; `migrations/` makes them
    releases      `append`, the one writer of events, exactly once; lists, states, events, `rebuild`
    audit         leaves, Merkle nodes, checkpoints, proofs, export
    pending       what waits for whom; `grants` and `incidents`: who has access, what was seen
    partners · principals · artifacts · envelopes · documents · idempotency   what stands beside releases

Repositories are modules of functions that take a session first; whoever opens the session decides what one transaction
is. Nothing here decides anything about a release: that is the domain's, and the workflow's.
"""
