"""Key shares as a second lock in custody: k approvers' shares and the key-encryption key, and nothing with less."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from activities.custody.base import Asked
from activities.custody.errors import CustodyRefused
from artifacts.custody.base import WrappedKey, wrapping_context
from artifacts.custody.errors import TooFewShares, WrappedKeyInvalid
from artifacts.custody.shares import (
    Dealing,
    Share,
    combine,
    deal,
    open_share,
    receive_share,
    release_share,
    unlock,
)
from artifacts.dealt import DealtShares
from artifacts.keys import CustodyHalf, RootKey, partner_identity, partner_keygen
from artifacts.manifest import parse_manifest
from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.decide_late import entered_attempt
from orchestrator.domain.errors import Conflict
from orchestrator.domain.events import AnyEvent
from orchestrator.domain.gate import verdict
from orchestrator.domain.permissions import Role
from orchestrator.domain.plan import Plan
from orchestrator.domain.values import statement_digest
from tests.custody.intruder import Intruder
from tests.custody.world import NGO, PLATFORM, World, recipient_digest, sealed, signed_plan
from tests.support.plans import actor, five_stages

HOLDERS = ("lea", "sam", "sue")
SHARE_KEYS = {name: partner_keygen() for name in HOLDERS}
DEALING = Dealing(2, {name: pair.recipient for name, pair in SHARE_KEYS.items()})
MANAGING = (Role.APPROVER, Role.RELEASE_MANAGER)


def shared_plan(**changes: Any) -> Plan:
    """Inside, hosted, downloadable; keys go out with two of three shares alone."""
    plan = signed_plan(partner_keys="registered")
    raw = plan.model_dump(mode="json")
    raw["steps"] = [step for step in raw["steps"] if step["name"] in {"inside", "demo", "download"}]
    for step in raw["steps"][1:]:
        step["gate"]["shares"] = 2
    raw["steps"][1]["gate"]["sign_offs"] = [{"role": "safety"}, {"role": "legal"}]
    return Plan.model_validate({**raw, **changes})


@dataclass
class SharedWorld(World):
    """Holders release their shares when they sign, unless they are told not to."""

    plan: Plan = field(default_factory=shared_plan)
    dealing: Dealing | None = DEALING
    silent: frozenset[str] = frozenset()

    @property
    def record(self) -> DealtShares:
        found = parse_manifest(self.artifact.manifest, expected_digest=self.artifact.manifest_digest).shares
        assert found is not None
        return found

    def share(self, person: str) -> Share:
        identity = partner_identity(SHARE_KEYS[person].identity)
        return open_share(self.record, self.artifact.artifact_id, person, identity)

    def sign(
        self, person: str, step: str, role: str, decision: Any = "approve", **more: Any
    ) -> list[AnyEvent]:
        if person in SHARE_KEYS and person not in self.silent and "shares" not in more:
            envelope = self.statement(person, self.subject(step), role, decision)
            more |= {"envelope": envelope, "shares": self.released(self.share(person), envelope)}
        return super().sign(person, step, role, decision, **more)

    def released(self, share: Share, envelope: str) -> dict[str, str]:
        sealed = release_share(share, self.keys.public.recipient, statement_digest(envelope) or "")
        return {self.artifact.artifact_id: sealed}

    def at_demo(self) -> None:
        self.to("inside")
        self.prepare("demo")


@pytest.fixture
def world(engine: Engine, tmp_path: Path) -> Any:
    world = SharedWorld(engine, tmp_path)
    yield world
    world.close()


@pytest.fixture
def intruder(world: SharedWorld, monkeypatch: pytest.MonkeyPatch) -> Intruder:
    return Intruder(world, monkeypatch)


def unmet(world: World, step: str = "demo") -> dict[str, list[str]]:
    found = verdict(world.state, world.step(step), world.clock())
    return {condition.code: condition.who for condition in found.unmet}


# --- what honest people do -------------------------------------------------------------------------------------------


def test_two_of_three_sign_offs_with_their_shares_open_the_step_and_the_log_says_whose(
    world: SharedWorld,
) -> None:
    world.at_demo()
    assert unmet(world)["shares"] == ["lea", "sam", "sue"]
    world.sign("sam", "demo", "safety")
    assert unmet(world)["shares"] == ["lea", "sue"], "who can still give one"
    assert list(unmet(world)) == ["sign_off", "shares"]
    world.sign("lea", "demo", "legal")
    assert unmet(world) == {}
    made = world.custody.make_envelopes(world.begin("demo"))
    payload = world.opened(made["demo.2.platform"][world.artifact.artifact_id], PLATFORM)
    assert sorted(payload.keys) == ["tokenizer.json", "weights.bin"]
    leaf = world.custody_leaves()[-1]
    assert leaf["action"] == "unwrap"
    assert leaf["shares"] == {world.artifact.artifact_id: ["lea", "sam"]}


def test_a_sign_off_without_a_share_fills_its_place_and_the_shares_are_still_asked_for(
    world: SharedWorld,
) -> None:
    world.at_demo()
    world.silent = frozenset({"lea"})
    world.approve("demo")
    assert unmet(world) == {"shares": ["lea", "sue"]}
    world.sign("sue", "demo", "safety")
    assert world.custody.make_envelopes(world.begin("demo"))


def test_each_step_asks_for_the_shares_anew(world: SharedWorld) -> None:
    world.to("demo")
    world.wait("download")
    world.prepare("download")
    assert unmet(world, "download")["shares"] == ["lea", "sam", "sue"]
    assert world.enter("download")["download.3.uni"]


def test_a_partner_who_is_late_is_served_with_the_shares_of_its_step(
    world: SharedWorld, intruder: Intruder
) -> None:
    world.to("download")
    world.add_partner_key("ngo", NGO.recipient)
    world.say(cmd.MakeGrant(**world.head(actor("mia", *MANAGING)), partner="ngo"))
    attempt = entered_attempt(world.state, world.step("download")) or 0
    ready = {"ngo": recipient_digest(NGO.recipient)}
    asked = Asked("alpha", "download", attempt, world.state.updated_at, ready, late="ngo")
    made = world.custody.make_envelopes(asked)
    world.opened(made["download.3.ngo"][world.artifact.artifact_id], NGO)
    assert world.custody_leaves()[-1]["shares"] == {world.artifact.artifact_id: ["lea", "sam"]}


# --- attacks ---------------------------------------------------------------------------------------------------------


def test_custodys_key_its_memory_the_database_and_the_store_with_one_share_give_no_key(
    world: SharedWorld,
) -> None:
    """Whoever controls custody wholly, before enough people signed: what it holds is one of two secrets."""
    world.at_demo()
    world.sign("sam", "demo", "safety")
    world.custody.take_in("alpha")
    art, record = world.artifact.artifact_id, world.record
    held = world.memory.holding(art)
    assert held is not None
    assert world.provider is not None
    context = wrapping_context("alpha", art, world.state.plan_digest)
    half = CustodyHalf(world.provider.unwrap(WrappedKey.parse(held.wrapped), context))
    manifest = parse_manifest(world.artifact.manifest, expected_digest=world.artifact.manifest_digest)
    assert RootKey(half.raw).commitment(art) != manifest.root_commitment, "it is not the root"
    with pytest.raises(CustodyRefused, match="sealed with key shares"):
        world.custody.keeping.unwrap(world.state, {art: held}, {art: manifest}, "a test")
    standing = world.state.sign_offs["sam"]
    [event] = [e for e, _ in world.custody.watch.history("alpha") if isinstance(e, ev.SignedOff)]
    sealed = base64.b64decode(event.shares[art])
    one = receive_share(sealed, world.keys.identity, standing.statement or "", record, art, "sam")
    with pytest.raises(TooFewShares, match="lea, sue"):
        combine(record, art, [one])
    with pytest.raises(WrappedKeyInvalid):
        unlock(record, art, half, half.raw)


def test_an_entry_with_too_few_shares_that_was_written_into_the_log_gives_no_key(
    world: SharedWorld, intruder: Intruder
) -> None:
    world.at_demo()
    world.silent = frozenset({"lea"})
    world.approve("demo")
    intruder.forge(intruder.entry("demo"))
    reasons = intruder.gets_nothing("demo", "1 more key share of")
    assert "shares" in {reason.code for reason in reasons}


def test_one_person_who_signs_twice_gives_one_share(world: SharedWorld, intruder: Intruder) -> None:
    world.at_demo()
    world.sign("sam", "demo", "safety")
    world.sign("sam", "demo", "safety")
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "1 more key share of")


def altered(sealed: str) -> str:
    data = bytearray(base64.b64decode(sealed))
    data[-1] ^= 1
    return base64.b64encode(bytes(data)).decode()


def test_a_share_that_was_tampered_with_is_refused_by_its_holders_name_and_released_again(
    world: SharedWorld, intruder: Intruder
) -> None:
    world.at_demo()
    world.sign("sam", "demo", "safety")
    envelope = world.statement("lea", world.subject("demo"), "legal")
    bad = {name: altered(one) for name, one in world.released(world.share("lea"), envelope).items()}
    world.sign("lea", "demo", "legal", envelope=envelope, shares=bad)
    asked = world.begin("demo")
    [reason] = intruder.gets_nothing(asked, "released share of 'lea'")
    assert reason.code == "shares"
    world.say(cmd.TakeBackEntry(**world.head(cmd.SERVICE), step="demo", reason="a share is bad"))
    world.sign("lea", "demo", "legal")
    world.say(cmd.RetryEntry(**world.head(actor("mia", *MANAGING)), step="demo"))
    assert world.custody.make_envelopes(world.begin("demo"))


def test_a_share_of_another_dealing_is_refused_by_its_holders_name(
    world: SharedWorld, intruder: Intruder
) -> None:
    world.at_demo()
    world.sign("sam", "demo", "safety")
    art = world.artifact.artifact_id
    other = deal(RootKey.generate(), art, DEALING, world.keys.public.recipient).record
    foreign = open_share(other, art, "lea", partner_identity(SHARE_KEYS["lea"].identity))
    envelope = world.statement("lea", world.subject("demo"), "legal")
    world.sign("lea", "demo", "legal", envelope=envelope, shares=world.released(foreign, envelope))
    intruder.gets_nothing(world.begin("demo"), "share of 'lea': belongs to the set")


def test_somebody_elses_share_is_not_released_by_ones_own_sign_off(
    world: SharedWorld, intruder: Intruder
) -> None:
    """Sue lets Lea have hers: two shares, but one person behind them."""
    world.at_demo()
    world.sign("sam", "demo", "safety")
    envelope = world.statement("lea", world.subject("demo"), "legal")
    shares = world.released(replace(world.share("sue"), holder="lea"), envelope)
    world.sign("lea", "demo", "legal", envelope=envelope, shares=shares)
    intruder.gets_nothing(world.begin("demo"), "share of 'lea': was altered")


def test_a_share_replayed_from_an_earlier_sign_off_is_refused(world: SharedWorld, intruder: Intruder) -> None:
    """Lea's share of the approach before a rollback, put beside her sign-off of the next one."""
    world.to("demo")
    old = [
        e for e, _ in world.custody.watch.history("alpha") if isinstance(e, ev.SignedOff) and e.by == "lea"
    ]
    world.say(cmd.RollBack(**world.head(actor("mia", *MANAGING)), to="inside", reason="a doubt"))
    world.prepare("demo")
    world.silent = frozenset({"lea"})
    world.sign("sam", "demo", "safety")
    envelope = world.statement("lea", world.subject("demo"), "legal")
    forged = intruder.signed_off("lea", "demo", "legal", envelope)
    intruder.forge(forged.model_copy(update={"shares": old[-1].shares}))
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "or is for another custody key, artifact or sign-off")


