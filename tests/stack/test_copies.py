"""Two partners, each with a marked copy of its own; a leak is traced to one of them; then the keys are rotated.

On the whole stack, with the partners' own command: both fetch, the copies differ, each opens with its own key alone, and
each client signs a receipt. A quantised copy accuses its partner alone, an exact one attributes without a key. After a key
was disclosed everything is sealed anew while custody is killed with kill -9, the revoked partner gets nothing more, and the
old files are deleted because somebody asked for it. At last a stranger reports where the other partner's copy lies: the sweep
recognises it, custody traces it without anybody's asking, and the plan's response table ends that partner's access.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from artifacts.keys import partner_identity, partner_keygen
from artifacts.stores.base import open_store
from infra.components import one_machine
from infra.demo_cast import Pace, demo_plan, wait_for
from infra.demo_leak import serving
from infra.demo_sealing import TERMS
from infra.demo_story import Story
from infra.demo_telling import Model, sha256_of
from infra.provision import read_custody_public, write_private
from infra.settings import Settings
from orchestrator.cli.client import JSON
from orchestrator.records import database, releases
from orchestrator.trust.delivery import copy_digest, receipt_key

pytestmark = [pytest.mark.stack, pytest.mark.timeout(360)]

SLUICE = str(Path(sys.executable).parent / "sluice")
PARTNERS = ("uni", "lab")
WAY = ("closed", "hosted", "api", "downloadable")


class CopiesStory(Story):
    """The demo's release with two partners and marks, as far as `downloadable`."""

    def begin(self) -> None:
        from infra.demo_cast import Cast

        token = self.settings.effective_operator_token_file
        assert token is not None
        self.cast = Cast(self.url, token.read_text(encoding="utf-8").strip(), self.folder)
        self._gather()
        self.keys["lab"] = partner_keygen()
        rosa = self.cast["rosa"]
        rosa.post("partners", body={"id": "lab", "name": "Southern Lab"})
        self.cast.join("lab-account", "Southern Lab", ["partner"], kind="partner", partner="lab")
        self.cast["lab-account"].post("partners", "lab", "terms", body={"terms": TERMS})
        artifacts = self._seal()
        plan = demo_plan(self.cast, {name: pair.recipient for name, pair in self.keys.items()}, self.pace)
        plan["components"]["weights"]["mark"] = {"strength": 0.003}
        plan["partners"]["lab"] = {"name": "Southern Lab", "recipient": self.keys["lab"].recipient}
        plan["partner_groups"]["researchers"]["partners"] = list(PARTNERS)
        plan["responses"] = {"moderate": ["notify", "hold", "revoke_grants"]}
        for name in PARTNERS:
            own = receipt_key(partner_identity(self.keys[name].identity).raw).public.text()
            plan["partners"][name]["receipt_keys"] = [own]
        body = {"id": self.release, "name": "all-MiniLM-L6-v2", "version": "1.0", "plan": plan}
        rosa.post("releases", body=body)
        for artifact in sorted(set(artifacts.values())):
            self.cast["pipeline"].post("releases", self.release, "artifacts", body={"artifact": artifact})
        for step in WAY:
            self._enter(step)

    def command(self, who: str, *arguments: str, key: str | None = None) -> subprocess.CompletedProcess[str]:
        """`sluice …` as somebody runs it on a machine of their own."""
        home = self.folder / "machines" / (key or who)
        config = home / "config" / "sluice"
        if not config.exists():
            config.mkdir(mode=0o700, parents=True)
            if who in self.keys:
                write_private(config / "partner.key", self.keys[key or who].identity.encode() + b"\n")
            public = read_custody_public(self.settings.effective_custody_public_file)
            (config / "custody.pub").write_text(public.envelope_key + "\n", encoding="utf-8")
            (config / "log.pub").write_text(public.log_key + "\n", encoding="utf-8")
        own = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        token = self.cast.tokens[f"{who}-account" if who in PARTNERS else who]
        environment = own | {
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_STATE_HOME": str(home / "state"),
            "SLUICE_URL": self.url,
            "SLUICE_TOKEN": token,
        }
        return subprocess.run(
            [SLUICE, *arguments, "--json"], env=environment, capture_output=True, text=True, check=False
        )

    def fetch(self, who: str, to: str, *more: str) -> JSON:
        """As `until_answered`: a process that comes back is waited for."""

        last = ""

        def tried() -> JSON | None:
            nonlocal last
            ran = self.command(who, "fetch", self.release, "--to", str(self.folder / to), *more)
            last = ran.stderr
            return json.loads(ran.stdout) if ran.returncode == 0 else None

        try:
            return wait_for(f"{who} to fetch", tried, 60)
        except TimeoutError:
            raise AssertionError(f"{who} cannot fetch: {last}") from None

    def trace(self, file: Path) -> tuple[int, JSON]:
        """On custody's machine."""
        data = str(self.settings.data_dir)
        own = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        ran = subprocess.run(
            [SLUICE, "trace", self.release, str(file), "--dev", "--data-dir", data, "--json"],
            env=own,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.stdout.startswith("{"), ran.stderr
        return ran.returncode, json.loads(ran.stdout)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    folder = tmp_path / "model"
    folder.mkdir()
    generator = np.random.default_rng(7)
    tensors = {f"layer.{i}.weight": generator.normal(size=(256, 512)).astype(np.float32) for i in range(8)}
    save_file(tensors, folder / "model.safetensors")
    for name, text in {"tokenizer.json": "{}", "config.json": '{"layers": 8}', "README.md": "# A\n"}.items():
        (folder / name).write_text(text, encoding="utf-8")
    small = {name: folder / name for name in ("tokenizer.json", "config.json", "README.md")}
    patterns = {"tokenizer": ["tokenizer.json"], "config": ["config.json"], "model-card": ["README.md"]}
    return Model(folder / "model.safetensors", small, patterns)


def quantised(path: Path, to: Path) -> Path:
    """As somebody leaks it."""
    writer, kind = gguf.GGUFWriter(str(to), "bert"), gguf.GGMLQuantizationType.Q4_0
    for name, values in load_file(path).items():
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return to


async def test_two_partners_marked_copies_a_leak_that_is_traced_and_new_keys(
    tmp_path: Path, model: Model
) -> None:
    settings = Settings(
        dev=True,
        data_dir=tmp_path / "data",
        api_port=0,
        temporal_address="127.0.0.1:0",
        temporal_ui=False,
        leak_allow_addresses=("127.0.0.1",),
        leak_sweep_seconds=5.0,
        leak_poll_seconds=1.0,
    )
    pace = Pace(api=1, downloadable=1, cooling_off=1)
    async with one_machine(settings) as stack:
        story = CopiesStory(stack.settings, stack.urls["api"], tmp_path, model, pace=pace)
        await asyncio.to_thread(story.begin)
        weights = await asyncio.to_thread(_marked, story, tmp_path)
        await asyncio.to_thread(_traced, story, weights, tmp_path)
        rotation = await asyncio.to_thread(_rotate, story)
        await asyncio.sleep(0.1)
        await stack.kill("worker-custody")
        await asyncio.to_thread(_rotated, story, rotation, weights, tmp_path)
        await stack.wait_ready()
        await asyncio.to_thread(_watched, story, weights, tmp_path)
        settings = stack.settings
        story.cast.close()
    _in_the_records(settings, story)
    secret = weights["uni"].read_bytes()[200_000:200_064]
    lying = {
        str(path.relative_to(tmp_path))
        for path in (tmp_path / "data").rglob("*")
        if path.is_file() and secret in path.read_bytes()
    }
    assert lying == set(), "no plaintext of a copy lies in the service"


def _marked(story: CopiesStory, folder: Path) -> dict[str, Path]:
    """Both fetch; the copies differ; a receipt of each is in the log; nobody opens the other's."""
    fetched = {name: story.fetch(name, f"{name}-copy") for name in PARTNERS}
    weights = {name: folder / f"{name}-copy" / "model.safetensors" for name in PARTNERS}
    digests = {name: sha256_of(path) for name, path in weights.items()}
    assert len({*digests.values(), sha256_of(story.model.weights)}) == 3
    issued = {c["holder"]: c for c in story.cast["rosa"].get("releases", story.release, "copies")["items"]}
    for name in PARTNERS:
        sent = fetched[name]["receipts"]
        assert [one["sent"] for one in sent] == [True, True], "one for the weights, one for the rest"
        grant = fetched[name]["grant"]
        kept = story.cast["rosa"].get("releases", story.release, "grants", grant, "receipts")["items"]
        assert {r["copy_digest"] for r in kept} == {one["copy_digest"] for one in sent}
        own = {f["path"]: f["sha256"] for f in issued[name]["files"]}
        assert own == {"model.safetensors": digests[name]}
        assert copy_digest(own) in {r["copy_digest"] for r in kept}, "what was issued is what was received"
    # another partner's account sees no grant of it, and another partner's key opens nothing
    other = story.command(
        "lab", "fetch", story.release, "-g", fetched["uni"]["grant"], "--to", str(folder / "x")
    )
    assert other.returncode == 4
    wrong = story.command("uni", "fetch", story.release, "--to", str(folder / "y"), key="lab")
    assert wrong.returncode == 1
    assert not (folder / "y").exists()
    return weights


def _traced(story: CopiesStory, weights: dict[str, Path], folder: Path) -> None:
    code, report = story.trace(quantised(weights["uni"], folder / "leak.gguf"))
    z = {row["partner"]: row["z"] for row in report["partners"]}
    assert (code, report["accused"]) == (1, ["uni"]), z
    assert set(z) == set(PARTNERS)
    assert abs(z["lab"]) < 5
    code, report = story.trace(weights["lab"])
    assert (code, report["accused"]) == (1, ["lab"])
    code, report = story.trace(story.model.weights)
    assert (code, report["accused"]) == (0, [])
    # without any key of custody's: the exact digest, as the Hub would list it
    ran = story.command("rosa", "release", "copies", story.release, "--sha256", sha256_of(weights["lab"]))
    assert [copy["holder"] for copy in json.loads(ran.stdout)] == ["lab"]


def _rotate(story: CopiesStory) -> str:
    rosa = story.cast["rosa"]
    [grant] = [
        g
        for g in rosa.get("releases", story.release, "grants")["items"]
        if g["holder"] == "uni" and g["kind"] == "key"
    ]
    rosa.post(
        "releases",
        story.release,
        "revoke",
        body={"grant": grant["id"], "reason": "the leak was traced to it"},
    )
    ran = story.command(
        "rosa", "release", "rotate-keys", story.release, "-c", "weights",
        "--reason", "the copy of one partner leaked", "--delete-old", "--yes",
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    [rotation] = rosa.get("releases", story.release, "rotations")["items"]
    assert rotation["disclosed"].startswith("what was disclosed stays disclosed: lab, uni had a key")
    return str(rotation["id"])


def _rotated(story: CopiesStory, rotation: str, weights: dict[str, Path], folder: Path) -> None:
    rosa = story.cast["rosa"]

    def done() -> JSON | None:
        found = rosa.get("releases", story.release, "rotations")
        [one] = [r for r in found["items"] if r["id"] == rotation]
        assert one["status"] != "failed", one
        gone = one["status"] == "done" and {s["fate"] for s in found["superseded"]} == {"deleted"}
        return found if gone else None

    found = wait_for("the rotation to end", done, 90)
    [one] = found["items"]
    assert len(one["done"]) == 2, "the base, and the copy of the partner that still has access"

    def renewed() -> JSON | None:
        grants = rosa.get("releases", story.release, "grants")["items"]
        standing = {g["id"]: g for g in grants if g["live"] and g["kind"] == "key"}
        return standing if not any(g["renew"] for g in standing.values()) else None

    standing = wait_for("envelopes of what was sealed anew", renewed, 60)
    assert {g["holder"] for g in standing.values()} == {"lab", "playground", "query-api"}
    story.fetch("lab", "lab-again", "-c", "weights")
    assert sha256_of(folder / "lab-again" / "model.safetensors") == sha256_of(weights["lab"])
    refused = story.command("uni", "fetch", story.release, "--to", str(folder / "uni-again"))
    assert refused.returncode == 4, "a revoked partner gets nothing more"
    with open_store(story.settings.effective_store_uri) as store:
        there = {info.key.split("/")[1] for info in store.list("artifacts/")}
    assert not there & set(one["done"]), "the old sealed files are gone, as was asked"
    assert set(one["done"].values()) <= there


def _watched(story: CopiesStory, weights: dict[str, Path], folder: Path) -> None:
    """From a stranger's report to the end of a partner's access, by nobody's hand."""
    rosa = story.cast["rosa"]
    with serving(quantised(weights["lab"], folder / "seen.gguf")) as address:
        story._reported(address)

        def traced() -> JSON | None:
            found = [i for i in rosa.get("releases", story.release, "incidents")["items"] if i.get("traces")]
            return (
                found[0]
                if found and (found[0].get("partner") or found[0]["traces"][0].get("not_traced"))
                else None
            )

        incident = wait_for("the sighting to be traced", traced, 90)
    assert (incident["partners"], incident["confidence"]) == (["lab"], "confirmed"), incident
    [trace] = incident["traces"]
    z = {p["partner"]: p["z"] for p in trace["partners"]}
    assert set(z) == set(PARTNERS)
    assert z["lab"] >= 8
    assert abs(z["uni"]) < 5

    def revoked() -> bool | None:
        grants = rosa.get("releases", story.release, "grants")["items"]
        return None if [g for g in grants if g["holder"] == "lab" and g["live"]] else True

    wait_for("the partner's access to end", revoked, 30)
    with open_store(story.settings.effective_store_uri) as store:
        wait_for(
            "what was read of the suspect to go", lambda: None if list(store.list("traces/")) else True, 30
        )


def _in_the_records(settings: Settings, story: CopiesStory) -> None:
    engine = database.connect(settings.effective_database_url)
    with database.reading(engine) as session:
        history: list[Any] = releases.check_events(session, story.release)
        state = releases.load(session, story.release)
    engine.dispose()
    assert state.seq == len(history)
    kinds = [event.type for event in history]
    assert kinds.count("artifact_resealed") == 2
    assert kinds.count("keys_rotation_ended") == 1
    assert kinds.count("sealed_deleted") == 2
