"""Plaintext that lies in a store is sealed straight out of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import SourceChangedError, SourceError
from artifacts.source_store import StoreTree, open_source
from artifacts.stores.base import ObjectInfo
from artifacts.stores.directory import DirectoryStore
from tests.artifacts.sealed_world import PART, World, noise, tree


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.fixture
def plain(tmp_path: Path) -> DirectoryStore:
    store = DirectoryStore(tmp_path / "plain")
    store.put("weights.bin", noise(3 * PART + 17))
    store.put("tokenizer/vocab.txt", b"hello")
    store.put("README.md", b"# a model card")
    return store


def seal(world: World, plain: Any) -> Any:
    from artifacts.sealing import seal_tree

    return seal_tree(
        StoreTree(plain),
        world.store,
        custody_recipient=world.custody.recipient,
        signer=world.signer,
        components={"weights": "*.bin", "rest": "*"},
        part_size=PART,
        state_dir=world.state,
    )


def test_plaintext_in_a_store_is_sealed_bit_for_bit_and_resealing_it_is_recognised(
    world: World, plain: DirectoryStore, tmp_path: Path
) -> None:
    sealed = seal(world, plain)
    world.fetch(sealed, tmp_path / "copy")
    assert tree(tmp_path / "copy") == {
        "weights.bin": noise(3 * PART + 17),
        "tokenizer/vocab.txt": b"hello",
        "README.md": b"# a model card",
    }
    assert seal(world, plain).recognised


def test_an_object_that_changes_while_it_is_sealed_is_an_error(world: World, plain: DirectoryStore) -> None:
    class Swapped:
        """The store, in which one object is another one after its first read."""

        def __init__(self) -> None:
            self.swapped = False

        def __getattr__(self, name: str) -> Any:
            return getattr(plain, name)

        def get_range(self, key: str, start: int, length: int) -> bytes:
            data = plain.get_range(key, start, length)
            if key == "weights.bin":
                self.swapped = True
            return data

        def stat(self, key: str) -> ObjectInfo | None:
            info = plain.stat(key)
            if self.swapped and info is not None and key == "weights.bin":
                return ObjectInfo(info.key, info.size, "another-etag")
            return info

    with pytest.raises(SourceChangedError, match=r"weights\.bin"):
        seal(world, Swapped())
    assert not [info for info in world.store.list() if info.key.endswith("manifest.dsse.json")]


def test_an_empty_store_and_a_wrong_address_are_said(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no file"):
        StoreTree(DirectoryStore(tmp_path / "none")).scan()
    with pytest.raises(SourceError, match="expected a path"):
        open_source("ftp://host/model", lambda uri: DirectoryStore(tmp_path))
