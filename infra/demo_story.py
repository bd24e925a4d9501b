"""The demo's story: one release from closed to open, told through the API, every claim checked on bytes and answers.

The same story, with windows of a second and a small model, is the end-to-end test of the whole stack (`tests/stack`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from infra.demo_cast import Cast, demo_plan, wait_for
from infra.demo_copies import OpensCopies
from infra.demo_report import FindsALeak
from infra.demo_sealing import SealsTheModel
from infra.demo_telling import StoryError
from orchestrator.cli.client import JSON

STEPS = ("closed", "hosted", "api", "downloadable", "open")
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


@dataclass
class Story(SealsTheModel, FindsALeak, OpensCopies):
    """The whole story: sealed, planned, entered step by step, reported and cleared on the way, opened in the end."""

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


def write_summary(path: Path, summary: Mapping[str, Any]) -> None:
    """Write the summary, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    temporary.replace(path)
