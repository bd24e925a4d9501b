"""Tools that need no service: keys, sealing, verifying, the audit log offline."""

import hashlib
import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from artifacts.keys import custody_keygen, partner_identity, partner_recipient
from artifacts.signing import VerifyKey
from artifacts.stores.base import StoreFeatures, open_store
from artifacts.stores.directory import DirectoryStore
from orchestrator.trust.audit import export_lines, leaf_bytes
from orchestrator.trust.checkpoints import Checkpoint, NoteSigner, sign_checkpoint
from orchestrator.trust.keys import PrivateKey, PublicKey
from orchestrator.trust.merkle import CompactTree


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- keys


def test_a_partner_key_is_made_as_age_makes_it(sluice, home):
    file = home / "partner.key"
    ran = sluice("partner", "keygen", file, "--json")
    assert ran.code == 0
    recipient = ran.json["recipient"]
    assert str(partner_identity(file.read_text()).recipient) == recipient
    partner_recipient(recipient)
    assert file.read_text().splitlines()[1] == f"# public key: {recipient}"
    assert mode(file) == 0o600


def test_the_private_half_of_a_key_is_never_printed(sluice, home):
    for arguments in (
        ["partner", "keygen", home / "a"],
        ["artifact", "keygen", home / "b"],
        ["key", "new", home / "c", "--no-passphrase"],
    ):
        ran = sluice(*arguments)
        secret = (home / str(arguments[2]).rsplit("/", 1)[1]).read_text().strip().splitlines()[-1]
        assert ran.code == 0
        assert secret not in ran.out + ran.err
        assert "SECRET" not in ran.out.upper()


def test_keys_are_never_overwritten(sluice, home):
    file = home / "key"
    assert sluice("key", "new", file, "--no-passphrase").code == 0
    before = file.read_bytes()
    for group in (["key", "new"], ["partner", "keygen"], ["artifact", "keygen"]):
        extra = ["--no-passphrase"] if group[0] == "key" else []
        assert sluice(*group, file, *extra).code == 8
    assert file.read_bytes() == before


def test_a_key_is_not_written_through_a_link(sluice, home):
    (home / "target").write_text("")
    (home / "link").symlink_to(home / "target")
    assert sluice("partner", "keygen", home / "link").code == 8
    assert (home / "target").read_text() == ""


def test_a_signing_key_is_shown_as_a_plan_pins_it(sluice, home):
    file = home / "id"
    made = sluice("key", "new", file, "--no-passphrase", "--json").json
    shown = sluice("key", "show", "--key", file, "--json").json
    assert shown["public_key"] == made["public_key"]
    assert PublicKey.parse(shown["public_key"]).key_id == shown["key_id"]
    assert PrivateKey.load(file.read_bytes()).public.text() == made["public_key"]


def test_a_protected_key_without_its_passphrase_is_told(sluice, home):
    file = home / "id"
    ran = sluice("key", "new", file, stdin="secret words\nsecret words\n")
    assert ran.code == 0
    assert "secret words" not in ran.out + ran.err
    ran = sluice("key", "show", "--key", file)
    assert ran.code == 8
    assert "passphrase" in ran.err


def test_a_key_that_others_can_read_is_refused(sluice, home):
    file = home / "id"
    sluice("key", "new", file, "--no-passphrase")
    file.chmod(0o640)
    ran = sluice("key", "show", "--key", file)
    assert ran.code == 8
    assert "chmod 600" in ran.err


def test_no_key_at_all_is_told_with_where_was_looked(sluice):
    ran = sluice("key", "show")
    assert ran.code == 8
    assert "id_ed25519" in ran.err


