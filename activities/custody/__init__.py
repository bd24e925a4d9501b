"""Custody: who may unwrap. A process of its own, with the only credentials to the key-encryption key.

    memory    what custody remembers in a place of its own: the log's tree, when it first saw what, which key it took in
    watch     reads the log on from there; an entry altered, dropped or rewritten is found here
    checking  folds a release from its leaves and holds every decision in it to people's signatures
    base      what custody is asked, what it finds to be given, and what it holds
    judging   says by the log what a request is to be given
    leaves    what custody says in the log: who gets which key, what it refuses, whom it waits for; checkpoints
    opening   answers one request: judges it, writes its leaf, unwraps, makes the envelopes
    activity  the same, as Temporal activities

It trusts no row, no workflow argument and no clock but its own and the signed ones. What it refuses, it says why, and
that is in the log too (docs/trust-model.md).
"""
