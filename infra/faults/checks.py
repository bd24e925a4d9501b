"""What must hold after a release, whatever happened on its way; each check is counted, each violation told in words.

Read from the records, the audit log and the store themselves, not through the API that was disturbed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from activities.custody.errors import CustodyWaits
from artifacts.manifest import file_prefix
from artifacts.verifying import verify_artifact
from infra.demo_story import STEPS
from infra.demo_telling import Model
from infra.faults.counting import Checks
from infra.faults.model import Heard, check_model
from infra.parts import StoreOpener, records_engine
from infra.provision import read_custody_public
from infra.settings import Settings
from orchestrator.domain.errors import SluiceError
from orchestrator.domain.events import AnyEvent, ControlReported, EntryBegan, EvidenceSubmitted, StepEntered
from orchestrator.domain.evolve import fold
from orchestrator.domain.state import ReleaseState
from orchestrator.records import audit, database, envelopes, releases
from orchestrator.trust.audit import verify_export

#: What the story binds and reports: steps with a gate of evidence, and evaluations for three of them; one report per control.
_DOCUMENTS = 11
_CONTROLS = 9
_PUBLIC_RECORDS = 2
_LEAST_UNWRAPS = 4  # hosted, api, downloadable, open


def check_release(
    settings: Settings,
    release: str,
    folder: Path,
    model: Model,
    *,
    arrived: Heard,
    completed: bool = True,
    slack: float = 0.0,
) -> Checks:
    """Everything that must hold of a release that nobody works on any more.

    Args:
        settings: of the stack, with its ports and places as they were found.
        release: its id.
        folder: the story's folder; the stack's data folder lies in it.
        model: the model that was released.
        arrived: the commands that reached the release.
        completed: the story came to its end; without it, what is true of a finished release alone is not asked.
        slack: seconds that the clock of a process was off at most; times are compared with that much tolerance, orders with none.
    """
    checks = Checks()
    try:
        digests = _records_and_log(
            settings, release, arrived, checks, completed=completed, slack=timedelta(seconds=slack)
        )
    except (SluiceError, ValueError) as error:  # records that are broken say so in words
        checks.that(False, f"the records cannot be read as they should: {type(error).__name__}: {error}")
        return checks
    if completed:
        _stored_once(settings, release, digests, checks)
        _nothing_in_clear(folder, model, checks)
    return checks


def check_acknowledged(keys: Mapping[str, list[str]], arrived: Heard, checks: Checks) -> None:
    """Every command with events that a caller got an answer for has reached the release, with those events.

    Args:
        keys: idempotency key → the events of the answer.
        arrived: what reached it.
        checks: where each check is counted.
    """
    told = {command_id.partition(":")[2]: outcome.events for command_id, outcome in arrived.outcomes.items()}
    for key, events in keys.items():
        checks.equal(told.get(key), events, f"the command with the key {key}, and its answer")


def _records_and_log(
    settings: Settings, release: str, arrived: Heard, checks: Checks, *, completed: bool, slack: timedelta
) -> Mapping[str, str]:
    public = read_custody_public(settings.effective_custody_public_file)
    kinds: Counter[str] = Counter()

    def count(_index: int, entry: dict[str, Any]) -> None:
        code = entry.get("code", "") if entry.get("action") == "refused" else ""
        kinds[f"{entry['kind']}:{entry.get('action', '')}{code and ':'}{code}"] += 1

    engine = records_engine(settings)
    try:
        with database.reading(engine) as session:
            history = releases.check_events(session, release)
            state = releases.load(session, release)
            size = verify_export(
                audit.export(session, public.log_verifier.name), public.log_verifier, on_entry=count
            ).size
            checks.that(size >= len(history), "the verified log is shorter than the release's history")
            _no_key_before_its_gate(session, settings, release, history, state, checks, slack)
    finally:
        engine.dispose()
    checks.equal(state, fold(history), "the records' state and the fold of the events by the domain")
    checks.equal(state.seq, len(history), "the number of events")
    # waiting for a clock that was set back is what custody has to do; refusing an honest release is not
    refused = {kind: times for kind, times in kinds.items() if kind.startswith("custody:refused")}
    refused.pop(f"custody:refused:{CustodyWaits.code}", None)
    checks.equal(refused, {}, "refusals of custody")
    check_model(arrived, history, state, checks)
    holders = Counter((grant.step, grant.holder) for grant in state.grants.values())
    doubled = [holder for holder, times in holders.items() if times > 1]
    checks.equal(doubled, [], "holders with two grants of a step")
    _documents_once(history, checks, completed=completed)
    if completed:
        entered = [event.step for event in history if isinstance(event, StepEntered)]
        checks.equal(entered, list(STEPS), "the steps that were entered")
        checks.equal((state.status, state.current), ("completed", STEPS[-1]), "the end of the release")
        checks.that(kinds["custody:unwrap"] >= _LEAST_UNWRAPS, "an unwrap is not in the log")
        live = [grant.holder for grant in state.grants.values() if grant.live]
        checks.equal(live, ["public"], "the grants that are live at the end")
    return {artifact.id: artifact.manifest_digest for artifact in state.artifacts.values()}


def _documents_once(history: list[AnyEvent], checks: Checks, *, completed: bool) -> None:
    """A document or report that was delivered twice is in the history once."""
    documents = Counter(
        (event.evidence.step, event.evidence.kind)
        for event in history
        if isinstance(event, EvidenceSubmitted)
    )
    reports = Counter(
        (event.step, event.control)
        for event in history
        if isinstance(event, ControlReported) and not event.probe
    )
    for what, found, expected in (("documents", documents, _DOCUMENTS), ("controls", reports, _CONTROLS)):
        checks.equal([name for name, times in found.items() if times > 1], [], f"{what} that are there twice")
        if completed:
            checks.equal(len(found), expected, f"the number of {what}")


def _no_key_before_its_gate(
    session: Session,
    settings: Settings,
    release: str,
    history: list[AnyEvent],
    state: ReleaseState,
    checks: Checks,
    slack: timedelta,
) -> None:
    """Unwraps, envelopes and public records come after the entry that they are for began: by the log's order, and by the clock."""
    began = {f"{e.step}.{e.attempt}": e.at for e in history if isinstance(e, EntryBegan)}
    seen: set[str] = set()
    for leaf in audit.leaves(session, release=release):
        entry = json.loads(leaf.body)
        event = entry.get("event", {})
        if event.get("type") == "entry_began":
            seen.add(f"{event['step']}.{event['attempt']}")
        elif entry["kind"] == "custody" and entry["action"] == "unwrap":
            what = f"{entry['step']}.{entry['attempt']}"
            checks.that(what in seen, f"custody unwrapped for {what} at entry {leaf.index}, before it began")
            checks.that(
                what in began and leaf.at + slack >= began[what], f"custody unwrapped for {what} too early"
            )
            given = entry.get("shares", {})
            checks.that(
                set(given) == set(entry["manifests"]) and all(len(people) >= 2 for people in given.values()),
                f"custody unwrapped for {what} without two people's key shares",
            )
    kept = envelopes.of_release(session, release)
    for envelope in kept:
        entry_at = next((at for name, at in began.items() if envelope.grant.startswith(f"{name}.")), None)
        in_time = entry_at is not None and envelope.created_at + slack >= entry_at
        checks.that(
            in_time, f"the envelope of {envelope.grant} was made before the entry into its step began"
        )
        grant = state.grants.get(envelope.grant)
        stands = grant is not None and grant.live
        if state.entry is None or not envelope.grant.startswith(f"{state.entry.step}.{state.entry.attempt}."):
            checks.equal(
                envelope.dropped_at is None, stands, f"whether the envelope of {envelope.grant} stands"
            )
    for grant_id, times in Counter(e.grant for e in kept).items():
        artifacts = (
            len(state.grants[grant_id].envelopes) if grant_id in state.grants else len(state.artifacts)
        )
        checks.that(times <= artifacts, f"{times} envelopes of {grant_id} for {artifacts} artifacts")
    store = settings.effective_store_uri
    folder = Path(store.removeprefix("dir:")) / "public" / release
    opened = next((at for name, at in began.items() if name.startswith(f"{STEPS[-1]}.")), None)
    for record in folder.rglob("*.json") if store.startswith("dir:") else ():
        in_time = opened is not None and record.stat().st_mtime >= opened.timestamp()
        checks.that(in_time, f"the public record {record.name} is older than the entry into {STEPS[-1]}")


