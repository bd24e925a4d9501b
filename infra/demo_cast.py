"""Who takes part in the demo, each with a token and, where they decide, a key of their own; and the plan that they follow.

Everybody speaks to the API as a user would: through the client of `sluice`, with their own token. A call that got no answer
is sent again under the same idempotency key until it has one, so that a process that is killed in between doubles nothing.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from orchestrator.cli.client import JSON, Client
from orchestrator.cli.config import Config
from orchestrator.cli.decisions import plan_of, subject_of
from orchestrator.cli.failures import Refused
from orchestrator.cli.shares import OwnShares, own_shares
from orchestrator.domain.evidence import Consideration
from orchestrator.domain.values import digest
from orchestrator.trust.decisions import Action, endorsement_statement, sign_off_statement
from orchestrator.trust.keys import PrivateKey
from orchestrator.trust.signing import sign

T = TypeVar("T")
_AGAIN = frozenset({408, 429, 502, 503, 504})
#: Seconds for anything that has to happen by itself: a process may have been killed, and a crowded machine starts it slowly.
PATIENCE_S = 240.0
VALID = timedelta(days=1)


@dataclass
class Voice:
    """One caller. `key`: what they sign with, if they decide; `share_key`: the file that opens their key shares."""

    id: str
    client: Client
    key: PrivateKey | None = field(default=None, repr=False)
    share_key: Path | None = None

    def get(self, *parts: str, **params: Any) -> JSON:
        """Read."""
        return until_answered(lambda: self.client.get(*parts, **params))

    def post(
        self, *parts: str, body: JSON | None = None, if_match: str | None = None, method: str = "POST"
    ) -> JSON:
        """Send a command, once, however often it takes."""
        key = secrets.token_hex(12)
        return until_answered(
            lambda: self.client.post(*parts, body=body, if_match=if_match, key=key, method=method)
        )

    def upload(self, release: str, kind: str, title: str, data: bytes, *, step: str | None = None) -> JSON:
        """Store a document and bind it."""
        key = secrets.token_hex(12)
        form = {"kind": kind, "title": title} | ({"step": step} if step else {})
        media = "application/json" if kind == "risk_assessment" else "text/markdown"
        return until_answered(
            lambda: self.client.upload(
                "releases",
                release,
                "evidence",
                "documents",
                file=(f"{kind}.md", data, media),
                form=form,
                key=key,
            )
        )

    def assess(self, release: str, step: str) -> JSON:
        """Answer all six considerations for a step."""
        finding = {
            "finding": "Examined for the demo.",
            "rating": "low",
            "mitigation": "Staged, with controls.",
        }
        body = {
            "step": step,
            "title": f"Risk assessment for {step}",
            "considerations": {consideration.value: finding for consideration in Consideration},
        }
        return self.post("releases", release, "evidence", "assessments", body=body)

    def attest(self, release: str, step: str, control: str) -> JSON:
        """Say that a control is in force."""
        place = ("releases", release, "steps", step, "controls", control)
        return self.post(*place, body={"in_force": True, "note": "checked today"}, method="PUT")

    def sign_off(
        self, release: str, step: str, role: str, decision: Literal["approve", "reject"] = "approve"
    ) -> JSON:
        """Read the gate, sign exactly that, send it; a gate that has changed in between is read again."""
        for _ in range(8):
            gate, etag = until_answered(lambda: self.client.gate(release, step))
            plan = until_answered(lambda: plan_of(self.client, release))
            subject = subject_of(gate, plan)
            envelope = None
            held = own_shares(gate, self.id)
            opening = partial(
                OwnShares, self.client, gate, subject, self.id, self.share_key if held else None
            )
            shares = until_answered(opening)
            issued = datetime.now(UTC).replace(microsecond=0)
            if self.key is not None:
                statement = sign_off_statement(
                    subject,
                    person=self.id,
                    role=role,
                    decision=decision,
                    issued_at=issued,
                    validity=VALID,
                )
                envelope = sign(statement.to_bytes(), self.key).decode()
            body: JSON = {
                "role": role,
                "decision": decision,
                "subject": subject.digest,
                "expires_at": (issued + VALID).isoformat(),
                "envelope": envelope,
            }
            if held and self.share_key is not None:
                body["shares"] = shares.released(envelope)
            try:
                return self.post("releases", release, "steps", step, "sign-offs", body=body, if_match=etag)
            except Refused as refused:
                if refused.status != 412:
                    raise
        raise TimeoutError(f"the gate of {step} changes faster than {self.id} can sign")

    def endorse(self, release: str, action: Action, payload: JSON, role: str) -> str:
        """The signed statement that this person stands behind a proposal."""
        assert self.key is not None
        plan = until_answered(lambda: plan_of(self.client, release))
        statement = endorsement_statement(
            release=release,
            action=action,
            payload_digest=digest(payload),
            plan_digest=plan.digest,
            person=self.id,
            role=role,
            issued_at=datetime.now(UTC).replace(microsecond=0),
        )
        return sign(statement.to_bytes(), self.key).decode()


def until_answered(call: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
    """Call until there is an answer; refusals are answers, silence and `try again` are not."""
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return call()
        except Refused as refused:
            if refused.status not in _AGAIN or time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def wait_for(what: str, look: Callable[[], T | None], timeout_s: float = PATIENCE_S) -> T:
    """Look until there is something to see.

    Raises:
        TimeoutError: nothing came of it in time.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        found = look()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.15)


