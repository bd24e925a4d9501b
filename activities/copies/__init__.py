"""Copies that custody makes of sealed artifacts: partners' marked copies, and artifacts sealed anew after a disclosed key.

    making    custody that makes copies: what may be copied is said by the log
    sealing   what all of them have in common: opened in custody, sealed under a key of its own; leaf, memory, records
    marking   partners' marked copies while a step is entered
    resealing what a rotation names, and new envelopes for grants that still stand
    tracing   a suspect against every partner's mark and every issued copy's digests; a signed document in the log
    activity  the same, as Temporal activities on the queue `copies`
    telling   what the release is told, and old sealed files that are deleted: on the transfer queue, without custody's keys

A worker of the queue `copies` is custody: the same process, credentials and checks (`activities.custody`). No plaintext is
written anywhere; a run that was killed goes on at the part where it stopped.
"""
