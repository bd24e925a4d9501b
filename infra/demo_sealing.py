"""How the demo begins: its cast joins, and the model is sealed by a pipeline and by a transfer worker."""

from __future__ import annotations

import base64
import shutil

from artifacts.custody.shares import Dealing
from artifacts.keys import partner_keygen
from artifacts.sealing import seal_tree
from artifacts.signing import SigningKey
from infra.demo_cast import Voice, wait_for
from infra.demo_telling import StoryError, Telling
from infra.parts import StoreOpener
from infra.provision import read_custody_public, read_monitor_public, write_private
from orchestrator.cli.client import JSON

TERMS = "Research terms 2026-1"
#: Who holds a key share, where the story is told with shares.
HOLDERS = ("ada", "ben", "chloe")


class SealsTheModel(Telling):
    """The beginning: people and machines join, and the model is sealed."""

    def _gather(self) -> None:
        self.show.chapter(
            "People and machines, each with a token of their own; those who decide with a key of their own"
        )
        cast = self.cast
        cast.join("rosa", "Rosa Keller", ["release_manager"])
        cast.join("pipeline", "Training pipeline", ["mlops"], kind="machine")
        for name, title in (
            ("ada", "Ada Lindqvist"),
            ("ben", "Ben Okoro"),
            ("chloe", "Chloé Martin"),
            ("dev", "Dev Raman"),
            ("elif", "Elif Aydin"),
        ):
            cast.join(name, title, ["approver"], signs=True)
        self.keys = {name: partner_keygen() for name in ("uni", "playground", "query-api")}
        if self.shares is not None:
            self._dealing = Dealing(self.shares, {name: self._share_key(name) for name in HOLDERS})
        rosa = cast["rosa"]
        rosa.post("partners", body={"id": "uni", "name": "Northern University"})
        rosa.post("partners", "uni", "keys", body={"recipient": self.keys["uni"].recipient})
        cast.join("uni-account", "Northern University", ["partner"], kind="partner", partner="uni")
        cast["uni-account"].post("partners", "uni", "terms", body={"terms": TERMS})
        self.show.say(
            "1 release manager, 1 pipeline, 5 approvers (1 from outside), 1 partner that accepted the terms"
        )

    def _share_key(self, name: str) -> str:
        """A key for somebody's key shares, on a machine of their own; its public half."""
        pair = partner_keygen()
        file = self.folder / "people" / name / "share.key"
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(file, pair.identity.encode() + b"\n")
        self.cast[name].share_key = file
        return pair.recipient

    def _seal(self) -> dict[str, str]:
        """Seal the weights as a pipeline does, the rest as a transfer worker does; component → artifact."""
        self.show.chapter("Register components, seal them, store them")
        pipeline = self.cast["pipeline"]
        self.moment("sealing")
        weights = self._seal_weights(pipeline)
        self.show.say(f"weights sealed where they are, without a secret of the service: {weights}")
        rest = self._ingest(pipeline)
        self.show.say(f"tokenizer, config and model card sealed by a transfer worker: {rest}")
        return {"weights": weights, **dict.fromkeys(self.model.patterns, rest)}

    def _seal_weights(self, pipeline: Voice) -> str:
        custody = read_custody_public(self.settings.effective_custody_public_file)
        monitor = read_monitor_public(self.settings.effective_monitor_public_file)
        store_uri = self.settings.effective_store_uri
        with self.show.bar("sealing the weights") as progress, StoreOpener(self.settings)(store_uri) as store:
            sealed = seal_tree(
                self.model.weights,
                store,
                custody_recipient=custody.recipient,
                signer=SigningKey.generate(),
                components={"weights": "*"},
                release=self.release,
                progress=progress,
                state_dir=self.folder / "pipeline" / "sealing",
                monitor=None if monitor is None else monitor.recipient,
                shares=self._dealing,
            )
        if self._dealing is not None:
            told = f"{self._dealing.threshold} of {', '.join(sorted(self._dealing.holders))}"
            self.show.say(f"its key needs custody and the key shares of {told}")
        if sealed.signature is None:
            raise StoryError("sealing made no weight signature: there is no leak monitor")
        where = f"artifacts/{sealed.artifact_id}/files/{self.model.weights.name}"
        with StoreOpener(self.settings)(store_uri) as store, self.model.weights.open("rb") as plain:
            lying = store.stat(where)
            assert lying is not None
            if plain.read(4096) in store.get_range(where, 0, min(lying.size, 1 << 20)):
                raise StoryError("the sealed file holds plaintext")
        body = {
            "manifest": base64.b64encode(sealed.manifest).decode(),
            "digest": f"sha256:{sealed.manifest_digest}",
            "location": sealed.store_uri,
            "wrapped_root": sealed.wrapped_root,
            "signature": base64.b64encode(sealed.signature).decode(),
        }
        self.show.say(
            f"a weight signature of {len(sealed.signature) / 1e6:.2f} MB, sealed to the leak monitor"
        )
        return str(pipeline.post("artifacts", body=body)["id"])

    def _ingest(self, pipeline: Voice) -> str:
        ingest_dir = self.settings.effective_ingest_dir
        assert ingest_dir is not None
        folder = ingest_dir / "model"
        for name, file in self.model.small.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
        body: JSON = {"source": "model", "store": "default", "components": dict(self.model.patterns)}
        if self._dealing is not None:
            body["shares"] = {"threshold": self._dealing.threshold, "holders": dict(self._dealing.holders)}
        started = pipeline.post("ingests", body=body)
        again = pipeline.post("ingests", body=body)
        if started["id"] != again["id"]:
            raise StoryError("the same ingest started twice is two")

        def done() -> JSON | None:
            found = pipeline.get("ingests", started["id"])
            if found["status"] == "failed":
                raise StoryError("the ingest failed")
            return found if found["status"] == "done" else None

        return str(wait_for("the ingest", done)["artifact"])
