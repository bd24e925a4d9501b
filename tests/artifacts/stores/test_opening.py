"""The plaintext at `open`, and whether the public can check it with `model_signing`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from artifacts.errors import ObjectExists, SourceChangedError, SourceError
from artifacts.stores import Store, open_store
from artifacts.stores.opening import (
    SIGNATURE,
    SignatureRefused,
    elliptic_key_signer,
    publish_key_record,
    publish_plaintext,
    verify_plaintext,
)
from tests.artifacts.stores.conftest import Place
from tests.simulators.hub import HubSimulator

BIG = bytes(range(251)) * 40_000  # 10 MB


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "key.pem", tmp_path / "key.pub"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "plain"
    (tree / "sub").mkdir(parents=True)
    (tree / "README.md").write_text("# Sparrow\n")
    (tree / "config.json").write_text("{}")
    (tree / "sub" / "model.safetensors").write_bytes(BIG)
    (tree / ".gitattributes").write_text("left out")
    return tree


def download(store: Store, to: Path) -> Path:
    for info in store.list():
        path = to / info.key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get_range(info.key, 0, info.size))
    return to


def test_a_published_tree_is_checked_by_the_public_tool(
    tree: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    with open_store(f"dir:{tmp_path}/open") as store:
        stored = publish_plaintext(store, tree, elliptic_key_signer(keys[0]))
        assert set(stored) == {"README.md", "config.json", "sub/model.safetensors", SIGNATURE}
        got = download(store, tmp_path / "got")
    verify_plaintext(got, keys[1])
    done = subprocess.run(
        [Path(sys.executable).with_name("model_signing"), "verify", "key", "--public_key", keys[1],
         "--signature", got / SIGNATURE, got],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("attack", ["flipped", "dropped", "added", "renamed", "foreign-key", "no-signature"])
def test_a_download_that_is_not_what_was_signed_is_refused(
    attack: str, tree: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    with open_store(f"dir:{tmp_path}/open") as store:
        publish_plaintext(store, tree, elliptic_key_signer(keys[0]))
        got = download(store, tmp_path / "got")
    public, weights = keys[1], got / "sub" / "model.safetensors"
    if attack == "flipped":
        weights.write_bytes(bytes([BIG[0] ^ 1]) + BIG[1:])
    elif attack == "dropped":
        weights.unlink()
    elif attack == "added":
        (got / "evil.py").write_text("import os")
    elif attack == "renamed":
        weights.rename(got / "sub" / "other.safetensors")
    elif attack == "foreign-key":
        other = ec.generate_private_key(ec.SECP256R1()).public_key()
        public.write_bytes(
            other.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        )
    else:
        (got / SIGNATURE).unlink()
    with pytest.raises(SignatureRefused):
        verify_plaintext(got, public)


@pytest.mark.stack
def test_on_the_hub_the_plaintext_goes_without_a_copy_on_disk(
    hub: HubSimulator, hub_place: Place, tree: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    (tree / "README.md").write_text("---\nlicense: mit\n---\n# Sparrow\n")
    with hub_place.open() as store:
        publish_plaintext(store, tree, elliptic_key_signer(keys[0]))
        publish_plaintext_again = {o.key for o in store.list()}
        assert publish_plaintext_again == {"config.json", "sub/model.safetensors", SIGNATURE}
    files = hub.files(hub_place.uri.removeprefix("hf:"))
    got = tmp_path / "got"
    for name, data in files.items():
        (got / name).parent.mkdir(parents=True, exist_ok=True)
        (got / name).write_bytes(data)
    verify_plaintext(got, keys[1])
    spool = hub_place.options["spool"]
    assert not spool.exists() or not [p for p in spool.rglob("*") if p.is_file()]


@pytest.mark.parametrize(
    "bad", ["link-to-file", "link-to-folder", "pipe", "old-signature", "empty", "missing"]
)
def test_a_tree_that_cannot_be_published_is_refused_before_anything_is_stored(
    bad: str, tree: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    if bad == "link-to-file":
        (tree / "x").symlink_to("/etc/passwd")
    elif bad == "link-to-folder":
        (tree / "x").symlink_to("/etc")
    elif bad == "pipe":
        os.mkfifo(tree / "x")
    elif bad == "old-signature":
        (tree / SIGNATURE).write_text("{}")
    elif bad == "empty":
        tree = tmp_path / "empty"
        tree.mkdir()
    else:
        tree = tmp_path / "nothing"
    with open_store(f"dir:{tmp_path}/open") as store:
        with pytest.raises(SourceError):
            publish_plaintext(store, tree, elliptic_key_signer(keys[0]))
        assert list(store.list()) == []


def test_a_file_that_changes_while_it_is_published_leaves_no_signature(
    tree: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    real = elliptic_key_signer(keys[0])

    def sign_and_change(folder: Path, signature: Path, /) -> None:
        real(folder, signature)
        (folder / "config.json").write_text('{"changed": true}')

    with open_store(f"dir:{tmp_path}/open") as store:
        with pytest.raises(SourceChangedError):
            publish_plaintext(store, tree, sign_and_change)
        assert store.stat(SIGNATURE) is None


def test_publishing_again_after_a_cut_goes_on_and_other_bytes_are_refused(
    tree: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    with open_store(f"dir:{tmp_path}/open") as store:
        store.put("sub/model.safetensors", BIG)  # an earlier run came this far
        publish_plaintext(store, tree, elliptic_key_signer(keys[0]))
    with open_store(f"dir:{tmp_path}/other") as store:
        store.put("sub/model.safetensors", BIG[:-1] + b"x")
        with pytest.raises(ObjectExists, match="other bytes"):
            publish_plaintext(store, tree, elliptic_key_signer(keys[0]))


def test_the_key_record_is_published_as_it_is_signed(tmp_path: Path) -> None:
    with open_store(f"dir:{tmp_path}/s") as store:
        publish_key_record(store, b'{"signed": "record"}', "open/aa/keys.json")
        publish_key_record(store, b'{"signed": "record"}', "open/aa/keys.json")
        with pytest.raises(ObjectExists):
            publish_key_record(store, b'{"signed": "other"}', "open/aa/keys.json")
