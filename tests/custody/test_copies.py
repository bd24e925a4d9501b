"""Copies that custody makes: marked ones, one for each partner, and what is sealed anew; and every way to get somebody else's."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, text

from activities.copies.sealing import copied_id
from activities.custody.base import Asked
from activities.custody.errors import CustodyRefused, Unbacked
from artifacts.envelope import open_envelope, open_public_record
from artifacts.errors import ArtifactError
from artifacts.fetching import fetch_artifact
from artifacts.keys import KeyPair
from artifacts.leaks import SketchKey, WeightSignature
from artifacts.leaks.sealed import monitor_identity, monitor_keygen, open_signature, seal_signature
from artifacts.progress import Progress
from artifacts.stores.directory import DirectoryStore
from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.errors import Conflict
from orchestrator.domain.permissions import Role
from orchestrator.domain.plan import Plan
from orchestrator.domain.preview import preview
from orchestrator.records import artifacts as artifact_records
from orchestrator.records import signatures
from orchestrator.records.database import reading, writing
from orchestrator.trust.receipts import envelope_proof_verifier
from tests.custody.intruder import Intruder
from tests.custody.world import NGO, UNI, World, recipient_digest, signed_plan
from tests.simulators import transformations as t
from tests.support.plans import actor

MANAGING = (Role.APPROVER, Role.RELEASE_MANAGER)
PARTNERS: dict[str, KeyPair] = {"uni": UNI, "ngo": NGO}


def killed_half_way(world: World, what: str, argument: dict[str, Any]) -> None:
    """Another custody process begins the copy, and is killed with kill -9 once half of it is stored."""
    command = [sys.executable, "-m", "tests.custody.killed", str(world.folder), world.clock().isoformat()]
    process = subprocess.Popen([*command, what, json.dumps(argument)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "half way\n"
    finally:
        process.kill()
        process.wait(30)
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    made = t.synthetic(np.random.default_rng(5), hidden=96, vocabulary=1000)
    return t.write(t.Leak(made), tmp_path_factory.mktemp("weights"))[0].read_bytes()


def marked_plan(**changes: Any) -> Plan:
    raw = signed_plan().model_dump(mode="json")
    raw["components"]["weights"]["mark"] = {"strength": 0.003}
    raw["partners"]["ngo"]["recipient"] = NGO.recipient
    return Plan.model_validate({**raw, **changes})


@pytest.fixture
def world(engine: Engine, tmp_path: Path, weights: bytes) -> Iterator[World]:
    world = World(engine, tmp_path, plan=marked_plan(), weights=weights)
    yield world
    world.close()


@pytest.fixture
def intruder(world: World, monkeypatch: pytest.MonkeyPatch) -> Intruder:
    return Intruder(world, monkeypatch)


def fetched(world: World, grant: str, folder: Path, holder: KeyPair | None = None) -> dict[str, bytes]:
    """As the holder's client: whatever the grant has an envelope of, opened and verified."""
    found = world.state.grants[grant]
    for artifact, reference in found.envelopes.items():
        payload = world.opened(reference, holder or PARTNERS[found.holder])
        with reading(world.engine) as session:
            manifest = artifact_records.manifest(session, artifact)
        fetch_artifact(world.store, manifest, payload, folder, now=world.clock())
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")}


def rotate(world: World, **changes: Any) -> str:
    command = cmd.RotateKeys(
        **world.head(actor("sam", *MANAGING)), components=["weights"], reason="a laptop was lost", **changes
    )
    [asked] = world.say(command)
    assert isinstance(asked, ev.KeysRotationAsked)
    assert asked.rotation is not None
    return asked.rotation


def resealed(world: World, rotation: str) -> None:
    """What the rotation's workflow does."""
    for artifact in world.state.rotations[rotation].artifacts:
        made = world.custody.reseal("alpha", rotation, artifact)
        if made.new is None:
            continue
        world.say(
            cmd.CompleteResealing(
                **world.head(cmd.SERVICE),
                rotation=rotation,
                artifact=artifact,
                new=made.new,
                manifest_digest=made.manifest_digest,
                location=made.location,
                size=made.size,
            )
        )
    world.say(cmd.EndRotation(**world.head(cmd.SERVICE), rotation=rotation))


