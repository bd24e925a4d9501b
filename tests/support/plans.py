"""A small plan that walks all five stages, and people to sign for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from orchestrator.domain.commands import Actor
from orchestrator.domain.evidence import Consideration
from orchestrator.domain.permissions import Role, permissions_of
from orchestrator.domain.plan import Plan

T0 = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
RECIPIENT = "sha256:" + "d" * 64
RATINGS = dict.fromkeys(Consideration, "low")
SERVING = [
    {"kind": "rate_limit", "parameters": {"capacity": 60, "refill_per_second": 1}},
    {"kind": "user_accounts"},
    {"kind": "input_monitoring"},
]
LICENSE = [{"kind": "license", "parameters": {"name": "OpenRAIL-M"}}]
EVIDENCE = [{"kind": "model_card"}, {"kind": "risk_assessment"}]
TWO = [{"role": "safety"}, {"role": "legal"}]
OUTSIDE = [*TWO, {"role": "reviewer", "external": True}]


def five_stages(**changes: Any) -> dict[str, Any]:
    """The plan as people write it; `changes` replace top-level fields."""
    plan: dict[str, Any] = {
        "format": "sluice.plan/v1",
        "title": "Five stages",
        "organisation": "Example Lab",
        "components": {
            "weights": {"category": "model", "kind": "weights", "documentation": "model card"},
            "tokenizer": {"category": "model", "kind": "tokenizer", "documentation": "model card"},
        },
        "people": {
            "mia": {"name": "Mia", "roles": ["manager"]},
            "sam": {"name": "Sam", "roles": ["safety"]},
            "sue": {"name": "Sue", "roles": ["safety", "legal"]},
            "lea": {"name": "Lea", "roles": ["legal"]},
            "dan": {"name": "Dan", "roles": ["standin"]},
            "rex": {"name": "Rex", "roles": ["reviewer"], "external": True},
        },
        "partners": {"uni": {"name": "University", "recipient": RECIPIENT}, "ngo": {"name": "NGO"}},
        "partner_groups": {"research": {"partners": ["uni", "ngo"]}},
        "partner_keys": "registered",
        "deployments": {"platform": {"recipient": "sha256:" + "e" * 64}},
        "steps": [
            {
                "name": "inside",
                "stage": "closed",
                "components": ["weights", "tokenizer"],
                "audience": "internal",
            },
            {
                "name": "demo",
                "stage": "hosted",
                "components": ["weights", "tokenizer"],
                "audience": {"partners": ["research"]},
                "deployments": ["platform"],
                "controls": SERVING,
                "gate": {"sign_offs": [{"role": "safety"}], "evidence": EVIDENCE},
            },
            {
                "name": "query",
                "stage": "api",
                "components": ["weights", "tokenizer"],
                "audience": "public",
                "deployments": ["platform"],
                "controls": SERVING,
                "gate": {"sign_offs": TWO, "evidence": EVIDENCE, "research_window": "30d"},
            },
            {
                "name": "download",
                "stage": "downloadable",
                "components": ["weights", "tokenizer"],
                "audience": {"partners": ["research"]},
                "controls": LICENSE,
                "grant_validity": "200d",
                "gate": {
                    "sign_offs": OUTSIDE,
                    "evidence": EVIDENCE,
                    "research_window": "90d",
                    "cooling_off": "7d",
                },
            },
            {
                "name": "open",
                "stage": "open",
                "components": ["weights", "tokenizer"],
                "audience": "public",
                "controls": LICENSE,
                "gate": {
                    "sign_offs": TWO,
                    "evidence": EVIDENCE,
                    "research_window": "60d",
                    "cooling_off": "7d",
                },
            },
        ],
    }
    return {**plan, **changes}


def five_stage_plan(**changes: Any) -> Plan:
    return Plan.model_validate(five_stages(**changes))


def actor(name: str, *roles: Role) -> Actor:
    return Actor(id=name, permissions=permissions_of(list(roles) or [Role.APPROVER]))


MANAGER = actor("mia", Role.RELEASE_MANAGER)
PIPELINE = Actor(id="ci", kind="machine", permissions=permissions_of([Role.MLOPS]))