@pytest.mark.parametrize(
    "data",
    [b"", b"nonsense", b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"],
)
def test_what_is_no_key(sluice, home, data):
    file = home / "id"
    file.write_bytes(data)
    file.chmod(0o600)
    assert sluice("key", "show", "--key", file).code == 8


# --- sealing


@pytest.fixture
def weights(home: Path) -> Path:
    folder = home / "model"
    folder.mkdir()
    (folder / "model.bin").write_bytes(bytes(range(256)) * 400)
    (folder / "tokenizer.json").write_text("{}")
    return folder


def seal(sluice, weights: Path, home: Path, *more: object):
    to = custody_keygen().recipient
    (home / "custody.pub").write_text(to + "\n")
    return sluice(
        "artifact", "seal", weights, "--to", home / "custody.pub", "--store", f"dir:{home / 'store'}",
        "-c", "weights=model.bin", "-c", "tokenizer=tokenizer.json", "--id", "art-test-00000001", *more, "--json",
    )  # fmt: skip


def test_a_folder_is_sealed_and_verified(sluice, home, weights):
    sealed = seal(sluice, weights, home)
    assert sealed.code == 0, sealed.err
    assert sealed.json["files"] == 2
    VerifyKey.parse(sealed.json["signer"])
    (home / "signer.pub").write_text(sealed.json["signer"])
    verified = sluice(
        "artifact", "verify", "art-test-00000001", "--store", f"dir:{home / 'store'}",
        "--signer", home / "signer.pub", "--digest", sealed.json["manifest_digest"], "--json",
    )  # fmt: skip
    assert verified.code == 0, verified.err
    assert verified.json["ok"] is True


def test_custodys_public_file_says_what_to_seal_to(sluice, home, weights):
    (home / "custody-public.json").write_text(json.dumps({"recipient": custody_keygen().recipient}))
    given = ["--to", home / "custody-public.json", "--store", f"dir:{home / 'store'}", "--json"]
    given += ["-c", "weights=model.bin", "-c", "tokenizer=tokenizer.json"]
    ran = sluice("artifact", "seal", weights, *given)
    assert ran.code == 0, ran.err
    assert ran.json["files"] == 2


def test_nothing_of_the_plaintext_lies_in_the_store(sluice, home, weights):
    seal(sluice, weights, home)
    stored = b"".join(p.read_bytes() for p in (home / "store").rglob("*") if p.is_file())
    assert (weights / "model.bin").read_bytes()[:64] not in stored


def test_sealing_again_is_recognised(sluice, home, weights):
    first = seal(sluice, weights, home).json
    to = (home / "custody.pub").read_text().strip()
    again = sluice(
        "artifact", "seal", weights, "--to", to, "--store", f"dir:{home / 'store'}",
        "-c", "weights=model.bin", "-c", "tokenizer=tokenizer.json", "--id", "art-test-00000001", "--json",
    )  # fmt: skip
    assert again.json["recognised"] is True
    assert again.json["manifest_digest"] == first["manifest_digest"]


def test_a_changed_byte_in_the_store_is_found(sluice, home, weights):
    sealed = seal(sluice, weights, home).json
    file = next(p for p in (home / "store").rglob("model.bin") if p.is_file())
    data = bytearray(file.read_bytes())
    data[1000] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    ran = sluice(
        "artifact", "verify", "art-test-00000001", "--store", f"dir:{home / 'store'}",
        "--digest", sealed["manifest_digest"], "--json",
    )  # fmt: skip
    assert ran.code == 1
    assert [p["kind"] for p in ran.json["problems"]] == ["differs"]


def test_a_manifest_by_nobody_known_is_not_in_order(sluice, home, weights):
    seal(sluice, weights, home)
    stranger = sluice("artifact", "keygen", home / "stranger.key", "--json").json["public_key"]
    ran = sluice(
        "artifact", "verify", "art-test-00000001", "--store", f"dir:{home / 'store'}", "--signer", stranger
    )
    assert ran.code == 1


def test_a_symbolic_link_is_not_sealed(sluice, home, weights):
    (weights / "more.bin").symlink_to("/etc/passwd")
    ran = seal(sluice, weights, home, "-c", "more=more.bin")
    assert ran.code == 8
    assert "symbolic link" in ran.err


@pytest.mark.parametrize("component", ["weights", "=model.bin", "weights="])
def test_a_component_that_names_no_files(sluice, home, weights, component):
    to = custody_keygen().recipient
    ran = sluice("artifact", "seal", weights, "--to", to, "-s", f"dir:{home / 'store'}", "-c", component)
    assert ran.code == 2


def test_an_artifact_that_is_not_in_the_store(sluice, home):
    (home / "store").mkdir()
    assert (
        sluice(
            "artifact", "verify", "art-missing-0001", "-s", f"dir:{home / 'store'}", "--digest", "ab" * 32
        ).code
        == 4
    )


def test_a_store_that_is_none(sluice):
    assert sluice("artifact", "verify", "art-missing-0001", "-s", "ftp://x", "--digest", "ab" * 32).code == 1


def test_a_manifest_that_nobody_vouches_for_is_not_verified(sluice, home, weights):
    seal(sluice, weights, home)
    assert sluice("artifact", "verify", "art-test-00000001", "--store", f"dir:{home / 'store'}").code == 2


# --- stores


def test_what_a_store_lacks_is_said_before_anything_is_sealed_into_it(sluice, home, weights, monkeypatch):
    assert "warning" not in seal(sluice, weights, home).err
    shutil.rmtree(home / "store")
    monkeypatch.setattr("artifacts.stores.directory.DirectoryStore._probe_links", lambda self: False)
    ran = seal(sluice, weights, home)
    assert ran.code == 0
    assert "no conditional_create: this file system has no hard links" in ran.err
    checked = sluice("store", "check", f"dir:{home / 'store'}", "--json").json
    assert checked["features"]["conditional_create"] is False
    assert checked["features"]["resume"] is True
    assert set(checked["lacking"]) == {name for name, there in checked["features"].items() if not there}
    assert "conditional_create: NO (this file system" in sluice("store", "check", f"dir:{home / 'store'}").out
    lacking = dict.fromkeys(checked["features"], "these credentials may not write here")
    monkeypatch.setattr(DirectoryStore, "features", lambda self: StoreFeatures(lacking=lacking))
    shutil.rmtree(home / "store")
    assert "warning" not in seal(sluice, weights, home).err, (
        "what could not be tried is not known to be missing"
    )


def test_uploads_that_nobody_finished_are_aborted_once_they_are_old(sluice, home):
    place = f"dir:{home / 'store'}"
    with open_store(place) as store:
        store.put("kept", b"x")
        for key in ("old", "fresh"):
            store.begin(key, 2, 4).put_part(0, b"part", hashlib.sha256(b"part").hexdigest())
    old = [
        folder
        for folder in (home / "store" / ".sluice" / "uploads").iterdir()
        if b'"old"' in (folder / "shape").read_bytes()
    ]
    for file in [*old[0].iterdir(), old[0]]:
        os.utime(file, (0, 0))
    assert sluice("store", "clean", place).code == 2, "it asks, and nobody is there"
    assert sluice("store", "clean", place, "--older-than", "soon", "--yes").code == 2
    assert sluice("store", "clean", place, "--yes", "--json").json["aborted"] == ["old"]
    assert sluice("store", "clean", place, "--yes", "--json").json["aborted"] == []
    with open_store(place) as store:
        assert store.get_range("kept", 0, 1) == b"x"
        assert list(store.begin("fresh", 2, 4).parts()) == [0]


@pytest.mark.parametrize("option", [["--kms-key", "k"], ["--lock-mode", "GOVERNANCE"], ["--lock-days", "3"]])
def test_an_option_of_s3_for_another_store_is_refused(sluice, home, weights, option):
    ran = seal(sluice, weights, home, *option)
    assert ran.code == 2
    assert not (home / "store").exists()


@pytest.mark.parametrize(
    "option", [["--lock-mode", "GOVERNANCE"], ["--lock-days", "3"], ["--lock-mode", "x", "--lock-days", "3"]]
)
def test_a_lock_that_makes_no_sense_is_refused(sluice, weights, option):
    ran = sluice(
        "artifact",
        "seal",
        weights,
        "--to",
        custody_keygen().recipient,
        "-s",
        "s3://bucket/p",
        "-c",
        "weights=*",
        *option,
    )
    assert ran.code == 1
    assert "lock_days of at least 1" in ran.err


# --- the audit log


@pytest.fixture
def log(home: Path):
    signer = NoteSigner("sluice.test/log", PrivateKey.generate())
    leaves = [leaf_bytes({"seq": n, "what": "event"}) for n in range(5)]
    tree, notes = CompactTree(), []
    for size, leaf in enumerate(leaves, 1):
        tree.append(leaf)
        if size in {3, 5}:
            notes.append(sign_checkpoint(Checkpoint("sluice.test/log", size, tree.root()), signer))
    file = home / "log.jsonl"
    file.write_bytes(b"".join(export_lines("sluice.test/log", leaves, notes)))
    return file, signer.verifier.text(), notes


def test_a_log_verifies_offline(sluice, home, log):
    file, key, notes = log
    (home / "seen").write_text(notes[0])
    ran = sluice(
        "audit",
        "verify",
        file,
        "--key",
        key,
        "--checkpoint",
        home / "seen",
        "--keep",
        home / "kept",
        "--json",
    )
    assert ran.code == 0, ran.err
    assert (ran.json["size"], ran.json["checkpoints"], ran.json["extends_previous"]) == (5, 2, True)
    assert (home / "kept").read_text() == notes[1]


def test_an_altered_entry_of_the_log_is_named(sluice, home, log):
    file, key, _ = log
    file.write_bytes(file.read_bytes().replace(b'"seq":3', b'"seq":9'))
    ran = sluice("audit", "verify", file, "--key", key)
    assert ran.code == 1
    assert "entry 3" in ran.err


def test_a_log_signed_by_somebody_else(sluice, log):
    file, _, _ = log
    other = NoteSigner("sluice.test/log", PrivateKey.generate()).verifier.text()
    assert sluice("audit", "verify", file, "--key", other).code == 1


def test_a_log_that_was_cut_back_is_found_by_the_checkpoint_kept(sluice, home, log):
    file, key, notes = log
    (home / "seen").write_text(notes[1])
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:5]))
    ran = sluice("audit", "verify", file, "--key", key, "--checkpoint", home / "seen")
    assert ran.code == 1


