"""Custody as it makes copies: re-derived from the log what may be made for whom, then opened, sealed anew, written down.

    make_copies   while a step is entered: every grant whose components the plan marks gets a copy of its own
    reseal        while a rotation stands: an artifact, or a live grant's own copy, under a fresh key
    renew         when nothing is held any more: envelopes of what was sealed anew, for grants that still stand

A copy's id derives from what it is for, so that making it twice makes one; a ticket on custody's own disk lets a killed
run go on. The leaf that says which copy is whose, with its exact digests and the commitment to the mark key, is in the
log before custody remembers the copy, and nothing that it does not remember gets an envelope.
"""

from __future__ import annotations

from activities.copies.marking import MarksCopies
from activities.copies.resealing import Reseals


class CopyingCustody(MarksCopies, Reseals):
    """Custody that also makes copies. Arguments as `Custody`, and where copies are made."""