def _stored_once(settings: Settings, release: str, digests: Mapping[str, str], checks: Checks) -> None:
    """The store has exactly the release's artifacts, whole; one publication per step; one public record per artifact."""
    with StoreOpener(settings)(settings.effective_store_uri) as store:
        keys = [info.key for info in store.list()]
        checks.equal(len(keys), len(set(keys)), "keys in the store")
        artifacts = {key.split("/")[1] for key in keys if key.startswith("artifacts/")}
        checks.equal(artifacts, set(digests), "the artifacts in the store")
        for artifact in sorted(artifacts & set(digests)):
            expected = digests[artifact].removeprefix("sha256:")
            whole = verify_artifact(store, artifact, expected_digest=expected).ok
            checks.that(whole, f"the artifact {artifact} in the store is not what was sealed")
            checks.that(
                any(key.startswith(file_prefix(artifact)) for key in keys), f"{artifact} has no files"
            )
        published = sorted(key for key in keys if key.startswith(f"publications/{release}/"))
        checks.equal([Path(key).name.split(".")[0] for key in published], sorted(STEPS), "publications")
        for key in published:
            info = store.stat(key)
            body = json.loads(store.get_range(key, 0, info.size)) if info else {}
            checks.equal(body.get("release"), release, f"whose publication {key} is")
        records = [key for key in keys if key.startswith(f"public/{release}/")]
        checks.equal(len(records), _PUBLIC_RECORDS, "public key records")


def _nothing_in_clear(folder: Path, model: Model, checks: Checks) -> None:
    """Plaintext of the weights lies where the owner put it, and where somebody who was let in opened it; nowhere else."""
    sample = model.weights.read_bytes()[200_000:200_064]
    found = {path.relative_to(folder).parts[0] for path in folder.rglob("*") if sample in _bytes_of(path)}
    checks.equal(found - {"model"}, {"partner", "public"}, "where plaintext of the weights lies")


def _bytes_of(path: Path) -> bytes:
    """Of a file; nothing of what is none, or has gone since it was listed."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:
        return b""