def test_a_share_beside_a_withdrawn_or_an_unsigned_sign_off_does_not_count(
    world: SharedWorld, intruder: Intruder
) -> None:
    world.at_demo()
    world.sign("sam", "demo", "safety")
    [lea] = world.sign("lea", "demo", "legal")
    assert isinstance(lea, ev.SignedOff)
    world.withdraw("lea", "demo")
    forged = intruder.signed_off("lea", "demo", "legal", None)
    intruder.forge(forged.model_copy(update={"shares": lea.shares}))
    intruder.forge(intruder.entry("demo"))
    intruder.gets_nothing("demo", "1 more key share of")


def test_an_artifact_that_was_registered_by_hand_as_one_without_shares_is_refused(
    world: SharedWorld, intruder: Intruder
) -> None:
    world.create()
    with pytest.raises(Conflict, match="do not fit the plan"):
        register_as(world, None)
    world.register()
    forged = ev.ArtifactRegistered(
        **intruder.head("ci"),
        artifact=world.artifact.artifact_id,
        manifest_digest="sha256:" + world.artifact.manifest_digest,
        components=["tokenizer", "weights"],
        location=world.store.uri,
        root=world.artifact.wrapped_root,
        shares=cmd.KeyShares(threshold=2, holders=["lea", "mia", "sam"]),
    )
    intruder.forge(forged)
    world.to("inside")
    world.prepare("demo")
    world.approve("demo")
    intruder.gets_nothing(world.begin("demo"), "are not those of its manifest")


