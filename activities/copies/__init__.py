"""Copies that custody makes of sealed artifacts: partners' marked copies, and artifacts sealed anew after a disclosed key.

    making    what may be copied, by the log; opening, marking, sealing under a key of its own; leaf, memory, records
    tracing   a suspect against every partner's mark and every issued copy's digests; a signed document in the log
    activity  the same, as Temporal activities on the queue `copies`
    telling   what the release is told, and old sealed files that are deleted: on the transfer queue, without custody's keys

A worker of the queue `copies` is custody: the same process, credentials and checks (`activities.custody`). No plaintext is
written anywhere; a run that was killed goes on at the part where it stopped.
"""
