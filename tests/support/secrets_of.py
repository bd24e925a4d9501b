"""Every secret of a deployment and of the story that is told on it, for the search of `tests.support.canary`."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from activities.custody.keys import load_or_make
from artifacts.custody.base import KeyProvider
from artifacts.custody.local import LocalKeyring
from artifacts.custody.shares import combine, open_share, unlock
from artifacts.keys import HybridIdentity, partner_identity, unwrap_half, unwrap_root
from artifacts.manifest import Manifest, parse_manifest, wrapped_root_key
from artifacts.stores.base import Store
from infra.demo_sealing import HOLDERS
from infra.demo_story import Story
from infra.demo_telling import Model
from infra.settings import Settings
from tests.support.canary import Secret

#: Where the story's people lay what is theirs in clear.
OWNERS = ("model", "partner", "public", "leaker", "pipeline", "people")


def of_weights(model: Model) -> Iterator[Secret]:
    """Pieces of the weights, from all over the file."""
    weights = model.weights.read_bytes()
    for offset in range(100_000, len(weights) - 64, 500_000):
        yield Secret(f"weights at {offset}", weights[offset : offset + 48])


def of_texts() -> Iterator[Secret]:
    """What the story's documents say."""
    yield Secret("text of an evaluation", b"Retrieval and similarity as published.")
    yield Secret("text of an assessment", b"Examined for the demo.")


def of_people(story: Story) -> Iterator[Secret]:
    """Tokens, and the keys of people, partners and deployments: no process of the service ever needs one."""
    for name, token in story.cast.tokens.items():
        yield Secret(f"token of {name}", token.encode())
    for name in ("ada", "ben", "chloe", "dev", "elif"):
        key = story.cast[name].key
        assert key is not None
        yield Secret(f"signing key of {name}", key.seed())
        share = story.cast[name].share_key
        if share is not None:
            yield Secret(f"key of {name}'s shares", share.read_bytes().strip())
    for name, pair in story.keys.items():
        yield Secret(f"key of {name}", pair.identity.encode())


def of_files(settings: Settings) -> Iterator[Secret]:
    """What lies in secret files, as text and as the bytes that the text stands for; their home is the file."""
    for name, whole in (
        ("the operator's token", settings.effective_operator_token_file),
        ("the keyring's passphrase", settings.keyring_passphrase_file),
        ("the mail server with its password", settings.mail_url_file),
    ):
        if whole is not None:
            yield Secret(name, whole.read_bytes().strip(), (whole,))
    for file in (
        settings.effective_codec_keys_file,
        settings.effective_document_keys_file,
        settings.effective_webhook_keys_file,
        settings.effective_verdict_keys_file,
        settings.effective_transfer_signing_key_file,
        settings.effective_model_signing_key_file,
    ):
        assert file is not None
        words = re.findall(rb"[A-Za-z0-9+/_-]{40,}={0,2}", file.read_bytes())
        assert words, file
        for number, word in enumerate(words):
            yield Secret(f"{file.name} {number}", word, (file,))
            with suppress(ValueError):
                yield Secret(f"{file.name} {number}, decoded", base64.b64decode(word, validate=True), (file,))


def of_custody(
    settings: Settings,
    provider: KeyProvider,
    store: Store,
    artifacts: Mapping[str, str],
    story: Story,
) -> Iterator[Secret]:
    """Custody's own keys, and what opens each artifact (id → manifest digest): none of it lies anywhere in clear.

    That is the root key; for an artifact with key shares also custody's half, each share, and what shares make.
    """
    keys = load_or_make(settings.effective_custody_keys_file, provider, settings.custody_log_name)
    yield Secret("custody's identity", keys.identity.secret_string().encode())
    yield Secret("key of envelopes", keys.envelopes.secret_string().encode())
    if isinstance(provider, LocalKeyring):
        for version, key in provider._keys.versions.items():
            yield Secret(f"key-encryption key {version}", key)
    for artifact, digest in artifacts.items():
        wrapped = _read(store, wrapped_root_key(artifact)).decode()
        manifest = parse_manifest(
            _read(store, f"artifacts/{artifact}/manifest.dsse.json"),
            expected_digest=digest.removeprefix("sha256:"),
        )
        if manifest.shares is None:
            root = unwrap_root(wrapped, keys.identity, digest.removeprefix("sha256:"))
            yield Secret(f"root key of {artifact}", root.raw)
        else:
            yield from _of_shares(manifest, wrapped, keys.identity, digest, story)


def _of_shares(
    manifest: Manifest, wrapped: str, custody: HybridIdentity, digest: str, story: Story
) -> Iterator[Secret]:
    record, artifact = manifest.shares, manifest.artifact_id
    assert record is not None
    half = unwrap_half(
        wrapped,
        custody,
        digest.removeprefix("sha256:"),
        artifact_id=artifact,
        set_id=record.set_id,
        commitment=record.half,
    )
    yield Secret(f"custody's half of {artifact}", half.raw)
    shares = []
    for name in HOLDERS:
        file = story.cast[name].share_key
        assert file is not None
        shares.append(open_share(record, artifact, name, partner_identity(file.read_text().strip())))
        yield Secret(f"share of {name} in {artifact}", shares[-1].words.encode())
    secret = combine(record, artifact, shares[: record.threshold])
    yield Secret(f"what the shares of {artifact} make", secret)
    yield Secret(f"root key of {artifact}", unlock(record, artifact, half, secret).raw)


def _read(store: Store, key: str) -> bytes:
    info = store.stat(key)
    assert info is not None, key
    return store.get_range(key, 0, info.size)


def owned(folder: Path) -> list[Path]:
    """The folders of the story's people."""
    return [folder / name for name in OWNERS]
