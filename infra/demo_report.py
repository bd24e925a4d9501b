"""The leak in the middle of the demo: reported, recognised, held, triaged, closed, resumed."""

from __future__ import annotations

import time
from typing import Any

import httpx

from infra.demo_cast import until_answered, wait_for
from infra.demo_leak import make_copy, serving
from infra.demo_telling import StoryError, Telling
from infra.provision import read_monitor_public
from orchestrator.cli.client import JSON
from orchestrator.cli.leak_cases import read_verdict, verdict_of

#: Settings of the leak monitor for a story of minutes; the leaker's server is on this machine.
WATCHING: dict[str, Any] = {
    "leak_allow_addresses": ("127.0.0.1",),
    "leak_sweep_seconds": 2.0,
    "leak_poll_seconds": 0.5,
}


class FindsALeak(Telling):
    """The middle: a stranger reports a file, a sweep recognises it, and people judge."""

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
