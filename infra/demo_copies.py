"""How the demo ends for those who get the model: the partner's own machine, and anybody."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from artifacts.envelope import open_public_record
from artifacts.fetching import fetch_artifact
from infra.demo_cast import until_answered, wait_for
from infra.demo_telling import StoryError, Telling, sha256_of
from infra.parts import StoreOpener
from infra.provision import read_custody_public, write_private
from orchestrator.cli.client import JSON
from orchestrator.cli.failures import Refused


class OpensCopies(Telling):
    """The end: the partner, then anybody, opens what was released, and it is the original."""

    def _nothing_for_the_partner_yet(self) -> None:
        found = self.cast["uni-account"].get("releases", self.release, "grants")["items"]
        if any(grant["kind"] == "key" for grant in found):
            raise StoryError("the partner has a key before the gate opened")

    def _partner_fetches(self) -> JSON:
        """The partner's own machine: its token, its key, the keys that it pinned; nothing else of ours."""
        self.show.chapter("The partner fetches its copy, verifies and opens it")
        home = self.folder / "partner"
        config, copy = home / "config" / "sluice", home / "copy"
        config.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (config / "partner.key").exists():
            write_private(config / "partner.key", self.keys["uni"].identity.encode() + b"\n")
        public = read_custody_public(self.settings.effective_custody_public_file)
        (config / "custody.pub").write_text(public.envelope_key + "\n", encoding="utf-8")
        (config / "log.pub").write_text(public.log_key + "\n", encoding="utf-8")
        self.moment("fetching")
        sluice = Path(sys.executable).parent / "sluice"

        def fetch() -> None:
            command = [str(sluice), "fetch", self.release, "--to", str(copy)]
            done = subprocess.run(  # noqa: S603 - our own command
                command, env=self._partner_environment(home), stdout=subprocess.PIPE, text=True, check=False
            )
            if done.returncode != 0:
                raise Refused(503, "fetch", "the fetch did not succeed", f"exit code {done.returncode}")

        until_answered(fetch)
        originals = {self.model.weights.name: self.model.weights, **self.model.small}
        compared = {name: (sha256_of(file), sha256_of(copy / name)) for name, file in originals.items()}
        extra = {str(p.relative_to(copy)) for p in copy.rglob("*") if p.is_file()} - set(originals)
        original, opened = compared[self.model.weights.name]
        identical = not extra and all(before == after for before, after in compared.values())
        if not identical:
            raise StoryError("the partner's copy is not the original")
        self.show.say(f"{len(compared)} files, identical bit for bit; weights sha256 {opened[:16]}…")
        return {"sha256_original": original, "sha256_opened": opened, "identical": identical}

    def _partner_environment(self, home: Path) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith("SLUICE_")}
        return own | {
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_STATE_HOME": str(home / "state"),
            "SLUICE_URL": self.url,
            "SLUICE_TOKEN": self.cast.tokens["uni-account"],
        }

    def _public_opens(self, artifacts: Mapping[str, str]) -> JSON:
        """Anybody: the public key record beside the sealed files opens them, without a token."""
        self.show.chapter("Open: anybody can read the public key record and open the files")
        public = read_custody_public(self.settings.effective_custody_public_file)
        artifact = artifacts["weights"]
        with StoreOpener(self.settings)(self.settings.effective_store_uri) as store:

            def record_key() -> str | None:
                keys = [info.key for info in store.list(f"public/{self.release}/")]
                return next((key for key in keys if key.endswith(f"/{artifact}.json")), None)

            key = wait_for("the public key record", record_key)
            info = store.stat(key)
            assert info is not None
            payload = open_public_record(store.get_range(key, 0, info.size), verify_keys=[public.verify_key])
            where = f"artifacts/{artifact}/manifest.dsse.json"
            found = store.stat(where)
            assert found is not None
            manifest = store.get_range(where, 0, found.size)
            copy = self.folder / "public" / "copy"
            with self.show.bar("opening as the public") as progress:
                fetch_artifact(store, manifest, payload, copy, progress=progress)
        opened = sha256_of(copy / self.model.weights.name)
        if opened != sha256_of(self.model.weights):
            raise StoryError("what the public opens is not the original")
        self.show.say("anybody opens the sealed weights with the public record: identical")
        return {"record": key, "sha256_opened": opened}