def glass_leaves(*, closed: bool) -> list[bytes]:
    """The entries of one broken glass among others, as the service writes them."""
    head = {"at": "2026-01-05T09:00:00Z", "command_id": "c"}
    payload = {"step": "query", "attempt": 3, "waives": ["research_window"], "reason": "a patch"}
    events: list[dict[str, object]] = [
        {"type": "hold_placed", "by": "mia", "reason": "look"},
        {"type": "proposed", "by": "sam", "proposal": "p-1", "action": "break_glass", "payload": payload},
        {"type": "proposed", "by": "sam", "proposal": "p-2", "action": "resume", "payload": {}},
        {"type": "endorsed", "by": "lea", "proposal": "p-1"},
        {"type": "proposal_ended", "by": "lea", "proposal": "p-1", "carried": True},
        {"type": "glass_broken", "by": "lea", "review": "r-1", "people": ["lea", "sam"], **payload},
        {"type": "proposed", "by": "sam", "proposal": "p-3", "action": "break_glass", "payload": payload},
        {"type": "proposal_ended", "by": "sluice", "proposal": "p-3", "carried": False},
    ]
    if closed:
        events.append({"type": "review_closed", "by": "sue", "review": "r-1", "outcome": "it was right"})
    return [leaf_bytes({"kind": "event", "release": "gt-1", "event": {**head, **event}}) for event in events]


