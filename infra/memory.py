"""The collector of cycles, and what it need not look at."""

from __future__ import annotations

import gc


def spare_what_stands() -> None:
    """Spare the collector of cycles what is loaded by now and stays: modules, models, schemas, routes. For a root that has built its parts.

    Each full collection would walk over it, a quarter of a million objects, while requests wait. It must not run less often than by
    default: releases that leave a worker's memory are cycles, and pile up until it comes.
    """
    gc.collect()
    gc.freeze()
