"""Added the vectors of key shares, and of a part of another version, once. Kept to show how; it refuses to run again."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from artifacts import age
from artifacts.body import CHUNK, Layout, part_context, seal_bytes
from artifacts.custody.shares import Dealing, Share, combine, open_share, release_share, unlock
from artifacts.encoding import b64, canonical_json
from artifacts.keys import (
    CustodyHalf,
    RootKey,
    custody_identity,
    custody_keygen,
    custody_recipient,
    partner_identity,
    partner_keygen,
    partner_recipient,
    unwrap_half,
    wrap_half,
    wrap_root,
)
from artifacts.manifest import PAYLOAD_TYPE, Manifest, file_object_key, parse_manifest, statement_of
from artifacts.reader import SealedFile
from artifacts.sealing import seal_tree
from artifacts.signing import SigningKey
from artifacts.sources import BytesBlob
from artifacts.stores.directory import DirectoryStore
from tests.vectors.make_vectors import HERE, VECTORS, put, vector

PLAIN = b"weights that two of three people open\n"
PATH = "model.bin"
SIGN_OFF = "sha256:" + "5a" * 32
OTHER_SIGN_OFF = "sha256:" + "a5" * 32


def put_bad(name: str, ending: str, data: bytes) -> str:
    return put("bad/" + re.sub(r"[^a-z0-9]+", "-", name.lower()) + ending, data)


def main() -> None:
    before = json.loads((HERE / "index.json").read_text())
    if any("shares" in v["name"] for v in before):
        sys.exit("the vectors are frozen; a new format version gets a folder of its own")
    version(before)
    Shares().vectors()
    (HERE / "index.json").write_text(json.dumps(before + VECTORS, indent=1, ensure_ascii=False) + "\n")


def version(before: list[dict[str, Any]]) -> None:
    """The first part of a file under the key of its version 2, in a manifest that says version 1."""
    known = {v["name"]: v for v in before}
    given = known["open model.safetensors"]["inputs"]
    manifest = parse_manifest(
        (HERE / "data" / given["manifest"]).read_bytes(),
        expected_digest=known["read the manifest"]["expected"],
    )
    entry, sealed = manifest.file(given["path"]), (HERE / "data" / given["sealed"]).read_bytes()
    root = RootKey(base64.b64decode(known["unwrap the root"]["expected"]))
    plain = SealedFile(
        BytesBlob(sealed), manifest.artifact_id, entry, root.file_key(manifest.artifact_id, entry.path)
    ).readall()
    layout = Layout(entry.size, entry.part_size)
    later = seal_bytes(
        root.file_key(manifest.artifact_id, entry.path, 2),
        part_context(manifest.artifact_id, entry.path, 0, layout),
        plain[:CHUNK],
    )
    name = "part of another version"
    vector(
        name, "must be refused before any plaintext is handed out", "open-file", attack=name,
        **(given | {"sealed": put_bad(name, ".sealed", later + sealed[len(later) :])}),
    )  # fmt: skip


class Shares:
    """Two artifacts of one small file, each with shares for the same three people, two of whom are needed."""

    def __init__(self) -> None:
        self.custody, self.other_custody, self.signer = (
            custody_keygen(),
            custody_keygen(),
            SigningKey.generate(),
        )
        self.people = {name: partner_keygen() for name in ("ada", "bo", "cy")}
        self.trust = {"verify_key": str(self.signer.verify_key)}
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "source"
            source.mkdir()
            (source / PATH).write_bytes(PLAIN)
            store = DirectoryStore(Path(folder) / "store")
            sealed = [
                seal_tree(
                    source, store, custody_recipient=self.custody.recipient, signer=self.signer, components={"weights": "*"},
                    release="example-1", part_size=CHUNK, artifact_id=name,
                    shares=Dealing(2, {person: key.recipient for person, key in self.people.items()}),
                )
                for name in ("vector-shares-1", "vector-shares-2")
            ]  # fmt: skip
            self.body = (Path(folder) / "store" / file_object_key("vector-shares-1", PATH)).read_bytes()
        self.wrapped = [one.wrapped_root for one in sealed]
        self.manifest, self.foreign = (
            parse_manifest(one.manifest, expected_digest=one.manifest_digest) for one in sealed
        )
        self.shares = {name: self.share(self.manifest, name) for name in self.people}
        self.half = self.half_of(self.manifest, self.wrapped[0])
        dealt = self.dealt(self.manifest)
        secret = combine(dealt, self.manifest.artifact_id, self.shares.values())
        self.root = unlock(dealt, self.manifest.artifact_id, self.half, secret)

    @staticmethod
    def dealt(manifest: Manifest) -> Any:
        return manifest.shares

    def share(self, manifest: Manifest, name: str) -> Share:
        return open_share(
            self.dealt(manifest), manifest.artifact_id, name, partner_identity(self.people[name].identity)
        )

    def half_of(self, manifest: Manifest, wrapped: str) -> CustodyHalf:
        dealt = self.dealt(manifest)
        return unwrap_half(
            wrapped, custody_identity(self.custody.identity), manifest.digest, artifact_id=manifest.artifact_id,
            set_id=dealt.set_id, commitment=dealt.half,
        )  # fmt: skip

    def changed(self, change: Any) -> tuple[bytes, str]:
        """A rightly signed manifest with another content, and its digest."""
        statement = copy.deepcopy(statement_of(self.manifest))
        change(statement["predicate"])
        payload = canonical_json(statement)
        return bytes(self.signer.sign(payload, PAYLOAD_TYPE)), hashlib.sha256(payload).hexdigest()

    def vectors(self) -> None:
        self.good = put("shares/manifest.dsse.json", self.manifest.data)
        vector(
            "read a manifest with key shares", "the root needs two of three people's shares", "read-manifest",
            expected=self.manifest.digest, manifest=self.good, **self.trust,
        )  # fmt: skip
        key = self.root.file_key(self.manifest.artifact_id, PATH)
        vector(
            "open a file of an artifact with key shares", "whoever has the file's key needs none of the shares", "open-file",
            expected=hashlib.sha256(PLAIN).hexdigest(), manifest=self.good, path=PATH,
            sealed=put("shares/model.bin.sealed", self.body), key=b64(key.raw), **self.trust,
        )  # fmt: skip
        self.manifests()
        self.opening()
        self.receiving()
        self.unlocking()

    def manifests(self) -> None:
        def holders(change: Any) -> Any:
            return lambda predicate: change(predicate["shares"]["holders"])

        def says(**members: Any) -> Any:
            return lambda predicate: predicate["shares"].update(members)

        for attack, change in {
            "shares of which one is enough": says(threshold=1),
            "shares of which more are needed than were dealt": says(threshold=4),
            "shares whose holders are out of order": holders(lambda them: them.reverse()),
            "shares of which one holder has two": holders(lambda them: them[1].update(holder="ada")),
            "shares of which one key has two": holders(
                lambda them: them[1].update(recipient=them[0]["recipient"])
            ),
            "shares of which one was dealt twice": holders(
                lambda them: them[1].update(commitment=them[0]["commitment"])
            ),
            "shares of a holder whose name no plan can have": holders(
                lambda them: them[2].update(holder="cy-")
            ),
            "shares for another custody key than the manifest names": says(
                custody=self.other_custody.recipient
            ),
            "shares with a locked root that is cut off": says(
                root=b64(self.dealt(self.manifest).locked_root[:57])
            ),
            "shares that are null": lambda predicate: predicate.update(shares=None),
            "shares with an unknown member": says(note="x"),
        }.items():
            name = put_bad(attack, ".dsse.json", self.changed(change)[0])
            vector(
                attack, "must be refused whole", "read-manifest", attack=attack, manifest=name, **self.trust
            )

    def opening(self) -> None:
        def one(
            name: str,
            holder: str,
            whose: str,
            *,
            attack: bool = True,
            change: Any = None,
            expected: Any = None,
        ) -> None:
            manifest = self.good
            if change is not None:
                manifest = put_bad(name, ".dsse.json", self.changed(change)[0])
            vector(
                name, "must be refused, nothing comes out" if attack else "a holder opens what was dealt to them", "open-share",
                manifest=manifest, holder=holder, identity=self.people[whose].identity, **self.trust,
                **({"attack": name} if attack else {"expected": expected}),
            )  # fmt: skip

        def entry(**members: Any) -> Any:
            return lambda predicate: predicate["shares"]["holders"][0].update(members)

        def sealed(share: Share) -> str:
            return b64(age.encrypt(share.to_bytes(), [partner_recipient(self.people["ada"].recipient)]))

        elsewhere = self.share(self.foreign, "ada")
        mixed = Share(**{n: getattr(self.shares["ada"], n) for n in ("artifact", "set_id", "threshold", "custody", "holder")},
                      words=elsewhere.words)  # fmt: skip
        one(
            "open one's share of the shares",
            "ada",
            "ada",
            attack=False,
            expected=json.loads(self.shares["ada"].to_bytes()),
        )
        one("shares: another holder's key", "ada", "bo")
        one("shares: somebody who holds none", "eve", "ada")
        one("shares: other words than were committed to", "ada", "ada", change=entry(envelope=sealed(mixed)))
        one(
            "shares: a share of another artifact in its place", "ada", "ada",
            change=entry(envelope=sealed(elsewhere), commitment=elsewhere.commitment()),
        )  # fmt: skip

    def released(self, name: str, data: str) -> str:
        return put(f"shares/{name}.released", data.encode())

    def receiving(self) -> None:
        def release(person: str, sign_off: str = SIGN_OFF) -> str:
            return release_share(self.shares[person], self.custody.recipient, sign_off)

        self.given = {person: self.released(person, release(person)) for person in self.people}

        def one(name: str, file: str, *, sign_off: str = SIGN_OFF, expected: Any = None) -> None:
            attack = {"attack": name} if expected is None else {"expected": expected}
            vector(
                name, "must be refused, nothing comes out" if expected is None else "custody opens what a sign-off released",
                "receive-share", manifest=self.good, holder="ada", sign_off=sign_off, released=file,
                custody_identity=self.custody.identity, **self.trust, **attack,
            )  # fmt: skip

        def bad(name: str, data: str, **more: Any) -> None:
            one(
                name,
                put_bad(name, ".released", data.encode()),
                **more,
            )

        one(
            "receive a released share of the shares",
            self.given["ada"],
            expected=json.loads(self.shares["ada"].to_bytes()),
        )
        one("shares: released for another sign-off", self.given["ada"], sign_off=OTHER_SIGN_OFF)
        one("shares: what another holder released", self.given["bo"])
        bad(
            "shares: released for another artifact",
            release_share(self.share(self.foreign, "ada"), self.custody.recipient, SIGN_OFF),
        )
        raw = base64.b64decode(release("ada"))
        bad("shares: released, with one bit changed", b64(raw[:-1] + bytes([raw[-1] ^ 1])))
        from artifacts.custody import shares as module

        forged = module._SUITE.encrypt(
            self.shares["bo"].to_bytes(), custody_recipient(self.custody.recipient).public_key(),
            info=module._release_info(SIGN_OFF, self.manifest.artifact_id, "ada"),
        )  # fmt: skip
        bad("shares: another holder's share under one's own name", b64(bytes(forged)))

    def unlocking(self) -> None:
        wrapped = put("shares/half.wrapped", self.wrapped[0].encode())

        def one(
            name: str,
            people: list[str],
            *,
            manifest: str = "",
            half: str = wrapped,
            expected: Any = None,
            **more: Any,
        ) -> None:
            attack = {"attack": name} if expected is None else {"expected": expected}
            vector(
                name, "must be refused, no key comes out" if expected is None else "custody's half and two shares give the root",
                "unlock-root", manifest=manifest or self.good, wrapped=half, custody_identity=self.custody.identity,
                sign_off=SIGN_OFF, released=[[person, self.given[person]] for person in people], **self.trust, **attack,
            )  # fmt: skip

        def kept(name: str, text: str) -> str:
            return put_bad(name, ".wrapped", text.encode())

        def edited(name: str, change: Any) -> None:
            """A manifest whose sealer signed something else, with a half that was wrapped for it."""
            data, digest = self.changed(change)
            one(
                name, ["ada", "cy"], manifest=put_bad(name, ".dsse.json", data),
                half=kept(name, wrap_half(self.half, self.custody.recipient, digest)),
            )  # fmt: skip

        one("two of three shares give the root", ["ada", "cy"], expected=b64(self.root.raw))
        one("all three shares give the root", ["bo", "ada", "cy"], expected=b64(self.root.raw))
        one("shares: too few", ["ada"])
        one("shares: one share twice", ["ada", "ada"])
        one("shares: none", [])
        two = ["ada", "cy"]
        name = "shares: the half of another artifact"
        one(name, two, half=kept(name, self.wrapped[1]))
        name = "shares: a half that the manifest does not commit to"
        one(
            name,
            two,
            half=kept(name, wrap_half(CustodyHalf.generate(), self.custody.recipient, self.manifest.digest)),
        )
        name = "shares: a wrapped root in place of the half"
        one(name, two, half=kept(name, wrap_root(self.root, self.custody.recipient, self.manifest.digest)))
        foreign = self.dealt(self.foreign)
        edited("shares: the locked root of another artifact", lambda p: p["shares"].update(root=foreign.root))
        edited("shares: a secret that was not dealt", lambda p: p["shares"].update(secret=foreign.secret))
        edited(
            "shares: a root that the manifest does not commit to",
            lambda p: p.update(root_commitment=self.foreign.root_commitment),
        )


if __name__ == "__main__":
    main()