@pytest.mark.parametrize("closed", [True, False])
def test_a_broken_glass_stands_apart_in_the_log(sluice, home, closed):
    signer = NoteSigner("sluice.test/log", PrivateKey.generate())
    leaves, tree = glass_leaves(closed=closed), CompactTree()
    for leaf in leaves:
        tree.append(leaf)
    note = sign_checkpoint(Checkpoint("sluice.test/log", len(leaves), tree.root()), signer)
    file = home / "log.jsonl"
    file.write_bytes(b"".join(export_lines("sluice.test/log", leaves, [note])))
    verify = ("audit", "verify", file, "--key", signer.verifier.text())
    broken, dropped = sluice(*verify, "--json").json["break_glass"]
    assert (broken["release"], broken["step"], broken["people"]) == ("gt-1", "query", ["lea", "sam"])
    assert (broken["lifts"], broken["reason"]) == (["research_window"], "a patch")
    assert (broken["state"], broken["closed_by"]) == (
        ("review_closed", "sue") if closed else ("review_open", None)
    )
    assert broken["entries"] == [1, 3, 5, *([8] if closed else [])]
    assert dropped["state"] == "not_carried"
    told = " ".join(sluice(*verify).out.split())
    assert "BREAK-GLASS gt-1 at query: research_window lifted by lea, sam: a patch" in told
    assert ("review closed by sue: it was right" if closed else "its review r-1 is OPEN") in told
