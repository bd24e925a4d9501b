"""`sluice fetch` and `open`: a partner's copy, bit for bit, and every forgery refused before a byte is written."""

import json
import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from artifacts.envelope import EnvelopePayload, file_keys, make_envelope, make_public_record
from artifacts.keys import custody_identity, custody_keygen, partner_keygen, unwrap_root
from artifacts.manifest import parse_manifest
from artifacts.sealing import seal_tree
from artifacts.signing import SigningKey
from artifacts.stores import open_store
from artifacts.stores.directory import DirectoryStore
from infra.links import StoreLinks
from orchestrator.cli import client as client_module
from orchestrator.domain.plan import recipient_digest
from orchestrator.trust.audit import leaf_bytes
from orchestrator.trust.checkpoints import Checkpoint, NoteSigner, format_proof, sign_checkpoint
from orchestrator.trust.keys import PrivateKey
from orchestrator.trust.merkle import CompactTree
from tests.artifacts.stores.servers import moto_server

RELEASE, STEP, GRANT = "mini-1", "download", "download.4.uni"
NOW = datetime.now(UTC).replace(microsecond=0)
PLAIN = {"model.bin": bytes(range(256)) * 900, "tokenizer.json": b"{}"}


@dataclass
class World:
    """A sealed artifact, custody's keys, and what the service would hand to a partner."""

    home: Path
    store: Path
    manifest: bytes
    digest: str
    payload: EnvelopePayload
    custody: SigningKey
    log: NoteSigner
    recipient: str

    def granted(self, grant: str = GRANT, recipient: str | None = None) -> dict:
        digest = recipient_digest(recipient or self.recipient)
        return {"grant": grant, "holder": "uni", "recipient": digest}

    def logged(self, **changes) -> dict:
        entry = {
            "kind": "custody",
            "action": "unwrap",
            "release": RELEASE,
            "step": STEP,
            "manifests": {self.payload.artifact_id: f"sha256:{self.digest}"},
            "grants": [self.granted()],
            "at": NOW.isoformat(),
            **changes,
        }
        leaf, tree = leaf_bytes(entry), CompactTree()
        tree.append(leaf)
        note = sign_checkpoint(Checkpoint(self.log.name, 1, tree.root()), self.log)
        return {"leaf": leaf.decode(), "proof": format_proof(0, [], note)}

    def envelope(self, payload: EnvelopePayload | None = None, *, signer: SigningKey | None = None) -> bytes:
        return make_envelope(payload or self.payload, [self.recipient], signer or self.custody)

    def serve(self, envelope: bytes, *, manifest: bytes | None = None, links=None, **grant):
        shown = {
            "id": GRANT, "release": RELEASE, "kind": "key", "live": True, "on_hold": False, "components": ["weights"],
            "envelopes": [self.payload.artifact_id],
            "artifacts": [{"id": self.payload.artifact_id, "manifest_digest": f"sha256:{self.digest}", "location": f"dir:{self.store}"}],
            **grant,
        }  # fmt: skip

        def answer(request: httpx.Request) -> httpx.Response:
            path = request.url.path
            if path == f"/v1/releases/{RELEASE}/grants":
                return httpx.Response(200, json={"items": [shown], "next_cursor": None})
            if path.endswith("/links") and links is not None:
                return links(json.loads(request.content))
            if "/envelopes/" in path:
                return httpx.Response(200, content=envelope)
            if "/manifests/" in path:
                return httpx.Response(200, content=manifest or self.manifest)
            return httpx.Response(
                404, json={"title": "Not found", "status": 404, "code": "not-found", "reasons": []}
            )

        return httpx.MockTransport(answer)

    @property
    def trust(self) -> list[str]:
        return ["--custody-key", str(self.custody.verify_key), "--log-key", self.log.verifier.text()]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> World:
    folder, home = tmp_path_factory.mktemp("plain"), tmp_path_factory.mktemp("world")
    for name, data in PLAIN.items():
        (folder / name).write_bytes(data)
    custody, holder = custody_keygen(), partner_keygen()
    done = seal_tree(
        folder,
        DirectoryStore(home / "store"),
        custody_recipient=custody.recipient,
        signer=SigningKey.generate(),
        components={"weights": "model.bin", "tokenizer": "tokenizer.json"},
    )
    manifest = parse_manifest(done.manifest, expected_digest=done.manifest_digest)
    root = unwrap_root(
        done.wrapped_root,
        custody_identity(custody.identity),
        manifest.digest,
        artifact_id=manifest.artifact_id,
        commitment=manifest.root_commitment,
    )
    key = home / "partner.key"
    key.write_text(holder.identity + "\n")
    key.chmod(0o600)
    world = World(
        home,
        home / "store",
        done.manifest,
        done.manifest_digest,
        EnvelopePayload(
            artifact_id=manifest.artifact_id,
            manifest_digest=manifest.digest,
            release=RELEASE,
            step=STEP,
            grant=GRANT,
            keys=file_keys(root, manifest),
            issued_at=NOW,
            not_after=NOW + timedelta(days=30),
        ),
        SigningKey.generate(),
        NoteSigner("sluice.test/log", PrivateKey.generate()),
        holder.recipient,
    )
    world.payload = replace(world.payload, log=world.logged())
    return world