class Cast:
    """Everybody of the demo. The operator's token comes from the file of the first start; all others from the API.

    Args:
        url: the API's address.
        operator_token: of the first operator.
        folder: where people's own files lie (one folder each, as on machines of their own).
    """

    def __init__(self, url: str, operator_token: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.operator = Voice("operator", Client(Config(url, operator_token)))
        self.tokens: dict[str, str] = {}
        self._voices: dict[str, Voice] = {}

    def __getitem__(self, name: str) -> Voice:
        return self._voices[name]

    def join(
        self,
        name: str,
        title: str,
        roles: list[str],
        *,
        kind: str = "person",
        partner: str | None = None,
        signs: bool = False,
    ) -> Voice:
        """Let somebody in: a principal, a token, and a key if they sign."""
        body = {"id": name, "name": title, "kind": kind, "roles": roles, "partner": partner}
        self.operator.post("principals", body=body)
        token = self.operator.post("principals", name, "tokens", body={"label": "demo"})["text"]
        self.tokens[name] = token
        voice = Voice(name, Client(Config(self.url, token)), PrivateKey.generate() if signs else None)
        self._voices[name] = voice
        return voice

    def public_key(self, name: str) -> list[str]:
        """The key that the plan pins for a person."""
        key = self._voices[name].key
        return [] if key is None else [key.public.text()]

    def close(self) -> None:
        """Give back connections."""
        for voice in [self.operator, *self._voices.values()]:
            voice.client.close()


@dataclass(frozen=True)
class Pace:
    """How long windows are, in seconds."""

    api: int = 3
    downloadable: int = 4
    open: int = 4
    cooling_off: int = 2


def demo_plan(cast: Cast, recipients: dict[str, str], pace: Pace) -> JSON:
    """A five-stage plan with everybody's keys pinned.

    Args:
        cast: the people; `ada`, `ben`, `chloe`, `dev`, `elif` sign.
        recipients: `uni`, `playground` and `query-api` → age recipient.
        pace: the research windows.
    """

    def person(name: str, title: str, role: str, **more: Any) -> JSON:
        return {"name": title, "roles": [role], "keys": cast.public_key(name), **more}

    def evidence(*kinds: str) -> list[JSON]:
        return [{"kind": kind} for kind in ("model_card", "risk_assessment", *kinds)]

    served = [
        {"kind": "rate_limit", "parameters": {"capacity": 60, "refill_per_second": 1}},
        {"kind": "user_accounts"},
        {"kind": "input_monitoring"},
    ]
    licensed = {"kind": "license", "parameters": {"name": "Apache-2.0"}}
    return {
        "format": "sluice.plan/v1",
        "title": "all-MiniLM-L6-v2, from closed to open",
        "organisation": "Demo Lab",
        "components": {
            "weights": {"category": "model", "kind": "weights", "documentation": "docs/weights.md"},
            "tokenizer": {"category": "model", "kind": "tokenizer", "documentation": "docs/tokenizer.md"},
            "config": {"category": "model", "kind": "model_config", "documentation": "docs/config.md"},
            "model-card": {"category": "risk_analysis", "kind": "model_card", "documentation": "README.md"},
        },
        "people": {
            "ada": person("ada", "Ada Lindqvist", "safety"),
            "ben": person("ben", "Ben Okoro", "policy"),
            "chloe": person("chloe", "Chloé Martin", "legal"),
            "dev": person("dev", "Dev Raman", "research"),
            "elif": person(
                "elif", "Elif Aydin", "external-review", external=True, organisation="Model Audit Institute"
            ),
        },
        "partners": {"uni": {"name": "Northern University", "recipient": recipients["uni"]}},
        "partner_groups": {"researchers": {"partners": ["uni"], "terms": "Research terms 2026-1"}},
        "deployments": {
            "playground": {"recipient": recipients["playground"]},
            "query-api": {"recipient": recipients["query-api"]},
        },
        "quorums": {
            "resume": {"count": 2, "roles": ["safety", "policy"]},
            "close_incident": {"count": 2, "roles": ["safety", "policy", "external-review"]},
        },
        "responses": {"severe": ["notify", "hold"]},
        "steps": [
            {
                "name": "closed",
                "stage": "closed",
                "audience": "internal",
                "components": ["weights", "tokenizer", "config", "model-card"],
                "gate": {"sign_offs": [{"role": "research"}]},
            },
            {
                "name": "hosted",
                "stage": "hosted",
                "audience": {"partners": ["researchers"]},
                "components": ["weights", "tokenizer", "config"],
                "deployments": ["playground"],
                "gate": {"sign_offs": [{"role": "safety"}, {"role": "policy"}], "evidence": evidence()},
                "controls": served,
            },
            {
                "name": "api",
                "stage": "api",
                "audience": "public",
                "components": ["weights", "tokenizer", "config"],
                "deployments": ["query-api"],
                "gate": {
                    "sign_offs": [{"role": "safety"}, {"role": "policy"}],
                    "research_window": f"{pace.api}s",
                    "evidence": evidence("evaluation_result"),
                },
                "controls": served,
            },
            {
                "name": "downloadable",
                "stage": "downloadable",
                "audience": {"partners": ["researchers"]},
                "components": ["weights", "tokenizer", "config", "model-card"],
                "grant_validity": "30d",
                "gate": {
                    "sign_offs": [
                        {"role": "safety"},
                        {"role": "legal"},
                        {"role": "external-review", "external": True},
                    ],
                    "research_window": f"{pace.downloadable}s",
                    "cooling_off": f"{pace.cooling_off}s",
                    "evidence": evidence("evaluation_result"),
                },
                "controls": [licensed, {"kind": "partner_terms"}],
            },
            {
                "name": "open",
                "stage": "open",
                "audience": "public",
                "components": ["weights", "tokenizer", "config", "model-card"],
                "gate": {
                    "sign_offs": [
                        {"role": "safety"},
                        {"role": "policy"},
                        {"role": "legal"},
                        {"role": "external-review", "external": True},
                    ],
                    "research_window": f"{pace.open}s",
                    "cooling_off": f"{pace.cooling_off}s",
                    "evidence": evidence("evaluation_result"),
                },
                "controls": [licensed],
            },
        ],
    }