def renewed(world: World) -> list[Any]:
    made, refused = world.custody.renew("alpha")
    return world.say(cmd.RenewEnvelopes(**world.head(cmd.SERVICE), envelopes=made, refused=refused))


# --- marked copies ---------------------------------------------------------------------------------------------------


def test_every_partner_gets_a_copy_of_its_own_and_nobody_the_base(
    world: World, weights: bytes, tmp_path: Path
) -> None:
    world.to("download")
    base = world.artifact.artifact_id
    copies = {name: world.state.grants[f"download.4.{name}"].copies[0] for name in PARTNERS}
    got = {name: fetched(world, f"download.4.{name}", tmp_path / name) for name in PARTNERS}
    bytes_of = {name: files["model.safetensors"] for name, files in got.items()}
    assert len({*bytes_of.values(), weights}) == 3, "two copies and the base, all different"
    assert all(files["tokenizer.json"] == b'{"words": ["a", "b"]}' for files in got.values())
    assert all(base not in world.state.grants[f"download.4.{name}"].envelopes for name in PARTNERS)
    leaves = {leaf["holder"]: leaf for leaf in world.custody_leaves() if leaf["action"] == "copy_made"}
    for name, copy in copies.items():
        issued = {file["path"]: file for file in leaves[name]["files"]}["model.safetensors"]
        assert issued["sha256"] == hashlib.sha256(bytes_of[name]).hexdigest()
        assert issued["size"] == len(weights)
        assert issued["btv2_root"]
        assert issued["xet_hash"]
        assert leaves[name]["mark"]["commitment"] == copy.mark
        assert leaves[name]["copy"] == copy.artifact
    # the unmarked base stays sealed: its only envelopes are our own deployment's
    unwraps = [
        leaf for leaf in world.custody_leaves() if leaf["action"] == "unwrap" and leaf["step"] == "download"
    ]
    assert [base in leaf["manifests"] for leaf in unwraps] == [False]


def test_a_marked_copys_key_asked_for_by_another_partner(
    world: World, intruder: Intruder, tmp_path: Path
) -> None:
    world.to("download")
    uni, ngo = (world.state.grants[f"download.4.{name}"] for name in PARTNERS)
    copy = uni.copies[0].artifact
    with pytest.raises(ArtifactError):  # the envelope itself, by another partner's key
        world.opened(uni.envelopes[copy], NGO)
    own = world.opened(ngo.envelopes[ngo.copies[0].artifact], NGO)
    with reading(world.engine) as session:
        manifest = artifact_records.manifest(session, copy)
    with pytest.raises(ArtifactError):  # its own keys on the other's copy
        fetch_artifact(world.store, manifest, own, tmp_path / "a", now=world.clock())
    stolen = replace(own, artifact_id=copy, manifest_digest=uni.copies[0].manifest_digest[7:])
    with pytest.raises(ArtifactError):
        fetch_artifact(world.store, manifest, stolen, tmp_path / "b", now=world.clock())
    # and a proof that names another grant's copy is refused by the client
    check = envelope_proof_verifier(world.keys.public.log_verifier, recipient=NGO.recipient)
    assert own.log is not None
    with pytest.raises(Exception, match=r"manifest|copy"):
        check(own.log, replace(stolen, log=own.log))


def test_a_made_up_event_gives_a_partner_another_partners_copy(world: World, intruder: Intruder) -> None:
    """The event that shows a holder its copies is only shown: custody gives keys of the copy that it made for the grant."""
    world.at_gate("download")
    world.approve("download")
    asked = world.begin("download")
    copies = world.custody.make_copies(asked)
    swapped = dict(zip(copies, reversed(list(copies.values())), strict=True))
    made = world.custody.make_envelopes(asked)
    world.complete("download", made, copies=swapped)
    for name, holder in PARTNERS.items():
        artifact, reference = next(iter(made[f"download.4.{name}"].items()))
        assert (
            world.opened(reference, holder).artifact_id
            == artifact
            == copies[f"download.4.{name}"][0].artifact
        )