@pytest.fixture
def fetch(made, home, sluice, monkeypatch):
    def run(transport, *more, trust=True):
        monkeypatch.setattr(client_module, "TRANSPORT", transport)
        monkeypatch.setenv("SLUICE_TOKEN", "slt_x")
        arguments = ["fetch", RELEASE, "--to", home / "copy", "-i", made.home / "partner.key"]
        return sluice(*arguments, *(made.trust if trust else []), *more, "--json")

    return run


def nothing_written(home: Path) -> bool:
    return (
        not any(p.is_file() and p.name in PLAIN for p in (home / "copy").rglob("*"))
        if (home / "copy").exists()
        else True
    )


def test_a_partner_gets_its_copy_bit_for_bit(fetch, made, home):
    ran = fetch(made.serve(made.envelope()))
    assert ran.code == 0, ran.err
    assert {p.name: p.read_bytes() for p in (home / "copy").iterdir()} == PLAIN
    assert {f["path"] for f in ran.json["files"]} == set(PLAIN)
    assert (home / "copy" / "model.bin").stat().st_mode & 0o077 == 0


def test_fetching_again_finds_what_is_there(fetch, made, home):
    fetch(made.serve(made.envelope()))
    ran = fetch(made.serve(made.envelope()))
    assert ran.code == 0
    assert all(f["was_there"] for f in ran.json["files"])


def test_another_file_in_the_way_is_not_overwritten(fetch, made, home):
    (home / "copy").mkdir()
    (home / "copy" / "model.bin").write_bytes(b"mine")
    assert fetch(made.serve(made.envelope())).code == 8
    assert (home / "copy" / "model.bin").read_bytes() == b"mine"


def test_one_component_alone(fetch, made, home):
    ran = fetch(made.serve(made.envelope()), "-c", "tokenizer")
    assert [f["path"] for f in ran.json["files"]] == ["tokenizer.json"]


def test_keys_are_pinned_and_never_taken_from_the_service(fetch, made, home):
    ran = fetch(made.serve(made.envelope()), trust=False)
    assert ran.code == 8
    assert "never taken from the service" in ran.error["detail"]
    folder = home / "home" / "config" / "sluice"
    folder.mkdir(parents=True)
    (folder / "custody.pub").write_text(f"# handed over in person\n{made.custody.verify_key}\n")
    (folder / "log.pub").write_text(made.log.verifier.text() + "\n")
    assert fetch(made.serve(made.envelope()), trust=False).code == 0


def test_an_envelope_without_its_log_entry(fetch, made, home):
    ran = fetch(made.serve(made.envelope(replace(made.payload, log=None))))
    assert ran.code == 1
    assert nothing_written(home)


@pytest.mark.parametrize(
    "changes",
    [
        {"release": "other-1"},
        {"step": "open"},
        {"action": "refused"},
        {"kind": "event"},
        {"grants": [{"grant": "download.4.ngo"}]},
        {"grants": []},
        {"manifests": {}},
    ],
)
def test_a_log_entry_about_something_else(fetch, made, home, changes):
    ran = fetch(made.serve(made.envelope(replace(made.payload, log=made.logged(**changes)))))
    assert ran.code == 1
    assert "about another" in ran.error["detail"]
    assert nothing_written(home)


def test_a_log_entry_signed_by_another_log(fetch, made, home):
    other = replace(made, log=NoteSigner("sluice.test/log", PrivateKey.generate()))
    ran = fetch(made.serve(made.envelope(replace(made.payload, log=other.logged()))))
    assert ran.code == 1
    assert nothing_written(home)


