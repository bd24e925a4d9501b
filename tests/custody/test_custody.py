"""What custody gives when everything is in order: to partners, deployments and the public, with proof."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from artifacts.envelope import open_envelope, open_public_record
from artifacts.errors import EnvelopeError
from artifacts.fetching import fetch_artifact
from orchestrator.trust.receipts import envelope_proof_verifier
from tests.custody.world import MALLORY, PLATFORM, UNI, World


def test_a_whole_release_gives_keys_to_exactly_those_whom_the_plan_lets_in(
    world: World, tmp_path: Path
) -> None:
    world.to("inside")
    demo = world.enter("demo")
    assert set(demo) == {"demo.2.platform"}
    served = world.opened(demo["demo.2.platform"][world.artifact.artifact_id], PLATFORM)
    assert set(served.keys) == {"weights.bin", "tokenizer.json"}
    query = world.enter("query")
    assert set(query) == {"query.3.platform"}
    download = world.enter("download")
    assert set(download) == {"download.4.uni"}, "the other partner has pinned no key"
    reference = download["download.4.uni"][world.artifact.artifact_id]
    payload = world.opened(reference, UNI)
    report = fetch_artifact(
        world.store, world.artifact.manifest, payload, tmp_path / "out", now=world.clock()
    )
    assert report is not None
    for name in ("weights.bin", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    opened = world.enter("open")
    record = open_public_record(
        world.envelope(opened["open.5.public"][world.artifact.artifact_id]),
        verify_keys=[world.keys.public.verify_key],
        proof_verifier=envelope_proof_verifier(world.keys.public.log_verifier),
    )
    assert {path: key.raw for path, key in record.keys.items()} == {
        path: key.raw for path, key in payload.keys.items()
    }
    assert [leaf["action"] for leaf in world.custody_leaves()] == ["unwrap"] * 4


def test_asked_twice_custody_answers_the_same_and_the_first_envelope_stands(world: World) -> None:
    world.to("inside")
    world.prepare("demo")
    world.approve("demo")
    asked = world.begin("demo")
    first = world.custody.make_envelopes(asked)
    reference = first["demo.2.platform"][world.artifact.artifact_id]
    kept = world.envelope(reference)
    assert world.custody.make_envelopes(asked) == first
    assert world.envelope(reference) == kept
    assert world.envelopes_kept() == 1


def test_nobody_else_opens_an_envelope(world: World) -> None:
    world.to("inside")
    made = world.enter("demo")
    reference = made["demo.2.platform"][world.artifact.artifact_id]
    with pytest.raises(EnvelopeError):
        world.opened(reference, MALLORY)


@pytest.mark.parametrize("member", ["release", "step", "grant", "manifest_digest", "recipients"])
def test_an_envelope_with_the_log_entry_of_another_unwrap_is_refused(world: World, member: str) -> None:
    world.to("inside")
    made = world.enter("demo")
    payload = world.opened(made["demo.2.platform"][world.artifact.artifact_id], PLATFORM)
    verify = envelope_proof_verifier(world.keys.public.log_verifier, recipient=PLATFORM.recipient)
    assert payload.log is not None
    verify(payload.log, payload)
    other = () if member == "recipients" else "0" * 64
    with pytest.raises(Exception, match="is about another"):
        verify(payload.log, replace(payload, **{member: other}))


def test_an_envelope_for_the_right_grant_but_another_key_than_logged_is_refused(world: World) -> None:
    world.to("inside")
    made = world.enter("demo")
    reference = made["demo.2.platform"][world.artifact.artifact_id]
    with pytest.raises(EnvelopeError, match="log proof"):
        open_envelope(
            world.envelope(reference),
            PLATFORM.identity,
            now=world.clock(),
            verify_keys=[world.keys.public.verify_key],
            proof_verifier=envelope_proof_verifier(world.keys.public.log_verifier, recipient=UNI.recipient),
        )
