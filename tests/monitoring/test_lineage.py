"""Public parents are taken out of the verdict; a copy's digest says whose it was; what is sealed anew is still known."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from activities.beating import Beat
from activities.leaks.issued import Issued
from artifacts.leaks import Outcome, scan_each
from orchestrator.domain import commands as cmd
from orchestrator.domain.decide import decide
from orchestrator.domain.errors import NotPermitted
from orchestrator.domain.evolve import apply_events
from orchestrator.domain.incident import Confidence, Trace
from orchestrator.domain.leaks import Sighting, report_of, surer, whose_copies
from orchestrator.records import audit, database, reports, signatures, suspects
from orchestrator.records.suspects import Suspect
from tests.domain.walker import Walker
from tests.simulators import transformations as t
from tests.support.plans import actor, five_stage_plan

from .bench import LeakBench


def descendant(parent: t.Leak) -> t.Leak:
    """A fine-tune: near its parent, and not it."""
    rng = np.random.default_rng(5)
    return t.Leak(
        {
            n: (w + 0.4 * w.std() * rng.standard_normal(w.shape)).astype(np.float32) if w.ndim == 2 else w
            for n, w in parent.weights.items()
        }
    )


def add(bench: LeakBench, name: str, place: Path) -> None:
    with database.writing(bench.engine) as session:
        signatures.add_parent(session, name, str(place), artifact="", by="sam", at=datetime.now(UTC))


def test_a_copy_of_the_public_parent_is_no_leak_and_until_it_is_signed_only_suspected(
    bench: LeakBench, model: t.Leak, tmp_path: Path
):
    ours = bench.seal(descendant(model))
    t.write(model, tmp_path / "parent")
    (copy,) = t.write(t.cast("F16")(model, np.random.default_rng(1)), tmp_path / "suspect")
    (leak,) = t.write(t.cast("F16")(descendant(model), np.random.default_rng(1)), tmp_path / "leak")
    parts = bench.parts(None)
    references = parts.judging.references

    def judged(path: Path) -> Outcome:
        (verdict,) = scan_each(path, [references.of([ours.artifact_id])[0].known])
        return verdict.outcome

    assert judged(copy) is Outcome.MATCH
    add(bench, "base", tmp_path / "parent")
    assert parts.parents.unsigned([ours.artifact_id]) == ["base"]
    (doubted,) = references.of([ours.artifact_id])
    assert doubted.missing == ("base",)
    now = datetime.now(UTC)
    watched = {ours.artifact_id: now - timedelta(days=1)}
    parts.judging.local = frozenset({"folder"})
    with database.writing(bench.engine) as session:
        for name, path in (("a", copy), ("b", copy), ("c", leak)):
            body = {"digests": []}
            suspects.keep(session, [Suspect(name, "folder", str(path), name, None, False, body, now)], now)
    assert parts.judging.scan("a", watched, Beat())[0] == {ours.artifact_id: "partial"}
    assert parts.parents.sign("base", Beat()) == [ours.artifact_id]
    assert parts.parents.unsigned([ours.artifact_id]) == []
    assert parts.judging.scan("b", watched, Beat())[0] == {ours.artifact_id: "no_match"}
    assert parts.judging.scan("c", watched, Beat())[0] == {ours.artifact_id: "match"}


def test_our_own_weights_cannot_be_passed_off_as_a_public_parent(
    bench: LeakBench, model: t.Leak, tmp_path: Path
):
    ours = bench.seal(model)
    add(bench, "innocent", tmp_path / "model" / "plain")
    parts = bench.parts(None)
    assert parts.parents.sign("innocent", Beat()) == []
    with database.reading(bench.engine) as session:
        (stored,) = signatures.parent_signatures(session)
    assert stored.sealed is None
    assert "itself" in (stored.error or "")
    (reference,) = parts.judging.references.of([ours.artifact_id])
    assert not reference.known.parents


def test_a_parent_that_cannot_be_read_says_why(bench: LeakBench, model: t.Leak, tmp_path: Path):
    bench.seal(model)
    add(bench, "gone", tmp_path / "nowhere")
    with pytest.raises(Exception, match="nowhere"):
        bench.parts(None).parents.sign("gone", Beat())
    with database.reading(bench.engine) as session:
        (stored,) = signatures.parent_signatures(session)
    assert "nowhere" in (stored.error or "")


def leaf(bench: LeakBench, **body: object) -> None:
    with database.writing(bench.engine) as session:
        audit.append(session, "custody", body, at=datetime.now(UTC), release="r-1")


def test_an_issued_copys_digest_says_whose_it_was_and_what_is_sealed_anew_is_known(
    bench: LeakBench, model: t.Leak
):
    ours = bench.seal(model)
    file = {"path": "m.safetensors", "size": 77, "sha256": "ab" * 32, "btv2_root": None, "xet_hash": None}
    leaf(bench, action="resealed", of=ours.artifact_id, copy="art-new", rotation="1")
    leaf(bench, action="copy_made", of="art-new", copy="art-uni", holder="uni", files=[file])
    parts = bench.parts(None)
    known = {r.artifact: r for r in parts.judging.references.of([ours.artifact_id, "art-new"])}
    assert set(known) == {ours.artifact_id, "art-new"}, "it has the signature of what it was made from"
    now = datetime.now(UTC)
    body = {"digests": [{"path": "x", "size": 77, "sha256": "ab" * 32}]}
    with database.writing(bench.engine) as session:
        suspects.keep(session, [Suspect("s", "hub", "hf:a/b@1", "a/b", 77, False, body, now)], now)
    done = parts.judging.sort({"art-new": now - timedelta(days=1)}, 10, Beat())
    assert done.exact == 1
    with database.reading(bench.engine) as session:
        judgement = suspects.judgements_of(session, "s")["art-new"]
    assert judgement.verdict is not None
    assert parts.telling.evidence(judgement.verdict) == (("uni",), False)
    assert Issued(bench.engine).origin("art-new") == "art-new", "nothing is known before it follows"


def test_the_partner_is_named_only_when_the_copy_is_one_partners_and_the_plan_knows_it():
    walker = Walker(five_stage_plan()).walk("demo")
    state = walker.state
    artifact = next(iter(state.artifacts))

    def reported(*copies: str) -> str | None:
        sighting = Sighting(
            candidate="k", artifact=artifact, evidence="exact", place="https://x.example/y", copies=copies
        )
        command = report_of(state, sighting)
        assert command is not None
        return command.partner

    assert reported("uni") == "uni"
    assert reported("uni", "ngo") is None
    assert reported("somebody") is None
    assert reported() is None


def test_a_later_look_confirms_what_was_suspected_and_nothing_that_people_judged():
    state = Walker(five_stage_plan()).walk("demo").state
    now = state.updated_at
    part = Sighting(candidate="k", artifact=state.carried_by["weights"], evidence="partial", place="x")
    suspected, whole = (
        report_of(state, part),
        report_of(state, part.model_copy(update={"evidence": "sketch"})),
    )
    assert suspected is not None
    assert whole is not None
    state = apply_events(state, decide(state, suspected, now))
    incident = state.incidents[suspected.incident]
    assert surer(incident, suspected) is None
    command = surer(incident, whole)
    assert command is not None
    after = apply_events(state, decide(state, command, now)).incidents[incident.id]
    assert (after.confidence, after.severity) == ("confirmed", whole.severity)
    assert surer(after, whole) is None
    false_alarm = incident.model_copy(update={"confidence": Confidence.FALSE_ALARM})
    assert surer(false_alarm, whole) is None
    assert surer(incident.model_copy(update={"closed_at": now}), whole) is None


def test_where_several_partners_copies_are_found_all_are_named_and_lose_their_grants():
    plan = five_stage_plan(responses={"moderate": ["hold"], "severe": ["hold", "revoke_grants"]})
    state = Walker(plan).walk("download").state
    now = state.updated_at
    holders = {"uni", "ngo"} & {grant.holder for grant in state.live_grants()}
    assert holders == {"uni", "ngo"}
    artifact = state.carried_by["weights"]
    seen = Sighting(
        candidate="k", artifact=artifact, evidence="exact", place="x", copies=("ngo", "uni", "nobody")
    )
    report = report_of(state, seen)
    assert report is not None
    state = apply_events(state, decide(state, report, now))
    commands = whose_copies(state, report, seen)
    for command in commands:
        state = apply_events(state, decide(state, command, now))
    incident = state.incidents[report.incident]
    assert incident.named == ["ngo", "uni"]
    assert holders <= {grant.holder for grant in state.live_grants()}, (
        "the plan does not say so of a moderate one"
    )
    judged = cmd.TriageIncident(
        command_id="worse",
        actor=actor("sam"),
        incident=incident.id,
        severity="severe",
        confidence="confirmed",
    )
    state = apply_events(state, decide(state, judged, now))
    assert not holders & {grant.holder for grant in state.live_grants()}, "not the last one's alone"
    # a trace is the service's to report, on a leak, once
    trace = Trace(component="weights", not_traced="the suspect is gone", at=now)
    noted = cmd.ReportTrace(command_id="t", actor=cmd.SERVICE, incident=incident.id, trace=trace)
    state = apply_events(state, decide(state, noted, now))
    assert state.incidents[incident.id].traces == [trace]
    assert decide(state, noted, now) == []
    with pytest.raises(NotPermitted):
        decide(state, noted.model_copy(update={"actor": actor("sam")}), now)


def test_what_people_hand_in_twice_is_one_suspect(bench: LeakBench):
    first, second = bench.report("ab" * 32, "sha256"), bench.report("AB" * 32, "sha256")
    assert first.id != second.id
    with database.reading(bench.engine) as session:
        assert len(reports.behind(session, "reports", 0, 10)) == 2
    polling = bench.parts(None).polling
    polling.prepare()
    assert polling.poll("reports", "me", Beat()).new == 1


def test_the_whole_of_a_dropped_suspect_is_compared_where_the_plaintext_lies(
    bench: LeakBench, model: t.Leak, tmp_path: Path
):
    from temporalio.exceptions import ApplicationError
    from temporalio.testing import ActivityEnvironment

    from activities.leaks.activity import LeakActivities
    from orchestrator.contracts.leak_messages import WholeRequest

    ours = bench.seal(model)
    (copy,) = t.write(t.cast("F16")(model, np.random.default_rng(1)), tmp_path / "dropped")
    now = datetime.now(UTC)
    with database.writing(bench.engine) as session:
        for key, source in (("here", "folder"), ("far", "hub")):
            found = Suspect(key, source, str(copy), key, None, False, {}, now)
            suspects.keep(session, [found], now)
    parts = bench.parts(None)
    parts.judging.local = frozenset({"folder"})
    activities = LeakActivities(parts)

    def asked(suspect: str) -> str:
        request = WholeRequest(suspect=suspect, artifact=ours.artifact_id)
        return str(ActivityEnvironment().run(activities.compare_whole, request).outcome)

    with pytest.raises(ApplicationError, match="not where this worker may read it"):
        asked("here")
    t.write(model, tmp_path / "references" / ours.artifact_id)
    with pytest.raises(ApplicationError, match="not a file here"):
        asked("far")
    assert asked("here") == "match"
    with database.reading(bench.engine) as session:
        judgement = suspects.judgements_of(session, "here")[ours.artifact_id]
    assert (judgement.tier, judgement.outcome) == (3, "match")
    assert judgement.verdict is not None


def test_our_sealed_files_elsewhere_are_known_by_their_digest_and_are_no_confirmed_leak(
    bench: LeakBench, model: t.Leak, tmp_path: Path
):
    ours = bench.seal(model)
    parts = bench.parts(None)
    assert parts.sealed.undigested([ours.artifact_id]) == [ours.artifact_id]
    assert parts.sealed.digest(ours.artifact_id, Beat()) == 1
    assert parts.sealed.undigested([ours.artifact_id]) == []
    (lying,) = (path for path in (tmp_path / "store").rglob("*.safetensors") if path.is_file())
    data = lying.read_bytes()
    now = datetime.now(UTC)
    body = {"digests": [{"path": "x", "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}]}
    with database.writing(bench.engine) as session:
        suspects.keep(session, [Suspect("s", "hub", "hf:a/b@1", "a/b", len(data), False, body, now)], now)
    assert parts.judging.sort({ours.artifact_id: now - timedelta(days=1)}, 10, Beat()).exact == 1
    with database.reading(bench.engine) as session:
        judgement = suspects.judgements_of(session, "s")[ours.artifact_id]
        suspect = suspects.get(session, "s")
    sighting = parts.telling._sighting(judgement, suspect)
    assert (sighting.evidence, sighting.copies) == ("sealed", ())
    state = Walker(five_stage_plan()).walk("demo").state
    command = report_of(state, sighting.model_copy(update={"artifact": next(iter(state.artifacts))}))
    assert command is not None
    assert (command.confidence, command.severity) == ("suspected", "low")
