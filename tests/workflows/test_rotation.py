"""New keys, durably: beside the release, told artifact by artifact, resumed, refused, and never twice."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner

from orchestrator.contracts import names
from orchestrator.domain import commands as cmd
from orchestrator.domain.gate import verdict
from tests.support.plans import MANAGER, RECIPIENT, actor, five_stages
from tests.support.world import World
from tests.workflows.test_release_workflow import Release, workers

pytestmark = pytest.mark.stack


async def until(release: Release, kind: str, count: int = 1, seconds: float = 20) -> None:
    for _ in range(int(seconds / 0.02)):
        if [event.type for event in release.world.log[release.name]].count(kind) >= count:
            return
        await asyncio.sleep(0.02)
    kinds = [event.type for event in release.world.log[release.name]]
    raise AssertionError(f"no {kind} after {seconds} s: {kinds}")


async def at_demo(client: Client, world: World, limit: int | None = None) -> Release:
    release = await Release.create(client, world, limit=limit)
    await release.until("inside")
    await release.register()
    await release.ready("demo")
    await release.sign("demo", "sam", "safety")
    await release.until("demo")
    return release


def rotate(command_id: str = "rotate", **more: object) -> cmd.RotateKeys:
    fields = {"components": ["weights"], "reason": "a laptop was lost", **more}
    return cmd.RotateKeys.model_validate({"command_id": command_id, "actor": MANAGER, **fields})


async def test_new_keys_take_their_place_and_standing_grants_are_renewed(temporal_client: Client) -> None:
    world = World()
    world.lose[names.RESEAL_ARTIFACT] = 1  # sealed, but the answer is lost
    async with workers(temporal_client, world):
        release = await at_demo(temporal_client, world)
        await release.send(rotate(delete_old=True))
        await until(release, "sealed_deleted")
        await until(release, "envelopes_renewed")
        state = release.state
        assert state.carried_by["weights"] == "a1-anew"
        assert state.superseded["a1"].fate == "deleted"
        assert [g.envelopes for g in state.live_grants() if g.kind == "key"] == [
            {"a1-anew": "envelope/demo.2.platform/a1-anew"}
        ]
        kinds = [event.type for event in world.log[release.name]]
        assert [
            kinds.count(k) for k in ("artifact_resealed", "keys_rotation_ended", "envelopes_renewed")
        ] == [
            1,
            1,
            1,
        ]
        await release.send(cmd.Abort(command_id="abort", actor=MANAGER, reason="enough"))
        await release.handle.result()


async def test_nothing_is_renewed_on_hold_and_what_custody_refuses_is_said(temporal_client: Client) -> None:
    world = World()
    async with workers(temporal_client, world):
        release = await at_demo(temporal_client, world)
        await release.send(cmd.Hold(command_id="hold", actor=MANAGER, reason="wait"))
        await release.send(rotate())
        await until(release, "keys_rotation_ended")
        await asyncio.sleep(0.3)
        assert world.calls[names.RENEW_ENVELOPES] == 0
        world.fatal[names.RENEW_ENVELOPES] = "the log was rewritten"
        for person in ("sam", "lea"):
            await release.send(cmd.Resume(command_id=f"resume-{person}", actor=actor(person)))
        await until(release, "envelopes_renewed")
        event = next(e for e in world.log[release.name] if e.type == "envelopes_renewed")
        assert event.envelopes == {}
        assert event.refused == {"demo.2.platform": "the log was rewritten"}
        assert world.calls[names.RENEW_ENVELOPES] == 1, "said once, not tried for ever"
        await release.send(cmd.Abort(command_id="abort", actor=MANAGER, reason="enough"))
        await release.handle.result()


async def test_what_custody_will_not_seal_ends_the_rotation_and_frees_the_gate(
    temporal_client: Client,
) -> None:
    world = World(fatal={names.RESEAL_ARTIFACT: "the manifest is not the one that was signed"})
    async with workers(temporal_client, world):
        release = await at_demo(temporal_client, world)
        await release.send(rotate())
        await until(release, "keys_rotation_ended")
        state = release.state
        [rotation] = state.rotations.values()
        assert rotation.failed == "the manifest is not the one that was signed"
        assert state.carried_by["weights"] == "a1"
        step = state.plan.step("query")
        assert "rotation" not in {c.code for c in verdict(state, step, state.updated_at).unmet}
        world.fatal.clear()
        await release.send(rotate("rotate-again"))
        await until(release, "artifact_resealed")
        await release.send(cmd.Abort(command_id="abort", actor=MANAGER, reason="enough"))
        await release.handle.result()


async def test_a_release_that_continues_as_new_rotates_once(temporal_client: Client) -> None:
    world = World()
    world.fail[names.RESEAL_ARTIFACT] = 2
    async with workers(temporal_client, world):
        release = await at_demo(temporal_client, world, limit=60)
        await release.send(rotate())
        for n in range(20):
            await release.send(cmd.ReportAccess(command_id=f"a{n}", actor=MANAGER, working=bool(n % 2)))
        await until(release, "envelopes_renewed")
        kinds = [event.type for event in world.log[release.name]]
        assert kinds.count("artifact_resealed") == kinds.count("keys_rotation_ended") == 1
        assert world.calls[names.RESEAL_ARTIFACT] == 3
        await release.send(cmd.Abort(command_id="abort", actor=MANAGER, reason="enough"))
        await release.handle.result()


async def test_marked_copies_are_made_before_their_envelopes(temporal_client: Client) -> None:
    raw = five_stages()
    raw["components"]["weights"]["mark"] = {}
    raw["steps"] = [raw["steps"][0], raw["steps"][3]]
    raw["steps"][1]["gate"].pop("research_window")
    raw["steps"][1]["gate"]["cooling_off"] = "1s"
    raw["partners"]["uni"]["recipient"] = RECIPIENT
    world = World()
    world.lose[names.MAKE_COPIES] = 1
    async with workers(temporal_client, world):
        plan = {name: raw[name] for name in ("components", "steps", "partners")}
        release = await Release.create(temporal_client, world, **plan)
        await release.until("inside")
        await release.register()
        await release.ready("download")
        for person, role in (("sam", "safety"), ("lea", "legal"), ("rex", "reviewer")):
            await release.sign("download", person, role)
        await release.until("download", 30)
        grant = release.state.grants["download.2.uni"]
        assert [(copy.of, copy.artifact) for copy in grant.copies] == [("a1", "copy-uni")]
        await release.send(cmd.Abort(command_id="abort", actor=MANAGER, reason="enough"))
        await release.handle.result()


async def test_a_rotation_waits_for_the_people_behind_its_keys(
    temporal_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.rotation._ASK_AGAIN", timedelta(seconds=0.3))
    world = World(waits={names.RESEAL_ARTIFACT: [names.WAITS_FOR_LOCK, [], None, {}]})
    async with workers(temporal_client, world, workflow_runner=UnsandboxedWorkflowRunner()):
        release = await at_demo(temporal_client, world)
        await release.send(rotate())
        async with asyncio.timeout(20):
            while not world.calls[names.RESEAL_ARTIFACT]:
                await asyncio.sleep(0.02)
        assert release.state.pending_rotations, "it has not failed"
        world.waits.clear()
        await until(release, "keys_rotation_ended")
        (rotation,) = release.state.rotations.values()
        assert rotation.failed is None
        assert rotation.done
        await release.handle.terminate()
