"""The demo's story: one release from closed to open, told through the API, every claim checked on bytes and answers.

The same story, with windows of a second and a small model, is the end-to-end test of the whole stack (`tests/stack`).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

import httpx

from artifacts.custody.shares import Dealing
from artifacts.envelope import open_public_record
from artifacts.fetching import fetch_artifact
from artifacts.keys import KeyPair, partner_keygen
from artifacts.progress import ProgressCallback
from artifacts.sealing import seal_tree
from artifacts.signing import SigningKey
from infra.demo_cast import Cast, Pace, Voice, demo_plan, until_answered, wait_for
from infra.demo_leak import make_copy, serving
from infra.parts import StoreOpener
from infra.provision import read_custody_public, read_monitor_public, write_private
from infra.settings import Settings
from orchestrator.cli.client import JSON
from orchestrator.cli.failures import Refused
from orchestrator.cli.leak_cases import read_verdict, verdict_of

STEPS = ("closed", "hosted", "api", "downloadable", "open")
TERMS = "Research terms 2026-1"
_CONTROLS = {
    "hosted": ("rate_limit", "user_accounts", "input_monitoring"),
    "api": ("rate_limit", "user_accounts", "input_monitoring"),
    "downloadable": ("license", "partner_terms"),
    "open": ("license",),
}
_SIGNERS = {
    "closed": {"dev": "research"},
    "hosted": {"ada": "safety", "ben": "policy"},
    "api": {"ada": "safety", "ben": "policy"},
    "downloadable": {"ada": "safety", "chloe": "legal", "elif": "external-review"},
    "open": {"ada": "safety", "ben": "policy", "chloe": "legal", "elif": "external-review"},
}

#: Who holds a key share, where the story is told with shares.
HOLDERS = ("ada", "ben", "chloe")

#: Settings of the leak monitor for a story of minutes; the leaker's server is on this machine.
WATCHING: dict[str, Any] = {
    "leak_allow_addresses": ("127.0.0.1",),
    "leak_sweep_seconds": 2.0,
    "leak_poll_seconds": 0.5,
}


class StoryError(AssertionError):
    """Something that the demo claims did not happen."""


class Stage(Protocol):
    """Shows the story while it happens."""

    def chapter(self, words: str) -> None:
        """A new part begins."""
        ...

    def say(self, words: str) -> None:
        """One thing that happened."""
        ...

    def bar(self, words: str) -> AbstractContextManager[ProgressCallback | None]:
        """A bar for bytes that move."""
        ...


class Silent:
    """Shows nothing."""

    def chapter(self, words: str) -> None:
        """See `Stage`."""

    def say(self, words: str) -> None:
        """See `Stage`."""

    def bar(self, words: str) -> AbstractContextManager[ProgressCallback | None]:
        """See `Stage`."""
        return nullcontext()


@dataclass(frozen=True)
class Model:
    """The files of a model: one of weights, and small ones beside it. `small`: name → file, with their components."""

    weights: Path
    small: Mapping[str, Path]
    patterns: Mapping[str, list[str]]


@dataclass
class Story:
    """One telling. `moment(name)` is called at every turn, for tests that break something there.

    `shares`: so many of the holders' key shares are needed at every gate that hands out keys; None asks for none.
    """

    settings: Settings
    url: str
    folder: Path
    model: Model
    pace: Pace = field(default_factory=Pace)
    show: Stage = field(default_factory=Silent)
    moment: Callable[[str], None] = lambda _name: None
    release: str = "minilm-1.0"
    shares: int | None = None
    _recognised: JSON = field(init=False, default_factory=dict)
    cast: Cast = field(init=False)
    keys: dict[str, KeyPair] = field(init=False)
    _dealing: Dealing | None = field(init=False, default=None)

    def tell(self) -> JSON:
        """Everything, in order; the summary.

        Raises:
            StoryError: something of it did not really happen.
        """
        token_file = self.settings.effective_operator_token_file
        assert token_file is not None
        token = token_file.read_text(encoding="utf-8").strip()
        self.cast = Cast(self.url, token, self.folder)
        try:
            self._gather()
            artifacts = self._seal()
            self._create(artifacts)
            for step in STEPS:
                if step == "downloadable":
                    self._leak()
                    self._nothing_for_the_partner_yet()
                self._enter(step)
                if step == "downloadable":
                    partner = self._partner_fetches()
            public = self._public_opens(artifacts)
            return self._summary(partner, public)
        finally:
            self.cast.close()

    # --- the cast

    def _gather(self) -> None:
        self.show.chapter(
            "People and machines, each with a token of their own; those who decide with a key of their own"
        )
        cast = self.cast
        cast.join("rosa", "Rosa Keller", ["release_manager"])
        cast.join("pipeline", "Training pipeline", ["mlops"], kind="machine")
        for name, title in (
            ("ada", "Ada Lindqvist"),
            ("ben", "Ben Okoro"),
            ("chloe", "Chloé Martin"),
            ("dev", "Dev Raman"),
            ("elif", "Elif Aydin"),
        ):
            cast.join(name, title, ["approver"], signs=True)
        self.keys = {name: partner_keygen() for name in ("uni", "playground", "query-api")}
        if self.shares is not None:
            self._dealing = Dealing(self.shares, {name: self._share_key(name) for name in HOLDERS})
        rosa = cast["rosa"]
        rosa.post("partners", body={"id": "uni", "name": "Northern University"})
        rosa.post("partners", "uni", "keys", body={"recipient": self.keys["uni"].recipient})
        cast.join("uni-account", "Northern University", ["partner"], kind="partner", partner="uni")
        cast["uni-account"].post("partners", "uni", "terms", body={"terms": TERMS})
        self.show.say(
            "1 release manager, 1 pipeline, 5 approvers (1 from outside), 1 partner that accepted the terms"
        )

    def _share_key(self, name: str) -> str:
        """A key for somebody's key shares, on a machine of their own; its public half."""
        pair = partner_keygen()
        file = self.folder / "people" / name / "share.key"
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(file, pair.identity.encode() + b"\n")
        self.cast[name].share_key = file
        return pair.recipient

    # --- sealing

    def _seal(self) -> dict[str, str]:
        """Seal the weights as a pipeline does, the rest as a transfer worker does; component → artifact."""
        self.show.chapter("Register components, seal them, store them")
        pipeline = self.cast["pipeline"]
        self.moment("sealing")
        weights = self._seal_weights(pipeline)
        self.show.say(f"weights sealed where they are, without a secret of the service: {weights}")
        rest = self._ingest(pipeline)
        self.show.say(f"tokenizer, config and model card sealed by a transfer worker: {rest}")
        return {"weights": weights, **dict.fromkeys(self.model.patterns, rest)}

    def _seal_weights(self, pipeline: Voice) -> str:
        custody = read_custody_public(self.settings.effective_custody_public_file)
        monitor = read_monitor_public(self.settings.effective_monitor_public_file)
        store_uri = self.settings.effective_store_uri
        with self.show.bar("sealing the weights") as progress, StoreOpener(self.settings)(store_uri) as store:
            sealed = seal_tree(
                self.model.weights,
                store,
                custody_recipient=custody.recipient,
                signer=SigningKey.generate(),
                components={"weights": "*"},
                release=self.release,
                progress=progress,
                state_dir=self.folder / "pipeline" / "sealing",
                monitor=None if monitor is None else monitor.recipient,
                shares=self._dealing,
            )
        if self._dealing is not None:
            told = f"{self._dealing.threshold} of {', '.join(sorted(self._dealing.holders))}"
            self.show.say(f"its key needs custody and the key shares of {told}")
        if sealed.signature is None:
            raise StoryError("sealing made no weight signature: there is no leak monitor")
        where = f"artifacts/{sealed.artifact_id}/files/{self.model.weights.name}"
        with StoreOpener(self.settings)(store_uri) as store, self.model.weights.open("rb") as plain:
            lying = store.stat(where)
            assert lying is not None
            if plain.read(4096) in store.get_range(where, 0, min(lying.size, 1 << 20)):
                raise StoryError("the sealed file holds plaintext")
        body = {
            "manifest": base64.b64encode(sealed.manifest).decode(),
            "digest": f"sha256:{sealed.manifest_digest}",
            "location": sealed.store_uri,
            "wrapped_root": sealed.wrapped_root,
            "signature": base64.b64encode(sealed.signature).decode(),
        }
        self.show.say(
            f"a weight signature of {len(sealed.signature) / 1e6:.2f} MB, sealed to the leak monitor"
        )
        return str(pipeline.post("artifacts", body=body)["id"])

    def _ingest(self, pipeline: Voice) -> str:
        ingest_dir = self.settings.effective_ingest_dir
        assert ingest_dir is not None
        folder = ingest_dir / "model"
        for name, file in self.model.small.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        body: JSON = {"source": "model", "store": "default", "components": dict(self.model.patterns)}
        if self._dealing is not None:
            body["shares"] = {"threshold": self._dealing.threshold, "holders": dict(self._dealing.holders)}
        started = pipeline.post("ingests", body=body)
        again = pipeline.post("ingests", body=body)
        if started["id"] != again["id"]:
            raise StoryError("the same ingest started twice is two")

        def done() -> JSON | None:
            found = pipeline.get("ingests", started["id"])
            if found["status"] == "failed":
                raise StoryError("the ingest failed")
            return found if found["status"] == "done" else None

        return str(wait_for("the ingest", done)["artifact"])

    # --- the release

    def _create(self, artifacts: Mapping[str, str]) -> None:
        self.show.chapter("The plan: five steps, everybody's keys pinned")
        rosa, pipeline = self.cast["rosa"], self.cast["pipeline"]
        recipients = {name: pair.recipient for name, pair in self.keys.items()}
        plan = demo_plan(self.cast, recipients, self.pace)
        if self.shares is not None:
            for step in plan["steps"][1:]:
                step["gate"]["shares"] = self.shares
        body = {"id": self.release, "name": "all-MiniLM-L6-v2", "version": "1.0", "plan": plan}
        rosa.post("releases", body=body)
        for artifact in sorted(set(artifacts.values())):
            pipeline.post("releases", self.release, "artifacts", body={"artifact": artifact})
        self.moment("created")

    def state(self) -> JSON:
        """The release as the API shows it."""
        return self.cast["rosa"].get("releases", self.release)

    def events(self) -> list[JSON]:
        """All its events."""
        found: list[JSON] = []
        while True:
            page = self.cast["rosa"].get(
                "releases", self.release, "events", after=found[-1]["seq"] if found else 0, limit=200
            )
            found += page["items"]
            if page["next_after"] is None:
                return found

    def _enter(self, step: str) -> None:
        """Everything that the gate asks for; then it opens by itself."""
        self.show.chapter(f"The gate into `{step}`")
        dev, rosa = self.cast["dev"], self.cast["rosa"]
        if step != "closed":
            card = self.model.small["README.md"].read_bytes()
            rosa.upload(self.release, "model_card", "Model card", card, step=step)
            dev.assess(self.release, step)
            if step != "hosted":
                rosa.upload(
                    self.release,
                    "evaluation_result",
                    f"Evaluation for {step}",
                    f"# Evaluation before {step}\n\nRetrieval and similarity as published.\n".encode(),
                    step=step,
                )
            for control in _CONTROLS[step]:
                dev.attest(self.release, step, control)
        self.moment(f"evidence-{step}")
        for person, role in _SIGNERS[step].items():
            self.cast[person].sign_off(self.release, step, role)
            self.show.say(f"{person} signs as {role}")
        self.moment(f"signed-{step}")

        def entered() -> JSON | None:
            state = self.state()
            if state.get("entry_failed"):
                self._taken_back(step, state["entry_failed"])
            return state if any(line["step"] == step for line in state["history"]) else None

        wait_for(f"`{step}` to be entered", entered)
        self.moment(f"entered-{step}")

    def _taken_back(self, step: str, why: str) -> None:
        """What people do about an entry that failed."""
        raise StoryError(f"the entry of `{step}` was taken back: {why}")

    # --- a leak report in the middle

    def _leak(self) -> None:
        self.show.chapter("A stranger reports a file; a sweep recognises our weights, and everything stands")
        cast = self.cast
        copy = make_copy(self.model.weights, self.folder / "leaker")
        with serving(copy) as address:
            self._reported(address)
            self.moment("reported")
            incident = wait_for("the sweep to recognise the copy", self._monitors_incident)
        self._verdict_holds(incident, address)
        name = incident["id"]
        held = self.state()
        if not held["holds"] or held["window_stands_because"] is None:
            raise StoryError("the leak report did not hold the release")
        self._the_window_stands()
        self.moment("held")
        triage = {
            "severity": "severe",
            "confidence": "confirmed",
            "note": "It is ours: a renamed copy in half precision, on a test server of our own.",
        }
        cast["ada"].post("releases", self.release, "incidents", name, "triage", body=triage)
        outcome = "A test server of our own showed it for a minute; it is gone, and its log shows no reader but our monitor."
        for person, role in (("ada", "safety"), ("elif", "external-review")):
            if self._open_incidents():
                payload = {"incident": name, "outcome": outcome}
                envelope = cast[person].endorse(self.release, "close_incident", payload, role)
                closing = {"outcome": outcome, "envelope": envelope}
                cast[person].post("releases", self.release, "incidents", name, "close", body=closing)
        if self._open_incidents():
            raise StoryError("the quorum did not close the incident")
        if not self.state()["holds"]:
            raise StoryError("closing the incident lifted the hold by itself")
        holds = sorted(hold["id"] for hold in held["holds"])
        for person, role in (("ada", "safety"), ("ben", "policy")):
            envelope = cast[person].endorse(self.release, "resume", {"holds": holds}, role)
            body = {"reason": "contained", "envelope": envelope}
            cast[person].post("releases", self.release, "resume", body=body)
        if self.state()["holds"]:
            raise StoryError("the quorum did not lift the hold")
        self.show.say("held at once, triaged, closed and resumed by two")
        self.moment("resumed")

    def _reported(self, address: str) -> None:
        """Somebody without an account names the place where they saw it."""
        answer = httpx.post(
            f"{self.url}/v1/reports",
            json={"what": "url", "value": address, "note": "This looks like your unreleased model."},
            timeout=30,
        )
        if answer.status_code != httpx.codes.ACCEPTED:
            raise StoryError(f"the report was not taken in: {answer.text[:200]}")
        self.show.say(f"reported without an account: {address}")

    def _monitors_incident(self) -> JSON | None:
        return next((i for i in self._open_incidents() if i["kind"] == "leak"), None)

    def _verdict_holds(self, incident: JSON, address: str) -> None:
        """What the monitor signed says that it is ours, and what it read."""
        if (incident["confidence"], incident["severity"]) != ("confirmed", "severe"):
            raise StoryError(f"the leak is not confirmed: {incident['confidence']}, {incident['severity']}")
        if incident["components"] != ["weights"] or address not in (incident["sighting"] or ""):
            raise StoryError("the incident does not say what was seen where")
        found = self.cast["ada"].get("leaks", "verdicts", verdict_of(incident))
        key = read_monitor_public(self.settings.effective_monitor_public_file)
        assert key is not None
        statement, verified = read_verdict(found["envelope"], found["digest"], key.verdict_key)
        verdict = statement["predicate"]["verdict"]
        finding = verdict["findings"][0]
        if not verified or finding["outcome"] != "match":
            raise StoryError("the verdict is not a signed match")
        read = verdict["read"]
        weakest = min(t["z"] for t in finding["tensors"] if t["matched"])
        self.show.say(
            f"recognised: {finding['matched']} of {finding['compared']} matrices are ours, the weakest with z {weakest:.0f}; "
            f"{read['bytes'] / 1e6:.2f} MB read of {self.model.weights.stat().st_size / 1e6:.0f} MB, in {read['requests']} requests"
        )
        self._recognised = {
            "matched": finding["matched"],
            "compared": finding["compared"],
            "bytes_read": read["bytes"],
            "verdict": found["digest"],
        }

    def _the_window_stands(self) -> None:
        """A second under hold adds nothing to the research window."""
        rosa = self.cast["rosa"]
        looks = []
        for pause in (1.0, 0.0):
            gate, _ = until_answered(lambda: rosa.client.gate(self.release, "downloadable"))
            looks.append(gate["verdict"]["window"])
            time.sleep(pause)
        if looks[0]["counted"] != looks[1]["counted"] or looks[1]["running"]:
            raise StoryError("the research window runs while the release is on hold")
        self.show.say(f"on hold; the research window stands at {looks[1]['counted']:.1f} s")

    def _open_incidents(self) -> list[JSON]:
        return [incident for incident in self.state()["incidents"] if not incident["closed_at"]]

    # --- the partner

    def _nothing_for_the_partner_yet(self) -> None:
        found = self.cast["uni-account"].get("releases", self.release, "grants")["items"]
        if any(grant["kind"] == "key" for grant in found):
            raise StoryError("the partner has a key before the gate opened")

    def _partner_fetches(self) -> JSON:
        """The partner's own machine: its token, its key, the keys that it pinned; nothing else of ours."""
        self.show.chapter("The partner fetches its copy, verifies and opens it")
        home = self.folder / "partner"
        config, copy = home / "config" / "sluice", home / "copy"
        config.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (config / "partner.key").exists():
            write_private(config / "partner.key", self.keys["uni"].identity.encode() + b"\n")
        public = read_custody_public(self.settings.effective_custody_public_file)
        (config / "custody.pub").write_text(public.envelope_key + "\n", encoding="utf-8")
        (config / "log.pub").write_text(public.log_key + "\n", encoding="utf-8")
        self.moment("fetching")
        sluice = Path(sys.executable).parent / "sluice"

        def fetch() -> None:
            command = [str(sluice), "fetch", self.release, "--to", str(copy)]
            done = subprocess.run(  # noqa: S603 - our own command
                command, env=self._partner_environment(home), stdout=subprocess.PIPE, text=True, check=False
            )
            if done.returncode != 0:
                raise Refused(503, "fetch", "the fetch did not succeed", f"exit code {done.returncode}")

        until_answered(fetch)
        originals = {self.model.weights.name: self.model.weights, **self.model.small}
        compared = {name: (sha256_of(file), sha256_of(copy / name)) for name, file in originals.items()}
        extra = {str(p.relative_to(copy)) for p in copy.rglob("*") if p.is_file()} - set(originals)
        original, opened = compared[self.model.weights.name]
        identical = not extra and all(before == after for before, after in compared.values())
        if not identical:
            raise StoryError("the partner's copy is not the original")
        self.show.say(f"{len(compared)} files, identical bit for bit; weights sha256 {opened[:16]}…")
        return {"sha256_original": original, "sha256_opened": opened, "identical": identical}

    def _partner_environment(self, home: Path) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        return own | {
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_STATE_HOME": str(home / "state"),
            "SLUICE_URL": self.url,
            "SLUICE_TOKEN": self.cast.tokens["uni-account"],
        }

    # --- the public

    def _public_opens(self, artifacts: Mapping[str, str]) -> JSON:
        """Anybody: the public key record beside the sealed files opens them, without a token."""
        self.show.chapter("Open: anybody can read the public key record and open the files")
        public = read_custody_public(self.settings.effective_custody_public_file)
        artifact = artifacts["weights"]
        with StoreOpener(self.settings)(self.settings.effective_store_uri) as store:

            def record_key() -> str | None:
                keys = [info.key for info in store.list(f"public/{self.release}/")]
                return next((key for key in keys if key.endswith(f"/{artifact}.json")), None)

            key = wait_for("the public key record", record_key)
            info = store.stat(key)
            assert info is not None
            payload = open_public_record(store.get_range(key, 0, info.size), verify_keys=[public.verify_key])
            where = f"artifacts/{artifact}/manifest.dsse.json"
            found = store.stat(where)
            assert found is not None
            manifest = store.get_range(where, 0, found.size)
            copy = self.folder / "public" / "copy"
            with self.show.bar("opening as the public") as progress:
                fetch_artifact(store, manifest, payload, copy, progress=progress)
        opened = sha256_of(copy / self.model.weights.name)
        if opened != sha256_of(self.model.weights):
            raise StoryError("what the public opens is not the original")
        self.show.say("anybody opens the sealed weights with the public record: identical")
        return {"record": key, "sha256_opened": opened}

    # --- what came of it

    def _summary(self, partner: JSON, public: JSON) -> JSON:
        state, events = self.state(), self.events()
        history = {line["step"]: line for line in state["history"]}
        steps = [
            {
                "step": name,
                "stage": history[name]["stage"],
                "entered_at": history[name]["at"],
                "signed": [{"person": s["person"], "role": s["role"]} for s in history[name]["signed"]],
                "window_asked_seconds": history[name]["window_asked"],
                "window_counted_seconds": history[name]["window_counted"],
            }
            for name in STEPS
            if name in history
        ]
        self._check(state, steps, events)
        return {
            "release": self.release,
            "status": state["status"],
            "stage": state["stage"],
            "steps": steps,
            "leak": {
                **self._recognised,
                "reported_at": _at(events, "incident_reported"),
                "triaged_at": _at(events, "incident_triaged"),
                "closed_at": _at(events, "incident_closed"),
                "resumed_at": _at(events, "holds_lifted"),
            },
            "partner": partner,
            "public": public,
            "events": len(events),
        }

    def _check(self, state: JSON, steps: list[JSON], events: list[JSON]) -> None:
        """Everything that the demo claims, from what the API says."""
        if [step["step"] for step in steps] != list(STEPS) or state["status"] != "completed":
            raise StoryError(f"the release did not reach `open`: it is {state['status']}")
        times = [datetime.fromisoformat(step["entered_at"]) for step in steps]
        if times != sorted(times):
            raise StoryError("the steps were not entered in order")
        asked = {"api": self.pace.api, "downloadable": self.pace.downloadable, "open": self.pace.open}
        for step in steps:
            name = step["step"]
            signed = {(s["person"], s["role"]) for s in step["signed"]}
            if signed != set(_SIGNERS[name].items()):
                raise StoryError(f"`{name}` was not signed by those who signed it: {sorted(signed)}")
            want = asked.get(name, 0)
            if step["window_asked_seconds"] != want or step["window_counted_seconds"] < want:
                raise StoryError(f"the research window of `{name}` was not kept")
        if [event["seq"] for event in events] != list(range(1, len(events) + 1)):
            raise StoryError("an event is missing or doubled")
        kinds = [event["type"] for event in events]
        once = {"incident_reported": 1, "incident_triaged": 1, "incident_closed": 1, "holds_lifted": 1}
        once |= {"hold_placed": 1, "step_entered": len(STEPS), "signed_off": sum(map(len, _SIGNERS.values()))}
        for kind, count in once.items():
            if kinds.count(kind) != count:
                raise StoryError(f"{kinds.count(kind)} x {kind}, expected {count}")


def _at(events: list[JSON], kind: str) -> str:
    return str(next(event["at"] for event in events if event["type"] == kind))


def sha256_of(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write the summary, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