@pytest.mark.parametrize("log", [{}, {"leaf": "{}"}, {"leaf": 1, "proof": 2}, {"leaf": "x", "proof": "y"}])
def test_a_log_member_that_is_none(fetch, made, home, log):
    assert fetch(made.serve(made.envelope(replace(made.payload, log=log)))).code == 1
    assert nothing_written(home)


def test_an_envelope_that_custody_did_not_sign(fetch, made, home):
    ran = fetch(made.serve(made.envelope(signer=SigningKey.generate())))
    assert ran.code == 1
    assert nothing_written(home)


def test_an_envelope_whose_time_is_over(fetch, made, home):
    old = replace(made.payload, issued_at=NOW - timedelta(days=9), not_after=NOW - timedelta(days=1))
    assert fetch(made.serve(made.envelope(old))).code == 1
    assert nothing_written(home)


def test_a_log_entry_about_an_envelope_for_another_key(fetch, made, home):
    entry = made.logged(grants=[made.granted(recipient=partner_keygen().recipient)])
    ran = fetch(made.serve(made.envelope(replace(made.payload, log=entry))))
    assert ran.code == 1
    assert "another recipient" in ran.error["detail"]
    assert nothing_written(home)


@pytest.mark.parametrize("changes", [{"release": "other-1"}, {"grant": "download.4.ngo"}])
def test_an_envelope_of_another_release_or_grant(fetch, made, home, changes):
    payload = replace(made.payload, **changes)
    entry = {"release": payload.release, "grants": [made.granted(payload.grant)]}
    payload = replace(payload, log=made.logged(**entry))
    ran = fetch(made.serve(made.envelope(payload)))
    assert ran.code == 1
    assert "for something else" in ran.error["title"]
    assert nothing_written(home)


def test_a_manifest_that_is_not_the_one_named(fetch, made, home):
    altered = json.loads(made.manifest)
    altered["signatures"] = altered["signatures"][:1]
    payload = made.manifest.replace(b'"payload":"e', b'"payload":"f', 1)
    assert fetch(made.serve(made.envelope(), manifest=payload)).code == 1
    assert nothing_written(home)


def test_somebody_elses_key_opens_nothing(fetch, made, home):
    other = home / "other.key"
    other.write_text(partner_keygen().identity)
    other.chmod(0o600)
    assert fetch(made.serve(made.envelope()), "-i", other).code == 1
    assert nothing_written(home)


def test_a_key_that_others_can_read_is_not_used(fetch, made, home):
    other = home / "open.key"
    other.write_text((made.home / "partner.key").read_text())
    other.chmod(0o644)
    assert fetch(made.serve(made.envelope()), "-i", other).code == 8


@pytest.mark.parametrize(
    ("grant", "code"),
    [({"live": False}, 4), ({"kind": "access"}, 4), ({"on_hold": True}, 5), ({"envelopes": []}, 5)],
)
def test_a_grant_that_gives_no_key(fetch, made, grant, code):
    assert fetch(made.serve(made.envelope(), **grant)).code == code


def test_files_that_lie_elsewhere(fetch, made, home):
    moved = home / "moved"
    made.store.rename(moved)
    try:
        assert fetch(made.serve(made.envelope())).code == 4
        assert fetch(made.serve(made.envelope()), "--from", f"dir:{moved}").code == 0
    finally:
        moved.rename(made.store)


