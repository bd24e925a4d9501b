"""Whose copy it is: two partners' copies, one leaked; every partner's z, an accusation of one alone, a signed report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
from sqlalchemy import Engine

from activities.copies.tracing import Traced, TracingCustody, read_report
from activities.custody.memory import CustodyMemory
from artifacts.leaks.dtypes import PLAIN
from artifacts.leaks.errors import MarkError
from artifacts.leaks.suspects import safetensors
from artifacts.signing import SigningKey
from orchestrator.domain import commands as cmd
from orchestrator.domain import events as ev
from orchestrator.domain.errors import NotFound, SluiceError
from orchestrator.domain.leaks import traced as traced_commands
from orchestrator.domain.leaks import traced_incident
from orchestrator.domain.permissions import Role
from orchestrator.domain.values import digest_bytes
from orchestrator.records import issued
from orchestrator.records.database import reading
from tests.custody.test_copies import PARTNERS, fetched, marked_plan, resealed, rotate
from tests.custody.world import World
from tests.simulators import transformations as t
from tests.support.plans import actor


@pytest.fixture
def form(request: pytest.FixtureRequest) -> str:
    """The format of the weights; the three that carry marks differ in how a mark is written, not in what is asked of a trace."""
    return str(getattr(request, "param", "F32"))


@pytest.fixture
def traced(
    engine: Engine, tmp_path: Path, form: str
) -> Iterator[tuple[World, TracingCustody, dict[str, Path]]]:
    made = t.synthetic(np.random.default_rng(5), hidden=160, vocabulary=2048)
    weights = t.write(t.Leak(made, form=form), tmp_path / "plain")[0].read_bytes()
    world = World(engine, tmp_path, plan=marked_plan(), weights=weights)
    world.to("download")
    copies = {}
    for name in PARTNERS:
        fetched(world, f"download.4.{name}", tmp_path / name)
        copies[name] = tmp_path / name / "model.safetensors"
    copies["base"] = tmp_path / "model" / "model.safetensors"
    memory = CustodyMemory(world.memory_url)
    custody = TracingCustody(
        engine, memory, world.provider, world.keys, world.clock, places=world.custody._places
    )
    yield world, custody, copies
    memory.close()
    world.close()


def quantised(path: Path, to: Path) -> Path:
    """As somebody leaks it: a GGUF file of 4-bit weights."""
    writer = gguf.GGUFWriter(str(to), "bert")
    kind = gguf.GGMLQuantizationType.Q4_0
    data = path.read_bytes()
    for entry in safetensors.parse_header(data[8 : 8 + int.from_bytes(data[:8], "little")], len(data)):
        name, shape = entry.name, entry.shape
        values = PLAIN[entry.dtype].decode(data[entry.offset : entry.offset + entry.nbytes]).reshape(shape)
        if len(shape) == 2 and shape[1] % 32 == 0:
            writer.add_tensor(
                name, gguf.quants.quantize(np.asarray(values, np.float32), kind), raw_dtype=kind
            )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return to


@pytest.mark.parametrize("form", ["F32", "BF16", "F16"], indirect=True)
def test_a_quantised_copy_accuses_its_partner_and_nobody_else(
    traced: tuple[World, TracingCustody, dict[str, Path]], tmp_path: Path
) -> None:
    world, custody, copies = traced
    leak = quantised(copies["uni"], tmp_path / "leak.gguf")
    found = custody.trace("alpha", [leak], "weights", "olga")
    z = {p["partner"]: p["z"] for p in found.report["partners"]}
    assert set(z) == set(PARTNERS), "every partner's z is reported"
    assert found.report["accused"] == ["uni"], found.report
    assert z["uni"] >= 8
    assert abs(z["ngo"]) < 5
    # signed, and in the log under a checkpoint of custody's
    payload = read_report(found.signed, [world.keys.public.verify_key])
    assert json.loads(payload) == found.report
    with pytest.raises(MarkError, match="not trusted"):
        read_report(found.signed, [SigningKey.generate().verify_key])
    leaf = world.custody_leaves()[-1]
    assert (leaf["action"], leaf["accused"], leaf["by"]) == ("traced", ["uni"], "olga")
    assert leaf["signed"] == found.signed.decode()
    judged_by_the_trace(world, found)
    # the key was committed to before anything was delivered
    commitment = found.report["mark_commitment"]
    committed = [leaf for leaf in world.custody_leaves() if leaf["action"] == "copy_made"]
    assert {leaf["mark"]["commitment"] for leaf in committed} == {commitment}


def judged_by_the_trace(world: World, found: Traced) -> None:
    """The incident becomes the traced partner's, and its grants end by the response table; the other partner's stand."""
    with pytest.raises(NotFound, match="no open leak is about weights"):
        traced_incident(world.state, "weights")
    manager = actor("sam", Role.RELEASE_MANAGER, Role.APPROVER)
    fields = {"kind": "leak", "severity": "severe", "summary": "seen", "components": ["weights"]}
    world.say(cmd.ReportIncident(**world.head(manager), incident="leak-1", **fields))
    standing = traced_incident(world.state, "weights")
    assert {grant.holder for grant in world.state.live_grants("download")} == set(PARTNERS)
    document = digest_bytes(found.signed)
    (command,) = traced_commands(world.state, standing, [*found.report["accused"], "public"], document)
    made = world.say(command)
    incident = world.state.incidents["leak-1"]
    assert (incident.partner, incident.confidence.value) == ("uni", "confirmed")
    ended = [event.grant for event in made if isinstance(event, ev.GrantEnded)]
    assert ended
    assert all("uni" in grant for grant in ended)
    assert "uni" not in {grant.holder for grant in world.state.live_grants()}
    assert "ngo" in {grant.holder for grant in world.state.live_grants()} or world.state.current != "download"
    again = traced_commands(world.state, incident, found.report["accused"], document)
    assert [c.command_id for c in again] == [command.command_id], "the same report is the same command"
    assert traced_commands(world.state, incident, found.report["investigate"], document) == []


def test_an_exact_digest_attributes_and_an_unmarked_base_accuses_nobody(
    traced: tuple[World, TracingCustody, dict[str, Path]],
) -> None:
    world, custody, copies = traced
    found = custody.trace("alpha", [copies["ngo"]], "weights", "olga").report
    assert found["accused"] == ["ngo"]
    assert [p["exact"] for p in found["partners"] if p["partner"] == "ngo"] == [
        ["model.safetensors is model.safetensors"]
    ]
    by_base = custody.trace("alpha", [copies["base"]], "weights", "olga").report
    assert (by_base["accused"], by_base["investigate"]) == ([], [])
    assert [p["exact"] for p in by_base["partners"]] == [[], []]
    # what anybody may look up without a key: the digests in the log
    sha256 = found["suspect"][0]["sha256"]
    with reading(world.engine) as session:
        owners = [c.holder for c in issued.copies(session) if any(f.sha256 == sha256 for f in c.files)]
    assert owners == ["ngo"]


def test_a_copy_is_traced_after_keys_were_rotated(engine: Engine, tmp_path: Path) -> None:
    made = t.synthetic(np.random.default_rng(5), hidden=160, vocabulary=2048)
    weights = t.write(t.Leak(made), tmp_path / "plain")[0].read_bytes()
    world = World(engine, tmp_path, plan=marked_plan(), weights=weights)
    world.to("download")
    fetched(world, "download.4.uni", tmp_path / "uni")
    resealed(world, rotate(world))
    memory = CustodyMemory(world.memory_url)
    custody = TracingCustody(
        engine, memory, world.provider, world.keys, world.clock, places=world.custody._places
    )
    leak = quantised(tmp_path / "uni" / "model.safetensors", tmp_path / "leak.gguf")
    assert custody.trace("alpha", [leak], "weights", "olga").report["accused"] == ["uni"]
    exact = custody.trace("alpha", [tmp_path / "uni" / "model.safetensors"], "weights", "olga").report
    assert exact["accused"] == ["uni"]
    memory.close()
    world.close()


def test_what_cannot_be_compared_acquits_nobody(
    traced: tuple[World, TracingCustody, dict[str, Path]], tmp_path: Path
) -> None:
    _, custody, _ = traced
    stranger = t.synthetic(np.random.default_rng(77), hidden=64, vocabulary=300)
    (path,) = t.write(t.Leak(stranger), tmp_path / "stranger")
    found = custody.trace("alpha", [path], "weights", "olga").report
    assert found["not_compared"]
    assert {p["suspicion"] for p in found["partners"]} == {"not_compared"}
    with pytest.raises(SluiceError, match="cannot be read"):
        custody.trace("alpha", [tmp_path / "absent"], "weights", "olga")
    with pytest.raises(SluiceError, match="no marked copy of"):
        custody.trace("alpha", [path], "tokenizer", "olga")
    with pytest.raises(SluiceError, match="carries no"):
        custody.trace("alpha", [path], "nothing", "olga")
