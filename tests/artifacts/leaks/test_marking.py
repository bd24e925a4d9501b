"""A marked copy made from its sealed form: the same bytes as marking the whole file, wherever a read begins."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from artifacts.envelope import EnvelopePayload, file_keys
from artifacts.errors import ArtifactError
from artifacts.keys import custody_identity, custody_keygen, unwrap_root
from artifacts.leaks import MarkError, MarkKey, PartnerMark
from artifacts.leaks.marking import IssuedDigests, MarkedTree, issued_from_json
from artifacts.manifest import open_inner, parse_manifest
from artifacts.opened import OpenedArtifact
from artifacts.progress import Progress
from artifacts.sealing import SealedArtifact, seal_tree
from artifacts.signing import SigningKey
from artifacts.stores.directory import DirectoryStore
from tests.simulators import transformations as t

KEY = MarkKey(bytes(range(32)))
CUSTODY = custody_keygen()
SIGNER = SigningKey.generate()
ACME = PartnerMark(KEY, "model-1", "acme")


def sealed(folder: Path, store: DirectoryStore, **components: str) -> tuple[SealedArtifact, EnvelopePayload]:
    done = seal_tree(
        folder,
        store,
        custody_recipient=CUSTODY.recipient,
        signer=SIGNER,
        components=components,
        part_size=1 << 18,
    )
    return done, payload_of(done)


def payload_of(done: SealedArtifact) -> EnvelopePayload:
    manifest = parse_manifest(done.manifest, expected_digest=done.manifest_digest)
    root = unwrap_root(done.wrapped_root, custody_identity(CUSTODY.identity), manifest.digest)
    return EnvelopePayload(
        manifest.artifact_id,
        manifest.digest,
        "r",
        "s",
        "g",
        file_keys(root, manifest),
        datetime.now(UTC),
        None,
    )


@pytest.fixture(params=["F32", "F16", "BF16"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[OpenedArtifact, bytes]]:
    weights = t.synthetic(np.random.default_rng(5), hidden=96, vocabulary=1000)
    (path,) = t.write(t.Leak(weights, form=request.param), tmp_path / "plain")
    (tmp_path / "plain" / "tokenizer.json").write_text("{}")
    store = DirectoryStore(tmp_path / "store")
    done, payload = sealed(tmp_path / "plain", store, weights="*.safetensors", tokenizer="tokenizer.json")
    with OpenedArtifact(store, done.manifest, payload) as artifact:
        yield artifact, path.read_bytes()


def whole(data: bytes, mark: PartnerMark = ACME) -> bytes:
    stream = mark.stream("m.safetensors")
    return stream.feed(data) + stream.finish()


def test_every_read_gives_what_marking_the_whole_file_gives(
    opened: tuple[OpenedArtifact, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact, data = opened
    expected = whole(data)
    assert expected != data
    monkeypatch.setattr("artifacts.leaks.marking.WINDOW", 50_001)
    file = next(f for f in MarkedTree(artifact, {"weights": ACME}).scan() if f.path.endswith(".safetensors"))
    source = file.open()
    assert not isinstance(source, int)
    rng = np.random.default_rng(1)
    places = [0, 1, 7, len(data) - 1, *(int(n) for n in rng.integers(0, len(data), 60))]
    for offset in places:
        into = bytearray(int(rng.integers(1, 70_000)))
        count = source.read_at(memoryview(into), offset)
        assert bytes(into[:count]) == expected[offset : offset + count], offset
        assert count > 0
    source.close()


def test_the_copy_is_sealed_under_a_key_of_its_own_with_the_digests_that_attribute_it(
    opened: tuple[OpenedArtifact, bytes], tmp_path: Path
) -> None:
    artifact, data = opened
    store = DirectoryStore(tmp_path / "store")
    done = seal_tree(
        MarkedTree(artifact, {"weights": ACME}),
        store,
        custody_recipient=CUSTODY.recipient,
        signer=SIGNER,
        components={"weights": "*.safetensors", "tokenizer": "tokenizer.json"},
        observers=[IssuedDigests("acme")],
        part_size=1 << 18,
    )
    with OpenedArtifact(store, done.manifest, payload_of(done)) as copy:
        path = next(p for p in copy.paths() if p.endswith(".safetensors"))
        assert copy.open(path).read() == whole(data)
        assert copy.open("tokenizer.json").read() == b"{}"
        payload = payload_of(done)
        inner = open_inner(done.artifact_id, copy.manifest.file(path), payload.key(path))
        assert inner.signatures is not None
        found = issued_from_json(inner.signatures["issued"], "acme")
    assert found.sha256 == hashlib.sha256(whole(data)).hexdigest()
    assert found.distinctive
    assert found.btv2_root is not None
    assert (found.copy, found.size) == ("acme", len(data))
    stolen = replace(payload, keys=artifact._payload.keys)
    with OpenedArtifact(store, done.manifest, stolen) as wrong, pytest.raises(ArtifactError):
        wrong.open(path).read()


def test_a_cut_off_sealing_goes_on_with_every_stored_part(
    opened: tuple[OpenedArtifact, bytes], tmp_path: Path
) -> None:
    artifact, data = opened
    store = DirectoryStore(tmp_path / "store")

    class CutOffError(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.bytes_done > len(data) // 2:
            raise CutOffError

    arguments = {
        "custody_recipient": CUSTODY.recipient,
        "signer": SIGNER,
        "components": {"weights": "*.safetensors", "tokenizer": "tokenizer.json"},
        "observers": [IssuedDigests("acme")],
        "part_size": 1 << 16,
        "workers": 1,
        "artifact_id": "art-copyofacme",
        "state_dir": tmp_path / "tickets",
    }
    with pytest.raises(CutOffError):
        seal_tree(MarkedTree(artifact, {"weights": ACME}), store, progress=stop, **arguments)
    done = seal_tree(MarkedTree(artifact, {"weights": ACME}), store, **arguments)
    assert done.bytes_reused > len(data) // 3
    with OpenedArtifact(store, done.manifest, payload_of(done)) as copy:
        path = next(p for p in copy.paths() if p.endswith(".safetensors"))
        assert copy.open(path).read() == whole(data)


@pytest.mark.parametrize(
    ("extra", "component", "told"),
    [("weights/pytorch_model.bin", "weights", "unmarked copy"), (None, "tokenizer", "no matrix")],
)
def test_what_cannot_be_marked_is_refused(
    extra: str | None, component: str, told: str, tmp_path: Path
) -> None:
    folder = tmp_path / "plain"
    weights = t.synthetic(np.random.default_rng(5), hidden=32, vocabulary=100)
    t.write(t.Leak(weights), folder / "weights")
    (folder / "tokenizer.json").write_text("{}")
    if extra:
        (folder / extra).write_bytes(b"x" * 100)
    store = DirectoryStore(tmp_path / "store")
    done, payload = sealed(folder, store, weights="weights", tokenizer="tokenizer.json")
    with OpenedArtifact(store, done.manifest, payload) as artifact, pytest.raises(MarkError, match=told):
        MarkedTree(artifact, {component: ACME})
