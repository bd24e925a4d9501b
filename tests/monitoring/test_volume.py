"""Thousands of candidates a day: most are ruled out by their listing, without a request."""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime, timedelta

from activities.beating import Beat
from orchestrator.records import database, suspects
from orchestrator.records.suspects import Suspect
from tests.simulators import transformations as t

from .bench import LeakBench

CANDIDATES = 5_000


def candidates(number: int, ours: str, size: int) -> list[Suspect]:
    """Listed repositories: most too small, some of a size to be looked into, one of which is ours by its digest."""
    now = datetime.now(UTC)
    found = []
    for n in range(number):
        digest = hashlib.sha256(str(n).encode()).hexdigest()
        large = n % 100 == 0
        body = {"digests": [{"path": "model.safetensors", "size": 900, "sha256": digest}]}
        if n == number // 2 + 1:
            body, large = {"digests": [{"path": "x.bin", "size": size, "sha256": ours}]}, True
        key = f"hf:somebody/model-{n}@{digest[:40]}"
        found.append(Suspect(key, "hub", key, key, size if large else 900, False, body, now))
    return found


def test_five_thousand_listed_candidates_are_sorted_without_a_request(bench: LeakBench, model: t.Leak):
    sealed = bench.seal(model)
    (file,) = (bench.folder / "model" / "plain").iterdir()
    ours, size = hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_size
    parts = bench.parts(None)
    listed = candidates(CANDIDATES, ours, size)
    begun = time.process_time()
    with database.writing(bench.engine) as session:
        assert suspects.keep(session, listed, datetime.now(UTC)) == CANDIDATES
    with database.writing(bench.engine) as session:
        assert suspects.keep(session, listed, datetime.now(UTC)) == 0, "known by their keys"
    watched = {sealed.artifact_id: datetime.now(UTC) - timedelta(days=1)}
    exact = ruled_out = 0
    wanted: set[str] = set()
    for _ in range(20):
        done = parts.judging.sort(watched, 1_000, Beat())
        exact, ruled_out = exact + done.exact, ruled_out + done.ruled_out
        wanted |= set(done.scan)
        if not done.left:
            break
    spent = time.process_time() - begun
    large = CANDIDATES // 100
    assert exact == 1
    assert len(wanted) == large
    assert ruled_out == CANDIDATES - large - 1
    assert spent < 60, f"{spent:.1f} s of CPU for {CANDIDATES} candidates: a day has more"
    with database.reading(bench.engine) as session:
        found = suspects.counts(session)
    assert (found["match"], found["ruled_out"]) == (1, ruled_out)
