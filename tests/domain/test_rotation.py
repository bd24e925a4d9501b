"""Rotations of keys and marks, as pure decisions."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import ValidationError

from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.decide import apply, decide, decide_create
from orchestrator.domain.errors import Conflict, Malformed, NotFound, NotPermitted
from orchestrator.domain.events import EVENT
from orchestrator.domain.evolve import begin, evolve
from orchestrator.domain.permissions import Role
from orchestrator.domain.plan import Plan
from orchestrator.domain.plan_rules import broken_rules
from orchestrator.domain.state import ReleaseState
from tests.support.plans import MANAGER, PIPELINE, T0, actor, five_stage_plan, five_stages

LATER = T0 + timedelta(hours=1)
SAM = actor("sam", Role.APPROVER)


def state() -> ReleaseState:
    create = cmd.CreateRelease(
        command_id="c", actor=MANAGER, release="r", name="M", version="1", plan=five_stage_plan()
    )
    first = decide_create(create, T0)[0]
    assert isinstance(first, ev.ReleaseCreated)
    made = begin(first)
    register = cmd.RegisterArtifact(
        command_id="a",
        actor=PIPELINE,
        artifact="a1",
        manifest_digest="sha256:" + "0" * 64,
        components=["weights", "tokenizer"],
        location="dir:x",
    )
    return apply(made, decide(made, register, T0))


def rotate(command_id: str = "rot", **changes: object) -> cmd.RotateKeys:
    fields = {"components": ["weights"], "reason": "lost", **changes}
    return cmd.RotateKeys.model_validate({"command_id": command_id, "actor": SAM, **fields})


def rotated() -> tuple[ReleaseState, str]:
    before = state()
    events = decide(before, rotate(), LATER)
    asked = events[0]
    assert isinstance(asked, ev.KeysRotationAsked)
    assert asked.rotation is not None
    return apply(before, events), asked.rotation


def completed(rotation: str, **changes: object) -> cmd.CompleteResealing:
    fields = {
        "rotation": rotation,
        "artifact": "a1",
        "new": "a2",
        "manifest_digest": "sha256:" + "1" * 64,
        "location": "dir:x",
        **changes,
    }
    return cmd.CompleteResealing.model_validate({"command_id": "done", "actor": cmd.SERVICE, **fields})


def test_one_rotation_at_a_time_seals_an_artifact_anew() -> None:
    going, rotation = rotated()
    assert going.rotations[rotation].artifacts == ["a1"]
    assert decide(going, rotate("again", components=["tokenizer"]), LATER) == []
    after = apply(going, decide(going, completed(rotation), LATER))
    assert decide(after, completed(rotation), LATER) == [], "told twice, it is once"
    end = cmd.EndRotation(command_id="e", actor=cmd.SERVICE, rotation=rotation)
    ended = apply(after, decide(after, end, LATER))
    assert (ended.carried_by["weights"], ended.carried_by["tokenizer"]) == ("a2", "a2")
    assert ended.superseded["a1"].fate == "kept"
    assert not ended.pending_rotations
    assert decide(ended, rotate("third"), LATER), "and can be rotated again"


def test_what_is_no_part_of_it_is_refused() -> None:
    going, rotation = rotated()
    with pytest.raises(NotFound):
        decide(going, completed("rotation-x"), LATER)
    with pytest.raises(Conflict, match="does not seal"):
        decide(going, completed(rotation, artifact="a9"), LATER)
    with pytest.raises(NotPermitted):
        decide(going, completed(rotation).model_copy(update={"actor": SAM}), LATER)
    with pytest.raises(NotPermitted):
        decide(going, rotate().model_copy(update={"actor": PIPELINE}), LATER)
    with pytest.raises(Malformed):
        decide(going, rotate("x", components=["nothing"]), LATER)
    with pytest.raises(NotFound):
        decide(going, cmd.NoteDeletion(command_id="n", actor=cmd.SERVICE, artifact="a1"), LATER)


def test_the_old_artifact_does_not_come_back() -> None:
    going, rotation = rotated()
    after = apply(going, decide(going, completed(rotation), LATER))
    again = cmd.RegisterArtifact(
        command_id="again",
        actor=PIPELINE,
        artifact="a1",
        manifest_digest="sha256:" + "0" * 64,
        components=["weights"],
        location="dir:x",
    )
    with pytest.raises(Conflict, match="was sealed anew as a2"):
        decide(after, again, LATER)


def test_an_old_event_that_asked_for_new_keys_still_loads_and_changes_nothing() -> None:
    raw = {"type": "keys_rotation_asked", "at": LATER.isoformat(), "by": "sam", "command_id": "x"}
    event = EVENT.validate_python({**raw, "components": ["weights"], "incident": "leak-1"})
    before = state()
    assert evolve(before, event).rotations == {}


def test_marks_are_for_weights_and_leave_other_plans_digests_alone() -> None:
    assert "mark" not in five_stage_plan().model_dump_json()
    raw = five_stages()
    raw["components"]["tokenizer"]["mark"] = {}
    [reason] = broken_rules(Plan.model_validate(raw))
    assert (reason.code, reason.path) == ("rule-0", "components.tokenizer.mark")
    for strength in (0, 0.02, -1):
        raw = five_stages()
        raw["components"]["weights"]["mark"] = {"strength": strength}
        with pytest.raises(ValidationError):
            Plan.model_validate(raw)


def test_who_gets_a_marked_copy() -> None:
    raw = five_stages()
    raw["components"]["weights"]["mark"] = {"strength": 0.004}
    plan = Plan.model_validate(raw)
    both = ["weights", "tokenizer"]
    download, opened, query = plan.steps[3], plan.steps[4], plan.steps[2]
    assert set(plan.marks(download, "partner", both)) == {"weights"}
    assert plan.marks(download, "public", both)["weights"].strength == 0.004
    assert plan.marks(download, "partner", ["tokenizer"]) == {}
    assert plan.marks(opened, "public", both) == {}, "never at open"
    assert plan.marks(query, "deployment", both) == {}, "never our own deployments"