def test_a_copy_whose_manifest_was_swapped(world: World, intruder: Intruder) -> None:
    world.at_gate("download")
    world.approve("download")
    asked = world.begin("download")
    copies = world.custody.make_copies(asked)
    uni, ngo = (copies[f"download.4.{name}"][0].artifact for name in PARTNERS)
    with world.engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE artifact SET manifest = (SELECT manifest FROM artifact WHERE id = :other),"
                " manifest_digest = (SELECT manifest_digest FROM artifact WHERE id = :other) WHERE id = :own"
            ),
            {"own": uni, "other": ngo},
        )
    intruder.gets_nothing(asked, f"the manifest of {uni} is not the one")


def test_envelopes_before_copies_are_refused(world: World, intruder: Intruder) -> None:
    world.at_gate("download")
    world.approve("download")
    intruder.gets_nothing(world.begin("download"), "no marked copy of")


def test_copies_for_a_step_that_the_log_does_not_enter(world: World) -> None:
    world.at_gate("download")
    with pytest.raises(CustodyRefused, match="is not entering"):
        world.custody.make_copies(world.asked("download"))
    assert not (world.folder / "copies").exists(), "nothing was opened"


def test_a_copy_into_a_store_that_somebody_else_names(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.at_gate("download")
    world.approve("download")
    asked = world.begin("download")
    custody = world.new_custody(places=replace(world.custody._places, stores=("s3://elsewhere",)))
    with pytest.raises(CustodyRefused, match="opens no store at"):
        custody.make_copies(asked)


def test_weights_that_cannot_be_marked_are_never_given_out_unmarked(engine: Engine, tmp_path: Path) -> None:
    world = World(engine, tmp_path, plan=marked_plan())  # weights.bin
    world.at_gate("download")
    world.approve("download")
    asked = world.begin("download")
    with pytest.raises(CustodyRefused, match="cannot be marked"):
        world.custody.make_copies(asked)
    with pytest.raises(CustodyRefused, match="no marked copy"):
        world.custody.make_envelopes(asked)
    world.close()


def test_making_them_again_makes_the_same_ones(world: World) -> None:
    world.at_gate("download")
    world.approve("download")
    asked = world.begin("download")
    first = world.custody.make_copies(asked)
    assert world.new_custody().make_copies(asked) == first
    made = [leaf["copy"] for leaf in world.custody_leaves() if leaf["action"] == "copy_made"]
    assert len(made) == len(set(made)) == 2


def test_a_copy_killed_with_kill_9_goes_on_with_every_stored_part(world: World, weights: bytes) -> None:
    world.at_gate("download")
    world.approve("download")
    asked = world.begin("download")
    argument = {"release": "alpha", "step": "download", "attempt": asked.attempt, "at": asked.at.isoformat()}
    killed_half_way(world, "mark", argument)
    seen: list[Progress] = []
    made = world.custody.make_copies(asked, seen.append)
    assert max(p.bytes_reused for p in seen) >= len(weights) // 2
    assert set(made) == {f"download.4.{name}" for name in PARTNERS}
    assert weights[100_000:100_064] not in b"".join(
        p.read_bytes() for p in (world.folder / "copies").iterdir()
    )


def test_a_grant_made_late_gets_a_marked_copy_with_the_same_mark(world: World, tmp_path: Path) -> None:
    world.to("download")
    before = fetched(world, "download.4.uni", tmp_path / "before")
    world.clock.now += timedelta(days=201)
    world.say(cmd.Expire(**world.head(cmd.SERVICE)))
    world.say(cmd.MakeGrant(**world.head(actor("mia", *MANAGING)), partner="uni"))
    ready = {"uni": recipient_digest(UNI.recipient)}
    asked = Asked("alpha", "download", 4, world.state.updated_at, ready, late="uni")
    with pytest.raises(CustodyRefused, match="no marked copy"):
        world.custody.make_envelopes(asked)
    copies = world.custody.make_copies(asked)
    [(grant, envelopes)] = world.custody.make_envelopes(asked).items()
    assert grant == "download.4.uni.2"
    complete = cmd.CompleteGrant(
        **world.head(cmd.SERVICE),
        step="download",
        partner="uni",
        recipient=ready["uni"],
        envelopes=envelopes,
        copies=copies[grant],
    )
    world.say(complete)
    assert fetched(world, grant, tmp_path / "after") == before
    world.enter("open")  # custody believes the whole history, with the late copy in it


def test_a_copy_whose_ticket_is_gone_is_begun_anew(world: World, weights: bytes, tmp_path: Path) -> None:
    """Killed half way, and taken up by a worker on another machine."""
    world.at_gate("download")
    world.approve("download")
    asked = world.begin("download")
    argument = {"release": "alpha", "step": "download", "attempt": asked.attempt, "at": asked.at.isoformat()}
    killed_half_way(world, "mark", argument)
    shutil.rmtree(world.folder / "copies")
    copies = world.custody.make_copies(asked)
    world.complete("download", world.custody.make_envelopes(asked), copies=copies)
    for name in PARTNERS:
        files = fetched(world, f"download.4.{name}", tmp_path / name)
        assert len(files["model.safetensors"]) == len(weights)


def test_the_public_gets_a_marked_copy_at_downloadable(
    engine: Engine, tmp_path: Path, weights: bytes
) -> None:
    raw = marked_plan().model_dump(mode="json")
    raw["steps"][3]["audience"] = "public"
    world = World(engine, tmp_path, plan=Plan.model_validate(raw), weights=weights)
    world.to("download")
    grant = world.state.grants["download.4.public"]
    [(artifact, reference)] = grant.envelopes.items()
    assert artifact == grant.copies[0].artifact != world.artifact.artifact_id
    record = open_public_record(world.envelope(reference), verify_keys=[world.keys.public.verify_key])
    with reading(engine) as session:
        manifest = artifact_records.manifest(session, artifact)
    fetch_artifact(world.store, manifest, record, tmp_path / "public", now=world.clock())
    assert (tmp_path / "public" / "model.safetensors").read_bytes() != weights
    from activities.publishing import publication

    shown = json.loads(publication(world.state, world.step("download"), 4))
    assert [a["id"] for a in shown["artifacts"]] == [artifact]
    assert world.artifact.artifact_id not in json.dumps(shown)
    world.close()


def test_the_leak_monitor_knows_whose_copy_has_which_digests_also_after_new_keys(
    world: World, tmp_path: Path
) -> None:
    """Nobody but the monitor reads them; a rotation does not make it blind."""
    keys = monitor_keygen()
    identity = monitor_identity(keys.identity)
    world.custody = world.new_custody(places=replace(world.custody._places, monitor=lambda: keys.recipient))
    world.to("download")
    base = world.artifact.artifact_id
    with writing(world.engine) as session:  # as the sealing of the base would have left it
        secret = bytes(32)
        own = WeightSignature(base, SketchKey(secret).key_id, ())
        sealed_own = seal_signature(
            own, secret, manifest=world.artifact.manifest_digest, recipient=keys.recipient
        )
        signatures.put(session, base, sealed_own, key_id=own.key_id, by="ci", at=world.clock())
    fetched(world, "download.4.uni", tmp_path / "uni")
    sha256 = hashlib.sha256((tmp_path / "uni" / "model.safetensors").read_bytes()).hexdigest()

    def owners(artifact: str) -> set[str]:
        with reading(world.engine) as session:
            stored = signatures.of(session, [artifact])
        found = {one.copy_of: open_signature(one.sealed, identity)[1] for one in stored}
        assert set(found) == {"", *PARTNERS}
        return {name for name, one in found.items() if any(f.sha256 == sha256 for f in one.files)}

    assert owners(base) == {"uni"}
    resealed(world, rotate(world))
    new = world.state.carried_by["weights"]
    assert owners(new) == {"uni"}
    with reading(world.engine) as session:
        [own_row] = [one for one in signatures.of(session, [new]) if not one.copy_of]
    anew = open_signature(own_row.sealed, identity)[1]
    assert anew.artifact == new, "made anew, under a sketch key of the new root"
    assert anew.matrices


# --- sealed anew -----------------------------------------------------------------------------------------------------


@pytest.fixture
def plain(engine: Engine, tmp_path: Path, weights: bytes) -> Iterator[World]:
    """Without marks: every partner holds the same artifact."""
    raw = marked_plan().model_dump(mode="json")
    del raw["components"]["weights"]["mark"]
    world = World(engine, tmp_path, plan=Plan.model_validate(raw), weights=weights)
    yield world
    world.close()


def test_after_a_disclosed_key_standing_grants_get_the_new_copy_and_revoked_ones_never(
    plain: World, weights: bytes, tmp_path: Path
) -> None:
    world, old = plain, plain.artifact.artifact_id
    world.to("download")
    for name in PARTNERS:
        world.say(cmd.DiscloseGrant(**world.head(cmd.SERVICE), grant=f"download.4.{name}"))
    old_reference = world.state.grants["download.4.uni"].envelopes[old]
    manager = actor("mia", *MANAGING)
    world.say(cmd.Revoke(**world.head(manager), grant="download.4.ngo", reason="its laptop was lost"))
    rotation = rotate(world)
    told = preview(
        world.state,
        cmd.RotateKeys(**world.head(manager), components=["tokenizer"], reason="too"),
        world.clock(),
    )
    assert told.events == [], "it is being sealed anew already"
    resealed(world, rotation)
    new = world.state.carried_by["weights"]
    assert new != old
    assert world.state.superseded[old].fate == "kept"
    renewed(world)
    grant = world.state.grants["download.4.uni"]
    assert list(grant.envelopes) == [new]
    assert fetched(world, grant.id, tmp_path / "uni")["model.safetensors"] == weights
    ended = world.state.grants["download.4.ngo"]
    assert new not in ended.envelopes
    assert new not in ended.renew
    # what was disclosed stays disclosed, and the old key opens nothing of the new files
    payload = world.opened(old_reference, UNI)
    with reading(world.engine) as session:
        manifest = artifact_records.manifest(session, new)
    assert set(payload.keys) == {"model.safetensors", "tokenizer.json"}
    with pytest.raises(ArtifactError):
        fetch_artifact(
            world.store,
            manifest,
            replace(payload, artifact_id=new, manifest_digest=world.state.artifacts[new].manifest_digest[7:]),
            tmp_path / "stolen",
            now=world.clock(),
        )
    assert world.state.grants["download.4.uni"].disclosed_at is not None


def test_the_words_before_anybody_confirms_are_honest(plain: World) -> None:
    plain.to("download")
    command = cmd.RotateKeys(
        **plain.head(actor("sam", *MANAGING)), components=["weights"], reason="lost", delete_old=True
    )
    told = " ".join(preview(plain.state, command, plain.clock()).consequences)
    assert "no key of the old files was ever handed over" in told
    plain.say(cmd.DiscloseGrant(**plain.head(cmd.SERVICE), grant="download.4.uni"))
    told = " ".join(preview(plain.state, command, plain.clock()).consequences)
    assert "what was disclosed stays disclosed: uni had a key" in told
    assert "copies elsewhere stay" in told


def test_sign_offs_for_later_steps_are_stale_and_no_gate_opens_meanwhile(plain: World) -> None:
    from orchestrator.domain.gate import verdict

    world = plain
    world.to("download")
    world.prepare("open")
    world.sign("sam", "open", "safety")
    standing = [v.standing for v in verdict(world.state, world.step("open"), world.clock()).sign_offs]
    assert standing == ["counts"]
    rotation = rotate(world)
    assert "rotation" in {c.code for c in verdict(world.state, world.step("open"), world.clock()).unmet}
    with pytest.raises(Conflict, match="keys are being rotated"):
        world.say(cmd.MakeGrant(**world.head(actor("mia", *MANAGING)), partner="ngo"))
    resealed(world, rotation)
    found = verdict(world.state, world.step("open"), world.clock())
    assert [v.standing for v in found.sign_offs] == ["stale"]
    assert "rotation" not in {c.code for c in found.unmet}
    renewed(world)
    made = world.enter("open")
    assert set(made["open.5.public"]) == {world.state.carried_by["weights"]}


def test_while_something_is_held_nobody_gets_the_new_key(plain: World) -> None:
    world = plain
    world.to("download")
    world.say(cmd.Hold(**world.head(actor("sam", *MANAGING)), reason="wait"))
    rotation = rotate(world)
    resealed(world, rotation)
    assert world.custody.renew("alpha") == ({}, {})
    world.dear(cmd.Resume, ["sam", "lea"])
    [event] = renewed(world)
    assert set(event.envelopes) == {"demo.2.platform", "query.3.platform", "download.4.uni", "download.4.ngo"}


def test_a_partners_own_marked_copy_is_sealed_anew_with_the_same_mark(world: World, tmp_path: Path) -> None:
    world.to("download")
    before = fetched(world, "download.4.uni", tmp_path / "before")
    world.say(cmd.Revoke(**world.head(actor("mia", *MANAGING)), grant="download.4.ngo", reason="no longer"))
    rotation = rotate(world)
    state = world.state
    assert len(state.rotations[rotation].artifacts) == 2, "the base and the copy of the grant that stands"
    resealed(world, rotation)
    renewed(world)
    grant = world.state.grants["download.4.uni"]
    assert grant.copies[0].artifact != state.grants["download.4.uni"].copies[0].artifact
    assert list(grant.envelopes) == [grant.copies[0].artifact]
    after = fetched(world, "download.4.uni", tmp_path / "after")
    assert after == before, "the same bytes: whose copy it is stays known"


@pytest.mark.parametrize("swap", ["event", "records"])
def test_a_resealed_artifact_whose_manifest_was_swapped(
    plain: World, monkeypatch: pytest.MonkeyPatch, swap: str
) -> None:
    world = plain
    world.to("query")
    rotation = rotate(world)
    old = world.artifact.artifact_id
    made = world.custody.reseal("alpha", rotation, old)
    fields = {"rotation": rotation, "artifact": old, "new": made.new, "location": made.location}
    digest = made.manifest_digest if swap == "records" else "sha256:" + "0" * 64
    world.say(
        cmd.CompleteResealing(**world.head(cmd.SERVICE), **fields, manifest_digest=digest), watched=False
    )
    world.say(cmd.EndRotation(**world.head(cmd.SERVICE), rotation=rotation))
    if swap == "records":
        with world.engine.begin() as connection:
            connection.execute(
                text(
                    "UPDATE artifact SET manifest = (SELECT manifest FROM artifact WHERE id = :old) WHERE id = :new"
                ),
                {"old": old, "new": made.new},
            )
    intruder = Intruder(world, monkeypatch)
    world.wait("download")
    world.prepare("download")
    world.approve("download")
    told = "manifest" if swap == "records" else "was swapped"
    intruder.gets_nothing(world.begin("download"), told)


def test_an_artifact_that_custody_did_not_seal_anew(plain: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody with the database puts an artifact of their own in the place of one that people signed for."""
    world = plain
    world.to("query")
    rotation = rotate(world)
    world.say(
        cmd.CompleteResealing(
            **world.head(cmd.SERVICE),
            rotation=rotation,
            artifact=world.artifact.artifact_id,
            new=copied_id("alpha", world.artifact.artifact_id, "reseal", rotation),
            manifest_digest="sha256:" + "1" * 64,
            location=world.store.uri,
        )
    )
    with pytest.raises(Unbacked, match="did not seal"):
        world.custody.renew("alpha")


def test_the_sealed_bytes_of_the_new_files_were_swapped_in_the_store(plain: World, tmp_path: Path) -> None:
    world = plain
    world.to("download")
    resealed(world, rotate(world))
    renewed(world)
    new = world.state.carried_by["weights"]
    folder = world.folder / "store" / "artifacts"
    target = folder / new / "files" / "model.safetensors"
    target.write_bytes((folder / world.artifact.artifact_id / "files" / "model.safetensors").read_bytes())
    with pytest.raises(ArtifactError):
        fetched(world, "download.4.uni", tmp_path / "uni")
    assert not (tmp_path / "uni" / "model.safetensors").exists()


def test_a_rotation_that_nobody_asked_for(plain: World) -> None:
    plain.to("download")
    with pytest.raises(CustodyRefused, match="no rotation"):
        plain.custody.reseal("alpha", "rotation-made-up", plain.artifact.artifact_id)


def test_a_resealing_killed_with_kill_9_goes_on_with_every_stored_part(
    plain: World, weights: bytes, tmp_path: Path
) -> None:
    world = plain
    world.to("download")
    rotation = rotate(world)
    artifact = world.artifact.artifact_id
    killed_half_way(world, "reseal", {"release": "alpha", "rotation": rotation, "artifact": artifact})
    made = world.custody.reseal("alpha", rotation, artifact)
    assert made.reused >= len(weights) // 2
    again = world.new_custody().reseal("alpha", rotation, artifact)
    assert (again.new, again.manifest_digest) == (made.new, made.manifest_digest)
    resealed(world, rotation)
    renewed(world)
    assert fetched(world, "download.4.uni", tmp_path / "uni")["model.safetensors"] == weights


def test_the_response_table_asks_for_new_keys(engine: Engine, tmp_path: Path, weights: bytes) -> None:
    raw = signed_plan().model_dump(mode="json")
    raw["responses"]["severe"] = ["notify", "hold", "revoke_grants", "rotate_keys"]
    raw["partners"]["ngo"]["recipient"] = NGO.recipient
    world = World(engine, tmp_path, plan=Plan.model_validate(raw), weights=weights)
    world.to("download")
    report = {"incident": "leak-1", "kind": "leak", "severity": "severe", "summary": "seen", "partner": "ngo"}
    events = world.say(cmd.ReportIncident(**world.head(actor("sam", *MANAGING)), **report))
    [asked] = [event for event in events if isinstance(event, ev.KeysRotationAsked)]
    assert asked.rotation is not None
    resealed(world, asked.rotation)
    assert world.custody.renew("alpha") == ({}, {}), (
        "nothing before the incident is closed and the hold lifted"
    )
    world.dear(cmd.CloseIncident, ["sam", "lea"], incident="leak-1", outcome="the partner's copy")
    world.dear(cmd.Resume, ["sam", "lea"])
    [event] = renewed(world)
    assert "download.4.uni" in event.envelopes
    assert "download.4.ngo" not in event.envelopes
    world.close()


def test_a_grant_whose_partner_has_another_key_by_now_needs_a_new_grant(plain: World) -> None:
    world = plain
    world.to("download")
    raw = world.state.plan.model_dump(mode="json")
    raw["partners"]["uni"]["recipient"] = "age1pq1" + "q" * 1000
    resealed(world, rotate(world))
    state = world.custody._current("alpha")
    changed = state.model_copy(update={"plan": Plan.model_validate(raw)})
    grant = state.grants["download.4.uni"]
    with pytest.raises(CustodyRefused, match="needs a new grant"):
        world.custody._renewed(changed, grant)


def test_an_expired_grant_is_not_renewed(plain: World) -> None:
    world = plain
    world.to("download")
    resealed(world, rotate(world))
    world.clock.now += timedelta(days=201)
    made, refused = world.custody.renew("alpha")
    assert "download.4.uni" not in made
    assert "run out" in refused["download.4.uni"]


def test_the_envelope_for_the_new_copy_has_its_own_leaf(plain: World) -> None:
    world = plain
    world.to("download")
    resealed(world, rotate(world))
    renewed(world)
    new = world.state.carried_by["weights"]
    payload = open_envelope(
        world.envelope(world.state.grants["download.4.uni"].envelopes[new]),
        UNI.identity,
        now=world.clock(),
        verify_keys=[world.keys.public.verify_key],
        proof_verifier=envelope_proof_verifier(world.keys.public.log_verifier, recipient=UNI.recipient),
    )
    assert payload.artifact_id == new
    actions = [leaf["action"] for leaf in world.custody_leaves()]
    assert "resealed" in actions[:-1]
    assert actions[-1] == "unwrap"
    assert DirectoryStore(world.folder / "store").stat(f"artifacts/{new}/manifest.dsse.json") is not None