def register_as(world: World, shares: cmd.KeyShares | None) -> list[AnyEvent]:
    command = cmd.RegisterArtifact(
        **world.head(actor("ci", Role.MLOPS)),
        artifact=world.artifact.artifact_id,
        manifest_digest="sha256:" + world.artifact.manifest_digest,
        components=["tokenizer", "weights"],
        location=world.store.uri,
        root=world.artifact.wrapped_root,
        shares=shares,
    )
    return world.say(command)


# --- what custody cannot do with it ----------------------------------------------------------------------------------


def test_what_was_sealed_with_shares_is_not_sealed_anew_by_custody(world: SharedWorld) -> None:
    world.to("demo")
    with pytest.raises(Conflict, match="sealed with key shares"):
        world.say(
            cmd.RotateKeys(**world.head(actor("mia", *MANAGING)), components=["weights"], reason="a doubt")
        )
    # an incident's response asks all the same: it ends with the reason, and nothing was opened
    rotation = ev.KeysRotationAsked(
        at=world.clock(), by="mia", command_id="r-1", components=["weights"], rotation="r-1", reason="leak"
    )
    world.write([rotation], cmd.Hold(**world.head(actor("mia", *MANAGING)), reason="leak"))
    with pytest.raises(CustodyRefused, match="sealed with key shares"):
        world.custody.reseal("alpha", "r-1", world.artifact.artifact_id)