@pytest.fixture(scope="module")
def bucket(made):
    """The sealed files in a bucket of a real S3 server, and links into it signed as the service signs them."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with moto_server() as server:
        server.client().create_bucket(Bucket="sealed")
        store = open_store("s3://sealed/x", **server.options)
        with DirectoryStore(made.store) as here:
            for info in here.list():
                store.put(info.key, here.get_range(info.key, 0, info.size))
        yield StoreLinks("s3://sealed/x", lambda _uri: store)
        store.close()


def in_bucket(made, links, location="s3://sealed/x"):
    here = {"id": made.payload.artifact_id, "manifest_digest": f"sha256:{made.digest}", "location": location}
    return made.serve(made.envelope(), links=links, components=["weights", "tokenizer"], artifacts=[here])


def test_files_in_s3_come_through_links_without_credentials_of_the_partners_own(
    fetch, made, home, bucket, monkeypatch
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    asked = []

    def links(body):
        asked.append(body["paths"])
        parts = frozenset({"weights", "tokenizer"})
        urls = bucket.make(made.manifest, f"sha256:{made.digest}", parts, body["paths"], 60)
        items = [{"path": path, "url": url} for path, url in urls.items()]
        return httpx.Response(200, json={"items": items, "expires_in": 60, "server_time": NOW.isoformat()})

    ran = fetch(in_bucket(made, links))
    assert ran.code == 0, ran.err
    assert {p.name: p.read_bytes() for p in (home / "copy").iterdir()} == PLAIN
    assert asked[-1] == ["model.bin", "tokenizer.json"]
    assert "Signature" not in ran.out + ran.err


def test_links_that_the_service_refuses_end_the_fetch_with_its_reason(fetch, made, home):
    def links(_body):
        problem = {"title": "On hold", "status": 409, "code": "conflict", "detail": "the release is on hold"}
        return httpx.Response(409, json={**problem, "reasons": [{"code": "hold", "message": "wait"}]})

    ran = fetch(in_bucket(made, links))
    assert ran.code == 5
    assert "on hold" in ran.error["detail"]
    assert nothing_written(home)


def test_where_the_service_makes_no_links_the_store_itself_is_asked(fetch, made, home, monkeypatch):
    """With the partner's own credentials: here there is nobody at the endpoint, and that is what is told."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")

    def links(_body):
        problem = {"title": "No", "status": 409, "code": "conflict", "detail": "no links there"}
        return httpx.Response(
            409, json={**problem, "reasons": [{"code": "no-links", "message": "read them"}]}
        )

    ran = fetch(in_bucket(made, links, location="s3://theirs/x"))
    assert ran.code == 7
    assert "s3://theirs/x" in ran.error["detail"]


def test_what_is_here_already_is_opened_without_the_service(made, home, sluice):
    (home / "e.age").write_bytes(made.envelope())
    (home / "m.json").write_bytes(made.manifest)
    arguments = [
        "open",
        home / "e.age",
        "-m",
        home / "m.json",
        "--from",
        f"dir:{made.store}",
        "--to",
        home / "copy",
    ]
    ran = sluice(*arguments, "-i", made.home / "partner.key", *made.trust, "--json")
    assert ran.code == 0, ran.err
    assert {p.name: p.read_bytes() for p in (home / "copy").iterdir()} == PLAIN


def test_a_public_record_needs_no_key(made, home, sluice):
    entry = made.logged(grants=[{"grant": GRANT, "holder": "public", "recipient": None}])
    payload = replace(made.payload, not_after=None, log=entry)
    (home / "record.json").write_bytes(make_public_record(payload, made.custody))
    (home / "m.json").write_bytes(made.manifest)
    arguments = [
        "open",
        home / "record.json",
        "--public",
        "-m",
        home / "m.json",
        "--from",
        f"dir:{made.store}",
    ]
    ran = sluice(*arguments, "--to", home / "copy", *made.trust, "--json")
    assert ran.code == 0, ran.err
    assert {p.name: p.read_bytes() for p in (home / "copy").iterdir()} == PLAIN


@pytest.mark.parametrize("data", [b"", b"age-encryption.org/v1\n", b"\x00" * 500, b"{}"])
def test_what_is_no_envelope(made, home, sluice, data):
    (home / "e.age").write_bytes(data)
    (home / "m.json").write_bytes(made.manifest)
    arguments = [
        "open",
        home / "e.age",
        "-m",
        home / "m.json",
        "--from",
        f"dir:{made.store}",
        "--to",
        home / "copy",
    ]
    assert sluice(*arguments, "-i", made.home / "partner.key", *made.trust).code == 1
    assert nothing_written(home)


def test_custodys_public_file_pins_both_keys(fetch, made, home):
    """As the stack writes it and the lab hands it out."""
    folder = home / "home" / "config" / "sluice"
    folder.mkdir(parents=True)
    keys = {
        "recipient": "x",
        "envelope_key": str(made.custody.verify_key),
        "log_key": made.log.verifier.text(),
    }
    (folder / "custody-public.json").write_text(json.dumps(keys))
    assert fetch(made.serve(made.envelope()), trust=False).code == 0
    (folder / "custody-public.json").write_text(json.dumps({"recipient": "x"}))
    ran = fetch(made.serve(made.envelope()), trust=False)
    assert ran.code == 8
    assert "envelope_key" in ran.error["detail"]