def test_after_a_holder_left_it_is_sealed_anew_for_those_of_now_and_the_old_shares_fit_no_more(
    world: SharedWorld, intruder: Intruder, tmp_path: Path
) -> None:
    """Sue leaves, and with her one of three: the plan is amended, whoever has the plaintext seals with Dan in her place."""
    world.at_demo()
    world.sign("sam", "demo", "safety")
    raw = world.state.plan.model_dump(mode="json")
    del raw["people"]["sue"]
    raw["people"]["dan"]["roles"] = ["safety", "legal"]
    world.dear(cmd.AmendPlan, ["sam", "lea"], plan=Plan.model_validate(raw), reason="Sue has left")
    old = world.artifact
    holders = {**{name: SHARE_KEYS[name].recipient for name in ("lea", "sam")}, "dan": NGO.recipient}
    world.artifact, _ = sealed(tmp_path / "again", world.keys.public.recipient, shares=Dealing(2, holders))
    world.register()
    assert list(world.state.artifacts) == [world.artifact.artifact_id], "it stands in the old one's place"
    assert unmet(world)["shares"] == ["dan", "lea", "sam"]
    # a share of the old dealing, released beside a good sign-off on the new files
    identity = partner_identity(SHARE_KEYS["sam"].identity)
    dealt = parse_manifest(old.manifest, expected_digest=old.manifest_digest).shares
    assert dealt is not None
    envelope = world.statement("sam", world.subject("demo"), "safety")
    stale = open_share(dealt, old.artifact_id, "sam", identity)
    world.sign("sam", "demo", "safety", envelope=envelope, shares=world.released(stale, envelope))
    world.sign("lea", "demo", "legal")
    asked = world.begin("demo")
    intruder.gets_nothing(asked, "sam")
    world.say(cmd.TakeBackEntry(**world.head(cmd.SERVICE), step="demo", reason="a share", failed=False))
    world.sign("sam", "demo", "safety")
    made = world.custody.make_envelopes(world.begin("demo"))
    payload = world.opened(made["demo.2.platform"][world.artifact.artifact_id], PLATFORM)
    assert sorted(payload.keys) == ["tokenizer.json", "weights.bin"]
    with pytest.raises(Conflict, match="being entered"):
        world.register(artifact=old)


def test_the_kek_is_rotated_and_an_amendment_wraps_anew_under_the_shares(world: SharedWorld) -> None:
    world.to("inside")
    world.custody.take_in("alpha")
    assert world.custody.rotate() == (2, 1)
    plan = Plan.model_validate({**world.state.plan.model_dump(mode="json"), "title": "Another title"})
    world.dear(cmd.AmendPlan, ["sam", "lea"], plan=plan, reason="a better title")
    made = world.enter("demo")
    world.opened(made["demo.2.platform"][world.artifact.artifact_id], PLATFORM)


def test_a_plan_without_shares_does_not_take_what_was_sealed_with_them(
    engine: Engine, tmp_path: Path
) -> None:
    world = SharedWorld(engine, tmp_path, plan=Plan.model_validate(five_stages()))
    world.create()
    with pytest.raises(Conflict) as refused:
        world.register()
    told = " ".join(reason.message for reason in refused.value.reasons)
    assert "`demo` hands out keys of tokenizer, weights without key shares" in told
    world.close()
